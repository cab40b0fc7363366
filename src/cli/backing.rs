//! One backup into a store, whatever is backed up, and what follows it.

use jiff::Timestamp;
use serde::Serialize;

use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::owner;
use super::progress::Progress;
use super::rows::VersionRow;
use super::{Context, document, prune, stores, sync};
use crate::catalog::StoreType;
use crate::catalog::version::{StreamKind, describe};
use crate::config::general::General;
use crate::config::keeping::Keeping;
use crate::config::workdir::{Seen, Workdir};
use crate::error::{Error, with_causes};
use crate::ops::backup::{self, Expected, Options, Outcome, Report, Source};
use crate::store::codec::Knobs;
use crate::store::collect::Unfinished;
use crate::store::{Store, collect};

/// How a store is written to.
#[derive(clap::Args)]
pub struct Writing {
    /// Go on with whatever is at DST now: a store of another source, an older copy, or nothing
    #[arg(long)]
    pub adopt: bool,
    /// Wait while another run uses the store
    #[arg(long)]
    pub wait: bool,
    /// Leave the copies in remotes to a later `sync`
    #[arg(long)]
    pub no_sync: bool,
    /// Whose the store is: everything in it is given to this user, also in later runs
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}

/// A backup that is to be made.
pub struct Job<'a> {
    pub dst: &'a str,
    pub writing: &'a Writing,
    /// Where is remembered what was seen of the store.
    pub work: &'a Workdir,
    /// What the store records as its source.
    pub source_name: Vec<u8>,
    pub store_type: StoreType,
    pub keeping: Keeping,
    pub allow_empty: bool,
}

/// Says what is backed up, once the store is there and locked.
pub type Open<'a> = &'a mut dyn FnMut(&Store) -> Result<Source, Error>;

impl Job<'_> {
    /// Makes the backup, thins out old versions, and remembers what the store is now.
    pub fn run(&self, context: &Context, general: &General, open: Open<'_>) -> Result<Exit, Error> {
        let Self {
            dst, writing, work, ..
        } = self;
        let ownership = owner::of_store(context, Some(work), writing.user.as_deref(), dst)?;
        if self.expected()?.is_some() && !general.store_path(dst)?.exists() {
            return Err(backup::vanished(dst));
        }
        let opened = stores::open_to_write(general, dst, &ownership, writing.wait)?;
        let store = &opened.store;
        // After the wait for the lock: the clock, and what the run before has left behind.
        let options = self.options(open(store)?)?;
        backup::refuse_other(store, &options)?;
        opened.bring_over()?;
        let result = {
            let progress = Progress::new(context.output);
            backup::backup(store, &options, &progress)
        };
        let report = result.inspect_err(|error| {
            backup::log_failure(store, &options, error);
            // Room for others at once; what cannot be removed now goes with the next run.
            let _ = clear_up(store, options.now, error);
        })?;
        document::answer(&Answer::of(dst, &report));
        let mut exit = tell(context.output, dst, &report);
        // Where there is no room for it, the backup is done all the same.
        let _ = store.keep_reserve();
        let is_complete = report.is_complete();
        let mut state = report.state;
        // Nothing is thinned out while damage is known.
        let policy = self.keeping.retention.as_ref();
        if let Some(policy) = policy.filter(|_| report.damage.is_empty()) {
            let pruned = prune::after_backup(context, store, policy, self.keeping.grace);
            let pruned = also(pruned, "old versions could not be thinned out", &mut exit);
            if let Some((pruned, told)) = pruned.flatten() {
                (state, exit) = (pruned, exit.or(told));
            }
        }
        let before = work.seen(dst).ok().flatten();
        let good = before.and_then(|seen| seen.good);
        let seen = Seen {
            first: before.and_then(|seen| seen.first).or(Some(options.now)),
            ran: Some(options.now),
            good: if is_complete { Some(options.now) } else { good },
            ..Seen::new(state.store, state.number, ownership.wanted)
        };
        also(
            work.remember(dst, seen),
            "its bookkeeping failed",
            &mut exit,
        );
        // Other runs need not wait for the network.
        let store = store.clone();
        drop(opened);
        if writing.no_sync {
            return Ok(exit);
        }
        Ok(exit.or(sync::after_backup(context, general, &store, dst)))
    }

    fn expected(&self) -> Result<Option<Expected>, Error> {
        let seen = if self.writing.adopt {
            None
        } else {
            self.work.seen(self.dst)?
        };
        Ok(seen.map(|seen| Expected {
            store: seen.store,
            state: seen.state,
        }))
    }

    fn options(&self, source: Source) -> Result<Options, Error> {
        Ok(Options {
            source,
            source_name: self.source_name.clone(),
            host: host(),
            store_type: self.store_type,
            chain: self.keeping.chain,
            allow_empty: self.allow_empty,
            adopt: self.writing.adopt,
            expected: self.expected()?,
            now: Timestamp::now(),
            knobs: Knobs::REAL,
        })
    }
}

