//! Stores and archives that try to escape from the target of a restore, restored as root in a private mount namespace
//! in which everything but the test's own directory is read-only. Canaries lie where they want to get.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use btw_backup::catalog::Kind::{self, CharDevice, Directory, Fifo, HardLink, Regular, Symlink};
use btw_backup::catalog::{Content, Member, Run};
use btw_backup::digest::Digest;
use btw_backup::store::catalogs::{CatalogReader, CatalogWriter};
use btw_backup::store::disk::{Disk, LocalDisk};
use btw_backup::store::{Store, commit};

use crate::tools::{Home, PROGRAM, is_root, skip, tool};

/// The world around the target, and what it is to remain.
struct Sandbox {
    home: Home,
    canary: PathBuf,
    before: String,
}

impl Sandbox {
    /// `None` where no private namespace can be had.
    fn new() -> Option<Self> {
        let works = Command::new("unshare")
            .args(["-m", "true"])
            .status()
            .is_ok_and(|status| status.success());
        if !is_root() || !works {
            skip("H1 hostile corpus: only root can have a private mount namespace");
            return None;
        }
        let home = Home::new();
        let canary = home.path("canary");
        fs::create_dir_all(canary.join("dir")).unwrap();
        fs::write(canary.join("file"), "sings").unwrap();
        symlink("file", canary.join("link")).unwrap();
        fs::create_dir_all(home.path("out")).unwrap();
        let mut sandbox = Self {
            home,
            canary,
            before: String::new(),
        };
        sandbox.before = sandbox.look();
        Some(sandbox)
    }

    /// Everything about the canaries, and the names beside them.
    fn look(&self) -> String {
        let tree = tool(
            "python3",
            &[
                "tests/everything.py",
                "describe",
                self.canary.to_str().unwrap(),
            ],
        );
        let mut names: Vec<_> = fs::read_dir(self.home.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        format!("{tree}{names:?}")
    }

    /// Runs the program where it can change nothing but this test's directory; at most 20 s.
    fn run(&self, args: &[&str]) -> Output {
        let own = self.home.dir.path();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro / && cd \"$0\" && exec timeout 20 \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "bash", "-c", script])
            .arg(own)
            .arg(PROGRAM)
            .args(args);
        let plain = self.home.command(args);
        command.env_clear().envs(
            plain
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        command.output().unwrap()
    }

    /// Runs a command on something hostile: it ends properly, and nothing outside has changed. Returns whether it worked.
    #[track_caller]
    fn survives(&self, what: &str, args: &[&str]) -> bool {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(
            matches!(code, Some(0 | 1 | 2 | 3 | 5)),
            "{what}: {code:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert_eq!(self.look(), self.before, "{what}: escaped; {said}");
        matches!(code, Some(0 | 3))
    }
}

#[test]
fn h1_h2_hostile_archives_escape_nowhere() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let old = sandbox.home.path("root/old");
    fs::create_dir(&old).unwrap();
    let count: usize = tool(
        "python3",
        &[
            "tests/hostile.py",
            old.to_str().unwrap(),
            sandbox.canary.to_str().unwrap(),
        ],
    )
    .trim()
    .parse()
    .unwrap();
    let mut names: Vec<String> = fs::read_dir(&old)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), count);
    let mut accepted = Vec::new();
    for name in &names {
        let store = format!("new/{name}");
        if !sandbox.survives(name, &["import", &format!("old/{name}"), &store]) {
            continue;
        }
        accepted.push(&name[..]);
        let target = sandbox.home.path("out").join(name);
        sandbox.survives(name, &["restore", &store, target.to_str().unwrap()]);
        // What was accepted lies within the target, and no link in it was followed when it was made.
        let found = tool(
            "find",
            &["-P", target.to_str().unwrap(), "-name", "escaped*"],
        );
        println!(
            "  {name}: accepted{}",
            if found.is_empty() {
                ""
            } else {
                ", all of it inside"
            }
        );
    }
    for harmless in [
        "pax-and-long-differ",
        "up",
        "absolute",
        "file-through-link",
        "hard-outside",
        "dir-with-data",
    ] {
        assert!(!accepted.contains(&harmless), "{harmless} was accepted");
    }
    println!(
        "H1 H2: {count} hostile archives imported as root, {} accepted as harmless: 0 escapes",
        accepted.len()
    );
}

