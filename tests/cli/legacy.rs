//! What the ancestors left: configuration and backups.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::tools::{Home, assert_same_tree, tool};
use crate::trees;

fn stamp(n: u64) -> String {
    format!("2023-05-0{n}T03:00:00")
}

fn seconds(n: u64) -> String {
    tool("date", &["-ud", &stamp(n), "+%s"]).trim().to_owned()
}

/// Six releases, three of them as the Python tool kept them by type tar or rdiff, and what they were.
fn old_backups(home: &Home, store_type: &str) {
    let old = home.path("root/old");
    fs::create_dir_all(&old).unwrap();
    let spool = home.path("spool");
    fs::create_dir(&spool).unwrap();
    let full = old.join(stamp(1));
    for n in 1..=3 {
        let tree = home.path(&format!("state{n}"));
        trees::release(&tree, n);
        // Links whose first name in the archive is not the first in path order, and names that tar must stretch.
        fs::create_dir_all(tree.join("links")).unwrap();
        fs::write(tree.join("links/zz"), format!("linked {n}")).unwrap();
        fs::hard_link(tree.join("links/zz"), tree.join("links/aa")).unwrap();
        fs::hard_link(tree.join("links/zz"), tree.join("0-first")).unwrap();
        fs::write(tree.join("n".repeat(200)), "long").unwrap();
        symlink("t".repeat(300), tree.join("long-link")).unwrap();
        // GNU tar's own format has times in whole seconds.
        let time = format!("@{}", 1_600_000_000 + n);
        tool(
            "find",
            &[
                tree.to_str().unwrap(),
                "-depth",
                "-exec",
                "touch",
                "-h",
                "-d",
                &time,
                "{}",
                "+",
            ],
        );
        let tarball = spool.join("backup.tar");
        let (from, to) = (tree.to_str().unwrap(), tarball.to_str().unwrap());
        tool(
            "tar",
            &[
                "-C",
                from,
                "--exclude-tag-under=NOBACKUP-TAG",
                "-cpf",
                to,
                ".",
            ],
        );
        if store_type == "tar" {
            let kept = old.join(format!("{}.tbz", stamp(n)));
            tool(
                "bash",
                &["-c", &format!("bzip2 -c {to} > {}", kept.display())],
            );
        } else {
            fs::create_dir_all(&full).unwrap();
            // rdiff-backup does not look at files whose time in seconds is the same.
            filetime::set_file_mtime(
                &tarball,
                filetime::FileTime::from_unix_time(i64::try_from(n).unwrap(), 0),
            )
            .unwrap();
            let status = Command::new("rdiff-backup")
                .args(["--current-time", &seconds(n), "backup"])
                .args([&spool, &full])
                .output()
                .unwrap();
            assert!(
                status.status.success(),
                "{}",
                String::from_utf8_lossy(&status.stderr)
            );
        }
    }
}

fn imported(home: &Home) {
    home.run(&["list", "old"])
        .ends(1)
        .complains("btw-backup import old DST");
    trees::release(&home.path("src"), 4);
    home.run(&["fs", "--init", home.path("src").to_str().unwrap(), "old"])
        .ends(1)
        .complains("btw-backup import old DST");
    home.run(&["import", "old", "new"]).ends(0);
    for n in 1..=3 {
        let at = format!("{}Z", stamp(n));
        assert_same_tree(&home.path(&format!("state{n}")), &home.restored(&at, "new"));
    }
    let listed = home.run(&["list", "new"]).ends(0).out;
    assert!(
        listed.contains("2023-05-01 03:00:00") && listed.lines().count() == 4,
        "{listed}"
    );
    fs::write(home.path("root/old/2023-05-01T03:00.tbz"), "no backup").unwrap();
    home.run(&["import", "old", "new"])
        .ends(3)
        .complains("not taken over")
        .complains("2023-05-01T03:00.tbz");
    fs::remove_file(home.path("root/old/2023-05-01T03:00.tbz")).unwrap();
    // Again: nothing is left to do. A source goes on with it; then it is no place for imports any more.
    home.run(&["import", "old", "new/inner"])
        .ends(1)
        .complains("would lie in the store");
    let again = home.run(&["import", "old", "new"]).ends(0);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    assert_eq!(home.run(&["list", "new"]).out, listed);
    home.run(&["import", "--type", "tar", "old", "archives"])
        .ends(0);
    assert_same_tree(&home.path("state2"), &home.restored("v2", "archives"));
    home.run(&["fs", home.path("src").to_str().unwrap(), "new"])
        .ends(0);
    home.run(&["import", "old", "new"])
        .ends(1)
        .complains("has versions of its own");
    assert_same_tree(&home.path("state2"), &home.restored("v2", "new"));
    assert_same_tree(&home.path("src"), &home.restored("latest", "new"));
    let left = tool(
        "find",
        &[home.path("root").to_str().unwrap(), "-name", ".btw-*"],
    );
    assert_eq!(left, "");
}

