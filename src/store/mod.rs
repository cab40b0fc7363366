//! A store: one directory that holds the versions of one source.
//!
//! Everything in it is immutable but `log.txt`, the cache and the locks. [`commit`] makes a state, [`collect`]
//! removes what no state names, [`stream`] reads versions back, [`packer`], [`tree`] and [`delta`] write.

pub mod archive;
mod area;
pub mod catalogs;
pub mod codec;
pub mod collect;
pub mod commit;
mod decoding;
pub mod delta;
pub mod disk;
pub mod file;
pub mod fold;
pub mod heads;
pub mod manifests;
pub mod packer;
pub mod pieces;
mod read;
mod readme;
mod reserve;
pub mod sequence;
pub mod staging;
pub mod stream;
pub mod tree;

pub use area::{Area, state_path};

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::legacy::is_legacy;
use crate::format::scan::{self, ScanCache};
use crate::format::state::{self, State};
use crate::format::verified::Verified;
use crate::format::version;
use disk::{Disk, DiskRead};

const LOCK: &str = "lock";
const READERS: &str = "readers";
const README: &str = "README.txt";
const LOG: &str = "log.txt";
/// What the log was before it became too long.
const OLD_LOG: &str = "log.old.txt";
/// Some years of nightly runs.
const LOG_MAX_BYTES: u64 = 1 << 20;
/// Where repair puts what was damaged.
pub const ASIDE: &str = "damaged";
const SCAN_CACHE: &str = "cache/scan";
const VERIFIED: &str = "cache/verified";
const SCAN_CACHE_MAX_BYTES: usize = 2 << 30;

/// Kept while a store is written or read.
pub type Guard = Option<Box<dyn Send>>;

/// A file of the store that is open, with its path.
type LastRead = Option<(String, Arc<dyn DiskRead>)>;

/// An open store.
#[derive(Clone)]
pub struct Store {
    disk: Arc<dyn Disk>,
    /// How the user calls it.
    name: String,
    /// The objects that pages of manifests name, by the page's digest: they are asked for several times in a run.
    named: Arc<Mutex<HashMap<Digest, Arc<HashSet<Digest>>>>>,
    /// The file that was read last: pages of one pack are read one after the other.
    last: Arc<Mutex<LastRead>>,
    /// The state that counts instead of the current one.
    as_of: Option<u64>,
}

/// What stands in a directory that is to be a store.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing, or the beginnings of a store whose creation was interrupted.
    Empty,
    /// A store.
    Store,
    /// Something else; an example is named.
    Foreign(String),
}

impl Store {
    /// The store on `disk`, called `name` in messages. Nothing is read yet.
    pub fn new(disk: Arc<dyn Disk>, name: &str) -> Self {
        Self {
            disk,
            name: name.to_owned(),
            named: Arc::default(),
            last: Arc::default(),
            as_of: None,
        }
    }

    /// The same store as an older state says, to look into.
    #[must_use]
    pub fn as_of(self, number: Option<u64>) -> Self {
        Self {
            as_of: number,
            ..self
        }
    }

    /// How the user calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Looks at what is there.
    pub fn presence(&self) -> Result<Presence, StoreError> {
        if !self.state_numbers()?.is_empty() {
            return Ok(Presence::Store);
        }
        let top = self.list_top()?;
        if let Some(orphan) = top.iter().find(|name| archive::is_archive(name)) {
            return Err(without_state(orphan.clone()));
        }
        let ours = |name: &str| {
            [LOCK, READERS, README, LOG, OLD_LOG, ASIDE].contains(&name)
                || Area::ALL.iter().any(|area| area.dir() == name)
        };
        // The ancestors' files are named before others, because something can be done about them.
        let mut foreign = top.iter().filter(|name| !ours(name));
        let foreign = foreign
            .clone()
            .find(|name| is_legacy(name))
            .or(foreign.next());
        if let Some(foreign) = foreign {
            return Ok(Presence::Foreign(foreign.clone()));
        }
        for area in [
            Area::Objects,
            Area::Deltas,
            Area::Catalogs,
            Area::Manifests,
            Area::Versions,
        ] {
            if let Some(orphan) = self
                .list(area)?
                .into_iter()
                .find(|name| !name.starts_with(file::TEMPORARY))
            {
                return Err(without_state(format!("{}/{orphan}", area.dir())));
            }
        }
        Ok(Presence::Empty)
    }

