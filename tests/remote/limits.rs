//! What is refused, what waits, and what is said at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::sshd::Sshd;
use crate::sync::Site;
use crate::tools::{Home, Said, assert_same_tree, is_root, skip, tool};
use crate::trees::{Random, release};

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random(11);
    (0..bytes)
        .map(|_| u8::try_from(random.below(256)).unwrap())
        .collect()
}

#[test]
fn a_bandwidth_limit_holds_and_others_see_what_goes_on() {
    let site = Site::new("max_upload = '500kB/s'\nparallel = 2\n");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("noise"), noise(40_000_000)).unwrap();
    let config = fs::read_to_string(site.home.path("conf/config.toml")).unwrap();
    site.configure(&format!(
        "{}manual = true\n",
        &config[config.find('[').unwrap()..]
    ));
    site.fs(&src, "home").ends(0);
    assert!(
        site.run(&["sync-state", "--list"])
            .out
            .contains("nothing is known to be there")
    );
    site.configure(&config[config.find('[').unwrap()..]);
    // Three objects: the second one waits for the first one's time.
    let mut command = site.home.command(&["sync", "home"]);
    let mut child = command.envs(site.server.environment()).spawn().unwrap();
    while site.server.seen_count() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    let listed = site.run(&["sync-state", "--list"]).ends(0);
    assert!(
        listed.out.contains("Must sync: home to offsite"),
        "{}",
        listed.out
    );
    site.run(&["sync", "home"])
        .ends(4)
        .complains("Another run is using");
    // Looking, and backing up, do not wait for it.
    fs::write(src.join("new"), "new").unwrap();
    site.run(&["list", "home"]).ends(0);
    let said = site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
    assert!(
        said.out.contains("another run is copying it to offsite"),
        "{}",
        said.out
    );
    assert!(began.elapsed() < Duration::from_secs(8), "something waited");
    assert!(
        child.try_wait().unwrap().is_none(),
        "40 MB were sent at once"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    // What was there already is not sent again.
    site.configure(&site.server.config("offsite", "here"));
    site.run(&["sync"]).ends(0);
    assert_same_tree(&src, &site.restored("latest", "home"));
}

#[test]
fn f6_ssh_gets_constants_and_checked_names_only() {
    let home = Home::new();
    let bin = home.path("bin");
    fs::create_dir(&bin).unwrap();
    let log = home.path("argv");
    fs::write(
        bin.join("ssh"),
        format!(
            "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\n' \"$word\"; done >> '{}'\nexit 255\n",
            log.display()
        ),
    )
    .unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |url: &str, args: &[&str]| {
        let config = format!(
            "ROOT_PATH = '{}'\n[remote.r]\nurl = '''{url}'''\nattempts = 1\n",
            home.path("root").display()
        );
        fs::write(home.path("conf/config.toml"), config).unwrap();
        let mut command = home.command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        Said::of(command.output().unwrap())
    };
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    let nasty = "sftp://ada@host.example/$(touch pwned)/`id`/a b;c/-oProxyCommand=x";
    run(nasty, &["fs", "--init", src.to_str().unwrap(), "home"]).ends(3);
    let said = fs::read_to_string(&log).unwrap();
    let words: Vec<&str> = said.lines().collect();
    let end = words.iter().position(|word| *word == "--").unwrap();
    assert_eq!(words[end + 1..], ["host.example", "sftp"], "{said}");
    assert!(!said.contains("pwned") && words.contains(&"BatchMode=yes"));
    fs::remove_file(&log).unwrap();
    for bad in [
        "sftp://-oProxyCommand=id/x",
        "sftp://a@-x/y",
        "sftp://a@b c/y",
        "sftp://$(id)/y",
    ] {
        run(bad, &["fs", src.to_str().unwrap(), "home"])
            .ends(3)
            .complains("[remote.r]");
        run("file:///tmp", &["list", bad]).ends(2);
    }
    assert!(!log.exists(), "ssh was started");
}

