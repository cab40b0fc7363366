//! What a version's stream must be, part by part, from its catalog alone.

use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use crate::catalog::{Member, Version};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::sequence::WINDOW_BYTES;
use crate::tree::header::{END_BYTES, header};

/// Headers are made and hashed by all threads, so many members at once.
const BATCH_MEMBERS: usize = 4096;

/// What a part of a stream must be: what comes before a member's data (the padding of the member before, its header, its
/// map), or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the stream.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// Its BLAKE3.
    pub digest: Digest,
}

/// A version's parts, in order; they fill its stream.
#[derive(Default)]
pub struct Parts {
    /// The parts.
    pub list: Vec<Part>,
    end: u64,
    /// What stands between the last block and the next.
    gap: Vec<u8>,
    /// Such bytes whose part has no digest yet.
    gaps: Vec<(usize, Vec<u8>)>,
}

impl Parts {
    /// What a version's catalog says of its stream.
    pub fn of(store: &Store, version: &Version) -> Result<Self, StoreError> {
        let mut parts = Self::default();
        let mut members = CatalogReader::open(store, &version.catalog)?;
        let mut batch = Vec::new();
        while let Some((offset, member)) = members.next_member()? {
            if member.stream_bytes() > 0 {
                batch.push((offset, member));
            }
            if batch.len() == BATCH_MEMBERS {
                parts.add_all(&batch);
                batch.clear();
            }
        }
        parts.add_all(&batch);
        parts.gap.extend([0; END_BYTES]);
        parts.close_gap();
        parts.hash_gaps();
        if parts.end == version.stream_bytes {
            return Ok(parts);
        }
        let detail = format!("the catalog of v{} describes another length", version.seq);
        Err(StoreError::damaged("catalogs", detail))
    }

    fn add_all(&mut self, members: &[(u64, Member)]) {
        let head = |(_, member): &(u64, Member)| {
            let mut head = header(member);
            head.extend(member.content.sparse_map().unwrap_or_default());
            head
        };
        let heads: Vec<Vec<u8>> = members.par_iter().map(head).collect();
        for ((offset, member), head) in members.iter().zip(heads) {
            self.add(*offset, member, &head);
        }
        self.hash_gaps();
    }

    fn add(&mut self, offset: u64, member: &Member, head: &[u8]) {
        self.gap.extend(head);
        for block in member.placed_blocks(offset) {
            self.close_gap();
            self.list.push(Part {
                offset: block.offset,
                len: block.len,
                digest: block.digest,
            });
            self.end = block.offset + block.len;
        }
        let padded = offset + member.stream_bytes();
        let padding = padded.saturating_sub(self.end + self.gap.len() as u64);
        self.gap
            .resize(self.gap.len() + usize::try_from(padding).unwrap_or(0), 0);
    }

    fn close_gap(&mut self) {
        if self.gap.is_empty() {
            return;
        }
        let len = self.gap.len() as u64;
        let gap = std::mem::take(&mut self.gap);
        self.gaps.push((self.list.len(), gap));
        self.list.push(Part {
            offset: self.end,
            len,
            digest: Digest([0; 32]),
        });
        self.end += len;
    }

    fn hash_gaps(&mut self) {
        let digest = |(index, gap): &(usize, Vec<u8>)| (*index, Digest::of(gap));
        let digests: Vec<_> = self.gaps.par_iter().map(digest).collect();
        for (index, digest) in digests {
            self.list[index].digest = digest;
        }
        self.gaps.clear();
    }

    /// The part that begins at a place.
    pub fn at(&self, offset: u64) -> Option<&Part> {
        let place = self.list.binary_search_by_key(&offset, |part| part.offset);
        place.ok().map(|place| &self.list[place])
    }
}

/// Parts that follow each other, by at most one window's length.
pub fn windows(parts: &[Part]) -> Vec<&[Part]> {
    let mut windows = Vec::new();
    let (mut first, mut start) = (0, 0);
    for (index, part) in parts.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &parts[before]);
        let follows = before.is_some_and(|before| before.offset + before.len == part.offset);
        if !follows || part.offset + part.len - start > WINDOW_BYTES {
            if first < index {
                windows.push(&parts[first..index]);
            }
            (first, start) = (index, part.offset);
        }
    }
    if first < parts.len() {
        windows.push(&parts[first..]);
    }
    windows
}

/// Where parts that follow each other lie in the stream.
pub fn range(parts: &[Part]) -> Range<u64> {
    let last = parts[parts.len() - 1];
    parts[0].offset..last.offset + last.len
}

/// The parts that are something else in a window that begins at `start` of the stream.
pub fn wrong(parts: &[Part], start: u64, window: &[u8]) -> Vec<Part> {
    let is_wrong = |part: &&Part| {
        let at = usize::try_from(part.offset - start).expect("windows fit in memory");
        let len = usize::try_from(part.len).expect("windows fit in memory");
        Digest::of(&window[at..at + len]) != part.digest
    };
    parts.par_iter().filter(is_wrong).copied().collect()
}

/// The members that bad parts belong to, in path order. A header's part begins with the padding of the member before.
pub fn members_of(
    store: &Store,
    version: &Version,
    bad: &[Part],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut ends: Vec<u64> = bad.iter().map(|part| part.offset + part.len).collect();
    ends.sort_unstable();
    let mut named = Vec::new();
    let mut members = CatalogReader::open(store, &version.catalog)?;
    while let Some((offset, member)) = members.next_member()? {
        let next = ends.partition_point(|end| *end <= offset);
        if ends
            .get(next)
            .is_some_and(|end| *end <= offset + member.stream_bytes())
        {
            named.push(member.path);
        }
    }
    Ok(named)
}
