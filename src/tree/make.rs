//! Making single members by handle: what [`super::unpack`] and [`super::stage`] have in common.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::acl;
use super::attributes::Target;
use super::faults::{Faults, Loss};
use crate::catalog::{Kind, Member};
use crate::digest::is_zero;

/// What file systems allocate at once.
const PAGE_BYTES: usize = 4096;

/// Makes members, given in path order. What fails is recorded as a fault, not returned.
pub trait Maker {
    /// Makes a member that has no content.
    fn make(&mut self, member: &Member);

    /// Makes an empty file of a member's length. `None` if that failed.
    fn create(&mut self, member: &Member) -> Option<NewFile>;

    /// Removes a file whose content could not be had, and records that it is missing.
    fn failed(&mut self, member: &Member, error: io::Error);

    /// What went wrong so far.
    fn faults(&mut self) -> &mut Faults;

    /// Ends what is still to be done, and hands out all faults.
    fn finish(&mut self) -> Faults;
}

/// A regular file being filled.
pub struct NewFile {
    file: File,
    gives_owners: bool,
}

impl NewFile {
    /// Makes a file of this length in a directory; the name is free.
    pub fn create(dir: &OwnedFd, name: &OsStr, size: u64, gives_owners: bool) -> io::Result<Self> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        fs::ftruncate(&file, size)?;
        Ok(Self {
            file: File::from(file),
            gives_owners,
        })
    }

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

/// Owner first, because a change of owner clears setuid and capabilities; then attributes, mode, and time last.
pub(super) fn set_attributes(
    member: &Member,
    target: &Target<'_>,
    gives_owners: bool,
) -> Vec<Loss> {
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
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Makes a symbolic link, a pipe or a device in a directory, without its attributes.
pub(super) fn make_leaf(dir: &OwnedFd, name: &OsStr, member: &Member) -> io::Result<()> {
    match member.kind {
        Kind::Symlink => Ok(fs::symlinkat(OsStr::from_bytes(&member.link), dir, name)?),
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => make_node(dir, name, member),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// Whether it is a device that could not be made because only root makes devices: that is known beforehand and no reason
/// to give up the rest.
pub(super) fn is_roots_device(member: &Member, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && matches!(member.kind, Kind::CharDevice | Kind::BlockDevice)
}

/// Takes the lists away that a directory got from the one around: else everything made in it would inherit them.
pub(super) fn clear_lists(dir: &OwnedFd) -> io::Result<()> {
    for list in [acl::DEFAULT, acl::ACCESS] {
        match fs::fremovexattr(dir, OsStr::from_bytes(list)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
