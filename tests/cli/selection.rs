//! What of a source is backed up, and how that is said.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::tools::{Home, PROGRAM, Said, is_root, skip, tool};

const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# more\n";

/// The paths in a restored tree, sorted, without the root.
fn paths(home: &Home, dst: &str) -> Vec<String> {
    let restored = home.restored("latest", dst);
    let mut found: Vec<String> = tool(
        "find",
        &[
            restored.to_str().unwrap(),
            "-mindepth",
            "1",
            "-printf",
            "%P\\n",
        ],
    )
    .lines()
    .map(str::to_owned)
    .collect();
    found.sort();
    found
}

fn write(home: &Home, files: &[&str]) {
    for file in files {
        let path = home.path("src").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, file).unwrap();
    }
}

#[test]
fn b43_of_a_tagged_directory_only_the_tag_is_kept() {
    let home = Home::new();
    write(
        &home,
        &[
            "kept/a",
            "no/NOBACKUP-TAG",
            "no/b",
            "no/deep/c",
            "cache/d",
            "false/CACHEDIR.TAG",
            "false/e",
        ],
    );
    fs::write(home.path("src/cache/CACHEDIR.TAG"), SIGNATURE).unwrap();
    // A tag that is a link to one elsewhere has no signature of its own.
    fs::create_dir(home.path("src/linked")).unwrap();
    std::os::unix::fs::symlink(
        "../cache/CACHEDIR.TAG",
        home.path("src/linked/CACHEDIR.TAG"),
    )
    .unwrap();
    write(&home, &["linked/f"]);
    let said = home.fs(&home.path("src"), "s").ends(0);
    assert!(
        said.out.contains("Not kept: 2 left out as configured"),
        "{}",
        said.out
    );
    let wanted = [
        "cache",
        "cache/CACHEDIR.TAG",
        "false",
        "false/CACHEDIR.TAG",
        "false/e",
        "kept",
        "kept/a",
        "linked",
        "linked/CACHEDIR.TAG",
        "linked/f",
        "no",
        "no/NOBACKUP-TAG",
    ];
    assert_eq!(paths(&home, "s"), wanted);
    // Restored and backed up again it is still left out.
    let again = home.restored("latest", "s");
    fs::write(again.join("no/new"), "new").unwrap();
    home.run(&["fs", "--init", again.to_str().unwrap(), "again"])
        .ends(0);
    assert_eq!(paths(&home, "again"), wanted);
    home.configure_source(
        "s",
        "#EXCLUDE_TAGGED = [\"NOBACKUP-TAG\", \"CACHEDIR.TAG\"]",
        "EXCLUDE_TAGGED = []",
    );
    home.run(&["fs", home.path("src").to_str().unwrap(), "s"])
        .ends(0);
    assert!(paths(&home, "s").contains(&"no/deep/c".to_owned()));
    fs::write(home.path("src/NOBACKUP-TAG"), "").unwrap();
    home.configure_source("s", "EXCLUDE_TAGGED = []", "");
    home.run(&["fs", home.path("src").to_str().unwrap(), "s"])
        .ends(1)
        .complains("because of NOBACKUP-TAG");
}

