//! `sync` as people use it, and a machine that has nothing left.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::server::{BUCKET, Fault, KEY, SECRET, Seen, Server};
use crate::sshd::Sshd;
use crate::tools::{Home, PROGRAM, Said, assert_same_tree, tool};
use crate::trees;

/// A home whose stores are copied to the server.
pub struct Site {
    pub home: Home,
    pub server: Server,
}

impl Site {
    pub fn new(more: &str) -> Self {
        let (home, server) = (Home::new(), Server::start());
        let site = Self { home, server };
        let config = site.server.config("offsite", "here");
        site.configure(&format!("{config}{more}"));
        site
    }

    pub fn configure(&self, remotes: &str) {
        let text = format!(
            "ROOT_PATH = '{}'\n{remotes}",
            self.home.path("root").display()
        );
        fs::write(self.home.path("conf/config.toml"), text).unwrap();
    }

    pub fn run(&self, args: &[&str]) -> Said {
        let mut command = self.home.command(args);
        Said::of(command.envs(self.server.environment()).output().unwrap())
    }

    pub fn fs(&self, src: &Path, dst: &str) -> Said {
        self.run(&["fs", "--init", src.to_str().unwrap(), dst])
    }

    /// The program on a machine that knows nothing but where the copies are.
    pub fn elsewhere(&self, args: &[&str]) -> Said {
        let empty = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("HOME", empty.path()).env("TZ", "UTC");
        Said::of(command.envs(self.server.environment()).output().unwrap())
    }

    /// Restores a version elsewhere.
    pub fn restored(&self, at: &str, dst: &str) -> std::path::PathBuf {
        let target = self
            .home
            .path(&format!("restored-{}", uuid::Uuid::new_v4()));
        let url = format!("s3://{BUCKET}/here/{dst}");
        self.elsewhere(&["restore", "--at", at, &url, target.to_str().unwrap()])
            .ends(0);
        target
    }
}

fn puts(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|seen| seen.method == "PUT").collect()
}

/// Copies of a tree that changes.
fn generations(home: &Home, count: u64) -> Vec<std::path::PathBuf> {
    let make = |n| {
        let tree = home.path(&format!("was-{n}"));
        trees::release(&tree, n);
        trees::zoo(&tree.join("zoo"));
        tree
    };
    (1..=count).map(make).collect()
}

/// Makes the source what a generation is.
fn become_generation(src: &Path, generation: &Path) {
    let _ = fs::remove_dir_all(src);
    tool(
        "cp",
        &["-a", generation.to_str().unwrap(), src.to_str().unwrap()],
    );
}

#[test]
fn d1_every_version_comes_back_onto_an_empty_machine() {
    for store_type in ["rdiff", "tar"] {
        let site = Site::new("");
        let src = site.home.path("src");
        let generations = generations(&site.home, 4);
        for (number, generation) in generations.iter().enumerate() {
            become_generation(&src, generation);
            if number == 0 {
                site.run(&[
                    "fs-init",
                    "--type",
                    store_type,
                    src.to_str().unwrap(),
                    "home",
                ])
                .ends(0);
            }
            let said = site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
            assert!(
                said.out.contains("copied to s3://backups/here/home"),
                "{}",
                said.out
            );
        }
        for (number, generation) in generations.iter().enumerate() {
            assert_same_tree(
                generation,
                &site.restored(&format!("v{}", number + 1), "home"),
            );
        }
        // Looking works as on the store itself.
        let url = "s3://backups/here/home";
        for (here, there) in [
            (vec!["list", "--json", "home"], vec!["list", "--json", url]),
            (
                vec!["ls", "-lR", "--at", "v2", "home"],
                vec!["ls", "-lR", "--at", "v2", url],
            ),
            (
                vec!["diff", "--from", "v1", "home"],
                vec!["diff", "--from", "v1", url],
            ),
            (
                vec!["cat", "--at", "v3", "home", "src/mod0.rs"],
                vec!["cat", "--at", "v3", url, "src/mod0.rs"],
            ),
            (
                vec!["history", "home", "src/mod0.rs"],
                vec!["history", url, "src/mod0.rs"],
            ),
            (
                vec!["export", "--at", "v1", "home", "-"],
                vec!["export", "--at", "v1", url, "-"],
            ),
        ] {
            let (here, there) = (site.run(&here), site.elsewhere(&there));
            assert_eq!(
                (here.code, &here.out),
                (there.code, &there.out),
                "{}",
                there.err
            );
        }
        site.elsewhere(&["verify", "--deep", url]).ends(0);
        site.run(&["verify", "--remote", "offsite"]).ends(0);
        let listed = site.elsewhere(&["list", "s3://backups/here"]).ends(0);
        assert!(listed.out.starts_with("home: 4 versions"), "{}", listed.out);
        site.elsewhere(&["list", "s3://backups/nothing"])
            .ends(1)
            .complains("no store at s3://backups/nothing");
        // Nothing is to be done, and nothing is asked.
        site.server.take_seen();
        site.run(&["sync"]).ends(0);
        site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
        assert_eq!(site.server.take_seen(), []);
    }
}

