//! Crashes and errors at every call of a backup, on a simulated disk.
//!
//! Cause of the tests: CASES C1, C3, C4, C6, C12; the planted bugs show that the campaign can fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use btw_backup::catalog::StoreType;
use btw_backup::digest::Digest;
use btw_backup::error::{Error, StoreError};
use btw_backup::ops::backup::{Options, Outcome};
use btw_backup::store::disk::{Disk, DiskFile, DiskRead};

use crate::sim::{Fault, SimDisk, Survival};
use crate::world::{dump_options, leftovers, options, rows, run, source, streams, tree};

/// A run that is interrupted: the store before it, and the options of the run.
struct Scenario {
    name: &'static str,
    before: SimDisk,
    options: Options,
    /// What an undisturbed run gives.
    undisturbed: BTreeMap<u64, Digest>,
    calls: u64,
}

type Wrap = fn(SimDisk) -> Arc<dyn Disk>;

fn plain(disk: SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk)
}

/// S1 first backup, S2 changed, S3 unchanged, S4 roll-over (a full that drops an anchor); the first three also with
/// archives.
fn scenarios(dir: &tempfile::TempDir, wrap: Wrap) -> Vec<Scenario> {
    let mut made = scenarios_of(dir, wrap, StoreType::Rdiff);
    let archives = scenarios_of(dir, wrap, StoreType::Tar);
    made.extend(dumps(wrap));
    made.extend(archives.into_iter().take(3).map(|scenario| Scenario {
        name: match scenario.name {
            "first" => "first archive",
            "changed" => "changed archive",
            _ => "unchanged archive",
        },
        ..scenario
    }));
    made
}

/// A database that is backed up first, and again when it has changed.
fn dumps(wrap: Wrap) -> Vec<Scenario> {
    let disk = SimDisk::default();
    let mut made = Vec::new();
    for (hour, name) in (0_i64..).zip(["first dump", "changed dump"]) {
        let options = dump_options(rows(hour.unsigned_abs()), hour, 3);
        let trial = disk.fork();
        run(wrap(trial.clone()), &options).unwrap();
        made.push(Scenario {
            name,
            before: disk.fork(),
            options: options.clone(),
            undisturbed: streams(Arc::new(trial.clone())).unwrap(),
            calls: trial.calls(),
        });
        run(wrap(disk.clone()), &options).unwrap();
    }
    made
}

fn scenarios_of(dir: &tempfile::TempDir, wrap: Wrap, store_type: StoreType) -> Vec<Scenario> {
    let src = source(dir);
    let disk = SimDisk::default();
    let mut made = Vec::new();
    let steps: [(&str, u64, u64); 6] = [
        ("first", 0, 3),
        ("changed", 1, 3),
        ("unchanged", 1, 3),
        ("", 2, 0),
        ("", 3, 0),
        ("roll-over", 4, 0),
    ];
    for (hour, (name, generation, count)) in (0..).zip(steps) {
        let src = src.with_extension(name.len().to_string() + &hour.to_string());
        tree(&src, generation);
        let options = Options {
            store_type,
            ..options(&src, hour, count, 1)
        };
        let trial = disk.fork();
        run(wrap(trial.clone()), &options).unwrap();
        let undisturbed = streams(Arc::new(trial.clone())).unwrap();
        if !name.is_empty() {
            made.push(Scenario {
                name,
                before: disk.fork(),
                options: options.clone(),
                undisturbed,
                calls: trial.calls(),
            });
        }
        run(Arc::new(disk.clone()), &options).unwrap();
    }
    made
}

fn survivals() -> Vec<Survival> {
    let coins = if std::env::var_os("BTW_TEST_FULL").is_some() {
        100
    } else {
        4
    };
    let coins = (0..coins).map(Survival::Coin);
    [
        Survival::Everything,
        Survival::Synced,
        Survival::NamesOnly,
        Survival::Torn,
    ]
    .into_iter()
    .chain(coins)
    .collect()
}

/// Crashes a run at its n-th call and checks everything that must hold. Returns how many disks were checked.
fn crash_at(scenario: &Scenario, at: u64, wrap: Wrap) -> Result<u64, String> {
    let committed = streams(Arc::new(scenario.before.fork())).unwrap();
    let disk = scenario.before.fork();
    disk.set_fault(Some(Fault::Crash { at }));
    let said_committed = matches!(run(wrap(disk.clone()), &scenario.options), Ok(report) if matches!(report.outcome, Outcome::Committed(_)));
    let mut checked = 0;
    for survival in survivals() {
        let context = |detail: String| {
            format!(
                "{} crashed at call {at}, {survival:?}: {detail}",
                scenario.name
            )
        };
        let after = disk.after_crash(survival);
        check(scenario, &after, &committed, said_committed).map_err(context)?;
        checked += 1;
    }
    Ok(checked)
}

fn check(
    scenario: &Scenario,
    after: &SimDisk,
    committed: &BTreeMap<u64, Digest>,
    said_committed: bool,
) -> Result<(), String> {
    let found = streams(Arc::new(after.clone()))?;
    let is_old = found == *committed;
    let is_new = found == scenario.undisturbed;
    if !(is_new || is_old && !said_committed) {
        return Err(format!(
            "versions {:?} are there; said committed: {said_committed}",
            found.keys().collect::<Vec<_>>()
        ));
    }
    run(Arc::new(after.clone()), &scenario.options)
        .map_err(|error| format!("the next run fails: {error}"))?;
    let again = streams(Arc::new(after.clone()))?;
    if again != scenario.undisturbed {
        return Err("the next run gives another result".into());
    }
    let left = leftovers(&(Arc::new(after.clone()) as Arc<dyn Disk>))?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left over: {left:?}"))
    }
}

