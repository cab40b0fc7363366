//! The one step that makes a run's work count.

use std::collections::HashSet;

use super::file::{NewFile, TEMPORARY};
use super::{Area, Store, state_path};
use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::state::{self, State, VersionFile};

/// When a state itself holds this many versions, all but [`KEPT_IN_STATE`] of them move to a version file.
const STATE_MAX_VERSIONS: usize = 128;
const KEPT_IN_STATE: usize = 64;
/// Where everything that a state may name lies.
const NAMED: [Area; 5] = [Area::Objects, Area::Manifests, Area::Catalogs, Area::Deltas, Area::Versions];

/// Commits a state: everything that it names is made durable, then the state is written, synced, published under its
/// number and made durable itself. Only when this returns is the version committed.
pub fn commit(store: &Store, next: State) -> Result<State, StoreError> {
    for area in NAMED {
        store.sync_dir(area.dir())?;
    }
    let path = state_path(next.number);
    let temporary = format!("{}/{TEMPORARY}{}", Area::State.dir(), next.number);
    let write = || {
        let mut file = store.disk().create(&temporary, false)?;
        file.write(&state::encode(&next))?;
        file.sync()?;
        drop(file);
        store.disk().publish(&temporary, &path, false)
    };
    write().map_err(|error| StoreError::io("write", &path, error))?;
    store.sync_dir(Area::State.dir())?;
    Ok(next)
}

/// Commits a state with these versions. Those in version files stay there unless they were changed; as many as
/// needed are moved there, so that a commit costs the same after ten years.
pub fn commit_versions(store: &Store, mut next: State, versions: &[Version]) -> Result<State, StoreError> {
    let mut rest = versions;
    let mut archived = Vec::new();
    let known: HashSet<Digest> = next.archived.iter().map(|file| file.name).collect();
    for (number, file) in next.archived.iter().enumerate() {
        let (part, later) = rest.split_at(rest.partition_point(|version| version.seq <= file.last_seq));
        rest = later;
        archived.extend(archive(store, &known, number as u64, part)?);
    }
    if rest.len() >= STATE_MAX_VERSIONS {
        let (part, later) = rest.split_at(STATE_MAX_VERSIONS - KEPT_IN_STATE);
        rest = later;
        archived.extend(archive(store, &known, next.archived.len() as u64, part)?);
    }
    (next.archived, next.versions) = (archived, rest.to_vec());
    commit(store, next)
}

/// The version file with these versions: one that the state names already, or a new one.
fn archive(store: &Store, known: &HashSet<Digest>, number: u64, versions: &[Version]) -> Result<Option<VersionFile>, StoreError> {
    let (Some(first), Some(last)) = (versions.first(), versions.last()) else { return Ok(None) };
    let content = state::encode_versions(versions);
    let name = Digest::of(content.as_bytes());
    if !known.contains(&name) {
        let mut file = NewFile::create(store.disk(), Area::Versions, number)?;
        file.write(content.as_bytes())?;
        file.finish()?;
    }
    Ok(Some(VersionFile { name, first_seq: first.seq, last_seq: last.seq }))
}
