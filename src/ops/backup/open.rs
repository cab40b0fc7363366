//! Opening the store that a backup goes to, or making it; and the refusals that protect other people's data.

use super::scanned::Scanned;
use super::{Options, Tree};
use crate::catalog::version::StreamKind;
use crate::catalog::{StoreType, Version};
use crate::error::{Error, printable};
use crate::format::legacy::is_legacy;
use crate::format::state::State;
use crate::store::{Presence, Store, collect, commit};

/// Refuses a directory that holds something else, before even a lock is put there.
pub fn refuse_foreign(store: &Store) -> Result<(), Error> {
    match store.presence()? {
        Presence::Foreign(name) => Err(foreign(store, &name)),
        Presence::Empty | Presence::Store => Ok(()),
    }
}

fn foreign(store: &Store, name: &str) -> Error {
    if is_legacy(name) {
        return Error::Refused(format!(
            "{0} holds backups of the Python tool or of rdiff-backup ('{name}'). Choose another DST; `btw-backup import {0} DST` takes the old ones over",
            store.name()
        ));
    }
    Error::Refused(format!(
        "{} is not a store: it holds '{name}'. Choose another DST, or empty that directory",
        store.name()
    ))
}

/// The refusal to begin anew where there was a store.
pub fn vanished(name: &str) -> Error {
    Error::Refused(format!(
        "The store {name} is not where it was in the last run: is its disk mounted? To begin a new store there, pass --adopt"
    ))
}

/// Refuses a store that is another source's, or not the one that was seen last, before anything is changed.
pub fn refuse_other(store: &Store, options: &Options) -> Result<(), Error> {
    match store.presence()? {
        Presence::Empty if options.expected.is_some() => Err(vanished(store.name())),
        Presence::Foreign(name) => Err(foreign(store, &name)),
        Presence::Empty => Ok(()),
        Presence::Store => refuse_state(store, &store.current()?, options),
    }
}

pub(super) fn open_or_create(store: &Store, options: &Options) -> Result<State, Error> {
    refuse_other(store, options)?;
    if store.presence()? == Presence::Store {
        store.complete()?;
        return Ok(store.current()?);
    }
    store.create()?;
    let state = State {
        number: 1,
        time: options.now,
        store: uuid::Uuid::new_v4(),
        host: options.host.clone(),
        source: options.source_name.clone(),
        next_seq: 1,
        retained: Vec::new(),
        kept_packs: Vec::new(),
        pins: Vec::new(),
        archived: Vec::new(),
        versions: Vec::new(),
    };
    collect::remove_temporaries(store)?;
    Ok(commit::commit(store, state)?)
}

fn refuse_state(store: &Store, state: &State, options: &Options) -> Result<(), Error> {
    refuse_unexpected(store, state, options)?;
    // What was imported belongs to the first source that goes on with it; so does a store that never had a version.
    let same = state.host == options.host && state.source == options.source_name;
    if same || state.source.is_empty() || state.next_seq == 1 || options.adopt {
        return Ok(());
    }
    let (owner, source) = (&state.host, printable(&state.source));
    Err(Error::Refused(format!(
        "The store {} belongs to {source} on {owner}: name another DST; or, to go on with it for this source, pass --adopt",
        store.name()
    )))
}

fn refuse_unexpected(store: &Store, state: &State, options: &Options) -> Result<(), Error> {
    let Some(expected) = options.expected else {
        return Ok(());
    };
    let name = store.name();
    if expected.store != state.store {
        return Err(Error::Refused(format!(
            "Another store lies at {name} than in the last run; to go on with it, pass --adopt"
        )));
    }
    if expected.state > state.number {
        return Err(Error::Refused(format!(
            "The store {name} is older than in the last run (state {} instead of {}): is it an old copy? To go on with it, pass --adopt",
            state.number, expected.state
        )));
    }
    Ok(())
}

/// A version that is held by archives cannot be built upon by deltas, nor the other way round.
pub(super) fn refuse_other_type(
    store: &Store,
    newest: Option<&Version>,
    options: &Options,
) -> Result<(), Error> {
    let Some(newest) = newest else { return Ok(()) };
    let found = if newest.archive().is_some() {
        StoreType::Tar
    } else {
        StoreType::Rdiff
    };
    if found == options.store_type {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "The store {} is of TYPE {}, the configuration says {}: change TYPE back, or name another DST",
        store.name(),
        found.word(),
        options.store_type.word()
    )))
}

/// A tree's versions cannot be built upon by those of a dump, nor the other way round.
pub(super) fn refuse_other_stream(
    store: &Store,
    newest: Option<&Version>,
    options: &Options,
) -> Result<(), Error> {
    match newest {
        Some(newest) if newest.stream != options.source.stream() => Err(Error::Refused(format!(
            "The store {} holds {}; name another DST",
            store.name(),
            match newest.stream {
                StreamKind::Tar => "a tree",
                StreamKind::Raw => "a database or a command's output",
            }
        ))),
        _ => Ok(()),
    }
}

pub(super) fn refuse_empty(
    tree: &Tree,
    scanned: &Scanned,
    newest: Option<&Version>,
    options: &Options,
) -> Result<(), Error> {
    let source = tree.path.display();
    let had_members = newest.is_some_and(|newest| newest.members > 1);
    if scanned.members <= 1 && !scanned.is_file && had_members && !options.allow_empty {
        return Err(Error::Refused(format!(
            "{source} is empty (or EXCLUDE leaves everything out), but the last version was not: is it mounted? If it is meant to be empty, pass --allow-empty"
        )));
    }
    // A tree's catalog begins with the source directory, whose path is empty.
    let was_file = newest.map(|newest| !newest.catalog.first.is_empty());
    if was_file.is_some_and(|was_file| was_file != scanned.is_file) && !options.adopt {
        return Err(Error::Refused(format!(
            "{source} was a directory in the last version and is a file now, or the other way round; if that is meant, pass --adopt"
        )));
    }
    Ok(())
}
