//! What every kind of remote must do, the one in memory included.

use std::collections::BTreeMap;

use btw_backup::digest::Digest;
use btw_backup::error::RemoteFault;
use btw_backup::remote::{
    Access, FarDigests, Limits, Place, Put, Remote, Settings, SshAccess, open,
};

use crate::memory::Memory;
use crate::server::{KEY, SECRET, Server};
use crate::sshd::Sshd;

/// How a bucket of the server is reached from within the tests.
pub fn settings(server: &Server, url: &str) -> Settings {
    Settings {
        name: url.to_owned(),
        place: Place::parse(url).unwrap(),
        s3: Access {
            endpoint: Some(server.endpoint.clone()),
            key: Some((KEY.into(), SECRET.into(), None)),
            ..Access::default()
        },
        ssh: SshAccess::default(),
        limits: Limits {
            attempts: 1,
            ..Limits::default()
        },
    }
}

fn of_sshd(sshd: &Sshd) -> Settings {
    Settings {
        name: "there".into(),
        place: Place::parse(&sshd.url()).unwrap(),
        s3: Access::default(),
        ssh: SshAccess {
            identity: Some(sshd.path("user")),
            known_hosts: Some(sshd.path("known")),
        },
        limits: Limits::default(),
    }
}

fn of_directory(path: &std::path::Path) -> Settings {
    Settings {
        name: "disk".into(),
        place: Place::parse(&format!("file://{}", path.display())).unwrap(),
        s3: Access::default(),
        ssh: SshAccess::default(),
        limits: Limits::default(),
    }
}

fn listed(remote: &dyn Remote, prefix: &str) -> BTreeMap<String, u64> {
    let entries = remote.list(prefix).unwrap();
    let count = entries.len();
    let listed: BTreeMap<String, u64> = entries
        .into_iter()
        .map(|entry| (entry.path, entry.len))
        .collect();
    assert_eq!(listed.len(), count, "a name stands there twice");
    listed
}

fn names(remote: &dyn Remote, prefix: &str) -> Vec<String> {
    listed(remote, prefix).into_keys().collect()
}

pub fn conforms(remote: &dyn Remote, has_digests: bool) {
    let fault = |result: Result<Vec<u8>, btw_backup::error::RemoteError>| result.unwrap_err().fault;
    let long: Vec<u8> = (0..9_000_000_u32)
        .flat_map(u32::to_le_bytes)
        .take(32 << 20)
        .collect();
    let odd = "a b/ü%2F+'$(x)/state/0000000001";
    // Nothing is there.
    assert!(names(remote, "").is_empty() && names(remote, "store/").is_empty());
    assert_eq!(fault(remote.read("store/x", None)), RemoteFault::Missing);
    remote.remove("store/x").unwrap();
    // What is written is there, whole.
    remote
        .write("store/objects/one", b"12345", Put::Replace)
        .unwrap();
    remote.write("store/objects/one2", b"", Put::New).unwrap();
    remote.write("store/long", &long, Put::Replace).unwrap();
    remote.write(odd, b"odd", Put::New).unwrap();
    assert_eq!(remote.read("store/objects/one", None).unwrap(), b"12345");
    assert_eq!(remote.read("store/objects/one2", None).unwrap(), b"");
    assert!(remote.read("store/long", None).unwrap() == long);
    assert_eq!(remote.read(odd, None).unwrap(), b"odd");
    // Parts of it.
    assert_eq!(remote.read("store/objects/one", Some(1..3)).unwrap(), b"23");
    assert_eq!(
        remote.read("store/objects/one", Some(0..5)).unwrap(),
        b"12345"
    );
    let (from, to) = (20_000_001, 25_000_000);
    assert!(remote.read("store/long", Some(from..to)).unwrap() == long[20_000_001..25_000_000]);
    assert!(
        remote.read("store/objects/one", Some(3..9)).is_err(),
        "it ends before"
    );
    assert_eq!(
        fault(remote.read("store/objects/none", Some(0..1))),
        RemoteFault::Missing
    );
    // Lists are by beginnings of paths.
    assert_eq!(
        names(remote, "store/objects/"),
        ["store/objects/one", "store/objects/one2"]
    );
    assert_eq!(names(remote, "store/objects/one2"), ["store/objects/one2"]);
    assert_eq!(
        names(remote, "store/o"),
        ["store/objects/one", "store/objects/one2"]
    );
    assert_eq!(names(remote, "").len(), 4);
    assert_eq!(listed(remote, "store/long")["store/long"], 32 << 20);
    assert_eq!(names(remote, "a b/"), [odd]);
    // One that is there is replaced, or is in the way.
    remote
        .write("store/objects/one", b"67", Put::Replace)
        .unwrap();
    let taken = remote.write("store/objects/one", b"89", Put::New);
    assert_eq!(taken.unwrap_err().fault, RemoteFault::Exists);
    assert_eq!(remote.read("store/objects/one", None).unwrap(), b"67");
    // Many at once, and one name wins once.
    let wins = std::thread::scope(|scope| {
        let write = |number: u8| {
            let won = remote
                .write("store/state/1", &[number; 1000], Put::New)
                .is_ok();
            remote
                .write(
                    &format!("many/{number}"),
                    &vec![number; 70_000],
                    Put::Replace,
                )
                .unwrap();
            won
        };
        let threads: Vec<_> = (0..16)
            .map(|number| scope.spawn(move || write(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(wins, 1);
    let state = remote.read("store/state/1", None).unwrap();
    assert_eq!(state, [state[0]; 1000]);
    assert_eq!(names(remote, "many/").len(), 16);
    assert!(
        names(remote, "").iter().all(|name| !name.contains("tmp-")),
        "something is left"
    );
    // The other side's digests, if it has any.
    let paths = ["store/long".to_owned(), odd.to_owned()];
    let expected = vec![Digest::of(&long), Digest::of(b"odd")];
    match remote.digests(&paths).unwrap() {
        Some(FarDigests::Blake3(digests)) => assert_eq!(digests, expected),
        Some(FarDigests::Sha256(digests)) => assert_eq!(digests.len(), 2),
        None => assert!(!has_digests),
    }
    let gone = ["store/none".to_owned()];
    assert_eq!(remote.digests(&gone).unwrap(), None);
    // Gone is gone.
    remote.remove("store/objects/one").unwrap();
    assert_eq!(names(remote, "store/objects/"), ["store/objects/one2"]);
}

#[test]
fn memory_conforms() {
    conforms(&Memory::default(), false);
}

#[test]
fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&*open(&of_directory(dir.path())).unwrap(), false);
    let missing = open(&of_directory(&dir.path().join("unmounted"))).unwrap();
    let error = missing.write("x", b"", Put::New).unwrap_err();
    assert!(error.to_string().contains("mounted"), "{error}");
}

#[test]
fn a_bucket_conforms() {
    let server = Server::start();
    conforms(&*open(&settings(&server, "s3://backups")).unwrap(), false);
    conforms(
        &*open(&settings(&server, "s3://backups/a prefix/b")).unwrap(),
        false,
    );
}

#[test]
fn sftp_conforms() {
    let sshd = Sshd::start("");
    conforms(&*open(&of_sshd(&sshd)).unwrap(), true);
}
