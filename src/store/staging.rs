//! Taking over what an interrupted run completed.

use std::collections::HashMap;

use super::file::TEMPORARY;
use super::{Area, Store, codec};
use crate::catalog::FrameRef;
use crate::digest::{Digest, DigestWriter};
use crate::error::StoreError;
use crate::format::staging::{self, FrameBlocks, StagedBlock};

const READ_BYTES: u32 = 4 << 20;
/// Bounds memory: what is beyond is written again.
const STAGED_MAX_BLOCKS: usize = 4 << 20;

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

/// Reads the records, hashes the objects they are about and decodes their frames. What does not prove itself is left
/// out; the collector removes it.
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
        let mut proof = Proof {
            frame: None,
            raw: Vec::new(),
        };
        for block in blocks.into_iter().filter(|block| proof.holds(store, block)) {
            if staged.blocks.len() >= STAGED_MAX_BLOCKS {
                return Ok(staged);
            }
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

/// The frame that is being looked into.
struct Proof {
    frame: Option<FrameRef>,
    raw: Vec<u8>,
}

impl Proof {
    /// Whether a block is where the record says. Each frame is decoded once, as its blocks come one after the other.
    fn holds(&mut self, store: &Store, block: &StagedBlock) -> bool {
        let frame = block.slice.frame;
        if self.frame != Some(frame) {
            self.frame = Some(frame);
            let path = Area::Objects.path(frame.object);
            let raw = store
                .read_range(&path, frame.offset, frame.stored_bytes)
                .and_then(|stored| codec::decode(&stored, frame.raw_bytes, &path));
            self.raw = raw.unwrap_or_default();
            if Digest::of(&self.raw) != frame.digest {
                self.raw.clear();
            }
        }
        let start = block.slice.skip as usize;
        let end = start + block.slice.take as usize;
        self.raw.get(start..end).map(Digest::of) == Some(block.digest)
    }
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

/// Removes the records, once what they are about is committed or given up, but for those of kept objects.
pub fn clear(store: &Store, is_kept: impl Fn(&Digest) -> bool) -> Result<(), StoreError> {
    for name in store.list(Area::Staging)? {
        if !name.parse().is_ok_and(|name| is_kept(&name)) {
            store.remove(&format!("{}/{name}", Area::Staging.dir()))?;
        }
    }
    Ok(())
}

/// The objects that have records.
pub fn objects(store: &Store) -> Result<impl Iterator<Item = Digest>, StoreError> {
    let names = store.list(Area::Staging)?.into_iter();
    Ok(names.filter_map(|name| name.parse().ok()))
}
