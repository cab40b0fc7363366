//! `status`: whether all is well, whatever else is not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run::{configure, source};
use crate::tools::{Home, skip, tool};

fn status(home: &Home, args: &[&str]) -> (Value, i32) {
    let said = home.run(&[&["status", "--json"], args].concat());
    let answer = serde_json::from_str(&said.out);
    (
        answer.unwrap_or_else(|_| panic!("{}{}", said.out, said.err)),
        said.code.unwrap(),
    )
}

/// Makes all that is recorded of a store look this much older.
fn age(home: &Home, work: &str, hours: i64) {
    let dir = fs::read_dir(home.path("conf")).unwrap().flatten();
    let dir = dir.map(|entry| entry.path()).find(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(&format!("{work}."))
    });
    for entry in fs::read_dir(dir.unwrap().join("seen")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        for key in ["ran", "good"] {
            let time: jiff::Timestamp = table[key].as_str().unwrap().parse().unwrap();
            let older = time - jiff::SignedDuration::from_hours(hours);
            table.insert(key.into(), older.to_string().into());
        }
        fs::write(entry.path(), table.to_string()).unwrap();
    }
}

#[test]
fn k1_silence_and_what_was_never_done_are_alarms() {
    let home = Home::new();
    let (answer, code) = status(&home, &[]);
    assert_eq!((code, &answer["level"]), (1, &"CRITICAL".into()));
    assert!(
        answer["findings"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("nothing is backed up")
    );
    let a = source(&home, "a");
    home.run(&["fs-init", "--type", "rdiff", &a, "a"]).ends(0);
    let (answer, code) = status(&home, &[]);
    assert_eq!(
        (
            code,
            answer["stores"][0]["findings"][0]["text"].as_str().unwrap()
        ),
        (1, "was never backed up")
    );
    home.run(&["run"]).ends(0);
    let (answer, code) = status(&home, &[]);
    assert_eq!((code, &answer["level"]), (0, &"ok".into()), "{answer:#}");
    // Nothing has changed since, but it was looked at: that counts.
    age(&home, "a", 27);
    let said = home.run(&["status"]).ends(1);
    assert!(
        said.out
            .starts_with("CRITICAL  a           last good backup 27 hours ago"),
        "{}",
        said.out
    );
    home.run(&["status", "--max-age", "2d"]).ends(0);
    configure(&home, "[status]\nmax_age = '3d'\n");
    home.run(&["status"]).ends(0);
    home.run(&["run", "fs"]).ends(0);
    home.run(&["status", "--max-age", "1h"]).ends(0);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    home.run(&["status", "--verified-within", "1s"]).ends(3);
    home.run(&["status", "--max-age", "yesterday"])
        .ends(2)
        .complains("--max-age");
}

#[test]
fn k1_partial_and_failing_backups_are_told_from_good_ones() {
    let home = Home::new();
    let a = source(&home, "a");
    configure(
        &home,
        &format!(
            "STEPS = ['fs', 'cmd']\n[job.a]\nsource = '{a}'\n[job.c]\ncommand = ['cat', '{}']\n",
            home.path("x").display()
        ),
    );
    fs::write(home.path("x"), "x").unwrap();
    home.run(&["run"]).ends(0);
    home.run(&["status"]).ends(0);
    fs::remove_file(home.path("x")).unwrap();
    home.run(&["run"]).ends(1);
    let (answer, code) = status(&home, &[]);
    assert_eq!(code, 3, "{answer:#}");
    let text = answer["findings"][1]["text"].as_str().unwrap();
    assert!(
        text.starts_with("cmd c: FAILED, since 0 seconds ago: cat exited with code: 1"),
        "{text}"
    );
    fs::write(home.path("x"), "x").unwrap();
    home.run(&["run"]).ends(0);
    home.run(&["status"]).ends(0);
}

#[test]
fn k1_it_works_when_everything_else_is_broken() {
    let home = Home::new();
    let a = source(&home, "a");
    home.fs(Path::new(&a), "a").ends(0);
    home.fs(Path::new(&a), "b").ends(0);
    let (worst, lines) = {
        // One store has lost its state, another one is what it was.
        let state = home.store("a").join("state");
        let newest = fs::read_dir(&state)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .max()
            .unwrap();
        fs::write(newest, "rubbish").unwrap();
        fs::write(home.path("conf/run"), "no directory").unwrap();
        let (answer, code) = status(&home, &[]);
        (code, answer)
    };
    assert_eq!(worst, 5, "{lines:#}");
    assert_eq!(
        (&lines["stores"][0]["level"], &lines["stores"][1]["level"]),
        (&"DAMAGE".into(), &"ok".into())
    );
    // The disk with the stores is gone.
    fs::rename(home.path("root"), home.path("away")).unwrap();
    let said = home.run(&["status", "--nagios"]).ends(2);
    assert!(
        said.out.starts_with("BTW-BACKUP CRITICAL - ") && said.out.contains("is its disk mounted?"),
        "{}",
        said.out
    );
    // The configuration cannot be understood.
    configure(&home, "STEPS = 7\n");
    let said = home.run(&["status", "--nagios"]).ends(2);
    assert!(
        said.out.contains("config.toml") && said.out.lines().count() == 1,
        "{}",
        said.out
    );
    fs::write(home.path("conf/config.toml"), "[").unwrap();
    home.run(&["status"]).ends(1);
    // No processor time, no threads, no place for temporary files, no output but the answer.
    let mut command = home.command(&["status", "--nagios"]);
    command.env("TMPDIR", "/nonexistent").stderr(Stdio::null());
    assert_eq!(command.status().unwrap().code(), Some(2));
}

#[test]
fn f4_an_exchanged_or_older_store_is_not_well() {
    let home = Home::new();
    let a = source(&home, "a");
    home.fs(Path::new(&a), "s").ends(0);
    tool(
        "cp",
        &[
            "-a",
            home.store("s").to_str().unwrap(),
            home.path("copy").to_str().unwrap(),
        ],
    );
    fs::write(home.path("a/file"), "new").unwrap();
    home.fs(Path::new(&a), "s/").ends(0);
    home.run(&["status"]).ends(0);
    fs::rename(home.store("s"), home.path("newer")).unwrap();
    fs::rename(home.path("copy"), home.store("s")).unwrap();
    let said = home.run(&["status"]).ends(1);
    assert!(
        said.out.contains("an older copy, lies here"),
        "{}",
        said.out
    );
}

#[test]
fn damage_is_told_with_what_is_damaged() {
    let home = Home::new();
    let a = source(&home, "a");
    fs::write(home.path("a/file"), vec![7; 100_000]).unwrap();
    home.fs(Path::new(&a), "s").ends(0);
    configure(
        &home,
        &format!(
            "[verify]\nsample = 100\ndeep_every = 'never'\n[notify.n]\ncommand = ['tee', '{}']\n",
            home.path("told").display()
        ),
    );
    let object = fs::read_dir(home.store("s").join("objects"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    let mut bytes = fs::read(&object).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&object, bytes).unwrap();
    home.run(&["run", "verify"]).ends(5);
    let told: Value = serde_json::from_slice(&fs::read(home.path("told")).unwrap()).unwrap();
    let text = told["text"].as_str().unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    assert!(
        text.contains(name) && text.contains("btw-backup repair s"),
        "{text}"
    );
    assert!(!text.contains("Older versions are as they were"), "{text}");
    // A sample that does not meet it takes nothing back.
    let conf = home.path("conf/config.toml");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text.replace("sample = 100", "sample = 0.0001")).unwrap();
    home.run(&["run", "verify"])
        .ends(5)
        .complains("was not read now");
    let said = home.run(&["status"]).ends(5);
    assert!(
        said.out.contains("DAMAGE") && said.out.contains(name),
        "{}",
        said.out
    );
}

#[test]
fn the_lag_of_copies_is_seen() {
    let home = Home::new();
    let a = source(&home, "a");
    fs::create_dir(home.path("remote")).unwrap();
    configure(
        &home,
        &format!(
            "[remote.r]\nurl = 'file://{}'\nmanual = true\n",
            home.path("remote").display()
        ),
    );
    home.fs(Path::new(&a), "a").ends(0);
    let copies = |home: &Home| {
        let (answer, _) = status(home, &["--max-age", "1s"]);
        let findings = answer["stores"][0]["findings"].as_array().unwrap().clone();
        let texts = findings
            .iter()
            .map(|finding| finding["text"].as_str().unwrap().to_owned());
        texts
            .filter(|text| text.contains("cop"))
            .collect::<Vec<_>>()
    };
    assert_eq!(copies(&home), ["not copied to r yet"]);
    home.run(&["sync"]).ends(0);
    assert_eq!(copies(&home), ["copied to r"]);
    fs::write(home.path("a/file"), "new").unwrap();
    home.fs(Path::new(&a), "a").ends(0);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(
        copies(&home)[0].starts_with("the copy in r is 1 second"),
        "{:?}",
        copies(&home)
    );
    configure(&home, "[remote.bad]\nurl = 'ftp://x'\n");
    let (answer, code) = status(&home, &[]);
    assert_eq!(code, 1);
    assert!(
        answer["findings"]
            .to_string()
            .contains("nothing is copied to bad")
    );
}

#[test]
fn metrics_are_understood_by_prometheus() {
    if Command::new("/usr/bin/python3")
        .args(["-c", "import prometheus_client"])
        .status()
        .is_ok_and(|status| !status.success())
    {
        return skip("metrics: python3-prometheus-client is needed");
    }
    let home = Home::new();
    let a = source(&home, "a");
    home.fs(Path::new(&a), "odd \"name\\").ends(0);
    let file = home.path("metrics.prom");
    home.run(&["status", "--metrics", file.to_str().unwrap()])
        .ends(0);
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as p\nfor f in p(open(sys.argv[1]).read()):\n  for s in f.samples: print(s.name, s.labels.get('store', '-'), int(s.value))";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("btw_backup_versions odd \"name\\ 1\n"),
        "{text}"
    );
    assert!(text.contains("btw_backup_level - 0\n"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
    home.run(&["status", "--metrics", "/nonexistent/x"])
        .ends(1)
        .complains("/nonexistent");
}
