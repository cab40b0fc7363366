//! Every call of a backup and of a restore fails, once or from then on: nothing ends well with anything missing.
//!
//! strace makes the calls fail. By default each call fails with one errno in turn; the full form tries all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tools::{Home, PROGRAM, assert_same_tree, tool};
use crate::trees;

/// Calls that reach a file system.
const CALLS: [&str; 32] = [
    "openat",
    "openat2",
    "read",
    "pread64",
    "getdents64",
    "statx",
    "fstat",
    "llistxattr",
    "lgetxattr",
    "readlinkat",
    "lseek",
    "write",
    "pwrite64",
    "ftruncate",
    "fdatasync",
    "fsync",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "symlinkat",
    "linkat",
    "mknodat",
    "fchown",
    "fchmod",
    "fsetxattr",
    "lsetxattr",
    "utimensat",
    "flock",
    "flistxattr",
    "fremovexattr",
    "syncfs",
];
const ERRNOS: [&str; 5] = ["EIO", "ENOSPC", "EACCES", "EINTR", "EMFILE"];

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
    /// The calls that were made to fail, as strace shows them.
    injected: Vec<String>,
}

fn injected(home: &Home, call: &str, errno: &str, when: &str, args: &[&str]) -> Said {
    let trace = home.path("trace");
    let plain = home.command(&[]);
    let output = Command::new("timeout")
        .args(["30", "strace"])
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .args([
            "-f",
            "-qq",
            "-y",
            "-o",
            trace.to_str().unwrap(),
            "-e",
            &format!("trace={call}"),
        ])
        .args([
            "-e",
            &format!("inject={call}:error={errno}:when={when}"),
            PROGRAM,
            "--threads",
            "1",
        ])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("strace is installed (tests/run does it)");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let trace = text(&fs::read(trace).unwrap());
    let injected = trace
        .lines()
        .filter(|line| line.contains("(INJECTED)"))
        .map(str::to_owned);
    Said {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
        injected: injected.collect(),
    }
}

/// A small tree with one of each, and two versions of it.
fn source(src: &Path, n: u64) {
    fs::create_dir_all(src.join("dir/inner")).unwrap();
    fs::write(src.join("dir/text"), trees::Random(n).code(100)).unwrap();
    fs::write(src.join("dir/inner/same"), "the same").unwrap();
    trees::image(&src.join("image"), 1_200_000, n);
    if n == 1 {
        symlink("dir/text", src.join("link")).unwrap();
        fs::hard_link(src.join("dir/text"), src.join("hard")).unwrap();
        tool("mkfifo", &[src.join("pipe").to_str().unwrap()]);
        tool(
            "setfattr",
            &[
                "-n",
                "user.note",
                "-v",
                "noted",
                src.join("dir").to_str().unwrap(),
            ],
        );
        fs::set_permissions(src.join("dir/inner"), fs::Permissions::from_mode(0o555)).unwrap();
    }
}

struct World {
    home: Home,
    src: PathBuf,
    first: PathBuf,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let src = home.path("src");
        source(&src, 1);
        home.fs(&src, "s").ends(0);
        let first = home.path("first");
        tool(
            "cp",
            &["-a", src.to_str().unwrap(), first.to_str().unwrap()],
        );
        source(&src, 2);
        for name in ["root", "conf"] {
            let (from, to) = (home.path(name), home.path(&format!("{name}.before")));
            tool("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
        }
        Self { home, src, first }
    }

