//! Which states stay in a remote, and removing the others.
//!
//! A state holds all versions that the store had then. Without rules those go of which every version is also in a state
//! that stays: no version is lost. With rules the states are judged by their times as versions are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::Version;
use crate::error::{Error, RemoteFault};
use crate::format::state::State;
use crate::plan::retention::{Candidate, Policy, judge};
use crate::remote::mirror::Mirror;
use crate::remote::names::{self, Held, Listing};
use crate::store::{Store, collect, state_path};

/// A state of a remote, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its number.
    pub number: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// Whether it stays.
    pub stays: bool,
    /// Why.
    pub reasons: Vec<String>,
    /// The sequence numbers of its versions.
    pub versions: Vec<u64>,
}

/// What is, or would be, done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All states, oldest first.
    pub verdicts: Vec<Verdict>,
    /// What goes: files, with their lengths, states first.
    pub doomed: Vec<(String, u64)>,
}

impl Plan {
    /// How many bytes go.
    pub fn bytes(&self) -> u64 {
        self.doomed.iter().map(|(_, len)| len).sum()
    }

    /// The numbers of the versions that no state has any more.
    pub fn lost_versions(&self) -> BTreeSet<u64> {
        let of = |stays: bool| {
            let states = self
                .verdicts
                .iter()
                .filter(move |verdict| verdict.stays == stays);
            states.flat_map(|verdict| verdict.versions.iter().copied())
        };
        let kept: BTreeSet<u64> = of(true).collect();
        of(false).filter(|seq| !kept.contains(seq)).collect()
    }
}

/// Finds out what goes. Nothing is removed on the ground of what a listing does not show: all that the states that stay
/// name must be in it.
///
/// States that were replaced less than `grace` ago stay in any case: somebody may be reading them.
pub fn plan(
    mirror: &Mirror,
    policy: Option<&Policy>,
    known: Known,
    (grace, now): (SignedDuration, Timestamp),
) -> Result<Plan, Error> {
    let listing = mirror.list()?;
    let numbers = listing.states();
    let Some(&newest) = numbers.last() else {
        return Err(Error::Refused(format!(
            "{} lists no state of a store: nothing was removed",
            mirror.name()
        )));
    };
    require_newest(mirror, newest, known, &numbers)?;
    let mut states = BTreeMap::new();
    let there = mirror.store(None);
    for number in numbers {
        let store = there.clone().as_of(Some(number));
        let state = store.current()?;
        let versions = store.versions(&state)?;
        states.insert(number, (store, state, versions));
    }
    let seqs: BTreeMap<u64, Vec<u64>> = states
        .iter()
        .map(|(number, (_, _, versions))| {
            (
                *number,
                versions.iter().map(|version| version.seq).collect(),
            )
        })
        .collect();
    let mut stays = match policy {
        Some(policy) => by_rules(mirror, &states_only(&states), newest, policy, now)?,
        None => superseded(&seqs),
    };
    let replaced = states.values().skip(1).map(|(_, state, _)| state.time);
    for (number, time) in states.keys().zip(replaced) {
        let verdict = stays.get_mut(number).expect("all are judged");
        if !verdict.0 && now.duration_since(time) < grace {
            *verdict = (
                true,
                vec!["was replaced less than a day ago (--now minds no time)".to_owned()],
            );
        }
    }
    let mut verdicts = Vec::new();
    let mut named = BTreeSet::from(["README.txt".to_owned()]);
    for (number, (store, state, versions)) in &states {
        let (is_kept, reasons) = stays[number].clone();
        if is_kept {
            named.insert(state_path(*number));
            named.extend(collect::files_of(store, state, versions)?);
        }
        verdicts.push(Verdict {
            number: *number,
            time: state.time,
            stays: is_kept,
            reasons,
            versions: seqs[number].clone(),
        });
    }
    require_listed(mirror, &named, &listing)?;
    Ok(Plan {
        verdicts,
        doomed: doomed(&named, &listing),
    })
}

fn states_only(
    states: &BTreeMap<u64, (Store, State, Vec<Version>)>,
) -> Vec<(u64, Timestamp, bool)> {
    let each = states.iter().map(|(number, (_, state, versions))| {
        let is_partial = versions.last().is_some_and(Version::is_partial);
        (*number, state.time, is_partial)
    });
    each.collect()
}

type Stays = BTreeMap<u64, (bool, Vec<String>)>;

fn by_rules(
    mirror: &Mirror,
    states: &[(u64, Timestamp, bool)],
    newest: u64,
    policy: &Policy,
    now: Timestamp,
) -> Result<Stays, Error> {
    let candidates: Vec<Candidate> = states
        .iter()
        .map(|(number, time, is_partial)| Candidate {
            seq: *number,
            time: *time,
            is_partial: *is_partial,
            pin: None,
        })
        .collect();
    let refuse = |why| Error::Refused(format!("{}: {why}; nothing was removed", mirror.name()));
    let verdicts = judge(&candidates, policy, now, &TimeZone::UTC).map_err(refuse)?;
    let stays = verdicts.into_iter().map(|verdict| {
        // Whatever the rules say.
        let is_kept = verdict.stays || verdict.seq == newest;
        (verdict.seq, (is_kept, verdict.reasons))
    });
    Ok(stays.collect())
}

