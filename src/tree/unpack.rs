//! Making members again below a directory, never through a link and never outside.
//!
//! The directory is new and belongs to us alone until everything is in it. Members come in path order: a directory gets
//! its attributes when the first member outside of it comes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode};

use super::attributes::Target;
use super::beneath::{self, DIR_FLAGS};
use super::faults::Faults;
use super::make::{Maker, NewFile, clear_lists, is_roots_device, make_leaf, set_attributes, split};
use crate::catalog::{Kind, Member};

/// So many directories are open at once, whatever the depth.
const OPEN_LEVELS: usize = 16;

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

impl Unpacker {
    /// Unpacks below `root`, which is empty and private.
    pub fn new(root: OwnedFd, gives_owners: bool) -> io::Result<Self> {
        clear_lists(&root)?;
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
            _ => match make_leaf(dir, name, member) {
                Err(error) if is_roots_device(member, &error) => {
                    self.faults.lose("device", &member.path, &error);
                    self.unmade.insert(member.path.clone());
                    return Ok(());
                }
                result => result?,
            },
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
        let gives_owners = self.gives_owners;
        let (dir, name) = self.parent(&member.path)?;
        NewFile::create(
            dir,
            OsStr::from_bytes(name),
            member.content.size,
            gives_owners,
        )
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

impl Maker for Unpacker {
    fn make(&mut self, member: &Member) {
        if let Err(error) = self.try_make(member) {
            self.faults.miss(member, error);
        }
    }

    fn create(&mut self, member: &Member) -> Option<NewFile> {
        self.try_create(member)
            .map_err(|error| self.faults.miss(member, error))
            .ok()
    }

    fn failed(&mut self, member: &Member, error: io::Error) {
        if let Ok((dir, name)) = self.parent(&member.path) {
            let _ = fs::unlinkat(dir, OsStr::from_bytes(name), AtFlags::empty());
        }
        self.faults.miss(member, error);
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn finish(&mut self) -> Faults {
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
        std::mem::take(&mut self.faults)
    }
}

fn is_below(dir: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}
