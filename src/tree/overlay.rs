//! Changing a tree that is in use so that it is as members say. Everything is done by handles and never through a link;
//! each file is replaced in one step.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Target;
use super::beneath::{self, DIR_FLAGS};
use super::faults::Faults;
use super::make::{set_attributes, split};
use super::meta::Meta;
use super::select::is_below;
use super::stage::Stage;
use crate::catalog::Member;

/// A tree that is being changed. What is to be removed comes first, then members in path order.
pub struct Overlay {
    root: OwnedFd,
    gives_owners: bool,
    /// The directory that was changed last.
    open: Option<(Vec<u8>, OwnedFd)>,
    /// Directories in which something was made, replaced or removed.
    touched: HashSet<Vec<u8>>,
    /// Directories around the current member, and whether they need their attributes in any case.
    around: Vec<(Member, bool)>,
    /// Directories that get their attributes at the end.
    late: Vec<Member>,
    /// Directories that could not be written to, and their modes.
    opened_up: Vec<(Vec<u8>, u32)>,
    /// Members that could not be put in their places.
    failed: HashMap<Vec<u8>, Failure>,
    faults: Faults,
    /// Directories that were to be removed and are not empty.
    kept: Vec<Vec<u8>>,
}

/// Why a member is not in its place.
enum Failure {
    /// It was not staged, which is known as a fault.
    NotMade,
    /// It was, but could not take its place.
    NotPut,
}

/// What came of it.
pub struct Changed {
    /// What failed.
    pub faults: Faults,
    /// Directories that were to be removed, but hold something that was not.
    pub kept: Vec<Vec<u8>>,
}

impl Overlay {
    /// Changes the tree at an open directory.
    pub fn new(root: OwnedFd, gives_owners: bool) -> Self {
        Self {
            root,
            gives_owners,
            open: None,
            touched: HashSet::new(),
            around: Vec::new(),
            late: Vec::new(),
            opened_up: Vec::new(),
            failed: HashMap::new(),
            faults: Faults::default(),
            kept: Vec::new(),
        }
    }

    /// Removes a file, or a directory that is empty. Returns whether it is gone.
    pub fn remove(&mut self, path: &[u8], is_dir: bool) -> bool {
        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        let removed = self
            .parent(path)
            .and_then(|(dir, name)| Ok(fs::unlinkat(dir, name, flags)?));
        match removed.map_err(|error| (Errno::from_io_error(&error), error)) {
            Ok(()) | Err((Some(Errno::NOENT), _)) => return true,
            Err((Some(Errno::NOTEMPTY | Errno::EXIST), _)) => self.kept.push(path.to_vec()),
            Err((_, error)) => self.faults.lose("removal", path, &error),
        }
        false
    }

    /// Goes on to a directory, which is made if that is asked for and it is not there. If it is `wanted`, it gets its
    /// attributes at the end when something in it is changed; if it `differs`, in any case.
    pub fn directory(&mut self, member: &Member, make: bool, differs: bool, wanted: bool) {
        self.leave_for(&member.path);
        let is_made = if make && !member.path.is_empty() {
            match self.make_dir(&member.path) {
                Ok(is_made) => is_made,
                Err(error) => return self.faults.miss(member, error),
            }
        } else {
            false
        };
        if wanted || is_made {
            let member = member.clone();
            self.around.push((member, is_made || wanted && differs));
        }
    }

    /// Puts a staged member in its place.
    pub fn put(&mut self, member: &Member, stage: &Stage<'_>) {
        self.leave_for(&member.path);
        let result = self.replacing(&member.path, |dir, name| {
            stage.move_to(&member.path, dir, name)
        });
        match result {
            Ok(true) => {}
            Ok(false) => drop(self.failed.insert(member.path.clone(), Failure::NotMade)),
            Err(error) => {
                self.failed.insert(member.path.clone(), Failure::NotPut);
                self.faults.miss(member, error);
            }
        }
    }

    /// Makes a hard link to a member that is in its place.
    pub fn link(&mut self, member: &Member, stage: &Stage<'_>) {
        self.leave_for(&member.path);
        if let Some(failure) = self.failed.get(&member.link) {
            let error = io::Error::other("what it is another name of was not restored");
            return match failure {
                // A device that only root makes: known beforehand.
                Failure::NotMade => self.faults.lose("link", &member.path, &error),
                Failure::NotPut => self.faults.miss(member, error),
            };
        }
        let (outer, target) = split(&member.link);
        let result = beneath::check(&member.link)
            .and_then(|()| beneath::open_dir(&self.root, outer))
            .and_then(|from| {
                let target = OsStr::from_bytes(target);
                self.replacing(&member.path, |dir, name| {
                    stage.link((&from, target), &member.path, (dir, name))
                })
            });
        if let Err(error) = result {
            self.faults.miss(member, error);
        }
    }

