//! Taking over what an interrupted run completed.

use std::collections::HashMap;

use super::file::TEMPORARY;
use super::{Area, Store};
use crate::catalog::FrameRef;
use crate::digest::{Digest, DigestWriter};
use crate::error::StoreError;
use crate::format::staging::{self, FrameBlocks};

const READ_BYTES: u32 = 4 << 20;

/// Blocks that lie in objects of an earlier run that did not commit.
#[derive(Default)]
pub struct Staged {
    /// The frames they lie in.
    pub frames: Vec<FrameRef>,
    /// For each block its frame's index, where it begins there, and its length.
    pub blocks: HashMap<Digest, (u32, u32, u32)>,
}

/// Writes the staging record of an object. Not synced: a record that a crash spoils is not believed.
pub fn record(store: &Store, object: Digest, frames: &[FrameBlocks]) -> Result<(), StoreError> {
    let path = Area::Staging.path(object);
    let temporary = format!("{}/{TEMPORARY}record", Area::Staging.dir());
    let write = || {
        store
            .disk()
            .create(&temporary, false)?
            .write(&staging::encode(object, frames))?;
        store.disk().publish(&temporary, &path, true)
    };
    write().map_err(|error| StoreError::io("write", path, error))
}

/// Reads the records and hashes the objects they are about. What does not prove itself is left out; the collector
/// removes it.
pub fn take_over(store: &Store) -> Result<Staged, StoreError> {
    let mut staged = Staged::default();
    for name in store.list(Area::Staging)? {
        let Ok(object) = name.parse::<Digest>() else {
            continue;
        };
        let Ok(raw) = store.read_all(&Area::Staging.path(object)) else {
            continue;
        };
        let Ok(blocks) = staging::decode(&raw, object) else {
            continue;
        };
        if !is_sound(store, object) {
            continue;
        }
        for block in blocks {
            if staged.frames.last() != Some(&block.slice.frame) {
                staged.frames.push(block.slice.frame);
            }
            let frame = u32::try_from(staged.frames.len() - 1).expect("fewer frames than 2^32");
            staged
                .blocks
                .insert(block.digest, (frame, block.slice.skip, block.slice.take));
        }
    }
    Ok(staged)
}

fn is_sound(store: &Store, object: Digest) -> bool {
    let path = Area::Objects.path(object);
    let Ok(file) = store.disk().open(&path) else {
        return false;
    };
    let mut digest = DigestWriter::default();
    let mut buffer = vec![0; READ_BYTES as usize];
    let mut at = 0;
    while at < file.len() {
        let part =
            usize::try_from((file.len() - at).min(READ_BYTES.into())).expect("at most the buffer");
        if file.read_at(at, &mut buffer[..part]).is_err() {
            return false;
        }
        digest.update(&buffer[..part]);
        at += part as u64;
    }
    digest.digest() == object
}

/// Removes the records, once what they are about is committed or given up.
pub fn clear(store: &Store) -> Result<(), StoreError> {
    for name in store.list(Area::Staging)? {
        store.remove(&format!("{}/{name}", Area::Staging.dir()))?;
    }
    Ok(())
}
