//! Making members again below a directory, never through a link and never outside.
//!
//! The directory is new and belongs to us alone until everything is in it; directories get their modes and times last.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::process::{Gid, Uid};

use super::acl;
use crate::catalog::{Kind, Member};
use crate::error::printable;

/// A member that could not be made, or not made as it was.
#[derive(Debug)]
pub enum Fault {
    /// It is missing from the target.
    Missing(String, io::Error),
    /// It is there, but this about it could not be set.
    Attribute(String, &'static str, io::Error),
}

/// Unpacks members, given in path order.
pub struct Unpacker {
    root: OwnedFd,
    /// The directory that was used last, and its path: members of one directory come one after the other.
    near: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose attributes wait until they are full.
    directories: Vec<Member>,
    faults: Vec<Fault>,
    /// Devices that only root could have made.
    unmade: HashSet<Vec<u8>>,
}

/// A regular file being filled.
pub struct NewFile {
    file: File,
}

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

impl Unpacker {
    /// Unpacks below `root`, which is empty and private.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = fs::open(root, DIR_FLAGS, Mode::empty())?;
        for list in [acl::DEFAULT, acl::ACCESS] {
            // Else everything made in it would inherit what the parent prescribes. Without lists there is nothing to do.
            let _ = fs::fremovexattr(&root, OsStr::from_bytes(list));
        }
        Ok(Self {
            root,
            near: None,
            directories: Vec::new(),
            faults: Vec::new(),
            unmade: HashSet::new(),
        })
    }

    /// Makes a member that has no content. What fails is recorded as a fault.
    pub fn make(&mut self, member: &Member) {
        if let Err(error) = self.try_make(member) {
            self.faults
                .push(Fault::Missing(printable(&member.path), error));
        }
    }

