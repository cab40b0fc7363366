//! What a policy means for a store.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::catalog::Version;
use crate::error::Error;
use crate::format::state::State;
use crate::plan::retention::{Candidate, Policy, Verdict, judge};
use crate::store::{Store, collect};

/// Judges all versions of a store, in their order.
pub fn verdicts(
    store: &Store,
    state: &State,
    versions: &[Version],
    policy: &Policy,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Verdict>, Error> {
    let candidate = |version: &Version| Candidate {
        seq: version.seq,
        time: version.time,
        is_partial: version.is_partial(),
        pin: state
            .pins
            .iter()
            .find(|pin| pin.seq == version.seq)
            .map(|pin| pin.note.clone()),
    };
    let candidates: Vec<Candidate> = versions.iter().map(candidate).collect();
    let refuse = |why| Error::Refused(format!("{}: {why}; nothing was removed", store.name()));
    let mut verdicts = judge(&candidates, policy, now, zone).map_err(refuse)?;
    if let Some(max_bytes) = policy.max_store_bytes {
        spare(store, state, versions, max_bytes, &mut verdicts)?;
    }
    Ok(verdicts)
}

/// Of what may go, from the newest to the oldest, only so much goes as the store is too large.
fn spare(
    store: &Store,
    state: &State,
    versions: &[Version],
    max_bytes: u64,
    verdicts: &mut [Verdict],
) -> Result<(), Error> {
    let size = |versions: &[Version]| {
        let difference = collect::difference(store, (versions, &state.kept_packs), (&[], &[]))?;
        Ok::<_, Error>(difference.gone_bytes)
    };
    let mut bytes = size(versions)?;
    let mut gone = BTreeSet::new();
    for verdict in verdicts.iter_mut().filter(|verdict| !verdict.stays) {
        if bytes <= max_bytes {
            verdict.stays = true;
            verdict.reasons = vec!["the store is small enough with it".to_owned()];
            continue;
        }
        gone.insert(verdict.seq);
        let stays = |version: &&Version| !gone.contains(&version.seq);
        let left: Vec<Version> = versions.iter().filter(stays).cloned().collect();
        bytes = size(&left)?;
    }
    Ok(())
}
