//! Backing up a source: scan, compare, write what is new, turn the previous version into a delta, prove, commit.

mod batches;
mod content;
mod deltify;
mod hold;
mod old;
mod open;
mod options;
pub mod preview;
mod previous;
mod prove;
mod regular;
mod release;
mod rewrite;
mod scan;
mod scanned;
mod stream;
mod trust;
mod window;

use crate::catalog::version::{StreamKind, describe, unique_time};
use crate::catalog::{DeltaFile, StoreType, Version, VersionKind};
use crate::error::{Error, StoreError, with_causes};
use crate::format::scan::ScanCache;
use crate::format::state::State;
use crate::plan::chain::{self};
use crate::report::Monitor;
use crate::store::collect::Unfinished;
use crate::store::packer::Packer;
use crate::store::pieces::Pieces;
use crate::store::staging::Staged;
use crate::store::{Store, collect, commit, staging};
use crate::tree::walk::Walk;

pub use open::{refuse_foreign, refuse_other, vanished};
pub use options::{Detection, Expected, Options, Outcome, Report, Skipped, Source, Tree};
pub use scanned::NotKept;

use open::{open_or_create, refuse_empty, refuse_other_stream, refuse_other_type};
use previous::{Previous, faults};
use scanned::Scanned;

/// Notes a failed run in the store's log, as well as that can be done. A refusal is none: the store may be another's.
pub fn log_failure(store: &Store, options: &Options, error: &Error) {
    let is_store = store
        .state_numbers()
        .is_ok_and(|numbers| !numbers.is_empty());
    if is_store && !matches!(error, Error::Refused(_)) {
        let _ = store.log(options.now, &format!("failed: {}", with_causes(error)));
    }
}

/// More problems than this are not named in the log.
const LOGGED_PROBLEMS: usize = 100;

/// One backup. The caller holds the writers' lock.
///
/// Damage that comes to light while the newest version is built upon is no reason to have no new one: then everything is
/// stored anew, that version stays as it is, and the damage is reported.
pub fn backup(store: &Store, options: &Options, monitor: &dyn Monitor) -> Result<Report, Error> {
    match attempt(store, options, monitor, Vec::new()) {
        Err(Error::Store(StoreError::Damaged { file, detail })) => {
            attempt(store, options, monitor, vec![format!("{file}: {detail}")])
        }
        result => result,
    }
}

/// A backup that builds upon the newest version, unless something is known to be wrong with that.
fn attempt(
    store: &Store,
    options: &Options,
    monitor: &dyn Monitor,
    known: Vec<String>,
) -> Result<Report, Error> {
    // A source that is not there makes no store.
    let walk = match &options.source {
        Source::Tree(tree) => Some(Walk::open(&tree.path, &tree.selection)?),
        Source::Dump(_) => None,
    };
    let state = open_or_create(store, options)?;
    collect::remove_temporaries(store)?;
    let versions = store.versions(&state)?;
    refuse_other_type(store, versions.last(), options)?;
    refuse_other_stream(store, versions.last(), options)?;
    collect::remove_orphans(store, &state, &versions)?;
    let mut damage = collect::missing(store, &versions)?;
    let mut previous = None;
    if let Some(newest) = versions.last() {
        let mut faults = faults(store, newest, options.now)?;
        faults.extend(known);
        if faults.is_empty() {
            previous = Some(Previous::open(store, newest)?);
        }
        damage.extend(faults);
        damage.sort();
        damage.dedup();
    }
    monitor.step("looking into what an interrupted run left", None);
    let staged = staging::take_over(store)?;
    monitor.step(
        "reading",
        previous
            .as_ref()
            .map(|previous| previous.version.size_bytes),
    );
    let mut scanned = match (&options.source, walk) {
        (Source::Tree(tree), Some(walk)) => {
            let previous = previous.as_ref();
            let scanned = scan::scan(store, options, tree, walk, previous, &staged, monitor)?;
            refuse_empty(tree, &scanned, versions.last(), options)?;
            scanned
        }
        (Source::Dump(dump), _) => {
            stream::scan(store, options, &**dump, previous.as_ref(), &staged, monitor)?
        }
        (Source::Tree(_), None) => unreachable!("a tree is walked"),
    };
    if let Some(newest) = versions.last().filter(|newest| newest.time > options.now) {
        scanned.notes.push(format!(
            "The clock is before the newest version's time, {}: is it right?",
            describe(newest)
        ));
    }
    let run = Run {
        store,
        options,
        state,
        versions,
        staged,
        damage,
        monitor,
    };
    match previous {
        Some(previous) if scanned.pieces.is_all_of(previous.version.stream_bytes) => {
            run.unchanged(&previous.version, scanned)
        }
        previous => run.changed(previous.as_ref(), scanned),
    }
}

