//! Rebuilding versions and comparing them with their catalogs, from the newest to the oldest.
//!
//! A part of an older version that its delta copies from a place at which the next newer version was found to hold the very
//! same is not read again: what it costs follows what changed.

use std::collections::BTreeSet;

use super::{Broken, Fault};
use crate::catalog::Version;
use crate::error::StoreError;
use crate::ops::parts::{self, Part, Parts};
use crate::ops::rebuilt;
use crate::report::Monitor;
use crate::store::delta::DeltaReader;
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
            let bad = rebuilt::wrong(&stream, &parts.list)?;
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
            Some(known) => rebuilt::doubtful(&delta, parts, known)?,
            None => parts.list.clone(),
        };
        let stream = VersionStream::by_delta(self.store, self.versions, self.index)?;
        rebuilt::wrong(&stream, &doubtful)
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
