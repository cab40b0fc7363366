//! The jobs of one set of data, tool by tool in turns, so that noise of the machine meets all alike.

use std::fs;
use std::path::{Path, PathBuf};

use super::data::{Data, Set};
use super::deltas;
use super::measure::{cool, quiet, run as measured};
use super::pool::Pool;
use super::report::{Results, Row};
use super::tools::Tool;

/// What is done with a set.
pub struct Plan<'a> {
    /// The set's name.
    pub name: &'a str,
    /// How often a job is done.
    pub runs: usize,
    /// How often the source changes.
    pub generations: usize,
    /// The program.
    pub program: &'a str,
    /// Restored trees are removed at once. ext4 does not use the inodes of deleted files for minutes, and searches long
    /// for others: removing many files makes what follows slow.
    pub few_files: bool,
    /// An empty directory.
    pub work: &'a Path,
}

/// A tool and its store.
struct Site<'a> {
    tool: &'a Tool,
    dir: PathBuf,
    /// How many backups it has made.
    runs: usize,
    /// How many it has restored.
    restores: usize,
    /// It failed; nothing more is asked of it.
    failed: bool,
}

impl Site<'_> {
    fn target(&self) -> PathBuf {
        self.dir.join(format!("target{}", self.restores))
    }
}

/// Makes the data, has all tools do all jobs, and adds what they cost to the results.
pub fn run(
    plan: &Plan,
    set: &Set,
    pool: Pool,
    tools: &[&Tool],
    results: &mut Results,
) -> Result<(), String> {
    let mut data = Data::make(set, plan.work, pool)?;
    let mut sites: Vec<Site> = tools
        .iter()
        .map(|tool| Site {
            tool,
            dir: plan.work.join(tool.name),
            runs: 0,
            restores: 0,
            failed: false,
        })
        .collect();
    let mut bench = Bench { plan, results };
    for _ in 0..plan.runs {
        bench.all(&mut sites, "first", &data, Bench::first);
    }
    for _ in 0..plan.runs {
        bench.all(&mut sites, "unchanged", &data, Bench::backup);
    }
    if cool() {
        bench.all(
            &mut sites,
            "unchanged, cold",
            &data,
            |bench, site, job, data| {
                cool();
                bench.backup(site, job, data)
            },
        );
        warm(&data, &sites)?;
    }
    for _ in 0..plan.runs {
        data.touch()?;
        bench.all(&mut sites, "touched", &data, Bench::backup);
    }
    for number in 1..=plan.generations {
        data.change(number)?;
        bench.all(&mut sites, "changed", &data, Bench::backup);
        if number == 1 {
            deltas::run(plan, set, &data, bench.results)?;
        }
    }
    for _ in 0..plan.runs {
        bench.all(&mut sites, "restore newest", &data, Bench::newest);
    }
    for _ in 0..plan.runs {
        bench.all(&mut sites, "restore oldest", &data, Bench::oldest);
    }
    bench.all(
        &mut sites,
        "restore newest, cold",
        &data,
        |bench, site, job, data| {
            if cool() {
                bench.newest(site, job, data)
            } else {
                Ok(())
            }
        },
    );
    warm(&data, &sites)?;
    bench.all(&mut sites, "verify", &data, Bench::verify);
    Ok(())
}

struct Bench<'a> {
    plan: &'a Plan<'a>,
    results: &'a mut Results,
}

type Job<'a> = fn(&mut Bench<'a>, &mut Site, &str, &Data) -> Result<(), String>;

impl<'a> Bench<'a> {
    /// One job by each tool. One that fails is named and left out from then on.
    fn all(&mut self, sites: &mut [Site], job: &str, data: &Data, act: Job<'a>) {
        for site in sites.iter_mut().filter(|site| !site.failed) {
            if let Err(error) = act(self, site, job, data) {
                site.failed = true;
                let said = format!("{}, {job}: {}: {error}", self.plan.name, site.tool.name);
                eprintln!("{said}");
                self.results.failures.push(said);
            }
        }
    }

