//! `run`: everything that is configured, unattended.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tools::{Home, Said, is_root, skip, tool};

/// Adds to the configuration.
pub fn configure(home: &Home, more: &str) {
    let path = home.path("conf/config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}{more}\n")).unwrap();
}

/// A source with one file.
pub fn source(home: &Home, name: &str) -> String {
    let dir = home.path(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), name).unwrap();
    dir.display().to_string()
}

/// The answer of `run`, and how it ended.
pub fn report(home: &Home, args: &[&str]) -> (Value, i32) {
    let said = home.run(&[&["run", "--json"], args].concat());
    let answer = serde_json::from_str(&said.out);
    let answer = answer.unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
    (answer, said.code.unwrap())
}

/// Names of tasks, and exit codes; what was skipped has none.
fn tasks(report: &Value) -> Vec<(String, Option<u64>)> {
    let tasks = report["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| {
            let code = task["exit_code"]
                .as_u64()
                .filter(|_| task["skipped"].is_null());
            (task["name"].as_str().unwrap().to_owned(), code)
        })
        .collect()
}

fn named(names: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>)> {
    names
        .iter()
        .map(|(name, code)| ((*name).to_owned(), *code))
        .collect()
}

#[test]
fn what_was_set_up_by_hand_needs_no_configuration() {
    let home = Home::new();
    let (a, b) = (source(&home, "a"), source(&home, "b"));
    home.fs(Path::new(&a), "some/a").ends(0);
    home.run(&["fs-init", "--type", "tar", &b, "b"]).ends(0);
    let (report, code) = report(&home, &[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        tasks(&report),
        named(&[
            ("fs b", Some(0)),
            ("fs some/a", Some(0)),
            ("verify b", Some(0)),
            ("verify some/a", Some(0)),
        ])
    );
    assert_eq!(report["event"], "success");
    // One store a night is rebuilt, the others are read in part.
    let verified = |dst| {
        serde_json::from_str::<Value>(&home.run(&["list", "--json", dst]).ends(0).out).unwrap()["verified"]["deep"].clone()
    };
    assert_eq!(
        (verified("b"), verified("some/a")),
        (false.into(), true.into())
    );
    assert_eq!(
        fs::read(home.restored("latest", "b").join("file")).unwrap(),
        b"b"
    );
    let again = home.run(&["run"]).ends(0).out;
    assert!(again.contains("[fs b] b: no change"), "{again}");
    assert!(again.contains("4 done in "), "{again}");
    assert!(home.run(&["--quiet", "run"]).ends(0).out.is_empty());
}

#[test]
fn one_job_that_fails_does_not_stop_the_others() {
    let home = Home::new();
    let (good, partial) = (source(&home, "good"), source(&home, "partial"));
    // A name that is nowhere is a source that cannot be read.
    configure(
        &home,
        &format!(
            "[job.gone]\nsource = '/nonexistent/x'\n[job.good]\nsource = '{good}'\n[job.half]\nsource = '{partial}'\ndst = 'h/alf'\n[job.typo]\nsuorce = '/x'\n[job.out]\ncommand = ['echo', 'hello']\n[job.bad]\ncommand = ['sh', '-c', 'echo last words >&2; exit 9']\n"
        ),
    );
    let (report, code) = report(&home, &["fs", "cmd"]);
    assert_eq!(code, 1);
    assert_eq!(
        tasks(&report),
        named(&[
            ("job typo", Some(1)),
            ("fs gone", Some(1)),
            ("fs good", Some(0)),
            ("fs half", Some(0)),
            ("cmd bad", Some(1)),
            ("cmd out", Some(0)),
        ])
    );
    assert_eq!(report["event"], "failure");
    assert!(
        report["subject"]
            .as_str()
            .unwrap()
            .ends_with("FAILED: job typo, fs gone, cmd bad"),
        "{report}"
    );
    let problem = |index: usize| {
        report["tasks"][index]["problems"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(
        problem(0).contains("config.toml: ")
            && problem(0).contains("line 10")
            && problem(0).contains("suorce"),
        "{}",
        problem(0)
    );
    assert!(
        problem(4).contains("exited with code: 9") && problem(4).contains("last words"),
        "{}",
        problem(4)
    );
    assert_eq!(home.run(&["restore", "out", "-"]).ends(0).out, "hello\n");
    // Prune and verify have nothing to do where there is no store.
    let (report, code) = self::report(&home, &["verify"]);
    assert_eq!(code, 0, "{report}");
    assert!(tasks(&report).contains(&("verify gone".to_owned(), None)));
    home.run(&["run", "goode"])
        .ends(2)
        .complains("there are: bad, gone, good, half, out");
}

#[test]
fn steps_and_jobs_are_chosen_in_the_order_given() {
    let home = Home::new();
    let (a, b) = (source(&home, "a"), source(&home, "b"));
    fs::create_dir(home.path("remote")).unwrap();
    configure(
        &home,
        &format!(
            "STEPS = ['verify', 'sync', 'fs']\n[remote.r]\nurl = 'file://{}'\n[verify]\nsample = 100\ndeep_every = 'never'\n[job.a]\nsource = '{a}'\n[job.b]\nsource = '{b}'\nevery = '1d'\n[job.off]\nsource = '/x'\nenabled = false\n",
            home.path("remote").display()
        ),
    );
    let (first, _) = report(&home, &["fs", "prune", "sync"]);
    assert_eq!(
        tasks(&first),
        named(&[
            ("fs a", Some(0)),
            ("fs b", Some(0)),
            ("fs off", None),
            ("sync", Some(0))
        ])
    );
    // The copy was left to the step that makes it.
    let told = |index: usize| first["tasks"][index]["told"].to_string();
    assert!(
        !told(0).contains("copied") && told(3).contains("a: copied to"),
        "{first}"
    );
    // By STEPS; b is not due.
    let (all, _) = report(&home, &[]);
    assert_eq!(
        tasks(&all),
        named(&[
            ("verify a", Some(0)),
            ("verify b", Some(0)),
            ("sync", Some(0)),
            ("fs a", Some(0)),
            ("fs b", None),
            ("fs off", None),
        ])
    );
    // Named, it is done all the same.
    let (only, _) = report(&home, &["b", "fs"]);
    assert_eq!(tasks(&only), named(&[("fs b", Some(0))]));
    let dry = home.run(&["run", "--dry-run"]).ends(0).out;
    assert!(
        dry.contains(&format!(
            "would run: btw-backup fs --no-sync --init -- {a} a\n"
        )),
        "{dry}"
    );
    assert!(dry.contains("fs b: not due yet\n"), "{dry}");
    home.run(&["run", "fsck"])
        .ends(2)
        .complains("steps are fs, db, cmd, ebs, prune, sync, verify");
}

#[test]
fn retention_is_applied_and_its_faults_are_the_tasks() {
    let home = Home::new();
    let a = source(&home, "a");
    for content in ["1", "2", "3"] {
        fs::write(home.path("a/file"), content).unwrap();
        home.fs(Path::new(&a), "a").ends(0);
    }
    home.configure_source(
        "a",
        "#RETENTION = { partitioned = [\"1d\", \"7d\", \"28d\"], keep_monthly = 12 }",
        "RETENTION = { keep_last = 1 }",
    );
    let (report, code) = report(&home, &["prune"]);
    assert_eq!((tasks(&report), code), (named(&[("prune a", Some(0))]), 0));
    let list: Value =
        serde_json::from_str(&home.run(&["list", "--json", "a"]).ends(0).out).unwrap();
    assert_eq!(list["versions"].as_array().unwrap().len(), 1);
}

/// A line for each hook that was run.
fn log(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.path("hooks")).unwrap_or_default();
    let _ = fs::remove_file(home.path("hooks"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn hooks_clear_up_whatever_fails() {
    let home = Home::new();
    let a = source(&home, "a");
    let note = |what: &str| {
        let path = home.path("hooks");
        format!(
            "['sh', '-c', 'echo {what} $BTW_HOOK $BTW_JOB $BTW_SOURCE $BTW_DST $BTW_EXIT_CODE >> {}']",
            path.display()
        )
    };
    let base = fs::read_to_string(home.path("conf/config.toml")).unwrap();
    let run = |before: &str, command: &str, after: &str| {
        fs::write(
            home.path("conf/config.toml"),
            format!(
                "{base}STEPS = ['fs', 'cmd']\n[hooks]\nbefore = {}\nafter = {}\n[job.a]\nsource = '{a}'\ndst = 'x/a'\nbefore = [{}, {before}]\nafter = [{after}, {}]\nfailed = {}\n[job.z]\ncommand = {command}\n",
                note("run"), note("run"), note("one"), note("two"), note("three")
            ),
        )
        .unwrap();
        let (report, code) = report(&home, &[]);
        (tasks(&report), code, report)
    };
    let [yes, no] = ["['true']", "['sh', '-c', 'echo no >&2; exit 3']"];
    let (done, code, _) = run(yes, "['echo', 'z']", yes);
    assert_eq!(
        (done, code),
        (named(&[("fs a", Some(0)), ("cmd z", Some(0))]), 0)
    );
    assert_eq!(
        log(&home),
        [
            "run before 0".to_owned(),
            format!("one before a {a} x/a 0"),
            format!("two after a {a} x/a 0"),
            "run after 0".to_owned(),
        ]
    );
    // What was to be prepared is not: nothing is backed up, but what was prepared is cleared away.
    fs::write(home.path("a/file"), "new").unwrap();
    let (done, code, report) = run(no, "['echo', 'z']", yes);
    assert_eq!(
        (done, code),
        (named(&[("fs a", Some(1)), ("cmd z", Some(0))]), 1)
    );
    let problem = report["tasks"][0]["problems"][0].as_str().unwrap();
    assert_eq!(
        problem,
        "nothing was backed up: command 2 of 'before' exited with code: 3: sh: no"
    );
    assert_eq!(
        log(&home)[1..4],
        [
            format!("one before a {a} x/a 0"),
            format!("three failed a {a} x/a 1"),
            format!("two after a {a} x/a 1")
        ]
    );
    // What does not clear up is a warning, and the rest clears up.
    let (done, code, _) = run(yes, "['echo', 'z']", no);
    assert_eq!(
        (done, code),
        (named(&[("fs a", Some(3)), ("cmd z", Some(0))]), 3)
    );
    assert_eq!(log(&home)[2], format!("two after a {a} x/a 0"));
    // A hook that hangs is ended.
    configure(
        &home,
        "[job.h]\ncommand = ['echo', 'h']\nbefore = ['sleep', '100']\nhook_timeout = '1s'",
    );
    let begun = Instant::now();
    let said = home.run(&["run", "h"]).ends(1);
    said.complains("took longer than 1s: sleep");
    assert!(begun.elapsed() < Duration::from_secs(30));
    // No shell: a string is refused, with its place.
    configure(
        &home,
        "[job.s]\ncommand = ['echo', 's']\nbefore = 'mount /x'",
    );
    home.run(&["run", "s"])
        .ends(1)
        .complains("no shell is used");
}

/// What is stopped is stopped in order: the backup ends, hooks clear up, nothing new begins, and it is said.
#[test]
fn e7_a_stopped_run_clears_up() {
    let home = Home::new();
    let mark = home.path("mark");
    let pid = home.path("pid");
    configure(
        &home,
        &format!(
            "[job.a]\ncommand = ['sh', '-c', 'sleep 1000 & echo $! > {}; wait']\nbefore = ['touch', '{}']\nafter = ['rm', '{}']\n[job.b]\ncommand = ['echo', 'b']\n[notify.n]\ncommand = ['tee', '{}']\n",
            pid.display(),
            mark.display(),
            mark.display(),
            home.path("told").display()
        ),
    );
    for (signal, code) in [
        (rustix::process::Signal::TERM, 143),
        (rustix::process::Signal::INT, 130),
    ] {
        let _ = fs::remove_file(&pid);
        let mut command = home.command(&["run"]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(|| fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
        assert!(mark.exists());
        let run = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(run, signal).unwrap();
        let said = Said::of(child.wait_with_output().unwrap()).ends(code);
        assert!(
            said.err.contains("[cmd a]") || said.out.contains("cmd a"),
            "{}{}",
            said.out,
            said.err
        );
        assert!(!mark.exists(), "what cleared up did not run");
        assert!(
            !home.store("b").exists(),
            "something was begun after the signal"
        );
        let told = fs::read_to_string(home.path("told")).unwrap();
        assert!(
            told.contains(&format!("stopped by signal {}", code - 128)),
            "{told}"
        );
        let program: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        wait_for(|| !Path::new(&format!("/proc/{program}")).exists());
        home.run(&["status"]).ends(1);
    }
    // Killed without a word, nothing of it goes on, and the next run finds no lock.
    let _ = fs::remove_file(&pid);
    let mut child = home
        .command(&["run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    let (second, code) = report(&home, &["b"]);
    assert_eq!(code, 4, "{second}");
    child.kill().unwrap();
    child.wait().unwrap();
    let program: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    wait_for(|| !Path::new(&format!("/proc/{program}")).exists());
    home.run(&["run", "b"]).ends(0);
}

pub fn wait_for(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not come to that"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What README shows, with a real btrfs and a real frozen file system.
#[test]
fn the_examples_of_snapshots_work() {
    let mkfs = |kind: &str| Path::new(&format!("/sbin/mkfs.{kind}")).exists();
    if !is_root() || !mkfs("btrfs") || !Path::new("/dev/loop-control").exists() {
        return skip("snapshots: root, loop devices and mkfs.btrfs are needed");
    }
    let home = Home::new();
    let mounted = |kind: &str, size: u64| {
        let image = home.path(&format!("{kind}.img"));
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let dir = home.path(kind);
        fs::create_dir(&dir).unwrap();
        tool(
            &format!("/sbin/mkfs.{kind}"),
            &["-q", image.to_str().unwrap()],
        );
        tool(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), dir.to_str().unwrap()],
        );
        Mounted(dir)
    };
    let (btrfs, ext4) = (mounted("btrfs", 128 << 20), mounted("ext4", 32 << 20));
    let path = |mounted: &Mounted, name: &str| mounted.0.join(name).display().to_string();
    fs::write(btrfs.0.join("file"), "as it was").unwrap();
    fs::write(ext4.0.join("file"), "frozen").unwrap();
    let snapshot = path(&btrfs, ".snapshot");
    configure(
        &home,
        &format!(
            "STEPS = ['fs']\n[job.home]\nsource = '{snapshot}'\nbefore = ['btrfs', 'subvolume', 'snapshot', '-r', '{0}', '{snapshot}']\nafter = ['btrfs', 'subvolume', 'delete', '{snapshot}']\n[job.srv]\nsource = '{1}'\nbefore = ['fsfreeze', '--freeze', '{1}']\nafter = ['fsfreeze', '--unfreeze', '{1}']\n",
            path(&btrfs, ""),
            path(&ext4, "").trim_end_matches('/')
        ),
    );
    for version in 1..3 {
        let (report, code) = report(&home, &[]);
        assert_eq!(code, 0, "{report:#}");
        assert!(!Path::new(&snapshot).exists());
        // It can be written to again.
        fs::write(ext4.0.join("file"), format!("thawed {version}")).unwrap();
    }
    assert_eq!(
        fs::read(home.restored("v1", "home").join("file")).unwrap(),
        b"as it was"
    );
    assert_eq!(
        fs::read(home.restored("v2", "srv").join("file")).unwrap(),
        b"thawed 1"
    );
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_configuration_that_others_could_have_written_runs_nothing() {
    if !is_root() {
        return skip("whom root trusts: root is needed");
    }
    let home = Home::new();
    configure(
        &home,
        &format!(
            "[job.a]\ncommand = ['touch', '{}']\n",
            home.path("made").display()
        ),
    );
    let path = home.path("conf/config.toml");
    fs::rename(&path, home.path("conf/real")).unwrap();
    symlink("real", &path).unwrap();
    std::os::unix::fs::chown(home.path("conf/real"), Some(65534), None).unwrap();
    home.run(&["run"])
        .ends(1)
        .complains("belongs to user 65534");
    assert!(!home.path("made").exists());
}

#[test]
fn k9_the_log_stays_short_and_no_link_is_followed() {
    let home = Home::new();
    let a = source(&home, "a");
    home.fs(Path::new(&a), "a").ends(0);
    let log = home.store("a").join("log.txt");
    fs::write(&log, vec![b'x'; (1 << 20) + 1]).unwrap();
    home.fs(Path::new(&a), "a").ends(0);
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1);
    assert_eq!(
        fs::metadata(home.store("a").join("log.old.txt"))
            .unwrap()
            .len(),
        (1 << 20) + 1
    );
    // Somebody else's file behind a link is not written to; the backup is made all the same, and it is said.
    let other = home.path("other");
    fs::write(&other, "theirs").unwrap();
    fs::remove_file(&log).unwrap();
    symlink(&other, &log).unwrap();
    fs::write(home.path("a/file"), "new").unwrap();
    home.fs(Path::new(&a), "a").ends(3).complains("log.txt");
    assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
    assert_eq!(
        fs::read(home.restored("latest", "a").join("file")).unwrap(),
        b"new"
    );
}
