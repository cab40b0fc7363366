//! Proving that everything still restores: every file of the store is what its name says; deep, every version is rebuilt
//! and compared with its catalog. Nothing is changed, and backups may run beside it.

mod files;
mod rebuild;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::catalog::Version;
use crate::error::Error;
use crate::format::state::State;
use crate::format::verified::Verified;
use crate::report::Monitor;
use crate::store::Store;

pub use files::Fault;

/// What to verify.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// One version, by its index; without it all.
    pub only: Option<usize>,
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
    pub fn record(&self, options: &Options, time: Timestamp, before: Option<Verified>) -> Verified {
        let is_partial = options.only.is_some() || options.sample.is_some();
        let (last_full, last_deep) = before
            .as_ref()
            .map_or((None, None), |before| (before.last_full, before.last_deep));
        let is_now = |is_such: bool| (is_such && !is_partial && self.is_sound()).then_some(time);
        let before = before.filter(|before| is_partial && !before.is_sound);
        // Versions that were broken though all files were right: only a whole verification clears that.
        let still_broken = before
            .as_ref()
            .is_some_and(|before| before.faults.is_empty());
        let unread = before
            .into_iter()
            .flat_map(|before| before.faults)
            .filter(|file| !self.files.contains(file));
        let found = self.faults.iter().map(|fault| fault.file.clone());
        let faults: Vec<String> = found.chain(unread).collect();
        let seq = |version: Option<&Version>| version.map_or(0, |version| version.seq);
        Verified {
            time,
            deep: options.deep,
            percent: options.sample.map_or(100.0, |(percent, _)| percent),
            only: options.only.map(|_| seq(self.versions.first())),
            newest: seq(self.versions.last()),
            is_sound: self.is_sound() && faults.is_empty() && !still_broken,
            last_full: is_now(true).or(last_full),
            last_deep: is_now(options.deep).or(last_deep),
            faults,
        }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.broken.is_empty()
    }
}

/// Verifies a store whose current state and versions are given. The caller holds the readers' lock.
pub fn verify(
    store: &Store,
    state: &State,
    versions: &[Version],
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let wanted: BTreeSet<usize> = match options.only {
        None => (0..versions.len()).collect(),
        Some(index) => BTreeSet::from([index]),
    };
    let needs = files::Needs::of(store, state, versions, &wanted)?;
    let checked = files::check(store, &needs, options.sample, monitor)?;
    let suspects = if options.deep {
        wanted.clone()
    } else {
        needs.affected(&checked.faults)
    };
    let rebuilt = rebuild::check(store, versions, &suspects, monitor)?;
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
