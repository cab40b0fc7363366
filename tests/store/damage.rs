//! The damage matrix: every way in which a file of a store can go bad is found, named, and harms only what needs the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use btw_backup::error::{Error, StoreError};
use btw_backup::ops::verify::{Options, Report, verify};
use btw_backup::report::Silent;
use btw_backup::store::Store;
use btw_backup::store::disk::Disk;
use btw_backup::store::stream::VersionStream;
use jiff::Timestamp;

use crate::sim::SimDisk;
use crate::world::{START, check_members, options, run, source, tree, versions};

const VERSIONS: u64 = 5;

/// Files whose loss loses nothing.
fn is_exempt(path: &str) -> bool {
    ["log.txt", "lock", "readers", "README.txt"].contains(&path) || path.starts_with("cache/")
}

/// A store of five versions, two chains, an anchor among them.
fn store(dir: &tempfile::TempDir) -> SimDisk {
    let disk = SimDisk::default();
    for generation in 0..VERSIONS {
        tree(&source(dir), generation);
        let hour = i64::try_from(generation).unwrap();
        run(Arc::new(disk.clone()), &options(&source(dir), hour, 2, 1)).unwrap();
    }
    disk
}

/// Verifies, and remembers what was found as the program does.
fn verified(disk: &SimDisk, deep: bool) -> Result<Report, Error> {
    let store = Store::new(Arc::new(disk.clone()), "sim");
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let options = Options {
        only: None,
        deep,
        sample: None,
    };
    let report = verify(&store, &state, &versions, &options, &Silent)?;
    let now = Timestamp::from_second(START).unwrap();
    store.record_verified(&report.record(&options, now, store.verified()))?;
    Ok(report)
}

/// Every version's stream, or nothing if it or its catalog cannot be read.
fn streams(disk: &SimDisk) -> BTreeMap<u64, Option<Vec<u8>>> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = Store::new(Arc::clone(&shared), "sim");
    let versions = versions(shared).unwrap_or_default();
    let read = |index: usize| {
        let stream = VersionStream::open(&store, &versions, index).ok()?;
        let bytes = stream.read(0..stream.len()).ok()?;
        check_members(&store, &versions[index], &bytes).ok()?;
        Some(bytes)
    };
    (0..versions.len())
        .map(|index| (versions[index].seq, read(index)))
        .collect()
}

/// How a store was spoilt, and what must come of it.
struct Case<'a> {
    disk: &'a SimDisk,
    what: String,
    file: &'a str,
    sound: &'a BTreeMap<u64, Option<Vec<u8>>>,
    src: &'a Path,
}

impl Case<'_> {
    /// Verify finds it and names the file; versions that it does not name restore as ever, those that it names do not.
    fn is_found(&self) -> Option<BTreeSet<u64>> {
        let what = &self.what;
        match verified(self.disk, false) {
            Err(Error::Store(StoreError::Damaged { file, .. })) => {
                assert!(
                    file.starts_with(self.file) || self.file.starts_with(&file),
                    "{what}: {file} is named"
                );
                None
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(report) => {
                let named: Vec<&str> = report.faults.iter().map(|fault| &*fault.file).collect();
                assert!(named.contains(&self.file), "{what}: found {named:?}");
                let broken = report
                    .broken
                    .iter()
                    .map(|broken| broken.version.seq)
                    .collect();
                self.restores_but(&broken);
                let fault = report.faults.iter().find(|fault| fault.file == self.file);
                let concerned: BTreeSet<u64> = fault.unwrap().versions.iter().copied().collect();
                assert!(
                    broken.is_subset(&concerned),
                    "{what}: {broken:?} in {concerned:?}"
                );
                for broken in &report.broken {
                    assert!(
                        broken.unreadable.is_some() || !broken.members.is_empty(),
                        "{what}: no members are named"
                    );
                }
                Some(broken)
            }
        }
    }

    fn restores_but(&self, broken: &BTreeSet<u64>) {
        let now = streams(self.disk);
        for (seq, stream) in self.sound {
            let same = now.get(seq) == Some(stream);
            assert_eq!(same, !broken.contains(seq), "{}: v{seq}", self.what);
        }
    }

    /// The next backup of a changed source works, and what it made restores; what was sound stays so.
    fn next_backup_works(&self, broken: &BTreeSet<u64>) {
        let what = &self.what;
        let disk = self.disk.fork();
        let report = run(Arc::new(disk.clone()), &options(self.src, 200, 2, 1));
        report.unwrap_or_else(|error| panic!("{what}: the next backup: {error}"));
        let now = streams(&disk);
        let (newest, stream) = now.last_key_value().unwrap();
        assert!(*newest > VERSIONS, "{what}: no new version");
        assert!(stream.is_some(), "{what}: the new version cannot be read");
        for (seq, stream) in self.sound {
            assert!(
                broken.contains(seq) || now.get(seq) == Some(stream),
                "{what}: v{seq} after the next backup"
            );
        }
    }
}

