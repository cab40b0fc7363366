//! Bringing a store's copy in a remote up to its current state.
//!
//! What the state names and the remote lacks is sent, whatever its order; then everything is seen to be there; then the state
//! itself is published, and only that makes it count. So the copy is a whole store after every single request. Nothing that
//! counts is removed, and nothing is overwritten but what has another length than its name stands for.

mod lineage;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::digest::Digest;
use crate::error::{Error, RemoteError, RemoteFault, StoreError};
use crate::format::state::State;
use crate::remote::mirror::{Mirror, Sent};
use crate::remote::names::{Held, Listing};
use crate::report::Monitor;
use crate::store::{Store, collect};

/// Of so many of the files that were sent a part is read back.
const SAMPLE_FILES: usize = 4;

/// How a store is synced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only say what would be sent.
    pub dry_run: bool,
    /// Find out whether the remote refuses a second writer.
    pub probe: bool,
}

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The state that the remote now has, or would have.
    pub state: u64,
    /// When that state was made.
    pub time: Timestamp,
    /// The newest state that it had before.
    pub before: Option<u64>,
    /// Files that were sent, or would be.
    pub files: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Whether the remote refuses a second writer, if that was found out.
    pub is_exclusive: Option<bool>,
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_unchanged(&self) -> bool {
        self.files == 0 && self.before == Some(self.state)
    }
}

/// Syncs a store to its copy in a remote.
pub fn sync(
    store: &Store,
    mirror: &Mirror,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let _guard = store.lock_reader()?;
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let mut listing = mirror.list()?;
    let before = lineage::check(store, &state, &versions, mirror, &listing)?;
    let named = collect::files_of(store, &state, &versions)?;
    let missing = missing(store, &named, &listing)?;
    let bytes = missing.iter().map(|(_, len)| len).sum();
    let mut report = Report {
        state: state.number,
        time: state.time,
        before,
        files: missing.len() as u64,
        bytes,
        is_exclusive: None,
    };
    if options.dry_run || report.is_unchanged() {
        return Ok(report);
    }
    monitor.step("copying to the remote", Some(bytes));
    let sent = send(store, mirror, &missing, &listing, monitor)?;
    if !missing.is_empty() {
        listing = mirror.list()?;
        require_all(store, mirror, &named, &listing)?;
        check_sample(store, mirror, &state, &sent)?;
    }
    if before != Some(state.number) {
        publish(store, mirror, &state, options, &mut report)?;
    }
    for left in &listing.unfinished {
        // Of an upload that was cut off. Who may not remove anything leaves it there.
        let _ = mirror.remove(left);
    }
    Ok(report)
}

/// What of a store the remote lacks, or has with another length: paths and lengths, in the order in which they are sent.
fn missing(
    store: &Store,
    named: &BTreeSet<String>,
    listing: &Listing,
) -> Result<Vec<(String, u64)>, StoreError> {
    let order = ["objects", "manifests", "catalogs", "deltas", "versions"];
    let rank = |path: &str| {
        let dir = path.split('/').next().unwrap_or_default();
        order.iter().position(|area| *area == dir)
    };
    let mut missing = Vec::new();
    let readme = "README.txt".to_owned();
    for path in named.iter().chain([&readme]) {
        let len = match store.len_of(path) {
            // Copying tools may have left it out.
            Err(_) if *path == readme => continue,
            result => result?,
        };
        let held = listing.files.get(path).map(Held::len);
        let is_there = held == Some(len) || *path == readme && held.is_some();
        if !is_there {
            missing.push((path.clone(), len));
        }
    }
    missing.sort_by_key(|(path, _)| rank(path));
    Ok(missing)
}

/// Sends files, several at once, until one fails. Returns what was sent, by the names that it has there.
fn send(
    store: &Store,
    mirror: &Mirror,
    files: &[(String, u64)],
    listing: &Listing,
    monitor: &dyn Monitor,
) -> Result<Vec<Sent>, Error> {
    let queue = Mutex::new(files.iter());
    let (failed, sent) = (Mutex::new(None), Mutex::new(Vec::new()));
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let next = queue.lock().expect("no thread panics with it").next();
            let Some((path, len)) = next else { return };
            match mirror.upload(store, path, listing) {
                Ok(files) => {
                    sent.lock().expect("no thread panics with it").extend(files);
                    monitor.advance(*len);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut failed = failed.lock().expect("no thread panics with it");
                    failed.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..mirror.remote().limits().parallel.min(files.len()) {
            scope.spawn(work);
        }
    });
    match failed.into_inner().expect("all threads have ended") {
        Some(error) => Err(error),
        None => Ok(sent.into_inner().expect("all threads have ended")),
    }
}

/// A server that said "done" and a listing that has everything are two answers.
fn require_all(
    store: &Store,
    mirror: &Mirror,
    named: &BTreeSet<String>,
    listing: &Listing,
) -> Result<(), Error> {
    for path in named {
        let (len, held) = (store.len_of(path)?, listing.files.get(path).map(Held::len));
        if held != Some(len) {
            let detail = match held {
                None => "it was sent, but is not there".to_owned(),
                Some(held) => format!("it was sent with {len} bytes, but has {held}"),
            };
            return Err(Error::Remote(RemoteError {
                op: "rely on",
                path: path.clone(),
                remote: mirror.name().to_owned(),
                detail: format!("{detail}; the copy stays at its last state"),
                fault: RemoteFault::Other,
            }));
        }
    }
    Ok(())
}

/// Reads back some of what was sent, others each time.
fn check_sample(store: &Store, mirror: &Mirror, state: &State, sent: &[Sent]) -> Result<(), Error> {
    if sent.is_empty() {
        return Ok(());
    }
    // As good as chance, and another in each state.
    let seed = Digest::of(&state.number.to_le_bytes()).0;
    for word in seed.chunks_exact(8).take(SAMPLE_FILES) {
        let chance = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let index = usize::try_from(chance % sent.len() as u64).expect("below a length");
        mirror.check_sent(store, &sent[index], chance >> 8)?;
    }
    Ok(())
}

fn publish(
    store: &Store,
    mirror: &Mirror,
    state: &State,
    options: Options,
    report: &mut Report,
) -> Result<(), Error> {
    let content = store.state_text(state.number)?;
    match mirror.publish(state.number, &content) {
        Err(error) if error.fault == RemoteFault::Exists => {
            let there = mirror.state(state.number)?;
            if there != content {
                return Err(lineage::written_by_another(mirror, state.number));
            }
            // By another run of this machine, or by one whose answer was lost.
        }
        result => result?,
    }
    if options.probe {
        report.is_exclusive = mirror.is_exclusive(state.number, &content).ok();
    }
    Ok(())
}
