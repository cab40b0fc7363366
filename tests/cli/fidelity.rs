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
    assert!(
        said.contains("Not restored: setuid or setgid of setuid"),
        "{said}"
    );
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

/// What of this machine's root file system takes too long, or changes while the test runs.
const NOT_OF_ROOT: [&str; 9] = [
    "/home", "/media", "/mnt", "/root", "/run", "/srv", "/tmp", "/var", "/work",
];
/// Left out besides, but in the full form.
const LARGE: [&str; 3] = ["/opt", "/usr/lib", "/usr/local"];

/// Whether what a line of `rsync -i` names, or the directory that it is or was in, has changed since: the
/// root file system is in use.
fn changed_since(began: std::time::SystemTime, line: &str) -> bool {
    let began = began
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let name = line.split_once(' ').map_or("", |(_, name)| name.trim());
    let name = name.split(" -> ").next().unwrap();
    let path = std::path::Path::new("/").join(name.split(" => ").next().unwrap());
    path.ancestors()
        .filter_map(|path| path.symlink_metadata().ok())
        .take(2)
        .any(|meta| meta.ctime().unsigned_abs() >= began)
}

#[test]
fn a_real_root_file_system_goes_in_and_out() {
    if !is_root() {
        return skip("the root file system: only root can read all of it");
    }
    let home = Home::new();
    let began = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    let mut left_out: Vec<String> = NOT_OF_ROOT.map(str::to_owned).to_vec();
    left_out.push(env!("CARGO_MANIFEST_DIR").to_owned());
    if std::env::var_os("BTW_TEST_FULL").is_none() {
        left_out.extend(LARGE.map(str::to_owned));
    }
    home.run(&["fs-init", "--type", "rdiff", "/", "slash"])
        .ends(0);
    home.configure_source(
        "slash",
        "#EXCLUDE = [\"*.tmp\", \"/cache/\"]",
        &format!("EXCLUDE = {left_out:?}"),
    );
    home.configure_source(
        "slash",
        "#ONE_FILE_SYSTEM = false",
        "ONE_FILE_SYSTEM = true",
    );
    let said = home.run(&["fs", "/", "slash"]).ends(0);
    for line in said
        .out
        .lines()
        .filter_map(|line| line.split_once("Left out: "))
    {
        left_out.push(format!("/{}", line.1.split(": ").next().unwrap()));
    }
    let target = home.restored("latest", "slash");
    let mut filters: Vec<String> = left_out
        .iter()
        .map(|path| format!("--exclude={path}"))
        .collect();
    filters.extend(["-nacAXHix", "--delete", "/"].map(str::to_owned));
    filters.push(format!("{}/", target.display()));
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let differences = tool("rsync", &filters);
    let (live, wrong): (Vec<&str>, Vec<&str>) = differences
        .lines()
        .partition(|line| changed_since(began, line));
    let shown = wrong[..wrong.len().min(20)].join("\n");
    assert!(wrong.is_empty(), "{} differ:\n{shown}", wrong.len());
    assert!(live.len() < 1000, "{} changed meanwhile", live.len());
    let members = said
        .out
        .split(" members, ")
        .next()
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    let size = said
        .out
        .split(" members, ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    println!(
        "root file system: {members} members, {size} in and out, rsync -nacAXHi silent but for {} \
         that changed meanwhile",
        live.len()
    );
    tool("rm", &["-rf", target.to_str().unwrap()]);
}

#[test]
fn h5_a_restore_below_a_setgid_directory_works() {
    let home = Home::new();
    let src = home.path("src");
    crate::trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    let group = home.path("group");
    fs::create_dir(&group).unwrap();
    tool("chmod", &["2775", group.to_str().unwrap()]);
    home.run(&["restore", "s", group.join("out").to_str().unwrap()])
        .ends(0);
    assert_same_tree(&src, &group.join("out"));
}

#[test]
fn h7_a_partial_restore_brings_back_what_is_sound_and_names_the_rest() {
    let home = Home::new();
    let src = home.path("src");
    crate::trees::release(&src, 1);
    for name in ["large1", "large2"] {
        let script = format!("head -c 6M /dev/urandom > {}", src.join(name).display());
        tool("bash", &["-c", &script]);
    }
    home.fs(&src, "s").ends(0);
    let objects = home.store("s").join("objects");
    let largest = fs::read_dir(&objects)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    // Its last frame, which holds the end of the last large file.
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let target = home.path("out");
    home.run(&["restore", "s", target.to_str().unwrap()])
        .ends(5)
        .complains("damaged");
    assert!(!target.exists());
    let said = home
        .run(&["restore", "--partial", "s", target.to_str().unwrap()])
        .ends(5);
    let missing: Vec<&str> = ["large1", "large2"]
        .into_iter()
        .filter(|name| !target.join(name).exists())
        .collect();
    assert_eq!(missing.len(), 1, "{}", said.err);
    assert!(
        said.err
            .contains(&format!("Not restored: {}: ", missing[0])),
        "{}",
        said.err
    );
    fs::remove_file(src.join(missing[0])).unwrap();
    assert_eq!(
        tool(
            "diff",
            &["-r", src.to_str().unwrap(), target.to_str().unwrap()]
        ),
        ""
    );
}

#[test]
fn h7_of_a_damaged_image_nothing_appears() {
    let home = Home::new();
    let image = home.path("image");
    tool(
        "bash",
        &[
            "-c",
            &format!("head -c 3M /dev/urandom > {}", image.display()),
        ],
    );
    home.run(&["fs", "--init", image.to_str().unwrap(), "im"])
        .ends(0);
    let object = fs::read_dir(home.store("im").join("objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&object).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(&object, bytes).unwrap();
    for flags in [&["restore"][..], &["restore", "--partial"]] {
        let target = home.path("out");
        home.run(&[flags, &["im", target.to_str().unwrap()]].concat())
            .ends(5)
            .complains("damaged");
        assert!(!target.exists());
    }
}

#[test]
fn h9_versions_are_found_by_all_forms_of_time() {
    let home = Home::new();
    let src = home.path("src");
    for n in 1..=3 {
        crate::trees::release(&src, n);
        home.fs(&src, "s").ends(0);
    }
    for (at, version) in [
        ("0B", "v3"),
        ("2B", "v1"),
        ("~1", "v2"),
        ("today", "v3"),
        ("now", "v3"),
        ("-0", "v3"),
        ("0s", "v3"),
        ("23:59", "v3"),
    ] {
        let target = home.path("out");
        let said = home
            .run(&["restore", "--at", at, "s", target.to_str().unwrap()])
            .ends(0);
        assert!(
            said.out.contains(&format!("s: {version} ")),
            "{at}: {}",
            said.out
        );
        fs::remove_dir_all(target).unwrap();
    }
    for early in ["-1", "yesterday", "1d", "2001/02/03"] {
        home.run(&["restore", "--at", early, "s", "out"])
            .ends(1)
            .complains("the first is v1");
    }
    home.run(&["restore", "--at", "3M", "s", "out"])
        .ends(2)
        .complains("'3M'");
    let mut command = home.command(&["restore", "--at", "2026-10-25 02:30", "s", "out"]);
    let said = crate::tools::Said::of(command.env("TZ", "Europe/Berlin").output().unwrap());
    assert!(said.err.contains("existed twice"), "{}", said.err);
}
