//! Members on the way into a tree that is in use: they are made whole, under numbers, in hidden directories on the file
//! systems that they belong to. From there they take their places by renaming.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FlockOperation, Mode};
use rustix::io::Errno;

use super::attributes::Target;
use super::beneath::{self, DIR_FLAGS};
use super::faults::Faults;
use super::make::{Maker, NewFile, clear_lists, is_roots_device, make_leaf, set_attributes};
use super::meta::Meta;
use super::select::is_below;
use crate::catalog::Member;

/// How the hidden directories are called; a random number follows.
pub const PREFIX: &str = ".btw-restore-";
/// What a hard link is called on its way.
const LINK: &CStr = c"link";

/// The hidden directories, and which member gets which number in them.
pub struct Stage<'a> {
    numbers: &'a HashMap<Vec<u8>, u64>,
    /// The innermost mount points first.
    dirs: Vec<Hidden>,
    gives_owners: bool,
    /// What could not be made, and is known as a fault.
    failed: HashSet<Vec<u8>>,
    faults: Faults,
}

/// A hidden directory.
struct Hidden {
    /// The path of the directory that it is in.
    below: Vec<u8>,
    parent: OwnedFd,
    /// When that directory was changed before.
    mtime: (i64, u32),
    name: String,
    dir: OwnedFd,
}

impl<'a> Stage<'a> {
    /// Makes a hidden directory in each of these directories below `root`: the mount points that something is to be
    /// restored to. What killed restores left there is removed.
    pub fn new(
        root: &OwnedFd,
        below: &[Vec<u8>],
        numbers: &'a HashMap<Vec<u8>, u64>,
        gives_owners: bool,
    ) -> io::Result<Self> {
        let mut stage = Self {
            numbers,
            dirs: Vec::new(),
            gives_owners,
            failed: HashSet::new(),
            faults: Faults::default(),
        };
        for path in below {
            match Hidden::new(root, path) {
                Ok(hidden) => stage.dirs.push(hidden),
                Err(error) => {
                    stage.discard();
                    return Err(error);
                }
            }
        }
        // What lies deeper has the longer path.
        stage
            .dirs
            .sort_by_key(|hidden| std::cmp::Reverse(hidden.below.len()));
        Ok(stage)
    }

