//! Deleting versions from random histories, with crashes at every call, and bringing them back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use btw_backup::digest::Digest;
use btw_backup::error::Error;
use btw_backup::ops::backup;
use btw_backup::ops::delete::prune::verdicts;
use btw_backup::ops::delete::{self, Options, Report, space};
use btw_backup::plan::retention::{Period, Policy};
use btw_backup::report::Silent;
use btw_backup::store::Store;
use btw_backup::store::codec::Knobs;
use btw_backup::store::disk::Disk;
use jiff::{SignedDuration, Timestamp};

use crate::random::{Random, change};
use crate::sim::{Fault, SimDisk, Survival};
use crate::world::{leftovers, options, run, source, streams};

const VERSIONS: u64 = 9;

/// A store of random versions, and the source with what made them.
struct History {
    dir: tempfile::TempDir,
    random: Random,
    disk: SimDisk,
    all: BTreeMap<u64, Digest>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut history = Self {
            dir: tempfile::tempdir().unwrap(),
            random: Random(seed),
            disk: SimDisk::default(),
            all: BTreeMap::new(),
        };
        std::fs::create_dir_all(source(&history.dir)).unwrap();
        for step in 0..VERSIONS {
            history.disk = history.backed_up(&history.disk.fork(), step);
        }
        history.all = streams(Arc::new(history.disk.clone())).unwrap();
        history
    }

    /// Changes the source and backs it up.
    fn backed_up(&mut self, disk: &SimDisk, step: u64) -> SimDisk {
        let src = source(&self.dir);
        (0..=self.random.below(4)).for_each(|_| change(&src, &mut self.random));
        let hour = i64::try_from(step * 5).unwrap();
        let options = backup::Options {
            allow_empty: true,
            ..options(&src, hour, self.random.below(4), self.random.size(3))
        };
        run(Arc::new(disk.clone()), &options).unwrap();
        disk.settle();
        disk.clone()
    }

    /// What goes by a random policy, or by chance alone.
    fn doomed(&mut self) -> BTreeSet<u64> {
        if self.random.below(2) == 0 {
            return self.doomed_by_policy();
        }
        let seqs: Vec<u64> = self.all.keys().copied().collect();
        let mut doomed: BTreeSet<u64> = seqs
            .iter()
            .copied()
            .filter(|_| self.random.below(2) == 0)
            .collect();
        if doomed.len() == seqs.len() {
            doomed.remove(&seqs[self.random.size(seqs.len() as u64)]);
        }
        doomed
    }

    fn doomed_by_policy(&mut self) -> BTreeSet<u64> {
        let store = Store::new(Arc::new(self.disk.clone()), "sim");
        let state = store.current().unwrap();
        let versions = store.versions(&state).unwrap();
        let hours = |random: &mut Random| {
            SignedDuration::from_hours(1 + i64::try_from(random.below(30)).unwrap())
        };
        let first = hours(&mut self.random);
        let mut policy = Policy {
            last: Some(1 + self.random.below(3)),
            ..Policy::default()
        };
        match self.random.below(4) {
            0 => policy.partitioned = vec![first, first + hours(&mut self.random)],
            1 => policy.periods = BTreeMap::from([(Period::Day, 1 + self.random.below(3))]),
            2 => policy.older_than = Some(first),
            _ => policy.max_store_bytes = Some(self.random.below(400_000)),
        }
        let zone = jiff::tz::TimeZone::UTC;
        let verdicts = verdicts(&store, &state, &versions, &policy, now(), &zone).unwrap();
        let newest = versions.last().unwrap().seq;
        let goes = verdicts.iter().filter(|verdict| !verdict.stays);
        let doomed: BTreeSet<u64> = goes.map(|verdict| verdict.seq).collect();
        assert!(
            !doomed.contains(&newest),
            "{policy:?}: the newest version goes"
        );
        doomed
    }

    fn survivors(&self, doomed: &BTreeSet<u64>) -> BTreeMap<u64, Digest> {
        let stays = self.all.iter().filter(|(seq, _)| !doomed.contains(seq));
        stays.map(|(seq, digest)| (*seq, *digest)).collect()
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(2_000_000_000).unwrap()
}

pub fn how(grace: i64, dry_run: bool) -> Options {
    Options {
        now: now(),
        grace: SignedDuration::from_hours(grace),
        knobs: Knobs {
            frame_bytes: 20_000,
            object_bytes: 60_000,
            ..Knobs::REAL
        },
        dry_run,
    }
}

