//! A simulated disk: remembers what was synced, loses the rest in a crash, fails at any call.
//!
//! What a crash may leave: each change of a directory that was not followed by a sync of that directory may be there or
//! not; a file's bytes written since its last sync may be there, missing, cut or garbage.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use btw_backup::store::disk::{Disk, DiskFile, DiskRead};

#[derive(Clone, Default)]
struct FileData {
    content: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Dir(String),
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn touches(&self, dir: &str) -> bool {
        let parent = |path: &str| {
            path.rsplit_once('/')
                .map_or("", |(parent, _)| parent)
                .to_owned()
        };
        match self {
            Self::Dir(path) | Self::Create(path, _) | Self::Remove(path) => parent(path) == dir,
            Self::Rename(from, to) => parent(from) == dir || parent(to) == dir,
        }
    }
}

/// What happens at the n-th call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops: that call and all later ones are not done.
    Crash { at: u64 },
    /// The call fails, or it and all later ones that change something.
    Error {
        at: u64,
        kind: io::ErrorKind,
        onward: bool,
    },
}

/// What survives a crash.
#[derive(Clone, Copy, Debug)]
pub enum Survival {
    /// Everything: the process died, not the machine.
    Everything,
    /// Only what was synced.
    Synced,
    /// All names, but of the files only what was synced.
    NamesOnly,
    /// All names, and files with their unsynced end cut in half and spoilt.
    Torn,
    /// Each unsynced change kept or lost by a coin.
    Coin(u64),
}

#[derive(Clone, Default)]
struct Inner {
    dirs: BTreeSet<String>,
    names: BTreeMap<String, usize>,
    files: Vec<FileData>,
    durable_dirs: BTreeSet<String>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Change>,
    calls: u64,
    fault: Option<Fault>,
    crashed: bool,
}

/// The disk. Cloning shares it; [`SimDisk::fork`] copies it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// An independent copy with no fault and the call counter at 0.
    pub fn fork(&self) -> Self {
        let mut inner = self.lock_inner().clone();
        (inner.calls, inner.fault, inner.crashed) = (0, None, false);
        Self(Arc::new(Mutex::new(inner)))
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock_inner().fault = fault;
    }

    /// Lets time pass: what was not synced has reached the disk by itself.
    pub fn settle(&self) {
        let mut inner = self.lock_inner();
        inner.pending.clear();
        (inner.durable_dirs, inner.durable_names) = (inner.dirs.clone(), inner.names.clone());
    }

    pub fn calls(&self) -> u64 {
        self.lock_inner().calls
    }

    /// Every file with its content, for comparing disks.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.lock_inner();
        inner
            .names
            .iter()
            .map(|(name, id)| (name.clone(), inner.files[*id].content.clone()))
            .collect()
    }

    /// Changes a file behind everybody's back.
    pub fn spoil(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock_inner();
        let id = inner.names[path];
        let file = &mut inner.files[id];
        change(&mut file.content);
        file.synced = file.content.clone();
    }

    /// The disk as it is found after a crash.
    pub fn after_crash(&self, survival: Survival) -> Self {
        let inner = self.lock_inner();
        let mut coin = Coin(match survival {
            Survival::Coin(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        });
        let (mut dirs, mut names) = (inner.durable_dirs.clone(), inner.durable_names.clone());
        for change in &inner.pending {
            let kept = match survival {
                Survival::Everything | Survival::NamesOnly | Survival::Torn => true,
                Survival::Synced => false,
                Survival::Coin(_) => coin.toss(),
            };
            if kept {
                apply(change, &mut dirs, &mut names);
            }
        }
        let files: Vec<FileData> = inner
            .files
            .iter()
            .map(|file| surviving(file, survival, &mut coin))
            .collect();
        let (durable_dirs, durable_names) = (dirs.clone(), names.clone());
        Self(Arc::new(Mutex::new(Inner {
            dirs,
            names,
            files,
            durable_dirs,
            durable_names,
            ..Inner::default()
        })))
    }

    /// Counts a call and lets the fault strike. Calls that only read are stopped, never failed, by "onward".
    fn call(&self, changes: bool) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock_inner();
        let stopped = || io::Error::other("the simulated machine has stopped");
        if inner.crashed {
            return Err(stopped());
        }
        inner.calls += 1;
        match inner.fault {
            Some(Fault::Crash { at }) if inner.calls >= at => {
                inner.crashed = true;
                Err(stopped())
            }
            Some(Fault::Error { at, kind, onward })
                if inner.calls == at || (onward && changes && inner.calls > at) =>
            {
                Err(kind.into())
            }
            _ => Ok(inner),
        }
    }
}