type Forge = Box<dyn Fn(&mut Vec<Member>)>;

fn member(path: &[u8], kind: Kind) -> Member {
    Member {
        path: path.to_vec(),
        kind,
        mode: 0o6777,
        uid: 0,
        gid: 0,
        user: Vec::new(),
        group: Vec::new(),
        mtime: (5, 5),
        link: Vec::new(),
        device: (1, 3),
        xattrs: Vec::new(),
        content: Content::default(),
        header_bytes: 512,
        torn: false,
    }
}

fn link(path: &[u8], kind: Kind, to: &[u8]) -> Member {
    Member {
        link: to.to_vec(),
        ..member(path, kind)
    }
}

/// Catalogs that no backup would write.
fn forgeries(canary: &Path) -> Vec<(String, Forge)> {
    let canary = canary.as_os_str().as_bytes();
    let mut all: Vec<(String, Forge)> = Vec::new();
    let lists = [
        odd_names(canary),
        through_links(canary),
        hard_links(canary),
        odd_kinds(canary),
        odd_values(),
    ];
    for (name, members) in lists.into_iter().flatten() {
        all.push((
            name,
            Box::new(move |old: &mut Vec<Member>| old.extend(members.clone())),
        ));
    }
    let orders: [(&str, Forge); 3] = [
        (
            "out of order",
            Box::new(|old: &mut Vec<Member>| old.reverse()),
        ),
        (
            "children before their directory",
            Box::new(|old: &mut Vec<Member>| old.rotate_left(1)),
        ),
        ("no members", Box::new(Vec::clear)),
    ];
    all.extend(orders.map(|(name, change)| (name.to_owned(), change)));
    all
}

type Forged = Vec<(String, Vec<Member>)>;

