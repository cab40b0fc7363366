//! Restoring over a tree that is in use.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::tools::{Home, assert_same_tree, is_root, tool};

/// What may stand at a path; the devices only for root.
const KINDS: [&str; 11] = [
    "absent",
    "regular",
    "empty directory",
    "full directory",
    "link to file",
    "link to directory",
    "dangling link",
    "hard link",
    "pipe",
    "character device",
    "block device",
];

/// Makes something of a kind. Links point to canaries.
fn make(kind: &str, path: &Path, canaries: &Path) {
    let text = path.to_str().unwrap();
    match kind {
        "absent" => {}
        "regular" => fs::write(path, format!("content {}", text.len())).unwrap(),
        "empty directory" => fs::create_dir(path).unwrap(),
        "full directory" => {
            fs::create_dir_all(path.join("in/ner")).unwrap();
            fs::write(path.join("in/ner/file"), "inner").unwrap();
        }
        "link to file" => symlink(canaries.join("file"), path).unwrap(),
        "link to directory" => symlink(canaries.join("dir"), path).unwrap(),
        "dangling link" => symlink("nowhere", path).unwrap(),
        "hard link" => fs::hard_link(canaries.join("file"), path).unwrap(),
        "pipe" => drop(tool("mkfifo", &[text])),
        "character device" => drop(tool("mknod", &[text, "c", "1", "3"])),
        "block device" => drop(tool("mknod", &[text, "b", "7", "200"])),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        _ => panic!("{kind}"),
    }
}

fn kinds() -> impl Iterator<Item = &'static str> {
    let may = is_root();
    KINDS
        .into_iter()
        .filter(move |kind| may || !kind.contains("device"))
}

/// A canary's content, metadata and number of names.
fn canaries(home: &Home) -> PathBuf {
    let canaries = home.path("canaries");
    fs::create_dir_all(canaries.join("dir")).unwrap();
    fs::write(canaries.join("file"), "canary").unwrap();
    fs::write(canaries.join("dir/inner"), "canary").unwrap();
    canaries
}

fn told(dir: &Path) -> String {
    let dir = dir.to_str().unwrap();
    // Without times of change and numbers of names: hard links to the canary come and go.
    tool("find", &[dir, "-printf", "%P %y %s %m %U %G %T@\n"])
        + &tool("find", &[dir, "-type", "f", "-exec", "cat", "{}", "+"])
}

#[test]
fn h8_everything_is_replaced_by_everything() {
    let home = Home::new();
    let canaries = canaries(&home);
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("first"), "a file with two names").unwrap();
    let live: Vec<&str> = kinds().chain(["socket"]).collect();
    for wanted in kinds() {
        for there in &live {
            let path = src.join(format!("{wanted} over {there}"));
            if wanted == "hard link" {
                fs::hard_link(src.join("first"), path).unwrap();
            } else {
                make(wanted, &path, &canaries);
            }
        }
    }
    home.fs(&src, "s").ends(0);
    let target = home.path("target");
    fs::create_dir(&target).unwrap();
    for wanted in kinds() {
        for there in &live {
            make(
                there,
                &target.join(format!("{wanted} over {there}")),
                &canaries,
            );
        }
    }
    let before = told(&canaries);
    let untouched = told(&target);
    let args = ["restore", "--in-place", "s", target.to_str().unwrap()];
    // Directories that hold something are not replaced by something else unless that is asked for.
    let refused = home.run(&args).ends(1);
    refused.complains("full directory is a directory and holds");
    assert_eq!(told(&target), untouched);
    let with_delete = [&args[..], &["--delete"]].concat();
    let planned = home
        .run(&[&with_delete[..], &["--dry-run"]].concat())
        .ends(0);
    assert_eq!(told(&target), untouched);
    home.run(&with_delete).ends(0);
    // What is left alone: sockets where the version has nothing.
    fs::remove_file(target.join("absent over socket")).unwrap();
    fs::File::open(&target)
        .unwrap()
        .set_times(
            fs::FileTimes::new().set_modified(fs::metadata(&src).unwrap().modified().unwrap()),
        )
        .unwrap();
    assert_same_tree(&src, &target);
    assert_eq!(told(&canaries), before, "something outside was changed");
    let cases = kinds().count() * live.len();
    println!(
        "H8: {cases}/{cases} pairs of kinds, {} actions",
        planned.out.lines().count()
    );
    // Nothing is left to do, and nothing of ours is left behind.
    assert_eq!(
        home.run(&[&with_delete[..], &["--dry-run"]].concat())
            .ends(0)
            .out,
        ""
    );
    let names = fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(
        names
            .into_iter()
            .all(|name| !name.to_str().unwrap().starts_with(".btw"))
    );
}

