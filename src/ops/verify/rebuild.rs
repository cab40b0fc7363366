//! Rebuilding versions and comparing them with their catalogs, from the newest to the oldest.
//!
//! A part of an older version that its delta copies from a place at which the next newer version was found to hold the very
//! same is not read again: what it costs follows what changed.

use std::collections::BTreeSet;

use super::Broken;
use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ops::parts::{self, Part, Parts};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::delta::{DeltaReader, script_cache};
use crate::store::sequence::Sequence;
use crate::store::stream::VersionStream;

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
                Ok(bad) => (None, parts::members_of(store, version, &bad)?, None),
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
    let windows = parts::windows(parts);
    let mut bad = Vec::new();
    let ranges = windows.iter().map(|parts| parts::range(parts)).collect();
    let Ok(mut sequence) = Sequence::of_windows(stream, ranges) else {
        return one_by_one(stream, parts);
    };
    let mut buffer = Vec::new();
    for parts in windows {
        match sequence.next_window(std::mem::take(&mut buffer)) {
            Ok(Some((start, bytes))) => {
                bad.extend(parts::wrong(parts, start, &bytes));
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