/// The facts of a run after the scan.
struct Run<'a> {
    store: &'a Store,
    options: &'a Options,
    state: State,
    versions: Vec<Version>,
    staged: Staged,
    damage: Vec<String>,
    monitor: &'a dyn Monitor,
}

impl Run<'_> {
    fn unchanged(mut self, previous: &Version, scanned: Scanned) -> Result<Report, Error> {
        let mut problems = scanned.problems.clone();
        problems.extend(self.shrunk(&scanned));
        let (not_kept, said) = (scanned.not_kept.clone(), scanned.said.clone());
        let (cache, notes) = scanned.finish_unchanged()?;
        let cache = cache.map(|cache| ScanCache {
            seq: previous.seq,
            catalog: previous.catalog.digest,
            ..cache
        });
        self.adopt()?;
        let skipped = match self.options.store_type {
            StoreType::Tar => Skipped::Archive,
            StoreType::Rdiff => Skipped::Version(self.next_kind()),
        };
        let line = format!(
            "no change in the data to be backed up: {skipped}{}",
            listed(said.iter())
        );
        self.after(&self.state, cache.as_ref(), &line, &mut problems);
        Ok(Report {
            outcome: Outcome::Unchanged(Box::new(previous.clone()), skipped),
            state: self.state,
            problems,
            notes: [notes, said].concat(),
            not_kept,
            damage: self.damage,
        })
    }

    /// What is worth a warning where nothing else tells whether a dump is complete.
    fn shrunk(&self, scanned: &Scanned) -> Option<String> {
        let dumps = self
            .versions
            .iter()
            .filter(|version| version.stream == StreamKind::Raw);
        let sizes = dumps
            .rev()
            .take(COMPARED_DUMPS)
            .map(|version| version.size_bytes);
        let (now, before) = (scanned.size_bytes, sizes.max()?);
        (now < before / 2).then(|| {
            format!("The dump has {now} bytes, less than half of what one of the last {COMPARED_DUMPS} had ({before}): is it complete?")
        })
    }

    /// Commits that the store belongs to this source now, if it did not.
    fn adopt(&mut self) -> Result<(), StoreError> {
        let (host, source) = (self.options.host.clone(), self.options.source_name.clone());
        if self.state.host != host || self.state.source != source {
            let number = self.state.number + 1;
            let next = State {
                number,
                time: self.options.now,
                host,
                source,
                ..self.state.clone()
            };
            self.state = commit::commit(self.store, next)?;
        }
        Ok(())
    }

    fn changed(mut self, previous: Option<&Previous>, scanned: Scanned) -> Result<Report, Error> {
        let mut problems = scanned.problems.clone();
        let scanned_problems = problems.len() as u64;
        problems.extend(self.shrunk(&scanned));
        let Scanned {
            pieces,
            placed,
            mut packer,
            catalog,
            cache,
            members,
            size_bytes,
            notes,
            said,
            not_kept,
            ..
        } = scanned;
        self.monitor.step("writing", None);
        let placed = placed.as_ref().unwrap_or(&pieces);
        let rewritten = self.rewritten(previous, placed, &mut packer)?;
        let written = packer.finish()?;
        let catalog = catalog.finish()?;
        let now = unique_time(&self.versions, self.options.now);
        let held = match self.options.store_type {
            StoreType::Rdiff => {
                let placed = rewritten.as_ref().unwrap_or(placed);
                self.hold(previous, &pieces, placed, &written, &mut problems)?
            }
            StoreType::Tar => self.archive(previous, &pieces, &written, now)?,
        };
        let version = Version {
            seq: self.state.next_seq,
            time: now,
            kind: held.kind,
            stream: self.options.source.stream(),
            size_bytes,
            stream_bytes: pieces.len(),
            members,
            problems: scanned_problems,
            added_bytes: held.added_bytes + catalog.written_bytes,
            catalog: catalog.root,
            pack: catalog.pack,
            whole: Some(held.whole),
            delta: Vec::new(),
        };
        let state = self.commit(version.clone(), held.delta)?;
        let cache = cache.map(|cache| ScanCache {
            seq: version.seq,
            catalog: version.catalog.digest,
            ..cache
        });
        let line = format!(
            "{} committed: {}, {} bytes added{}",
            describe(&version),
            version.kind.word(),
            version.added_bytes,
            listed(problems.iter().chain(&said))
        );
        self.after(&state, cache.as_ref(), &line, &mut problems);
        Ok(Report {
            outcome: Outcome::Committed(Box::new(version)),
            state,
            problems,
            notes: [notes, said].concat(),
            not_kept,
            damage: self.damage,
        })
    }

    /// The new stream with what is left in dying objects packed again. Nothing is if the previous version stays
    /// whole: then it needs them still.
    fn rewritten(
        &self,
        previous: Option<&Previous>,
        pieces: &Pieces,
        packer: &mut Packer,
    ) -> Result<Option<Pieces>, StoreError> {
        let Some(previous) = previous.filter(|_| self.options.store_type == StoreType::Rdiff)
        else {
            return Ok(None);
        };
        if self.next_kind() == VersionKind::Full {
            return Ok(None);
        }
        let older = &self.versions[..self.versions.len() - 1];
        let others: Vec<&Version> = older
            .iter()
            .filter(|version| version.whole.is_some())
            .collect();
        rewrite::rewritten(self.store, pieces, previous, &others, packer)
    }

    fn next_kind(&self) -> VersionKind {
        chain::next_kind(&self.versions, self.options.now, &self.options.chain)
    }

    fn commit(&mut self, version: Version, delta: Vec<DeltaFile>) -> Result<State, StoreError> {
        let seq = version.seq;
        let previous = self.versions.last_mut().map(|previous| {
            previous.delta = delta;
            previous.seq
        });
        self.versions.push(version);
        let policy = &self.options.chain;
        let whole = release::stay_whole(
            self.store,
            &self.versions,
            policy,
            previous,
            &mut self.damage,
        )?;
        let mut changed_from = seq;
        for version in self.versions.iter_mut().rev() {
            let dropped = !whole.contains(&version.seq) && version.whole.take().is_some();
            if dropped || Some(version.seq) == previous {
                changed_from = version.seq;
            }
        }
        let next = State {
            number: self.state.number + 1,
            time: self.options.now,
            host: self.options.host.clone(),
            source: self.options.source_name.clone(),
            next_seq: seq + 1,
            retained: self
                .state
                .retained
                .iter()
                .filter(|retained| retained.until > self.options.now)
                .cloned()
                .collect(),
            ..self.state.clone()
        };
        commit::commit_versions(self.store, next, &self.versions, changed_from)
    }

    /// What follows the commit and cannot undo it: faults here are warnings.
    fn after(
        &self,
        state: &State,
        cache: Option<&ScanCache>,
        line: &str,
        problems: &mut Vec<String>,
    ) {
        let log = self.store.log(self.options.now, line);
        let results = [
            cache.map_or(Ok(()), |cache| self.store.save_scan_cache(cache)),
            collect::collect(
                self.store,
                state,
                &self.versions,
                self.options.now,
                Unfinished::Goes,
            )
            .map(drop),
            log,
        ];
        for error in results.into_iter().filter_map(Result::err) {
            problems.push(format!("After the backup: {}", with_causes(&error)));
        }
    }
}

/// So many earlier dumps a new one is compared with: what is wrong for some nights must not become what is usual.
const COMPARED_DUMPS: usize = 8;

/// Problems, and what was said, as the end of a line of the log.
fn listed<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::new();
    for (number, line) in lines.enumerate() {
        if number == LOGGED_PROBLEMS {
            text.push_str("; and more");
            break;
        }
        text.push_str("; ");
        text.push_str(line);
    }
    text
}
