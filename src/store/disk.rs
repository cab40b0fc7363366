//! The store's way to the disk: one small trait, and the only code that creates, renames, syncs and removes its files.
//!
//! Paths are relative to the store and made of names that this program gives (`objects/<digest>`), never of anything
//! read from the store or the source.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags,
};
use rustix::process::{Gid, Uid};

use crate::digest::Digest;
use crate::tree::beneath::{self, DIR_FLAGS};
use crate::tree::meta::Meta;

/// What a store needs of a disk. Tests put a simulated one in its place that loses what was not synced.
pub trait Disk: Send + Sync {
    /// Makes a directory, mode 0700; an existing one is fine.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Opens a file for writing, mode 0600: a new one, or with `append` one that may exist.
    fn create(&self, path: &str, append: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file; with `replace` over an existing one, else it fails if there is one.
    fn publish(&self, from: &str, to: &str, replace: bool) -> io::Result<()>;
    /// Makes names created, renamed and removed in a directory durable. `""` is the store itself.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names in a directory; a missing directory has none.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens a regular file for reading.
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskRead>>;
    /// Is told which parts of files will be read soon. A disk needs no warning.
    fn expect(&self, _places: &mut dyn Iterator<Item = FilePart>) {}
    /// The BLAKE3 of files where it can be had without reading them here, in their order.
    fn digests(&self, paths: &[String]) -> Vec<Option<Digest>> {
        vec![None; paths.len()]
    }
    /// Locks an existing file until the result is dropped. `None` if another holds it and `wait` is false.
    fn lock(&self, path: &str, exclusive: bool, wait: bool) -> io::Result<Option<Box<dyn Send>>>;
}

/// A part of a file: path and bytes.
pub type FilePart = (String, Range<u64>);

/// A file being written.
pub trait DiskFile: Send {
    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read.
pub trait DiskRead: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `buffer` from `offset` on; it is an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A directory of the machine's file system.
pub struct LocalDisk {
    root: OwnedFd,
    owner: Option<Owner>,
}

/// The user and group that everything in a store is given to.
pub type Owner = (Uid, Gid);

const DIR_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

impl LocalDisk {
    /// Opens the directory of a store; a symbolic link is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        Ok(Self { root, owner: None })
    }

