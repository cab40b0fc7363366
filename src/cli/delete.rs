//! `delete`, `undelete`, `gc`, `pin`, `unpin`: versions go, come back, or stay.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::deletion_args::{Changing, Delete, Gc, Pin, Undelete, Unpin};
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::progress::Progress;
use super::rows::{VersionName, ranges};
use super::stores::Opened;
use super::{Context, document, owner, stores};
use crate::catalog::version::{describe, resolve};
use crate::catalog::{StoreType, Version};
use crate::config::keeping::Keeping;
use crate::config::source::SourceConfig;
use crate::config::workdir::{Seen, Workdir};
use crate::error::Error;
use crate::format::state::State;
use crate::ops::delete::{self, Options, Report, space};
use crate::store::Store;
use crate::store::codec::Knobs;
use crate::store::collect::Difference;
use crate::time::When;

#[derive(Serialize)]
struct Answer<'a> {
    store: &'a str,
    versions: Vec<VersionName>,
    done: bool,
    gone_bytes: u64,
    new_bytes: u64,
}

const NOT_FREED: &str =
    "; somebody is reading in the store, so the next run removes what is not needed";

/// A store in which versions are to go or to come back.
pub struct Target {
    opened: Opened,
    work: Option<Workdir>,
    owner: Option<owner::Owner>,
}

impl Target {
    /// Opens and locks an existing store.
    pub fn open(context: &Context, changing: &Changing) -> Result<Self, Error> {
        let Changing { wait, user, dst } = changing;
        let general = stores::existing_config(context)?;
        let ownership = owner::of_store(context, None, user.as_deref(), dst)?;
        // It must be there: opening it to write would make it.
        let state = stores::open_trusted(&general, dst, &ownership)?.current()?;
        let work = owner::trusted_workdir(context, state.source_path())?;
        let opened = stores::open_to_write(&general, dst, &ownership, *wait)?;
        Ok(Self {
            opened,
            work,
            owner: ownership.wanted,
        })
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.opened.store
    }

    /// What is configured for its source here, if anything.
    pub fn keeping(&self) -> Result<Option<Keeping>, Error> {
        self.work.as_ref().map(Workdir::keeping).transpose()
    }

    /// For how long deleted versions can come back.
    pub fn grace(&self, now: bool) -> Result<SignedDuration, Error> {
        if now {
            return Ok(SignedDuration::ZERO);
        }
        let keeping = self.keeping()?;
        let keeping = keeping.unwrap_or_else(|| SourceConfig::new(StoreType::Rdiff).keeping);
        Ok(keeping.grace)
    }

    /// Remembers the state, so that an older copy of the store is known for what it is.
    pub fn remember(&self, dst: &str, state: &State) -> Result<(), Error> {
        let Some(work) = &self.work else {
            return Ok(());
        };
        let before = work.seen(dst)?;
        let seen = Seen {
            first: before.and_then(|seen| seen.first),
            ran: before.and_then(|seen| seen.ran),
            good: before.and_then(|seen| seen.good),
            ..Seen::new(state.store, state.number, self.owner)
        };
        work.remember(dst, seen)
    }
}

/// How versions are deleted now.
pub fn options(grace: SignedDuration, dry_run: bool) -> Options {
    Options {
        now: Timestamp::now(),
        grace,
        knobs: Knobs::REAL,
        dry_run,
    }
}

pub fn delete(context: &Context, args: &Delete) -> Result<Exit, Error> {
    let target = Target::open(context, &args.changing)?;
    let store = target.store();
    let versions = store.versions(&store.current()?)?;
    let doomed = named(&args.versions, &versions, &args.changing.dst)?;
    let options = options(target.grace(args.now)?, args.dry_run);
    let progress = Progress::new(context.output);
    let report = space::with_reserve(store, options.now, || {
        delete::delete(store, &doomed, &options, &progress)
    })?;
    if !args.dry_run {
        target.remember(&args.changing.dst, &report.state)?;
    }
    let exit = tell(context, &args.changing.dst, &report, &options);
    document::answer(&Answer {
        store: &args.changing.dst,
        versions: report.versions.iter().map(VersionName::from).collect(),
        done: !args.dry_run,
        gone_bytes: report.difference.gone_bytes,
        new_bytes: report.difference.new_bytes,
    });
    Ok(exit)
}

/// Says what was deleted, or would be.
pub fn tell(context: &Context, dst: &str, report: &Report, options: &Options) -> Exit {
    let names = names(&report.versions);
    let Difference {
        gone_bytes,
        new_bytes,
    } = report.difference;
    let bytes = if gone_bytes >= new_bytes {
        format!("{} less", output_bytes(gone_bytes - new_bytes))
    } else {
        format!("{} more", output_bytes(new_bytes - gone_bytes))
    };
    let (what, when) = match (options.dry_run, options.grace > SignedDuration::ZERO) {
        (true, _) => (
            "would be deleted",
            format!("; until then it needs {}", output_bytes(new_bytes)),
        ),
        (false, false) if !report.is_freed => ("deleted", NOT_FREED.to_owned()),
        (false, false) => ("deleted", String::new()),
        (false, true) => (
            "deleted",
            format!(
                ", from {} on; until then btw-backup undelete {dst} brings back what was deleted",
                local(options.now + options.grace)
            ),
        ),
    };
    context.output.info(&format!(
        "{dst}: {names} {what}; the store takes {bytes}{when}"
    ));
    warn(&report.problems)
}

/// Says what went wrong, and what that means for the exit status.
pub fn warn(problems: &[String]) -> Exit {
    for problem in problems {
        Output::warning(problem);
    }
    Exit::done(problems)
}