    /// Gives a regular file, whose content is right, its attributes; it must still be the one that was found.
    pub fn adjust(&mut self, member: &Member, identity: (u64, u64)) {
        self.leave_for(&member.path);
        let open = || {
            let (outer, name) = split(&member.path);
            let dir = beneath::open_dir(&self.root, outer)?;
            let flags = OFlags::RDONLY
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC
                | OFlags::NOCTTY;
            let file = fs::openat(dir, OsStr::from_bytes(name), flags, Mode::empty())?;
            let meta = Meta::of_open(&file)?;
            // Another name could be one of a file elsewhere, put there by somebody who may not change that.
            if meta.kind == FileType::RegularFile && (meta.identity(), meta.names) == (identity, 1)
            {
                return Ok(file);
            }
            Err(io::Error::other("it was replaced meanwhile"))
        };
        match open() {
            Ok(file) => self.give_attributes(member, &file),
            Err(error) => self.faults.miss(member, error),
        }
    }

    /// Whether something was made, replaced or removed in a directory.
    pub fn is_touched(&self, dir: &[u8]) -> bool {
        self.touched.contains(dir)
    }

    /// Gives directories their attributes.
    pub fn finish(mut self) -> Changed {
        while let Some(level) = self.around.pop() {
            self.leave(level);
        }
        let late = std::mem::take(&mut self.late);
        let given: HashSet<&[u8]> = late.iter().map(|member| &member.path[..]).collect();
        for (path, mode) in std::mem::take(&mut self.opened_up) {
            if !given.contains(&path[..]) {
                let closed = beneath::open_dir(&self.root, &path)
                    .and_then(|dir| Ok(fs::fchmod(dir, Mode::from_raw_mode(mode))?));
                if let Err(error) = closed {
                    self.faults.lose("mode", &path, &error);
                }
            }
        }
        // From the inside out: afterwards some may not be entered any more.
        let mut late: Vec<&Member> = late.iter().collect();
        late.sort_by(|a, b| b.path.cmp(&a.path));
        for member in late {
            match beneath::open_dir(&self.root, &member.path) {
                Ok(dir) => self.give_attributes(member, &dir),
                Err(error) => self.faults.miss(member, error),
            }
        }
        Changed {
            faults: self.faults,
            kept: self.kept,
        }
    }

    /// Leaves the directories that a path is not in.
    fn leave_for(&mut self, path: &[u8]) {
        while let Some(level) = self
            .around
            .pop_if(|(outer, _)| !is_below(&outer.path, path))
        {
            self.leave(level);
        }
    }

    fn leave(&mut self, (member, differs): (Member, bool)) {
        if differs || self.is_touched(&member.path) {
            self.late.push(member);
        }
    }

    /// The directory that a path is in, ready to be changed, and the path's last name.
    fn parent<'a>(&mut self, path: &'a [u8]) -> io::Result<(&OwnedFd, &'a OsStr)> {
        beneath::check(path)?;
        let (outer, name) = split(path);
        if self.open.as_ref().is_none_or(|(open, _)| open != outer) {
            let dir = beneath::open_dir(&self.root, outer)?;
            let meta = Meta::of_open(&dir)?;
            if meta.mode & 0o300 != 0o300 && !rustix::process::geteuid().is_root() {
                fs::fchmod(&dir, Mode::from_raw_mode(meta.mode | 0o700))?;
                self.opened_up.push((outer.to_vec(), meta.mode));
            }
            self.touched.insert(outer.to_vec());
            self.open = Some((outer.to_vec(), dir));
        }
        let (_, dir) = self.open.as_ref().expect("just opened");
        Ok((dir, OsStr::from_bytes(name)))
    }

    /// Does something that gives a path to another file; an empty directory there is removed before.
    fn replacing<T>(
        &mut self,
        path: &[u8],
        replace: impl Fn(&OwnedFd, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let (dir, name) = self.parent(path)?;
        match replace(dir, name) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ISDIR) => {
                fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
                replace(dir, name)
            }
            result => result,
        }
    }

    /// Makes a directory, in place of anything else; `false` if it is there.
    fn make_dir(&mut self, path: &[u8]) -> io::Result<bool> {
        let (dir, name) = self.parent(path)?;
        let made = match fs::mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => match fs::openat(dir, name, DIR_FLAGS, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    fs::unlinkat(dir, name, AtFlags::empty())?;
                    fs::mkdirat(dir, name, Mode::RWXU)
                }
                result => return Ok(result.map(|_| false)?),
            },
            result => result,
        };
        made?;
        Ok(true)
    }

    fn give_attributes(&mut self, member: &Member, file: &OwnedFd) {
        let target = Target::Open(file.as_fd());
        if let Err(error) = target.remove_other_xattrs(member) {
            self.faults
                .lose("extended attributes", &member.path, &error);
        }
        let lost = set_attributes(member, &target, self.gives_owners);
        self.faults.lose_all(&member.path, lost);
    }
}
