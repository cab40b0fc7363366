//! Rebuilding versions and comparing them with their catalogs, from the newest to the oldest.
//!
//! A part of an older version that its delta copies from a place at which the next newer version was found to hold the very
//! same is not read again: what it costs follows what changed.

use std::collections::BTreeSet;

use super::{Broken, Fault};
use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ops::parts::{self, Part, Parts};
use crate::report::Monitor;
use crate::store::delta::{DeltaReader, script_cache};
use crate::store::sequence::Sequence;
use crate::store::stream::VersionStream;
use crate::store::{Area, Store};

/// What rebuilding found.
#[derive(Default)]
pub(super) struct Rebuilt {
    pub broken: Vec<Broken>,
    /// Deltas that do not rebuild their version, which is held whole too.
    pub faults: Vec<Fault>,
    pub bytes: u64,
}

/// Rebuilds these versions.
pub(super) fn check(
    store: &Store,
    versions: &[Version],
    wanted: &BTreeSet<usize>,
    monitor: &dyn Monitor,
) -> Result<Rebuilt, StoreError> {
    let sizes = wanted.iter().map(|index| versions[*index].stream_bytes);
    if !wanted.is_empty() {
        monitor.step("rebuilding versions", Some(sizes.sum()));
    }
    let mut rebuilt = Rebuilt::default();
    // The next newer version, if all of it is as it must be.
    let mut newer: Option<(usize, Parts)> = None;
    for index in wanted.iter().rev().copied() {
        let version = &versions[index];
        let known = newer.take().filter(|(other, _)| *other == index + 1);
        let known = known.as_ref().map(|(_, parts)| parts);
        let mut rebuilding = Rebuilding {
            store,
            versions,
            index,
            known,
        };
        match rebuilding.broken(&mut rebuilt.faults) {
            Ok((parts, None)) => newer = Some((index, parts)),
            Ok((_, Some(broken))) => rebuilt.broken.push(broken),
            Err(error) => rebuilt.broken.push(Broken {
                version: version.clone(),
                members: Vec::new(),
                unreadable: Some(error.into_fault()?),
            }),
        }
        rebuilt.bytes += version.stream_bytes;
        monitor.advance(version.stream_bytes);
    }
    rebuilt.broken.reverse();
    Ok(rebuilt)
}

struct Rebuilding<'a> {
    store: &'a Store,
    versions: &'a [Version],
    index: usize,
    /// The parts of the next newer version, if all are right.
    known: Option<&'a Parts>,
}

impl Rebuilding<'_> {
    /// The version's parts, and what of it cannot be restored. One that is held in both ways is rebuilt in both.
    fn broken(&mut self, faults: &mut Vec<Fault>) -> Result<(Parts, Option<Broken>), StoreError> {
        let version = &self.versions[self.index];
        let parts = Parts::of(self.store, version)?;
        let bad = if version.whole.is_some() {
            let stream = VersionStream::open(self.store, self.versions, self.index)?;
            let bad = compare(&stream, &parts.list)?;
            faults.extend(self.delta_fault(&parts)?);
            bad
        } else {
            self.bad_by_delta(&parts)?
        };
        let broken = if bad.is_empty() {
            None
        } else {
            Some(Broken {
                version: version.clone(),
                members: parts::members_of(self.store, version, &bad)?,
                unreadable: None,
            })
        };
        Ok((parts, broken))
    }

    fn bad_by_delta(&self, parts: &Parts) -> Result<Vec<Part>, StoreError> {
        let delta = DeltaReader::open(self.store, &self.versions[self.index].delta)?;
        let doubtful = match self.known {
            Some(known) => doubtful(&delta, parts, known)?,
            None => parts.list.clone(),
        };
        let stream = VersionStream::by_delta(self.store, self.versions, self.index)?;
        compare(&stream, &doubtful)
    }

    /// What is wrong with the delta of a version that is held whole.
    fn delta_fault(&self, parts: &Parts) -> Result<Option<Fault>, StoreError> {
        let version = &self.versions[self.index];
        let Some(file) = version.delta.first() else {
            return Ok(None);
        };
        let why = match self.bad_by_delta(parts) {
            Ok(bad) if bad.is_empty() => return Ok(None),
            Ok(_) => "it does not rebuild its version".to_owned(),
            Err(error) => error.into_fault()?,
        };
        Ok(Some(Fault {
            file: Area::Deltas.path(file.name),
            detail: format!("{why}; v{} is held whole too", version.seq),
            versions: vec![version.seq],
        }))
    }
}

/// The parts that are not copied from an equal part of the next newer version.
fn doubtful(delta: &DeltaReader, parts: &Parts, known: &Parts) -> Result<Vec<Part>, StoreError> {
    let cache = script_cache();
    let mut doubtful = Vec::new();
    for part in &parts.list {
        let from = delta.copied_from(part.offset..part.offset + u64::from(part.len), &cache)?;
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
                error.into_fault()?;
                bad.extend(one_by_one(stream, parts)?);
            }
        }
    }
    Ok(bad)
}

fn one_by_one(stream: &VersionStream, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
    let mut bad = Vec::new();
    for part in parts {
        match stream.read(part.offset..part.offset + u64::from(part.len)) {
            Ok(bytes) if parts::half(Digest::of(&bytes)) == part.digest => {}
            Ok(_) => bad.push(*part),
            Err(error) => {
                error.into_fault()?;
                bad.push(*part);
            }
        }
    }
    Ok(bad)
}
