//! Reading a member: its metadata, and the content of a regular file.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{self, FileType, Mode, OFlags, SeekFrom, Stat};

use super::walk::Found;
use crate::catalog::{Content, Kind, Member};
use crate::format::scan::Stamp;

/// Looks up names of owners once each.
#[derive(Default)]
pub struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Owners {
    fn user(&mut self, uid: u32) -> Vec<u8> {
        let look_up = || {
            User::from_uid(Uid::from_raw(uid))
                .ok()
                .flatten()
                .map_or_else(Vec::new, |user| user.name.into_bytes())
        };
        self.users.entry(uid).or_insert_with(look_up).clone()
    }

    fn group(&mut self, gid: u32) -> Vec<u8> {
        let look_up = || {
            Group::from_gid(Gid::from_raw(gid))
                .ok()
                .flatten()
                .map_or_else(Vec::new, |group| group.name.into_bytes())
        };
        self.groups.entry(gid).or_insert_with(look_up).clone()
    }
}

/// What kind of member a file is; `None` for a socket, which no tar can hold.
pub fn kind(stat: &Stat) -> Option<Kind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::Regular),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Fifo => Some(Kind::Fifo),
        _ => None,
    }
}

/// What the scan cache remembers of a file.
pub fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        inode: stat.st_ino,
        device: stat.st_dev,
    }
}

/// Modification time as members record it.
pub fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, nanoseconds(stat.st_mtime_nsec))
}

fn nanoseconds<T: TryInto<u32>>(value: T) -> u32 {
    value
        .try_into()
        .ok()
        .filter(|ns| *ns < 1_000_000_000)
        .unwrap_or(0)
}

/// A member without content: all that its header needs. Attributes that could not be read are left out, and the reason
/// is returned beside it.
pub fn member(
    found: &Found,
    kind: Kind,
    owners: &mut Owners,
) -> io::Result<(Member, Option<io::Error>)> {
    let (xattrs, unread) = match xattrs(found) {
        Ok(xattrs) => (xattrs, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let stat = &found.stat;
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let member = Member {
        path: found.path.clone(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: owners.user(stat.st_uid),
        group: owners.group(stat.st_gid),
        mtime: mtime(stat),
        link: if kind == Kind::Symlink {
            fs::readlinkat(&*found.dir, &found.name, Vec::new())?.into_bytes()
        } else {
            Vec::new()
        },
        device: if is_device {
            (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))
        } else {
            (0, 0)
        },
        xattrs,
        content: Content::default(),
        header_bytes: 0,
        torn: false,
    };
    Ok((member, unread))
}

/// Extended attributes, sorted. Read through `/proc/self/fd`, because no system call reads them below a directory
/// handle without opening the file, and a device or pipe must not be opened.
fn xattrs(found: &Found) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = [
        format!("/proc/self/fd/{}/", found.dir.as_raw_fd()).as_bytes(),
        found.name.as_bytes(),
    ]
    .concat();
    let path = CString::new(path).expect("names have no NUL");
    let mut names = vec![0; 256];
    let len = loop {
        match fs::llistxattr(&path, &mut names[..]) {
            Ok(len) => break len,
            Err(rustix::io::Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            // Without /proc nothing can be said; the files themselves are still backed up.
            Err(rustix::io::Errno::NOENT) if !std::path::Path::new("/proc/self/fd").exists() => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        }
    };
    let mut xattrs = Vec::new();
    for name in names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let c_name = CString::new(name).expect("split at NUL");
        let mut value = vec![0; 64 * 1024];
        match fs::lgetxattr(&path, &c_name, &mut value[..]) {
            Ok(len) => value.truncate(len),
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// A regular file that is open for reading.
pub struct SourceFile {
    file: File,
    /// What it was when it was opened.
    pub stat: Stat,
}

impl SourceFile {
    /// Opens what was found. If another regular file has taken its name meanwhile, that one.
    pub fn open(found: &Found) -> io::Result<Self> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| fs::openat(&*found.dir, &found.name, flags, Mode::empty());
        // Only the owner may leave the access time alone.
        let file: OwnedFd = match open(flags | OFlags::NOATIME) {
            Err(rustix::io::Errno::PERM) => open(flags)?,
            result => result?,
        };
        let stat = fs::fstat(file.as_fd())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it was replaced while we looked"));
        }
        Ok(Self {
            file: File::from(file),
            stat,
        })
    }

    /// Its length when it was opened.
    pub fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Fills `buffer` from `offset` on and returns how many bytes there were; less than asked means the file ended.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Where the next data begin at or after `offset`; the file's size if only a hole follows.
    pub fn next_data(&self, offset: u64) -> u64 {
        match fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) => at.max(offset),
            Err(rustix::io::Errno::NXIO) => self.size(),
            // A file system that knows no holes.
            Err(_) => offset,
        }
    }

    /// Where the data that begin at `offset` end.
    pub fn data_end(&self, offset: u64) -> u64 {
        fs::seek(&self.file, SeekFrom::Hole(offset)).map_or(self.size(), |end| end.max(offset))
    }

    /// Takes what it is now for what it was when it was opened; returns its length.
    pub fn look_again(&mut self) -> io::Result<u64> {
        self.stat = fs::fstat(&self.file)?;
        Ok(self.size())
    }

    /// Whether it was written to since it was opened.
    pub fn was_changed(&self) -> io::Result<bool> {
        let now = fs::fstat(&self.file)?;
        Ok(now.st_size != self.stat.st_size
            || mtime(&now) != mtime(&self.stat)
            || stamp(&now).ctime != stamp(&self.stat).ctime)
    }
}
