//! The files that versions need: each is there and has the content that its name says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::state::State;
use crate::report::Monitor;
use crate::store::{Area, Store, archive, collect};

/// A file that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its path in the store.
    pub file: String,
    /// What is wrong.
    pub detail: String,
    /// The sequence numbers of the versions that need it, or may.
    pub versions: Vec<u64>,
}

/// Which files which versions need.
pub(super) struct Needs {
    /// By file: ranges of indices of versions, as chains are many and long.
    files: BTreeMap<String, Vec<Range<usize>>>,
    wanted: BTreeSet<usize>,
    /// What could not be looked into.
    faults: Vec<Fault>,
    seqs: Vec<u64>,
}

impl Needs {
    /// Of the versions with these indices.
    pub fn of(
        store: &Store,
        state: &State,
        versions: &[Version],
        wanted: &BTreeSet<usize>,
    ) -> Result<Self, StoreError> {
        let mut needs = Self {
            files: BTreeMap::new(),
            wanted: wanted.clone(),
            faults: Vec::new(),
            seqs: versions.iter().map(|version| version.seq).collect(),
        };
        // From the newest to the oldest: those that build upon a version are all that come before it, up to a whole one.
        for (index, version) in versions.iter().enumerate().rev() {
            let older = versions[..index].iter().rev();
            let chain = older.take_while(|older| older.whole.is_none()).count();
            let range = index - chain..index + 1;
            if wanted.range(range.clone()).next().is_none() {
                continue;
            }
            let (files, unknown) = collect::needed(store, version)?;
            for file in files {
                needs.add(file, range.clone());
            }
            if let Some(error) = unknown {
                needs.add_fault(error, range)?;
            }
        }
        if wanted.len() == versions.len() {
            let archived = state
                .archived
                .iter()
                .map(|file| Area::Versions.path(file.name));
            let packs = state
                .kept_packs
                .iter()
                .map(|pack| Area::Catalogs.path(*pack));
            for file in archived.chain(packs) {
                needs.add(file, 0..versions.len());
            }
        }
        Ok(needs)
    }

    fn add(&mut self, file: String, range: Range<usize>) {
        let ranges = self.files.entry(file).or_default();
        let is_in = |known: &Range<usize>| known.start <= range.start && range.end <= known.end;
        if !ranges.last().is_some_and(is_in) {
            ranges.push(range);
        }
    }

    fn add_fault(&mut self, error: StoreError, range: Range<usize>) -> Result<(), StoreError> {
        let file = match &error {
            StoreError::Damaged { file, .. } => file.clone(),
            StoreError::Io { path, .. } => path.clone(),
            _ => String::new(),
        };
        let detail = error.into_fault()?;
        self.add(file.clone(), range);
        self.faults.push(Fault {
            file,
            detail,
            versions: Vec::new(),
        });
        Ok(())
    }

    /// The versions that need a file with a fault.
    pub fn affected(&self, faults: &[Fault]) -> BTreeSet<usize> {
        let files = faults
            .iter()
            .filter_map(|fault| self.files.get(&fault.file));
        let ranges = files.flatten().cloned();
        ranges
            .flat_map(|range| self.wanted.range(range).copied())
            .collect()
    }
}

/// What reading the files gave.
pub(super) struct Checked {
    pub faults: Vec<Fault>,
    pub files: BTreeSet<String>,
    pub bytes: u64,
}

/// Reads all files, or of a sample those that its number chooses.
pub(super) fn check(
    store: &Store,
    needs: &Needs,
    sample: Option<(f64, u64)>,
    monitor: &dyn Monitor,
) -> Result<Checked, StoreError> {
    let chosen =
        |file: &&String| sample.is_none_or(|(percent, seed)| is_chosen(file, percent, seed));
    let files: Vec<&String> = needs.files.keys().filter(chosen).collect();
    monitor.step("reading the store", None);
    let paths: Vec<String> = files.iter().map(|file| (*file).clone()).collect();
    let known = store.disk().digests(&paths);
    let results: Vec<(&String, Result<u64, StoreError>)> = files
        .par_iter()
        .zip(known)
        .map(|(file, known)| {
            let is_right = known.is_some_and(|digest| archive::is_named(file, digest));
            let result = if is_right {
                store.len_of(file)
            } else {
                archive::check_file(store, file)
            };
            monitor.advance(*result.as_ref().unwrap_or(&0));
            (*file, result)
        })
        .collect();
    let mut checked = Checked {
        faults: needs.faults.clone(),
        files: results.iter().map(|(file, _)| (*file).clone()).collect(),
        bytes: 0,
    };
    for (file, result) in results {
        match result {
            Ok(bytes) => checked.bytes += bytes,
            Err(error) => {
                let detail = error.into_fault()?;
                // What could not be looked into is the same file once more.
                checked.faults.retain(|fault| fault.file != *file);
                checked.faults.push(Fault {
                    file: file.clone(),
                    detail,
                    versions: Vec::new(),
                });
            }
        }
    }
    for fault in &mut checked.faults {
        let affected = needs.affected(std::slice::from_ref(fault));
        fault.versions = affected.iter().map(|index| needs.seqs[*index]).collect();
    }
    checked.faults.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(checked)
}

fn is_chosen(file: &str, percent: f64, seed: u64) -> bool {
    let digest = Digest::of(&[file.as_bytes(), &seed.to_le_bytes()].concat()).0;
    let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(number) / f64::from(u32::MAX) * 100.0 <= percent
}