    fn try_make(&mut self, member: &Member) -> io::Result<()> {
        if member.kind == Kind::Directory && member.path.is_empty() {
            self.directories.push(member.clone());
            return Ok(());
        }
        let (dir, name) = self.place(&member.path)?;
        let name = OsStr::from_bytes(&name);
        match member.kind {
            Kind::Directory => {
                fs::mkdirat(&dir, name, Mode::RWXU)?;
                self.directories.push(member.clone());
                return Ok(());
            }
            Kind::Symlink => fs::symlinkat(OsStr::from_bytes(&member.link), &dir, name)?,
            Kind::HardLink if self.unmade.contains(&member.link) => {
                let error = io::Error::other("the device that it names was not made");
                self.faults
                    .push(Fault::Attribute(printable(&member.path), "link", error));
                return Ok(());
            }
            Kind::HardLink => {
                let (target_dir, target) = self.place(&member.link)?;
                return Ok(fs::linkat(
                    &target_dir,
                    OsStr::from_bytes(&target),
                    &dir,
                    name,
                    AtFlags::empty(),
                )?);
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                match make_node(&dir, name, member) {
                    // Only root makes devices; that is known beforehand and no reason to give up the rest.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        self.faults.push(Fault::Attribute(
                            printable(&member.path),
                            "device",
                            error,
                        ));
                        self.unmade.insert(member.path.clone());
                        return Ok(());
                    }
                    result => result?,
                }
            }
            Kind::Regular | Kind::Absent => {
                return Err(io::Error::other("not a member without content"));
            }
        }
        self.attributes(&dir, name, member);
        Ok(())
    }

    /// Creates a regular file to be filled; `None` after a fault.
    pub fn create(&mut self, member: &Member) -> Option<NewFile> {
        let created = self.place(&member.path).and_then(|(dir, name)| {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(fs::openat(
                &dir,
                OsStr::from_bytes(&name),
                flags,
                Mode::RUSR | Mode::WUSR,
            )?);
            file.set_len(member.content.size)?;
            Ok(NewFile { file })
        });
        created
            .map_err(|error| {
                self.faults
                    .push(Fault::Missing(printable(&member.path), error));
            })
            .ok()
    }

    /// Gives a file that was filled its attributes.
    pub fn finish_file(&mut self, member: &Member) {
        match self.place(&member.path) {
            Ok((dir, name)) => self.attributes(&dir, OsStr::from_bytes(&name), member),
            Err(error) => self
                .faults
                .push(Fault::Missing(printable(&member.path), error)),
        }
    }

    /// Records that a member's content could not be written.
    pub fn failed(&mut self, member: &Member, error: io::Error) {
        self.faults
            .push(Fault::Missing(printable(&member.path), error));
    }

    /// The member that failed last.
    pub fn last_missing(&self) -> Option<(&str, &io::Error)> {
        self.faults.iter().rev().find_map(|fault| match fault {
            Fault::Missing(path, error) => Some((path.as_str(), error)),
            Fault::Attribute(..) => None,
        })
    }

    /// Gives directories their attributes, deepest first, and returns all faults.
    pub fn finish(mut self) -> Vec<Fault> {
        for member in std::mem::take(&mut self.directories).into_iter().rev() {
            let placed = if member.path.is_empty() {
                self.root.try_clone().map(|root| (root, b".".to_vec()))
            } else {
                self.place(&member.path)
            };
            match placed {
                Ok((dir, name)) => self.attributes(&dir, OsStr::from_bytes(&name), &member),
                Err(error) => self
                    .faults
                    .push(Fault::Missing(printable(&member.path), error)),
            }
        }
        self.faults
    }

    /// The directory that a path is in, and its name there. Goes down component by component, following no link; names
    /// that a source cannot have (`..`, empty) are refused.
    fn place(&mut self, path: &[u8]) -> io::Result<(OwnedFd, Vec<u8>)> {
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        if parts
            .iter()
            .any(|part| [&b""[..], b".", b".."].contains(part) || part.contains(&0))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a path that no source can have",
            ));
        }
        let name = parts.pop().expect("split gives at least one part").to_vec();
        let parent = &path[..path.len() - name.len()];
        if let Some((near, dir)) = &self.near
            && near == parent
        {
            return Ok((dir.try_clone()?, name));
        }
        let mut dir = self.root.try_clone()?;
        for part in parts {
            dir = fs::openat(&dir, OsStr::from_bytes(part), DIR_FLAGS, Mode::empty())?;
        }
        self.near = Some((parent.to_vec(), dir.try_clone()?));
        Ok((dir, name))
    }

    /// Owner first, because a change of owner clears setuid; then attributes, mode, and time last.
    fn attributes(&mut self, dir: &OwnedFd, name: &OsStr, member: &Member) {
        let mut results = Vec::new();
        let owner = fs::chownat(
            dir,
            name,
            Some(Uid::from_raw(member.uid)),
            Some(Gid::from_raw(member.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        let owned = owner.is_ok() || is_owned(dir, name, member);
        results.push(("owner", if owned { Ok(()) } else { owner }));
        for (key, value) in &member.xattrs {
            results.push(("extended attributes", set_xattr(dir, name, key, value)));
        }
        if member.kind != Kind::Symlink {
            // Setuid and setgid only for the right owner.
            let mode = if owned {
                member.mode
            } else {
                member.mode & 0o1777
            };
            results.push((
                "mode",
                fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()),
            ));
        }
        let time = Timespec {
            tv_sec: member.mtime.0,
            tv_nsec: member.mtime.1.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        results.push((
            "time",
            fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        ));
        for (what, result) in results {
            if let Err(error) = result {
                self.faults.push(Fault::Attribute(
                    printable(&member.path),
                    what,
                    error.into(),
                ));
            }
        }
    }
}

fn is_owned(dir: &OwnedFd, name: &OsStr, member: &Member) -> bool {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (member.uid, member.gid))
}

fn make_node(dir: &OwnedFd, name: &OsStr, member: &Member) -> io::Result<()> {
    let kind = match member.kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    Ok(fs::mknodat(
        dir,
        name,
        kind,
        Mode::RUSR | Mode::WUSR,
        fs::makedev(member.device.0, member.device.1),
    )?)
}

fn set_xattr(dir: &OwnedFd, name: &OsStr, key: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let path = [
        format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).as_bytes(),
        name.as_bytes(),
    ]
    .concat();
    fs::lsetxattr(
        OsStr::from_bytes(&path),
        OsStr::from_bytes(key),
        value,
        XattrFlags::empty(),
    )
}

impl NewFile {
    /// Writes data at a place of the file; what is never written is a hole.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}
