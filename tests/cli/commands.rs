//! Each command, its refusals, and what it restores.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::tools::{Home, assert_same_tree, restored_by_hand, tool};
use crate::trees;

fn versions(home: &Home, dst: &str) -> Vec<serde_json::Value> {
    let text = home.run(&["list", "--json", dst]).ends(0).out;
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["schema"], 1);
    parsed["versions"].as_array().unwrap().clone()
}

/// Six states of a changing tree; every one must come back by us and by hand. Returns the columns `kind` and `stored`.
fn six_releases(configure: impl Fn(&Home)) -> Vec<(String, String)> {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "pkg"])
        .ends(0);
    configure(&home);
    for n in 1..=6 {
        let next = home.path("next");
        trees::release(&next, n);
        // --checksum: same size and time do not mean same content here.
        tool(
            "rsync",
            &[
                "-a",
                "--checksum",
                "--delete",
                &format!("{}/", next.display()),
                &format!("{}/", src.display()),
            ],
        );
        fs::remove_dir_all(&next).unwrap();
        home.run(&["fs", src.to_str().unwrap(), "pkg"]).ends(0);
        tool(
            "cp",
            &[
                "-a",
                src.to_str().unwrap(),
                home.path(&format!("state{n}")).to_str().unwrap(),
            ],
        );
    }
    for n in 1..=6 {
        let state = home.path(&format!("state{n}"));
        assert_same_tree(&state, &home.restored(&format!("v{n}"), "pkg"));
        assert_same_tree(&state, &restored_by_hand(&home, "pkg", n));
    }
    let word = |version: &serde_json::Value, key: &str| version[key].as_str().unwrap().to_owned();
    versions(&home, "pkg")
        .iter()
        .map(|version| (word(version, "kind"), word(version, "stored")))
        .collect()
}

fn columns(kinds: [&str; 6], stored: [&str; 6]) -> Vec<(String, String)> {
    kinds
        .iter()
        .zip(stored)
        .map(|(kind, stored)| ((*kind).to_owned(), stored.to_owned()))
        .collect()
}

#[test]
fn h12_six_releases_come_back_by_us_and_by_hand() {
    let found = six_releases(|_| ());
    let inc = "increment";
    assert_eq!(
        found,
        columns(
            ["full", inc, inc, inc, inc, inc],
            ["delta", "delta", "delta", "delta", "delta", "whole"]
        )
    );
    println!("6/6 versions identical by us, 6/6 by hand");
}

#[test]
fn h12_six_releases_with_count_2() {
    let found = six_releases(|home| {
        home.configure_source(
            "pkg",
            "MAX_INCREMENTAL_COUNT = 10",
            "MAX_INCREMENTAL_COUNT = 2",
        );
    });
    let inc = "increment";
    assert_eq!(
        found,
        columns(
            ["full", inc, inc, "full", inc, inc],
            ["delta", "delta", "both", "delta", "delta", "whole"]
        )
    );
}

#[test]
fn h12_six_releases_with_span_0s() {
    let found = six_releases(|home| {
        home.configure_source(
            "pkg",
            "MAX_INCREMENTAL_SPAN = \"24h\"",
            "MAX_INCREMENTAL_SPAN = \"0s\"",
        );
    });
    assert_eq!(
        found,
        columns(
            ["full"; 6],
            ["delta", "delta", "delta", "both", "both", "whole"]
        )
    );
}

#[test]
fn a2_a3_a4_a5_a6_a8_one_of_everything_comes_back() {
    let home = Home::new();
    let src = home.path("src");
    trees::zoo(&src);
    home.fs(&src, "zoo").ends(0);
    assert_same_tree(&src, &home.restored("latest", "zoo"));
    assert_same_tree(&src, &restored_by_hand(&home, "zoo", 1));
    let restored = home.restored("latest", "zoo");
    let sparse = fs::metadata(restored.join("sparse")).unwrap();
    assert!(
        sparse.len() == 100 << 20 && sparse.blocks() * 512 < 1 << 20,
        "holes are holes again"
    );
    assert_eq!(fs::metadata(restored.join("plain")).unwrap().nlink(), 3);
    // A second scan of the unchanged tree differs in nothing, whichever way it is made.
    home.fs(&src, "zoo")
        .ends(0)
        .out
        .contains("no change")
        .then_some(())
        .unwrap();
    home.configure_source(
        "zoo",
        "#CHANGE_DETECTION = \"stat\"",
        "CHANGE_DETECTION = \"bytes\"",
    );
    home.fs(&src, "zoo")
        .ends(0)
        .out
        .contains("no change")
        .then_some(())
        .unwrap();
    tool("chmod", &["-R", "u+rwX", home.dir.path().to_str().unwrap()]);
}