    fn reset(&self) {
        for name in ["root", "conf"] {
            let (to, from) = (
                self.home.path(name),
                self.home.path(&format!("{name}.before")),
            );
            tool("rm", &["-rf", to.to_str().unwrap()]);
            tool("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
        }
    }

    fn restore(&self, at: &str) -> PathBuf {
        self.home.restored(at, "s")
    }

    /// What must hold after a backup in which calls failed.
    fn check_backup(&self, said: &Said, context: &str) {
        let versions = self.home.run(&["list", "s"]).ends(0).out.lines().count() - 1;
        if said.code == Some(0) {
            // A call whose failure does not matter: the scan cache, a progress line.
            assert_eq!(versions, 2, "{context}");
            let restored = self.restore("latest");
            assert_same_tree(&self.src, &restored);
            tool("rm", &["-rf", restored.to_str().unwrap()]);
        } else {
            // Where no write succeeds nothing can be said.
            assert!(
                !said.err.is_empty() || context.starts_with("write "),
                "{context}: nothing was said"
            );
        }
        if said.code == Some(3) && versions == 2 {
            self.check_partial(said, context);
        }
        // Whatever happened, the version before is there and the next run makes up for it.
        let restored = self.restore("v1");
        assert_same_tree(&self.first, &restored);
        tool("rm", &["-rf", restored.to_str().unwrap()]);
        self.home
            .run(&["fs", self.src.to_str().unwrap(), "s"])
            .ends(0);
        let restored = self.restore("latest");
        assert_same_tree(&self.src, &restored);
        tool("rm", &["-rf", restored.to_str().unwrap()]);
    }

    /// A version that was committed with warnings: what is not in it is named, and no fault of the store is taken for one
    /// of the source.
    fn check_partial(&self, said: &Said, context: &str) {
        let restored = self.restore("latest");
        let (from, to) = (
            format!("{}/", self.src.display()),
            format!("{}/", restored.display()),
        );
        let missing = tool("rsync", &["-nacAXHi", "--delete", &from, &to]);
        for line in missing.lines() {
            let path = line.split_once(' ').unwrap().1.trim_end_matches('/');
            let path = path
                .split(" -> ")
                .next()
                .unwrap()
                .split(" => ")
                .next()
                .unwrap();
            // The directory of something that is missing has another time, or the name stands in a directory that is.
            let named = said.err.lines().any(|said| {
                said.contains("warning:") && path.split('/').any(|part| said.contains(part))
            });
            assert!(
                named || path == ".",
                "{context}: {path} is not as it was, and not named in: {}",
                said.err
            );
        }
        if said.err.contains("Cannot") && !missing.is_empty() {
            let store = self.home.path("root");
            let of_source = said
                .injected
                .iter()
                .any(|line| !line.contains(store.to_str().unwrap()));
            assert!(
                of_source,
                "{context}: a fault of the store became one of the source: {}",
                said.err
            );
        }
        tool("rm", &["-rf", restored.to_str().unwrap()]);
    }
}

/// Runs a command with each of its calls failing in turn; `check` is told of each run.
fn campaign(
    world: &World,
    args: &[&str],
    check: &dyn Fn(&Said, &str),
) -> (usize, BTreeMap<String, usize>) {
    let full = std::env::var_os("BTW_TEST_FULL").is_some();
    let (mut points, mut codes) = (0, BTreeMap::new());
    for (turn, call) in CALLS.iter().enumerate() {
        for n in 1.. {
            let kinds = ERRNOS.iter().flat_map(|errno| [(errno, ""), (errno, "+")]);
            let chosen: Vec<_> = if full {
                kinds.collect()
            } else {
                kinds.cycle().skip((turn + n) * 3).take(1).collect()
            };
            let mut reached = false;
            for (errno, onward) in chosen {
                world.reset();
                // A call that is interrupted for ever is no fault that there is.
                let when = match (*errno, onward) {
                    ("EINTR", "+") => format!("{n}..{}", n + 20),
                    _ => format!("{n}{onward}"),
                };
                let said = injected(&world.home, call, errno, &when, args);
                let context = format!("{call} {n}{onward} {errno}");
                assert_ne!(said.code, Some(124), "{context}: it hangs");
                if said.injected.is_empty() {
                    continue;
                }
                reached = true;
                assert!(
                    !said.err.contains("panicked") && said.code.is_some(),
                    "{context}: {:?}: {}",
                    said.code,
                    said.err
                );
                check(&said, &context);
                *codes
                    .entry(format!("exit {}", said.code.unwrap()))
                    .or_insert(0) += 1;
                points += 1;
            }
            if !reached {
                break;
            }
        }
    }
    assert!(points > 100, "strace made only {points} calls fail");
    (points, codes)
}

#[test]
fn b3_b4_b8_c4_c6_every_call_of_a_backup_fails() {
    let world = World::new();
    let args = ["fs", world.src.to_str().unwrap(), "s"];
    let (points, codes) = campaign(&world, &args, &|said, context| {
        world.check_backup(said, context);
    });
    println!(
        "B3 B4 C4 C6: {points}/{points} failing calls of a backup: none ended well with anything missing ({codes:?})"
    );
}

#[test]
fn h6_every_call_of_a_restore_fails() {
    let world = World::new();
    let target = world.home.path("target");
    let args = ["restore", "s", target.to_str().unwrap()];
    let check = |said: &Said, context: &str| {
        match said.code {
            Some(0) => assert_same_tree(&world.first, &target),
            // Owners, modes and times that could not be set are named; the content is there.
            Some(3) => {
                assert!(
                    said.err.contains("Not restored:"),
                    "{context}: {}",
                    said.err
                );
                assert_eq!(
                    tool(
                        "diff",
                        &[
                            "-r",
                            "--no-dereference",
                            "-x",
                            "pipe",
                            world.first.to_str().unwrap(),
                            target.to_str().unwrap()
                        ]
                    ),
                    ""
                );
            }
            _ => assert!(
                (!said.err.is_empty() || context.starts_with("write "))
                    && (!target.exists() || said.out.is_empty()),
                "{context}: {}",
                said.err
            ),
        }
        tool(
            "bash",
            &[
                "-c",
                &format!(
                    "rm -rf {0} {1}/.target*",
                    target.display(),
                    world.home.dir.path().display()
                ),
            ],
        );
    };
    let (points, codes) = campaign(&world, &args, &check);
    println!(
        "H6: {points}/{points} failing calls of a restore: none ended well with anything missing ({codes:?})"
    );
}

/// Makes a tree that is to be brought back: one thing of each kind differs.
fn changed(first: &Path, tree: &Path) {
    let (from, to) = (first.display(), tree.display());
    let commands = format!(
        "chmod -R u+w {to} 2>/dev/null; rm -rf {to}; cp -a {from} {to} && cd {to} && chmod 700 dir/inner && rm -f link pipe hard \
         && mkdir link && touch pipe && echo other > dir/text && echo more > extra && mkdir -p gone/too && chmod 640 image \
         && setfattr -n user.more -v more image && setfattr -x user.note dir && chmod 555 dir/inner"
    );
    tool("bash", &["-c", &commands]);
}

#[test]
fn h6_h8_every_call_of_a_restore_in_place_fails() {
    let world = World::new();
    let target = world.home.path("target");
    let before = world.home.path("before");
    changed(&world.first, &before);
    changed(&world.first, &target);
    let text = target.to_str().unwrap();
    let args = ["restore", "--in-place", "--delete", "s", text];
    let check = |said: &Said, context: &str| {
        match said.code {
            Some(0) => assert_same_tree(&world.first, &target),
            Some(3) => assert!(said.err.contains("Not re"), "{context}: {}", said.err),
            _ => assert!(
                !said.err.is_empty() || context.starts_with("write "),
                "{context}: {}",
                said.err
            ),
        }
        // Whatever happened, each file is whole: as it was, or as it is to be.
        let names = tool(
            "find",
            &[
                text,
                "-type",
                "f",
                "-not",
                "-path",
                "*/.btw-restore-*",
                "-printf",
                "%P\\n",
            ],
        );
        for name in names.lines() {
            let now = fs::read(target.join(name)).unwrap();
            let is = |root: &Path| {
                let path = root.join(name);
                fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file())
                    && fs::read(path).unwrap() == now
            };
            assert!(
                is(&world.first) || is(&before),
                "{context}: {name} is neither"
            );
        }
        changed(&world.first, &target);
    };
    let (points, codes) = campaign(&world, &args, &check);
    println!(
        "H6 H8: {points}/{points} failing calls of a restore in place: all files whole ({codes:?})"
    );
}
