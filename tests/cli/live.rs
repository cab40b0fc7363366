//! Sources that change while they are read: strace holds a call back, and meanwhile something happens.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tools::{Home, PROGRAM, Said, assert_same_tree, tool};
use crate::trees;

struct Live {
    home: Home,
    src: PathBuf,
}

impl Live {
    /// A store with a first version of a tree with a small and a large file, both of which are to be read again.
    fn new() -> Self {
        let home = Home::new();
        let src = home.path("src");
        fs::create_dir_all(src.join("dir")).unwrap();
        // strace counts the calls of each thread. So the thread that reads opens more in `dir` before `small` than the
        // one that walks, which opens more in the source before `dir` than the other.
        for name in ["0", "1", "2", "3", "4", "5"] {
            fs::write(src.join("dir").join(name), name).unwrap();
            fs::create_dir(src.join(name)).unwrap();
        }
        fs::write(src.join("dir/small"), "first").unwrap();
        fs::write(src.join("zz"), "last in order").unwrap();
        trees::image(&src.join("large"), 12 << 20, 1);
        home.run(&["fs-init", "--type", "rdiff", src.to_str().unwrap(), "s"])
            .ends(0);
        home.configure_source(
            "s",
            "#CHANGE_DETECTION = \"stat\"",
            "CHANGE_DETECTION = \"bytes\"",
        );
        home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
        Self { home, src }
    }