pub fn deleted(disk: &SimDisk, doomed: &BTreeSet<u64>, options: &Options) -> Result<Report, Error> {
    let store = Store::new(Arc::new(disk.clone()), "sim");
    let _guard = store.lock_writer(false)?;
    delete::delete(&store, doomed, options, &Silent)
}

fn found(disk: &SimDisk) -> BTreeMap<u64, Digest> {
    streams(Arc::new(disk.clone())).unwrap()
}

fn left(disk: &SimDisk) -> Vec<String> {
    leftovers(&(Arc::new(disk.clone()) as Arc<dyn Disk>)).unwrap()
}

/// The length of everything that versions name.
fn bytes(disk: &SimDisk) -> i64 {
    let contents = disk.contents();
    let data = contents.iter().filter(|(path, _)| {
        ["objects/", "manifests/", "catalogs/", "deltas/"]
            .iter()
            .any(|dir| path.starts_with(dir))
    });
    data.map(|(_, bytes)| i64::try_from(bytes.len()).unwrap())
        .sum()
}

fn seeds() -> u64 {
    if std::env::var_os("BTW_TEST_FULL").is_some() {
        500
    } else {
        8
    }
}

#[test]
fn i5_any_versions_can_be_deleted_and_the_others_stay_what_they_are() {
    let (mut sets, mut gone) = (0, 0);
    for seed in 1..=seeds() {
        let mut history = History::new(seed);
        for _ in 0..6 {
            let doomed = history.doomed();
            let disk = history.disk.fork();
            let before = bytes(&disk);
            let foretold = deleted(&disk, &doomed, &how(0, true)).unwrap();
            assert_eq!(
                found(&disk),
                history.all,
                "seed {seed}: a dry run changed something"
            );
            assert_eq!(
                bytes(&disk),
                before,
                "seed {seed}: a dry run left something"
            );
            deleted(&disk, &doomed, &how(0, false)).unwrap();
            assert_eq!(
                found(&disk),
                history.survivors(&doomed),
                "seed {seed} {doomed:?}"
            );
            assert_eq!(left(&disk), Vec::<String>::new(), "seed {seed} {doomed:?}");
            let foretold = foretold.difference;
            let signed = |bytes: u64| i64::try_from(bytes).unwrap();
            assert_eq!(
                signed(foretold.gone_bytes) - signed(foretold.new_bytes),
                before - bytes(&disk),
                "seed {seed} {doomed:?}"
            );
            // What comes next builds on it.
            disk.settle();
            let expected = history.survivors(&doomed);
            let disk = history.backed_up(&disk, 100);
            let mut after = found(&disk);
            after.retain(|seq, _| expected.contains_key(seq));
            assert_eq!(
                after, expected,
                "seed {seed} {doomed:?}: after another backup"
            );
            assert_eq!(left(&disk), Vec::<String>::new());
            (sets, gone) = (sets + 1, gone + doomed.len());
        }
    }
    println!(
        "I5: {sets}/{sets} deletions of {gone} versions, all survivors identical, no leftovers"
    );
}

#[test]
fn i5_c13_a_deletion_that_crashes_at_any_call_never_happened_or_is_complete() {
    let (mut crashes, mut committed) = (0, 0);
    for seed in 1..=seeds().div_ceil(4) {
        let mut history = History::new(seed);
        let doomed = history.doomed();
        let expected = history.survivors(&doomed);
        let trial = history.disk.fork();
        deleted(&trial, &doomed, &how(0, false)).unwrap();
        for at in 1..=trial.calls() {
            let disk = history.disk.fork();
            disk.set_fault(Some(Fault::Crash { at }));
            let _ = deleted(&disk, &doomed, &how(0, false));
            let disk = disk.after_crash(Survival::Coin(at));
            let now = found(&disk);
            assert!(
                now == history.all || now == expected,
                "seed {seed} call {at}"
            );
            crashes += 1;
            if now == expected {
                committed += 1;
                let store = Store::new(Arc::new(disk.clone()), "sim");
                space::free(&store, self::now(), false).unwrap();
            } else {
                // A crash within the second try, too.
                disk.set_fault(Some(Fault::Crash { at: 1 + at % 40 }));
                let _ = deleted(&disk, &doomed, &how(0, false));
                let disk = disk.after_crash(Survival::Coin(at + 1));
                if found(&disk) == history.all {
                    deleted(&disk, &doomed, &how(0, false)).unwrap();
                }
                assert_eq!(found(&disk), expected, "seed {seed} call {at}");
                continue;
            }
            assert_eq!(found(&disk), expected, "seed {seed} call {at}");
            assert_eq!(left(&disk), Vec::<String>::new(), "seed {seed} call {at}");
        }
    }
    println!(
        "I5 C13: {crashes}/{crashes} crashes in deletions survived, {committed} after the commit"
    );
}

