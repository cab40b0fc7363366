//! Results as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::measure::Cost;
use super::plot;

/// One job done once by one tool.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The set of data.
    pub set: String,
    /// What was done.
    pub job: String,
    /// By whom.
    pub tool: String,
    /// The length of its store afterwards, or of the delta.
    pub store: u64,
    /// What it cost.
    pub cost: Cost,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Processors of the machine.
    pub cores: usize,
    /// What was measured.
    pub program: String,
    /// Tools and their versions.
    pub versions: Vec<(String, String)>,
    /// Tools that are not on the machine.
    pub missing: Vec<String>,
    /// What went wrong.
    pub failures: Vec<String>,
    /// In the order of the runs.
    pub rows: Vec<Row>,
}

/// How the results call the tool that is measured.
pub const OURS: &str = "btw-backup";

/// Keeps one version only: shown, but no peer for the ratio.
const ONE_VERSION: &str = "tar+zstd";

/// What is shown of a job.
struct Figure {
    title: &'static str,
    of: fn(&Row) -> f64,
}

const FIGURES: [Figure; 5] = [
    Figure {
        title: "Seconds, until all is on the disk",
        of: |row| row.cost.wall,
    },
    Figure {
        title: "Seconds of processor time",
        of: |row| row.cost.cpu,
    },
    Figure {
        title: "Peak memory, MB",
        of: |row| mb(row.cost.rss),
    },
    Figure {
        title: "Written, MB",
        of: |row| mb(row.cost.written),
    },
    Figure {
        title: "Store afterwards (or delta), MB",
        of: |row| mb(row.store),
    },
];

/// Megabytes.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl Results {
    /// None yet.
    pub fn new(program: &str) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            program: program.to_owned(),
            versions: Vec::new(),
            missing: Vec::new(),
            failures: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Writes results.json, results.md and results.svg.
    pub fn save(&self, dir: &Path) -> Result<(), String> {
        let json = serde_json::to_string_pretty(self).expect("plain data");
        for (name, text) in [("results.json", json), ("results.md", self.markdown())] {
            fs::write(dir.join(name), text).map_err(|error| error.to_string())?;
        }
        plot::draw(self, &dir.join("results.svg"))
    }

    /// The distinct values of a column, in the order of their appearance.
    fn distinct<'a>(&'a self, of: impl Fn(&'a Row) -> Option<&'a str>) -> Vec<&'a str> {
        let mut seen = Vec::new();
        for value in self.rows.iter().filter_map(of) {
            if !seen.contains(&value) {
                seen.push(value);
            }
        }
        seen
    }

    /// All sets.
    pub fn sets(&self) -> Vec<&str> {
        self.distinct(|row| Some(&row.set))
    }

    /// The jobs of a set.
    pub fn jobs(&self, set: &str) -> Vec<&str> {
        self.distinct(|row| (row.set == set).then_some(&*row.job))
    }

    /// The tools that did a job of a set (any job if it is empty).
    pub fn tools(&self, set: &str, job: &str) -> Vec<&str> {
        self.distinct(|row| {
            (row.set == set && (job.is_empty() || row.job == job)).then_some(&*row.tool)
        })
    }

    /// The median of a figure.
    pub fn median(
        &self,
        set: &str,
        job: &str,
        tool: &str,
        of: impl Fn(&Row) -> f64,
    ) -> Option<f64> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.set == set && row.job == job && row.tool == tool);
        let mut values: Vec<f64> = rows.map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// A table for each set and figure, with the ratio of ours to the best peer.
    pub fn markdown(&self) -> String {
        let mut out = format!("{} cores. Medians.\n\n", self.cores);
        for (tool, version) in &self.versions {
            let _ = writeln!(out, "- {tool}: {version}");
        }
        for tool in &self.missing {
            let _ = writeln!(out, "- {tool}: not on this machine");
        }
        for failure in &self.failures {
            let _ = writeln!(out, "- failed: {failure}");
        }
        for set in self.sets() {
            for figure in &FIGURES {
                self.table(&mut out, set, figure);
            }
        }
        out
    }

    fn table(&self, out: &mut String, set: &str, figure: &Figure) {
        let tools = self.tools(set, "");
        let _ = writeln!(out, "\n### {set}: {}\n", figure.title);
        let _ = writeln!(
            out,
            "| job | {} | ours / best that keeps versions |",
            tools.join(" | ")
        );
        let _ = writeln!(out, "|---|{}---:|", "---:|".repeat(tools.len()));
        for job in self.jobs(set) {
            let values: Vec<Option<f64>> = tools
                .iter()
                .map(|tool| self.median(set, job, tool, figure.of))
                .collect();
            let cells: Vec<String> = values
                .iter()
                .map(|value| value.map_or(String::new(), |value| format!("{value:.2}")))
                .collect();
            let ours = tools
                .iter()
                .zip(&values)
                .find(|(tool, _)| **tool == OURS)
                .and_then(|(_, value)| *value);
            let peers = tools
                .iter()
                .zip(&values)
                .filter(|(tool, _)| ![OURS, ONE_VERSION].contains(*tool));
            let best = peers.filter_map(|(_, value)| *value).reduce(f64::min);
            let ratio = match (ours, best) {
                (Some(ours), Some(best)) if best > 0.0 => format!("{:.2}", ours / best),
                _ => String::new(),
            };
            let _ = writeln!(out, "| {job} | {} | {ratio} |", cells.join(" | "));
        }
    }
}