#[test]
fn patterns_sizes_and_their_reasons() {
    let home = Home::new();
    write(
        &home,
        &[
            "a.tmp",
            "a.txt",
            "cache/x",
            "cache/keep/y",
            "cache/keep/z.tmp",
            "deep/cache/w",
            "big",
        ],
    );
    fs::write(home.path("src/big"), vec![7; 70_000]).unwrap();
    home.run(&[
        "fs-init",
        "--type",
        "rdiff",
        home.path("src").to_str().unwrap(),
        "s",
    ])
    .ends(0);
    home.configure_source(
        "s",
        "#EXCLUDE = [\"*.tmp\", \"/cache/\"]",
        "EXCLUDE = [\"*.tmp\", \"/cache/\"]",
    );
    home.configure_source(
        "s",
        "#INCLUDE = [\"/cache/precious/\"]",
        "INCLUDE = [\"/cache/keep/\"]",
    );
    home.configure_source(
        "s",
        "#EXCLUDE_LARGER_THAN = \"1TiB\"",
        "EXCLUDE_LARGER_THAN = \"64KiB\"",
    );
    let src = home.path("src");
    let preview = home
        .run(&["fs", "--dry-run", src.to_str().unwrap(), "s"])
        .ends(0)
        .out;
    for line in [
        "would leave out: a.tmp: a pattern in EXCLUDE matches",
        "would leave out: big: 70000 bytes are more than EXCLUDE_LARGER_THAN",
        "would leave out: cache/x: a pattern in EXCLUDE matches",
        "would read: cache/keep/z.tmp (16 B): it is new",
        "would read: a.txt (5 B): it is new",
        "would read 45 B of 4 files",
    ] {
        assert!(preview.contains(line), "{line}: {preview}");
    }
    assert!(!home.store("s").exists(), "a dry run writes nothing");
    home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
    let wanted = [
        "a.txt",
        "cache",
        "cache/keep",
        "cache/keep/y",
        "cache/keep/z.tmp",
        "deep",
        "deep/cache",
        "deep/cache/w",
    ];
    assert_eq!(paths(&home, "s"), wanted);
    reasons_to_read(&home);
    for bad in ["[a", src.join("cache").to_str().unwrap()] {
        home.configure_source("s", "EXCLUDE = [", &format!("EXCLUDE = [\"{bad}\", "));
        home.run(&["fs", src.to_str().unwrap(), "s"])
            .ends(2)
            .complains("EXCLUDE: cannot understand the pattern");
        home.configure_source("s", &format!("EXCLUDE = [\"{bad}\", "), "EXCLUDE = [");
    }
}

