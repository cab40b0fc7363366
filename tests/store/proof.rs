//! Nothing wrong is committed, and presence is never taken for content.

use std::sync::Arc;

use btw_backup::catalog::VersionKind;
use btw_backup::error::{Error, StoreError};
use btw_backup::ops::backup::{Expected, Options, Outcome};
use btw_backup::store::codec::{Knobs, Product};

use btw_backup::store::disk::Disk;

use crate::sim::{Fault, SimDisk, Survival};
use crate::world::{SMALL, leftovers, options, run, source, streams, tree, versions};

fn prepared(dir: &tempfile::TempDir) -> (SimDisk, Options) {
    let src = source(dir);
    let disk = SimDisk::default();
    tree(&src, 0);
    run(Arc::new(disk.clone()), &options(&src, 0, 10, 1)).unwrap();
    tree(&src, 1);
    (disk, options(&src, 1, 10, 1))
}

#[test]
fn c8_a_frame_that_does_not_decode_is_never_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, options) = prepared(&dir);
    let before = streams(Arc::new(disk.clone())).unwrap();
    let tamper = |product: Product, bytes: &mut Vec<u8>| {
        if product == Product::Frame {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
    };
    let spoilt = Options {
        knobs: Knobs { tamper, ..SMALL },
        ..options.clone()
    };
    let error = run(Arc::new(disk.clone()), &spoilt).unwrap_err();
    assert!(
        matches!(error, Error::Store(StoreError::Proof(_))),
        "{error:?}"
    );
    assert_eq!(streams(Arc::new(disk.clone())).unwrap(), before);
    run(Arc::new(disk.clone()), &options).unwrap();
    assert_eq!(
        leftovers(&(Arc::new(disk) as Arc<dyn Disk>)).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn c9_a_delta_that_does_not_rebuild_leaves_the_old_version_whole() {
    let tampers: [fn(Product, &mut Vec<u8>); 3] = [
        |product, bytes| flip(product, bytes, |_| 5),
        |product, bytes| flip(product, bytes, |len| len / 2),
        |product, bytes| flip(product, bytes, |len| len - 2),
    ];
    for tamper in tampers {
        let dir = tempfile::tempdir().unwrap();
        let (disk, options) = prepared(&dir);
        let before = streams(Arc::new(disk.clone())).unwrap();
        let report = run(
            Arc::new(disk.clone()),
            &Options {
                knobs: Knobs { tamper, ..SMALL },
                ..options
            },
        )
        .unwrap();
        let Outcome::Committed(version) = &report.outcome else {
            panic!("not committed")
        };
        assert!(version.kind == VersionKind::Full && version.problems == 0);
        assert!(
            report.problems[0].contains("kept whole"),
            "{:?}",
            report.problems
        );
        let after = versions(Arc::new(disk.clone())).unwrap();
        assert!(after[0].whole.is_some() && after[0].delta.is_empty());
        let found = streams(Arc::new(disk.clone())).unwrap();
        assert_eq!((found[&1], found.len()), (before[&1], 2));
        assert_eq!(
            leftovers(&(Arc::new(disk) as Arc<dyn Disk>)).unwrap(),
            Vec::<String>::new()
        );
    }
}

fn flip(product: Product, bytes: &mut [u8], at: fn(usize) -> usize) {
    if product == Product::Delta {
        let at = at(bytes.len());
        bytes[at] ^= 1;
    }
}

#[test]
fn c6_c7_a_staged_object_is_hashed_before_it_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    tree(&src, 0);
    let options = options(&src, 0, 10, 1);
    let trial = SimDisk::default();
    run(Arc::new(trial.clone()), &options).unwrap();
    let undisturbed = streams(Arc::new(trial.clone())).unwrap();
    let mut taken_over = 0;
    for at in 1..=trial.calls() {
        let disk = SimDisk::default();
        disk.set_fault(Some(Fault::Crash { at }));
        let _ = run(Arc::new(disk.clone()), &options);
        let after = disk.after_crash(Survival::Everything);
        let staged: Vec<String> = after
            .contents()
            .into_keys()
            .filter_map(|path| path.strip_prefix("staging/").map(str::to_owned))
            .collect();
        if !versions(Arc::new(after.clone())).unwrap().is_empty() {
            continue;
        }
        let Some(object) = staged.iter().find(|name| !name.starts_with("tmp-")) else {
            continue;
        };
        taken_over += 1;
        for spoil in [
            |bytes: &mut Vec<u8>| bytes.fill(0),
            |bytes: &mut Vec<u8>| bytes.clear(),
            |bytes: &mut Vec<u8>| bytes[9] ^= 1,
            |_: &mut Vec<u8>| {},
        ] {
            let disk = after.fork();
            disk.spoil(&format!("objects/{object}"), spoil);
            run(Arc::new(disk.clone()), &options).unwrap();
            assert_eq!(streams(Arc::new(disk.clone())).unwrap(), undisturbed);
            assert_eq!(
                leftovers(&(Arc::new(disk) as Arc<dyn Disk>)).unwrap(),
                Vec::<String>::new()
            );
        }
    }
    assert!(taken_over > 0, "no crash left a staging record");
    println!("C6 C7: {taken_over} interrupted runs with staged objects");
}

#[test]
fn c12_a_first_backup_advances_across_interruptions() {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    tree(&src, 0);
    let options = options(&src, 0, 10, 1);
    let trial = SimDisk::default();
    run(Arc::new(trial.clone()), &options).unwrap();
    let objects = |disk: &SimDisk| {
        disk.contents()
            .into_keys()
            .filter(|path| path.starts_with("objects/") && !path.contains("tmp-"))
            .collect::<Vec<_>>()
    };
    let all = objects(&trial);
    assert!(all.len() >= 3, "{all:?}");
    // Killed when more and more of the calls were made: what is complete stays.
    let mut most_kept = 0;
    for tenths in 4..9 {
        let disk = SimDisk::default();
        let at = trial.calls() * tenths / 10;
        disk.set_fault(Some(Fault::Crash { at }));
        let _ = run(Arc::new(disk.clone()), &options);
        let disk = disk.after_crash(Survival::Everything);
        let staged = disk.contents().into_keys();
        let kept: Vec<String> = staged
            .filter(|path| path.starts_with("staging/") && !path.contains("tmp-"))
            .map(|path| path.replace("staging", "objects"))
            .collect();
        most_kept = most_kept.max(kept.len());
        run(Arc::new(disk.clone()), &options).unwrap();
        let last = objects(&disk);
        assert!(
            kept.iter().all(|object| last.contains(object)),
            "complete objects were written again"
        );
    }
    assert!(most_kept >= 2, "{most_kept}");
}

#[test]
fn an_unexpected_store_is_refused_until_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, options) = prepared(&dir);
    let run_with = |options: Options| {
        run(Arc::new(disk.fork()), &options)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let store = btw_backup::store::Store::new(Arc::new(disk.clone()), "sim")
        .current()
        .unwrap();
    let expected = |uuid, state| Some(Expected { store: uuid, state });
    let base = Options {
        expected: expected(store.store, store.number),
        ..options.clone()
    };
    assert_eq!(run_with(base.clone()), Ok(()));
    let cases = [
        (
            Options {
                expected: expected(store.store, store.number + 1),
                ..options.clone()
            },
            "is older than in the last run",
        ),
        (
            Options {
                expected: expected(uuid_of_another(), 1),
                ..options.clone()
            },
            "Another store lies at",
        ),
        (
            Options {
                host: "other".into(),
                ..base.clone()
            },
            "belongs to /source on host",
        ),
        (
            Options {
                source_name: b"/other".to_vec(),
                ..base.clone()
            },
            "belongs to /source on host",
        ),
    ];
    for (refused, why) in cases {
        assert!(
            run_with(refused.clone()).unwrap_err().contains(why),
            "{why}"
        );
        let adopted = Options {
            adopt: true,
            expected: None,
            ..refused
        };
        assert_eq!(run_with(adopted), Ok(()));
    }
    let fresh = run(Arc::new(SimDisk::default()), &base)
        .unwrap_err()
        .to_string();
    assert!(
        fresh.contains("is not where it was in the last run"),
        "{fresh}"
    );
}

