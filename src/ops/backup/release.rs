//! Before an older version is no longer held whole, what will rebuild it is looked at: nothing is dropped on trust.

use std::collections::BTreeSet;

use super::previous::wrong_with;
use crate::catalog::Version;
use crate::catalog::version::describe;
use crate::error::StoreError;
use crate::plan::chain::{self, ChainPolicy};
use crate::store::{Area, Store};

/// Which versions stay whole: those of the plan, and those that their deltas would not rebuild any more, which is damage.
/// While damage is known nothing is given up. `proved` is the version whose delta was proved in this run.
pub fn stay_whole(
    store: &Store,
    versions: &[Version],
    policy: &ChainPolicy,
    proved: Option<u64>,
    damage: &mut Vec<String>,
) -> Result<BTreeSet<u64>, StoreError> {
    let mut whole = chain::whole(versions, policy.fulls_kept);
    let older = versions
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, version)| version.whole.is_some() && Some(version.seq) != proved);
    for (index, version) in older {
        if !damage.is_empty() {
            whole.insert(version.seq);
        } else if !whole.contains(&version.seq)
            && let Some(why) = stays_because(store, versions, index, &whole, proved)?
        {
            whole.insert(version.seq);
            damage.push(format!("{why} (so {} stays whole)", describe(version)));
        }
    }
    Ok(whole)
}

/// Why a version must stay whole though it need not: the first delta on the way from it to a version that stays whole which
/// is not what its name says.
fn stays_because(
    store: &Store,
    versions: &[Version],
    index: usize,
    whole: &BTreeSet<u64>,
    proved: Option<u64>,
) -> Result<Option<String>, StoreError> {
    let way = versions[index..]
        .iter()
        .take_while(|version| version.seq == versions[index].seq || !whole.contains(&version.seq));
    for version in way.filter(|version| Some(version.seq) != proved) {
        for file in &version.delta {
            let wrong = wrong_with(store, &Area::Deltas.path(file.name))?;
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
    }
    Ok(None)
}
