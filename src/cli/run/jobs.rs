//! What there is to be backed up: jobs of the configuration, and sources that were backed up before.

use jiff::SignedDuration;

use super::super::Context;
use crate::config::dump::DumpSource;
use crate::config::general::General;
use crate::config::inventory::{self, Known, SourceName};
use crate::config::job::{Hooks, JobConfig, What};
use crate::config::keeping::Keeping;
use crate::config::workdir::{Seen, Workdir};
use crate::error::Error;

/// Something that is backed up into a store.
pub struct Job {
    /// How it is called.
    pub name: String,
    /// What it is, or why that cannot be said.
    pub what: Result<What, String>,
    /// The store.
    pub dst: String,
    /// Not more often than this.
    pub every: Option<SignedDuration>,
    /// The store is too old after this.
    pub max_age: Option<SignedDuration>,
    /// Whose the store is.
    pub user: Option<String>,
    /// Block devices that are read.
    pub read_special: Vec<String>,
    /// Whether runs do it.
    pub is_enabled: bool,
    /// Programs around it.
    pub hooks: Hooks,
    /// What is known of the store.
    pub seen: Option<Seen>,
    /// Its source's working directory, if there is one.
    pub work: Option<Workdir>,
}

/// All of them.
pub struct Jobs {
    /// In the order in which they are done.
    pub jobs: Vec<Job>,
    /// Jobs of the configuration that cannot be understood, and why.
    pub wrong: Vec<(String, String)>,
}

impl Jobs {
    /// Those of a configuration.
    pub fn all(context: &Context, general: &General) -> Result<Self, Error> {
        let known = inventory::all(&context.config_dir)?;
        let (mut jobs, mut wrong) = (Vec::new(), Vec::new());
        for (name, config) in &general.jobs {
            match config {
                Ok(config) => jobs.push(Job::configured(name, config, &known)),
                Err(why) => wrong.push((name.clone(), why.clone())),
            }
        }
        for known in known {
            for job in Job::known(known) {
                let is_configured = |other: &Job| other.dst == job.dst;
                if jobs.iter().any(is_configured) {
                    continue;
                }
                let is_taken = jobs.iter().any(|other| other.name == job.name);
                jobs.push(if is_taken {
                    Job {
                        name: format!("{} (set up by hand)", job.name),
                        ..job
                    }
                } else {
                    job
                });
            }
        }
        Ok(Self { jobs, wrong })
    }
}

fn name_of(what: &What) -> SourceName {
    match what {
        What::Tree(path) => SourceName::Tree(path.clone()),
        What::Database(dump) | What::Command(dump, _) => SourceName::Dump(dump.clone()),
    }
}

fn seen_of(known: &Known, dst: &str) -> Option<Seen> {
    let found = known.stores.iter().find(|(name, _)| name == dst)?;
    found.1.as_ref().ok().copied()
}

impl Job {
    fn configured(name: &str, config: &JobConfig, known: &[Known]) -> Self {
        let source = name_of(&config.what);
        let known = known.iter().find(|known| known.source == source);
        Self {
            name: name.to_owned(),
            what: Ok(config.what.clone()),
            dst: config.dst.clone(),
            every: config.every,
            max_age: config.max_age,
            user: config.user.clone(),
            read_special: config.read_special.clone(),
            is_enabled: config.is_enabled,
            hooks: config.hooks.clone(),
            seen: known.and_then(|known| seen_of(known, &config.dst)),
            work: known.map(|known| known.work.clone()),
        }
    }

    /// The jobs that a source's working directory stands for: one for each store that it was backed up to.
    fn known(known: Known) -> Vec<Self> {
        let Known {
            source,
            name,
            work,
            stores,
            is_legacy,
        } = known;
        // What a command was is nowhere written.
        let what = match source {
            SourceName::Tree(path) => Ok(What::Tree(path)),
            SourceName::Dump(DumpSource::Command(name)) => Err(format!(
                "which program it was is not known; write [job.{name}] with command and dst into config.toml"
            )),
            SourceName::Dump(dump) => Ok(What::Database(dump)),
        };
        let job = |dst: String, what: Result<What, String>, seen: Option<Seen>| Self {
            name: dst.clone(),
            what,
            dst,
            every: None,
            max_age: None,
            user: None,
            read_special: Vec::new(),
            is_enabled: true,
            hooks: Hooks::default(),
            seen,
            work: Some(work.clone()),
        };
        let is_new = stores.is_empty();
        let mut jobs: Vec<Self> = stores
            .into_iter()
            // What is wrong with what was seen, the backup says.
            .map(|(dst, seen)| job(dst, what.clone(), seen.ok()))
            .collect();
        if let Ok(What::Tree(path)) = &what
            && is_new
        {
            // The Python tool's directories do not say to which store they belong.
            let what = if is_legacy {
                let path = path.display();
                Err(format!("say once where it goes: btw-backup fs {path} DST"))
            } else {
                what
            };
            jobs.push(job(name, what, None));
        }
        jobs
    }

    /// Which versions stay, if that is configured.
    pub fn keeping(&self) -> Result<Option<Keeping>, Error> {
        self.work.as_ref().map(Workdir::keeping).transpose()
    }
}
