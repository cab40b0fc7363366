//! What the file system says of a file, without following a link and without opening it.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType, Statx, StatxAttributes, StatxFlags};

use crate::format::scan::Stamp;

/// Device, inode and time of birth.
pub type FileKey = (u64, u64, (i64, u32));

/// The metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// How many names it has.
    pub names: u32,
    /// Its length in bytes.
    pub size: u64,
    /// Modification time: seconds since 1970 (rounded down) and nanoseconds.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
    /// Its number on its device.
    pub inode: u64,
    /// The device that it lies on.
    pub device: u64,
    /// Major and minor number, if it is a device itself.
    pub node: (u32, u32),
    /// When it was made, where the file system knows: tells it from another that got its inode later.
    pub birth: (i64, u32),
    /// It has inode flags that no tar holds: immutable, append-only, no-dump.
    pub is_flagged: bool,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

const FLAGS: StatxAttributes = StatxAttributes::IMMUTABLE
    .union(StatxAttributes::APPEND)
    .union(StatxAttributes::NODUMP);

impl Meta {
    /// Of what stands under a name in a directory, be it a link.
    pub fn of(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(Self::from(&fs::statx(dir, name, flags, WANTED)?))
    }

    /// Of an open file.
    pub fn of_open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(&fs::statx(
            file,
            c"",
            AtFlags::EMPTY_PATH,
            WANTED,
        )?))
    }

    /// What identifies the file, whatever its name.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The same, for as long as files come and go.
    pub fn key(&self) -> FileKey {
        (self.device, self.inode, self.birth)
    }

    /// What the scan cache remembers of it.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            ctime: self.ctime,
            inode: self.inode,
            device: self.device,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

impl From<&Statx> for Meta {
    fn from(stat: &Statx) -> Self {
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Self {
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            names: stat.stx_nlink,
            size: stat.stx_size,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            inode: stat.stx_ino,
            device: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            node: (stat.stx_rdev_major, stat.stx_rdev_minor),
            birth: time(stat.stx_btime),
            is_flagged: stat.stx_attributes.intersects(FLAGS),
        }
    }
}
