//! A small source that changes, a clock that is turned, and what must hold of a store.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use btw_backup::catalog::{Content, Kind, StoreType, Version};
use btw_backup::digest::Digest;
use btw_backup::dump::{Dump, Started, Summary, Verdict};
use btw_backup::error::Error;
use btw_backup::ops::backup::{Detection, Options, Report, Source, Tree, backup};
use btw_backup::plan::chain::ChainPolicy;
use btw_backup::report::Silent;
use btw_backup::store::catalogs::CatalogReader;
use btw_backup::store::codec::Knobs;
use btw_backup::store::disk::Disk;
use btw_backup::store::stream::VersionStream;
use btw_backup::store::{Store, collect};
use btw_backup::tree::select::Selection;
use jiff::{SignedDuration, Timestamp};

pub const START: i64 = 1_780_000_000;

/// A pseudo-random byte text that compresses a little.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"abcdefghijklmnopqrstuvwxyz012345"[usize::try_from(state >> 59).unwrap()]
    };
    (0..len).map(|_| next()).collect()
}

/// Five files, one of them dump-like and of more than one block.
pub fn tree(root: &Path, generation: u64) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root.join("d")).unwrap();
    let mut dump = text(1, 150_000);
    for change in 0..generation {
        let at = usize::try_from(change * 40_000 + 17).unwrap() % dump.len();
        dump.splice(at..at + 10, text(100 + change, 300));
    }
    let files: [(&str, Vec<u8>); 5] = [
        ("a", text(2, 3_000)),
        ("d/dump", dump),
        ("d/empty", Vec::new()),
        (
            if generation.is_multiple_of(2) {
                "d/moves"
            } else {
                "moved"
            },
            text(4, 9_000),
        ),
        (
            "log",
            text(5, 1_000 + 500 * usize::try_from(generation).unwrap()),
        ),
    ];
    for (name, content) in files {
        fs::write(root.join(name), content).unwrap();
        filetime::set_file_mtime(
            root.join(name),
            filetime::FileTime::from_unix_time(START - 1_000, 5),
        )
        .unwrap();
    }
    for dir in ["d", ""] {
        filetime::set_file_mtime(
            root.join(dir),
            filetime::FileTime::from_unix_time(START - 1_000, 5),
        )
        .unwrap();
    }
}

/// Small frames and objects, so that a small source has several.
pub const SMALL: Knobs = Knobs {
    frame_bytes: 16 << 10,
    object_bytes: 24 << 10,
    tamper: |_, _| {},
};

pub fn options(source: &Path, hour: i64, count: u64, fulls_kept: usize) -> Options {
    Options {
        source: Source::Tree(Box::new(Tree {
            path: source.to_path_buf(),
            selection: Selection::default(),
            detection: Detection::Stat {
                read_all_span: SignedDuration::from_hours(24 * 7),
            },
        })),
        source_name: b"/source".to_vec(),
        host: "host".into(),
        store_type: StoreType::Rdiff,
        chain: ChainPolicy {
            max_incremental_count: count,
            max_incremental_span: SignedDuration::from_hours(24),
            fulls_kept,
        },
        allow_empty: false,
        adopt: false,
        expected: None,
        now: Timestamp::from_second(START + hour * 3600).unwrap(),
        knobs: SMALL,
    }
}

/// A dump that is in memory.
#[derive(Debug)]
struct Bytes(&'static str, Vec<u8>);

impl Dump for Bytes {
    fn name(&self) -> &'static str {
        self.0
    }

    fn start(&self) -> Result<Started, Error> {
        Ok(Started {
            output: Box::new(Cursor::new(self.1.clone())),
            verdict: Box::new(Always),
        })
    }
}

struct Always;