/// Is unmounted when it goes.
struct Mounted(std::path::PathBuf);
impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn d8_a_full_or_read_only_remote_is_said_and_the_copy_stays_good() {
    if !is_root() {
        return skip("a small file system needs root");
    }
    let (home, sshd) = (Home::new(), Sshd::start(""));
    let there = sshd.path("there");
    tool(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=3m",
            "none",
            there.to_str().unwrap(),
        ],
    );
    let _mounted = Mounted(there.clone());
    let disk = format!("[remote.disk]\nurl = \"file://{}/disk\"\n", there.display());
    let config = format!(
        "ROOT_PATH = '{}'\n{}",
        home.path("root").display(),
        sshd.config("ssh")
    );
    fs::write(home.path("conf/config.toml"), &config).unwrap();
    let src = home.path("src");
    release(&src, 1);
    home.fs(&src, "home").ends(0);
    let kept = home.path("kept");
    tool("cp", &["-a", src.to_str().unwrap(), kept.to_str().unwrap()]);
    fs::write(src.join("noise"), noise(4_000_000)).unwrap();
    home.fs(&src, "home")
        .ends(3)
        .complains("there is no room left");
    home.run(&["verify", "--deep", "--remote", "ssh", "home"])
        .ends(0);
    let target = home.path("back");
    home.run(&[
        "restore",
        "--remote",
        "ssh",
        "home",
        target.to_str().unwrap(),
    ])
    .ends(0);
    assert_same_tree(&kept, &target);
    let left = tool("find", &[there.to_str().unwrap(), "-name", "tmp-*"]);
    assert_eq!(left, "", "half a file is left");
    // The same on a disk of this machine.
    fs::create_dir(there.join("disk")).unwrap();
    fs::write(
        home.path("conf/config.toml"),
        format!("ROOT_PATH = '{}'\n{disk}", home.path("root").display()),
    )
    .unwrap();
    home.run(&["sync", "home"])
        .ends(1)
        .complains("No space left");
    assert_eq!(
        tool("find", &[there.to_str().unwrap(), "-name", "tmp-*"]),
        ""
    );
    tool("mount", &["-o", "remount,ro", there.to_str().unwrap()]);
    home.run(&["sync", "home"])
        .ends(1)
        .complains("Read-only file system");
    fs::write(home.path("conf/config.toml"), &config).unwrap();
    home.run(&["sync", "home"]).ends(1);
    tool(
        "mount",
        &["-o", "remount,rw,size=30m", there.to_str().unwrap()],
    );
    home.run(&["sync", "home"]).ends(0);
    home.run(&["verify", "--deep", "--remote", "ssh", "home"])
        .ends(0);
}

#[test]
fn what_is_wrong_with_a_remote_is_said_before_anything_is_sent() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    site.fs(&src, "home").ends(0);
    site.run(&["sync", "--remote", "nowhere"])
        .ends(2)
        .complains("There is no remote nowhere; there are: offsite");
    site.run(&["list", "--remote", "offsite", "s3://backups/here"])
        .ends(2)
        .complains("not by both");
    site.run(&["restore", "ftp://x/y", "/tmp/nowhere"])
        .ends(2)
        .complains("'ftp' is not known");
    // Wrong keys, a bucket that is not there.
    let mut command = site.home.command(&["sync", "--full"]);
    command
        .envs(site.server.environment())
        .env("AWS_SECRET_ACCESS_KEY", "wrong");
    Said::of(command.output().unwrap())
        .ends(1)
        .complains("SignatureDoesNotMatch");
    let url = "s3://another-bucket/x";
    site.run(&["list", url]).ends(1).complains("NoSuchBucket");
    for (line, word) in [
        ("unknown = 1", "unknown"),
        ("parallel = 0", "parallel"),
        ("url = 'x'", "url"),
    ] {
        site.configure(&format!(
            "{}{line}\n",
            site.server.config("offsite", "here")
        ));
        site.run(&["sync"]).ends(2).complains(word);
    }
    site.configure("");
    site.run(&["sync"])
        .ends(2)
        .complains("no remote is configured");
    // A remote that is not there harms no backup.
    site.configure(
        "[remote.gone]\nurl = 's3://backups/x'\nendpoint = 'http://127.0.0.1:1'\nattempts = 2\n",
    );
    fs::write(src.join("f"), "y").unwrap();
    let said = site.fs(&src, "home").ends(3);
    assert!(
        said.out.contains("v2") && said.err.contains("home was not copied to gone"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("a-secret-of-the-tests"));
}

#[test]
fn stores_that_a_remote_does_not_take_stay_here() {
    let site = Site::new("stores = ['home']\n");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    site.fs(&src, "home").ends(0);
    site.fs(&src, "vm/disk").ends(0);
    assert_eq!(site.run(&["sync-state", "--list"]).ends(0).out, "");
    let listed = site.elsewhere(&["list", "s3://backups/here"]).ends(0);
    assert!(
        listed.out.starts_with("home:") && listed.out.lines().count() == 1,
        "{}",
        listed.out
    );
    // Unless it is named.
    site.run(&["sync", "--remote", "offsite", "vm/disk"])
        .ends(0);
    let listed = site
        .elsewhere(&["list", "--json", "s3://backups/here"])
        .ends(0);
    let json: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(json["stores"][1]["path"], "s3://backups/here/vm/disk");
    site.elsewhere(&["verify", "s3://backups/here/vm/disk"])
        .ends(0);
}

#[test]
fn a_remote_that_moves_is_filled_anew() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    site.fs(&src, "home").ends(0);
    // The name stays, the place is another.
    site.configure(&site.server.config("offsite", "there/"));
    assert!(
        site.run(&["sync-state", "--list"])
            .ends(0)
            .out
            .contains("nothing is known to be there")
    );
    site.run(&["sync"]).ends(0);
    site.elsewhere(&["verify", "--deep", "s3://backups/there/home"])
        .ends(0);
    // And back: it is known what is there.
    site.configure(&site.server.config("offsite", "here"));
    assert_eq!(site.run(&["sync-state", "--list"]).ends(0).out, "");
}