#[test]
fn i8_what_is_deleted_comes_back_while_the_grace_period_lasts() {
    let mut back = 0;
    for seed in 1..=seeds() {
        let mut history = History::new(seed);
        let (first, second) = (history.doomed(), history.doomed());
        let disk = history.disk.fork();
        deleted(&disk, &first, &how(24, false)).unwrap();
        let second: BTreeSet<u64> = second.difference(&first).copied().collect();
        if first.len() + second.len() < history.all.len() && !second.is_empty() {
            deleted(&disk, &second, &how(24, false)).unwrap();
        }
        disk.settle();
        let disk = if seed % 2 == 0 {
            history.backed_up(&disk, 100)
        } else {
            disk
        };
        let store = Store::new(Arc::new(disk.clone()), "sim");
        let mut wanted: BTreeSet<u64> = history.all.keys().copied().collect();
        if seed % 3 == 0 {
            // Not all: what comes back needs pages of what does not.
            wanted.retain(|seq| seq % 2 == 0 || !(first.contains(seq) || second.contains(seq)));
            history.all.retain(|seq, _| wanted.contains(seq));
        }
        let options = how(24, false);
        let guard = store.lock_writer(false).unwrap();
        let report = delete::undelete(&store, &wanted, &options, &Silent)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        back += report.versions.len();
        let mut now = found(&disk);
        now.retain(|seq, _| wanted.contains(seq));
        assert_eq!(now, history.all, "seed {seed}");
        space::free(&store, self::now(), true).unwrap();
        drop(guard);
        now = found(&disk);
        now.retain(|seq, _| wanted.contains(seq));
        assert_eq!(now, history.all, "seed {seed}");
        assert_eq!(left(&disk), Vec::<String>::new(), "seed {seed}");
    }
    println!("I8: {back} deleted versions brought back, all identical");
}

#[test]
fn c9_what_an_interrupted_backup_staged_outlives_deletions() {
    let history = History::new(3);
    let src = source(&history.dir);
    std::fs::write(src.join("new"), crate::world::text(77, 400_000)).unwrap();
    let options = options(&src, 200, 3, 1);
    let trial = history.disk.fork();
    run(Arc::new(trial.clone()), &options).unwrap();
    let staged = |disk: &SimDisk| -> Vec<String> {
        let contents = disk.contents();
        let is_record = |path: &&String| path.starts_with("staging/") && !path.contains("tmp-");
        let names = contents.keys().filter(is_record);
        names.cloned().collect()
    };
    // The first crash that leaves whole objects behind.
    let crashed = (1..trial.calls()).map(|at| {
        let disk = history.disk.fork();
        disk.set_fault(Some(Fault::Crash { at }));
        let _ = run(Arc::new(disk.clone()), &options);
        disk.after_crash(Survival::Everything)
    });
    let disk = crashed
        .into_iter()
        .find(|disk| staged(disk).len() > 2)
        .unwrap();
    let before = staged(&disk);
    let store = Store::new(Arc::new(disk.clone()), "sim");
    let all: BTreeSet<u64> = history.all.keys().copied().collect();
    for doomed in [all, BTreeSet::from([4]), BTreeSet::from([VERSIONS])] {
        let _ = space::with_reserve(&store, now(), || {
            delete::delete(&store, &doomed, &how(0, false), &Silent)
        });
        let now = staged(&disk);
        assert!(before.iter().all(|name| now.contains(name)), "{doomed:?}");
    }
    delete::pin(&store, &BTreeSet::from([2]), Some("kept"), now()).unwrap();
    assert!(!staged(&disk).is_empty());
    run(Arc::new(disk.clone()), &options).unwrap();
    assert_eq!(left(&disk), Vec::<String>::new());
    let gone = BTreeSet::from([4, VERSIONS]);
    let mut found = found(&disk);
    found.retain(|seq, _| *seq <= VERSIONS);
    assert_eq!(found, history.survivors(&gone));
}
