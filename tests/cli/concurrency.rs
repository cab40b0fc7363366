//! Two runs at once, and locks of the dead.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::{Home, assert_same_tree};
use crate::trees;

fn slow_source(home: &Home) -> std::path::PathBuf {
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    trees::image(&src.join("image"), 48 << 20, 0);
    src
}

/// Starts a backup and waits until it holds the lock; the caller waits for the end.
#[expect(
    clippy::zombie_processes,
    reason = "a test that fails here ends at once"
)]
fn started(home: &Home, src: &str) -> Child {
    let child = home
        // Not turned away by the look at its lock below.
        .command(&["fs", "--init", "--wait", src, "s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lock = home.store("s").join("lock");
    let begin = Instant::now();
    loop {
        let held = fs::File::open(&lock).is_ok_and(|file| {
            let operation = rustix::fs::FlockOperation::NonBlockingLockShared;
            rustix::fs::flock(&file, operation) == Err(rustix::io::Errno::WOULDBLOCK)
        });
        if held {
            return child;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "the run never took the lock"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn e3_a_stopped_run_keeps_its_lock_and_goes_on() {
    let home = Home::new();
    let src = slow_source(&home);
    let mut first = started(&home, src.to_str().unwrap());
    signal(&first, Signal::STOP);
    home.fs(&src, "s")
        .ends(4)
        .complains("Another run is using the store s");
    let waiting = home
        .command(&["fs", "--wait", src.to_str().unwrap(), "s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    signal(&first, Signal::CONT);
    assert!(first.wait().unwrap().success());
    let output = waiting.wait_with_output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("no change")
    );
    assert_same_tree(&src, &home.restored("latest", "s"));
}

#[test]
fn e4_the_lock_of_a_killed_run_is_gone_with_it() {
    let home = Home::new();
    let src = slow_source(&home);
    let mut first = started(&home, src.to_str().unwrap());
    signal(&first, Signal::KILL);
    first.wait().unwrap();
    home.fs(&src, "s").ends(0);
    assert_same_tree(&src, &home.restored("latest", "s"));
}

#[test]
fn e1_two_runs_at_every_delay_give_what_one_after_the_other_gives() {
    let mut locked = 0;
    for delay_ms in [0, 1, 2, 4, 7, 11, 16, 25, 40, 70] {
        let home = Home::new();
        let src = home.path("src");
        trees::release(&src, 1);
        home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "s"])
            .ends(0);
        let run = || {
            home.command(&["fs", src.to_str().unwrap(), "s"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut first = run();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let mut second = run();
        let codes = [
            first.wait().unwrap().code().unwrap(),
            second.wait().unwrap().code().unwrap(),
        ];
        assert!(
            codes.contains(&0) && codes.iter().all(|code| [0, 4].contains(code)),
            "{delay_ms} ms: {codes:?}"
        );
        locked += codes.iter().filter(|code| **code == 4).count();
        let listed = home.run(&["list", "s"]).ends(0).out;
        assert_eq!(listed.lines().count(), 2, "one version: {listed}");
        assert_same_tree(&src, &home.restored("latest", "s"));
    }
    println!("E1: 10/10 delays, {locked} runs were turned away");
}

#[test]
fn e2_nothing_is_removed_while_somebody_reads() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    let files = || {
        crate::tools::tool(
            "find",
            &[
                home.store("s").to_str().unwrap(),
                "-type",
                "f",
                "-path",
                "*/[msod]*/*",
            ],
        )
    };
    let before = files();
    let readers = fs::File::open(home.store("s").join("readers")).unwrap();
    rustix::fs::flock(&readers, rustix::fs::FlockOperation::LockShared).unwrap();
    trees::release(&src, 2);
    home.fs(&src, "s").ends(0);
    let during = files();
    assert!(
        before.lines().all(|path| during.contains(path)),
        "a reader's files were removed"
    );
    assert_eq!(
        fs::read_dir(home.store("s").join("state")).unwrap().count(),
        2
    );
    home.run(&["list", "s"]).ends(0);
    drop(readers);
    home.fs(&src, "s").ends(0);
    assert_eq!(
        fs::read_dir(home.store("s").join("state")).unwrap().count(),
        1
    );
    assert!(
        !before.lines().all(|path| files().contains(path)),
        "they go when nobody reads any more"
    );
    assert_same_tree(&src, &home.restored("latest", "s"));
}
