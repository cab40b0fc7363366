//! What a version's stream must be, part by part, from its catalog alone.

use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use crate::catalog::member::PlacedBlock;
use crate::catalog::{Member, Version};
use crate::digest::{BLOCK_BYTES, Digest};
use crate::error::{StoreError, printable};
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::sequence::WINDOW_BYTES;
use crate::tree::header::header;

/// Headers are made and hashed by all threads, so many members at once.
const BATCH_MEMBERS: usize = 4096;
const RESERVED_MEMBERS: usize = 4 << 20;

/// What a part of a stream must be: what comes before a member's data (the padding of the member before, its header, its
/// map), or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the stream.
    pub offset: u64,
    /// Its length.
    pub len: u32,
    /// The first half of its BLAKE3: a million members have two million parts.
    pub digest: [u8; 16],
}

impl Part {
    /// What a block must be.
    pub fn of_block(block: &PlacedBlock) -> Self {
        Self {
            offset: block.offset,
            len: u32::try_from(block.len).expect("a block fits in memory"),
            digest: half(block.digest),
        }
    }
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
        let members = usize::try_from(version.members).unwrap_or(0);
        // A header and, mostly, one block each; what a damaged state says is not believed beyond reason.
        parts.list.reserve(2 * members.min(RESERVED_MEMBERS));
        let mut members = CatalogReader::open(store, &version.catalog)?;
        let mut batch = Vec::new();
        while let Some((offset, member)) = members.next_member()? {
            if member.stream_bytes() > 0 {
                batch.push((offset, member));
            }
            if batch.len() == BATCH_MEMBERS {
                parts.add_all(&batch)?;
                batch.clear();
            }
        }
        parts.add_all(&batch)?;
        parts
            .gap
            .resize(parts.gap.len() + version.stream.end_bytes(), 0);
        parts.close_gap();
        parts.hash_gaps();
        if parts.end == version.stream_bytes {
            return Ok(parts);
        }
        let detail = format!("the catalog of v{} describes another length", version.seq);
        Err(StoreError::damaged("catalogs", detail))
    }

    fn add_all(&mut self, members: &[(u64, Member)]) -> Result<(), StoreError> {
        let head = |(_, member): &(u64, Member)| {
            let mut head = header(member);
            head.extend(member.content.sparse_map().unwrap_or_default());
            head
        };
        let heads: Vec<Vec<u8>> = members.par_iter().map(head).collect();
        for ((offset, member), head) in members.iter().zip(heads) {
            let expected = u64::from(member.header_bytes) + member.content.map_bytes();
            let begins = self.end + self.gap.len() as u64;
            if head.len() as u64 != expected || begins != *offset {
                let path = printable(&member.path);
                let detail = format!("{path} has a header of another length");
                return Err(StoreError::damaged("catalogs", detail));
            }
            self.add(*offset, member, &head);
        }
        self.hash_gaps();
        Ok(())
    }

    fn add(&mut self, offset: u64, member: &Member, head: &[u8]) {
        self.gap.extend(head);
        if self.gap.len() >= BLOCK_BYTES {
            self.close_gap();
        }
        for block in member.placed_blocks(offset) {
            self.close_gap();
            self.list.push(Part::of_block(&block));
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
        let gap = std::mem::take(&mut self.gap);
        let len = u32::try_from(gap.len()).expect("headers and maps fit in memory");
        self.gaps.push((self.list.len(), gap));
        self.list.push(Part {
            offset: self.end,
            len,
            digest: [0; 16],
        });
        self.end += u64::from(len);
    }

    fn hash_gaps(&mut self) {
        let digest = |(index, gap): &(usize, Vec<u8>)| (*index, half(Digest::of(gap)));
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
        let follows =
            before.is_some_and(|before| before.offset + u64::from(before.len) == part.offset);
        if !follows || part.offset + u64::from(part.len) - start > WINDOW_BYTES {
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
    parts[0].offset..last.offset + u64::from(last.len)
}

/// What is kept of a digest.
pub fn half(digest: Digest) -> [u8; 16] {
    digest.0[..16].try_into().expect("half of 32 bytes")
}

/// The parts that are something else in a window that begins at `start` of the stream.
pub fn wrong(parts: &[Part], start: u64, window: &[u8]) -> Vec<Part> {
    let is_wrong = |part: &&Part| {
        let at = usize::try_from(part.offset - start).expect("windows fit in memory");
        let len = part.len as usize;
        half(Digest::of(&window[at..at + len])) != part.digest
    };
    parts.par_iter().filter(is_wrong).copied().collect()
}

/// The members whose headers or data bad parts overlap, in path order; none if only the end of the stream is bad.
pub fn members_of(
    store: &Store,
    version: &Version,
    bad: &[Part],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut bad: Vec<Range<u64>> = bad.iter().map(|part| range(&[*part])).collect();
    bad.sort_unstable_by_key(|range| range.start);
    let mut named = Vec::new();
    let mut members = CatalogReader::open(store, &version.catalog)?;
    while let Some((offset, member)) = members.next_member()? {
        // Without the padding, with which the next header's part begins.
        let end = offset + u64::from(member.header_bytes) + member.body_bytes();
        let next = bad.partition_point(|range| range.end <= offset);
        if member.stream_bytes() > 0 && bad.get(next).is_some_and(|range| range.start < end) {
            named.push(member.path);
        }
    }
    Ok(named)
}