#[test]
fn remotes_among_the_stores_and_nonsense_are_refused_and_harm_no_backup() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    let root = site.home.path("root");
    fs::create_dir(root.join("mirror")).unwrap();
    let mut number = 0;
    for (remote, word) in [
        (
            format!("[remote.a]\nurl = 'file://{}/mirror'\n", root.display()),
            "lie in each other",
        ),
        (
            format!("[remote.a]\nurl = 'file://{}'\n", root.display()),
            "lie in each other",
        ),
        (
            format!(
                "[remote.a]\nurl = 'file://{}'\n",
                site.home.dir.path().display()
            ),
            "lie in each other",
        ),
        ("S3_URI_PREFIX = 'nothing'\n".to_owned(), "S3_URI_PREFIX"),
        (
            "[remote.a]\nurl = 's3://b'\nunknwon = 1\n".to_owned(),
            "unknwon",
        ),
        ("[remote.a]\n".to_owned(), "url"),
    ] {
        site.configure(&remote);
        number += 1;
        fs::write(src.join("f"), number.to_string()).unwrap();
        let said = site.fs(&src, "home").ends(3).complains(word);
        assert!(said.out.contains(&format!("v{number} ")), "{}", said.out);
        site.run(&["sync"]).ends(2).complains(word);
        site.run(&["list"]).ends(0);
    }
    site.configure("S3_URI_PREFIX = ''\n");
    site.fs(&src, "home").ends(0);
    assert_eq!(fs::read_dir(root.join("mirror")).unwrap().count(), 0);
}

#[test]
fn what_is_not_there_is_no_success() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    site.fs(&src, "home").ends(0);
    site.configure(&site.server.config("offsite", "empty"));
    site.run(&["verify", "--remote", "offsite"])
        .ends(1)
        .complains("no store at");
    site.configure(&site.server.config("offsite", "here"));
    // A store that is pending and gone, and a disk that is not mounted.
    fs::rename(site.server.bucket(), site.server.dir.path().join("away")).unwrap();
    fs::write(src.join("f"), "y").unwrap();
    site.fs(&src, "home").ends(3);
    fs::rename(site.home.store("home"), site.home.path("gone")).unwrap();
    let listed = site.run(&["sync-state", "--list"]).ends(0);
    assert!(
        listed.out.contains("the store is not here"),
        "{}",
        listed.out
    );
    site.run(&["sync-state", "--reset"]).ends(1);
    fs::remove_dir(site.home.path("root")).unwrap();
    site.run(&["sync-state", "--list"])
        .ends(1)
        .complains("is its disk mounted?");
}

#[test]
fn f7_a_length_that_no_file_has_is_an_error() {
    let (home, sshd) = (Home::new(), Sshd::start(""));
    let there = sshd.path("there");
    for config in [
        sshd.config("r"),
        format!(
            "[remote.r]\nurl = 'file://{}'\nattempts = 1\n",
            there.display()
        ),
    ] {
        fs::write(
            home.path("conf/config.toml"),
            format!("ROOT_PATH = '{}'\n{config}", home.path("root").display()),
        )
        .unwrap();
        let src = home.path("src");
        let _ = fs::create_dir(&src);
        fs::write(src.join("f"), config.len().to_string()).unwrap();
        home.fs(&src, "home").ends(0);
        let state = there.join("home/state/0000000099");
        fs::File::create(&state).unwrap().set_len(10 << 40).unwrap();
        fs::write(src.join("f"), "another").unwrap();
        home.fs(&src, "home").ends(3).complains("longer than any");
        home.run(&["list", "--remote", "r", "home"])
            .ends(5)
            .complains("far too large");
        fs::remove_file(state).unwrap();
        home.run(&["sync"]).ends(0);
    }
}

#[test]
fn an_archive_that_somebody_put_together_there_does_not_hide_its_pieces() {
    let site = Site::new("");
    let src = site.home.path("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("f"), "x").unwrap();
    site.run(&["fs-init", "--type", "tar", src.to_str().unwrap(), "home"])
        .ends(0);
    site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
    let copy = site.server.bucket().join("here/home");
    let piece = tool("find", &[copy.to_str().unwrap(), "-name", "*.part-00000-*"]);
    let (archive, _) = piece.trim().split_once(".part-").unwrap();
    fs::write(archive, "half").unwrap();
    fs::write(src.join("f"), "y").unwrap();
    site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
    site.run(&["prune", "--now", "--remote", "offsite", "home"])
        .ends(0);
    assert!(std::path::Path::new(piece.trim()).exists());
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
}