#[test]
fn d2_the_state_is_the_last_thing_that_is_sent() {
    let site = Site::new("");
    let src = site.home.path("src");
    for (number, generation) in generations(&site.home, 3).iter().enumerate() {
        become_generation(&src, generation);
        site.server.take_seen();
        site.fs(&src, "home").ends(0);
        let seen = site.server.take_seen();
        let puts = puts(&seen);
        let is_state = |seen: &&&Seen| seen.path.starts_with("here/home/state/");
        let first = puts.iter().position(|seen| is_state(&seen)).unwrap();
        let is_other = |seen: &&&Seen| !is_state(seen);
        assert!(
            first > 0 && !puts[first..].iter().any(|seen| is_other(&seen)),
            "{puts:?}"
        );
        // The second one asks the server whether it refuses a second writer, once.
        assert_eq!(puts[first..].len(), if number == 0 { 2 } else { 1 });
        assert!(seen.iter().all(|seen| seen.method != "DELETE"));
        // Between the last file and the state everything is seen to be there.
        let last = seen
            .iter()
            .rposition(|seen| seen.method == "PUT" && !seen.path.contains("/state/"))
            .unwrap();
        let state = seen
            .iter()
            .position(|seen| seen.method == "PUT" && seen.path.contains("/state/"))
            .unwrap();
        assert!(
            seen[last..state]
                .iter()
                .any(|seen| seen.query.contains("list-type=2"))
        );
    }
}

#[test]
fn d3_a_file_of_the_same_length_is_told_by_its_name() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    let old = filetime::FileTime::from_unix_time(1_000_000_000, 0);
    for (version, word) in ["aaaa", "bbbb"].into_iter().enumerate() {
        fs::write(src.join("f"), word.repeat(100_000)).unwrap();
        // Older than before.
        let time = filetime::FileTime::from_unix_time(
            old.unix_seconds() - i64::try_from(version).unwrap(),
            0,
        );
        filetime::set_file_mtime(src.join("f"), time).unwrap();
        site.fs(&src, "home").ends(0);
    }
    for (at, word) in [("v1", "aaaa"), ("v2", "bbbb")] {
        let cat = site
            .elsewhere(&["cat", "--at", at, "s3://backups/here/home", "f"])
            .ends(0);
        assert_eq!(cat.out, word.repeat(100_000));
    }
}

#[test]
fn d10_a_lost_journal_is_made_again_from_the_remote() {
    let site = Site::new("");
    let src = site.home.path("src");
    trees::release(&src, 1);
    site.fs(&src, "home").ends(0);
    let journal = site.home.path("conf/sync/journal");
    for content in [
        None,
        Some(&b""[..]),
        Some(b"rubbish\n"),
        Some(b"2026 done offsite home 999 0123456789abcdef\n"),
    ] {
        match content {
            None => fs::remove_file(&journal).unwrap(),
            Some(content) => fs::write(&journal, content).unwrap(),
        }
        let listed = site.run(&["sync-state", "--list"]).ends(0);
        assert!(
            listed.out.contains("Must sync: home to offsite"),
            "{}",
            listed.out
        );
        site.run(&["sync-state", "--reset"])
            .ends(1)
            .complains("some stores must be copied");
        site.server.take_seen();
        site.run(&["sync"]).ends(0);
        let seen = site.server.take_seen();
        assert!(!seen.is_empty());
        assert!(
            puts(&seen).iter().all(|put| put.path.contains("/state/")),
            "files were sent again: {seen:?}"
        );
        assert_eq!(site.run(&["sync-state", "--list"]).ends(0).out, "");
    }
    site.run(&["sync-state", "--reset"]).ends(0);
    // Torn in the middle of its last line.
    trees::release(&src, 2);
    site.fs(&src, "home").ends(0);
    let content = fs::read(&journal).unwrap();
    fs::write(&journal, &content[..content.len() - 9]).unwrap();
    site.run(&["sync"]).ends(0);
    assert_eq!(site.run(&["sync-state", "--list"]).ends(0).out, "");
}

