//! What there is to be said, from wherever it can be learned. What cannot be read is a finding, never an end.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::super::exit::Exit;
use super::super::remotes::Remotes;
use super::super::run::{Job, Jobs};
use super::super::{Context, owner, schedule, stores, sync};
use super::Status;
use super::everything::{free, records};
use crate::catalog::Version;
use crate::config::general::General;
use crate::config::sync_state::SyncState;
use crate::config::workdir::Seen;
use crate::error::{Error, with_causes};
use crate::format::journal::Journal;
use crate::format::verified::Verified;
use crate::plan::health::{Duty, Facts, Finding, Lag, Level, Limits, judge};
use crate::store::Store;
use crate::time::parse_span;

/// A store, or one that should be there.
pub struct StoreFound {
    pub name: String,
    /// The job that backs up into it.
    pub job: Option<String>,
    pub last_good: Option<Timestamp>,
    pub last_ran: Option<Timestamp>,
    pub versions: Vec<Version>,
    pub verified: Option<Timestamp>,
    pub is_damaged: bool,
    pub copies: Vec<(String, Lag)>,
    pub findings: Vec<Finding>,
}

/// The space in which stores lie.
#[derive(Clone, Copy)]
pub struct Free {
    pub free_bytes: u64,
    pub days_left: Option<u64>,
}

/// All that was found.
pub struct Found {
    pub now: Timestamp,
    pub stores: Vec<StoreFound>,
    /// About everything.
    pub findings: Vec<Finding>,
    pub free: Option<Free>,
    /// The end of the last `run`.
    pub last_run: Option<Timestamp>,
}

impl StoreFound {
    pub fn worst(&self) -> Level {
        worst(&self.findings)
    }

    pub fn partial(&self) -> u64 {
        self.versions
            .iter()
            .filter(|version| version.is_partial())
            .count() as u64
    }
}

impl Found {
    pub fn worst(&self) -> Level {
        let stores = self.stores.iter().map(StoreFound::worst);
        stores
            .chain([worst(&self.findings)])
            .max()
            .unwrap_or(Level::Ok)
    }

    /// The age of the oldest of all last good backups.
    pub fn oldest_seconds(&self) -> Option<i64> {
        let last = |store: &StoreFound| store.last_good;
        let oldest = self.stores.iter().filter_map(last).min();
        oldest.map(|oldest| self.now.duration_since(oldest).as_secs())
    }
}

fn worst(findings: &[Finding]) -> Level {
    let levels = findings.iter().map(|finding| finding.level);
    levels.max().unwrap_or(Level::Ok)
}

pub fn gather(context: &Context, args: &Status) -> Result<Found, Error> {
    let now = Timestamp::now();
    let mut found = Found {
        now,
        stores: Vec::new(),
        findings: Vec::new(),
        free: None,
        last_run: None,
    };
    let asked = |text: &Option<String>, name: &str| {
        let span = text.as_deref().map(parse_span).transpose();
        span.map_err(|error| Error::Usage(format!("--{name}: {error}")))
    };
    let asked = (
        asked(&args.max_age, "max-age")?,
        asked(&args.verified_within, "verified-within")?,
    );
    let trusted = owner::refuse_foreign_config(context);
    let general = trusted.and_then(|()| stores::existing_config(context));
    match &general {
        Ok(general) => look(context, general, asked, &mut found),
        Err(error) => found.findings.push(critical(error)),
    }
    records(context, general.as_ref().ok(), &mut found);
    Ok(found)
}

fn critical(error: &Error) -> Finding {
    let level = match Exit::of(error) {
        Exit::Damage => Level::Damage,
        _ => Level::Critical,
    };
    Finding::new(level, with_causes(error).replace('\n', " "))
}

fn look(
    context: &Context,
    general: &General,
    asked: (Option<SignedDuration>, Option<SignedDuration>),
    found: &mut Found,
) {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    match Jobs::all(context, general) {
        Ok(all) => {
            let wrong = all
                .wrong
                .into_iter()
                .map(|(_, why)| Finding::new(Level::Critical, why));
            found.findings.extend(wrong);
            jobs.extend(all.jobs.into_iter().map(|job| (job.dst.clone(), job)));
        }
        Err(error) => found.findings.push(critical(&error)),
    }
    if let Some(Err(why)) = &general.ebs {
        found
            .findings
            .push(Finding::new(Level::Critical, why.clone()));
    }
    if schedule::is_stale(context, general) {
        let text = "the systemd unit is not the one that this configuration needs: btw-backup schedule install";
        found.findings.push(Finding::new(Level::Warning, text));
    }
    for (name, notifier) in &general.notifiers {
        let wrong = notifier.as_ref().err();
        let text = wrong.map(|why| format!("nobody can be told by {name}: {why}"));
        found
            .findings
            .extend(text.map(|text| Finding::new(Level::Warning, text)));
    }
    if let Err(error) = stores::require_root(general) {
        found.findings.push(critical(&error));
        return;
    }
    let (mut names, unread) = stores::find(&general.root_path);
    found.findings.extend(unread.iter().map(critical));
    let missing = jobs.keys().filter(|dst| !names.contains(dst)).cloned();
    names.extend(missing.collect::<Vec<_>>());
    names.sort();
    let remotes = Remotes::of(general);
    let journal = SyncState::new(&context.config_dir).read();
    let journal = journal.unwrap_or_else(|error| {
        found.findings.push(critical(&error));
        None
    });
    let looker = Looker {
        general,
        remotes: &remotes,
        journal: &journal.unwrap_or_default(),
        asked,
        now: found.now,
    };
    for name in names {
        let job = jobs.get(&name);
        found.stores.push(looker.store(name, job));
    }
    for name in remotes.names() {
        let wrong = remotes.config(name).err();
        let text = wrong.map(|why| format!("nothing is copied to {name}: {}", with_causes(&why)));
        found
            .findings
            .extend(text.map(|text| Finding::new(Level::Critical, text)));
    }
    if found.stores.is_empty() {
        let text =
            "nothing is backed up yet: btw-backup fs --init SRC DST, or [job.NAME] in config.toml";
        found.findings.push(Finding::new(Level::Critical, text));
    }
    free(general, found);
}

