//! Everything that goes wrong between here and there, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use btw_backup::catalog::Version;
use btw_backup::error::Error;
use btw_backup::ops::sync::{Options, Report, sync};
use btw_backup::ops::verify;
use btw_backup::remote::mirror::Mirror;
use btw_backup::remote::open;
use btw_backup::report::Silent;
use btw_backup::store::Store;
use btw_backup::store::disk::LocalDisk;

use crate::conformance::settings;
use crate::server::{Fault, Seen, Server};
use crate::sync::Site;
use crate::tools::{Home, tool};
use crate::trees::{Random, release};

/// A store at two times, and a server that has the copy of the first.
struct Scene {
    server: Server,
    home: Home,
    /// Versions of the first time.
    first: Vec<Version>,
    /// Its state.
    first_state: u64,
}

fn local(path: &Path) -> Store {
    Store::new(Arc::new(LocalDisk::open(path).unwrap()), "home")
}

fn versions(store: &Store) -> Vec<Version> {
    store.versions(&store.current().unwrap()).unwrap()
}

impl Scene {
    fn new() -> Self {
        let (home, server) = (Home::new(), Server::start());
        let src = home.path("src");
        let mut random = Random(3);
        let mut backup = |n: u64| {
            release(&src, n);
            let noise: Vec<u8> = (0..100_000)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect();
            fs::write(src.join("noise"), noise).unwrap();
            home.fs(&src, "home").ends(0);
        };
        (1..=3).for_each(&mut backup);
        let (root, before) = (home.path("root/home"), home.path("before"));
        tool(
            "cp",
            &["-a", root.to_str().unwrap(), before.to_str().unwrap()],
        );
        (4..=5).for_each(&mut backup);
        let store = local(&before);
        let scene = Self {
            first: versions(&store),
            first_state: store.current().unwrap().number,
            server,
            home,
        };
        sync(&store, &scene.mirror("base"), Options::default(), &Silent).unwrap();
        scene
    }

    fn mirror(&self, dir: &str) -> Mirror {
        let remote = open(&settings(&self.server, "s3://backups")).unwrap();
        Mirror::new(remote, dir, dir)
    }

