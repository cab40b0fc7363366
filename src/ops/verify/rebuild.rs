//! Rebuilding versions and comparing them with their catalogs, from the newest to the oldest.
//!
//! A part of an older version that its delta copies from a place at which the next newer version was found to hold the very
//! same is not read again: what it costs follows what changed.

use std::collections::BTreeSet;
use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::Broken;
use crate::catalog::{Member, Version};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::delta::{DeltaReader, script_cache};
use crate::store::sequence::{Sequence, WINDOW_BYTES};
use crate::store::stream::VersionStream;
use crate::tree::header::{END_BYTES, header};

/// What a part of a stream must be: what comes before a member's data (the padding of the member before, its header, its
/// map), or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    offset: u64,
    len: u64,
    digest: Digest,
}

/// A version's parts, in order; they fill its stream.
#[derive(Default)]
struct Parts {
    list: Vec<Part>,
    end: u64,
    gap: Vec<u8>,
}

impl Parts {
    fn of(store: &Store, version: &Version) -> Result<Self, StoreError> {
        let mut parts = Self::default();
        let mut members = CatalogReader::open(store, &version.catalog)?;
        while let Some((offset, member)) = members.next_member()? {
            parts.add(offset, &member);
        }
        parts.gap.extend([0; END_BYTES]);
        parts.close_gap();
        if parts.end == version.stream_bytes {
            return Ok(parts);
        }
        let detail = format!("the catalog of v{} describes another length", version.seq);
        Err(StoreError::damaged("catalogs", detail))
    }

    fn add(&mut self, offset: u64, member: &Member) {
        if member.stream_bytes() == 0 {
            return;
        }
        self.gap.extend(header(member));
        self.gap
            .extend(member.content.sparse_map().unwrap_or_default());
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
        self.list.push(Part {
            offset: self.end,
            len,
            digest: Digest::of(&self.gap),
        });
        self.end += len;
        self.gap.clear();
    }

    fn at(&self, offset: u64) -> Option<&Part> {
        let place = self.list.binary_search_by_key(&offset, |part| part.offset);
        place.ok().map(|place| &self.list[place])
    }
}

/// Rebuilds these versions. Returns what is broken, and how many bytes were compared.
pub(super) fn check(
    store: &Store,
    versions: &[Version],
    wanted: &BTreeSet<usize>,
    monitor: &dyn Monitor,
) -> Result<(Vec<Broken>, u64), StoreError> {
    let total = wanted
        .iter()
        .map(|index| versions[*index].stream_bytes)
        .sum();
    if !wanted.is_empty() {
        monitor.step("rebuilding versions", Some(total));
    }
    let (mut broken, mut compared) = (Vec::new(), 0);
    // The next newer version, if all of it is as it must be.
    let mut newer: Option<(usize, Parts)> = None;
    for index in wanted.iter().rev().copied() {
        let version = &versions[index];
        let known = newer.take().filter(|(other, _)| *other == index + 1);
        let known = known.as_ref().map(|(_, parts)| parts);
        let (parts, members, unreadable) = match Parts::of(store, version) {
            Err(error) => (None, Vec::new(), Some(super::fault(error)?)),
            Ok(parts) => match bad_parts(store, versions, index, &parts, known) {
                Err(error) => (None, Vec::new(), Some(super::fault(error)?)),
                Ok(bad) if bad.is_empty() => (Some(parts), Vec::new(), None),
                Ok(bad) => (None, members_of(store, version, &bad)?, None),
            },
        };
        compared += version.stream_bytes;
        monitor.advance(version.stream_bytes);
        match parts {
            Some(parts) => newer = Some((index, parts)),
            None => broken.push(Broken {
                version: version.clone(),
                members,
                unreadable,
            }),
        }
    }
    broken.reverse();
    Ok((broken, compared))
}

/// The parts that are not rebuilt as they must be. A version that is held in both ways is rebuilt in both.
fn bad_parts(
    store: &Store,
    versions: &[Version],
    index: usize,
    parts: &Parts,
    known: Option<&Parts>,
) -> Result<Vec<Part>, StoreError> {
    let version = &versions[index];
    let mut bad = Vec::new();
    if version.whole.is_some() {
        let stream = VersionStream::open(store, versions, index)?;
        bad.extend(compare(&stream, &parts.list)?);
    }
    if !version.delta.is_empty() {
        let delta = DeltaReader::open(store, &version.delta)?;
        let doubtful = match known {
            Some(known) => doubtful(&delta, parts, known)?,
            None => parts.list.clone(),
        };
        let stream = VersionStream::by_delta(store, versions, index)?;
        bad.extend(compare(&stream, &doubtful)?);
    }
    Ok(bad)
}

/// The parts that are not copied from an equal part of the next newer version.
fn doubtful(delta: &DeltaReader, parts: &Parts, known: &Parts) -> Result<Vec<Part>, StoreError> {
    let cache = script_cache();
    let mut doubtful = Vec::new();
    for part in &parts.list {
        let from = delta.copied_from(part.offset..part.offset + part.len, &cache)?;
        let is_known = from
            .and_then(|from| known.at(from))
            .is_some_and(|there| (there.len, there.digest) == (part.len, part.digest));
        if !is_known {
            doubtful.push(*part);
        }
    }
    Ok(doubtful)
}

/// Reads parts and returns those that are something else, or cannot be read.
fn compare(stream: &VersionStream, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
    let windows = windows(parts);
    let mut bad = Vec::new();
    let ranges = windows.iter().map(|parts| range(parts)).collect();
    let Ok(mut sequence) = Sequence::of_windows(stream, ranges) else {
        return one_by_one(stream, parts);
    };
    let mut buffer = Vec::new();
    for parts in windows {
        match sequence.next_window(std::mem::take(&mut buffer)) {
            Ok(Some((start, bytes))) => {
                let is_bad = |part: &&Part| {
                    let at = usize::try_from(part.offset - start).expect("windows fit in memory");
                    let len = usize::try_from(part.len).expect("windows fit in memory");
                    Digest::of(&bytes[at..at + len]) != part.digest
                };
                bad.extend(parts.par_iter().filter(is_bad).copied().collect::<Vec<_>>());
                buffer = bytes;
            }
            Ok(None) => break,
            // Which of them are lost is found by reading each alone.
            Err(error) => {
                super::fault(error)?;
                bad.extend(one_by_one(stream, parts)?);
            }
        }
    }
    Ok(bad)
}

fn one_by_one(stream: &VersionStream, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
    let mut bad = Vec::new();
    for part in parts {
        match stream.read(part.offset..part.offset + part.len) {
            Ok(bytes) if Digest::of(&bytes) == part.digest => {}
            Ok(_) => bad.push(*part),
            Err(error) => {
                super::fault(error)?;
                bad.push(*part);
            }
        }
    }
    Ok(bad)
}

/// Parts that follow each other, by at most one window's length.
fn windows(parts: &[Part]) -> Vec<&[Part]> {
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

fn range(parts: &[Part]) -> Range<u64> {
    let last = parts[parts.len() - 1];
    parts[0].offset..last.offset + last.len
}

/// The members that bad parts belong to, in path order. A header's part begins with the padding of the member before.
fn members_of(store: &Store, version: &Version, bad: &[Part]) -> Result<Vec<Vec<u8>>, StoreError> {
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