struct Looker<'a> {
    general: &'a General,
    remotes: &'a Remotes,
    journal: &'a Journal,
    asked: (Option<SignedDuration>, Option<SignedDuration>),
    now: Timestamp,
}

impl Looker<'_> {
    fn store(&self, name: String, job: Option<&Job>) -> StoreFound {
        let seen = job.and_then(|job| job.seen);
        let mut store = StoreFound {
            job: job.map(|job| job.name.clone()),
            last_good: seen.and_then(|seen| seen.good),
            last_ran: seen.and_then(|seen| seen.ran),
            versions: Vec::new(),
            verified: None,
            is_damaged: false,
            copies: Vec::new(),
            findings: Vec::new(),
            name,
        };
        let is_there = self.general.root_path.join(&store.name).is_dir();
        if is_there {
            if let Err(error) = self.read(&mut store, seen) {
                store.findings.push(critical(&error));
            }
        } else if seen.is_some() {
            let text = "the store is not where it was in the last run: is its disk mounted?";
            store.findings.push(Finding::new(Level::Critical, text));
        }
        let facts = Facts {
            duty: match job {
                None => Duty::Nobody,
                Some(job) if job.is_enabled => Duty::Job,
                Some(_) => Duty::Disabled,
            },
            last_good: store.last_good,
            last_ran: store.last_ran,
            first: seen.and_then(|seen| seen.first),
            versions: store
                .versions
                .iter()
                .map(|version| (version.time, version.is_partial()))
                .collect(),
            verified: store.verified,
            is_damaged: store.is_damaged,
            copies: store.copies.clone(),
        };
        if store.findings.is_empty() {
            store.findings = judge(&facts, self.limits(job), self.now);
        }
        if let Some(Err(why)) = job.map(|job| &job.what) {
            // Somebody else may see to it; whether that is so, its age says.
            let level = if seen.is_some() {
                Level::Ok
            } else {
                Level::Warning
            };
            store.findings.push(Finding::new(level, why.clone()));
        }
        if store.last_good.is_none() {
            // What is not recorded may be seen.
            let complete = store
                .versions
                .iter()
                .rev()
                .find(|version| !version.is_partial());
            store.last_good = complete.map(|version| version.time);
        }
        store
    }

    /// What is typed counts before the job, that before what holds for all.
    fn limits(&self, job: Option<&Job>) -> Limits {
        let usual = self.general.status;
        let own = job.and_then(|job| {
            // A job of every week is not late after a day.
            let by_pace = job.every.map(|every| usual.max_age.max(every * 5 / 4));
            job.max_age.or(by_pace)
        });
        Limits {
            max_age: self.asked.0.or(own).unwrap_or(usual.max_age),
            verified_within: self.asked.1.unwrap_or(usual.verified_within),
        }
    }

    fn read(&self, found: &mut StoreFound, seen: Option<Seen>) -> Result<(), Error> {
        let store = stores::open(self.general, &found.name)?;
        // On a disk that cannot be written to there is no lock, and nobody who removes something.
        let _guard = store.lock_reader().ok();
        let state = store.current()?;
        if seen.is_some_and(|seen| seen.store != state.store || seen.state > state.number) {
            return Err(Error::Refused(
                "another store, or an older copy, lies here than in the last run: btw-backup verify says more".into(),
            ));
        }
        found.versions = store.versions(&state)?;
        let verified: Option<Verified> = store.verified();
        found.is_damaged = verified.as_ref().is_some_and(|verified| !verified.is_sound);
        found.verified = verified.and_then(|verified| verified.last_full);
        found.copies = self.copies(&store, found)?;
        Ok(())
    }

    fn copies(&self, store: &Store, found: &StoreFound) -> Result<Vec<(String, Lag)>, Error> {
        let current = sync::newest_number(store)?;
        let mut copies = Vec::new();
        for name in self.remotes.names() {
            // What is wrong with a remote is said once.
            let Ok(config) = self.remotes.config(name) else {
                continue;
            };
            if !config.takes(&found.name).unwrap_or(false) {
                continue;
            }
            let copy = self.remotes.copy(name, &found.name)?;
            let lag = match self.journal.done.get(&copy) {
                None => Lag::Never,
                Some(state) if *state == current => Lag::None,
                Some(_) => {
                    let at = self.journal.done_at.get(&copy).copied();
                    let later = |version: &&Version| at.is_none_or(|at| version.time > at);
                    let first = found.versions.iter().find(later);
                    // A state may have no new version: then only what is pinned or deleted is not there yet.
                    first.map_or(Lag::Other, |first| Lag::Since(first.time))
                }
            };
            copies.push((name.to_owned(), lag));
        }
        Ok(copies)
    }
}