    /// A copy of the copy.
    fn run(&self, name: &str) -> Mirror {
        let bucket = self.server.bucket();
        let (from, to) = (bucket.join("base"), bucket.join(name));
        tool("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
        self.mirror(name)
    }

    fn now(&self) -> PathBuf {
        self.home.path("root/home")
    }

    fn sync(&self, mirror: &Mirror) -> Result<Report, Error> {
        let options = Options {
            dry_run: false,
            probe: true,
        };
        sync(&local(&self.now()), mirror, options, &Silent)
    }

    /// A machine that has nothing gets all versions of the first sync, and no others but those of the second.
    fn require(&self, mirror: &Mirror, what: &str) {
        let store = mirror.store(None);
        let found = versions(&store);
        let contents = |versions: &[Version]| -> Vec<_> {
            versions
                .iter()
                .map(|version| (version.seq, version.catalog.digest))
                .collect()
        };
        let (found_contents, first) = (contents(&found), contents(&self.first));
        assert!(
            found_contents.starts_with(&first),
            "{what}: {found_contents:?}"
        );
        require_sound(&store, what);
    }

    /// The next sync completes, and everything is there.
    fn require_next(&self, mirror: &Mirror, what: &str) {
        self.sync(mirror)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let store = mirror.store(None);
        assert_eq!(versions(&store), versions(&local(&self.now())), "{what}");
        require_sound(&store, what);
        assert!(mirror.list().unwrap().unfinished.is_empty());
    }
}

fn report(store: &Store) -> verify::Report {
    let state = store.current().unwrap();
    let options = verify::Options {
        only: None,
        deep: true,
        sample: None,
    };
    verify::verify(store, &state, &versions(store), &options, &Silent).unwrap()
}

fn require_sound(store: &Store, what: &str) {
    let report = report(store);
    assert!(
        report.is_sound(),
        "{what}: {:?} {:?}",
        report.faults,
        report.broken
    );
}

/// The requests of a sync in which nothing goes wrong.
fn requests(scene: &Scene) -> Vec<Seen> {
    let mirror = scene.run("clean");
    scene.server.take_seen();
    scene.sync(&mirror).unwrap();
    scene.server.take_seen()
}

/// Whether all is to be tried that takes long.
fn is_full() -> bool {
    std::env::var_os("BTW_TEST_FULL").is_some()
}

fn is_state(seen: &Seen) -> bool {
    seen.path.contains("/state/")
}

#[test]
fn d1_d4_cut_at_every_request_and_every_64_kib() {
    let scene = Scene::new();
    let mut points: Vec<(usize, Fault)> = Vec::new();
    for (number, seen) in requests(&scene).iter().enumerate() {
        let cuts = (0..seen.body_bytes.max(1)).step_by(64 << 10);
        points.extend(cuts.map(|bytes| (number, Fault::CutAfter(bytes))));
        points.push((number, Fault::CutAnswer));
        let statuses: &[u16] = if is_full() {
            &[403, 404, 409, 429, 500, 503]
        } else {
            &[403, 503]
        };
        points.extend(
            statuses
                .iter()
                .map(|status| (number, Fault::Status(*status))),
        );
    }
    let (mut held, mut failed) = (0, 0);
    for (run, (number, fault)) in points.iter().enumerate() {
        let what = format!("request {number}: {fault:?}");
        let mirror = scene.run(&format!("cut-{run}"));
        let (at, planned) = (*number, fault.clone());
        scene
            .server
            .rule(move |number, _| (number == at).then(|| planned.clone()));
        failed += usize::from(scene.sync(&mirror).is_err());
        scene.server.no_rule();
        // What a process has in memory of a remote does not count.
        let fresh = scene.mirror(&format!("cut-{run}"));
        scene.require(&fresh, &what);
        scene.require_next(&fresh, &what);
        fs::remove_dir_all(scene.server.bucket().join(format!("cut-{run}"))).unwrap();
        held += 1;
    }
    println!(
        "cut or refused: {held} of {} held ({failed} syncs failed); each was completed by the next",
        points.len()
    );
    assert!(failed * 10 > points.len() * 8 && points.len() > 60);
}

#[test]
fn d4_what_passes_is_tried_again() {
    let scene = Scene::new();
    let requests = requests(&scene).len();
    let mut held = 0;
    for fault in [
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(500),
        Fault::CutAfter(0),
        Fault::CutAnswer,
    ] {
        let mirror = scene.run(&format!("again-{held}"));
        let mut settings = settings(&scene.server, "s3://backups");
        settings.limits.attempts = 4;
        let mirror = Mirror::new(
            open(&settings).unwrap(),
            mirror.path("").trim_end_matches('/'),
            "again",
        );
        // Every third request fails.
        let planned = fault.clone();
        scene
            .server
            .rule(move |number, _| (number % 3 == 1).then(|| planned.clone()));
        scene
            .sync(&mirror)
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(scene.server.take_seen().len() > requests);
        scene.server.no_rule();
        assert_eq!(
            versions(&mirror.store(None)),
            versions(&local(&scene.now()))
        );
        held += 1;
    }
    println!("tried again: {held} of 5");
}

#[test]
fn d5_a_server_that_lies_is_found_out() {
    let scene = Scene::new();
    let all = requests(&scene);
    let puts: Vec<&Seen> = all.iter().filter(|seen| seen.method == "PUT").collect();
    let first_state = puts.iter().position(|seen| is_state(seen)).unwrap();
    let (mut at_once, mut by_verify, mut count) = (0, 0, 0);
    for (run, put) in puts[..=first_state].iter().enumerate() {
        for (kind, fault) in [
            Fault::Lie,
            Fault::Truncate(put.body_bytes / 2),
            Fault::Other,
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("lie-{run}-{kind}");
            let what = format!("{} {fault:?}", put.path);
            let mirror = scene.run(&name);
            // Several files are sent at once, so it is told by its name.
            let file = put.path.split_once('/').unwrap().1.to_owned();
            let planned = fault.clone();
            let mut is_done = false;
            scene.server.rule(move |_, seen| {
                let is_it = seen.method == "PUT" && seen.path.ends_with(&file) && !is_done;
                is_done |= is_it;
                is_it.then(|| planned.clone())
            });
            let result = scene.sync(&mirror);
            scene.server.no_rule();
            count += 1;
            if is_state(put) {
                // The states before can be named in any case.
                if result.is_ok() {
                    // It was seen and written once more.
                    assert_eq!(
                        versions(&mirror.store(None)),
                        versions(&local(&scene.now())),
                        "{what}"
                    );
                    require_sound(&mirror.store(None), &what);
                }
                let before = mirror.store(None).as_of(Some(scene.first_state));
                require_sound(&before, &what);
                at_once += 1;
            } else if result.is_err() {
                scene.require(&scene.mirror(&name), &what);
                at_once += 1;
            } else {
                // Of the right length and not in the sample.
                assert_eq!(fault, Fault::Other, "{what}");
                let found = report(&scene.mirror(&name).store(None));
                let faults: BTreeSet<&str> =
                    found.faults.iter().map(|fault| &fault.file[..]).collect();
                assert!(
                    faults.iter().any(|file| put.path.ends_with(file)),
                    "{what}: {faults:?}"
                );
                by_verify += 1;
            }
        }
    }
    println!("lies: {at_once} of {count} found at once, {by_verify} by verify --remote");
    assert!(at_once + by_verify == count && by_verify <= puts.len());
}

#[test]
fn f7_answers_without_end_and_redirects() {
    let scene = Scene::new();
    let mirror = scene.run("hostile");
    scene
        .server
        .rule(|_, seen| (seen.method == "GET").then_some(Fault::Endless));
    let began = Instant::now();
    let error = scene.sync(&mirror).unwrap_err().to_string();
    assert!(
        error.contains("longer than any that is expected"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(50));
    // Nobody else is asked, whatever the server says: the request has a signature.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let to = format!("http://{}/backups", other.local_addr().unwrap());
    scene
        .server
        .rule(move |_, _| Some(Fault::Redirect(to.clone())));
    let error = scene.sync(&mirror).unwrap_err().to_string();
    assert!(error.contains("redirects are not followed"), "{error}");
    let asked = other
        .accept()
        .is_ok_and(|(mut socket, _)| socket.read(&mut [0]).is_ok());
    assert!(!asked, "somebody else was asked");
    scene.server.no_rule();
    scene.require_next(&mirror, "afterwards");
    // Plain HTTP to another machine is refused.
    let mut settings = settings(&scene.server, "s3://backups");
    settings.s3.endpoint = Some("http://192.0.2.1:9000".into());
    let error = open(&settings).err().unwrap().to_string();
    assert!(error.contains("has no TLS"), "{error}");
}

#[test]
fn d6_a_killed_sync_leaves_nothing_half() {
    let site = Site::new("");
    let src = site.home.path("src");
    release(&src, 1);
    site.fs(&src, "home").ends(0);
    let mut random = Random(5);
    let mut kills = 0;
    for round in 0..6 {
        let noise: Vec<u8> = (0..3_000_000)
            .map(|_| u8::try_from(random.below(256)).unwrap())
            .collect();
        fs::write(src.join("noise"), noise).unwrap();
        let mut command = site.home.command(&["fs", src.to_str().unwrap(), "home"]);
        let mut child = command.envs(site.server.environment()).spawn().unwrap();
        // At each another request.
        site.server.take_seen();
        let began = Instant::now();
        while site.server.seen_count() <= round && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let uploads = tool(
            "find",
            &[
                site.server.dir.path().to_str().unwrap(),
                "-name",
                "*upload*",
            ],
        );
        assert_eq!(uploads, "", "an upload in parts was begun");
        site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
            .ends(0);
        site.run(&["sync"]).ends(0);
        site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
            .ends(0);
    }
    println!("killed: {kills} of 6");
}

/// Bytes on the way: what the store grew by, and no more.
#[test]
fn what_is_sent_is_what_the_store_grew_by() {
    let scene = Scene::new();
    let mirror = scene.run("bytes");
    let before = mirror.list().unwrap();
    scene.sync(&mirror).unwrap();
    let after = mirror.list().unwrap();
    let new = after
        .entries
        .iter()
        .filter(|(path, _)| !before.entries.contains_key(*path));
    let grown: u64 = new.map(|(_, len)| len).sum();
    let sent = mirror.remote().traffic().sent_bytes;
    println!("sent {sent} bytes for {grown} new ones");
    // The state goes twice the first time: see `is_exclusive`.
    let state = after
        .entries
        .iter()
        .rfind(|(path, _)| path.starts_with("state/"))
        .unwrap()
        .1;
    assert_eq!(sent, grown + state);
}