    /// Where a member is, or is to be, and its name there.
    fn place(&self, path: &[u8]) -> io::Result<(&OwnedFd, String)> {
        let number = self.numbers.get(path);
        let hidden = self
            .dirs
            .iter()
            .find(|hidden| is_below(&hidden.below, path));
        match (hidden, number) {
            (Some(hidden), Some(number)) => Ok((&hidden.dir, number.to_string())),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// Gives a member that was made its name in a directory; what stood there is replaced in one step. `false` if it could
    /// not be made, which is known as a fault.
    pub fn move_to(&self, path: &[u8], dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        if self.failed.contains(path) {
            return Ok(false);
        }
        let (from, number) = self.place(path)?;
        fs::renameat(from, &number, dir, name)?;
        Ok(true)
    }

    /// Gives what stands under a name in a directory another name, which may be taken: replaced in one step.
    pub fn link(
        &self,
        (dir, name): (&OwnedFd, &OsStr),
        path: &[u8],
        (to_dir, to_name): (&OwnedFd, &OsStr),
    ) -> io::Result<()> {
        let hidden = self
            .dirs
            .iter()
            .find(|hidden| is_below(&hidden.below, path))
            .ok_or(io::ErrorKind::InvalidInput)?;
        fs::linkat(dir, name, &hidden.dir, LINK, AtFlags::empty())?;
        let renamed = fs::renameat(&hidden.dir, LINK, to_dir, to_name);
        // Two names of the same file: renaming does nothing then.
        let _ = fs::unlinkat(&hidden.dir, LINK, AtFlags::empty());
        Ok(renamed?)
    }

    /// Waits until all that was made is on the disks: else a power failure after the renaming could leave neither the old
    /// nor the new.
    pub fn sync(&self) -> io::Result<()> {
        for hidden in &self.dirs {
            fs::syncfs(&hidden.dir)?;
        }
        Ok(())
    }

    /// Removes the hidden directories. Those around that were not `touched` otherwise get their times back.
    pub fn remove(&self, touched: &dyn Fn(&[u8]) -> bool) {
        for hidden in &self.dirs {
            hidden.remove();
            if !touched(&hidden.below) {
                let _ = Target::Open(hidden.parent.as_fd()).set_time(hidden.mtime);
            }
        }
    }

    /// Removes everything again: nothing was touched.
    pub fn discard(&self) {
        self.remove(&|_| false);
    }
}

impl Hidden {
    fn new(root: &OwnedFd, below: &[u8]) -> io::Result<Self> {
        let parent = beneath::open_dir(root, below)?;
        let mtime = Meta::of_open(&parent)?.mtime;
        remove_leftovers(&parent)?;
        let name = format!("{PREFIX}{}", uuid::Uuid::new_v4().simple());
        fs::mkdirat(&parent, &name, Mode::RWXU)?;
        let dir = fs::openat(&parent, &name, DIR_FLAGS, Mode::empty())?;
        beneath::require_ours(&dir)?;
        if !beneath::names(&dir)?.is_empty() {
            return Err(io::Error::other("somebody else put something there"));
        }
        fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        clear_lists(&dir)?;
        Ok(Self {
            below: below.to_vec(),
            parent,
            mtime,
            name,
            dir,
        })
    }

    fn remove(&self) {
        let _ = remove_staged(&self.dir);
        let _ = fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

/// Removes what stages hold: files with numbers for names. Anything else was not put there by us.
fn remove_staged(dir: &OwnedFd) -> io::Result<()> {
    for name in beneath::names(dir)? {
        let is_staged = name.to_bytes().iter().all(u8::is_ascii_digit) || *name == *LINK;
        if is_staged {
            fs::unlinkat(dir, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Removes what killed restores left in a directory. One that is at work is a reason to stop.
fn remove_leftovers(parent: &OwnedFd) -> io::Result<()> {
    for name in beneath::names(parent)? {
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(dir) = fs::openat(parent, &name, DIR_FLAGS, Mode::empty()) else {
            continue;
        };
        if beneath::require_ours(&dir).is_err() {
            continue;
        }
        match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // One that holds anything else stays: it is none of ours.
                let _ = remove_staged(&dir);
                let _ = fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another restore is at work there"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Maker for Stage<'_> {
    fn make(&mut self, member: &Member) {
        let made = self.place(&member.path).and_then(|(dir, number)| {
            let name = OsStr::new(&number);
            make_leaf(dir, name, member)?;
            let target = Target::Named(dir, name);
            Ok(set_attributes(member, &target, self.gives_owners))
        });
        match made {
            Ok(lost) => self.faults.lose_all(&member.path, lost),
            Err(error) => {
                self.failed.insert(member.path.clone());
                if is_roots_device(member, &error) {
                    self.faults.lose("device", &member.path, &error);
                } else {
                    self.faults.miss(member, error);
                }
            }
        }
    }

    fn create(&mut self, member: &Member) -> Option<NewFile> {
        let made = self.place(&member.path).and_then(|(dir, number)| {
            let name = OsStr::from_bytes(number.as_bytes());
            NewFile::create(dir, name, member.content.size, self.gives_owners)
        });
        made.map_err(|error| {
            self.failed.insert(member.path.clone());
            self.faults.miss(member, error);
        })
        .ok()
    }

    fn failed(&mut self, member: &Member, error: io::Error) {
        if let Ok((dir, number)) = self.place(&member.path) {
            let _ = fs::unlinkat(dir, &number, AtFlags::empty());
        }
        self.failed.insert(member.path.clone());
        self.faults.miss(member, error);
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn finish(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }
}
