//! `<config-dir>/run/`: how the last runs went, and a lock so that there is one at a time.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::write;
use crate::error::{Error, StoreError};

/// How the last runs went. It is lost without harm but for what `status` and notifiers know of the past.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The end of the last run, whatever it did.
    pub ended: Option<Timestamp>,
    /// The last time of each task, by its name (`fs etc`, `sync`).
    pub tasks: BTreeMap<String, TaskRecord>,
    /// The last time that each notifier was used.
    pub notifiers: BTreeMap<String, NotifierRecord>,
}

/// How a task went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// When it ended.
    pub time: Timestamp,
    /// As the table of exit codes has it.
    pub exit_code: u8,
    /// What it said last, or what was wrong.
    pub text: String,
    /// Since when it does not go well, if it does not.
    pub since: Option<Timestamp>,
}

/// How a notifier did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifierRecord {
    /// When it was used.
    pub time: Timestamp,
    /// Why nobody was told, if so.
    pub error: Option<String>,
}

/// The place of the record.
pub struct RunState {
    dir: PathBuf,
}

impl RunState {
    /// The one of a configuration. Nothing is made yet.
    pub fn new(config_dir: &Path) -> Self {
        Self {
            dir: config_dir.join("run"),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("record.json")
    }

    /// What is recorded; nothing if there is no record, or none that can be understood.
    pub fn read(&self) -> Record {
        let text = fs::read(self.path()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Replaces the record.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(record).expect("plain data");
        self.make_dir()?;
        write(&self.path(), &format!("{text}\n"))
    }

    fn make_dir(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.dir).map_err(|error| Error::file("create", &self.dir, error))
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Takes the lock of runs; held until the result is dropped.
    pub fn lock(&self, now: Timestamp) -> Result<Lock, Error> {
        self.make_dir()?;
        let path = self.lock_path();
        let failed = |error| Error::file("lock", &path, error);
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {
                let died = self.written();
                // Since when it is held: nothing depends on it.
                let _ = lock
                    .set_len(0)
                    .and_then(|()| (&lock).write_all(now.to_string().as_bytes()));
                Ok(Lock { file: lock, died })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Running(self.written()).into()),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn written(&self) -> Option<Timestamp> {
        fs::read_to_string(self.lock_path()).ok()?.parse().ok()
    }

    fn is_held(&self) -> bool {
        let lock = File::open(self.lock_path());
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Since when a run is at work, if one is.
    pub fn held_since(&self) -> Option<Timestamp> {
        self.written().filter(|_| self.is_held())
    }

    /// When the last run was begun, if it did not come to its end.
    pub fn died(&self) -> Option<Timestamp> {
        self.written().filter(|_| !self.is_held())
    }
}

/// The lock of runs.
pub struct Lock {
    file: File,
    /// When the last run was begun, if it did not come to its end.
    pub died: Option<Timestamp>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It has come to its end.
        let _ = self.file.set_len(0);
    }
}