fn named(forged: impl IntoIterator<Item = (&'static str, Vec<Member>)>) -> Forged {
    forged
        .into_iter()
        .map(|(name, members)| (name.to_owned(), members))
        .collect()
}

fn odd_names(canary: &[u8]) -> Forged {
    let below = [canary, b"/escaped"].concat();
    let up = [&b"../../../../../../../../.."[..], &below].concat();
    let mut forged = Forged::new();
    for (name, path) in [
        ("up", &b"../escaped"[..]),
        ("up far", &up),
        ("absolute", &below),
        ("up inside", b"a/../../escaped"),
        ("dot", b"./escaped"),
        ("only up", b".."),
        ("only dot", b"."),
        ("empty part", b"a//escaped"),
        ("slash behind", b"escaped/"),
        ("nul", b"a\0b"),
        ("no parent", b"x/y/z"),
    ] {
        for (kind, label) in [
            (Regular, "file"),
            (Directory, "directory"),
            (Symlink, "link"),
            (Fifo, "pipe"),
        ] {
            if kind == Regular || name.starts_with("up") || name == "absolute" {
                forged.push((format!("{label} {name}"), vec![link(path, kind, b"x")]));
            }
        }
    }
    forged
}

fn through_links(canary: &[u8]) -> Forged {
    let out = link(b"l", Symlink, canary);
    let to_file = link(b"l", Symlink, &[canary, b"/file"].concat());
    named([
        (
            "file through link",
            vec![out.clone(), member(b"l/escaped", Regular)],
        ),
        (
            "directory through link",
            vec![out.clone(), member(b"l/escaped", Directory)],
        ),
        (
            "link through link",
            vec![out.clone(), link(b"l/escaped", Symlink, b"x")],
        ),
        (
            "device through link",
            vec![out.clone(), member(b"l/escaped", CharDevice)],
        ),
        (
            "hard link through link",
            vec![out.clone(), link(b"m", HardLink, b"l/file")],
        ),
        (
            "hard link into link",
            vec![out.clone(), link(b"l/escaped", HardLink, b"file")],
        ),
        (
            "directory over link",
            vec![
                out.clone(),
                member(b"l", Directory),
                member(b"l/escaped", Regular),
            ],
        ),
        ("file over link", vec![to_file, member(b"l", Regular)]),
        (
            "link over directory",
            vec![
                member(b"d", Directory),
                link(b"d", Symlink, canary),
                member(b"d/escaped", Regular),
            ],
        ),
    ])
}

fn hard_links(canary: &[u8]) -> Forged {
    let file = [canary, b"/file"].concat();
    named([
        (
            "hard link up",
            vec![link(b"h", HardLink, b"../../canary/file")],
        ),
        ("hard link absolute", vec![link(b"h", HardLink, &file)]),
        (
            "hard link to link",
            vec![
                link(b"l", Symlink, &file),
                link(b"m", HardLink, b"l"),
                member(b"m", Regular),
            ],
        ),
        (
            "hard link to directory",
            vec![member(b"d", Directory), link(b"h", HardLink, b"d")],
        ),
        ("hard link to itself", vec![link(b"h", HardLink, b"h")]),
        ("hard link to nothing", vec![link(b"h", HardLink, b"")]),
    ])
}

fn odd_kinds(canary: &[u8]) -> Forged {
    named([
        (
            "two of one name",
            vec![member(b"x", Regular), member(b"x", Regular)],
        ),
        (
            "device, then file",
            vec![member(b"x", CharDevice), member(b"x", Regular)],
        ),
        (
            "pipe, then file",
            vec![member(b"x", Fifo), member(b"x", Regular)],
        ),
        (
            "root is a link",
            vec![link(b"", Symlink, canary), member(b"escaped", Regular)],
        ),
        ("root is a file", vec![member(b"", Regular)]),
        (
            "root twice",
            vec![Member {
                mode: 0o777,
                uid: 77,
                ..member(b"", Directory)
            }],
        ),
    ])
}

fn odd_values() -> Forged {
    let plain = member(b"m", Regular);
    let far = Run {
        first: 1 << 40,
        digests: vec![Digest::of(b"")],
    };
    let nonsense = vec![
        (b"system.posix_acl_access".to_vec(), vec![7; 9]),
        (vec![0, 1], vec![]),
    ];
    named([
        ("name of 300 bytes", vec![member(&[b'n'; 300], Regular)]),
        (
            "target of 5000 bytes",
            vec![link(b"l", Symlink, &[b't'; 5000])],
        ),
        ("empty target", vec![link(b"l", Symlink, b"")]),
        ("target with a NUL", vec![link(b"l", Symlink, b"a\0b")]),
        (
            "mode with file type",
            vec![Member {
                mode: 0o177_777,
                ..plain.clone()
            }],
        ),
        (
            "time out of range",
            vec![Member {
                mtime: (i64::MAX, 999_999_999),
                ..plain.clone()
            }],
        ),
        (
            "attribute of nonsense",
            vec![Member {
                xattrs: nonsense,
                ..plain.clone()
            }],
        ),
        (
            "size of 2^63",
            vec![Member {
                content: Content::large(i64::MAX.unsigned_abs(), vec![far]),
                ..plain.clone()
            }],
        ),
        (
            "header of 4 GiB",
            vec![Member {
                header_bytes: u32::MAX,
                ..plain
            }],
        ),
    ])
}

/// Replaces the newest version's catalog by a forged one, in a store that is otherwise sound.
fn forge(dir: &Path, change: &Forge) {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk::open(dir).unwrap());
    let store = Store::new(disk, "forged");
    let state = store.current().unwrap();
    let mut versions = store.versions(&state).unwrap();
    let newest = versions.last_mut().unwrap();
    let mut reader = CatalogReader::open(&store, &newest.catalog).unwrap();
    let mut members = Vec::new();
    while let Some((_, member)) = reader.next_member().unwrap() {
        members.push(member);
    }
    change(&mut members);
    let mut writer = CatalogWriter::create(&store, None).unwrap();
    for member in &members {
        writer.add(member).unwrap();
    }
    let written = writer.finish().unwrap();
    (newest.catalog, newest.pack) = (written.root, written.pack);
    let next = btw_backup::format::state::State {
        number: state.number + 1,
        ..state
    };
    commit::commit_versions(&store, next, &versions, 1).unwrap();
}