/// A tree with everything that is told apart, and its store.
fn tree(home: &Home) -> PathBuf {
    let src = home.path("src");
    fs::create_dir_all(src.join("docs/deep")).unwrap();
    fs::create_dir_all(src.join("cache")).unwrap();
    fs::write(src.join("docs/same"), "same").unwrap();
    fs::write(src.join("docs/other"), "other").unwrap();
    fs::write(src.join("docs/deep/mode"), "mode").unwrap();
    fs::write(src.join("docs/gone"), "gone").unwrap();
    fs::write(src.join("two"), vec![5; 200_000]).unwrap();
    fs::hard_link(src.join("two"), src.join("docs/names")).unwrap();
    home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "s"])
        .ends(0);
    home.configure_source(
        "s",
        "#EXCLUDE = [\"*.tmp\", \"/cache/\"]",
        "EXCLUDE = [\"/cache/*\"]",
    );
    home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
    src
}

fn copy(home: &Home, src: &Path, name: &str) -> PathBuf {
    let copy = home.path(name);
    tool("cp", &["-a", src.to_str().unwrap(), copy.to_str().unwrap()]);
    copy
}

#[test]
fn only_what_differs_is_written() {
    let home = Home::new();
    let src = tree(&home);
    let then = copy(&home, &src, "then");
    let inode = |path: &str| fs::metadata(src.join(path)).unwrap();
    let before: Vec<_> = ["docs/same", "docs/deep/mode", "docs/other", "two"]
        .map(inode)
        .into();
    fs::write(src.join("docs/other"), "OTHER").unwrap();
    fs::set_permissions(
        src.join("docs/deep/mode"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    tool(
        "setfattr",
        &[
            "-n",
            "user.more",
            "-v",
            "x",
            src.join("docs/deep/mode").to_str().unwrap(),
        ],
    );
    fs::remove_file(src.join("docs/gone")).unwrap();
    fs::write(src.join("docs/new"), "new").unwrap();
    fs::write(src.join("cache/hot"), "not backed up").unwrap();
    let target = src.to_str().unwrap();
    let shown = home
        .run(&[
            "restore",
            "--in-place",
            "--delete",
            "--dry-run",
            "s",
            target,
        ])
        .ends(0)
        .out;
    // The directories whose times have changed are adjusted too.
    let expected = "remove docs/new\nadjust cache\nadjust docs\nadjust docs/deep/mode\nwrite  docs/gone\nwrite  docs/other\n";
    assert_eq!(shown, expected);
    let said = home
        .run(&["restore", "--in-place", "--delete", "s", target])
        .ends(0);
    let counts = "2 written, 3 given other attributes, 1 removed";
    assert!(said.out.contains(counts), "{}", said.out);
    assert_eq!(fs::read(src.join("cache/hot")).unwrap(), b"not backed up");
    fs::remove_file(src.join("cache/hot")).unwrap();
    let cache = fs::File::open(src.join("cache")).unwrap();
    let time = fs::metadata(then.join("cache"))
        .unwrap()
        .modified()
        .unwrap();
    cache
        .set_times(fs::FileTimes::new().set_modified(time))
        .unwrap();
    assert_same_tree(&then, &src);
    let after: Vec<_> = ["docs/same", "docs/deep/mode", "docs/other", "two"]
        .map(inode)
        .into();
    let key = |meta: &fs::Metadata| (meta.ino(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(
        key(&before[0]),
        key(&after[0]),
        "what is the same is not touched"
    );
    assert_eq!(
        before[1].ino(),
        after[1].ino(),
        "attributes are set in place"
    );
    assert_ne!(
        before[2].ino(),
        after[2].ino(),
        "content is replaced in one step"
    );
    assert_eq!(key(&before[3]), key(&after[3]));
    // A backup afterwards finds what was backed up before.
    home.run(&["fs", target, "s"]).ends(0);
    let versions = home.run(&["list", "s"]).ends(0).out;
    assert!(!versions.contains("v2"), "{versions}");
}

#[test]
fn hard_links_are_as_in_the_version() {
    let home = Home::new();
    let src = tree(&home);
    let then = copy(&home, &src, "then");
    // The first name gets other content: all names must follow.
    fs::write(src.join("docs/names"), "written through one name").unwrap();
    // Files that were apart are now one.
    fs::remove_file(src.join("docs/same")).unwrap();
    fs::hard_link(src.join("docs/other"), src.join("docs/same")).unwrap();
    let outside = home.path("outside");
    fs::hard_link(src.join("docs/deep/mode"), &outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o604)).unwrap();
    home.run(&["restore", "--in-place", "s", src.to_str().unwrap()])
        .ends(0);
    assert_same_tree(&then, &src);
    // A name elsewhere is not ours to change.
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o604);
    // One name is away, and then is a file of its own.
    fs::remove_file(src.join("two")).unwrap();
    fs::write(src.join("two"), vec![5; 200_000]).unwrap();
    home.run(&["restore", "--in-place", "s", src.to_str().unwrap()])
        .ends(0);
    assert_same_tree(&then, &src);
}

#[test]
fn a_part_is_restored_and_the_rest_left_alone() {
    let home = Home::new();
    let src = tree(&home);
    let then = copy(&home, &src, "then");
    for name in ["docs/other", "docs/deep/mode", "two"] {
        fs::write(src.join(name), "changed").unwrap();
    }
    fs::write(src.join("docs/deep/new"), "new").unwrap();
    fs::write(src.join("docs/new"), "new").unwrap();
    let before = fs::metadata(src.join("docs")).unwrap();
    home.run(&[
        "restore",
        "--in-place",
        "--delete",
        "--path",
        "docs/deep",
        "s",
        src.to_str().unwrap(),
    ])
    .ends(0);
    assert_same_tree(&then.join("docs/deep"), &src.join("docs/deep"));
    assert_eq!(fs::read(src.join("docs/other")).unwrap(), b"changed");
    assert_eq!(fs::read(src.join("docs/new")).unwrap(), b"new");
    assert_eq!(
        fs::metadata(src.join("docs")).unwrap().mtime_nsec(),
        before.mtime_nsec()
    );
    // A hard link whose first name is not asked for becomes a file.
    home.run(&[
        "restore",
        "--in-place",
        "--path",
        "two",
        "s",
        src.to_str().unwrap(),
    ])
    .ends(0);
    assert_eq!(fs::read(src.join("two")).unwrap(), vec![5; 200_000]);
    home.run(&[
        "restore",
        "--in-place",
        "--exclude",
        "/docs/",
        "s",
        src.to_str().unwrap(),
    ])
    .ends(0);
    assert_eq!(fs::read(src.join("docs/other")).unwrap(), b"changed");
}

#[test]
fn h7_damage_leaves_the_tree_as_it_is() {
    let home = Home::new();
    let src = tree(&home);
    for name in ["docs/other", "docs/same", "two"] {
        fs::write(src.join(name), "changed").unwrap();
    }
    let objects = home.store("s").join("objects");
    for object in fs::read_dir(objects).unwrap() {
        let path = object.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let before = told(&src);
    home.run(&["restore", "--in-place", "s", src.to_str().unwrap()])
        .ends(5);
    assert_eq!(told(&src), before);
    home.run(&[
        "restore",
        "--in-place",
        "--partial",
        "s",
        src.to_str().unwrap(),
    ])
    .ends(5)
    .complains("Not restored: ");
}

#[test]
fn h6_a_full_disk_leaves_the_tree_as_it_is() {
    if !is_root() {
        return crate::tools::skip("mounting a small file system needs root");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("large"), vec![1; 3 << 20]).unwrap();
    fs::write(src.join("small"), "small").unwrap();
    home.fs(&src, "s").ends(0);
    let target = home.path("target");
    fs::create_dir(&target).unwrap();
    let text = target.to_str().unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=1m", "none", text]);
    fs::write(target.join("small"), "another").unwrap();
    let before = told(&target);
    let said = home.run(&["restore", "--in-place", "s", text]);
    let after = told(&target);
    tool("umount", &[text]);
    said.ends(1).complains("No space left");
    assert_eq!(before, after);
}

#[test]
fn mount_points_in_the_tree_get_their_part() {
    if !is_root() {
        return crate::tools::skip("mounting needs root");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir_all(src.join("mnt")).unwrap();
    fs::create_dir_all(src.join("usb")).unwrap();
    fs::write(src.join("mnt/file"), "mounted").unwrap();
    fs::write(src.join("file"), "file").unwrap();
    home.fs(&src, "s").ends(0);
    let target = home.path("tar get");
    fs::create_dir_all(target.join("mnt")).unwrap();
    fs::create_dir_all(target.join("usb")).unwrap();
    let mounts = ["mnt", "usb"].map(|name| target.join(name).to_str().unwrap().to_owned());
    for mount in &mounts {
        tool("mount", &["-t", "tmpfs", "-o", "size=1m", "none", mount]);
    }
    fs::write(target.join("mnt/file"), "old").unwrap();
    fs::write(target.join("mnt/more"), "more").unwrap();
    fs::write(target.join("usb/precious"), "not in the backup").unwrap();
    let said = home.run(&[
        "restore",
        "--in-place",
        "--delete",
        "s",
        target.to_str().unwrap(),
    ]);
    let now = told(&target);
    for mount in &mounts {
        tool("umount", &[mount]);
    }
    said.ends(0);
    assert!(now.contains("mounted") && !now.contains("more"), "{now}");
    assert!(now.contains("precious"), "another disk was emptied: {now}");
    assert!(!now.contains(".btw-restore"), "{now}");
}

#[test]
fn single_files_and_targets_that_are_not_there() {
    let home = Home::new();
    let file = home.path("fstab");
    fs::write(&file, "one\n").unwrap();
    home.fs(&file, "s").ends(0);
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "two\n").unwrap();
    home.run(&["restore", "--in-place", "s", file.to_str().unwrap()])
        .ends(0);
    assert_eq!(fs::read(&file).unwrap(), b"one\n");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), time);
    let other = home.path("other");
    fs::write(&other, "other").unwrap();
    home.run(&["restore", "--in-place", "s", other.to_str().unwrap()])
        .ends(1)
        .complains("is not a directory, and not the file of");
    home.run(&[
        "restore",
        "--in-place",
        "--delete",
        "s",
        home.dir.path().to_str().unwrap(),
    ])
    .ends(1)
    .complains("--delete has no meaning");
    let new = home.path("new");
    home.run(&["restore", "--in-place", "s", new.to_str().unwrap()])
        .ends(0);
    assert_eq!(fs::read(&new).unwrap(), b"one\n");
    home.run(&["restore", "--delete", "s", new.to_str().unwrap()])
        .ends(2);
}

#[test]
fn what_a_killed_restore_left_is_removed_and_a_living_one_respected() {
    let home = Home::new();
    let src = tree(&home);
    fs::write(src.join("docs/other"), "changed").unwrap();
    let left = src.join(".btw-restore-0123");
    fs::create_dir(&left).unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(left.join("0"), "staged").unwrap();
    let handle = fs::File::open(&left).unwrap();
    handle.lock().unwrap();
    let args = ["restore", "--in-place", "s", src.to_str().unwrap()];
    home.run(&args)
        .ends(1)
        .complains("another restore is at work");
    assert_eq!(fs::read(src.join("docs/other")).unwrap(), b"changed");
    drop(handle);
    home.run(&args).ends(0);
    assert!(!left.exists());
    assert_eq!(fs::read(src.join("docs/other")).unwrap(), b"other");
}

#[test]
fn h3_planted_links_are_not_followed() {
    let home = Home::new();
    let canaries = canaries(&home);
    let src = tree(&home);
    let then = copy(&home, &src, "then");
    let before = told(&canaries);
    fs::remove_dir_all(src.join("docs/deep")).unwrap();
    symlink(canaries.join("dir"), src.join("docs/deep")).unwrap();
    fs::remove_file(src.join("docs/other")).unwrap();
    symlink(canaries.join("file"), src.join("docs/other")).unwrap();
    fs::remove_file(src.join("docs/gone")).unwrap();
    fs::hard_link(canaries.join("file"), src.join("docs/gone")).unwrap();
    home.run(&["restore", "--in-place", "s", src.to_str().unwrap()])
        .ends(0);
    assert_same_tree(&then, &src);
    assert_eq!(told(&canaries), before);
}

#[test]
fn h8_a_killed_restore_leaves_whole_files_and_is_made_good_by_the_next() {
    let home = Home::new();
    let src = home.path("src");
    crate::trees::release(&src, 1);
    home.fs(&src, "s").ends(0);
    let then = copy(&home, &src, "then");
    let args = [
        "restore",
        "--in-place",
        "--delete",
        "s",
        src.to_str().unwrap(),
    ];
    let mut killed = 0;
    for round in 0..20 {
        crate::trees::release(&src, 2);
        fs::remove_dir_all(src.join("new")).ok();
        fs::create_dir(src.join("new")).unwrap();
        fs::write(src.join("new/file"), "new").unwrap();
        let mut child = home.command(&args).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2 + 2 * round));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        home.run(&args).ends(0);
        assert_same_tree(&then, &src);
    }
    println!("H8: killed in {killed} of 20 restores in place, all made good");
    assert!(killed > 0);
}

