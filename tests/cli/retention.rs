//! Thinning out, deleting, pinning, bringing back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tools::{Home, assert_same_tree, is_root, restored_by_hand, skip, tool};
use crate::trees;

/// A store of eight releases, and a copy of each.
struct Releases {
    home: Home,
    src: PathBuf,
    then: BTreeMap<u64, PathBuf>,
}

impl Releases {
    fn new(kind: &str) -> Self {
        let home = Home::new();
        let src = home.path("src");
        fs::create_dir(&src).unwrap();
        home.run(&["fs-init", "--type", kind, src.to_str().unwrap(), "s"])
            .ends(0);
        let mut releases = Self {
            home,
            src,
            then: BTreeMap::new(),
        };
        for n in 1..=8 {
            releases.commit(n);
        }
        releases
    }

    fn commit(&mut self, n: u64) {
        tool("rm", &["-rf", self.src.to_str().unwrap()]);
        trees::release(&self.src, n);
        self.home
            .run(&["fs", self.src.to_str().unwrap(), "s"])
            .ends(0);
        let then = self.home.path(&format!("then-{n}"));
        tool(
            "cp",
            &["-a", self.src.to_str().unwrap(), then.to_str().unwrap()],
        );
        self.then.insert(n, then);
    }

    fn said(&self, args: &[&str]) -> String {
        self.home.run(args).ends(0).out
    }