fn small_store(sandbox: &Sandbox) {
    let src = sandbox.home.path("root/src");
    fs::create_dir_all(src.join("a")).unwrap();
    fs::write(src.join("a/file"), "content").unwrap();
    fs::write(src.join("file"), "content too").unwrap();
    sandbox
        .home
        .run(&["fs", "--init", src.to_str().unwrap(), "good"])
        .ends(0);
}

#[test]
fn f3_h1_forged_stores_escape_nowhere() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    small_store(&sandbox);
    let forgeries = forgeries(&sandbox.canary);
    let mut accepted = 0;
    for (number, (name, change)) in forgeries.iter().enumerate() {
        let store = format!("forged{number}");
        tool(
            "cp",
            &[
                "-a",
                sandbox.home.store("good").to_str().unwrap(),
                sandbox.home.store(&store).to_str().unwrap(),
            ],
        );
        forge(&sandbox.home.store(&store), change);
        for flags in [&[][..], &["--partial"]] {
            let target = sandbox
                .home
                .path("out")
                .join(format!("{store}{}", flags.len()));
            let args = [&["restore"], flags, &[&store, target.to_str().unwrap()]].concat();
            accepted += usize::from(sandbox.survives(name, &args));
        }
    }
    println!(
        "F3 H1: {0} forged stores restored as root, with and without --partial, {accepted} of {1} restores accepted: 0 escapes",
        forgeries.len(),
        forgeries.len() * 2
    );
}

/// Things that stand where files of the store should be.
#[test]
fn f3_f5_odd_files_in_a_store_are_damage() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    small_store(&sandbox);
    let mut tried = 0;
    for area in ["objects", "manifests", "catalogs", "state"] {
        for odd in [
            "link",
            "pipe",
            "directory",
            "sparse",
            "bomb",
            "empty",
            "device",
        ] {
            let store = format!("odd-{area}-{odd}");
            tool(
                "cp",
                &[
                    "-a",
                    sandbox.home.store("good").to_str().unwrap(),
                    sandbox.home.store(&store).to_str().unwrap(),
                ],
            );
            let file = fs::read_dir(sandbox.home.store(&store).join(area))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            fs::remove_file(&file).unwrap();
            let path = file.to_str().unwrap();
            match odd {
                "link" => symlink(sandbox.canary.join("file"), &file).unwrap(),
                "pipe" => drop(tool("mkfifo", &[path])),
                "directory" => fs::create_dir(&file).unwrap(),
                "sparse" => drop(tool("truncate", &["-s", "900G", path])),
                "bomb" => {
                    let bomb = zstd_of_zeros(sandbox.home.dir.path());
                    fs::copy(bomb, &file).unwrap();
                }
                "device" => drop(tool("mknod", &[path, "c", "1", "5"])),
                _ => fs::write(&file, "").unwrap(),
            }
            let target = sandbox.home.path("out").join(&store);
            for args in [
                &["restore", &store, target.to_str().unwrap()][..],
                &["list", &store],
            ] {
                let output = sandbox.run(args);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                let expected = if args[0] == "list" && area != "state" {
                    0
                } else {
                    5
                };
                assert_eq!(
                    output.status.code(),
                    Some(expected),
                    "{store} {args:?}: {said}"
                );
            }
            assert!(!target.exists());
            tried += 1;
        }
    }
    println!(
        "F3 F5: {tried}/{tried} odd files in stores found and named, none followed, none swallowed"
    );
}

/// 1 GiB of zeros in 32 KiB.
fn zstd_of_zeros(dir: &Path) -> PathBuf {
    let bomb = dir.join("out/bomb.zst");
    if !bomb.exists() {
        let script = format!("head -c 1G /dev/zero | zstd -q -3 -o {}", bomb.display());
        tool("bash", &["-c", &script]);
    }
    bomb
}
