//! Every kind of thing that a file system can hold goes in and comes out, by us and by GNU tar.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::tools::{Home, assert_same_tree, is_root, restored_by_hand, skip, tool};

/// One line for each member, by a program that knows nothing of ours.
fn describe(tree: &Path) -> Vec<String> {
    let said = tool(
        "python3",
        &["tests/everything.py", "describe", tree.to_str().unwrap()],
    );
    said.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(wanted: &[String], found: &[String]) {
    for (one, other) in wanted.iter().zip(found) {
        assert_eq!(one, other);
    }
    assert_eq!(wanted.len(), found.len());
}

#[test]
fn a1_a2_a3_a4_a5_a6_a7_a8_a10_everything_comes_back_by_us_and_by_tar() {
    if !is_root() {
        return skip("A1-A10 everything: only root can make devices and other people's files");
    }
    for store_type in ["rdiff", "tar"] {
        let home = Home::new();
        let src = home.path("src");
        fs::create_dir(&src).unwrap();
        let made = tool(
            "python3",
            &["tests/everything.py", "make", src.to_str().unwrap()],
        );
        home.run(&[
            "fs-init",
            "--type",
            store_type,
            src.to_str().unwrap(),
            "all",
        ])
        .ends(0);
        let first = home.run(&["fs", src.to_str().unwrap(), "all"]).ends(0);
        assert!(first.out.contains("Not kept: 1 sockets"), "{}", first.out);
        let again = home.run(&["fs", src.to_str().unwrap(), "all"]).ends(0);
        assert!(again.out.contains("no change"), "{}", again.out);
        assert_same(&describe(&src), &describe(&home.restored("latest", "all")));
        // GNU tar itself cannot go beyond PATH_MAX.
        tool("rm", &["-rf", src.join("long-path").to_str().unwrap()]);
        home.run(&["fs", src.to_str().unwrap(), "all"]).ends(0);
        let wanted = describe(&src);
        assert_same(&wanted, &describe(&restored_by_hand(&home, "all", 2)));
        println!(
            "A1-A8, A10, TYPE {store_type}: {} members the same by us and by GNU tar; {}",
            wanted.len(),
            made.trim()
        );
    }
}

#[test]
fn a9_b11_depth_and_width_with_few_descriptors() {
    let home = Home::new();
    let (deep, wide) = (home.path("deep"), home.path("wide"));
    let count = if std::env::var_os("BTW_TEST_FULL").is_some() {
        "1000000"
    } else {
        "50000"
    };
    for (kind, dir, number) in [("deep", &deep, "5000"), ("wide", &wide, count)] {
        fs::create_dir(dir).unwrap();
        tool(
            "python3",
            &["tests/everything.py", kind, dir.to_str().unwrap(), number],
        );
        // 64 descriptors, 1 GiB of data, 2 MiB of stack for the main thread.
        let limited = |args: &[&str]| {
            let limits = ["--nofile=64", "--data=1073741824", "--stack=2097152"];
            let mut command = home.command(args);
            let program = command.get_program().to_owned();
            let mut limited = std::process::Command::new("prlimit");
            limited.args(limits).arg(program).args(command.get_args());
            limited.env_clear().envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            );
            command = limited;
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{args:?}: {said}");
        };
        let target = home.path(&format!("{kind}-restored"));
        limited(&["fs", "--init", dir.to_str().unwrap(), kind]);
        limited(&["fs", dir.to_str().unwrap(), kind]);
        limited(&["restore", kind, target.to_str().unwrap()]);
        assert_same(&describe(dir), &describe(&target));
        // The standard library's removal gives up at this depth.
        tool(
            "rm",
            &["-rf", dir.to_str().unwrap(), target.to_str().unwrap()],
        );
        println!("A9 {kind}: {number} levels or files with 64 descriptors and 1 GiB");
    }
}

#[test]
fn a10_inode_flags_are_counted() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("fixed"), "fixed").unwrap();
    let fixed = src.join("fixed");
    let set = std::process::Command::new("chattr")
        .arg("+i")
        .arg(&fixed)
        .output();
    if !set.is_ok_and(|output| output.status.success()) {
        return skip("A10 inode flags: chattr +i does not work here");
    }
    let said = home.fs(&src, "s");
    tool("chattr", &["-i", fixed.to_str().unwrap()]);
    let said = said.ends(0);
    assert!(
        said.out.contains("Not kept: 1 members' inode flags"),
        "{}",
        said.out
    );
}

