//! `status`: whether all is well. It looks at what is there and at what runs have recorded, and depends on nothing else.

mod everything;
mod gather;
mod metrics;

use std::path::PathBuf;

use serde::Serialize;

use super::exit::Exit;
use super::output::Output;
use super::{Context, document};
use crate::config;
use crate::error::Error;
use crate::plan::health::{Finding, Level};
use gather::{Found, gather};

#[derive(clap::Args)]
pub struct Status {
    /// The last good backup must not be older than this [default: 26h, or `max_age` of the configuration]
    #[arg(long, value_name = "AGE")]
    pub max_age: Option<String>,
    /// All of a store must have been verified within this time [default: 30d, or `verified_within`]
    #[arg(long, value_name = "AGE")]
    pub verified_within: Option<String>,
    /// Answer as a Nagios plugin: one line, exit codes 0 to 3
    #[arg(long)]
    pub nagios: bool,
    /// Also write metrics for Prometheus to this file, which is replaced as a whole
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

#[derive(Serialize)]
struct FindingRow<'a> {
    level: &'static str,
    text: &'a str,
}

impl<'a> From<&'a Finding> for FindingRow<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            level: word(finding.level),
            text: &finding.text,
        }
    }
}

#[derive(Serialize)]
struct StoreRow<'a> {
    name: &'a str,
    job: Option<&'a str>,
    level: &'static str,
    last_good: Option<String>,
    last_ran: Option<String>,
    newest: Option<String>,
    versions: u64,
    partial: u64,
    verified: Option<String>,
    findings: Vec<FindingRow<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    level: &'static str,
    stores: Vec<StoreRow<'a>>,
    findings: Vec<FindingRow<'a>>,
    free_bytes: Option<u64>,
    days_left: Option<u64>,
    last_run: Option<String>,
}

pub fn run(context: &Context, args: &Status) -> Result<Exit, Error> {
    let found = gather(context, args)?;
    let worst = found.worst();
    let mut exit = match worst {
        Level::Ok => Exit::Done,
        Level::Warning => Exit::Warnings,
        Level::Critical => Exit::Failed,
        Level::Damage => Exit::Damage,
    };
    if let Some(path) = &args.metrics {
        let text = metrics::text(&found);
        // Others are to read it.
        if let Err(error) = config::write_for(path, &text, 0o644) {
            Output::error(&error);
            exit = exit.or(Exit::Failed);
        }
    }
    document::answer(&answer(&found));
    if args.nagios {
        Output::answer(&nagios(&found))?;
        return Ok(Exit::Plugin(match worst {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical | Level::Damage => 2,
        }));
    }
    let is_silent = context.output.quiet && worst == Level::Ok;
    if !context.output.json && !is_silent {
        Output::answer(&table(&found))?;
    }
    Ok(exit)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Critical => "CRITICAL",
        Level::Damage => "DAMAGE",
    }
}

/// A line for each store, the worst of it first.
fn table(found: &Found) -> String {
    let mut text = String::new();
    let width = found
        .stores
        .iter()
        .map(|store| store.name.chars().count())
        .max();
    let width = width.unwrap_or(0).max("everything".len());
    let mut line = |name: &str, findings: &[&Finding]| {
        let level = findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Ok);
        let mut sorted = findings.to_vec();
        sorted.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let words: Vec<&str> = sorted.iter().map(|finding| &*finding.text).collect();
        let level = word(level);
        text.push_str(&format!(
            "{level:<8}  {name:<width$}  {}\n",
            words.join("; ")
        ));
    };
    for store in &found.stores {
        let count = match store.versions.len() {
            1 => "1 version".to_owned(),
            count => format!("{count} versions"),
        };
        let count = Finding::new(Level::Ok, count);
        let findings: Vec<&Finding> = store.findings.iter().chain([&count]).collect();
        line(&store.name, &findings);
    }
    for finding in &found.findings {
        line("everything", &[finding]);
    }
    text
}

fn nagios(found: &Found) -> String {
    let worst = found.worst();
    let state = match worst {
        Level::Ok => "OK",
        Level::Warning => "WARNING",
        Level::Critical | Level::Damage => "CRITICAL",
    };
    let is_meant = |finding: &&Finding| finding.level > Level::Ok;
    let of_stores = found.stores.iter().flat_map(|store| {
        let findings = store.findings.iter().filter(is_meant);
        findings.map(|finding| (finding.level, format!("{}: {}", store.name, finding.text)))
    });
    let of_all = found.findings.iter().filter(is_meant);
    let of_all = of_all.map(|finding| (finding.level, finding.text.clone()));
    let mut bad: Vec<(Level, String)> = of_stores.chain(of_all).collect();
    bad.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let texts: Vec<String> = bad.into_iter().map(|(_, text)| text).collect();
    let count = found.stores.len();
    let what = if texts.is_empty() {
        format!("{count} stores are well")
    } else {
        texts.join("; ")
    };
    // What stands behind a bar is for programs.
    let what = what.replace(['|', '\n'], " ");
    // What is not known is U.
    let known = |number: Option<String>| number.unwrap_or_else(|| "U".to_owned());
    let oldest = known(found.oldest_seconds().map(|seconds| format!("{seconds}s")));
    let free = known(found.free.map(|free| format!("{}B", free.free_bytes)));
    format!("BTW-BACKUP {state} - {what} | stores={count} oldest={oldest} free={free}\n")
}

fn answer(found: &Found) -> Answer<'_> {
    use crate::time::rfc3339;
    let stores = found.stores.iter().map(|store| StoreRow {
        name: &store.name,
        job: store.job.as_deref(),
        level: word(store.worst()),
        last_good: store.last_good.map(rfc3339),
        last_ran: store.last_ran.map(rfc3339),
        newest: store.versions.last().map(|version| rfc3339(version.time)),
        versions: store.versions.len() as u64,
        partial: store.partial(),
        verified: store.verified.map(rfc3339),
        findings: store.findings.iter().map(FindingRow::from).collect(),
    });
    Answer {
        level: word(found.worst()),
        stores: stores.collect(),
        findings: found.findings.iter().map(FindingRow::from).collect(),
        free_bytes: found.free.map(|free| free.free_bytes),
        days_left: found.free.and_then(|free| free.days_left),
        last_run: found.last_run.map(rfc3339),
    }
}
