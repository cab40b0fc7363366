//! The one step that makes a run's work count.

use super::file::{NewFile, TEMPORARY};
use super::{Area, Store, state_path};
use crate::catalog::Version;
use crate::error::StoreError;
use crate::format::state::{self, State, VersionFile};
use crate::format::version;

/// When a state itself holds this many versions, all but [`KEPT_IN_STATE`] of them move to a version file.
const STATE_MAX_VERSIONS: usize = 128;
const KEPT_IN_STATE: usize = 64;
/// Where everything that a state may name lies.
const NAMED: [Area; 5] = [
    Area::Objects,
    Area::Manifests,
    Area::Catalogs,
    Area::Deltas,
    Area::Versions,
];

/// Commits a state: everything that it names is made durable, then the state is written, synced, published under its
/// number and made durable itself. Only when this returns is the version committed.
pub fn commit(store: &Store, next: State) -> Result<State, StoreError> {
    for area in NAMED {
        store.sync_dir(area.dir())?;
    }
    let content = state::encode(&next);
    if state::decode(&content).ok().as_ref() != Some(&next) {
        return Err(StoreError::Proof(
            "the new state cannot be read back".into(),
        ));
    }
    let path = state_path(next.number);
    let temporary = format!("{}/{TEMPORARY}{}", Area::State.dir(), next.number);
    let write = || {
        let mut file = store.disk().create(&temporary, false)?;
        file.write(&content)?;
        file.sync()?;
        drop(file);
        store.disk().publish(&temporary, &path, false)
    };
    write().map_err(|error| StoreError::io("write", &path, error))?;
    store.sync_dir(Area::State.dir())?;
    Ok(next)
}

/// Commits a state with these versions, of which none before `changed_from` was changed: their version files stay.
/// Older versions are moved to such files, so that a commit costs the same after ten years.
pub fn commit_versions(
    store: &Store,
    mut next: State,
    versions: &[Version],
    changed_from: u64,
) -> Result<State, StoreError> {
    let mut rest = versions;
    let mut archived = Vec::new();
    for file in &next.archived {
        let (part, later) =
            rest.split_at(rest.partition_point(|version| version.seq <= file.last_seq));
        rest = later;
        if file.last_seq < changed_from {
            archived.push(file.clone());
        } else {
            archived.extend(archive(store, archived.len() as u64, part)?);
        }
    }
    if rest.len() >= STATE_MAX_VERSIONS {
        let (part, later) = rest.split_at(STATE_MAX_VERSIONS - KEPT_IN_STATE);
        rest = later;
        archived.extend(archive(store, archived.len() as u64, part)?);
    }
    (next.archived, next.versions) = (archived, rest.to_vec());
    commit(store, next)
}

/// Writes a version file with these versions, if there are any.
fn archive(
    store: &Store,
    number: u64,
    versions: &[Version],
) -> Result<Option<VersionFile>, StoreError> {
    let (Some(first), Some(last)) = (versions.first(), versions.last()) else {
        return Ok(None);
    };
    let mut file = NewFile::create(store.disk(), Area::Versions, number)?;
    file.write(version::encode_versions(versions).as_bytes())?;
    Ok(Some(VersionFile {
        name: file.finish()?,
        first_seq: first.seq,
        last_seq: last.seq,
    }))
}