#[test]
fn a_disk_image_is_one_file_and_comes_back_as_one() {
    let home = Home::new();
    let image = home.path("disk.img");
    for generation in 0..3 {
        trees::image(&image, 8 << 20, generation);
        home.fs(&image, "vm/disk").ends(0);
        fs::copy(&image, home.path(&format!("keep{generation}"))).unwrap();
    }
    for generation in 0..3_u64 {
        let restored = home.restored(&format!("v{}", generation + 1), "vm/disk");
        tool(
            "cmp",
            &[
                restored.to_str().unwrap(),
                home.path(&format!("keep{generation}")).to_str().unwrap(),
            ],
        );
        let by_hand = restored_by_hand(&home, "vm/disk", generation + 1).join("disk.img");
        tool(
            "cmp",
            &[
                by_hand.to_str().unwrap(),
                home.path(&format!("keep{generation}")).to_str().unwrap(),
            ],
        );
    }
    let added: Vec<u64> = versions(&home, "vm/disk")
        .iter()
        .map(|version| version["added_bytes"].as_u64().unwrap())
        .collect();
    assert!(
        added[1] < added[0] / 3 && added[2] < added[0] / 3,
        "cost follows change: {added:?}"
    );
}

#[test]
fn a_moved_and_a_copied_file_cost_next_to_nothing() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    trees::image(&src.join("big"), 4 << 20, 0);
    home.fs(&src, "moves").ends(0);
    fs::rename(src.join("big"), src.join("moved")).unwrap();
    home.fs(&src, "moves").ends(0);
    fs::copy(src.join("moved"), src.join("copy")).unwrap();
    home.fs(&src, "moves").ends(0);
    fs::remove_file(src.join("moved")).unwrap();
    home.fs(&src, "moves").ends(0);
    let added: Vec<u64> = versions(&home, "moves")
        .iter()
        .map(|version| version["added_bytes"].as_u64().unwrap())
        .collect();
    assert!(added[1..].iter().all(|bytes| *bytes < 20_000), "{added:?}");
}

#[test]
fn fs_init_refuses_as_the_ancestor_did() {
    let home = Home::new();
    let init = |src: &str, name: &str| home.run(&["fs-init", "--type", "rdiff", src, name]);
    init("relative/path", "a")
        .ends(1)
        .complains("the source path must be absolute");
    let said = init("/nowhere/yet", "a").ends(0);
    assert!(said.out.contains("btw-backup: created "), "{}", said.out);
    init("/nowhere/yet", "b")
        .ends(1)
        .complains("there is already a directory for this path");
    init("/nowhere/yet/", "b")
        .ends(1)
        .complains("there is already a directory for this path");
    init("/else", "a/b")
        .ends(1)
        .complains("must be a plain name");
    home.run(&["fs-init", "--type", "zip", "/x", "x"]).ends(2);
    home.run(&["fs-init", "/x", "x"]).ends(2);
    let made: Vec<_> = fs::read_dir(home.path("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    let link = made[0].join("src");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/nowhere/yet"));
    fs::create_dir(made[0].with_file_name(format!(
        "z{}",
        made[0].file_name().unwrap().to_str().unwrap()
    )))
    .unwrap();
    init("/nowhere/yet", "b")
        .ends(1)
        .complains("duplicate working directories: ");
    fs::remove_dir(made[0].with_file_name(format!(
        "z{}",
        made[0].file_name().unwrap().to_str().unwrap()
    )))
    .unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/other", &link).unwrap();
    init("/nowhere/yet", "b")
        .ends(1)
        .complains("found a working directory with the wrong path: ");
}