/// -v says why a file was read and why something was left out.
fn reasons_to_read(home: &Home) {
    let src = home.path("src");
    // Long enough ago not to be doubted: then the reason why a file is read is the change itself.
    for file in ["a.txt", "deep/cache/w"] {
        filetime::set_file_mtime(
            src.join(file),
            filetime::FileTime::from_unix_time(1_600_000_000, 0),
        )
        .unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
    fs::write(src.join("a.txt"), "longer than before").unwrap();
    fs::set_permissions(src.join("deep/cache/w"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = home.run(&["-v", "fs", src.to_str().unwrap(), "s"]).ends(0);
    for reason in [
        "reading a.txt: its size changed",
        "reading deep/cache/w: its change time changed",
        "Left out: a.tmp: a pattern in EXCLUDE matches",
    ] {
        assert!(said.err.contains(reason), "{}", said.err);
    }
    assert!(!said.err.contains("reading cache/keep/y"), "{}", said.err);
    // Further names of a file are not read, neither in truth nor in a dry run.
    fs::hard_link(src.join("a.txt"), src.join("b.txt")).unwrap();
    home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
    let preview = home
        .run(&["fs", "--dry-run", src.to_str().unwrap(), "s"])
        .ends(0)
        .out;
    assert!(
        preview.contains("would read: a.txt") && !preview.contains("would read: b.txt"),
        "{preview}"
    );
}

#[test]
fn b43_who_may_write_to_a_directory_cannot_hide_what_is_in_it() {
    let home = Home::new();
    write(&home, &["shared/a", "shared/b"]);
    let shared = home.path("src/shared");
    std::os::unix::fs::symlink("nowhere", shared.join("NOBACKUP-TAG")).unwrap();
    tool("mkfifo", &[shared.join("CACHEDIR.TAG").to_str().unwrap()]);
    home.fs(&home.path("src"), "s").ends(0);
    assert_eq!(paths(&home, "s").len(), 5);
    if !is_root() {
        return skip("tags of other users: only root can make them");
    }
    fs::remove_file(shared.join("NOBACKUP-TAG")).unwrap();
    fs::write(shared.join("NOBACKUP-TAG"), "").unwrap();
    tool(
        "chown",
        &["65534", shared.join("NOBACKUP-TAG").to_str().unwrap()],
    );
    home.run(&["fs", home.path("src").to_str().unwrap(), "s"])
        .ends(0);
    assert_eq!(
        paths(&home, "s").len(),
        5,
        "a tag of somebody else does not count"
    );
    tool("chown", &["65534", shared.to_str().unwrap()]);
    home.run(&["fs", home.path("src").to_str().unwrap(), "s"])
        .ends(0);
    assert_eq!(
        paths(&home, "s"),
        ["shared", "shared/NOBACKUP-TAG"],
        "the directory's owner decides"
    );
}

/// Runs a script in a mount namespace of its own, with the program as its first argument.
fn in_namespace(home: &Home, script: &str) -> Option<Said> {
    let works = Command::new("unshare")
        .args(["-m", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !is_root() || !works {
        skip("B10 mounts: only root can have a private mount namespace");
        return None;
    }
    let plain = home.command(&[]);
    let mut command = Command::new("unshare");
    command.env_clear().envs(
        plain
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let script = format!("set -e; export PATH=/usr/sbin:/sbin:/usr/bin:/bin; {script}");
    command
        .args([
            "-m",
            "--propagation",
            "private",
            "bash",
            "-c",
            &script,
            PROGRAM,
        ])
        .arg(home.dir.path());
    Some(Said::of(command.output().unwrap()))
}

#[test]
fn b10_mounts_pseudo_file_systems_and_loops() {
    let home = Home::new();
    write(
        &home,
        &[
            "a",
            "mnt/under",
            "proc/under",
            "loop/under",
            "bind/under",
            "other/b",
        ],
    );
    let src = home.path("src");
    home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "s"])
        .ends(0);
    let script = "cd \"$1/src\"; mount -t tmpfs none mnt; echo c > mnt/c; mount -t proc proc proc; mount --bind . loop; mount --bind other bind; ";
    let Some(said) = in_namespace(
        &home,
        &format!(
            "{script} \"$0\" fs \"$1/src\" s; sleep 1; touch mnt/d; rm mnt/d; \"$0\" fs \"$1/src\" one"
        ),
    ) else {
        return;
    };
    let said = said.ends(0);
    for left in [
        "Left out: loop: a directory that it lies in is mounted there again",
        "Left out: proc: the content of a pseudo file system",
    ] {
        assert!(said.out.contains(left), "{}", said.out);
    }
    let wanted = [
        "a", "bind", "bind/b", "mnt", "mnt/c", "other", "other/b", "proc",
    ];
    assert_eq!(paths(&home, "s"), wanted);
    let restored = home.restored("latest", "s");
    assert_eq!(
        restored.join("proc").metadata().unwrap().mtime(),
        0,
        "nothing of the kernel's changing times"
    );
    home.configure_source("s", "#ONE_FILE_SYSTEM = false", "ONE_FILE_SYSTEM = true");
    let said = in_namespace(
        &home,
        &format!("{script} \"$0\" fs \"$1/src\" s; touch mnt/e; \"$0\" fs \"$1/src\" s"),
    )
    .unwrap()
    .ends(0);
    assert!(
        said.out
            .contains("Left out: mnt: the content is on another file system (ONE_FILE_SYSTEM)"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("no change"),
        "what happens on the other file system is no change here: {}",
        said.out
    );
    assert_eq!(
        paths(&home, "s"),
        ["a", "bind", "bind/b", "mnt", "other", "other/b", "proc"]
    );
}

#[test]
fn f10_k4_root_trusts_no_store_or_configuration_that_others_can_write_to() {
    if !is_root() {
        return skip("F10: only root refuses");
    }
    let home = Home::new();
    write(&home, &["a"]);
    let src = home.path("src");
    let fs_run = || home.run(&["fs", src.to_str().unwrap(), "s"]);
    home.fs(&src, "s").ends(0);
    let set =
        |mode: &str, path: &str| drop(tool("chmod", &[mode, home.path(path).to_str().unwrap()]));
    let work = fs::read_dir(home.path("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let work = work
        .strip_prefix(home.dir.path())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    for path in [
        "conf",
        "conf/config.toml",
        "root",
        "root/s",
        &work,
        &format!("{work}/config.toml"),
        &format!("{work}/seen"),
    ] {
        let before = format!("{:o}", home.path(path).metadata().unwrap().mode() & 0o7777);
        for mode in ["g+w", "o+w"] {
            set(mode, path);
            fs_run()
                .ends(1)
                .complains("can be written to by others")
                .complains(path);
            set(&before, path);
        }
    }
    // A sticky directory around is no danger.
    set("1777", "root");
    fs_run().ends(0);
    set("755", "root");
    tool(
        "chown",
        &["-R", "65534:65534", home.path("root/s").to_str().unwrap()],
    );
    fs_run()
        .ends(1)
        .complains("belongs to user 65534")
        .complains("-u 65534");
    home.run(&["restore", "s", home.path("out").to_str().unwrap()])
        .ends(1)
        .complains("belongs to user 65534");
    home.run(&[
        "restore",
        "-u",
        "65534:65534",
        "s",
        home.path("out").to_str().unwrap(),
    ])
    .ends(0);
    // Given once, it is remembered; everything that is made is the user's.
    fs::write(src.join("b"), "b").unwrap();
    home.run(&["fs", "-u", "65534:65534", src.to_str().unwrap(), "s"])
        .ends(0);
    fs::write(src.join("c"), "c").unwrap();
    fs_run().ends(0);
    let others = |not: &str| {
        tool(
            "find",
            &[home.path("root/s").to_str().unwrap(), "!", "-user", not],
        )
    };
    assert_eq!(others("65534"), "");
    home.run(&["fs", "-u", "root", src.to_str().unwrap(), "s"])
        .ends(0);
    assert_eq!(others("root"), "");
    // A slip of the tongue gives away nothing of another source, and what lies in a store counts as the store does.
    write(&home, &["../other/x"]);
    home.run(&[
        "fs",
        "--init",
        "-u",
        "65534:65534",
        home.path("other").to_str().unwrap(),
        "s",
    ])
    .ends(1)
    .complains("belongs to");
    assert_eq!(others("root"), "");
    for inner in ["root/s/state", "root/s/objects", "root/s/lock"] {
        set("o+w", inner);
        fs_run().ends(1).complains("chmod go-w").complains(inner);
        home.run(&["restore", "s", home.path("no").to_str().unwrap()])
            .ends(1)
            .complains(inner);
        set("o-w", inner);
    }
    home.run(&["fs", "-u", "nobody-here", src.to_str().unwrap(), "s"])
        .ends(2)
        .complains("there is no user 'nobody-here'");
}

#[test]
fn b37_a_store_is_given_to_a_user_from_the_beginning_and_brought_over_whole() {
    if !is_root() {
        return skip("-u: only root gives files away");
    }
    let home = Home::new();
    write(&home, &["a", "d/b"]);
    let src = home.path("src");
    home.run(&[
        "fs",
        "--init",
        "-u",
        "1234:4321",
        src.to_str().unwrap(),
        "deep/s",
    ])
    .ends(0);
    let found = tool(
        "find",
        &[
            home.path("root/deep").to_str().unwrap(),
            "!",
            "(",
            "-uid",
            "1234",
            "-gid",
            "4321",
            ")",
        ],
    );
    assert_eq!(found, "");
    let modes = tool(
        "find",
        &[home.path("root/deep").to_str().unwrap(), "-perm", "/077"],
    );
    assert_eq!(modes, "");
    // As if a run that brings a store over had been killed: the store itself is last, so the next run takes it up.
    tool(
        "chown",
        &[
            "-R",
            "0:0",
            home.path("root/deep/s/objects").to_str().unwrap(),
        ],
    );
    tool(
        "chown",
        &["0:0", home.path("root/deep/s").to_str().unwrap()],
    );
    home.run(&["fs", src.to_str().unwrap(), "deep/s"]).ends(0);
    let found = tool(
        "find",
        &[
            home.path("root/deep").to_str().unwrap(),
            "!",
            "(",
            "-uid",
            "1234",
            "-gid",
            "4321",
            ")",
        ],
    );
    assert_eq!(found, "");
}
