//! Opening the store that a backup goes to, or making it; and the refusals that protect other people's data.

use super::Options;
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
    // What was imported belongs to the first source that goes on with it.
    let same = state.host == options.host && state.source == options.source_name;
    if same || state.source.is_empty() || options.adopt {
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