#[test]
fn b6_c10_k5_fs_refuses_what_would_go_wrong() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("a"), "a").unwrap();
    let text = src.to_str().unwrap();
    home.run(&["fs", text, "s"])
        .ends(1)
        .complains("no working directory for: ");
    home.fs(&src, "/absolute")
        .ends(1)
        .complains("the dst argument cannot be an absolute path");
    for dst in ["../s", "a/../s", "", "."] {
        home.fs(&src, dst)
            .ends(1)
            .complains("the dst argument must name a directory below ROOT_PATH");
    }
    home.fs(&home.path("missing"), "s")
        .ends(1)
        .complains("Cannot find the source");
    home.fs(&src, "s").ends(0);
    home.fs(&src, "s/inner")
        .ends(1)
        .complains("would lie in the store");
    home.fs(&home.store("s"), "t")
        .ends(1)
        .complains("lies in the store");
    home.fs(&home.store("s").join("objects"), "t")
        .ends(1)
        .complains("lies in the store");
    home.fs(&home.path("root"), "t")
        .ends(1)
        .complains("is ROOT_PATH itself");
    let other = home.path("other");
    fs::create_dir(&other).unwrap();
    home.fs(&other, "s").ends(1).complains("belongs to");
    fs::create_dir_all(home.store("foreign/data")).unwrap();
    home.fs(&src, "foreign")
        .ends(1)
        .complains("is not a store: it holds 'data'");
    assert_eq!(
        fs::read_dir(home.store("foreign")).unwrap().count(),
        1,
        "nothing was put there"
    );
    fs::remove_file(src.join("a")).unwrap();
    home.fs(&src, "s")
        .ends(1)
        .complains("but the last version was not: is it mounted?");
    home.run(&["fs", "--allow-empty", text, "s"]).ends(0);
    assert_eq!(versions(&home, "s").len(), 2);
    // An unmounted root, an unmounted store, an older copy.
    fs::rename(home.path("root"), home.path("root2")).unwrap();
    home.fs(&src, "s").ends(1).complains("is its disk mounted?");
    assert!(!home.path("root").exists(), "ROOT_PATH is never created");
    fs::rename(home.path("root2"), home.path("root")).unwrap();
    tool(
        "cp",
        &[
            "-a",
            home.store("s").to_str().unwrap(),
            home.path("copy").to_str().unwrap(),
        ],
    );
    fs::write(src.join("b"), "b").unwrap();
    home.fs(&src, "s").ends(0);
    fs::rename(home.store("s"), home.path("newer")).unwrap();
    home.fs(&src, "s")
        .ends(1)
        .complains("is not where it was in the last run");
    assert!(!home.store("s").exists());
    fs::rename(home.path("copy"), home.store("s")).unwrap();
    home.fs(&src, "s")
        .ends(1)
        .complains("is older than in the last run");
    home.run(&["fs", "--adopt", text, "s"]).ends(0);
}

#[test]
fn k3_a_typing_error_in_the_configuration_stops_before_anything_is_touched() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(
        home.path("conf/config.toml"),
        format!(
            "ROOT_PATH = '{}'\nROOT_PAHT = 1\n",
            home.path("root").display()
        ),
    )
    .unwrap();
    home.fs(&src, "s").ends(2).complains("ROOT_PAHT");
    home.configure(&home.path("root"));
    home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "s"])
        .ends(0);
    home.configure_source(
        "s",
        "MAX_INCREMENTAL_SPAN = \"24h\"",
        "MAX_INCREMENTAL_SPAN = \"2M\"",
    );
    home.fs(&src, "s").ends(2).complains("'2M'");
    assert!(!home.store("s").exists());
}

#[test]
fn a_root_inside_the_source_is_left_out_and_this_is_said() {
    let home = Home::new();
    fs::write(home.path("file"), "content").unwrap();
    let said = home.fs(home.dir.path(), "all").ends(0);
    assert!(
        said.out.contains("Left out: root: it holds the backups"),
        "{}",
        said.out
    );
    let restored = home.restored("latest", "all");
    assert!(
        restored.join("file").exists()
            && restored.join("conf").exists()
            && !restored.join("root").exists()
    );
    fs::remove_dir_all(&restored).unwrap();
    home.fs(home.dir.path(), "all").ends(0);
    let said = home.fs(home.dir.path(), "all").ends(0);
    assert!(
        said.out.contains("no change"),
        "a backup must not change its own source: {}",
        said.out
    );
}

