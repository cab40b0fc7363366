//! `<config-dir>/sync/`: the journal of what is to be copied to remotes, and locks so that a store is copied to a remote by
//! one run at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::digest::Digest;
use crate::error::{Error, StoreError};
use crate::format::journal::{Copy, Event, Journal, encode};

/// A journal longer than this is written anew.
const COMPACT_LINES: usize = 2000;

/// The journal and its place.
pub struct SyncState {
    dir: PathBuf,
}

impl SyncState {
    /// The one of a configuration. Nothing is made yet.
    pub fn new(config_dir: &Path) -> Self {
        Self {
            dir: config_dir.join("sync"),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// What is recorded; `None` if there is no journal, so that nothing is known.
    pub fn read(&self) -> Result<Option<Journal>, Error> {
        match fs::read(self.path()) {
            Ok(content) => Ok(Some(Journal::replay(&content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", self.path(), error)),
        }
    }

    /// Records something: it is on the disk when this returns.
    pub fn record(&self, time: Timestamp, event: &Event) -> Result<(), Error> {
        self.change(|path| {
            let mut journal = File::options().create(true).append(true).open(path)?;
            let before = fs::read(path)?;
            // A line that was cut off must not spoil this one.
            let mut line = if before.last().is_some_and(|last| *last != b'\n') {
                "\n".to_owned()
            } else {
                String::new()
            };
            line.push_str(&encode(time, event));
            journal.write_all(line.as_bytes())?;
            journal.sync_all()?;
            let content = Journal::replay(&before);
            if content.lines < COMPACT_LINES {
                return Ok(());
            }
            let mut content = content;
            content.apply(time, event.clone());
            replace(path, content.compact(time).as_bytes())
        })
    }

    /// Forgets everything, so that the next sync asks the remotes.
    pub fn reset(&self) -> Result<(), Error> {
        self.change(|path| replace(path, b""))
    }

    fn change(&self, change: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
        let path = self.path();
        let work = || {
            fs::create_dir_all(&self.dir)?;
            let lock = open_lock(&self.dir.join("journal.lock"))?;
            lock.lock()?;
            change(&path)?;
            File::open(&self.dir)?.sync_all()
        };
        work().map_err(|error| Error::file("write", &path, error))
    }

    /// Takes the lock for one store and one remote; held until the result is dropped.
    pub fn lock(&self, copy: &Copy, wait: bool) -> Result<File, Error> {
        let name = Digest::of(format!("{}\0{}", copy.remote, copy.dst).as_bytes());
        let path = self.dir.join(format!("{}.lock", &name.to_string()[..16]));
        let failed = |error| Error::file("lock", &path, error);
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let lock = open_lock(&path).map_err(failed)?;
        if wait {
            lock.lock().map_err(failed)?;
            return Ok(lock);
        }
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(format!(
                "{} and the remote {}",
                copy.dst, copy.remote
            ))
            .into()),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