    fn strace(&self, options: &[&str]) -> Command {
        let plain = self.home.command(&[]);
        let mut command = Command::new("strace");
        command.env_clear().envs(
            plain
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        command.args(["-f", "-qq", "-y"]).args(options);
        command
            .args([
                PROGRAM,
                "--threads",
                "1",
                "fs",
                self.src.to_str().unwrap(),
                "s",
            ])
            .stdin(Stdio::null());
        command
    }

    /// The how-manieth `openat` in a directory of the source by its thread is the first that opens this name.
    fn ordinal(&self, dir: &Path, name: &str) -> usize {
        let trace = self.home.path("trace");
        let done = self
            .strace(&[
                "-o",
                trace.to_str().unwrap(),
                "-e",
                "trace=openat",
                "-P",
                dir.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        assert!(done.status.success());
        let lines = fs::read_to_string(trace).unwrap();
        let quoted = format!("\"{name}\"");
        let found = lines.lines().find(|line| line.contains(&quoted));
        let found = found.unwrap_or_else(|| panic!("{name} is not opened"));
        let thread = found.split(' ').next().unwrap();
        1 + lines
            .lines()
            .take_while(|line| *line != found)
            .filter(|line| line.starts_with(thread))
            .count()
    }

    /// Runs a backup in which the opening of something waits for a while, and changes something meanwhile.
    fn while_opening(&self, path: &str, change: impl FnOnce(&Path)) -> Said {
        let path = self.src.join(path);
        let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let number = self.ordinal(dir, name.to_str().unwrap());
        self.meanwhile("openat", number, &["-P", dir.to_str().unwrap()], change)
    }

    /// The same for the n-th reading of a file.
    fn while_reading(&self, file: &str, n: usize, change: impl FnOnce(&Path)) -> Said {
        let path = self.src.join(file);
        self.meanwhile("pread64", n, &["-P", path.to_str().unwrap()], change)
    }

    fn meanwhile(
        &self,
        call: &str,
        number: usize,
        more: &[&str],
        change: impl FnOnce(&Path),
    ) -> Said {
        let (trace, seen) = (self.home.path("trace"), Instant::now());
        let inject = format!("inject={call}:delay_enter=3000000:when={number}");
        let traced = format!("trace={call}");
        let options = [
            &["-o", trace.to_str().unwrap(), "-e", &traced, "-e", &inject],
            more,
        ]
        .concat();
        let running = self
            .strace(&options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        change(&self.src);
        let said = Said::of(running.wait_with_output().unwrap());
        assert!(seen.elapsed() < Duration::from_secs(8), "it hung");
        assert!(
            fs::read_to_string(trace).unwrap().contains("(DELAYED)"),
            "nothing was held back"
        );
        said
    }

    /// The last version is partial; the next run makes it whole again.
    fn recovers(&self) {
        assert!(
            self.home
                .run(&["list", "s"])
                .ends(0)
                .out
                .contains("partial")
        );
        self.home
            .run(&["fs", self.src.to_str().unwrap(), "s"])
            .ends(0);
        assert_same_tree(&self.src, &self.home.restored("latest", "s"));
    }
}

#[test]
fn b5_a_file_that_shrinks_is_padded_and_marked() {
    let live = Live::new();
    let said = live.while_reading("large", 3, |src| {
        fs::OpenOptions::new()
            .write(true)
            .open(src.join("large"))
            .unwrap()
            .set_len(100)
            .unwrap();
    });
    said.ends(3).complains("Changed while it was read: large");
    let restored = live.home.restored("latest", "s");
    assert_eq!(restored.join("large").metadata().unwrap().len(), 12 << 20);
    live.recovers();
}

#[test]
fn b5_a_file_that_grows_is_marked() {
    let live = Live::new();
    let said = live.while_reading("large", 3, |src| {
        use std::io::Write as _;
        fs::OpenOptions::new()
            .append(true)
            .open(src.join("large"))
            .unwrap()
            .write_all(b"more")
            .unwrap();
    });
    said.ends(3).complains("Changed while it was read: large");
    assert_eq!(
        live.home
            .restored("latest", "s")
            .join("large")
            .metadata()
            .unwrap()
            .len(),
        12 << 20
    );
    // As far as it was read it is as before: no new version for that, but the next run looks again.
    assert!(!live.home.run(&["list", "s"]).ends(0).out.contains("v2"));
    live.home
        .run(&["fs", live.src.to_str().unwrap(), "s"])
        .ends(0);
    assert_same_tree(&live.src, &live.home.restored("latest", "s"));
}

#[test]
fn b7_a_small_file_that_changes_is_read_again_though_its_time_is_reset() {
    let live = Live::new();
    let small = live.src.join("dir/small");
    let time = filetime::FileTime::from_last_modification_time(&small.metadata().unwrap());
    let said = live.while_reading("dir/small", 1, |src| {
        fs::write(src.join("dir/small"), "other").unwrap();
        filetime::set_file_mtime(src.join("dir/small"), time).unwrap();
    });
    said.ends(0);
    assert_eq!(
        fs::read(live.home.restored("latest", "s").join("dir/small")).unwrap(),
        b"other"
    );
}

#[test]
fn b3_what_vanishes_is_named_and_its_last_content_stays() {
    let live = Live::new();
    let said = live.while_opening("dir/small", |src| {
        fs::remove_file(src.join("dir/small")).unwrap();
    });
    said.ends(3)
        .complains("Cannot read dir/small: No such file");
    assert!(!live.home.restored("latest", "s").join("dir/small").exists());
    assert_eq!(
        fs::read(live.home.restored("v1", "s").join("dir/small")).unwrap(),
        b"first"
    );
    let live = Live::new();
    let said = live.while_opening("dir", |src| fs::remove_dir_all(src.join("dir")).unwrap());
    said.ends(3)
        .complains("Cannot open the directory dir: No such file");
}

#[test]
fn g4_a_file_that_becomes_a_pipe_or_a_link_is_not_opened() {
    for replace in ["mkfifo \"$0\"", "ln -s /etc/passwd \"$0\"", "mkdir \"$0\""] {
        let live = Live::new();
        let said = live.while_opening("dir/small", |src| {
            let small = src.join("dir/small");
            fs::remove_file(&small).unwrap();
            tool("bash", &["-c", replace, small.to_str().unwrap()]);
        });
        said.ends(3).complains("dir/small");
        assert!(
            !live.home.restored("latest", "s").join("dir/small").exists(),
            "{replace}"
        );
    }
    let live = Live::new();
    let said = live.while_opening("dir", |src| {
        fs::rename(src.join("dir"), src.join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", src.join("dir")).unwrap();
    });
    said.ends(3).complains("Cannot open the directory dir");
    let restored = live.home.restored("latest", "s");
    assert!(!restored.join("dir/passwd").exists());
}

#[test]
fn b4_what_stays_unreadable_makes_one_partial_version_and_no_more() {
    let live = Live::new();
    let file = live.src.join("dir/small");
    let run = || {
        let options = [
            "-o",
            "/dev/null",
            "-P",
            file.to_str().unwrap(),
            "-e",
            "inject=pread64:error=EIO",
        ];
        Said::of(live.strace(&options).output().unwrap())
    };
    let versions = || live.home.run(&["list", "s"]).ends(0).out.lines().count() - 1;
    run()
        .ends(3)
        .complains("Cannot read dir/small: Input/output error");
    assert_eq!(versions(), 2);
    run()
        .ends(3)
        .complains("Cannot read dir/small: Input/output error");
    assert_eq!(
        versions(),
        2,
        "the unreadable again and nothing else changed"
    );
    assert_eq!(
        fs::read(live.home.restored("v1", "s").join("dir/small")).unwrap(),
        b"first"
    );
    live.recovers();
}

#[test]
fn b4_attributes_that_could_not_be_read_are_read_in_the_next_run() {
    let live = Live::new();
    live.home.configure_source(
        "s",
        "CHANGE_DETECTION = \"bytes\"",
        "CHANGE_DETECTION = \"stat\"",
    );
    for name in ["dir", "dir/small"] {
        let path = live.src.join(name);
        tool(
            "setfattr",
            &["-n", "user.note", "-v", "noted", path.to_str().unwrap()],
        );
    }
    // Long enough ago to be trusted in the next run.
    std::thread::sleep(Duration::from_millis(2200));
    let run = |inject: &str| {
        Said::of(
            live.strace(&["-o", "/dev/null", "-e", "trace=llistxattr", "-e", inject])
                .output()
                .unwrap(),
        )
    };
    run("inject=llistxattr:error=EIO")
        .ends(3)
        .complains("Cannot read the extended attributes of dir/small");
    std::thread::sleep(Duration::from_millis(2200));
    live.home
        .run(&["fs", live.src.to_str().unwrap(), "s"])
        .ends(0);
    assert_same_tree(&live.src, &live.home.restored("latest", "s"));
    // Now they are known: nothing needs to be read, and nothing is missing.
    run("inject=llistxattr:error=EIO").ends(0);
    tool(
        "setfattr",
        &[
            "-n",
            "user.note",
            "-v",
            "other",
            live.src.join("dir").to_str().unwrap(),
        ],
    );
    live.home
        .run(&["fs", live.src.to_str().unwrap(), "s"])
        .ends(0);
    assert_same_tree(&live.src, &live.home.restored("latest", "s"));
}

#[test]
fn g2_a_link_to_another_users_file_keeps_owner_and_mode() {
    let live = Live::new();
    let secret = live.home.path("secret");
    fs::write(&secret, "secret").unwrap();
    tool("chmod", &["600", secret.to_str().unwrap()]);
    fs::hard_link(&secret, live.src.join("linked")).unwrap();
    live.home
        .run(&["fs", live.src.to_str().unwrap(), "s"])
        .ends(0);
    let metadata = live
        .home
        .restored("latest", "s")
        .join("linked")
        .metadata()
        .unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 1));
}

#[test]
fn b11_little_memory_and_a_full_temporary_directory() {
    let live = Live::new();
    let mut ends = Vec::new();
    for megabytes in [2, 4, 8, 16, 30, 60, 1000] {
        let limit = format!("--data={}", megabytes << 20);
        let plain = live.home.command(&[]);
        let mut command = Command::new("prlimit");
        command
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env("TMPDIR", "/nonexistent");
        command.args([&limit, PROGRAM, "fs", live.src.to_str().unwrap(), "s"]);
        fs::write(live.src.join("dir/small"), megabytes.to_string()).unwrap();
        let output = command.output().unwrap();
        assert!(output.status.success() || !output.stderr.is_empty());
        ends.push(output.status.code());
        live.home
            .run(&["fs", live.src.to_str().unwrap(), "s"])
            .ends(0);
        assert_same_tree(&live.src, &live.home.restored("latest", "s"));
    }
    assert_eq!(ends.last(), Some(&Some(0)));
    println!("B11: with 2 to 1000 MB of data exit codes {ends:?}, never half a version");
}
