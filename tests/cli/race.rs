//! Users of the live system who swap names while root reads or writes.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::tools::{Home, assert_same_tree, is_root, skip, tool};
use crate::trees;

const SWAPS: u64 = 100_000;
const SECRET: &str = "root's eyes only";

/// A racer, run as an ordinary user.
struct Racer(Child);

impl Racer {
    fn start(home: &Home, mode: &str, dir: &str, goal: &str) -> Self {
        // The user must be able to read the script, wherever the project lies.
        let script = home.path("racer.py");
        fs::copy("tests/racer.py", &script).unwrap();
        for path in [home.dir.path().to_path_buf(), script.clone()] {
            tool("chmod", &["755", path.to_str().unwrap()]);
        }
        let child = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "/usr/bin/python3",
            ])
            .arg(script)
            .args([mode, home.path(dir).to_str().unwrap(), goal])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn stop(mut self) -> u64 {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(self.0.wait().unwrap().success());
        said.trim().parse().unwrap()
    }
}

fn theirs(home: &Home, name: &str) {
    let path = home.path(name);
    tool(
        "install",
        &["-d", "-o", "65534", "-g", "65534", path.to_str().unwrap()],
    );
}

#[test]
fn g1_g4_a_user_who_swaps_names_gets_nothing_of_others_into_a_backup() {
    if !is_root() {
        return skip("G1 racer: only root reads what others may not");
    }
    let home = Home::new();
    theirs(&home, "src");
    let secret = home.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("secret"), SECRET.repeat(50)).unwrap();
    tool("chmod", &["700", secret.to_str().unwrap()]);
    let src = home.path("src");
    // Something to do around what is swapped.
    trees::release(&src.join("more"), 1);
    home.fs(&src, "s").ends(0);
    let mut swaps = 0;
    let (mut runs, mut codes) = (0, std::collections::BTreeMap::new());
    while swaps < SWAPS || runs < 100 {
        let racer = Racer::start(&home, "source", "src", "../secret");
        for _ in 0..50 {
            let said = home.run(&["fs", src.to_str().unwrap(), "s"]);
            // What was replaced while we looked is named: a partial version.
            assert!(
                matches!(said.code, Some(0 | 3)),
                "{:?}: {}",
                said.code,
                said.err
            );
            *codes.entry(said.code.unwrap()).or_insert(0) += 1;
            runs += 1;
        }
        swaps += racer.stop();
        for name in ["dir", "dir-link", "file", "file-link", "up-link", "pipe"] {
            tool("rm", &["-rf", src.join(name).to_str().unwrap()]);
        }
    }
    let listed: serde_json::Value =
        serde_json::from_str(&home.run(&["list", "--json", "s"]).ends(0).out).unwrap();
    let versions = listed["versions"].as_array().unwrap();
    assert!(versions.len() > 20, "only {} versions", versions.len());
    for version in versions {
        let restored = home.restored(&format!("v{}", version["seq"]), "s");
        let leaked = Command::new("grep")
            .args(["-rl", SECRET])
            .arg(&restored)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&leaked.stdout), "");
        assert_eq!(
            tool("find", &[restored.to_str().unwrap(), "-name", "secret"]),
            ""
        );
        fs::remove_dir_all(restored).unwrap();
    }
    println!(
        "G1 G4: {swaps} swaps during {runs} backups (exit codes {codes:?}), {} versions searched: 0 leaks",
        versions.len()
    );
}

