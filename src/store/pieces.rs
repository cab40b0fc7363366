//! The new stream described by where its bytes come from: the plan from which both the manifest and the delta follow.

use std::collections::HashSet;

use super::manifests::{ManifestReader, ManifestWriter};
use super::tree::WrittenTree;
use crate::catalog::{FrameRef, Slice};
use crate::error::StoreError;

/// Where bytes of the new stream come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The previous version's stream, from this offset on.
    Old(u64),
    /// A frame of this run, by number, from this place on.
    New(u32, u32),
    /// A staged frame, by index, from this place on.
    Staged(u32, u32),
}

/// A run of bytes of the new stream with one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the new stream.
    pub start: u64,
    /// Its length.
    pub len: u64,
    /// Where its bytes come from.
    pub origin: Origin,
}

/// All pieces of the new stream in order.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<Piece>,
    len: u64,
}

impl Pieces {
    /// Adds bytes at the end; joined to the last piece if they continue it.
    pub fn push(&mut self, origin: Origin, len: u64) {
        if len == 0 {
            return;
        }
        let start = self.len;
        self.len += len;
        if let Some(last) = self.pieces.last_mut()
            && continues(last, origin)
        {
            last.len += len;
            return;
        }
        self.pieces.push(Piece { start, len, origin });
    }

    /// Adds the pieces of another list.
    pub fn append(&mut self, other: &Self) {
        other
            .pieces
            .iter()
            .for_each(|piece| self.push(piece.origin, piece.len));
    }

    /// The length of the stream so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes are of this run.
    pub fn new_bytes(&self) -> u64 {
        let new = self
            .pieces
            .iter()
            .filter(|piece| matches!(piece.origin, Origin::New(..)));
        new.map(|piece| piece.len).sum()
    }

    /// Whether the new stream is the old one, byte for byte.
    pub fn is_all_of(&self, old_bytes: u64) -> bool {
        if old_bytes == 0 {
            return self.pieces.is_empty();
        }
        self.pieces
            == [Piece {
                start: 0,
                len: old_bytes,
                origin: Origin::Old(0),
            }]
    }

    /// Whether they are neighbouring bytes of the old stream from `offset` on.
    pub fn is_old_at(&self, offset: u64) -> bool {
        matches!(self.pieces[..], [Piece { origin: Origin::Old(at), .. }] if at == offset)
    }

    /// The stored length of the staged frames that are used.
    pub fn staged_bytes(&self, staged: &[FrameRef]) -> u64 {
        let used = self.pieces.iter().filter_map(|piece| match piece.origin {
            Origin::Staged(frame, _) => Some(frame as usize),
            Origin::Old(_) | Origin::New(..) => None,
        });
        let used: HashSet<usize> = used.collect();
        used.into_iter()
            .map(|frame| u64::from(staged[frame].stored_bytes))
            .sum()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
    }

    /// Writes the manifest: old slices are kept, new frames get their places. Returns also the stored length of all
    /// frames that it names.
    pub fn write_manifest(
        &self,
        mut writer: ManifestWriter,
        old: Option<&ManifestReader>,
        new: &[FrameRef],
        staged: &[FrameRef],
    ) -> Result<(WrittenTree, u64), StoreError> {
        let (mut frames, mut stored_bytes) = (HashSet::new(), 0);
        self.slices(old, new, staged, &mut |slice, _| {
            if frames.insert(slice.frame.digest) {
                stored_bytes += u64::from(slice.frame.stored_bytes);
            }
            writer.add(slice)
        })?;
        Ok((writer.finish()?, stored_bytes))
    }

    /// Calls `see` with the slices that make the stream, and whether each is one of the old version's.
    pub fn slices(
        &self,
        old: Option<&ManifestReader>,
        new: &[FrameRef],
        staged: &[FrameRef],
        see: &mut impl FnMut(Slice, bool) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for piece in &self.pieces {
            let (frame, skip) = match piece.origin {
                Origin::Old(offset) => {
                    let old = old.expect("a piece of the old stream needs an old version");
                    let mut slices = Vec::new();
                    old.slices(offset..offset + piece.len, &mut |slice| slices.push(slice))?;
                    slices.into_iter().try_for_each(|slice| see(slice, true))?;
                    continue;
                }
                Origin::New(frame, skip) => (new[frame as usize], skip),
                Origin::Staged(frame, skip) => (staged[frame as usize], skip),
            };
            let take =
                u32::try_from(piece.len).expect("a piece of a frame is smaller than the frame");
            see(Slice { frame, skip, take }, false)?;
        }
        Ok(())
    }
}

fn continues(last: &Piece, origin: Origin) -> bool {
    let end = |skip: u32| u64::from(skip) + last.len;
    match (last.origin, origin) {
        (Origin::Old(at), Origin::Old(next)) => at + last.len == next,
        (Origin::New(frame, skip), Origin::New(next, at))
        | (Origin::Staged(frame, skip), Origin::Staged(next, at)) => {
            frame == next && end(skip) == u64::from(at)
        }
        _ => false,
    }
}