#[test]
fn list_shows_versions_for_people_and_programs() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    for n in 0..3 {
        fs::write(src.join("f"), "x".repeat(1000 + n)).unwrap();
        home.fs(&src, "a/b").ends(0);
    }
    let table = home.run(&["list", "a/b"]).ends(0).out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].starts_with("v1 ") && lines[2].starts_with(" v2 ") && lines[3].starts_with(" v3 "),
        "{table}"
    );
    assert!(
        lines[1].contains("+00:00") && lines[1].contains("full") && lines[3].contains("whole"),
        "{table}"
    );
    let found = versions(&home, "a/b");
    let keys: Vec<&String> = found[0].as_object().unwrap().keys().collect();
    let wanted = [
        "added_bytes",
        "archive",
        "kind",
        "members",
        "partial",
        "seq",
        "size_bytes",
        "stored",
        "stored_bytes",
        "stream",
        "timestamp",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(
        (
            &found[2]["size_bytes"],
            &found[2]["members"],
            &found[2]["stream"]
        ),
        (&1002.into(), &2.into(), &"tar".into())
    );
    // The timestamp names exactly that version.
    for version in &found {
        let target = home.path(&format!("t{}", version["seq"]));
        let said = home
            .run(&[
                "restore",
                "--at",
                version["timestamp"].as_str().unwrap(),
                "a/b",
                target.to_str().unwrap(),
            ])
            .ends(0);
        assert!(
            said.out.contains(&format!("v{} (", version["seq"])),
            "{}",
            said.out
        );
        assert_eq!(
            fs::metadata(target.join("f")).unwrap().len(),
            999 + version["seq"].as_u64().unwrap()
        );
    }
    let all: serde_json::Value =
        serde_json::from_str(&home.run(&["list", "--json"]).ends(0).out).unwrap();
    assert_eq!(
        (&all["schema"], &all["stores"][0]["name"]),
        (&1.into(), &"a/b".into())
    );
    assert_eq!(
        all["stores"][0]["path"],
        home.store("a/b").to_str().unwrap()
    );
    assert_eq!(all["stores"][0]["versions"].as_array().unwrap().len(), 3);
    home.run(&["list", "none"])
        .ends(1)
        .complains("there are: a/b");
}

#[test]
fn h9_restore_explains_what_there_is_and_never_overwrites() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    home.fs(&src, "s").ends(0);
    let restore = |at: &str, target: &str| {
        home.run(&[
            "restore",
            "--at",
            at,
            "s",
            home.path(target).to_str().unwrap(),
        ])
    };
    restore("1999-01-01", "t")
        .ends(1)
        .complains("the first is v1 (");
    restore("v9", "t").ends(1).complains("the nearest: v1 (");
    restore("latest~18446744073709551615", "t")
        .ends(1)
        .complains("only 1 versions");
    restore("sometime", "t").ends(2).complains("'sometime'");
    assert!(!home.path("t").exists());
    restore("latest", "src").ends(1).complains("is not empty");
    fs::create_dir(home.path("empty")).unwrap();
    restore("latest", "empty").ends(0);
    assert_same_tree(&src, &home.path("empty"));
    restore("latest", "no/parent").ends(1).complains("/no:");
    std::os::unix::fs::symlink("nowhere", home.path("dangling")).unwrap();
    restore("latest", "dangling").ends(1);
    let left: Vec<_> = fs::read_dir(home.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_str().unwrap().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn f1_h7_damage_is_named_and_nothing_appears() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    for area in ["objects", "catalogs", "manifests"] {
        let file = fs::read_dir(home.store("s").join(area))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, &bad).unwrap();
        home.run(&["restore", "s", home.path("t").to_str().unwrap()])
            .ends(5)
            .complains("is damaged");
        fs::write(&file, &good[..middle]).unwrap();
        home.run(&["restore", "s", home.path("t").to_str().unwrap()])
            .ends(5)
            .complains(file.file_name().unwrap().to_str().unwrap());
        fs::remove_file(&file).unwrap();
        home.run(&["restore", "s", home.path("t").to_str().unwrap()])
            .ends(5)
            .complains("it is missing");
        assert!(!home.path("t").exists());
        fs::write(&file, &good).unwrap();
    }
    assert_same_tree(&src, &home.restored("latest", "s"));
}