struct Coin(u64);

impl Coin {
    fn toss(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 64 == 0
    }
}

fn surviving(file: &FileData, survival: Survival, coin: &mut Coin) -> FileData {
    let (old, new) = (file.synced.len(), file.content.len());
    let content = match survival {
        Survival::Everything => file.content.clone(),
        Survival::Synced | Survival::NamesOnly => file.synced.clone(),
        Survival::Coin(_) if coin.toss() => file.content.clone(),
        Survival::Coin(_) if coin.toss() => file.synced.clone(),
        Survival::Torn | Survival::Coin(_) => {
            let mut cut = file.content[..old + (new - old) / 2].to_vec();
            if new > old && cut.len() > old {
                let last = cut.len() - 1;
                cut[last] ^= 0xff;
            }
            cut
        }
    };
    FileData {
        synced: content.clone(),
        content,
    }
}

fn apply(change: &Change, dirs: &mut BTreeSet<String>, names: &mut BTreeMap<String, usize>) {
    match change {
        Change::Dir(path) => {
            dirs.insert(path.clone());
        }
        Change::Create(path, id) => {
            names.insert(path.clone(), *id);
        }
        Change::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Change::Remove(path) => {
            names.remove(path);
        }
    }
}

impl Inner {
    fn change(&mut self, change: Change) {
        apply(&change, &mut self.dirs, &mut self.names);
        self.pending.push(change);
    }

    fn id(&self, path: &str) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut inner = self.call(true)?;
        if !inner.dirs.contains(dir) {
            inner.change(Change::Dir(dir.to_owned()));
        }
        Ok(())
    }

    fn create(&self, path: &str, append: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.call(true)?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !parent.is_empty() && !inner.dirs.contains(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = match inner.names.get(path) {
            Some(id) if append => *id,
            Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                inner.files.push(FileData::default());
                let id = inner.files.len() - 1;
                inner.change(Change::Create(path.to_owned(), id));
                id
            }
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            id,
        }))
    }

    fn publish(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let mut inner = self.call(true)?;
        inner.id(from)?;
        if !replace && inner.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut inner = self.call(true)?;
        let pending = std::mem::take(&mut inner.pending);
        // A file that was made in another directory and renamed into this one: journals keep the order of the two.
        let moved = pending.iter().filter_map(|change| match change {
            Change::Rename(from, _) if change.touches(dir) => Some(from.clone()),
            _ => None,
        });
        let moved: BTreeSet<String> = moved.collect();
        for change in pending {
            let made = matches!(&change, Change::Create(path, _) if moved.contains(path));
            if made || change.touches(dir) {
                let Inner {
                    durable_dirs,
                    durable_names,
                    ..
                } = &mut *inner;
                apply(&change, durable_dirs, durable_names);
            } else {
                inner.pending.push(change);
            }
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.call(true)?;
        inner.id(path)?;
        inner.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let inner = self.call(false)?;
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let names = inner
            .names
            .range(prefix.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&prefix));
        let below = names
            .chain(&inner.dirs)
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter(|name| !name.contains('/'));
        Ok(below.map(str::to_owned).collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskRead>> {
        let inner = self.call(false)?;
        let id = inner.id(path)?;
        let len = inner.files[id].content.len() as u64;
        Ok(Box::new(SimRead {
            disk: self.clone(),
            id,
            len,
        }))
    }

    fn lock(&self, path: &str, _exclusive: bool, _wait: bool) -> io::Result<Option<Box<dyn Send>>> {
        self.call(false)?.id(path)?;
        Ok(Some(Box::new(())))
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl DiskFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.call(true)?;
        inner.files[self.id].content.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.call(true)?;
        let file = &mut inner.files[self.id];
        file.synced = file.content.clone();
        Ok(())
    }
}

struct SimRead {
    disk: SimDisk,
    id: usize,
    len: u64,
}

impl DiskRead for SimRead {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.call(false)?;
        let start = usize::try_from(offset).unwrap();
        let bytes = inner.files[self.id]
            .content
            .get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
