//! Setting owner, mode, times and extended attributes by handle, never through a link.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::meta::Meta;
use crate::catalog::Member;

/// Something whose attributes are set: an open file or directory, or a name that must not be opened.
pub enum Target<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in a directory.
    Named(&'a OwnedFd, &'a OsStr),
}

impl Target<'_> {
    /// Gives it its owner and group.
    pub fn set_owner(&self, member: &Member) -> io::Result<()> {
        let (user, group) = (
            Some(Uid::from_raw(member.uid)),
            Some(Gid::from_raw(member.gid)),
        );
        let set = match self {
            Self::Open(file) => fs::fchown(file, user, group),
            Self::Named(dir, name) => {
                fs::chownat(dir, *name, user, group, AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        set.map_err(io::Error::from)
    }

    /// Whether it has them already.
    pub fn has_owner(&self, member: &Member) -> bool {
        let meta = match self {
            Self::Open(file) => Meta::of_open(file),
            Self::Named(dir, name) => CString::new(name.as_bytes())
                .map_err(io::Error::other)
                .and_then(|name| Meta::of(dir, &name)),
        };
        meta.is_ok_and(|meta| (meta.uid, meta.gid) == (member.uid, member.gid))
    }

    /// Gives it an extended attribute.
    pub fn set_xattr(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let key = OsStr::from_bytes(key);
        let set = match self {
            Self::Open(file) => fs::fsetxattr(file, key, value, XattrFlags::empty()),
            // There is no call that sets them below a directory handle.
            Self::Named(dir, name) => {
                let path = [
                    format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(),
                    name.as_bytes(),
                ]
                .concat();
                fs::lsetxattr(OsStr::from_bytes(&path), key, value, XattrFlags::empty())
            }
        };
        set.map_err(io::Error::from)
    }

    /// Takes away all extended attributes that the member does not have. Only of what is open.
    pub fn remove_other_xattrs(&self, member: &Member) -> io::Result<()> {
        let Self::Open(file) = self else {
            return Ok(());
        };
        let mut names = vec![0; 256];
        let len = loop {
            match fs::flistxattr(file, &mut names[..]) {
                Ok(len) => break len,
                Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
                Err(Errno::OPNOTSUPP) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        for name in names[..len].split(|byte| *byte == 0) {
            let is_kept = member.xattrs.iter().any(|(key, _)| key == name);
            if !name.is_empty() && !is_kept {
                fs::fremovexattr(file, OsStr::from_bytes(name))?;
            }
        }
        Ok(())
    }

    /// Gives it its permission bits.
    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let set = match self {
            Self::Open(file) => fs::fchmod(file, mode),
            Self::Named(dir, name) => {
                // By a handle that does not open the device or pipe, so that no link can take its place.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fs::openat(dir, *name, flags, Mode::empty()).and_then(|handle| {
                    fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), mode)
                })
            }
        };
        set.map_err(io::Error::from)
    }

    /// Gives it its modification time, as access time too.
    pub fn set_time(&self, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let set = match self {
            Self::Open(file) => fs::futimens(file, &times),
            Self::Named(dir, name) => fs::utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        set.map_err(io::Error::from)
    }
}
