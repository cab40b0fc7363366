//! Random histories: a tree that is changed at random, runs that crash at random calls, and a naive copy of every
//! state to compare with. A failing seed is printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use btw_backup::digest::Digest;
use btw_backup::ops::backup::{Options, Outcome};
use btw_backup::ops::restore::{self, restore};
use btw_backup::report::Silent;
use btw_backup::store::Store;
use btw_backup::store::disk::Disk;
use btw_backup::tree::owners::OwnerRule;

use crate::sim::{Fault, SimDisk, Survival};
use crate::world::{leftovers, options, run, source, streams, text};

const STEPS: u64 = 14;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn size(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }
}

/// One random change: edit, insert, cut, punch a hole, rename, copy, remove, add.
pub fn change(root: &Path, random: &mut Random) {
    let mut names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let fresh = root.join(format!("f{}", random.below(12)));
    let kind = random.below(8);
    let Some(path) = (!names.is_empty()).then(|| names[random.size(names.len() as u64)].clone())
    else {
        return fs::write(fresh, text(random.below(9), random.size(200_000))).unwrap();
    };
    let mut content = fs::read(&path).unwrap();
    let at = random.size(content.len() as u64 + 1);
    match kind {
        0 => content[at..]
            .iter_mut()
            .take(50)
            .for_each(|byte| *byte ^= 1),
        1 => drop(content.splice(at..at, text(random.below(99), random.size(3000)))),
        2 => content.truncate(at),
        3 => content.extend(vec![0; random.size(300_000)]),
        4 => return fs::rename(path, fresh).unwrap(),
        5 => drop(fs::copy(&path, fresh).unwrap()),
        6 => return fs::remove_file(path).unwrap(),
        _ => return fs::write(fresh, text(random.below(9), random.size(200_000))).unwrap(),
    }
    if kind != 5 {
        fs::write(path, content).unwrap();
    }
}

fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

/// Restores a version through the whole tool.
fn restored(disk: &SimDisk, seq: u64) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(Arc::new(disk.clone()), "sim");
    let versions = store.versions(&store.current().unwrap()).unwrap();
    let index = versions.iter().position(|version| version.seq == seq);
    restore(
        &store,
        &versions,
        index.unwrap(),
        &restore::Options {
            target: &dir.path().join("out"),
            partial: false,
            choice: &restore::Choice::default(),
            owners: OwnerRule::ByNumber,
        },
        &Silent,
    )
    .unwrap();
    contents(&dir.path().join("out"))
}

fn history(seed: u64) -> u64 {
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    fs::create_dir_all(&src).unwrap();
    let mut disk = SimDisk::default();
    let mut states: BTreeMap<u64, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    let mut known: BTreeMap<u64, Digest> = BTreeMap::new();
    let mut crashes = 0;
    for step in 0..STEPS {
        (0..=random.below(4)).for_each(|_| change(&src, &mut random));
        let count = random.below(5);
        let hour = i64::try_from(step * 5).unwrap();
        let options = Options {
            allow_empty: true,
            ..options(&src, hour, count, random.size(3))
        };
        if random.below(2) == 0 {
            disk.set_fault(Some(Fault::Crash {
                at: 1 + random.below(250),
            }));
            let _ = run(Arc::new(disk.clone()), &options);
            disk = disk.after_crash(Survival::Coin(random.below(1 << 30)));
            crashes += 1;
        }
        let report = run(Arc::new(disk.clone()), &options)
            .unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
        let (Outcome::Committed(version) | Outcome::Unchanged(version, _)) = report.outcome;
        assert!(
            report.problems.is_empty(),
            "seed {seed}: {:?}",
            report.problems
        );
        states.insert(version.seq, contents(&src));
        let found = streams(Arc::new(disk.clone()))
            .unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
        for (seq, digest) in &found {
            assert_eq!(
                known.entry(*seq).or_insert(*digest),
                digest,
                "seed {seed} step {step}: v{seq} changed"
            );
        }
        assert_eq!(
            leftovers(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).unwrap(),
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
    for (seq, state) in &states {
        assert!(
            restored(&disk, *seq) == *state,
            "seed {seed}: v{seq} is not what was backed up"
        );
    }
    crashes
}

#[test]
fn c1_c12_random_histories_with_random_crashes() {
    let seeds = if std::env::var_os("BTW_TEST_FULL").is_some() {
        5_000
    } else {
        40
    };
    let crashes: u64 = (1..=seeds).map(history).sum();
    println!("random histories: {seeds}/{seeds} of {STEPS} runs each, {crashes} crashes survived");
}
