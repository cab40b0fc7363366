//! Deleting versions, anywhere, and taking that back.
//!
//! A deletion is a new state and nothing else: the survivors beside what goes are joined anew and proved before the state is
//! committed, the files that nothing names any more are removed afterwards. While the grace period lasts, the state before
//! is retained, and with it all that it names.

pub mod prune;
mod relink;
pub mod space;

use std::collections::{BTreeSet, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::catalog::Version;
use crate::catalog::version::describe;
use crate::digest::Digest;
use crate::error::{Error, with_causes};
use crate::format::state::{Pin, Retained, State};
use crate::report::Monitor;
use crate::store::codec::Knobs;
use crate::store::collect::{self, Difference, Unfinished};
use crate::store::tree::TreeReader;
use crate::store::{Area, Store, commit};

use relink::Relinker;

/// How versions are deleted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The clock.
    pub now: Timestamp,
    /// For so long the deletion can be taken back, and nothing is freed.
    pub grace: SignedDuration,
    /// What tests may turn.
    pub knobs: Knobs,
    /// Nothing is committed: only what would come of it is found out.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The current state.
    pub state: State,
    /// What was deleted, or brought back.
    pub versions: Vec<Version>,
    /// What becomes of the store's files.
    pub difference: Difference,
    /// What nothing names any more is removed; else somebody is reading, and the next run removes it.
    pub is_freed: bool,
    /// What went wrong afterwards.
    pub problems: Vec<String>,
}

/// Deletes the versions with these numbers. The caller holds the writers' lock.
pub fn delete(
    store: &Store,
    doomed: &BTreeSet<u64>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    collect::remove_temporaries(store)?;
    let state = store.current()?;
    let versions = store.versions(&state)?;
    refuse(store, &state, &versions, doomed)?;
    let relinker = Relinker {
        store,
        base: &versions,
        knobs: options.knobs,
    };
    let mut next: VecDeque<Version> = VecDeque::new();
    let mut changed_from = u64::MAX;
    monitor.step("joining what stays", None);
    for (index, version) in versions.iter().enumerate().rev() {
        if doomed.contains(&version.seq) {
            changed_from = version.seq;
            continue;
        }
        let follows = versions.get(index + 1);
        let survivor = if follows.is_some_and(|follows| doomed.contains(&follows.seq)) {
            changed_from = version.seq;
            relinker.relinked(index, next.make_contiguous())?
        } else {
            version.clone()
        };
        next.push_front(survivor);
    }
    let mut retained = still_retained(&state, options.now);
    if options.grace > SignedDuration::ZERO {
        retained.push(Retained {
            number: state.number,
            until: options.now + options.grace,
        });
    }
    let deleted: Vec<Version> = versions
        .iter()
        .filter(|version| doomed.contains(&version.seq))
        .cloned()
        .collect();
    let change = Change {
        store,
        before: (&state, &versions),
        next: next.into(),
        changed_from,
        retained,
        packs: HashSet::new(),
        options,
    };
    change.commit("deleted", deleted)
}

fn refuse(
    store: &Store,
    state: &State,
    versions: &[Version],
    doomed: &BTreeSet<u64>,
) -> Result<(), Error> {
    if let Some(pin) = state.pins.iter().find(|pin| doomed.contains(&pin.seq)) {
        let note = if pin.note.is_empty() {
            String::new()
        } else {
            format!(" ({})", pin.note)
        };
        return Err(Error::Refused(format!(
            "v{} is pinned{note}; btw-backup unpin {} v{} before",
            pin.seq,
            store.name(),
            pin.seq
        )));
    }
    let stays = |version: &&Version| !doomed.contains(&version.seq);
    if versions.iter().any(|version| stays(&version)) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "That would leave no version in {}; to give up the store, remove its directory",
        store.name()
    )))
}

fn still_retained(state: &State, now: Timestamp) -> Vec<Retained> {
    let retained = state.retained.iter();
    retained
        .filter(|retained| retained.until > now)
        .cloned()
        .collect()
}

/// A new list of versions on its way into a state.
struct Change<'a> {
    store: &'a Store,
    before: (&'a State, &'a [Version]),
    next: Vec<Version>,
    /// No version before this one was changed.
    changed_from: u64,
    retained: Vec<Retained>,
    /// Catalog packs that what comes back may need.
    packs: HashSet<Digest>,
    options: &'a Options,
}

impl Change<'_> {
    fn commit(self, what: &str, versions: Vec<Version>) -> Result<Report, Error> {
        let (state, before) = self.before;
        let (store, now) = (self.store, self.options.now);
        let own = before.iter().filter_map(|version| version.pack);
        let packs: HashSet<Digest> = own
            .chain(state.kept_packs.clone())
            .chain(self.packs)
            .collect();
        let kept_packs = kept_packs(store, packs, &self.next)?;
        let difference = collect::difference(
            store,
            (before, &state.kept_packs),
            (&self.next, &kept_packs),
        )?;
        if self.options.dry_run {
            collect::collect(store, state, before, now, Unfinished::Stays)?;
            return Ok(Report {
                state: state.clone(),
                versions,
                difference,
                is_freed: true,
                problems: Vec::new(),
            });
        }
        let next = State {
            number: state.number + 1,
            time: now,
            retained: self.retained,
            kept_packs,
            ..state.clone()
        };
        let state = commit::commit_versions(store, next, &self.next, self.changed_from)?;
        let names: Vec<String> = versions.iter().map(describe).collect();
        let _ = store.log(now, &format!("{what}: {}", names.join(", ")));
        let collected = collect::collect(store, &state, &self.next, now, Unfinished::Stays);
        let is_freed = matches!(collected, Ok(true));
        let problems = collected.err().map(|error| {
            format!(
                "What is not needed any more could not be removed: {}",
                with_causes(&error)
            )
        });
        Ok(Report {
            state,
            versions,
            difference,
            is_freed,
            problems: problems.into_iter().collect(),
        })
    }
}

