//! Random histories of dumps: bytes that are edited, moved, doubled and cut at random, and a naive copy of every state to
//! compare with. A failing seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use btw_backup::ops::backup::Outcome;
use btw_backup::store::Store;
use btw_backup::store::catalogs::CatalogReader;
use btw_backup::store::heads::Heads;
use btw_backup::store::stream::VersionStream;

use crate::deletion::{deleted, how};
use crate::random::Random;
use crate::sim::{Fault, SimDisk, Survival};
use crate::world::{dump_options, named_dump_options, rows, run, streams, text, versions};

const STEPS: i64 = 16;

/// One random change: overwrite, insert, cut out, move, double, a run of one byte, everything anew.
fn change(dump: &mut Vec<u8>, random: &mut Random) {
    let at = random.size(dump.len() as u64 + 1);
    let len = random.size(20_000).min(dump.len() - at);
    let seed = random.below(1 << 20);
    match random.below(12) {
        0..=2 => dump[at..].iter_mut().take(5).for_each(|byte| *byte ^= 1),
        3..=5 => drop(dump.splice(at..at, text(seed, random.size(3_000)))),
        6 | 7 => drop(dump.drain(at..at + len)),
        8 => {
            let moved: Vec<u8> = dump.drain(at..at + len).collect();
            let to = random.size(dump.len() as u64 + 1);
            dump.splice(to..to, moved);
        }
        9 => dump.extend_from_within(at..at + len),
        10 => drop(dump.splice(at..at, vec![b'x'; random.size(30_000)])),
        _ => *dump = rows(random.below(5)),
    }
}

/// Deletes some versions but the newest.
fn thin_out(disk: &SimDisk, random: &mut Random, known: &mut BTreeMap<u64, Vec<u8>>) {
    let seqs: Vec<u64> = versions(Arc::new(disk.clone()))
        .unwrap()
        .iter()
        .map(|version| version.seq)
        .collect();
    let gone = seqs.iter().rev().skip(1).filter(|_| random.below(4) == 0);
    let gone: BTreeSet<u64> = gone.copied().collect();
    known.retain(|seq, _| !gone.contains(seq));
    deleted(disk, &gone, &how(0, false)).unwrap();
}

fn history(seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut disk = SimDisk::default();
    let mut dump = rows(0);
    let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for hour in 0..STEPS {
        (0..=random.below(3)).for_each(|_| change(&mut dump, &mut random));
        dump.push(b'\n');
        let options = dump_options(dump.clone(), hour, random.below(5));
        if random.below(2) == 0 {
            disk.set_fault(Some(Fault::Crash {
                at: 1 + random.below(200),
            }));
            let _ = run(Arc::new(disk.clone()), &options);
            disk = disk.after_crash(Survival::Coin(random.below(1 << 30)));
        }
        let report = run(Arc::new(disk.clone()), &options)
            .unwrap_or_else(|error| panic!("seed {seed} hour {hour}: {error}"));
        let (Outcome::Committed(version) | Outcome::Unchanged(version, _)) = report.outcome;
        known.insert(version.seq, dump.clone());
        if random.below(4) == 0 {
            thin_out(&disk, &mut random, &mut known);
        }
        streams(Arc::new(disk.clone()))
            .unwrap_or_else(|error| panic!("seed {seed} hour {hour}: {error}"));
    }
    let versions = versions(Arc::new(disk.clone())).unwrap();
    let store = Store::new(Arc::new(disk.clone()), "sim");
    for (index, version) in versions.iter().enumerate() {
        let stream = VersionStream::open(&store, &versions, index).unwrap();
        let bytes = stream.read(0..stream.len()).unwrap();
        let expected = known.remove(&version.seq);
        assert!(Some(bytes) == expected, "seed {seed}: v{}", version.seq);
    }
    assert!(known.is_empty(), "seed {seed}: versions are missing");
    versions.len() as u64
}

#[test]
fn a_dump_that_goes_on_under_another_name_is_found_by_it() {
    let disk = SimDisk::default();
    let dumps = [text(1, 600_000), text(1, 600_010), text(1, 600_020)];
    for (hour, (name, dump)) in (0..).zip(["m", "z", "a"].into_iter().zip(&dumps)) {
        run(
            Arc::new(disk.clone()),
            &named_dump_options(name, dump.clone(), hour, 9),
        )
        .unwrap();
    }
    let store = Store::new(Arc::new(disk.clone()), "sim");
    for (version, name) in versions(Arc::new(disk))
        .unwrap()
        .iter()
        .zip(["m", "z", "a"])
    {
        assert!(version.catalog.level > 0, "one page shows nothing");
        let found = Heads::open(&store, &version.catalog).get(name.as_bytes());
        assert!(found.unwrap().is_some(), "{name}");
        let mut members =
            CatalogReader::open_at(&store, &version.catalog, name.as_bytes()).unwrap();
        assert_eq!(members.next_member().unwrap().unwrap().0, 0, "{name}");
    }
}

#[test]
fn c1_random_histories_of_dumps() {
    let seeds = if std::env::var_os("BTW_TEST_FULL").is_some() {
        5_000
    } else {
        40
    };
    let versions: u64 = (1..=seeds).map(history).sum();
    println!(
        "histories of dumps: {seeds}/{seeds} of {STEPS} runs each, {versions} versions restored"
    );
}
