//! Whether what a remote has is an earlier state of this very store. Anything else is refused, and stays as it is.

use crate::catalog::Version;
use crate::error::{Error, with_causes};
use crate::format::state::{self, State};
use crate::remote::mirror::Mirror;
use crate::remote::names::Listing;
use crate::store::{Store, state_path};

/// Returns the number of the newest state that the remote has.
pub(super) fn check(
    store: &Store,
    state: &State,
    versions: &[Version],
    mirror: &Mirror,
    listing: &Listing,
) -> Result<Option<u64>, Error> {
    let Some(&number) = listing.states().last() else {
        return Ok(None);
    };
    let content = mirror.state(number)?;
    let there = state::decode(&content).map_err(|error| {
        Error::Refused(format!(
            "{}: {} there is damaged: {}; `btw-backup repair` writes it anew",
            mirror.name(),
            state_path(number),
            with_causes(&error)
        ))
    })?;
    if there.store != state.store {
        return Err(Error::Refused(format!(
            "{} holds the backups of another store: those of {} on {}. Nothing was changed there; give this remote another url for this machine",
            mirror.name(),
            there.source_path().display(),
            there.host
        )));
    }
    if number == state.number && content == store.state_text(number)? {
        return Ok(Some(number));
    }
    if number >= state.number || there.next_seq > state.next_seq {
        return Err(Error::Refused(format!(
            "{} has state {number} of this store, here is state {}: this is an older copy, or another machine writes there too. Nothing was changed there; what is there can be restored from there",
            mirror.name(),
            state.number
        )));
    }
    // What both have must be the same.
    let differs = there.versions.iter().find(|version| {
        let same_seq = versions.iter().find(|known| known.seq == version.seq);
        same_seq.is_some_and(|known| {
            (known.time, known.catalog.digest) != (version.time, version.catalog.digest)
        })
    });
    match differs {
        Some(version) => Err(written_by_another_seq(mirror, version)),
        None => Ok(Some(number)),
    }
}

/// The refusal of a second writer.
pub(super) fn written_by_another(mirror: &Mirror, number: u64) -> Error {
    Error::Refused(format!(
        "{}: another machine has written state {number} of this store there just now. Only one machine can write to it; nothing of what that one wrote was changed",
        mirror.name()
    ))
}

fn written_by_another_seq(mirror: &Mirror, version: &Version) -> Error {
    Error::Refused(format!(
        "{}: v{} there is not the v{} of this store: another machine, with a copy of this store, has written there. Only one can; nothing was changed. Give this remote another url for this machine",
        mirror.name(),
        version.seq,
        version.seq
    ))
}