fn campaign(wrap: Wrap) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for scenario in scenarios(&dir, wrap) {
        let mut checked = 0;
        for at in 1..=scenario.calls {
            checked += crash_at(&scenario, at, wrap)?;
        }
        said.push(format!(
            "{} {}/{} crash points, {checked} disks",
            scenario.name, scenario.calls, scenario.calls
        ));
    }
    Ok(said.join("; "))
}

#[test]
fn c1_c3_c12_every_crash_leaves_all_versions_and_the_next_run_works() {
    let said = campaign(plain).unwrap();
    println!("C1 C3 C12: {said}");
}

#[test]
fn c4_c6_every_failing_call_is_the_stores_fault_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for scenario in scenarios(&dir, plain) {
        for at in 1..=scenario.calls {
            for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied] {
                for onward in [false, true] {
                    fail_at(&scenario, Fault::Error { at, kind, onward }).unwrap_or_else(|error| {
                        panic!("{} {at} {kind:?} {onward}: {error}", scenario.name)
                    });
                    tried += 1;
                }
            }
        }
    }
    println!("C4 C6: {tried}/{tried} failing calls");
}

fn fail_at(scenario: &Scenario, fault: Fault) -> Result<(), String> {
    let committed = streams(Arc::new(scenario.before.fork())).unwrap();
    let disk = scenario.before.fork();
    disk.set_fault(Some(fault));
    let result = run(Arc::new(disk.clone()), &scenario.options);
    disk.set_fault(None);
    let said_committed = match result {
        // A fault after the commit, or one that was no obstacle: never silent if something was to be done.
        Ok(report) => {
            if report.version_problems() > 0 {
                return Err("a fault of the store was taken for the source's".into());
            }
            matches!(report.outcome, Outcome::Committed(_))
        }
        Err(Error::Store(
            StoreError::Full { .. } | StoreError::Io { .. } | StoreError::Damaged { .. },
        )) => false,
        Err(other) => return Err(format!("wrong class: {other:?}")),
    };
    check(scenario, &disk, &committed, said_committed)
}

trait VersionProblems {
    fn version_problems(&self) -> u64;
}

impl VersionProblems for btw_backup::ops::backup::Report {
    fn version_problems(&self) -> u64 {
        match &self.outcome {
            Outcome::Committed(version) | Outcome::Unchanged(version, _) => version.problems,
        }
    }
}

/// A disk with a bug planted: it leaves out, or adds, calls.
struct Planted {
    disk: SimDisk,
    bug: Bug,
}

#[derive(Clone, Copy, Debug)]
enum Bug {
    ObjectsNotSynced,
    ObjectNamesNotSynced,
    StateNotSynced,
    StateNameNotSynced,
    RemovalBeforeCommit,
    StateInPlace,
    DeltaNotSynced,
}

impl Disk for Planted {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn create(&self, path: &str, append: bool) -> io::Result<Box<dyn DiskFile>> {
        if matches!(self.bug, Bug::RemovalBeforeCommit) && path.starts_with("state/tmp-") {
            for name in self
                .disk
                .list("state")?
                .into_iter()
                .filter(|name| !name.starts_with("tmp-"))
            {
                self.disk.remove(&format!("state/{name}"))?;
            }
        }
        let unsynced = match self.bug {
            Bug::ObjectsNotSynced => path.starts_with("objects/"),
            Bug::StateNotSynced => path.starts_with("state/"),
            Bug::DeltaNotSynced => path.starts_with("deltas/"),
            _ => false,
        };
        let in_place = matches!(self.bug, Bug::StateInPlace)
            .then(|| {
                path.strip_prefix("state/tmp-")
                    .and_then(|n| n.parse::<u64>().ok())
            })
            .flatten();
        let path = in_place.map_or_else(|| path.to_owned(), |number| format!("state/{number:010}"));
        let file = self.disk.create(&path, append)?;
        Ok(if unsynced {
            Box::new(Unsynced(file))
        } else {
            file
        })
    }

    fn publish(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        if matches!(self.bug, Bug::StateInPlace) && to.starts_with("state/") {
            return Ok(());
        }
        self.disk.publish(from, to, replace)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        match (self.bug, dir) {
            (Bug::ObjectNamesNotSynced, "objects") | (Bug::StateNameNotSynced, "state") => Ok(()),
            _ => self.disk.sync_dir(dir),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskRead>> {
        self.disk.open(path)
    }

    fn lock(&self, path: &str, exclusive: bool, wait: bool) -> io::Result<Option<Box<dyn Send>>> {
        self.disk.lock(path, exclusive, wait)
    }
}

struct Unsynced(Box<dyn DiskFile>);

impl DiskFile for Unsynced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn c3_planted_bugs_are_caught() {
    let plants: [(Bug, Wrap); 7] = [
        (Bug::ObjectsNotSynced, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::ObjectsNotSynced,
            })
        }),
        (Bug::ObjectNamesNotSynced, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::ObjectNamesNotSynced,
            })
        }),
        (Bug::StateNotSynced, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::StateNotSynced,
            })
        }),
        (Bug::StateNameNotSynced, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::StateNameNotSynced,
            })
        }),
        (Bug::RemovalBeforeCommit, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::RemovalBeforeCommit,
            })
        }),
        (Bug::StateInPlace, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::StateInPlace,
            })
        }),
        (Bug::DeltaNotSynced, |disk| {
            Arc::new(Planted {
                disk,
                bug: Bug::DeltaNotSynced,
            })
        }),
    ];
    for (bug, wrap) in plants {
        match campaign(wrap) {
            Err(caught) => println!("planted {bug:?}: caught: {caught}"),
            Ok(said) => panic!("planted {bug:?} was not caught: {said}"),
        }
    }
    println!("crash test sensitivity: 7/7 planted bugs caught");
}
