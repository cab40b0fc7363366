//! `sync`: copies of stores in remotes.

use std::cell::RefCell;

use jiff::Timestamp;
use serde::Serialize;

use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::progress::Progress;
use super::remotes::Remotes;
use super::{Context, document, owner, prune_remote, stores};
use crate::config::general::General;
use crate::config::sync_state::SyncState;
use crate::error::{Error, StoreError, with_causes};
use crate::format::journal::{Copy, Event, Journal};
use crate::ops::sync::{self, Options, Report};
use crate::remote::mirror::Mirror;
use crate::store::Store;

#[derive(clap::Args)]
pub struct Sync {
    /// Only to this remote [default: all that take the store]
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// Also stores whose copies are up to date as far as is known: ask the remotes
    #[arg(long)]
    pub full: bool,
    /// Only say what would be sent
    #[arg(long)]
    pub dry_run: bool,
    /// Wait while another run copies the same store
    #[arg(long)]
    pub wait: bool,
    /// The stores, paths below `ROOT_PATH` [default: all whose copies are not up to date]
    pub dst: Vec<String>,
}

pub fn run(context: &Context, args: &Sync) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let remotes = Remotes::of(&general);
    if let Some(name) = &args.remote {
        remotes.config(name)?;
    } else if remotes.names().next().is_none() {
        return Err(Error::Usage(
            "no remote is configured: write [remote.NAME] and url = \"s3://BUCKET/PREFIX\" into config.toml".into(),
        ));
    }
    stores::require_root(&general)?;
    let mut exit = Exit::Done;
    let names = if args.dst.is_empty() {
        let (names, unread) = stores::find(&general.root_path);
        for error in &unread {
            Output::error(error);
            exit = exit.or(Exit::of(error));
        }
        names
    } else {
        args.dst.clone()
    };
    let job = Job {
        context,
        general: &general,
        remotes: &remotes,
        journal: SyncState::new(&context.config_dir),
        copies: RefCell::default(),
    };
    for dst in &names {
        for name in remotes.names() {
            if args.remote.as_ref().is_some_and(|asked| asked != name) {
                continue;
            }
            // One that fails does not keep the others from being copied.
            match job.one(name, dst, args) {
                Ok(one) => exit = exit.or(one),
                Err(error) => {
                    Output::error_of(&format!("{dst} to {name}"), &error);
                    exit = exit.or(Exit::of(&error));
                }
            }
        }
    }
    document::answer(&serde_json::json!({ "copies": job.copies.take() }));
    Ok(exit)
}

/// What became of a copy.
#[derive(Serialize)]
struct CopyRow {
    store: String,
    remote: String,
    state: u64,
    files: u64,
    bytes: u64,
    done: bool,
}

struct Job<'a> {
    context: &'a Context,
    general: &'a General,
    remotes: &'a Remotes,
    journal: SyncState,
    copies: RefCell<Vec<CopyRow>>,
}