/// Removes what a failed run left. What it staged is of use to the next one, but not of a dump that failed: that may
/// fail every night.
fn clear_up(store: &Store, now: Timestamp, error: &Error) -> Result<(), Error> {
    collect::remove_temporaries(store)?;
    if matches!(error, Error::Dump(_)) {
        let state = store.current()?;
        let versions = store.versions(&state)?;
        collect::collect(store, &state, &versions, now, Unfinished::Goes)?;
    }
    Ok(())
}

/// What follows a backup and cannot undo it: faults here are warnings.
fn also<T>(result: Result<T, Error>, fault: &str, exit: &mut Exit) -> Option<T> {
    result
        .inspect_err(|error| {
            *exit = exit.or(Exit::Warnings);
            Output::warning(&format!(
                "The backup is done, but {fault}: {}",
                with_causes(error)
            ));
        })
        .ok()
}

/// The name of this machine.
pub fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[derive(Serialize)]
struct Answer<'a> {
    store: &'a str,
    outcome: &'static str,
    version: VersionRow,
    excluded: u64,
    problems: &'a [String],
    damage: &'a [String],
}

impl<'a> Answer<'a> {
    fn of(store: &'a str, report: &'a Report) -> Self {
        let (outcome, version) = match &report.outcome {
            Outcome::Committed(version) => ("committed", version),
            Outcome::Unchanged(version, _) => ("unchanged", version),
        };
        Self {
            store,
            outcome,
            version: VersionRow::from(&**version),
            excluded: report.not_kept.excluded,
            problems: &report.problems,
            damage: &report.damage,
        }
    }
}

fn tell(output: Output, dst: &str, report: &Report) -> Exit {
    match &report.outcome {
        Outcome::Committed(version) => {
            let partial = if version.is_partial() {
                ", partial"
            } else {
                ""
            };
            let new = if version.seq == 1 {
                " (a new store)"
            } else {
                ""
            };
            let members = match version.stream {
                StreamKind::Tar => format!("{} members, ", version.members),
                StreamKind::Raw => String::new(),
            };
            let (size, added) = (
                output_bytes(version.size_bytes),
                output_bytes(version.added_bytes),
            );
            output.info(&format!(
                "{dst}: {} committed: {}{partial}, {members}{size}, {added} added to the store{new}",
                describe(version),
                version.kind.word(),
            ));
        }
        Outcome::Unchanged(version, skipped) => {
            output.info(&format!(
                "{dst}: no change in the data to be backed up since {}: {skipped}",
                describe(version)
            ));
        }
    }
    report.notes.iter().for_each(|note| output.info(note));
    output.info_not_kept(&report.not_kept);
    report
        .problems
        .iter()
        .for_each(|problem| Output::warning(problem));
    for damage in &report.damage {
        Output::warning(&format!(
            "the store {dst} is damaged: {damage}; versions that need it cannot be restored, the newest does not"
        ));
    }
    let exit = Exit::done(&report.problems);
    if report.damage.is_empty() {
        exit
    } else {
        exit.or(Exit::Damage)
    }
}