#[test]
fn c5_c10_h6_full_and_read_only_disks_are_said_and_harm_nothing() {
    if !Path::new("/usr/bin/unshare").exists() || rustix::process::geteuid().as_raw() != 0 {
        println!("SKIPPED: needs root and unshare");
        assert!(std::env::var_os("CI").is_none(), "CI must run it");
        return;
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    trees::image(&src.join("one"), 3 << 20, 0);
    let script = format!(
        "set -e; cd {dir}; export HOME={dir}/home BTW_BACKUP_CONFIG_DIR={dir}/conf
        mount -t tmpfs -o size=4m none root; mkdir full; mount -t tmpfs -o size=1m none full
        {program} fs --init {dir}/src s
        head -c 3800000 /dev/urandom > src/two
        code=0; {program} fs {dir}/src s 2> said || code=$?
        test $code = 1; grep -q 'The store is full' said
        dd if=/dev/zero of=root/filler bs=4k 2> /dev/null || true
        {program} list s | grep -q '^v1 '; ! {program} list s | grep -q v2
        {program} restore s {dir}/out; rm src/two; diff -r src out
        code=0; {program} restore s {dir}/full 2> said || code=$?
        test $code != 0; {program} restore s {dir}/full/sub 2> said && exit 9
        grep -q 'No space left\\|no storage space' said; test ! -e full/sub; test -z \"$(ls -A full)\"
        mkdir mnt; mount -t tmpfs none mnt; code=0; {program} restore s {dir}/mnt 2> said || code=$?
        test $code = 1; grep -q 'is a mount point' said; test -z \"$(ls -A mnt)\"; test -z \"$(ls -d .*.btw-* 2> /dev/null)\"
        mount --bind root root; mount -o remount,ro,bind root
        {program} list s > /dev/null; {program} restore s {dir}/readonly; diff -r src readonly
        code=0; {program} fs {dir}/src s 2> said || code=$?; test $code = 1; grep -q 'Read-only' said; umount root
        rm root/filler; {program} fs {dir}/src s; test \"$(ls root/s/staging root/s/objects | grep -c tmp-)\" = 0
        echo survived",
        dir = home.dir.path().display(),
        program = crate::tools::PROGRAM
    );
    let output = Command::new("unshare")
        .args(["-m", "bash", "-c", &script])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("survived"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn c11_everything_in_the_store_is_private_whatever_the_umask() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    let program = crate::tools::PROGRAM;
    let command = format!("umask 000; exec {program} fs --init {} s", src.display());
    let status =
        home.command(&[])
            .get_envs()
            .fold(Command::new("/bin/bash"), |mut shell, (key, value)| {
                shell.env(key, value.unwrap());
                shell
            });
    let mut status = status;
    assert!(status.args(["-c", &command]).status().unwrap().success());
    let mut seen = 0;
    let mut pending = vec![home.store("s")];
    while let Some(path) = pending.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            mode,
            if path.is_dir() { 0o700 } else { 0o600 },
            "{}",
            path.display()
        );
        seen += 1;
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    assert!(seen > 10);
}

#[test]
fn the_log_has_a_line_a_run_in_the_ancestors_words() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    home.fs(&src, "s").ends(0);
    home.fs(&src, "s").ends(0);
    home.configure_source(
        "s",
        "MAX_INCREMENTAL_COUNT = 10",
        "MAX_INCREMENTAL_COUNT = 0",
    );
    home.fs(&src, "s").ends(0);
    let log = fs::read_to_string(home.store("s").join("log.txt")).unwrap();
    let lines: Vec<&str> = log
        .lines()
        .map(|line| &line["2026-11-20T10:00:00".len()..])
        .collect();
    assert!(lines[0].starts_with(": v1 ("), "{log}");
    assert_eq!(
        lines[1],
        ": no change in the data to be backed up: skipping creation of new incremental backup"
    );
    assert_eq!(
        lines[2],
        ": no change in the data to be backed up: skipping creation of new full backup"
    );
}

