//! Making members again below a directory, never through a link and never outside.
//!
//! The directory is new and belongs to us alone until everything is in it. Members come in path order: a directory gets
//! its attributes when the first member outside of it comes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::acl;
use super::attributes::Target;
use super::beneath::{self, DIR_FLAGS};
use super::faults::{Faults, Loss};
use crate::catalog::{Kind, Member};
use crate::digest::is_zero;

/// So many directories are open at once, whatever the depth.
const OPEN_LEVELS: usize = 16;

/// What file systems allocate at once.
const PAGE_BYTES: usize = 4096;

/// Unpacks members, given in path order.
pub struct Unpacker {
    root: OwnedFd,
    /// From the root to the innermost directory.
    levels: Vec<Level>,
    /// Directories that nobody but root may enter once they have their mode: they get it at the end.
    late: Vec<Member>,
    /// Devices that only root could have made.
    unmade: HashSet<Vec<u8>>,
    /// Whether members get their owners.
    gives_owners: bool,
    faults: Faults,
}

/// A directory that is being filled.
struct Level {
    path: Vec<u8>,
    /// What it is to become; nothing for the root of a single file.
    member: Option<Member>,
    /// Closed while members deep below are made.
    dir: Option<OwnedFd>,
}

/// A regular file being filled.
pub struct NewFile {
    file: File,
    gives_owners: bool,
}

impl NewFile {
    /// Writes data at a place of the file; what is never written is a hole.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// The same; in a sparse file pages of zeros are left to be holes.
    pub fn write_data(&self, bytes: &[u8], offset: u64, sparse: bool) -> io::Result<()> {
        if !sparse {
            return self.write_at(bytes, offset);
        }
        let (mut start, mut at) = (0, 0);
        for page in bytes.chunks(PAGE_BYTES) {
            if is_zero(page) {
                self.write_at(&bytes[start..at], offset + start as u64)?;
                start = at + page.len();
            }
            at += page.len();
        }
        self.write_at(&bytes[start..], offset + start as u64)
    }

    /// Gives the file, which is filled, its attributes; returns what could not be set.
    pub fn finish(&self, member: &Member) -> Vec<Loss> {
        set_attributes(member, &Target::Open(self.file.as_fd()), self.gives_owners)
    }
}

impl Unpacker {
    /// Unpacks below `root`, which is empty and private.
    pub fn new(root: OwnedFd, gives_owners: bool) -> io::Result<Self> {
        for list in [acl::DEFAULT, acl::ACCESS] {
            // Else everything made in it would inherit what the parent prescribes.
            match fs::fremovexattr(&root, OsStr::from_bytes(list)) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let top = Level {
            path: Vec::new(),
            member: None,
            dir: Some(root.try_clone()?),
        };
        Ok(Self {
            root,
            levels: vec![top],
            late: Vec::new(),
            unmade: HashSet::new(),
            gives_owners,
            faults: Faults::default(),
        })
    }

    /// Makes a member that has no content. What fails is recorded as a fault.
    pub fn make(&mut self, member: &Member) {
        if let Err(error) = self.try_make(member) {
            self.faults.miss(member, error);
        }
    }

    /// Makes an empty file of a member's length. `None` if that failed, which is recorded.
    pub fn create(&mut self, member: &Member) -> Option<NewFile> {
        self.try_create(member)
            .map_err(|error| self.faults.miss(member, error))
            .ok()
    }

    /// Gives a file that was filled its attributes.
    pub fn finish_file(&mut self, member: &Member, file: &NewFile) {
        self.faults.lose_all(&member.path, file.finish(member));
    }

    /// Removes a file whose content could not be had, and records that it is missing.
    pub fn failed(&mut self, member: &Member, error: io::Error) {
        if let Ok((dir, name)) = self.parent(&member.path) {
            let _ = fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::empty());
        }
        self.faults.miss(member, error);
    }

    /// The member that failed last.
    pub fn last_missing(&self) -> Option<&(String, io::Error)> {
        self.faults.missing.last()
    }

    /// Gives the directories that still wait for them their attributes, and returns all faults.
    pub fn finish(mut self) -> Faults {
        while self.levels.len() > 1 {
            self.leave();
        }
        for member in std::mem::take(&mut self.late) {
            match beneath::open_dir(&self.root, &member.path) {
                Ok(dir) => self.attributes(&member, &Target::Open(dir.as_fd())),
                Err(error) => self.faults.miss(&member, error),
            }
        }
        // The root last: until then nobody else can reach what is in it.
        self.leave();
        self.faults
    }

