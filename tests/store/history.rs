//! Long histories under a turned clock.

use std::fs;
use std::sync::Arc;

use btw_backup::catalog::VersionKind;
use btw_backup::ops::backup::Outcome;
use jiff::SignedDuration;

use btw_backup::store::disk::Disk;

use crate::sim::SimDisk;
use crate::world::{leftovers, options, run, source, streams, text, tree, versions};

const DAYS: i64 = 400;

/// A source of a few small files of which one changes.
fn change(src: &std::path::Path, step: i64) {
    fs::write(
        src.join("changes"),
        format!("generation {step}\n").repeat(20),
    )
    .unwrap();
}

fn history(step_hours: i64, count: u64) -> SimDisk {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    fs::create_dir_all(&src).unwrap();
    fs::write(src.join("stays"), "the same for ever\n".repeat(100)).unwrap();
    let disk = SimDisk::default();
    for step in 0..DAYS * 24 / step_hours {
        change(&src, step);
        let report = run(
            Arc::new(disk.clone()),
            &options(&src, step * step_hours, count, 2),
        )
        .unwrap();
        assert!(
            matches!(report.outcome, Outcome::Committed(_)) && report.problems.is_empty(),
            "{:?}",
            report.problems
        );
        if step % 100 == 0 {
            disk.settle();
        }
    }
    disk
}

/// How many of the versions are fulls, are held whole, and have a delta.
fn counts(disk: &SimDisk) -> (usize, usize, usize, usize) {
    let versions = versions(Arc::new(disk.clone())).unwrap();
    let fulls = versions
        .iter()
        .filter(|version| version.kind == VersionKind::Full)
        .count();
    let whole = versions
        .iter()
        .filter(|version| version.whole.is_some())
        .count();
    let deltas = versions
        .iter()
        .filter(|version| !version.delta.is_empty())
        .count();
    (versions.len(), fulls, whole, deltas)
}

#[test]
fn nightly_fulls_for_400_days_are_stored_as_deltas_but_for_the_newest_and_two_anchors() {
    let disk = history(24, 10);
    // SPAN is 24 h: every nightly version is a full.
    assert_eq!(counts(&disk), (400, 400, 3, 399));
    let whole: Vec<u64> = versions(Arc::new(disk.clone()))
        .unwrap()
        .iter()
        .filter(|v| v.whole.is_some())
        .map(|v| v.seq)
        .collect();
    assert_eq!(whole, [398, 399, 400]);
    assert_eq!(streams(Arc::new(disk.clone())).unwrap().len(), 400);
    assert_eq!(
        leftovers(&(Arc::new(disk) as Arc<dyn Disk>)).unwrap(),
        Vec::<String>::new()
    );
    println!("nightly: 400/400 versions restore; 3 whole, 399 deltas");
}

#[test]
fn hourly_backups_for_400_days_stay_small_and_restore() {
    let disk = history(1, 10);
    let (all, fulls, whole, deltas) = counts(&disk);
    // Of 24 hours 10 increments follow a full: a full every 11 versions.
    assert_eq!((all, fulls, whole, deltas), (9600, 873, 3, 9599));
    let state_bytes: usize = disk
        .contents()
        .iter()
        .filter(|(path, _)| path.starts_with("state/"))
        .map(|(_, content)| content.len())
        .sum();
    assert!(
        state_bytes < 200_000,
        "the state grew to {state_bytes} bytes"
    );
    let store = btw_backup::store::Store::new(Arc::new(disk.clone()), "sim");
    let versions = versions(Arc::new(disk.clone())).unwrap();
    for index in (0..versions.len()).step_by(611) {
        let stream =
            btw_backup::store::stream::VersionStream::open(&store, &versions, index).unwrap();
        let bytes = stream.read(0..stream.len()).unwrap();
        let text = format!("generation {}\n", versions[index].seq - 1);
        assert!(
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes()),
            "v{}",
            versions[index].seq
        );
    }
    println!(
        "hourly: {all} versions, {fulls} fulls, {whole} whole, {deltas} deltas, state {state_bytes} bytes"
    );
}

#[test]
fn j1_j2_clocks_that_stand_still_or_go_back_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    let disk = SimDisk::default();
    for (generation, hour) in [
        (0, 100),
        (1, 100),
        (2, 100),
        (3, 99),
        (4, -80_000),
        (5, 101),
    ] {
        tree(&src, generation);
        run(Arc::new(disk.clone()), &options(&src, hour, 10, 2)).unwrap();
    }
    let versions = versions(Arc::new(disk.clone())).unwrap();
    assert_eq!(
        versions
            .iter()
            .map(|version| version.seq)
            .collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    let mut times: Vec<_> = versions.iter().map(|version| version.time).collect();
    assert_eq!(
        times[1].duration_since(times[0]),
        SignedDuration::from_nanos(1)
    );
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 6, "times are labels, and unique");
    assert_eq!(streams(Arc::new(disk)).unwrap().len(), 6);
}

/// The length of all objects.
fn object_bytes(disk: &SimDisk) -> u64 {
    let contents = disk.contents().into_iter();
    let objects = contents.filter(|(path, _)| path.starts_with("objects/"));
    objects.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[test]
fn what_is_left_of_mostly_dead_objects_is_stored_again_and_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    fs::create_dir_all(&src).unwrap();
    for file in 0..60 {
        fs::write(src.join(format!("f{file}")), text(file, 4_000)).unwrap();
    }
    let disk = SimDisk::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut undisturbed = std::collections::BTreeMap::new();
    for step in 0..60_u64 {
        // Some files change all the time, some hardly ever: every object keeps a little that lives long.
        for file in (0..60).filter(|file| step % (file + 1) == 0) {
            fs::write(src.join(format!("f{file}")), text(step * 100 + file, 4_000)).unwrap();
        }
        let report = run(Arc::clone(&shared), &options(&src, 0, 1000, 0)).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let Outcome::Committed(version) = report.outcome else {
            panic!("changed, but not committed");
        };
        let seen = streams(Arc::clone(&shared)).unwrap();
        undisturbed.insert(version.seq, seen[&version.seq]);
        assert_eq!(leftovers(&shared).unwrap(), Vec::<String>::new());
        if step % 20 == 19 {
            assert_eq!(seen, undisturbed, "versions changed");
            disk.settle();
        }
    }
    let all = versions(Arc::clone(&shared)).unwrap();
    let whole = all.iter().filter_map(|version| version.whole.as_ref());
    let needed: u64 = whole.map(|whole| whole.stored_bytes).sum();
    let used = object_bytes(&disk);
    println!("60 versions: objects of {used} bytes, frames in use of {needed}");
    // 60 files of 4,000 bytes with 5 bits in each; three halves of that, and the frames that are alive in part.
    assert!(used < 225_000, "{used}");
}