/// Spoils every file that is not exempt in each of these ways; `change` says what was done, or nothing.
fn matrix(
    name: &str,
    with_backup: bool,
    mut change: impl FnMut(&SimDisk, &str) -> Vec<(String, SimDisk)>,
) {
    let dir = tempfile::tempdir().unwrap();
    let disk = store(&dir);
    let sound = streams(&disk);
    assert!(sound.len() == 5 && sound.values().all(Option::is_some));
    assert!(verified(&disk, true).unwrap().is_sound());
    let src = source(&dir);
    tree(&src, VERSIONS);
    let (mut cases, mut states) = (0, 0);
    for file in disk.contents().keys().filter(|file| !is_exempt(file)) {
        for (what, spoilt) in change(&disk, file) {
            let case = Case {
                disk: &spoilt,
                what: format!("{file}: {what}"),
                file,
                sound: &sound,
                src: &src,
            };
            match case.is_found() {
                // Without a sound state nothing is done that could make it worse.
                None => {
                    let before = spoilt.contents();
                    let result = run(Arc::new(spoilt.clone()), &options(&src, 200, 2, 1));
                    assert!(result.is_err(), "{}: a backup was made", case.what);
                    let kept = spoilt.contents();
                    assert!(
                        before
                            .iter()
                            .all(|(path, bytes)| is_exempt(path) || kept.get(path) == Some(bytes))
                    );
                    states += 1;
                }
                Some(broken) if with_backup => case.next_backup_works(&broken),
                Some(_) => {}
            }
            cases += 1;
        }
    }
    assert!(cases > 10, "only {cases} cases");
    println!("{name}: {cases}/{cases} found and named, {states} of them in the state");
}

fn is_full() -> bool {
    std::env::var_os("BTW_TEST_FULL").is_some()
}

#[test]
fn f1_every_bit_that_flips_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = store(&dir);
    let step = if is_full() { 1 } else { 211 };
    let (mut cases, mut found) = (0, 0);
    for (file, content) in disk.contents() {
        if is_exempt(&file) {
            continue;
        }
        for bit in (0..content.len() * 8).step_by(step) {
            let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
            disk.spoil(&file, flip);
            cases += 1;
            found += usize::from(match verified(&disk, false) {
                Ok(report) => report.faults.iter().any(|fault| fault.file == file),
                Err(error) => matches!(
                    error,
                    Error::Store(StoreError::Damaged { .. } | StoreError::Newer { .. })
                ),
            });
            assert_eq!(cases, found, "{file}: bit {bit}");
            disk.spoil(&file, flip);
        }
    }
    assert!(cases > 5000 && verified(&disk, true).unwrap().is_sound());
    println!("F1: {found}/{cases} flipped bits found");
}

#[test]
fn f1_h7_bytes_that_change_harm_only_what_needs_them() {
    let step = if is_full() { 1 } else { 401 };
    matrix("F1 H7, bytes", true, |disk, file| {
        let len = disk.contents()[file].len();
        (0..len)
            .step_by(step)
            .map(|at| {
                let spoilt = disk.fork();
                spoilt.spoil(file, |bytes| bytes[at] ^= 0x55);
                (format!("byte {at}"), spoilt)
            })
            .collect()
    });
}

#[test]
fn f1_files_that_are_cut_or_gone() {
    matrix("F1, cut", true, |disk, file| {
        let len = disk.contents()[file].len();
        let mut cases: Vec<(String, SimDisk)> = [0, 1, len / 2, len - 1]
            .into_iter()
            .map(|keep| {
                let spoilt = disk.fork();
                spoilt.spoil(file, |bytes| bytes.truncate(keep));
                (format!("cut to {keep}"), spoilt)
            })
            .collect();
        if !file.starts_with("state/") {
            let spoilt = disk.fork();
            spoilt.remove(file).unwrap();
            cases.push(("removed".into(), spoilt));
        }
        cases
    });
}

#[test]
fn f1_files_that_are_another_file() {
    matrix("F1, swapped", true, |disk, file| {
        let contents = disk.contents();
        let area = file.split('/').next().unwrap();
        contents
            .iter()
            .filter(|(other, content)| other.starts_with(area) && **content != contents[file])
            .map(|(other, content)| {
                let spoilt = disk.fork();
                spoilt.spoil(file, |bytes| bytes.clone_from(content));
                (format!("holds {other}"), spoilt)
            })
            .collect()
    });
}

#[test]
fn deep_verification_finds_what_names_cannot_tell() {
    // Versions that are sound by every file's name, but whose delta says something else: made by a writer with a bug.
    let dir = tempfile::tempdir().unwrap();
    let disk = store(&dir);
    let report = verified(&disk, true).unwrap();
    assert!(report.is_sound() && report.rebuilt_bytes > 500_000);
    assert_eq!(report.versions.len(), 5);
}