/// One or two versions with their times, of more the numbers.
fn names(versions: &[Version]) -> String {
    if versions.len() <= 2 {
        let names: Vec<String> = versions.iter().map(describe).collect();
        return names.join(" and ");
    }
    let seqs: Vec<u64> = versions.iter().map(|version| version.seq).collect();
    format!("{} versions ({})", versions.len(), ranges(&seqs))
}

fn local(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M").to_string()
}

/// The versions that are named: `v3`, `v3-v7`, `latest`, `latest~2`. Nothing is guessed.
fn named(names: &[String], versions: &[Version], dst: &str) -> Result<BTreeSet<u64>, Error> {
    let mut found = BTreeSet::new();
    for name in names {
        let one = |name: &str| {
            let when = exact(name).ok_or_else(|| {
                Error::Usage(format!(
                    "'{name}' names no version; write v3, v3-v7, latest or latest~2"
                ))
            })?;
            let version = resolve(versions, &when);
            version.map_err(|error| Error::Refused(format!("{dst}: {error}")))
        };
        match name.split_once('-') {
            None => drop(found.insert(one(name)?.seq)),
            Some((first, last)) => {
                let range = one(first)?.seq..=one(last)?.seq;
                let within = versions.iter().map(|version| version.seq);
                found.extend(within.filter(|seq| range.contains(seq)));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::Usage("no version is named".into()));
    }
    Ok(found)
}

fn exact(name: &str) -> Option<When> {
    let number = |text: &str| text.parse().ok();
    match name.strip_prefix('v') {
        Some(rest) => number(rest).map(When::Sequence),
        None if name == "latest" => Some(When::Latest { back: 0 }),
        None => {
            let back = number(name.strip_prefix("latest~")?)?;
            Some(When::Latest { back })
        }
    }
}

/// Versions that come back, or can.
fn answer_versions<'a>(store: &str, versions: impl Iterator<Item = &'a Version>, done: bool) {
    let versions: Vec<VersionName> = versions.map(VersionName::from).collect();
    document::answer(&serde_json::json!({ "store": store, "versions": versions, "done": done }));
}

pub fn undelete(context: &Context, args: &Undelete) -> Result<Exit, Error> {
    let target = Target::open(context, &args.changing)?;
    let (store, now) = (target.store(), Timestamp::now());
    let found = delete::deleted(store, &store.current()?, now)?;
    if args.dry_run || found.is_empty() {
        for (version, until) in &found {
            let until = local(*until);
            context.output.info(&format!(
                "{}: {} can come back until {until}",
                args.changing.dst,
                describe(version)
            ));
        }
        answer_versions(
            &args.changing.dst,
            found.iter().map(|(version, _)| version),
            false,
        );
        if found.is_empty() {
            return Err(Error::Refused(format!(
                "{}: there is nothing to bring back",
                args.changing.dst
            )));
        }
        return Ok(Exit::Done);
    }
    let gone: Vec<Version> = found.into_iter().map(|(version, _)| version).collect();
    let wanted = if args.versions.is_empty() {
        gone.iter().map(|version| version.seq).collect()
    } else {
        named(&args.versions, &gone, &args.changing.dst)?
    };
    let options = options(SignedDuration::ZERO, false);
    let report = delete::undelete(store, &wanted, &options, &Progress::new(context.output))?;
    target.remember(&args.changing.dst, &report.state)?;
    let names = names(&report.versions);
    answer_versions(&args.changing.dst, report.versions.iter(), true);
    context
        .output
        .info(&format!("{}: {names} brought back", args.changing.dst));
    Ok(warn(&report.problems))
}

pub fn gc(context: &Context, args: &Gc) -> Result<Exit, Error> {
    let target = Target::open(context, &args.changing)?;
    let (store, now) = (target.store(), Timestamp::now());
    let (state, is_freed) = space::with_reserve(store, now, || space::free(store, now, args.now))?;
    target.remember(&args.changing.dst, &state)?;
    let retained = state.retained.iter().map(|kept| kept.until);
    let until = retained.filter(|until| *until > now).max();
    let text = match (until, is_freed) {
        (_, false) => format!("nothing is removed yet{NOT_FREED}"),
        (Some(until), true) => format!(
            "what can still be brought back is kept until {}; --now frees it at once",
            local(until)
        ),
        (None, true) => "what no version needs is removed".to_owned(),
    };
    context
        .output
        .info(&format!("{}: {text}", args.changing.dst));
    Ok(Exit::Done)
}

pub fn pin(context: &Context, args: &Pin) -> Result<Exit, Error> {
    let note = args.note.as_deref().unwrap_or_default();
    set_pins(context, &args.changing, &args.versions, Some(note))
}

pub fn unpin(context: &Context, args: &Unpin) -> Result<Exit, Error> {
    set_pins(context, &args.changing, &args.versions, None)
}

fn set_pins(
    context: &Context,
    changing: &Changing,
    names: &[String],
    note: Option<&str>,
) -> Result<Exit, Error> {
    let (target, dst) = (Target::open(context, changing)?, &changing.dst);
    let store = target.store();
    let versions = store.versions(&store.current()?)?;
    let seqs = named(names, &versions, dst)?;
    let state = delete::pin(store, &seqs, note, Timestamp::now())?;
    target.remember(dst, &state)?;
    let what = if note.is_some() { "pinned" } else { "unpinned" };
    let seqs: Vec<u64> = seqs.into_iter().collect();
    context
        .output
        .info(&format!("{dst}: {} {what}", ranges(&seqs)));
    Ok(Exit::Done)
}