#[test]
fn with_nothing_configured_a_backup_says_where_it_goes() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    let run = |args: &[&str]| {
        home.command(args)
            .env("BTW_BACKUP_CONFIG_DIR", home.path("fresh"))
            .output()
            .unwrap()
    };
    let listed = run(&["list"]);
    assert_eq!(listed.status.code(), Some(1));
    let output = run(&["fs", "--init", src.to_str().unwrap(), "first"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let root = home.path("home/.local/share/btw-backup");
    assert!(
        output.status.success() && said.contains(&format!("backups go to {}", root.display())),
        "{said}"
    );
    assert!(root.join("first/state").is_dir());
    let again =
        String::from_utf8_lossy(&run(&["fs", "--init", src.to_str().unwrap(), "first"]).stdout)
            .into_owned();
    assert!(
        again.contains("no change") && !again.contains("backups go to"),
        "{again}"
    );
}

#[test]
fn k2_k6_usage_silence_and_closed_outputs() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    home.run(&[]).ends(2);
    home.run(&["frobnicate"]).ends(2);
    for command in ["fs", "fs-init", "list", "restore"] {
        assert!(
            home.run(&[command, "-h"]).ends(0).out.contains("Example"),
            "{command}"
        );
    }
    assert!(
        home.run(&["--version"])
            .ends(0)
            .out
            .starts_with("btw-backup ")
    );
    let said = home
        .run(&["-q", "fs", "--init", src.to_str().unwrap(), "s"])
        .ends(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let closed = format!(
        "{} fs {} s >&-; {} list s | true",
        crate::tools::PROGRAM,
        src.display(),
        crate::tools::PROGRAM
    );
    let output = Command::new("/bin/bash")
        .args(["-c", &format!("set -o pipefail; {closed}")])
        .env("BTW_BACKUP_CONFIG_DIR", home.path("conf"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let verbose = format!(
        "{} -v fs {} s 2>&1 >&- | true",
        crate::tools::PROGRAM,
        src.display()
    );
    let output = Command::new("/bin/bash")
        .args(["-c", &format!("set -o pipefail; {verbose}")])
        .env("BTW_BACKUP_CONFIG_DIR", home.path("conf"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    home.run(&["--threads", "1", "fs", src.to_str().unwrap(), "s"])
        .ends(0);
    home.run(&["--threads", "0", "fs", src.to_str().unwrap(), "s"])
        .ends(2);
}

#[test]
fn one_thread_and_many_write_the_same_store() {
    let home = Home::new();
    let src = home.path("src");
    let mut objects = Vec::new();
    for threads in ["1", "2", "5"] {
        for n in 1..3 {
            let _ = fs::remove_dir_all(&src);
            trees::release(&src, n);
            trees::image(&src.join("image"), 9 << 20, n);
            tool(
                "find",
                &[
                    src.to_str().unwrap(),
                    "-exec",
                    "touch",
                    "-d",
                    "2026-01-01",
                    "{}",
                    "+",
                ],
            );
            home.run(&[
                "--threads",
                threads,
                "fs",
                "--init",
                src.to_str().unwrap(),
                threads,
            ])
            .ends(0);
        }
        let areas = ["objects", "deltas", "catalogs", "manifests"];
        let names =
            areas.map(|area| tool("ls", &[home.store(threads).join(area).to_str().unwrap()]));
        objects.push(names.concat());
    }
    assert!(objects[0] == objects[1] && objects[1] == objects[2]);
}

#[test]
fn k5_a_store_below_its_source_is_left_out() {
    let home = Home::new();
    let src = home.path("root/data");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    home.fs(&src, "data/store").ends(0);
    assert!(
        home.fs(&src, "data/store")
            .ends(0)
            .out
            .contains("no change")
    );
    assert_eq!(versions(&home, "data/store")[0]["members"], 2);
}

#[test]
fn a_copy_without_empty_directories_and_locks_is_as_good() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    for name in ["readers", "lock"] {
        fs::remove_file(home.store("s").join(name)).unwrap();
    }
    for name in ["versions", "deltas", "staging"] {
        fs::remove_dir(home.store("s").join(name)).unwrap();
    }
    fs::remove_dir_all(home.store("s").join("cache")).unwrap();
    home.run(&["list", "s"]).ends(0);
    assert_same_tree(&src, &home.restored("latest", "s"));
    trees::release(&src, 2);
    home.fs(&src, "s").ends(0);
    assert_same_tree(&src, &home.restored("latest", "s"));
}

#[test]
fn a1_a2_deep_paths_beyond_path_max_and_pipes_come_back() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, mknodat, openat};
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    let mut dir = openat(CWD, &src, OFlags::RDONLY, Mode::empty()).unwrap();
    mknodat(&dir, "pipe", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    for _ in 0..400 {
        mkdirat(&dir, "n".repeat(250), Mode::RWXU).unwrap();
        dir = openat(&dir, "n".repeat(250), OFlags::RDONLY, Mode::empty()).unwrap();
    }
    home.fs(&src, "deep").ends(0);
    assert!(home.fs(&src, "deep").ends(0).out.contains("no change"));
    let restored = home.restored("latest", "deep");
    let count = |root: &Path| tool("find", &[root.to_str().unwrap(), "-printf", "%y %m %T@\\n"]);
    assert_eq!(count(&src), count(&restored));
    assert_eq!(versions(&home, "deep")[0]["members"], 402);
    tool(
        "rm",
        &["-rf", src.to_str().unwrap(), restored.to_str().unwrap()],
    );
}

#[test]
fn h3_a_linked_target_is_resolved_and_a_missing_file_source_is_no_version() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    fs::create_dir(home.path("real")).unwrap();
    std::os::unix::fs::symlink("real", home.path("link")).unwrap();
    home.run(&["restore", "s", home.path("link").to_str().unwrap()])
        .ends(0);
    assert_same_tree(&src, &home.path("real"));
    home.fs(Path::new("/proc"), "p")
        .ends(1)
        .complains("pseudo file system");
    home.fs(Path::new("/dev/null"), "n")
        .ends(1)
        .complains("neither a directory nor a regular file");
}

#[test]
fn f1_a_backup_onto_a_damaged_store_says_so_and_is_sound_itself() {
    let areas = ["objects", "manifests", "catalogs", "deltas"];
    for (area, newest) in areas
        .into_iter()
        .flat_map(|area| [(area, true), (area, false)])
    {
        let home = Home::new();
        let src = home.path("src");
        for n in 1..=2 {
            let _ = fs::remove_dir_all(&src);
            trees::release(&src, n);
            home.fs(&src, "s").ends(0);
        }
        let mut files: Vec<_> = fs::read_dir(home.store("s").join(area))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        let lost = if newest {
            files.pop().unwrap()
        } else {
            files.remove(0)
        };
        fs::remove_file(&lost).unwrap();
        for n in 3..=4 {
            trees::release(&src, n);
            let name = lost.file_name().unwrap().to_str().unwrap();
            let said = home.fs(&src, "s");
            // Stored anew the lost file may be there again, byte for byte.
            assert!(
                said.code == Some(5) && said.err.contains(name)
                    || said.code == Some(0) && lost.exists(),
                "{area}: {}",
                said.err
            );
            assert_same_tree(&src, &home.restored("latest", "s"));
        }
    }
}

#[test]
fn restores_into_stores_and_changed_kinds_of_source_are_refused() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    assert!(home.fs(&src, "s").ends(0).out.contains("(a new store)"));
    for inside in ["s", "s/objects/x", "s/x/y"] {
        home.run(&["restore", "s", home.store(inside).to_str().unwrap()])
            .ends(1)
            .complains("lies in the store");
    }
    home.run(&[
        "restore",
        "s",
        src.join("pkg0/deep/file12.rs").to_str().unwrap(),
    ])
    .ends(1)
    .complains("is not a directory");
    fs::remove_dir_all(&src).unwrap();
    fs::write(&src, "a file now").unwrap();
    home.fs(&src, "s")
        .ends(1)
        .complains("was a directory in the last version and is a file now");
    home.run(&["fs", "--adopt", src.to_str().unwrap(), "s"])
        .ends(0);
    let full = format!("{} list s > /dev/full", crate::tools::PROGRAM);
    let output = Command::new("/bin/bash")
        .args(["-c", &full])
        .env("BTW_BACKUP_CONFIG_DIR", home.path("conf"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn f1_rot_in_the_store_is_found_by_samples_and_not_built_upon() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    let object = fs::read_dir(home.store("s").join("objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    // The store has one frame: the first sample hits it. Stored anew, it has the same name and heals.
    home.fs(&src, "s")
        .ends(5)
        .complains(object.file_name().unwrap().to_str().unwrap());
    assert_same_tree(&src, &home.restored("latest", "s"));
    home.fs(&src, "s").ends(0);
}