/// From the newest on each stays that has a version which none of those before has.
fn superseded(seqs: &BTreeMap<u64, Vec<u64>>) -> Stays {
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let mut stays = Stays::new();
    for (number, versions) in seqs.iter().rev() {
        let own: Vec<u64> = versions
            .iter()
            .copied()
            .filter(|seq| !seen.contains(seq))
            .collect();
        let verdict = match (stays.is_empty(), &own[..]) {
            (true, _) => (true, vec!["the newest".to_owned()]),
            (false, []) => (false, vec!["later states have all its versions".to_owned()]),
            (false, own) => {
                let names: Vec<String> = own.iter().map(|seq| format!("v{seq}")).collect();
                (true, vec![format!("has {}", names.join(", "))])
            }
        };
        if verdict.0 {
            seen.extend(own);
        }
        stays.insert(*number, verdict);
    }
    stays
}

/// What is known here of the states there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// One that was published there.
    pub done: Option<u64>,
    /// One that may have been.
    pub current: Option<u64>,
}

/// Asks once more, and in other ways, whether there is no later state: what only that one names would go.
fn require_newest(mirror: &Mirror, newest: u64, known: Known, listed: &[u64]) -> Result<(), Error> {
    let mut is_whole = mirror.states()? == listed && known.done.is_none_or(|done| done <= newest);
    if let Some(current) = known.current.filter(|current| *current > newest) {
        match mirror.state(current) {
            Ok(_) => is_whole = false,
            Err(error) if error.fault == RemoteFault::Missing => {}
            Err(error) => return Err(error.into()),
        }
    }
    if is_whole {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{} does not list the newest state that it was given: the listing is not complete, or the copy is damaged. Nothing was removed; btw-backup sync --full, and repair, put it right",
        mirror.name()
    )))
}

fn require_listed(
    mirror: &Mirror,
    named: &BTreeSet<String>,
    listing: &Listing,
) -> Result<(), Error> {
    let is_gone = |path: &&String| {
        // Nothing depends on these.
        let is_needed = !path.ends_with(".sha256") && *path != "README.txt";
        is_needed && !listing.files.contains_key(*path)
    };
    match named.iter().find(is_gone) {
        None => Ok(()),
        Some(path) => Err(Error::Refused(format!(
            "{} does not list {path}, which versions need: the listing is not complete, or the copy is damaged. Nothing was removed; btw-backup verify --remote tells which",
            mirror.name()
        ))),
    }
}

/// The files of a store that nothing names, states first: what a state names is there as long as the state is.
fn doomed(named: &BTreeSet<String>, listing: &Listing) -> Vec<(String, u64)> {
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    for (path, held) in listing
        .files
        .iter()
        .filter(|(path, _)| named.contains(*path))
    {
        match held {
            Held::Whole { .. } => {
                kept.insert(path);
            }
            Held::Cut(_) => {}
        }
    }
    // Of a file that is named no piece goes, not even one that seems to be another's.
    let is_piece = |path: &str| names::file_of_piece(path).is_some_and(|file| named.contains(file));
    let is_ours = |path: &str| {
        let dir = path.split('/').next().unwrap_or_default();
        let areas = [
            "state",
            "objects",
            "manifests",
            "catalogs",
            "deltas",
            "versions",
        ];
        path.contains('/') && areas.contains(&dir)
            || crate::store::archive::is_archive(path.split(".part-").next().unwrap_or_default())
    };
    let goes = listing
        .entries
        .iter()
        .filter(|(path, _)| is_ours(path) && !kept.contains(&path[..]) && !is_piece(path));
    let mut doomed: Vec<(String, u64)> = goes.map(|(path, len)| (path.clone(), *len)).collect();
    doomed.sort_by_key(|(path, _)| !path.starts_with("state/"));
    doomed
}

/// Removes what goes, in its order.
pub fn perform(mirror: &Mirror, plan: &Plan) -> Result<(), Error> {
    for (path, _) in &plan.doomed {
        mirror.remove(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::superseded;
    use std::collections::BTreeMap;

    #[test]
    fn i9_no_version_is_lost_without_rules() {
        let seqs = BTreeMap::from([
            (1, vec![1]),
            (2, vec![1, 2]),
            (3, vec![1, 2, 3]),
            // Here v2 was deleted.
            (4, vec![1, 3]),
            (5, vec![1, 3, 4]),
        ]);
        let stays = superseded(&seqs);
        let kept: Vec<u64> = stays
            .iter()
            .filter_map(|(number, verdict)| verdict.0.then_some(*number))
            .collect();
        assert_eq!(kept, [3, 5]);
        assert_eq!(stays[&3].1, ["has v2"]);
    }
}