    fn try_make(&mut self, member: &Member) -> io::Result<()> {
        if member.path.is_empty() {
            if member.kind != Kind::Directory {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            self.levels[0].member = Some(member.clone());
            return Ok(());
        }
        if member.kind == Kind::HardLink {
            return self.link(member);
        }
        let (dir, name) = self.parent(&member.path)?;
        let name = OsStr::from_bytes(name);
        match member.kind {
            Kind::Directory => {
                fs::mkdirat(dir, name, Mode::RWXU)?;
                let made = fs::openat(dir, name, DIR_FLAGS, Mode::empty())?;
                self.enter(member, made);
                return Ok(());
            }
            Kind::Symlink => fs::symlinkat(OsStr::from_bytes(&member.link), dir, name)?,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => match make_node(dir, name, member)
            {
                // Only root makes devices; that is known beforehand and no reason to give up the rest.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && member.kind != Kind::Fifo =>
                {
                    self.faults.lose("device", &member.path, &error);
                    self.unmade.insert(member.path.clone());
                    return Ok(());
                }
                result => result?,
            },
            Kind::Regular | Kind::HardLink | Kind::Absent => {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
        }
        let dir = dir.try_clone()?;
        self.attributes(member, &Target::Named(&dir, name));
        Ok(())
    }

    fn link(&mut self, member: &Member) -> io::Result<()> {
        if self.unmade.contains(&member.link) {
            let error = io::Error::other("the device that it names was not made");
            self.faults.lose("link", &member.path, &error);
            return Ok(());
        }
        let (outer, target) = split(&member.link);
        beneath::check(&member.link)?;
        let target_dir = beneath::open_dir(&self.root, outer)?;
        let (dir, name) = self.parent(&member.path)?;
        let (target, name) = (OsStr::from_bytes(target), OsStr::from_bytes(name));
        Ok(fs::linkat(
            &target_dir,
            target,
            dir,
            name,
            AtFlags::empty(),
        )?)
    }

    fn try_create(&mut self, member: &Member) -> io::Result<NewFile> {
        let (dir, name) = self.parent(&member.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, OsStr::from_bytes(name), flags, Mode::RUSR | Mode::WUSR)?;
        fs::ftruncate(&file, member.content.size)?;
        Ok(NewFile {
            file: File::from(file),
            gives_owners: self.gives_owners,
        })
    }

    /// The directory that a member is in, and its name there. Directories that are left get their attributes.
    fn parent<'a>(&mut self, path: &'a [u8]) -> io::Result<(&OwnedFd, &'a [u8])> {
        beneath::check(path)?;
        let (outer, name) = split(path);
        let holds = |level: &Level| {
            level.path.is_empty() || level.path == outer || is_below(&level.path, outer)
        };
        while self.levels.len() > 1 && !self.levels.last().is_some_and(holds) {
            self.leave();
        }
        let innermost = self.levels.last_mut().expect("the root is never left");
        if innermost.path != outer {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "its directory was not restored",
            ));
        }
        if innermost.dir.is_none() {
            innermost.dir = Some(beneath::open_dir(&self.root, outer)?);
        }
        Ok((innermost.dir.as_ref().expect("just opened"), name))
    }

    fn enter(&mut self, member: &Member, dir: OwnedFd) {
        if let Some(outer) = self.levels.len().checked_sub(OPEN_LEVELS) {
            self.levels[outer].dir = None;
        }
        self.levels.push(Level {
            path: member.path.clone(),
            member: Some(member.clone()),
            dir: Some(dir),
        });
    }

    /// Gives the innermost directory its attributes: nothing more is made in it.
    fn leave(&mut self) {
        let Some(level) = self.levels.pop() else {
            return;
        };
        let Some(member) = level.member else { return };
        if member.mode & 0o700 != 0o700 && !member.path.is_empty() {
            // A hard link to something in it may still come.
            self.late.push(member);
            return;
        }
        match level
            .dir
            .map_or_else(|| beneath::open_dir(&self.root, &member.path), Ok)
        {
            Ok(dir) => self.attributes(&member, &Target::Open(dir.as_fd())),
            Err(error) => self.faults.miss(&member, error),
        }
    }

    fn attributes(&mut self, member: &Member, target: &Target<'_>) {
        let lost = set_attributes(member, target, self.gives_owners);
        self.faults.lose_all(&member.path, lost);
    }
}

/// Owner first, because a change of owner clears setuid and capabilities; then attributes, mode, and time last.
fn set_attributes(member: &Member, target: &Target<'_>, gives_owners: bool) -> Vec<Loss> {
    let mut lost = Vec::new();
    let mut note =
        |what, result: io::Result<()>| lost.extend(result.err().map(|error| (what, error)));
    let owner = if gives_owners {
        target.set_owner(member)
    } else {
        Ok(())
    };
    let owned = gives_owners && owner.is_ok() || target.has_owner(member);
    note("owner", if owned { Ok(()) } else { owner });
    for (key, value) in &member.xattrs {
        note("extended attributes", target.set_xattr(key, value));
    }
    if member.kind != Kind::Symlink {
        // Setuid and setgid only for the right owner.
        let mode = if owned {
            member.mode
        } else {
            member.mode & 0o1777
        };
        if mode != member.mode {
            let error = io::Error::other("the owner is another");
            note("setuid or setgid", Err(error));
        }
        note("mode", target.set_mode(Mode::from_raw_mode(mode)));
    }
    note("time", target.set_time(member.mtime));
    lost
}

/// The directory part of a path and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn is_below(dir: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

fn make_node(dir: &OwnedFd, name: &OsStr, member: &Member) -> io::Result<()> {
    let kind = match member.kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let number = fs::makedev(member.device.0, member.device.1);
    Ok(fs::mknodat(
        dir,
        name,
        kind,
        Mode::RUSR | Mode::WUSR,
        number,
    )?)
}
