//! Running the program and the tools that judge it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_btw-backup");

/// A home of its own with a root for stores.
pub struct Home {
    pub dir: tempfile::TempDir,
}

/// What a command said and how it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.out,
            self.err
        );
        self
    }

    /// Fails the test unless stderr has this text.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(
            self.err.contains(text),
            "expected '{text}' in: {}",
            self.err
        );
        self
    }
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root")).unwrap();
        fs::create_dir_all(dir.path().join("conf")).unwrap();
        let home = Self { dir };
        home.configure(&home.path("root"));
        home
    }

    pub fn configure(&self, root: &Path) {
        fs::write(
            self.path("conf/config.toml"),
            format!("ROOT_PATH = '{}'\n", root.display()),
        )
        .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self, dst: &str) -> PathBuf {
        self.path("root").join(dst)
    }

    /// The program, in a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"));
        command
            .env("BTW_BACKUP_CONFIG_DIR", self.path("conf"))
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    pub fn fs(&self, src: &Path, dst: &str) -> Said {
        self.run(&["fs", "--init", src.to_str().unwrap(), dst])
    }

    /// Changes the configuration of the source that was set up as `name`.
    pub fn configure_source(&self, name: &str, from: &str, to: &str) {
        let prefix = format!("{name}.");
        let dir = fs::read_dir(self.path("conf"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let dir = dir
            .into_iter()
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(&prefix)
            })
            .unwrap();
        let text = fs::read_to_string(dir.join("config.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(dir.join("config.toml"), text.replace(from, to)).unwrap();
    }

    /// Restores a version to a new directory.
    pub fn restored(&self, at: &str, dst: &str) -> PathBuf {
        let target = self.path(&format!("restored-{}", uuid::Uuid::new_v4()));
        self.run(&["restore", "--at", at, dst, target.to_str().unwrap()])
            .ends(0);
        target
    }
}

/// Some things only root can make.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test did not run; where nothing may be missing, that is a failure.
pub fn skip(what: &str) {
    println!("SKIPPED: {what}");
    assert!(
        std::env::var_os("CI").is_none(),
        "must not be skipped in CI: {what}"
    );
}

/// Runs a tool and returns what it printed; it must be installed and succeed.
#[track_caller]
pub fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let said = Said::of(output);
    assert_eq!(
        said.code,
        Some(0),
        "{program} {args:?}: {}{}",
        said.out,
        said.err
    );
    said.out
}

/// Fails the test unless rsync and diff find two trees identical, metadata included.
#[track_caller]
pub fn assert_same_tree(a: &Path, b: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    assert_eq!(
        tool("rsync", &["-nacAXHi", "--delete", &slash(a), &slash(b)]),
        ""
    );
    assert_eq!(
        // diff takes equal pipes and devices for different; rsync has compared them.
        tool(
            "diff",
            &[
                "-r",
                "--no-dereference",
                "-x",
                "pipe",
                "-x",
                "null*",
                "-x",
                "pipe over *",
                "-x",
                "* device over *",
                &slash(a),
                &slash(b)
            ]
        ),
        ""
    );
    assert_eq!(
        tool("rsync", &["-nacAXHi", "--delete", &slash(b), &slash(a)]),
        ""
    );
    // rsync compares times to the second only where the file system does; find prints them whole.
    for (one, other) in times(a).iter().zip(&times(b)) {
        assert_eq!(one, other);
    }
}

fn times(root: &Path) -> Vec<String> {
    let listed = tool(
        "find",
        &[root.to_str().unwrap(), "-printf", "%P %T@ %y %m %U %G\\n"],
    );
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Makes the stream of a version by hand, with the script from the store's own README.
pub fn made_by_hand(home: &Home, dst: &str, seq: u64) -> PathBuf {
    let work = home.path(&format!("hand-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&work).unwrap();
    let readme = fs::read_to_string(home.store(dst).join("README.txt")).unwrap();
    let script = &readme[readme.find("\n#!").unwrap() + 1..];
    fs::write(work.join("restore.sh"), script).unwrap();
    // Only coreutils, zstd, tar and rdiff are on its path.
    let bin = work.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in [
        "head",
        "tail",
        "cat",
        "dd",
        "stat",
        "mktemp",
        "rm",
        "mv",
        "sha256sum",
        "realpath",
        "zstd",
        "rdiff",
    ] {
        let found = ["/usr/bin", "/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.exists());
        std::os::unix::fs::symlink(
            found.unwrap_or_else(|| panic!("{name} is not installed")),
            bin.join(name),
        )
        .unwrap();
    }
    let output = Command::new("/bin/bash")
        .arg(work.join("restore.sh"))
        .args([
            home.store(dst).to_str().unwrap(),
            &seq.to_string(),
            work.join("out.tar").to_str().unwrap(),
        ])
        .env_clear()
        .env("PATH", &bin)
        .output()
        .unwrap();
    Said::of(output).ends(0);
    work.join("out.tar")
}

/// Makes the tar of a version by hand and unpacks it.
pub fn restored_by_hand(home: &Home, dst: &str, seq: u64) -> PathBuf {
    let archive = made_by_hand(home, dst, seq);
    let tree = archive.with_file_name("tree");
    fs::create_dir(&tree).unwrap();
    tool(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-xpf",
            archive.to_str().unwrap(),
            "-C",
            tree.to_str().unwrap(),
        ],
    );
    tree
}