    fn env(&self, site: &Site, data: &Data) -> Vec<(String, String)> {
        let store = site.dir.join("store").display().to_string();
        let home = site.dir.join("home").display().to_string();
        let pairs = [
            ("SRC", data.live.display().to_string()),
            ("TARGET", site.target().display().to_string()),
            ("LABEL", format!("g{}", site.runs)),
            ("RUN", site.runs.saturating_sub(1).to_string()),
            ("BTW", self.plan.program.to_owned()),
            ("RESTIC_REPOSITORY", store.clone()),
            ("RESTIC_PASSWORD", "benchmark".to_owned()),
            ("RUSTIC_REPOSITORY", store.clone()),
            ("RUSTIC_PASSWORD", "benchmark".to_owned()),
            (
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK",
                "yes".to_owned(),
            ),
            ("BUPSTASH_REPOSITORY", format!("{store}/bupstash")),
            ("XDG_CACHE_HOME", format!("{home}/.cache")),
            ("STORE", store),
            ("HOME", home),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn measure(&mut self, site: &Site, job: &str, script: &str, data: &Data) -> Result<(), String> {
        let log = site.dir.join("log");
        let cost = measured(script, &self.env(site, data), &site.dir, &log)?;
        let store = length(&site.dir.join("store"))?;
        eprintln!(
            "{:>12}  {:<22} {:<14} {:8.2} s  {:8.2} s cpu  {:5} MiB  store {:7.1} MB",
            self.plan.name,
            job,
            site.tool.name,
            cost.wall,
            cost.cpu,
            cost.rss >> 20,
            crate::report::mb(store)
        );
        self.results.rows.push(Row {
            set: self.plan.name.to_owned(),
            job: job.to_owned(),
            tool: site.tool.name.to_owned(),
            store,
            cost,
        });
        Ok(())
    }

    /// The first backup, into a new store.
    fn first(&mut self, site: &mut Site, job: &str, data: &Data) -> Result<(), String> {
        let _ = fs::remove_dir_all(&site.dir);
        for part in ["store", "home"] {
            fs::create_dir_all(site.dir.join(part)).map_err(|error| error.to_string())?;
        }
        site.runs = 0;
        quiet(site.tool.init, &self.env(site, data))?;
        self.backup(site, job, data)
    }

    fn backup(&mut self, site: &mut Site, job: &str, data: &Data) -> Result<(), String> {
        if site.runs > 0 && site.tool.oldest.is_empty() {
            return Ok(());
        }
        // rdiff-backup knows versions by the second.
        std::thread::sleep(std::time::Duration::from_millis(
            if site.tool.name == "rdiff-backup" {
                1000
            } else {
                0
            },
        ));
        self.measure(site, job, site.tool.backup, data)?;
        site.runs += 1;
        Ok(())
    }

    fn newest(&mut self, site: &mut Site, job: &str, data: &Data) -> Result<(), String> {
        let only_first = site.tool.oldest.is_empty();
        let same_as = if only_first { &data.first } else { &data.live };
        self.restore(site, job, site.tool.newest, data, same_as)
    }

    fn oldest(&mut self, site: &mut Site, job: &str, data: &Data) -> Result<(), String> {
        if site.tool.oldest.is_empty() {
            return Ok(());
        }
        self.restore(site, job, site.tool.oldest, data, &data.first)
    }

    /// Restores into a new directory and compares with what it must be.
    fn restore(
        &mut self,
        site: &mut Site,
        job: &str,
        script: &str,
        data: &Data,
        same_as: &Path,
    ) -> Result<(), String> {
        let target = site.target();
        fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        self.measure(site, job, script, data)?;
        let mut root = target.clone();
        // Some tools restore into a directory of the source's path or name.
        let first = top_entry(same_as)?;
        while root.join(&first).symlink_metadata().is_err() {
            root = root.join(top_entry(&root)?);
        }
        let pairs = [("A", same_as), ("B", &*root)];
        quiet("diff -rq --no-dereference $A $B", &super::data::env(&pairs))
            .map_err(|error| format!("not restored as it was: {error}"))?;
        if self.plan.few_files {
            fs::remove_dir_all(&target).map_err(|error| error.to_string())?;
        }
        site.restores += 1;
        Ok(())
    }

    fn verify(&mut self, site: &mut Site, job: &str, data: &Data) -> Result<(), String> {
        if site.tool.verify.is_empty() {
            return Ok(());
        }
        self.measure(site, job, site.tool.verify, data)
    }
}

/// Reads the source and all stores, so that what follows finds them in the page cache.
fn warm(data: &Data, sites: &[Site]) -> Result<(), String> {
    let stores = sites.iter().map(|site| site.dir.clone());
    let mut dirs = stores.chain([data.live.clone()]);
    dirs.try_for_each(|dir| {
        let script =
            "find $DIR -name 'target[0-9]*' -prune -o -type f -print0 | xargs -0 -r cat > /dev/null";
        quiet(script, &super::data::env(&[("DIR", &dir)])).map(drop)
    })
}

fn top_entry(dir: &Path) -> Result<std::ffi::OsString, String> {
    let mut entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let entry = entries
        .next()
        .ok_or_else(|| format!("{}: nothing in it", dir.display()))?;
    Ok(entry.map_err(|error| error.to_string())?.file_name())
}

/// The length of all files below a directory.
fn length(dir: &Path) -> Result<u64, String> {
    let said = quiet(
        "du -sb --apparent-size $DIR | cut -f1",
        &super::data::env(&[("DIR", dir)]),
    )?;
    said.trim().parse().map_err(|_| format!("du said {said}"))
}