#[test]
fn b51_tarballs_of_the_python_tool_are_imported() {
    let home = Home::new();
    old_backups(&home, "tar");
    imported(&home);
}

#[test]
fn b51_rdiff_backup_directories_of_the_python_tool_are_imported() {
    let home = Home::new();
    old_backups(&home, "rdiff");
    imported(&home);
}

#[test]
fn a_repository_of_rdiff_backup_is_imported() {
    let home = Home::new();
    let old = home.path("root/old");
    for n in 1..=3 {
        let tree = home.path(&format!("state{n}"));
        trees::release(&tree, n);
        let live = home.path("live");
        tool(
            "rsync",
            &[
                "-a",
                "--delete",
                "--checksum",
                &format!("{}/", tree.display()),
                live.to_str().unwrap(),
            ],
        );
        let output = Command::new("rdiff-backup")
            .args(["--current-time", &seconds(n), "backup"])
            .args([&live, &old])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    home.run(&["import", old.to_str().unwrap(), "new"]).ends(0);
    for n in 1..=3 {
        let kept = home.restored(&format!("v{n}"), "new");
        // rdiff-backup keeps times in whole seconds only, and does not see changes that leave size and second alone.
        let said = tool(
            "rsync",
            &[
                "-nrltpoDi",
                "--delete",
                "--modify-window=1",
                &format!("{}/", home.path(&format!("state{n}")).display()),
                &format!("{}/", kept.display()),
            ],
        );
        assert_eq!(said, "");
    }
}

#[test]
fn k4_the_python_tools_configuration_and_directories_go_on() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    fs::remove_file(home.path("conf/config.toml")).unwrap();
    let root = home.path("root");
    let general = format!(
        "ROOT_PATH = \"{}\"\nS3CMD_CONFIG = \"/nonexistent/.s3cfg\"\nS3_URI_PREFIX = 's3://foo/backups'\n",
        root.display()
    );
    fs::write(home.path("conf/config.py"), &general).unwrap();
    // A directory as that tool made it, found by its hash.
    home.run(&["fs-init", "--type", "tar", src.to_str().unwrap(), "home"])
        .ends(0);
    let dir = fs::read_dir(home.path("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    fs::remove_file(dir.join("config.toml")).unwrap();
    fs::remove_dir(dir.join("seen")).unwrap();
    fs::write(
        dir.join("config.py"),
        "TYPE=\"rdiff\"\nMAX_INCREMENTAL_COUNT=10\nMAX_INCREMENTAL_SPAN=\"24h\"\n",
    )
    .unwrap();
    // There is no such configuration of s3cmd: the backup is made all the same.
    home.run(&["fs", src.to_str().unwrap(), "home"])
        .ends(3)
        .complains("home was not copied to s3: Cannot read /nonexistent/.s3cfg");
    assert_same_tree(&src, &home.restored("latest", "home"));
    fs::write(dir.join("config.py"), "TYPE=\"rdiff\"\nimport os\n").unwrap();
    home.run(&["fs", src.to_str().unwrap(), "home"])
        .ends(2)
        .complains("line 2: 'import os'");
    fs::write(home.path("conf/config.py"), general + "ROOT = exit()\n").unwrap();
    home.run(&["list"])
        .ends(2)
        .complains("config.py")
        .complains("line 4");
}