#[test]
fn what_delete_must_not_touch_is_known_or_it_is_refused() {
    let home = Home::new();
    let src = tree(&home);
    // What backups leave out stands where the version has a file.
    fs::remove_file(src.join("docs/other")).unwrap();
    fs::create_dir(src.join("docs/other")).unwrap();
    fs::write(src.join("docs/other/precious.iso"), "precious").unwrap();
    home.configure_source("s", "EXCLUDE = [", "EXCLUDE = [\"*.iso\", ");
    let before = told(&src);
    let target = src.to_str().unwrap();
    let args = ["restore", "--in-place", "--delete", "s", target];
    home.run(&args).ends(1).complains("move it away");
    assert_eq!(told(&src), before);
    // A link that somebody else made leads elsewhere.
    if is_root() {
        let link = home.path("link");
        symlink(&src, &link).unwrap();
        tool("chown", &["-h", "65534", link.to_str().unwrap()]);
        let args = ["restore", "--in-place", "s", link.to_str().unwrap()];
        home.run(&args).ends(1).complains("somebody else made");
        assert_eq!(told(&src), before);
        // A directory of root's that somebody named like ours is none of ours.
        let theirs = src.join(".btw-restore-1");
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(theirs.join("secret"), "secret").unwrap();
        fs::remove_dir_all(src.join("docs/other")).unwrap();
        home.run(&["restore", "--in-place", "--delete", "s", target])
            .ends(0);
        assert_eq!(fs::read(theirs.join("secret")).unwrap(), b"secret");
    }
    // Without the source's configuration nobody knows what is left out.
    for entry in fs::read_dir(home.path("conf")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    home.run(&args).ends(1).complains("says what backups of");
    home.run(&["restore", "--in-place", "s", target]).ends(0);
}