impl Verdict for Always {
    fn finish(self: Box<Self>, _: &Summary<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// A dump of rows of which a few change, go and come with each generation.
pub fn rows(generation: u64) -> Vec<u8> {
    let mut dump = Vec::new();
    for row in generation * 7..2000 + generation * 5 {
        let written = if row % 97 < generation { generation } else { 0 };
        dump.extend(format!("{row}\t").bytes());
        dump.extend(text(row * 16 + written, 60));
        dump.push(b'\n');
    }
    dump
}

/// The options for the backup of a dump.
pub fn dump_options(dump: Vec<u8>, hour: i64, count: u64) -> Options {
    named_dump_options("dump", dump, hour, count)
}

/// The same for one of another name.
pub fn named_dump_options(name: &'static str, dump: Vec<u8>, hour: i64, count: u64) -> Options {
    Options {
        source: Source::Dump(Arc::new(Bytes(name, dump))),
        ..options(Path::new(""), hour, count, 1)
    }
}

pub fn run(disk: Arc<dyn Disk>, options: &Options) -> Result<Report, Error> {
    let store = Store::new(disk, "sim");
    let _guard = store.lock_writer(false)?;
    backup(&store, options, &Silent)
}

pub fn versions(disk: Arc<dyn Disk>) -> Result<Vec<Version>, String> {
    let store = Store::new(disk, "sim");
    if store.state_numbers().map_err(|e| e.to_string())?.is_empty() {
        return Ok(Vec::new());
    }
    let state = store.current().map_err(|e| e.to_string())?;
    store.versions(&state).map_err(|e| e.to_string())
}

/// The digest of each version's whole stream, every member checked against its catalog on the way.
pub fn streams(disk: Arc<dyn Disk>) -> Result<BTreeMap<u64, Digest>, String> {
    let store = Store::new(Arc::clone(&disk), "sim");
    let versions = versions(disk)?;
    let mut found = BTreeMap::new();
    for index in 0..versions.len() {
        let stream = VersionStream::open(&store, &versions, index).map_err(|e| e.to_string())?;
        let bytes = stream.read(0..stream.len()).map_err(|e| e.to_string())?;
        check_members(&store, &versions[index], &bytes)?;
        found.insert(versions[index].seq, Digest::of(&bytes));
    }
    Ok(found)
}

/// Compares every block of a version's stream with its catalog.
pub fn check_members(store: &Store, version: &Version, bytes: &[u8]) -> Result<(), String> {
    let mut members = CatalogReader::open(store, &version.catalog).map_err(|e| e.to_string())?;
    let mut count = 0;
    while let Some((offset, member)) = members.next_member().map_err(|e| e.to_string())? {
        count += 1;
        for block in member.placed_blocks(offset) {
            let range = usize::try_from(block.offset).unwrap()
                ..usize::try_from(block.offset + block.len).unwrap();
            if bytes.get(range).map(Digest::of) != Some(block.digest) {
                return Err(format!(
                    "v{}: {:?} is wrong",
                    version.seq,
                    String::from_utf8_lossy(&member.path)
                ));
            }
        }
        assert!(member.kind == Kind::Regular || member.content == Content::default());
    }
    if count == version.members {
        Ok(())
    } else {
        Err(format!("v{} has {count} members", version.seq))
    }
}

/// What no state names, and temporary files and staging records.
pub fn leftovers(disk: &Arc<dyn Disk>) -> Result<Vec<String>, String> {
    let store = Store::new(Arc::clone(disk), "sim");
    let state = store.current().map_err(|e| e.to_string())?;
    let mut left = collect::leftovers(&store, &state).map_err(|e| e.to_string())?;
    for area in btw_backup::store::Area::ALL {
        let names = disk.list(area.dir()).map_err(|e| e.to_string())?;
        let staging = area == btw_backup::store::Area::Staging;
        left.extend(
            names
                .into_iter()
                .filter(|name| staging || name.starts_with("tmp-")),
        );
    }
    let old = store
        .state_numbers()
        .map_err(|e| e.to_string())?
        .into_iter()
        .filter(|number| *number != state.number);
    left.extend(old.map(|number| format!("state {number}")));
    Ok(left)
}

pub fn source(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("src")
}