    fn listed(&self) -> Vec<u64> {
        let text = self.said(&["list", "--json", "s"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let versions = json["versions"].as_array().unwrap();
        versions
            .iter()
            .map(|row| row["seq"].as_u64().unwrap())
            .collect()
    }

    /// Restores these versions, which are all that there are, and compares them.
    fn has(&self, seqs: &[u64]) {
        assert_eq!(self.listed(), seqs);
        for seq in seqs {
            let restored = self.home.restored(&format!("v{seq}"), "s");
            assert_same_tree(&self.then[seq], &restored);
            tool("rm", &["-rf", restored.to_str().unwrap()]);
        }
        assert!(self.said(&["verify", "--deep", "s"]).contains("sound"));
    }
}

#[test]
fn i5_i8_versions_go_and_come_back() {
    for kind in ["rdiff", "tar"] {
        let mut releases = Releases::new(kind);
        // Middle, newest and oldest at once; a dry run before.
        let would = releases.said(&["delete", "--dry-run", "s", "v1", "v3-v5", "latest"]);
        assert!(
            would.contains("5 versions (v1, v3-v5, v8) would be deleted"),
            "{would}"
        );
        assert_eq!(releases.listed().len(), 8);
        releases.said(&["delete", "s", "v1", "v3-v5", "latest"]);
        releases.has(&[2, 6, 7]);
        if kind == "rdiff" {
            // Also without the tool.
            for seq in [2, 7] {
                assert_same_tree(
                    &releases.then[&seq],
                    &restored_by_hand(&releases.home, "s", seq),
                );
            }
        }
        releases.commit(9);
        releases.has(&[2, 6, 7, 9]);
        assert!(
            releases
                .said(&["undelete", "--dry-run", "s"])
                .contains("v4 (")
        );
        releases.said(&["undelete", "s", "v4", "v8"]);
        releases.has(&[2, 4, 6, 7, 8, 9]);
        releases.said(&["undelete", "s"]);
        releases.has(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        releases.said(&["delete", "--now", "s", "v2-v8"]);
        releases.said(&["gc", "--now", "s"]);
        releases.has(&[1, 9]);
        releases
            .home
            .run(&["undelete", "s"])
            .ends(1)
            .complains("nothing to bring back");
    }
}

#[test]
fn the_freed_space_is_as_foretold() {
    let releases = Releases::new("rdiff");
    let bytes = || -> i64 {
        let data = ["objects", "manifests", "catalogs", "deltas"];
        let dirs = data.map(|dir| releases.home.store("s").join(dir));
        let files = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let sizes = files.map(|entry| entry.unwrap().metadata().unwrap().len());
        i64::try_from(sizes.sum::<u64>()).unwrap()
    };
    let before = bytes();
    let policy = ["--keep-last", "2", "--now", "--json", "s"];
    let foretold = releases.said(&[&["prune", "--dry-run"][..], &policy].concat());
    assert_eq!(bytes(), before);
    let freed = |text: &str| -> i64 {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        json["gone_bytes"].as_i64().unwrap() - json["new_bytes"].as_i64().unwrap()
    };
    let done = releases.said(&[&["prune"][..], &policy].concat());
    assert_eq!(
        (freed(&foretold), freed(&done)),
        (before - bytes(), before - bytes())
    );
    releases.has(&[7, 8]);
}

#[test]
fn rules_pins_and_refusals() {
    let mut releases = Releases::new("rdiff");
    releases.said(&["pin", "s", "v2", "--note", "before the move"]);
    assert!(
        releases
            .said(&["list", "s"])
            .contains("v2 is pinned: before the move")
    );
    let home = &releases.home;
    home.run(&["delete", "s", "v2"])
        .ends(1)
        .complains("v2 is pinned (before the move)");
    home.run(&["delete", "s", "v1-v8"]).ends(1);
    releases.said(&["unpin", "s", "v2"]);
    home.run(&["delete", "s", "v1-v8"])
        .ends(1)
        .complains("no version");
    releases.said(&["pin", "s", "v2", "--note", "before the move"]);
    home.run(&["delete", "s", "v12"])
        .ends(1)
        .complains("nearest");
    home.run(&["delete", "s", "yesterday"]).ends(2);
    home.run(&["delete", "nowhere", "v1"])
        .ends(1)
        .complains("there are: s");
    assert!(!home.store("nowhere").exists());
    home.run(&["prune", "s"]).ends(2).complains("--keep-daily");
    for (bad, why) in [
        (["--keep-last", "0"], "keep_last"),
        (["--older-than", "5"], "unit"),
        (["--older-than", "-5d"], ""),
        (["--max-store-size", "10"], "max_store_size"),
        (["--partitioned", "7d,1d"], "ascend"),
    ] {
        let args = [&["prune"][..], &bad, &["s"]].concat();
        home.run(&args).ends(2).complains(why);
    }
    let shown = releases.said(&["prune", "--dry-run", "--keep-last", "2", "s"]);
    assert!(
        shown.contains("stays  v2 (") && shown.contains("): pinned: before the move"),
        "{shown}"
    );
    assert!(
        shown.contains("newest complete version, one of the last 2"),
        "{shown}"
    );
    assert!(shown.contains("5 versions would go, 3 stay"), "{shown}");
    // The same rules in the configuration are applied after each backup.
    let text = "#RETENTION = { partitioned = [\"1d\", \"7d\", \"28d\"], keep_monthly = 12 }";
    releases
        .home
        .configure_source("s", text, "RETENTION = { keep_last = 2 }");
    releases.commit(9);
    releases.has(&[2, 8, 9]);
    // A store that is in use is left alone.
    let lock = fs::File::open(releases.home.store("s").join("lock")).unwrap();
    lock.lock().unwrap();
    releases.home.run(&["delete", "s", "v8"]).ends(4);
    drop(lock);
    releases
        .home
        .configure_source("s", "keep_last = 2", "keep_last = \"2\"");
    let src = releases.src.to_str().unwrap();
    releases.home.run(&["fs", src, "s"]).ends(2);
}

#[test]
fn a_damaged_version_can_be_deleted() {
    let releases = Releases::new("rdiff");
    let dir = releases.home.store("s").join("deltas");
    let state = fs::read_dir(releases.home.store("s").join("state")).unwrap();
    let state =
        fs::read_to_string(state.map(|entry| entry.unwrap().path()).max().unwrap()).unwrap();
    let deltas: Vec<&str> = state
        .lines()
        .filter_map(|line| line.strip_prefix("delta "))
        .collect();
    let name = deltas[3].split(' ').next().unwrap();
    spoil(&dir.join(name));
    // Versions 1 to 4 need it.
    releases.home.run(&["verify", "--deep", "s"]).ends(5);
    for version in ["v3", "v4"] {
        let said = releases.home.run(&["delete", "s", version]).ends(5);
        said.complains("delete it too");
    }
    assert_eq!(releases.listed().len(), 8);
    releases.said(&["delete", "--now", "s", "v1-v4"]);
    releases.has(&[5, 6, 7, 8]);
}

fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn c5_versions_can_be_deleted_with_no_byte_left() {
    if !is_root() {
        return skip("mounting a small file system needs root");
    }
    let home = Home::new();
    let (root, src) = (home.path("root"), home.path("src"));
    let root = root.to_str().unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=12m", "none", root]);
    let result = std::panic::catch_unwind(|| {
        for n in 1..=4 {
            trees::image(&src, 1_500_000, n);
            home.fs(&src, "s").ends(0);
        }
        // Others fill the disk to the last byte.
        let fill = format!("cat /dev/zero > {root}/fill; echo > {root}/more; true");
        tool("bash", &["-c", &fill]);
        trees::image(&src, 1_500_000, 9);
        home.fs(&src, "s").ends(1).complains("The store is full");
        home.run(&["delete", "--now", "s", "v2"]).ends(0);
        home.run(&["delete", "--now", "s", "v1", "v4"]).ends(0);
        home.run(&["verify", "--deep", "s"]).ends(0);
        let restored = home.restored("v3", "s");
        let expected = home.path("expected");
        trees::image(&expected, 1_500_000, 3);
        assert_eq!(fs::read(restored).unwrap(), fs::read(expected).unwrap());
    });
    tool("umount", &[root]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn versions_are_plotted_and_rules_simulated() {
    let releases = Releases::new("rdiff");
    let shown = releases.said(&["plot", "--keep-last", "2", "s"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 9, "{shown}");
    assert!(
        lines[0].contains("v8 #") && lines[0].ends_with("stays"),
        "{shown}"
    );
    assert!(
        lines[7].contains("v1 =") && lines[7].ends_with("goes"),
        "{shown}"
    );
    let (svg, png) = (releases.home.path("s.svg"), releases.home.path("s.png"));
    for picture in [&svg, &png] {
        let rules = ["--partitioned", "1d,7d,28d"];
        releases.said(&[&["plot", "s", "-o", picture.to_str().unwrap()][..], &rules].concat());
    }
    let text = fs::read_to_string(&svg).unwrap();
    assert_eq!(text.matches("<circle").count(), 8);
    assert!(text.contains("28d"));
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let home = &releases.home;
    home.run(&["plot", "s", "-o", "x.gif"])
        .ends(2)
        .complains(".svg or .png");
    let args = [
        "plot",
        "--simulate",
        "200d",
        "--every",
        "1h",
        "--partitioned",
        "1d,7d,28d",
    ];
    assert_eq!(
        releases.said(&args),
        "4800 backups, one every 1h: 6 to 7 versions stay in the second half of the time\n\
         the oldest is at most 45.2 days old, the largest hole between two is 17.2 days\n"
    );
    home.run(&["plot", "--simulate", "1y"]).ends(2);
    home.run(&["plot"]).ends(2).complains("--simulate");
}