#[test]
fn block_devices_are_read_as_images() {
    let home = Home::new();
    let image = home.path("image");
    crate::trees::image(&image, 8 << 20, 1);
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(8 << 20).unwrap();
    let attached = std::process::Command::new("losetup")
        .args(["-f", "--show"])
        .arg(&image)
        .output();
    let Some(device) = attached.ok().filter(|output| output.status.success()) else {
        return skip("block devices: no loop device can be had here");
    };
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    let detach = Detach(device.clone());
    let name = Path::new(&device)
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    home.run(&["fs", "--init", &device, "dev"]).ends(0);
    let again = home.run(&["fs", &device, "dev"]).ends(0);
    assert!(again.out.contains("no change"), "{}", again.out);
    let target = home.restored("latest", "dev");
    assert_eq!(fs::read(&target).unwrap(), fs::read(&image).unwrap());
    // In a tree a device is a node, unless it is asked for.
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    tool("cp", &["-a", &device, src.to_str().unwrap()]);
    home.fs(&src, "tree").ends(0);
    let node = home.restored("latest", "tree").join(&name);
    assert_eq!(
        node.symlink_metadata().unwrap().mode() & 0o170_000,
        0o060_000
    );
    home.run(&[
        "fs",
        "--read-special",
        "/loop*",
        src.to_str().unwrap(),
        "tree",
    ])
    .ends(0);
    let read = home.restored("latest", "tree").join(&name);
    assert_eq!(fs::read(read).unwrap(), fs::read(&image).unwrap());
    // What is written to the device is seen, though no time of it changes.
    tool(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={device}"),
            "bs=4096",
            "count=1",
            "conv=fsync",
            "status=none",
        ],
    );
    home.run(&["fs", &device, "dev"]).ends(0);
    assert_eq!(
        fs::read(home.restored("latest", "dev")).unwrap(),
        fs::read(&device).unwrap()
    );
    drop(detach);
}

struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["-d", &self.0])
            .status();
    }
}

#[test]
fn an_ordinary_user_restores_what_root_backed_up() {
    if !is_root() {
        return skip("H5 as an ordinary user: root must make the backup");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir_all(src.join("dir")).unwrap();
    fs::write(src.join("dir/mine"), "mine").unwrap();
    fs::write(src.join("setuid"), "setuid").unwrap();
    tool("chmod", &["4755", src.join("setuid").to_str().unwrap()]);
    tool(
        "mknod",
        &[src.join("null").to_str().unwrap(), "c", "1", "3"],
    );
    tool(
        "ln",
        &[
            src.join("null").to_str().unwrap(),
            src.join("null-too").to_str().unwrap(),
        ],
    );
    // A link into a directory that only root can enter once it has its mode.
    tool(
        "ln",
        &[
            src.join("dir/mine").to_str().unwrap(),
            src.join("z-link").to_str().unwrap(),
        ],
    );
    tool("chmod", &["0400", src.join("dir").to_str().unwrap()]);
    home.run(&[
        "fs",
        "--init",
        "-u",
        "65534:65534",
        src.to_str().unwrap(),
        "s",
    ])
    .ends(0);
    for path in ["", "root", "conf"] {
        tool("chmod", &["755", home.path(path).to_str().unwrap()]);
    }
    tool(
        "chmod",
        &["644", home.path("conf/config.toml").to_str().unwrap()],
    );
    tool(
        "install",
        &[
            "-d",
            "-o",
            "65534",
            "-g",
            "65534",
            home.path("theirs").to_str().unwrap(),
        ],
    );
    let target = home.path("theirs/out");
    let mut command = std::process::Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            crate::tools::PROGRAM,
            "restore",
            "s",
        ])
        .arg(&target);
    command
        .env("BTW_BACKUP_CONFIG_DIR", home.path("conf"))
        .env("HOME", "/nonexistent");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("Not restored: owner of") && said.contains("Not restored: device of null:"),
        "{said}"
    );
    assert!(said.contains("Not restored: link of null-too"), "{said}");
    let mode = |name: &str| target.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("setuid"), mode("dir")),
        (0o755, 0o400),
        "no setuid for the wrong owner"
    );
    assert_eq!(fs::read(target.join("z-link")).unwrap(), b"mine");
    assert_eq!(target.join("z-link").metadata().unwrap().nlink(), 2);
    assert_same_tree(&src, &home.restored("latest", "s"));
}