    /// Makes the directory of a store, mode 0700, and its missing parents below `root`, each durable in its parent.
    /// What is created, now and later, is given to `owner`.
    pub fn create(root: &Path, below: &Path, owner: Option<Owner>) -> io::Result<Self> {
        let mut dir = fs::open(
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for name in below {
            match fs::mkdirat(&dir, name, DIR_MODE) {
                Ok(()) => {
                    give(&dir, name, owner)?;
                    fs::fsync(&dir)?;
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            dir = fs::openat(
                &dir,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                Mode::empty(),
            )?;
        }
        Ok(Self { root: dir, owner })
    }

    /// Gives everything in the store to its owner, if the store itself is not yet: it is given last, so that an
    /// interrupted run is taken up again. The caller holds the writers' lock.
    pub fn bring_over(&self) -> io::Result<()> {
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        let now = fs::fstat(&self.root)?;
        if (now.st_uid, now.st_gid) == (user.as_raw(), group.as_raw()) {
            return Ok(());
        }
        for name in beneath::names(&self.root)? {
            let dir = match fs::openat(&self.root, &name, DIR_FLAGS, Mode::empty()) {
                Ok(dir) => dir,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    give(&self.root, &*name, self.owner)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for inner in beneath::names(&dir)? {
                give(&dir, &*inner, self.owner)?;
            }
            give_handle(&dir, self.owner)?;
        }
        Ok(fs::fchown(&self.root, Some(user), Some(group))?)
    }

    /// What the store's own directory, what is in it, and its states are; names relative to the store.
    pub fn parts(&self) -> io::Result<Vec<(String, Meta)>> {
        let mut parts = vec![(String::new(), Meta::of_open(&self.root)?)];
        for (dir, prefix) in [("", ""), ("state", "state/")] {
            let Ok(opened) = self.dir(dir) else { continue };
            for name in beneath::names(&opened)? {
                match Meta::of(&opened, &name) {
                    Ok(meta) => parts.push((format!("{prefix}{}", name.to_string_lossy()), meta)),
                    // A backup that runs beside removes old states and temporary files.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(parts)
    }

    /// Opens below the store without following any link, whoever may have put one there.
    fn open_beneath(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match fs::openat2(&self.root, path, flags, mode, resolve) {
            Err(rustix::io::Errno::NOSYS) => self.open_by_component(path, flags, mode),
            result => Ok(result?),
        }
    }

    /// For kernels before 5.6: the store's paths have at most one directory.
    fn open_by_component(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        match path.split_once('/') {
            None => Ok(fs::openat(&self.root, path, flags, mode)?),
            Some((dir, name)) => {
                let dir_flags =
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let dir = fs::openat(&self.root, dir, dir_flags, Mode::empty())?;
                Ok(fs::openat(&dir, name, flags, mode)?)
            }
        }
    }

    fn dir(&self, dir: &str) -> io::Result<OwnedFd> {
        let name = if dir.is_empty() { "." } else { dir };
        self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }
}

/// Gives a name in a directory, be it a link, to the owner: by a handle, and not a file that has other names, as whoever
/// owns the directory may have linked somebody else's file there.
fn give(dir: &OwnedFd, name: impl rustix::path::Arg, owner: Option<Owner>) -> io::Result<()> {
    if owner.is_none() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    give_handle(&fs::openat(dir, name, flags, Mode::empty())?, owner)
}

fn give_handle(handle: &OwnedFd, owner: Option<Owner>) -> io::Result<()> {
    let Some((user, group)) = owner else {
        return Ok(());
    };
    let meta = Meta::of_open(handle)?;
    if (meta.uid, meta.gid) == (user.as_raw(), group.as_raw()) {
        return Ok(());
    }
    if meta.kind == FileType::RegularFile && meta.names != 1 {
        return Err(io::Error::other(
            "a file of the store has other names: it is not given away",
        ));
    }
    Ok(fs::chownat(
        handle,
        c"",
        Some(user),
        Some(group),
        AtFlags::EMPTY_PATH,
    )?)
}

/// Directory and name of a path of the store.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Disk for LocalDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        match fs::mkdirat(&self.root, dir, DIR_MODE) {
            // One that is there may have been left by a run that was killed before it could give it away.
            Ok(()) | Err(rustix::io::Errno::EXIST) => give(&self.root, dir, self.owner),
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, path: &str, append: bool) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let make = || {
            let file = self.open_beneath(
                path,
                flags | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND,
                FILE_MODE,
            )?;
            give_handle(&file, self.owner)?;
            Ok(file)
        };
        let file = if append {
            // What is there already is not given to anybody: see `bring_over`.
            let open = || self.open_beneath(path, flags | OFlags::APPEND, Mode::empty());
            match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make().or_else(|error: io::Error| match error.kind() {
                        // Another run was faster.
                        io::ErrorKind::AlreadyExists => open(),
                        _ => Err(error),
                    })?
                }
                result => result?,
            }
        } else {
            make()?
        };
        require_regular(&file)?;
        Ok(Box::new(LocalFile(File::from(file))))
    }

    fn publish(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let (from_dir, to_dir) = (self.dir(from_dir)?, self.dir(to_dir)?);
        if replace {
            return Ok(fs::renameat(&from_dir, from_name, &to_dir, to_name)?);
        }
        match fs::renameat_with(
            &from_dir,
            from_name,
            &to_dir,
            to_name,
            RenameFlags::NOREPLACE,
        ) {
            // File systems without it: a hard link never replaces either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty())?;
                Ok(fs::unlinkat(&from_dir, from_name, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        Ok(fs::fsync(self.dir(dir)?)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (dir, name) = split(path);
        Ok(fs::unlinkat(self.dir(dir)?, name, AtFlags::empty())?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let dir = match self.dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result?,
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskRead>> {
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let len = require_regular(&file)?;
        Ok(Box::new(LocalRead {
            file: File::from(file),
            len,
        }))
    }

    fn lock(&self, path: &str, exclusive: bool, wait: bool) -> io::Result<Option<Box<dyn Send>>> {
        loop {
            let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let operation = match (exclusive, wait) {
                (true, true) => FlockOperation::LockExclusive,
                (true, false) => FlockOperation::NonBlockingLockExclusive,
                (false, true) => FlockOperation::LockShared,
                (false, false) => FlockOperation::NonBlockingLockShared,
            };
            match fs::flock(&file, operation) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            }
            // Someone may have replaced the file while we waited: a lock on the old one protects nothing.
            let (dir, name) = split(path);
            let (held, named) = (
                fs::fstat(&file)?,
                fs::statat(self.dir(dir)?, name, AtFlags::SYMLINK_NOFOLLOW)?,
            );
            if (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino) {
                return Ok(Some(Box::new(file)));
            }
        }
    }
}

fn require_regular(file: impl AsFd) -> io::Result<u64> {
    let stat = fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file",
        ));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

struct LocalFile(File);

impl DiskFile for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

struct LocalRead {
    file: File,
    len: u64,
}

impl DiskRead for LocalRead {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