#[test]
fn h3_h4_a_user_who_swaps_names_gets_nothing_restored_elsewhere() {
    if !is_root() {
        return skip("H4 racer: only root writes where others may not");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir_all(src.join("a/b")).unwrap();
    trees::release(&src.join("a/b/c"), 1);
    fs::write(src.join("file"), "file").unwrap();
    tool("chmod", &["-R", "a+rwX", src.to_str().unwrap()]);
    home.fs(&src, "s").ends(0);
    home.run(&["fs", "--init", src.join("file").to_str().unwrap(), "single"])
        .ends(0);
    let canary = home.path("canary");
    fs::create_dir_all(canary.join("a/b")).unwrap();
    fs::write(canary.join("file"), "sings").unwrap();
    tool("chmod", &["-R", "go-w", canary.to_str().unwrap()]);
    let kept = home.path("kept");
    tool(
        "cp",
        &["-a", canary.to_str().unwrap(), kept.to_str().unwrap()],
    );
    theirs(&home, "theirs");
    let out = home.path("theirs/out");
    let (mut swaps, mut runs, mut codes) = (0, 0, std::collections::BTreeMap::new());
    while swaps < SWAPS || runs < 100 {
        let racer = Racer::start(&home, "target", "theirs", "../canary");
        for number in 0..50 {
            let store = if number % 5 == 0 { "single" } else { "s" };
            let said = home.run(&["restore", store, out.to_str().unwrap()]);
            assert!(
                matches!(said.code, Some(0 | 1)),
                "{:?}: {}",
                said.code,
                said.err
            );
            *codes.entry(said.code.unwrap()).or_insert(0) += 1;
            runs += 1;
            tool(
                "bash",
                &[
                    "-c",
                    &format!(
                        "rm -rf {0}/out {0}/.out* || true",
                        home.path("theirs").display()
                    ),
                ],
            );
        }
        swaps += racer.stop();
    }
    assert_same_tree(&kept, &canary);
    println!("H3 H4: {swaps} swaps during {runs} restores (exit codes {codes:?}): 0 escapes");
}

#[test]
fn h3_h4_a_user_who_swaps_names_gets_nothing_restored_in_place_elsewhere() {
    if !is_root() {
        return skip("H4 racer: only root writes where others may not");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir_all(src.join("a/b/c")).unwrap();
    for (name, text) in [("file", "file"), ("a/file", "a file"), ("a/b/c/file", "c")] {
        fs::write(src.join(name), text).unwrap();
    }
    tool("chown", &["-R", "65534:65534", src.to_str().unwrap()]);
    home.fs(&src, "s").ends(0);
    let canary = home.path("canary");
    fs::create_dir_all(canary.join("a/b/c")).unwrap();
    for name in ["file", "a/file", "other"] {
        fs::write(canary.join(name), "sings").unwrap();
    }
    tool("chmod", &["-R", "go-w", canary.to_str().unwrap()]);
    let kept = home.path("kept");
    let (canary_text, kept_text) = (canary.to_str().unwrap(), kept.to_str().unwrap());
    tool("cp", &["-a", canary_text, kept_text]);
    let (mut swaps, mut runs, mut codes) = (0, 0, std::collections::BTreeMap::new());
    while swaps < SWAPS || runs < 100 {
        // Something to write, to adjust and to remove in each round.
        theirs(&home, "theirs");
        let out = home.path("theirs");
        let change = format!(
            "cd {} && rm -rf ./* && mkdir -p a/b/c/d && echo x > file && echo y > a/file && echo z > a/b/extra \
             && chown -R 65534:65534 .",
            out.display()
        );
        tool("bash", &["-c", &change]);
        let racer = Racer::start(&home, "place", "theirs", "../canary");
        for _ in 0..10 {
            let said = home.run(&[
                "restore",
                "--in-place",
                "--delete",
                "s",
                out.to_str().unwrap(),
            ]);
            assert!(
                matches!(said.code, Some(0 | 1 | 3)),
                "{:?}: {}",
                said.code,
                said.err
            );
            *codes.entry(said.code.unwrap()).or_insert(0) += 1;
            runs += 1;
        }
        swaps += racer.stop();
    }
    assert_same_tree(&kept, &canary);
    println!(
        "H3 H4: {swaps} swaps during {runs} restores in place (exit codes {codes:?}): 0 escapes"
    );
}
