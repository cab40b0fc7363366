//! `sync`, `sync-state`: copies of stores in remotes.

use jiff::Timestamp;

use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::progress::Progress;
use super::remotes::Remotes;
use super::{Context, owner, prune_remote, stores};
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

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct SyncStateArgs {
    /// Show what is to be copied
    #[arg(long)]
    pub list: bool,
    /// Forget what was copied, so that the next sync asks the remotes; refused while something is to be copied
    #[arg(long)]
    pub reset: bool,
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
    Ok(exit)
}

struct Job<'a> {
    context: &'a Context,
    general: &'a General,
    remotes: &'a Remotes,
    journal: SyncState,
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
        self.journal.record(now, &done)?;
        if let Some(is_exclusive) = report.is_exclusive {
            let exclusive = Event::Exclusive(copy.remote.clone(), is_exclusive);
            self.journal.record(now, &exclusive)?;
        }
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
fn is_done(journal: &Journal, copy: &Copy, current: u64) -> bool {
    journal.done.get(copy) == Some(&current) && !journal.pending.contains_key(copy)
}

fn newest_number(store: &Store) -> Result<u64, Error> {
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

/// `sync-state`.
pub fn state(context: &Context, args: &SyncStateArgs) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    // Stores on a disk that is not mounted have nothing to be copied: they must not only seem so.
    stores::require_root(&general)?;
    let state = SyncState::new(&context.config_dir);
    let journal = state.read()?;
    let (waiting, exit) = waiting(&general, journal.as_ref())?;
    if args.reset {
        let is_pending = journal.is_some_and(|journal| !journal.pending.is_empty());
        if !waiting.is_empty() || is_pending || exit != Exit::Done {
            return Err(Error::Refused(
                "cannot reset: some stores must be copied; btw-backup sync-state --list names them"
                    .into(),
            ));
        }
        state.reset()?;
        context.output.info("The state was reset");
        return Ok(Exit::Done);
    }
    let lines: String = waiting.into_iter().map(line).collect();
    Output::answer(&lines)?;
    if journal.is_some_and(|journal| journal.is_torn) {
        context
            .output
            .remark("The journal has lines that cannot be read; they count for nothing, and sync asks the remotes");
    }
    Ok(exit)
}

/// A store whose copy is not up to date.
struct Waiting {
    dst: String,
    remote: String,
    here: Option<u64>,
    there: Option<u64>,
}

fn line(waiting: Waiting) -> String {
    let Waiting {
        dst,
        remote,
        here,
        there,
    } = waiting;
    let here = here.map_or_else(
        || "the store is not here".to_owned(),
        |here| format!("here is state {here}"),
    );
    let there = there.map_or_else(
        || "nothing is known to be there".to_owned(),
        |there| format!("there is state {there}"),
    );
    format!("Must sync: {dst} to {remote} ({here}, {there})\n")
}

/// Stores whose copies are not up to date, as far as is known; what cannot be looked at is said.
fn waiting(general: &General, journal: Option<&Journal>) -> Result<(Vec<Waiting>, Exit), Error> {
    let remotes = Remotes::of(general);
    let nothing = Journal::default();
    let journal = journal.unwrap_or(&nothing);
    let (mut waiting, mut exit) = (Vec::new(), Exit::Done);
    let mut say = |name: &str, error: &Error| {
        Output::error_of(name, error);
        exit = exit.or(Exit::of(error));
    };
    let (names, unread) = stores::find(&general.root_path);
    for error in &unread {
        say("ROOT_PATH", error);
    }
    let mut numbers = Vec::new();
    for dst in &names {
        match stores::open(general, dst).and_then(|store| newest_number(&store)) {
            Ok(number) => numbers.push((dst, number)),
            Err(error) => say(dst, &error),
        }
    }
    for name in remotes.names() {
        let config = match remotes.config(name) {
            Ok(config) => config,
            Err(error) => {
                say(name, &error);
                continue;
            }
        };
        for (dst, here) in &numbers {
            let copy = remotes.copy(name, dst)?;
            if config.takes(dst).map_err(Error::Usage)? && !is_done(journal, &copy, *here) {
                waiting.push(Waiting {
                    dst: (*dst).clone(),
                    remote: name.to_owned(),
                    here: Some(*here),
                    there: journal.done.get(&copy).copied(),
                });
            }
        }
        // What was to be copied and is not here any more.
        let place = remotes.copy(name, "")?.remote;
        let is_lost = |copy: &&Copy| copy.remote == place && !names.contains(&copy.dst);
        let lost = journal.pending.keys().filter(is_lost);
        waiting.extend(lost.map(|copy| Waiting {
            dst: copy.dst.clone(),
            remote: name.to_owned(),
            here: None,
            there: journal.done.get(copy).copied(),
        }));
    }
    Ok((waiting, exit))
}