/// Of these catalog packs those that versions need, but for their own.
fn kept_packs(
    store: &Store,
    mut doubtful: HashSet<Digest>,
    next: &[Version],
) -> Result<Vec<Digest>, Error> {
    let own: HashSet<Digest> = next.iter().filter_map(|version| version.pack).collect();
    doubtful.retain(|pack| !own.contains(pack));
    let (mut seen, mut kept) = (HashSet::new(), BTreeSet::new());
    if !doubtful.is_empty() {
        for version in next {
            let catalog = TreeReader::open(store, Area::Catalogs, &version.catalog);
            catalog.visit_new(&mut seen, &mut |page| {
                kept.extend(
                    page.pack
                        .filter(|pack| doubtful.contains(pack))
                        .map(|pack| pack.0),
                );
            })?;
        }
    }
    Ok(kept.into_iter().map(Digest).collect())
}

/// The versions that were deleted and can be brought back, and until when.
pub fn deleted(
    store: &Store,
    state: &State,
    now: Timestamp,
) -> Result<Vec<(Version, Timestamp)>, Error> {
    let there: HashSet<u64> = store
        .versions(state)?
        .iter()
        .map(|version| version.seq)
        .collect();
    let mut found: Vec<(Version, Timestamp)> = Vec::new();
    for retained in still_retained(state, now) {
        for version in store.versions(&store.state(retained.number)?)? {
            if !there.contains(&version.seq) {
                found.retain(|(known, _)| known.seq != version.seq);
                found.push((version, retained.until));
            }
        }
    }
    found.sort_by_key(|(version, _)| version.seq);
    Ok(found)
}

/// Brings deleted versions back, while a state that has them is retained. The caller holds the writers' lock.
pub fn undelete(
    store: &Store,
    wanted: &BTreeSet<u64>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    collect::remove_temporaries(store)?;
    let mut state = store.current()?;
    let mut back = Vec::new();
    let mut problems = Vec::new();
    let mut difference = Difference {
        gone_bytes: 0,
        new_bytes: 0,
    };
    monitor.step("joining what comes back", None);
    // The latest state that has a version holds it in the fewest steps.
    for retained in still_retained(&state, options.now).iter().rev() {
        let past = store.state(retained.number)?;
        let then = store.versions(&past)?;
        let versions = store.versions(&state)?;
        let is_there = |seq: u64| versions.iter().any(|version| version.seq == seq);
        let returning: Vec<Version> = then
            .iter()
            .filter(|version| wanted.contains(&version.seq) && !is_there(version.seq))
            .cloned()
            .collect();
        if returning.is_empty() {
            continue;
        }
        let (next, changed_from) = merged(store, &versions, &then, &returning, options.knobs)?;
        let change = Change {
            store,
            before: (&state, &versions),
            next,
            changed_from,
            retained: still_retained(&state, options.now),
            packs: then
                .iter()
                .filter_map(|version| version.pack)
                .chain(past.kept_packs)
                .collect(),
            options,
        };
        let report = change.commit("brought back", returning)?;
        state = report.state;
        difference.gone_bytes += report.difference.gone_bytes;
        difference.new_bytes += report.difference.new_bytes;
        back.extend(report.versions);
        problems.extend(report.problems);
    }
    Ok(Report {
        state,
        versions: back,
        difference,
        is_freed: true,
        problems,
    })
}

/// The current versions with those that return, joined anew, and from which one on they are others.
fn merged(
    store: &Store,
    versions: &[Version],
    then: &[Version],
    returning: &[Version],
    knobs: Knobs,
) -> Result<(Vec<Version>, u64), Error> {
    let relinker = Relinker {
        store,
        base: then,
        knobs,
    };
    let mut all: Vec<&Version> = versions.iter().chain(returning).collect();
    all.sort_by_key(|version| version.seq);
    let followed_by = |seq: u64| {
        let index = versions.iter().position(|version| version.seq == seq)?;
        Some(versions.get(index + 1).map(|next| next.seq))
    };
    let mut next: VecDeque<Version> = VecDeque::new();
    let mut changed_from = u64::MAX;
    for version in all.into_iter().rev() {
        let follows = next.front().map(|next| next.seq);
        if followed_by(version.seq) == Some(follows) {
            next.push_front(version.clone());
            continue;
        }
        changed_from = version.seq;
        let Some(index) = then.iter().position(|other| other.seq == version.seq) else {
            return Err(Error::Refused(format!(
                "{} was brought back itself since then; delete it before",
                describe(version)
            )));
        };
        let joined = relinker.relinked(index, next.make_contiguous())?;
        next.push_front(joined);
    }
    Ok((next.into(), changed_from))
}

/// Pins versions or changes their notes; without a note they are unpinned. The caller holds the writers' lock.
pub fn pin(
    store: &Store,
    seqs: &BTreeSet<u64>,
    note: Option<&str>,
    now: Timestamp,
) -> Result<State, Error> {
    let state = store.current()?;
    let mut pins = state.pins.clone();
    pins.retain(|pin| !seqs.contains(&pin.seq));
    if let Some(note) = note {
        pins.extend(seqs.iter().map(|seq| Pin {
            seq: *seq,
            note: note.to_owned(),
        }));
    }
    pins.sort_by_key(|pin| pin.seq);
    let next = State {
        number: state.number + 1,
        time: now,
        pins,
        retained: still_retained(&state, now),
        ..state
    };
    let state = commit::commit(store, next)?;
    let versions = store.versions(&state)?;
    collect::collect(store, &state, &versions, now, Unfinished::Stays)?;
    Ok(state)
}