    /// Makes the files that a store needs before its first state. Can be repeated. The caller holds the writers' lock.
    pub fn create(&self) -> Result<(), StoreError> {
        for area in Area::ALL {
            self.disk
                .create_dir(area.dir())
                .map_err(|error| StoreError::io("create", area.dir(), error))?;
        }
        self.create_empty(READERS)?;
        self.create_once(README, readme::TEXT.as_bytes())?;
        self.sync_dir("")
    }

    /// Makes again what a copying tool may have left out: empty directories and empty files.
    pub fn complete(&self) -> Result<(), StoreError> {
        let top = self.list_top()?;
        let mut needed = Area::ALL
            .iter()
            .map(|area| area.dir())
            .chain([READERS, README]);
        if needed.all(|name| top.iter().any(|found| found == name)) {
            Ok(())
        } else {
            self.create()
        }
    }

    fn create_empty(&self, path: &str) -> Result<(), StoreError> {
        self.disk
            .create(path, true)
            .map(|_| ())
            .map_err(|error| StoreError::io("create", path, error))
    }

    fn create_once(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        if self
            .disk
            .open(path)
            .is_ok_and(|file| file.len() == content.len() as u64)
        {
            return Ok(());
        }
        let temporary = format!("state/{}{path}", file::TEMPORARY);
        let _ = self.disk.remove(&temporary);
        let create = || {
            let mut file = self.disk.create(&temporary, false)?;
            file.write(content)?;
            file.sync()?;
            self.disk.publish(&temporary, path, true)
        };
        create().map_err(|error| StoreError::io("create", path, error))
    }

    /// Takes the writers' lock, also in a directory that is only to become a store.
    pub fn lock_writer(&self, wait: bool) -> Result<Guard, StoreError> {
        self.create_empty(LOCK)?;
        self.lock(LOCK, true, wait)
    }

    /// Takes a share of the readers' lock: nothing is removed while it is held.
    pub fn lock_reader(&self) -> Result<Guard, StoreError> {
        match self.lock(READERS, false, true) {
            // A copy without it, perhaps one that cannot be written to: then nobody removes anything there either.
            Err(StoreError::Damaged { .. }) => match self.create_empty(READERS) {
                Ok(()) => self.lock(READERS, false, true),
                Err(_) => Ok(None),
            },
            result => result,
        }
    }

    fn lock(&self, path: &str, exclusive: bool, wait: bool) -> Result<Guard, StoreError> {
        let guard = self
            .disk
            .lock(path, exclusive, wait)
            .map_err(|error| StoreError::io("lock", path, error))?;
        if guard.is_none() {
            Err(StoreError::Locked(self.name.clone()))
        } else {
            Ok(guard)
        }
    }

    /// The current state: the one with the highest number. A damaged one is never passed over.
    pub fn current(&self) -> Result<State, StoreError> {
        let newest = match self.as_of {
            None => self.state_numbers()?.last().copied(),
            number => number,
        };
        let number = newest.ok_or_else(|| {
            StoreError::damaged(Area::State.dir(), "there is no state; is this a store?")
        })?;
        self.state(number)
    }

    /// The state with this number.
    pub fn state(&self, number: u64) -> Result<State, StoreError> {
        let path = state_path(number);
        let state = state::decode(&self.read_all(&path)?)
            .map_err(|error| StoreError::format(&path, &error))?;
        if state.number == number {
            Ok(state)
        } else {
            Err(StoreError::damaged(path, "it is another state"))
        }
    }