#[test]
fn an_adopted_store_stays_adopted_even_if_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, options) = prepared(&dir);
    let moved = Options {
        host: "other".into(),
        ..options
    };
    let run_with = |options: &Options| run(Arc::new(disk.clone()), options).map(|_| ());
    run(
        Arc::new(disk.clone()),
        &Options {
            host: "host".into(),
            ..moved.clone()
        },
    )
    .unwrap();
    assert!(run_with(&moved).is_err());
    run_with(&Options {
        adopt: true,
        ..moved.clone()
    })
    .unwrap();
    run_with(&moved).unwrap();
    assert_eq!(versions(Arc::new(disk.clone())).unwrap().len(), 2);
}

#[test]
fn f5_many_edits_in_two_deltas_are_folded_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let src = source(&dir);
    std::fs::create_dir_all(&src).unwrap();
    let disk = SimDisk::default();
    let mut content = crate::world::text(7, 6 << 20);
    for hour in 0..3_u8 {
        content
            .iter_mut()
            .step_by(48)
            .for_each(|byte| *byte = byte.wrapping_add(hour + 1));
        std::fs::write(src.join("f"), &content).unwrap();
        let options = Options {
            knobs: Knobs::REAL,
            ..options(&src, hour.into(), 10, 1)
        };
        run(Arc::new(disk.clone()), &options).unwrap();
    }
    assert_eq!(streams(Arc::new(disk)).unwrap().len(), 3);
}

fn uuid_of_another() -> uuid::Uuid {
    uuid::Uuid::from_u128(7)
}
