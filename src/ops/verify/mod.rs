//! Proving that everything still restores: every file of the store is what its name says; deep, every version is rebuilt
//! and compared with its catalog. Nothing is changed, and backups may run beside it.

mod files;
mod rebuild;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::catalog::Version;
use crate::catalog::version::resolve;
use crate::error::{Error, StoreError};
use crate::format::verified::Verified;
use crate::report::Monitor;
use crate::store::Store;
use crate::time::When;

pub use files::Fault;

/// What to verify.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// One version; without it all.
    pub when: Option<&'a When>,
    /// Rebuild versions and compare them with their catalogs.
    pub deep: bool,
    /// Read only so many percent of the files, chosen by the number.
    pub sample: Option<(f64, u64)>,
}

/// A version that is not whole any more.
#[derive(Debug)]
pub struct Broken {
    /// Which.
    pub version: Version,
    /// The members that cannot be restored as they were; empty if that cannot be told.
    pub members: Vec<Vec<u8>>,
    /// Why nothing can be told of its members.
    pub unreadable: Option<String>,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Files that are missing or not what their names say.
    pub faults: Vec<Fault>,
    /// The versions that suffer from it.
    pub broken: Vec<Broken>,
    /// The versions that were asked for.
    pub versions: Vec<Version>,
    /// The files that were read.
    pub files: BTreeSet<String>,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many bytes of streams were rebuilt and compared.
    pub rebuilt_bytes: u64,
}

impl Report {
    /// What is to be remembered of it. What was found damaged before, and was not read now, still is.
    pub fn record(
        &self,
        options: &Options<'_>,
        time: Timestamp,
        before: Option<Verified>,
    ) -> Verified {
        let is_partial = options.when.is_some() || options.sample.is_some();
        let before = before.filter(|_| is_partial).map(|before| before.faults);
        let unread = before
            .into_iter()
            .flatten()
            .filter(|file| !self.files.contains(file));
        let found = self.faults.iter().map(|fault| fault.file.clone());
        let faults: Vec<String> = found.chain(unread).collect();
        let seq = |version: Option<&Version>| version.map_or(0, |version| version.seq);
        Verified {
            time,
            deep: options.deep,
            percent: options.sample.map_or(100.0, |(percent, _)| percent),
            only: options.when.map(|_| seq(self.versions.first())),
            newest: seq(self.versions.last()),
            is_sound: self.is_sound() && faults.is_empty(),
            faults,
        }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.broken.is_empty()
    }
}

/// Verifies a store. The caller holds the readers' lock.
pub fn verify(
    store: &Store,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let wanted: BTreeSet<usize> = match options.when {
        None => (0..versions.len()).collect(),
        Some(when) => {
            let version = resolve(&versions, when)
                .map_err(|error| Error::Refused(format!("{}: {error}", store.name())))?;
            let index = versions.iter().position(|other| other.seq == version.seq);
            BTreeSet::from([index.expect("resolved from these")])
        }
    };
    let needs = files::Needs::of(store, &state, &versions, &wanted)?;
    let checked = files::check(store, &needs, options.sample, monitor)?;
    let suspects = if options.deep {
        wanted.clone()
    } else {
        needs.affected(&checked.faults)
    };
    let rebuilt = rebuild::check(store, &versions, &suspects, monitor)?;
    let mut faults = checked.faults;
    for fault in rebuilt.faults {
        if !faults.iter().any(|known| known.file == fault.file) {
            faults.push(fault);
        }
    }
    Ok(Report {
        faults,
        broken: rebuilt.broken,
        versions: wanted
            .iter()
            .map(|index| versions[*index].clone())
            .collect(),
        files: checked.files,
        bytes: checked.bytes,
        rebuilt_bytes: rebuilt.bytes,
    })
}

/// What is wrong with a file: damage, or a disk that does not give it back. Other errors are not the store's content.
fn fault(error: StoreError) -> Result<String, StoreError> {
    match &error {
        StoreError::Damaged { .. } | StoreError::Io { .. } => Ok(crate::error::with_causes(&error)),
        _ => Err(error),
    }
}