    /// The numbers of the states there are, ascending.
    pub fn state_numbers(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers: Vec<u64> = self
            .list(Area::State)?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All versions of a state, oldest first, those in version files too.
    pub fn versions(&self, state: &State) -> Result<Vec<Version>, StoreError> {
        let mut versions = Vec::new();
        for file in &state.archived {
            let path = Area::Versions.path(file.name);
            let raw = self.read_all(&path)?;
            if Digest::of(&raw) != file.name {
                return Err(StoreError::damaged(
                    path,
                    "its content is not what its name says",
                ));
            }
            versions.extend(
                version::decode_versions(&raw)
                    .map_err(|error| StoreError::format(&path, &error))?,
            );
        }
        versions.extend(state.versions.iter().cloned());
        Ok(versions)
    }

    /// Adds a line to `log.txt`, which stays the user's: nothing depends on it.
    pub fn log(&self, now: Timestamp, text: &str) -> Result<(), StoreError> {
        // What programs say may have lines of its own.
        let text = text.replace("\n  ", "; ").replace('\n', "; ");
        let line = format!("{}: {text}\n", now.strftime("%Y-%m-%dT%H:%M:%S"));
        let write = || {
            let is_full = (self.disk.open(LOG)).is_ok_and(|log| log.len() > LOG_MAX_BYTES);
            if is_full {
                self.disk.publish(LOG, OLD_LOG, true)?;
            }
            self.disk.create(LOG, true)?.write(line.as_bytes())
        };
        write().map_err(|error| StoreError::io("write", LOG, error))
    }

    /// The scan cache, if there is a sound one.
    pub fn scan_cache(&self) -> Option<ScanCache> {
        scan::decode(
            &self
                .read_bounded(SCAN_CACHE, SCAN_CACHE_MAX_BYTES as u64)
                .ok()?,
            SCAN_CACHE_MAX_BYTES,
        )
    }

    /// Replaces the scan cache. It is not synced: what a crash leaves of it is recognised by its digest.
    pub fn save_scan_cache(&self, cache: &ScanCache) -> Result<(), StoreError> {
        let temporary = format!("{}/{}scan", Area::Cache.dir(), file::TEMPORARY);
        let save = || {
            self.disk
                .create(&temporary, false)?
                .write(&scan::encode(cache))?;
            self.disk.publish(&temporary, SCAN_CACHE, true)
        };
        save().map_err(|error| StoreError::io("write", SCAN_CACHE, error))
    }

    /// Remembers that the store was verified.
    pub fn record_verified(&self, verified: &Verified) -> Result<(), StoreError> {
        let temporary = format!("{}/{}verified", Area::Cache.dir(), file::TEMPORARY);
        // Copies may have come without it.
        let _ = self.disk.create_dir(Area::Cache.dir());
        let _ = self.disk.remove(&temporary);
        let save = || {
            let text = verified.encode();
            self.disk
                .create(&temporary, false)?
                .write(text.as_bytes())?;
            self.disk.publish(&temporary, VERIFIED, true)
        };
        save().map_err(|error| StoreError::io("write", VERIFIED, error))
    }

    /// When the store was verified last, if that is known.
    pub fn verified(&self) -> Option<Verified> {
        let text = self.read_bounded(VERIFIED, 16 << 20).ok()?;
        String::from_utf8_lossy(&text).parse().ok()
    }

    pub(crate) fn list(&self, area: Area) -> Result<Vec<String>, StoreError> {
        self.disk
            .list(area.dir())
            .map_err(|error| StoreError::io("list", area.dir(), error))
    }

    /// The names in the store's own directory.
    pub(crate) fn list_top(&self) -> Result<Vec<String>, StoreError> {
        self.disk
            .list("")
            .map_err(|error| StoreError::io("list", "the directory", error))
    }

    pub(crate) fn sync_dir(&self, dir: &str) -> Result<(), StoreError> {
        self.disk
            .sync_dir(dir)
            .map_err(|error| StoreError::io("sync", if dir.is_empty() { "." } else { dir }, error))
    }

    pub(crate) fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.disk
            .remove(path)
            .map_err(|error| StoreError::io("remove", path, error))
    }
}

fn without_state(file: String) -> StoreError {
    StoreError::damaged(
        file,
        "there are data but no state; restore the state directory from a copy",
    )
}