impl Job<'_> {
    fn one(&self, name: &str, dst: &str, args: &Sync) -> Result<Exit, Error> {
        // A store that is named goes where it is told to go.
        let is_named = args.remote.is_some() && !args.dst.is_empty();
        let takes = self.remotes.config(name)?.takes(dst);
        if !is_named && !takes.map_err(Error::Usage)? {
            return Ok(Exit::Done);
        }
        let ownership = owner::of_store(self.context, None, None, dst)?;
        let store = stores::open_trusted(self.general, dst, &ownership)?;
        let current = newest_number(&store)?;
        let copy = self.remotes.copy(name, dst)?;
        let journal = self.journal.read()?.unwrap_or_default();
        if is_done(&journal, &copy, current) && !args.full && args.dst.is_empty() {
            return Ok(Exit::Done);
        }
        let _lock = self.journal.lock(&copy, args.wait)?;
        if args.dry_run {
            return self.preview(&store, name, dst);
        }
        self.copy(&store, name, &copy, current)
    }

    fn preview(&self, store: &Store, name: &str, dst: &str) -> Result<Exit, Error> {
        let mirror = self.remotes.mirror(name, dst)?;
        let options = Options {
            dry_run: true,
            probe: false,
        };
        let report = sync::sync(store, &mirror, options, &Progress::new(self.context.output))?;
        let (files, bytes) = (report.files, output_bytes(report.bytes));
        self.row(name, dst, &report, false);
        let to = mirror.name();
        Output::answer(&format!(
            "{dst}: {files} files, {bytes} would be sent to {to}\n"
        ))?;
        Ok(Exit::Done)
    }

    /// Copies a store and keeps the journal. The caller holds the lock.
    fn copy(&self, store: &Store, name: &str, copy: &Copy, current: u64) -> Result<Exit, Error> {
        self.pending(copy, current)?;
        let mirror = self.remotes.mirror(name, &copy.dst)?;
        let journal = self.journal.read()?.unwrap_or_default();
        let options = Options {
            dry_run: false,
            probe: !journal.exclusive.contains_key(&copy.remote),
        };
        let report = {
            let progress = Progress::new(self.context.output);
            sync::sync(store, &mirror, options, &progress)?
        };
        let now = Timestamp::now();
        let done = Event::Done(copy.clone(), report.state);
        // What is later is not there yet, although it may have been made before the copy was done.
        self.journal.record(report.time, &done)?;
        if let Some(is_exclusive) = report.is_exclusive {
            let exclusive = Event::Exclusive(copy.remote.clone(), is_exclusive);
            self.journal.record(now, &exclusive)?;
        }
        self.row(name, &copy.dst, &report, true);
        self.tell(name, &copy.dst, &mirror, &report);
        let keep = self.remotes.config(name)?.keep().map_err(Error::Usage)?;
        let Some(keep) = keep else {
            return Ok(Exit::Done);
        };
        let thinned = prune_remote::after_sync(self.context, store, &mirror, &keep, report.state);
        Ok(thinned.map_or_else(
            |error| {
                Output::warning(&format!(
                    "{} is copied to {name}, but older states there could not be thinned out: {}",
                    copy.dst,
                    with_causes(&error)
                ));
                Exit::Warnings
            },
            |()| Exit::Done,
        ))
    }

    fn row(&self, remote: &str, store: &str, report: &Report, done: bool) {
        self.copies.borrow_mut().push(CopyRow {
            store: store.to_owned(),
            remote: remote.to_owned(),
            state: report.state,
            files: report.files,
            bytes: report.bytes,
            done,
        });
    }

    fn pending(&self, copy: &Copy, current: u64) -> Result<(), Error> {
        let pending = Event::Pending(copy.clone(), current);
        self.journal.record(Timestamp::now(), &pending)
    }

    /// The copy that follows a backup. If another run is at it already, that one or the next takes what is new: runs do not
    /// queue up behind a first copy that takes days.
    fn follow(&self, store: &Store, name: &str, dst: &str) -> Result<Exit, Error> {
        let config = self.remotes.config(name)?;
        if !config.is_automatic() || !config.takes(dst).map_err(Error::Usage)? {
            return Ok(Exit::Done);
        }
        let current = newest_number(store)?;
        let copy = self.remotes.copy(name, dst)?;
        if is_done(&self.journal.read()?.unwrap_or_default(), &copy, current) {
            return Ok(Exit::Done);
        }
        match self.journal.lock(&copy, false) {
            Ok(_lock) => self.copy(store, name, &copy, current),
            Err(Error::Store(StoreError::Locked(_))) => {
                self.pending(&copy, current)?;
                self.context.output.info(&format!(
                    "{dst}: another run is copying it to {name}; what is new is copied with the next one"
                ));
                Ok(Exit::Done)
            }
            Err(error) => Err(error),
        }
    }

    fn tell(&self, name: &str, dst: &str, mirror: &Mirror, report: &Report) {
        let output = self.context.output;
        if report.is_unchanged() {
            output.info(&format!("{dst}: {} is up to date", mirror.name()));
            return;
        }
        output.info(&format!(
            "{dst}: copied to {}: {} files, {}",
            mirror.name(),
            report.files,
            output_bytes(report.bytes)
        ));
        if report.is_exclusive == Some(false) {
            output.info(&format!(
                "{name} cannot refuse a second writer (no conditional writes): let only this machine write there"
            ));
        }
    }
}

/// Whether a copy has the current state, as far as is known.
pub fn is_done(journal: &Journal, copy: &Copy, current: u64) -> bool {
    journal.done.get(copy) == Some(&current) && !journal.pending.contains_key(copy)
}

pub fn newest_number(store: &Store) -> Result<u64, Error> {
    let numbers = store.state_numbers()?;
    // What is wrong with one that is there is said when it is read.
    Ok(numbers.last().copied().unwrap_or(0))
}

/// Copies a store to the remotes that take it, after a backup. What fails is a warning: the backup is made, and the work
/// stays pending.
pub fn after_backup(context: &Context, general: &General, store: &Store, dst: &str) -> Exit {
    let remotes = Remotes::of(general);
    let job = Job {
        context,
        general,
        remotes: &remotes,
        journal: SyncState::new(&context.config_dir),
        copies: RefCell::default(),
    };
    let mut exit = Exit::Done;
    for name in remotes.names() {
        exit = exit.or(job.follow(store, name, dst).unwrap_or_else(|error| {
            Output::warning(&format!(
                "The backup is done, but {dst} was not copied to {name}: {}; btw-backup sync tries again",
                with_causes(&error)
            ));
            Exit::Warnings
        }));
    }
    exit
}
