//! Real runs killed at the entry of every call that changes something, by strace.
//!
//! strace counts calls per thread and name: the run is killed when the first thread enters its n-th call of that name.
//! The simulated disk reaches every call of every thread; this campaign keeps it honest about which calls there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tools::{Home, PROGRAM, assert_same_tree, tool};
use crate::trees;

/// Calls that change the store. `openat2` also opens for reading; killing there is as good.
const CALLS: [&str; 8] = [
    "openat2",
    "write",
    "fdatasync",
    "fsync",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
];

struct Scenario {
    name: &'static str,
    home: Home,
    src: PathBuf,
    /// What each committed version was.
    states: Vec<PathBuf>,
}

fn scenario(
    name: &'static str,
    store_type: &str,
    versions: u64,
    changed: bool,
    count: &str,
) -> Scenario {
    let home = Home::new();
    let src = home.path("src");
    home.run(&["fs-init", "--type", store_type, src.to_str().unwrap(), "s"])
        .ends(0);
    home.configure_source(
        "s",
        "MAX_INCREMENTAL_COUNT = 10",
        &format!("MAX_INCREMENTAL_COUNT = {count}"),
    );
    home.configure_source("s", "#FULLS_KEPT = 2", "FULLS_KEPT = 1");
    let mut states = Vec::new();
    for n in 1..=versions {
        small_tree(&src, n);
        home.fs(&src, "s").ends(0);
        states.push(keep(&home, &src, n));
    }
    if changed {
        small_tree(&src, versions + 1);
        states.push(keep(&home, &src, versions + 1));
    }
    Scenario {
        name,
        home,
        src,
        states,
    }
}

fn small_tree(src: &Path, n: u64) {
    fs::create_dir_all(src.join("d")).unwrap();
    fs::write(
        src.join("d/text"),
        trees::Random(1).code(200) + &trees::Random(n).code(20),
    )
    .unwrap();
    fs::write(src.join("stays"), "the same").unwrap();
    trees::image(&src.join("image"), 300_000, n);
}

fn keep(home: &Home, src: &Path, n: u64) -> PathBuf {
    let to = home.path(&format!("keep{n}"));
    tool("cp", &["-a", src.to_str().unwrap(), to.to_str().unwrap()]);
    to
}

/// Runs a backup that is killed at the n-th call of this name. `None` if it ended by itself.
fn killed(scenario: &Scenario, call: &str, n: u32) -> Option<String> {
    let home = &scenario.home;
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let output = home
        .command(&[])
        .get_envs()
        .fold(Command::new("strace"), |mut command, (key, value)| {
            command.env(key, value.unwrap());
            command
        })
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
            PROGRAM,
            "--threads",
            "1",
            "fs",
            scenario.src.to_str().unwrap(),
            "s",
        ])
        .stdin(Stdio::null())
        .output()
        .expect("strace is installed (tests/run does it)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (!output.status.success()).then_some(said)
}

/// Puts the store and the bookkeeping back as they were before the run.
fn reset(home: &Home) {
    for name in ["root", "conf"] {
        tool("rm", &["-rf", home.path(name).to_str().unwrap()]);
        tool(
            "cp",
            &[
                "-a",
                home.path(&format!("{name}.before")).to_str().unwrap(),
                home.path(name).to_str().unwrap(),
            ],
        );
    }
}

fn check(scenario: &Scenario, said: &str, context: &str) {
    let home = &scenario.home;
    for path in tool(
        "find",
        &[
            home.path("root").to_str().unwrap(),
            "(",
            "-type",
            "f",
            "!",
            "-perm",
            "600",
            ")",
            "-o",
            "(",
            "-type",
            "d",
            "!",
            "-perm",
            "700",
            ")",
        ],
    )
    .lines()
    {
        assert!(
            path == home.path("root").to_str().unwrap(),
            "{context}: {path} is readable by others"
        );
    }
    let listed = home.run(&["list", "s"]);
    let count = if listed.code == Some(0) {
        listed.out.lines().count().saturating_sub(1)
    } else {
        0
    };
    assert!(
        count == scenario.states.len() || !said.contains("committed"),
        "{context}: said committed, but {}",
        listed.out
    );
    for n in 1..=count {
        let restored = home.restored(&format!("v{n}"), "s");
        assert_same_tree(&scenario.states[n - 1], &restored);
        fs::remove_dir_all(restored).unwrap();
    }
    home.run(&["fs", scenario.src.to_str().unwrap(), "s"])
        .ends(0);
    let last = home.restored("latest", "s");
    assert_same_tree(&scenario.src, &last);
    fs::remove_dir_all(last).unwrap();
    let left = tool(
        "find",
        &[
            home.store("s").to_str().unwrap(),
            "-name",
            "tmp-*",
            "-o",
            "-path",
            "*/staging/*",
        ],
    );
    assert_eq!(left, "", "{context}: left over");
}

fn campaign(scenario: &Scenario) {
    let home = &scenario.home;
    for name in ["root", "conf"] {
        tool(
            "cp",
            &[
                "-a",
                home.path(name).to_str().unwrap(),
                home.path(&format!("{name}.before")).to_str().unwrap(),
            ],
        );
    }
    let mut points = 0;
    for call in CALLS {
        for n in 1.. {
            reset(home);
            let Some(said) = killed(scenario, call, n) else {
                break;
            };
            check(
                scenario,
                &said,
                &format!("{} killed at {call} {n}", scenario.name),
            );
            points += 1;
        }
    }
    assert!(points > 5, "strace killed only {points} times");
    println!("C1 {}: {points}/{points} kills survived", scenario.name);
}

#[test]
fn c1_c11_c12_killed_in_a_first_backup() {
    campaign(&scenario("first", "rdiff", 0, true, "10"));
}

#[test]
fn c1_c11_c12_killed_in_a_changed_backup() {
    campaign(&scenario("changed", "rdiff", 1, true, "10"));
}

#[test]
fn c1_c11_c12_killed_in_an_unchanged_backup() {
    campaign(&scenario("unchanged", "rdiff", 1, false, "10"));
}

#[test]
fn c1_c11_c12_killed_in_a_roll_over() {
    campaign(&scenario("roll-over", "rdiff", 3, true, "0"));
}

#[test]
fn c1_c11_c12_killed_while_an_archive_is_made() {
    campaign(&scenario("archive", "tar", 1, true, "10"));
}
