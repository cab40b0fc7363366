//! Room on the disk: freeing it, and deleting where there is none.

use jiff::Timestamp;

use crate::error::{Error, StoreError};
use crate::format::state::State;
use crate::store::collect::{self, Unfinished};
use crate::store::{Store, commit};

/// Does something that frees space; on a full disk once more with the room of the store's reserve.
pub fn with_reserve<T>(
    store: &Store,
    now: Timestamp,
    free: impl Fn() -> Result<T, Error>,
) -> Result<T, Error> {
    let is_full =
        |result: &Result<T, Error>| matches!(result, Err(Error::Store(StoreError::Full { .. })));
    let mut freed = free();
    if is_full(&freed) && store.release_reserve() {
        let _ = give_up(store, now, Unfinished::Goes);
        freed = free();
    }
    match &freed {
        // Where there is still no room, the next run tries again.
        Ok(_) => drop(store.keep_reserve()),
        // What was written for it takes room that others need.
        Err(_) if is_full(&freed) => drop(give_up(store, now, Unfinished::Goes)),
        Err(_) => drop(give_up(store, now, Unfinished::Stays)),
    }
    freed
}

/// Removes what a deletion that failed has written.
fn give_up(store: &Store, now: Timestamp, unfinished: Unfinished) -> Result<(), Error> {
    collect::remove_temporaries(store)?;
    let state = store.current()?;
    let versions = store.versions(&state)?;
    collect::collect(store, &state, &versions, now, unfinished)?;
    Ok(())
}

/// Frees what is deleted; `at_once` also what could still be brought back. `false`: somebody is reading, so nothing was
/// removed. The caller holds the writers' lock.
pub fn free(store: &Store, now: Timestamp, at_once: bool) -> Result<(State, bool), Error> {
    collect::remove_temporaries(store)?;
    let mut state = store.current()?;
    if at_once && !state.retained.is_empty() {
        let next = State {
            number: state.number + 1,
            time: now,
            retained: Vec::new(),
            ..state
        };
        state = commit::commit(store, next)?;
        let _ = store.log(now, "freed what was deleted");
    }
    let versions = store.versions(&state)?;
    let is_freed = collect::collect(store, &state, &versions, now, Unfinished::Goes)?;
    Ok((state, is_freed))
}