#[test]
fn d11_what_is_damaged_here_does_not_spoil_what_is_there() {
    let site = Site::new("");
    let src = site.home.path("src");
    trees::release(&src, 1);
    site.fs(&src, "home").ends(0);
    let before = tool(
        "find",
        &[
            site.server.bucket().to_str().unwrap(),
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "{}",
            "+",
        ],
    );
    let object = fs::read_dir(site.home.store("home").join("objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good = fs::read(&object).unwrap();
    // The remote lacks it, and here it is bad.
    let there = site
        .server
        .bucket()
        .join("here/home/objects")
        .join(object.file_name().unwrap());
    fs::rename(&there, site.home.path("aside")).unwrap();
    let mut bad = good.clone();
    bad[7] ^= 1;
    fs::write(&object, &bad).unwrap();
    site.run(&["sync", "home"])
        .ends(5)
        .complains("its content is not what its name says");
    assert!(!there.exists());
    // It is there and here it is bad: nothing is sent.
    fs::rename(site.home.path("aside"), &there).unwrap();
    site.run(&["sync", "home"]).ends(0);
    let after = tool(
        "find",
        &[
            site.server.bucket().to_str().unwrap(),
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "{}",
            "+",
        ],
    );
    assert_eq!(before, after);
}

#[test]
fn two_machines_with_one_store_the_second_is_refused() {
    let site = Site::new("");
    let src = site.home.path("src");
    trees::release(&src, 1);
    site.fs(&src, "home").ends(0);
    // A copy of everything, on another machine.
    let other = site.home.path("other");
    tool(
        "cp",
        &[
            "-a",
            site.home.path("root").to_str().unwrap(),
            other.to_str().unwrap(),
        ],
    );
    let conf = site.home.path("other-conf");
    tool(
        "cp",
        &[
            "-a",
            site.home.path("conf").to_str().unwrap(),
            conf.to_str().unwrap(),
        ],
    );
    let config = format!(
        "ROOT_PATH = '{}'\n{}",
        other.display(),
        site.server.config("offsite", "here")
    );
    fs::write(conf.join("config.toml"), config).unwrap();
    let on_other = |args: &[&str]| {
        let mut command = site.home.command(args);
        command
            .env("BTW_BACKUP_CONFIG_DIR", &conf)
            .envs(site.server.environment());
        Said::of(command.output().unwrap())
    };
    trees::release(&src, 2);
    site.fs(&src, "home").ends(0);
    trees::release(&src, 3);
    let said = on_other(&["fs", src.to_str().unwrap(), "home"]).ends(3);
    assert!(said.err.contains("another machine"), "{}", said.err);
    // Also when it is ahead.
    trees::release(&src, 4);
    on_other(&["fs", src.to_str().unwrap(), "home"])
        .ends(3)
        .complains("another machine");
    on_other(&["sync", "home"])
        .ends(1)
        .complains("another machine");
    assert_eq!(
        site.elsewhere(&["list", "s3://backups/here/home"])
            .ends(0)
            .out
            .lines()
            .count(),
        3
    );
    // Another store does not get there either.
    let third = Home::new();
    let config = format!(
        "ROOT_PATH = '{}'\n{}",
        third.path("root").display(),
        site.server.config("offsite", "here")
    );
    fs::write(third.path("conf/config.toml"), config).unwrap();
    let mut command = third.command(&["fs", "--init", src.to_str().unwrap(), "home"]);
    Said::of(command.envs(site.server.environment()).output().unwrap())
        .ends(3)
        .complains("holds the backups of another store");
    site.run(&["verify", "--deep", "--remote", "offsite", "home"])
        .ends(0);
}

#[test]
fn f8_keys_that_may_not_remove_suffice() {
    let site = Site::new("");
    let src = site.home.path("src");
    let states = "Cannot remove home/state/";
    site.server.rule(move |_, seen| {
        let is_allowed = matches!(&seen.method[..], "PUT" | "GET");
        (!is_allowed).then_some(Fault::Status(403))
    });
    for n in 1..=3 {
        trees::release(&src, n);
        site.fs(&src, "home").ends(0);
    }
    let denied = site
        .server
        .take_seen()
        .into_iter()
        .filter(|seen| seen.status == 403);
    assert_eq!(denied.count(), 0, "something else was tried");
    site.run(&["prune", "--remote", "offsite", "--now", "home"])
        .ends(1)
        .complains(states);
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
}

#[test]
fn i9_what_is_deleted_here_stays_there_until_it_is_pruned_there() {
    let site = Site::new("");
    let src = site.home.path("src");
    let generations = generations(&site.home, 4);
    for generation in &generations {
        become_generation(&src, generation);
        site.fs(&src, "home").ends(0);
    }
    let files = || {
        tool(
            "find",
            &[
                site.server.bucket().join("here").to_str().unwrap(),
                "-type",
                "f",
            ],
        )
        .lines()
        .count()
    };
    let before = files();
    site.run(&["delete", "--now", "home", "v2"]).ends(0);
    site.run(&["sync"]).ends(0);
    assert!(files() > before);
    // The newest state has it no more, an older one has.
    let url = "s3://backups/here/home";
    site.elsewhere(&["ls", "--at", "v2", url]).ends(1);
    let plan = site
        .run(&["prune", "--dry-run", "--now", "--remote", "offsite", "home"])
        .ends(0);
    assert!(plan.out.contains("has v2"), "{}", plan.out);
    site.run(&["prune", "--now", "--remote", "offsite", "home"])
        .ends(0);
    let kept = plan
        .out
        .lines()
        .find(|line| line.contains("has v2"))
        .unwrap();
    let number = kept.split_whitespace().nth(2).unwrap();
    let target = site.home.path("v2");
    site.elsewhere(&[
        "restore",
        "--state",
        number,
        "--at",
        "v2",
        url,
        target.to_str().unwrap(),
    ])
    .ends(0);
    assert_same_tree(&generations[1], &target);
    site.elsewhere(&["verify", "--deep", "--state", number, url])
        .ends(0);
    site.elsewhere(&["verify", "--deep", url]).ends(0);
    let log = fs::read_to_string(site.home.store("home").join("log.txt")).unwrap();
    assert!(
        log.contains("prune --remote s3://backups/here/home: states"),
        "{log}"
    );
    // A local store that lost almost everything does not shrink the copy: its state is older.
    let after = files();
    fs::remove_dir_all(site.home.store("home")).unwrap();
    site.run(&["fs", "--adopt", src.to_str().unwrap(), "home"])
        .ends(3)
        .complains("another store");
    assert_eq!(files(), after);
    // By rules everything else goes.
    site.run(&[
        "prune",
        "--now",
        "--remote",
        "offsite",
        "--keep-last",
        "1",
        "home",
    ])
    .ends(0);
    site.elsewhere(&["ls", "--state", number, "--at", "v2", url])
        .ends(1)
        .complains("has no state");
    assert_same_tree(&generations[3], &site.restored("latest", "home"));
    site.elsewhere(&["verify", "--deep", url]).ends(0);
}

#[test]
fn d7_a_listing_that_lacks_names_removes_nothing() {
    let site = Site::new("");
    let src = site.home.path("src");
    for n in 1..=3 {
        trees::release(&src, n);
        site.fs(&src, "home").ends(0);
    }
    let bucket = site.server.bucket().join("here/home");
    let files = || {
        tool("find", &[bucket.to_str().unwrap(), "-type", "f"])
            .lines()
            .count()
    };
    let before = files();
    // As a listing that ends too early.
    fs::rename(bucket.join("objects"), site.home.path("objects")).unwrap();
    let less = files();
    site.run(&["prune", "--now", "--remote", "offsite", "home"])
        .ends(1)
        .complains("Nothing was removed");
    assert_eq!(files(), less);
    fs::rename(site.home.path("objects"), bucket.join("objects")).unwrap();
    assert_eq!(files(), before);
    // An empty one.
    fs::rename(bucket.join("state"), site.home.path("state")).unwrap();
    site.run(&["prune", "--now", "--remote", "offsite", "home"])
        .ends(1)
        .complains("nothing was removed");
    fs::rename(site.home.path("state"), bucket.join("state")).unwrap();
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
    // One that ends before the newest state, which sorts last.
    let newest = bucket.join("state/0000000004");
    fs::rename(&newest, site.home.path("newest")).unwrap();
    for args in [
        &["prune", "--remote", "offsite", "home"][..],
        &["prune", "--now", "--remote", "offsite", "home/"],
    ] {
        site.run(args).ends(1).complains("Nothing was removed");
    }
    fs::rename(site.home.path("newest"), &newest).unwrap();
    assert_eq!(files(), before);
    // Without the journal, too, as long as the store is here.
    fs::remove_dir_all(site.home.path("conf/sync")).unwrap();
    site.run(&["sync", "home"]).ends(0);
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
}

#[test]
fn one_small_file_of_a_large_store_takes_at_most_eight_requests() {
    let site = Site::new("");
    let src = site.home.path("src");
    let mut random = trees::Random(7);
    for dir in 0..40 {
        fs::create_dir_all(src.join(format!("dir{dir}"))).unwrap();
        for file in 0..250 {
            fs::write(src.join(format!("dir{dir}/file{file}")), random.code(40)).unwrap();
        }
    }
    trees::sparse(&src.join("disk.img"), 64 << 20);
    trees::image(&src.join("image"), 40 << 20, 1);
    site.fs(&src, "home").ends(0);
    fs::write(src.join("dir17/file99"), "changed\n").unwrap();
    site.fs(&src, "home").ends(0);
    let mut counts = Vec::new();
    for at in ["v2", "v1"] {
        site.server.take_seen();
        let said = site
            .elsewhere(&["cat", "--at", at, "s3://backups/here/home", "dir17/file100"])
            .ends(0);
        assert_eq!(
            said.out,
            fs::read_to_string(src.join("dir17/file100")).unwrap()
        );
        let seen = site.server.take_seen();
        counts.push(seen.len());
        assert!(seen.len() <= 8, "{at}: {} requests: {seen:#?}", seen.len());
    }
    println!("requests for one small file: {counts:?}");
    site.server.take_seen();
    let target = site.home.path("one");
    site.elsewhere(&[
        "restore",
        "--path",
        "dir17/file100",
        "s3://backups/here/home",
        target.to_str().unwrap(),
    ])
    .ends(0);
    let seen = site.server.take_seen();
    assert!(seen.len() <= 8, "{} requests: {seen:#?}", seen.len());
}

#[test]
fn other_clients_list_and_fetch_it() {
    let site = Site::new("");
    let src = site.home.path("src");
    trees::release(&src, 1);
    site.fs(&src, "home").ends(0);
    trees::release(&src, 2);
    site.fs(&src, "home").ends(0);
    // s3cmd, with a configuration that this program understands, too.
    let host = site.server.endpoint.trim_start_matches("http://");
    let config = site.home.path("s3cfg");
    fs::write(&config, format!(
        "[default]\naccess_key = {KEY}\nsecret_key = {SECRET}\nhost_base = {host}\nhost_bucket = {host}\nuse_https = False\nsignature_v2 = False\nbucket_location = us-east-1\n"
    )).unwrap();
    let config = config.to_str().unwrap();
    let fetched = site.home.path("fetched/home");
    fs::create_dir_all(&fetched).unwrap();
    let listed = tool(
        "s3cmd",
        &["-c", config, "ls", "-r", "s3://backups/here/home/"],
    );
    assert!(listed.contains("state/0000000003"), "{listed}");
    for line in listed.lines() {
        let url = line.split_whitespace().last().unwrap();
        let path = fetched.join(url.strip_prefix("s3://backups/here/home/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        tool(
            "s3cmd",
            &["-c", config, "get", "-q", url, path.to_str().unwrap()],
        );
    }
    // What it fetched is a store.
    let conf = format!("ROOT_PATH = '{}'\n", site.home.path("fetched").display());
    fs::create_dir(site.home.path("conf2")).unwrap();
    fs::write(site.home.path("conf2/config.toml"), conf).unwrap();
    let conf2 = site.home.path("conf2");
    let fetched_run = |args: &[&str]| {
        let mut command = site.home.command(args);
        Said::of(
            command
                .env("BTW_BACKUP_CONFIG_DIR", &conf2)
                .output()
                .unwrap(),
        )
    };
    fetched_run(&["verify", "--deep", "home"]).ends(0);
    // The Python tool's keys, and its configuration of s3cmd.
    site.configure(&format!(
        "S3CMD_CONFIG = '{config}'\nS3_URI_PREFIX = 's3://backups/python/'\n"
    ));
    trees::release(&src, 3);
    let mut command = site.home.command(&["fs", src.to_str().unwrap(), "home"]);
    let said = Said::of(command.output().unwrap()).ends(0);
    assert!(
        said.out.contains("copied to s3://backups/python/home"),
        "{}",
        said.out
    );
    assert_eq!(
        tool("s3cmd", &["-c", config, "ls", "-r", "s3://backups/python/"])
            .lines()
            .count(),
        9
    );
}

#[test]
fn over_ssh_with_digests_of_the_other_side() {
    let (home, sshd) = (Home::new(), Sshd::start("LogLevel VERBOSE"));
    let config = format!(
        "ROOT_PATH = '{}'\n{}",
        home.path("root").display(),
        sshd.config("ssh")
    );
    fs::write(home.path("conf/config.toml"), &config).unwrap();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "home").ends(0);
    trees::release(&src, 2);
    let said = home.fs(&src, "home").ends(0);
    assert!(said.out.contains("copied to sftp://"), "{}", said.out);
    let target = home.path("back");
    home.run(&[
        "restore",
        "--remote",
        "ssh",
        "home",
        target.to_str().unwrap(),
    ])
    .ends(0);
    assert_same_tree(&src, &target);
    let commands = || {
        let log = fs::read_to_string(sshd.path("log")).unwrap();
        log.matches("Starting session: command").count()
    };
    assert_eq!(commands(), 0);
    home.run(&["verify", "--remote", "ssh", "home"]).ends(0);
    assert!(commands() > 0, "the other side was not asked for digests");
    home.run(&["verify", "--deep", "--remote", "ssh"]).ends(0);
    let object = fs::read_dir(sshd.path("there/home/objects"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&object, &bad).unwrap();
    home.run(&["verify", "--remote", "ssh", "home"]).ends(5);
    fs::write(&object, &good).unwrap();
    // What stays of an upload that was cut off goes with the next.
    let left = sshd.path("there/home/objects/tmp-left");
    fs::write(&left, "half").unwrap();
    trees::release(&src, 3);
    home.fs(&src, "home").ends(0);
    assert!(!left.exists());
    // D8: a host key that changed, a key that is not known, a full disk's answer: said at once, nothing asked.
    sshd.change_host_key();
    trees::release(&src, 4);
    let began = std::time::Instant::now();
    let said = home
        .fs(&src, "home")
        .ends(3)
        .complains("REMOTE HOST IDENTIFICATION HAS CHANGED");
    // Whoever has taken the host's place is not to be let in.
    assert!(!said.err.contains("put it there"), "{}", said.err);
    fs::write(
        home.path("conf/config.toml"),
        config.replace("/user\"", "/other\""),
    )
    .unwrap();
    home.run(&["sync"]).ends(1);
    assert!(began.elapsed().as_secs() < 20, "it waited for an answer");
    let listed = home.run(&["sync-state", "--list"]).ends(0);
    assert!(
        listed.out.contains("Must sync: home to ssh"),
        "{}",
        listed.out
    );
}
