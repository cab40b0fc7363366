//! Looking into versions, restoring a part, comparing, verifying.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{Home, Said, assert_same_tree, is_root, tool};

/// A source with five versions; a copy of each state is kept.
struct Told {
    home: Home,
    src: PathBuf,
    then: Vec<PathBuf>,
}

impl Told {
    fn new() -> Self {
        Self::of_type("rdiff")
    }

    fn of_type(kind: &str) -> Self {
        let home = Home::new();
        let src = home.path("src");
        fs::create_dir_all(src.join("docs/letters")).unwrap();
        fs::create_dir(src.join("music")).unwrap();
        let source = src.to_str().unwrap().to_owned();
        home.run(&["fs-init", "--type", kind, &source, "s"]).ends(0);
        let mut told = Self {
            home,
            src,
            then: Vec::new(),
        };
        told.write("docs/plan.txt", b"one\ntwo\nthree\n");
        told.write("docs/letters/ada", b"Dear Ada\n");
        told.write("music/song", &vec![7; 300_000]);
        told.write("odd é\n", b"odd");
        std::os::unix::fs::symlink("plan.txt", told.src.join("docs/link")).unwrap();
        fs::hard_link(told.src.join("music/song"), told.src.join("music/tune")).unwrap();
        told.commit();
        told.write("docs/plan.txt", b"one\n2\nthree\n");
        told.write("docs/new.txt", b"new\n");
        told.commit();
        fs::set_permissions(
            told.src.join("docs/new.txt"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        let mut song = vec![7; 300_000];
        song[150_000] = 8;
        told.write("music/song", &song);
        told.commit();
        fs::remove_file(told.src.join("docs/plan.txt")).unwrap();
        told.commit();
        told.write("docs/plan.txt", b"again\n");
        told.commit();
        told
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.src.join(path), content).unwrap();
    }

    fn commit(&mut self) {
        self.home
            .run(&["fs", self.src.to_str().unwrap(), "s"])
            .ends(0);
        let then = self.home.path(&format!("then-{}", self.then.len() + 1));
        tool(
            "cp",
            &["-a", self.src.to_str().unwrap(), then.to_str().unwrap()],
        );
        self.then.push(then);
    }

    fn said(&self, args: &[&str]) -> String {
        self.home.run(args).ends(0).out
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_version_can_be_listed_and_read() {
    for kind in ["rdiff", "tar"] {
        let told = Told::of_type(kind);
        for (index, then) in told.then.iter().enumerate() {
            let at = format!("v{}", index + 1);
            let found = tool(
                "find",
                &[then.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\\0"],
            );
            let mut expected: Vec<&str> = found.split_terminator('\0').collect();
            expected.sort_unstable();
            let listed = json(&told.said(&["ls", "-R", "--json", "--at", &at, "s"]));
            let members = listed["members"].as_array().unwrap();
            let mut paths: Vec<String> = members
                .iter()
                .map(|member| member["path"].as_str().unwrap().replace("\\n", "\n"))
                .collect();
            paths.sort_unstable();
            assert_eq!(paths, expected, "{kind} {at}");
            for member in members.iter().filter(|member| member["kind"] == "file") {
                let path = member["path"].as_str().unwrap().replace("\\n", "\n");
                let mut command = told.home.command(&["cat", "--at", &at, "s", &path]);
                let content = fs::read(then.join(&path)).unwrap();
                assert_eq!(
                    command.output().unwrap().stdout,
                    content,
                    "{kind} {at} {path}"
                );
                assert_eq!(member["size_bytes"], content.len() as u64);
                if content.len() <= 65_536 {
                    let b3 = btw_backup::digest::Digest::of(&content).to_string();
                    assert_eq!(member["digest"], b3.as_str());
                }
            }
        }
    }
}

#[test]
fn ls_shows_a_directory_or_all_below() {
    let told = Told::new();
    assert_eq!(told.said(&["ls", "s"]), "docs/\nmusic/\nodd é\\n\n");
    assert_eq!(
        told.said(&["ls", "--at", "v1", "s", "docs"]),
        "docs/letters/\ndocs/link\ndocs/plan.txt\n"
    );
    assert_eq!(
        told.said(&["ls", "s", "./docs//letters/"]),
        "docs/letters/ada\n"
    );
    assert_eq!(
        told.said(&["ls", "s", told.src.join("music").to_str().unwrap()]),
        "music/song\nmusic/tune\n"
    );
    let long = told.said(&["ls", "-l", "s", "docs"]);
    assert!(long.contains(" docs/link -> plan.txt\n"), "{long}");
    assert!(
        long.lines()
            .any(|line| line.starts_with("-rw------- ") && line.ends_with(" docs/new.txt")),
        "{long}"
    );
    assert!(
        told.said(&["ls", "-l", "s", "music/tune"])
            .contains("music/tune = music/song")
    );
}

#[test]
fn what_is_not_there_is_answered_with_what_is_near() {
    let told = Told::new();
    let run = |args: &[&str]| told.home.run(args).ends(1);
    run(&["cat", "s", "docs/plan.text"]).complains("near: docs/plan.txt");
    run(&["cat", "--at", "v4", "s", "docs/plan.txt"]).complains("it is in v3 (");
    run(&["ls", "s", "music/sonk"]).complains("near: music/song");
    run(&["history", "s", "nowhere/at/all"]).complains("There is no nowhere/at/all");
    run(&["cat", "s", "docs"]).complains("is a directory");
    run(&["cat", "s", "docs/link"]).complains("a link to plan.txt");
    run(&["ls", "s", "/etc"]).complains("does not lie in the source");
    run(&["ls", "--at", "v9", "s"]).complains("the nearest: v5");
    run(&["ls", "other"]).complains("there are: s");
    run(&["find", "s", "*.odt"]).complains("Nothing matches");
    run(&["diff", "s", "--to", "v1"]).complains("no version before");
    run(&["restore", "--path", "docs/plam.txt", "s", "out"]).complains("near: docs/plan.txt");
    assert!(!told.home.path("out").exists());
    told.home
        .run(&["find", "s", "[a"])
        .ends(2)
        .complains("PATTERN");
}

#[test]
fn history_and_find_fold_what_was_the_same() {
    let told = Told::new();
    let seqs = |row: &serde_json::Value| {
        (
            row["first"]["seq"].as_u64().unwrap(),
            row["last"]["seq"].as_u64().unwrap(),
        )
    };
    for args in [
        &["history", "--json", "s", "docs/plan.txt"][..],
        &["find", "--json", "s", "plan*"],
    ] {
        let answer = json(&told.said(args));
        let spans: Vec<(u64, u64)> = answer["spans"]
            .as_array()
            .unwrap()
            .iter()
            .map(seqs)
            .collect();
        assert_eq!(spans, [(1, 1), (2, 3), (5, 5)], "{args:?}");
    }
    let answer = json(&told.said(&["history", "--json", "s", "docs/new.txt"]));
    let spans: Vec<_> = answer["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (seqs(row), row["member"]["mode"].clone()))
        .collect();
    assert_eq!(spans, [((2, 2), "0644".into()), ((3, 5), "0600".into())]);
    let text = told.said(&["find", "--at", "v4", "s", "/docs/*.txt"]);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            line.split("  ")
                .find(|word| !word.is_empty())
                .unwrap()
                .trim()
        })
        .collect();
    assert_eq!(
        lines,
        [
            "docs/new.txt",
            "v2",
            "v3-v4",
            "docs/plan.txt",
            "v1",
            "v2-v3",
            "v4"
        ]
    );
    assert!(text.ends_with("gone\n"), "{text}");
}

#[test]
fn diff_tells_what_changed_and_how() {
    let told = Told::new();
    let plain = |from: &str, to: &str| {
        let said = told.said(&["diff", "s", "--from", from, "--to", to]);
        let lines = said.lines().filter(|line| !line.ends_with('/'));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        plain("v1", "v2"),
        ["added docs/new.txt", "content docs/plan.txt"]
    );
    assert_eq!(
        plain("v2", "v3"),
        [
            "metadata docs/new.txt",
            "content music/song",
            "metadata music/tune"
        ]
    );
    assert_eq!(plain("v3", "v4"), ["removed docs/plan.txt"]);
    assert!(plain("v5", "v5").is_empty());
    assert_eq!(plain("v2", "v1")[0], "removed docs/new.txt");
    let patch = told.said(&[
        "diff",
        "-p",
        "s",
        "docs/plan.txt",
        "--from",
        "v1",
        "--to",
        "v2",
    ]);
    // GNU patch makes one from the other.
    let work = told.home.path("patched");
    tool(
        "cp",
        &["-a", told.then[0].to_str().unwrap(), work.to_str().unwrap()],
    );
    fs::write(told.home.path("p"), &patch).unwrap();
    let (dir, file) = (work.to_str().unwrap().to_owned(), told.home.path("p"));
    tool(
        "patch",
        &["-s", "-p1", "-d", &dir, "-i", file.to_str().unwrap()],
    );
    assert_eq!(
        fs::read(work.join("docs/plan.txt")).unwrap(),
        b"one\n2\nthree\n"
    );
    let stat = json(&told.said(&["diff", "--json", "s", "--from", "v1", "--to", "v2"]));
    assert_eq!(stat["stat"]["added"]["count"], 1);
    assert_eq!(stat["stat"]["content"]["from_bytes"], 14);
}

#[test]
fn exported_archives_are_tars_that_tar_understands() {
    for kind in ["rdiff", "tar"] {
        let told = Told::of_type(kind);
        for (index, then) in told.then.iter().enumerate() {
            let at = format!("v{}", index + 1);
            let (tar, out) = (
                told.home.path(&format!("{at}.tar")),
                told.home.path(&format!("out-{at}")),
            );
            told.said(&["export", "--at", &at, "s", tar.to_str().unwrap()]);
            fs::create_dir(&out).unwrap();
            tool(
                "tar",
                &[
                    "--xattrs",
                    "-C",
                    out.to_str().unwrap(),
                    "-xpf",
                    tar.to_str().unwrap(),
                ],
            );
            assert_same_tree(then, &out);
            let piped = told
                .home
                .command(&["export", "--at", &at, "s", "-"])
                .output()
                .unwrap();
            assert_eq!(piped.stdout, fs::read(&tar).unwrap());
            assert_eq!(fs::metadata(&tar).unwrap().mode() & 0o777, 0o600);
            told.home
                .run(&["export", "s", tar.to_str().unwrap()])
                .ends(1)
                .complains("File exists");
        }
    }
}

#[test]
fn parts_are_restored_with_the_directories_on_the_way() {
    let told = Told::new();
    let restored = |args: &[&str]| {
        let target = told.home.path(&format!("out-{}", uuid::Uuid::new_v4()));
        let args = [&["restore"], args, &["s", target.to_str().unwrap()]].concat();
        told.home.run(&args).ends(0);
        target
    };
    let files = |dir: &Path| {
        let found = tool(
            "find",
            &[dir.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\\n"],
        );
        let mut lines: Vec<String> = found.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let out = restored(&["--path", "docs/letters", "--at", "v2"]);
    assert_eq!(files(&out), ["docs", "docs/letters", "docs/letters/ada"]);
    assert_same_tree(
        &told.then[1].join("docs/letters"),
        &out.join("docs/letters"),
    );
    let of_dir = |dir: &Path| fs::metadata(dir.join("docs")).unwrap().mtime_nsec();
    assert_eq!(
        of_dir(&out),
        of_dir(&told.then[1]),
        "directories on the way have their times"
    );
    // Two paths; a link whose file is not chosen becomes the file.
    let out = restored(&["--path", "music/tune", "--path", "docs/link", "--at", "v3"]);
    assert_eq!(files(&out), ["docs", "docs/link", "music", "music/tune"]);
    assert_eq!(
        fs::read(out.join("music/tune")).unwrap(),
        fs::read(told.then[2].join("music/tune")).unwrap()
    );
    let out = restored(&["--exclude", "*.txt", "--exclude", "/music"]);
    let expected = [
        "",
        "docs",
        "docs/letters",
        "docs/letters/ada",
        "docs/link",
        "odd é",
    ];
    assert_eq!(files(&out), expected, "the odd name ends in a line end");
    let out = restored(&["--changed-since", "v4"]);
    assert_eq!(files(&out), ["docs", "docs/plan.txt"]);
    // All of it by another way is the same.
    assert_same_tree(&told.then[4], &restored(&["--path", "."]));
    let shown = told.said(&[
        "restore",
        "--dry-run",
        "--path",
        "docs/letters",
        "s",
        "nowhere",
    ]);
    assert!(
        shown.ends_with("4 members, 9 B would be made in nowhere\n"),
        "{shown}"
    );
    assert!(!told.home.path("nowhere").exists());
}

#[test]
fn owners_are_found_by_name_by_number_or_left() {
    if !is_root() {
        return crate::tools::skip("only root gives files away");
    }
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), b"x").unwrap();
    std::os::unix::fs::chown(src.join("f"), Some(1), Some(1)).unwrap();
    home.fs(&src, "s").ends(0);
    let owner = |option: &[&str], prefix: &str| {
        let target = home
            .path(&format!("out{}", option.len()))
            .with_extension(prefix);
        let args = [&["restore"], option, &["s", target.to_str().unwrap()]].concat();
        let line = args
            .iter()
            .map(|arg| format!("'{arg}'"))
            .collect::<Vec<_>>()
            .join(" ");
        // A machine on which the name `daemon` has another number.
        let script = format!(
            "mount --bind {0}/passwd /etc/passwd && mount --bind {0}/group /etc/group && exec {1} {line}",
            home.dir.path().display(),
            crate::tools::PROGRAM
        );
        let mut command = Command::new("unshare");
        command
            .args(["-m", "bash", "-ec", &script])
            .env("BTW_BACKUP_CONFIG_DIR", home.path("conf"));
        Said::of(command.output().unwrap()).ends(0);
        let meta = fs::metadata(target.join("f")).unwrap();
        (meta.uid(), meta.gid())
    };
    for name in ["passwd", "group"] {
        let text = fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        fs::write(
            home.path(name),
            text.replace("daemon:x:1:", "daemon:x:4321:"),
        )
        .unwrap();
    }
    assert_eq!(owner(&[], "name"), (4321, 4321));
    assert_eq!(owner(&["--numeric-ids"], "number"), (1, 1));
    assert_eq!(owner(&["--no-owner"], "nobody"), (0, 0));
}

#[test]
fn compare_finds_what_differs_and_what_looks_like_damage() {
    let told = Told::new();
    let src = told.src.to_str().unwrap().to_owned();
    assert_eq!(told.said(&["compare", "s", &src]), "");
    let song = told.src.join("music/song");
    let mtime = filetime::FileTime::from_last_modification_time(&fs::metadata(&song).unwrap());
    let mut bytes = fs::read(&song).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&song, bytes).unwrap();
    filetime::set_file_mtime(&song, mtime).unwrap();
    told.write("docs/plan.txt", b"other\n!");
    fs::remove_file(told.src.join("docs/link")).unwrap();
    told.write("fresh", b"");
    fs::set_permissions(
        told.src.join("docs/letters/ada"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let said = told.home.run(&["compare", "s", &src]).ends(3).out;
    let found: Vec<&str> = said
        .lines()
        .filter(|line| line.contains('/') && !line.ends_with("docs") || line.contains("fresh"))
        .collect();
    assert_eq!(
        found,
        [
            "metadata  docs/letters/ada",
            "gone      docs/link",
            "content   docs/plan.txt",
            "new       fresh",
            "silent    music/song  (size and time are the same: damage?)",
        ]
    );
    let answer = json(
        &told
            .home
            .run(&["compare", "--json", "--at", "v1", "s", &src])
            .ends(3)
            .out,
    );
    assert_eq!(answer["version"]["seq"], 1);
}

#[test]
fn f1_verify_names_files_versions_and_members_and_list_remembers() {
    let told = Told::new();
    for args in [
        &["verify"][..],
        &["verify", "s"],
        &["verify", "--deep", "s"],
        &["verify", "--at", "v2", "s"],
        &["verify", "--sample", "50%", "s"],
    ] {
        assert!(told.said(args).contains("s: sound ("), "{args:?}");
    }
    told.said(&["verify", "--deep", "s"]);
    assert!(
        told.said(&["list", "s"])
            .contains("(every version rebuilt, up to v5): sound")
    );
    // The object with the song is spoilt where it lies.
    let objects: Vec<PathBuf> = fs::read_dir(told.home.store("s").join("objects"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let largest = objects
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(largest, bytes).unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap();
    for args in [
        &["verify", "s"][..],
        &["verify"],
        &["verify", "--deep", "s"],
    ] {
        let said = told.home.run(args).ends(5).out;
        assert!(
            said.contains(name) && said.contains("its content is not what its name says"),
            "{said}"
        );
        assert!(
            said.contains("members are damaged") || said.contains("restore whole: v1-v5"),
            "{said}"
        );
    }
    assert!(told.said(&["list", "s"]).ends_with("damaged\n"));
    let report = json(&told.home.run(&["verify", "--json", "s"]).ends(5).out);
    let broken: Vec<u64> = report["stores"][0]["broken"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["version"]["seq"].as_u64().unwrap())
        .collect();
    for seq in 1..=5 {
        let (at, target) = (format!("v{seq}"), told.home.path(&format!("after-{seq}")));
        let said = told
            .home
            .run(&["restore", "--at", &at, "s", target.to_str().unwrap()]);
        assert_eq!(
            said.code == Some(5),
            broken.contains(&seq),
            "{at}: {}",
            said.err
        );
    }
    // The next backup does not build on it, and what it stores is sound.
    told.home
        .run(&["fs", told.src.to_str().unwrap(), "s"])
        .ends(5);
    if broken.contains(&5) {
        let restored = told.home.restored("latest", "s");
        assert_same_tree(&told.src, &restored);
    }
}

#[test]
fn an_independent_reader_restores_every_version() {
    for kind in ["rdiff", "tar"] {
        let told = Told::of_type(kind);
        let store = told.home.store("s");
        let reader = |args: &[&str]| {
            let output = Command::new("python3")
                .arg("tests/reader.py")
                .args(args)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{args:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            output.stdout
        };
        let store = store.to_str().unwrap();
        assert_eq!(
            reader(&["list", store])
                .split(|byte| *byte == b'\n')
                .count(),
            6
        );
        reader(&["check", store]);
        for seq in 1..=5 {
            let at = format!("v{seq}");
            let ours = told
                .home
                .command(&["export", "--at", &at, "s", "-"])
                .output()
                .unwrap();
            assert_eq!(reader(&["tar", store, &at]), ours.stdout, "{kind} {at}");
        }
    }
}

/// Stores made earlier, as they are in the repository: without empty directories and locks.
#[test]
fn h11_golden_stores_are_read_by_the_program_and_by_the_independent_reader() {
    for kind in ["rdiff", "tar"] {
        let home = Home::new();
        let golden = format!("testdata/{kind}");
        tool("cp", &["-r", &golden, home.store("s").to_str().unwrap()]);
        let sums = fs::read_to_string(format!("{golden}.sums")).unwrap();
        let store = home.store("s");
        for line in sums.lines() {
            let (sum, version) = line.split_once("  ").unwrap();
            let tar = home.path(&format!("{version}.tar"));
            home.run(&["export", "--at", version, "s", tar.to_str().unwrap()])
                .ends(0);
            let said = tool("sha256sum", &[tar.to_str().unwrap()]);
            assert!(said.starts_with(sum), "{kind} {version}");
            let read = Command::new("python3")
                .args(["tests/reader.py", "tar", store.to_str().unwrap(), version])
                .output()
                .unwrap();
            assert_eq!(read.stdout, fs::read(&tar).unwrap(), "{kind} {version}");
        }
        assert_eq!(sums.lines().count(), if kind == "rdiff" { 7 } else { 2 });
        home.run(&["verify", "--deep", "s"]).ends(0);
    }
}

#[test]
fn a_few_small_files_far_apart_are_restored() {
    // Each lies in a window of its own, and all are fewer than one thread's job.
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    for number in 0..12 {
        fs::write(src.join(format!("f{number:02}")), format!("small {number}")).unwrap();
        fs::write(
            src.join(format!("f{number:02}-large")),
            vec![number; 200_000],
        )
        .unwrap();
    }
    home.fs(&src, "s").ends(0);
    let target = home.path("out");
    let mut command = home.command(&[
        "restore",
        "--exclude",
        "*-large",
        "s",
        target.to_str().unwrap(),
    ]);
    let mut child = command.spawn().unwrap();
    let begin = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed().as_secs() > 60 {
            child.kill().unwrap();
            panic!("the restore stands still");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(status.success());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 12);
    assert_eq!(fs::read(target.join("f07")).unwrap(), b"small 7");
}

#[test]
fn sources_of_one_file_and_links_to_links() {
    let home = Home::new();
    let file = home.path("disk.img");
    fs::write(&file, b"image").unwrap();
    home.fs(&file, "one").ends(0);
    let absolute = file.to_str().unwrap();
    for path in [absolute, "disk.img", "./disk.img"] {
        assert_eq!(home.run(&["cat", "one", path]).ends(0).out, "image");
        assert_eq!(home.run(&["ls", "one", path]).ends(0).out, "disk.img\n");
        home.run(&["history", "one", path]).ends(0);
    }
    let target = home.path("nothing");
    home.run(&[
        "restore",
        "--exclude",
        "*.img",
        "one",
        target.to_str().unwrap(),
    ])
    .ends(1)
    .complains("Nothing of v1");
    assert!(!target.exists());
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    std::os::unix::fs::symlink("nowhere", src.join("a")).unwrap();
    fs::hard_link(src.join("a"), src.join("b")).unwrap();
    home.fs(&src, "links").ends(0);
    home.run(&["cat", "links", "b"])
        .ends(1)
        .complains("a link to nowhere");
    // Nobody takes the archive.
    let mut command = home.command(&["export", "one", "-"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_was_found_damaged_is_not_forgotten_by_a_sample() {
    let told = Told::new();
    let deltas = fs::read_dir(told.home.store("s").join("deltas")).unwrap();
    let delta = deltas.map(|entry| entry.unwrap().path()).next().unwrap();
    let sound = fs::read(&delta).unwrap();
    fs::write(&delta, &sound[..sound.len() - 1]).unwrap();
    told.home.run(&["verify", "s"]).ends(5);
    told.said(&["verify", "--at", "v5", "s"]);
    assert!(told.said(&["list", "s"]).ends_with("damaged\n"));
    fs::write(&delta, &sound).unwrap();
    told.said(&["verify", "s"]);
    assert!(told.said(&["list", "s"]).ends_with("sound\n"));
}

#[test]
fn f9_verification_changes_nothing_and_runs_beside_backups() {
    let mut told = Told::new();
    let store = told.home.store("s");
    let listed = || {
        tool(
            "find",
            &[
                store.to_str().unwrap(),
                "-type",
                "f",
                "-not",
                "-path",
                "*/cache/*",
                "-not",
                "-name",
                "log.txt",
                "-printf",
                "%P %i %s %C@\\n",
            ],
        )
    };
    let before = listed();
    for args in [&["verify", "s"][..], &["verify", "--deep", "s"]] {
        told.said(args);
    }
    assert_eq!(listed(), before);
    if is_root() {
        // Also where nothing can be written.
        let text = store.to_str().unwrap();
        tool("mount", &["--bind", text, text]);
        tool("mount", &["-o", "remount,bind,ro", text]);
        let said = told.home.run(&["verify", "--deep", "s"]);
        tool("umount", &[text]);
        said.ends(0);
    }
    // Beside backups, again and again.
    let (mut verified, conf) = (0, told.home.path("conf"));
    std::thread::scope(|scope| {
        let backups = scope.spawn(|| {
            for round in 0..12 {
                told.write("music/song", &vec![round; 400_000]);
                told.commit();
            }
        });
        while !backups.is_finished() {
            let said = Command::new(crate::tools::PROGRAM)
                .args(["verify", "--deep", "s"])
                .env("BTW_BACKUP_CONFIG_DIR", &conf)
                .output()
                .unwrap();
            Said::of(said).ends(0);
            verified += 1;
        }
    });
    println!("F9: {verified} verifications beside 12 backups");
    assert!(verified > 1);
}

#[test]
fn f4_an_old_copy_of_a_store_is_found_by_verify() {
    let mut told = Told::new();
    let (store, old) = (told.home.store("s"), told.home.path("old"));
    let copy = |from: &Path, to: &Path| {
        tool("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    };
    copy(&store, &old);
    told.write("docs/new.txt", b"newer\n");
    told.commit();
    told.said(&["verify", "s"]);
    fs::remove_dir_all(&store).unwrap();
    copy(&old, &store);
    let said = told.home.run(&["verify", "s"]).ends(5);
    assert!(
        said.out.contains("older than in the last run"),
        "{}",
        said.out
    );
    // It can be gone on with, if that is meant.
    let src = told.src.to_str().unwrap();
    told.home.run(&["fs", src, "s"]).ends(1);
    told.home.run(&["fs", "--adopt", src, "s"]).ends(0);
    told.said(&["verify", "--deep", "s"]);
}
