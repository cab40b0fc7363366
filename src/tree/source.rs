//! Reading a member: its metadata, and the content of a regular file.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{self, Advice, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{ReadWriteFlags, preadv2};

use super::found::Found;
use super::meta::Meta;
use crate::catalog::{Content, Kind, Member};

/// Looks up names of owners once each.
#[derive(Default)]
pub struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
    /// Names that could not be looked up, and why.
    pub faults: Vec<String>,
}

impl Owners {
    fn user(&mut self, uid: u32) -> Vec<u8> {
        let look_up = || User::from_uid(Uid::from_raw(uid)).map(|user| user.map(|user| user.name));
        remembered(&mut self.users, &mut self.faults, uid, look_up)
    }

    fn group(&mut self, gid: u32) -> Vec<u8> {
        let look_up =
            || Group::from_gid(Gid::from_raw(gid)).map(|group| group.map(|group| group.name));
        remembered(&mut self.groups, &mut self.faults, gid, look_up)
    }
}

fn remembered(
    names: &mut HashMap<u32, Vec<u8>>,
    faults: &mut Vec<String>,
    id: u32,
    look_up: impl FnOnce() -> nix::Result<Option<String>>,
) -> Vec<u8> {
    if let Some(name) = names.get(&id) {
        return name.clone();
    }
    let name = match look_up() {
        Ok(name) => name.unwrap_or_default().into_bytes(),
        // How some sources of names say that there is none: getpwuid(3).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Vec::new(),
        Err(error) => {
            faults.push(format!(
                "Cannot look up the name of user or group {id}, only the number is kept: {error}"
            ));
            Vec::new()
        }
    };
    names.insert(id, name.clone());
    name
}

/// What kind of member something is; `None` for a socket, which no tar can hold.
pub fn kind(found: &Found) -> Option<Kind> {
    match found.meta.kind {
        FileType::RegularFile => Some(Kind::Regular),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice if found.is_image => Some(Kind::Regular),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Fifo => Some(Kind::Fifo),
        _ => None,
    }
}

/// A member without content: all that its header needs. Attributes that could not be read are left out, and the reason
/// is returned beside it. `known` is the member as it was if nothing about it was changed since: then its attributes are
/// not read again.
pub fn member(
    found: &Found,
    kind: Kind,
    owners: &mut Owners,
    known: Option<&Member>,
) -> io::Result<(Member, Option<io::Error>)> {
    let (xattrs, unread) =
        match known.map_or_else(|| xattrs(found), |known| Ok(known.xattrs.clone())) {
            Ok(xattrs) => (xattrs, None),
            Err(error) => (Vec::new(), Some(error)),
        };
    let meta = &found.meta;
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let member = Member {
        path: found.path.clone(),
        kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        user: owners.user(meta.uid),
        group: owners.group(meta.gid),
        mtime: mtime(found),
        link: if kind == Kind::Symlink {
            target(found)?
        } else {
            Vec::new()
        },
        device: if is_device { meta.node } else { (0, 0) },
        xattrs,
        content: Content::default(),
        header_bytes: 0,
        torn: false,
    };
    Ok((member, unread))
}

/// The modification time as it is recorded. The times of a device say nothing of its content.
pub fn mtime(found: &Found) -> (i64, u32) {
    if found.is_image {
        (0, 0)
    } else {
        found.meta.mtime
    }
}

/// What a symbolic link points to.
pub fn target(found: &Found) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(&*found.dir, &found.name, Vec::new())?.into_bytes())
}

/// Extended attributes, sorted. Read through `/proc/self/fd`, because no system call reads them below a directory
/// handle without opening the file, and a device or pipe must not be opened.
pub fn xattrs(found: &Found) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
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
            Err(rustix::io::Errno::NOENT) if !std::path::Path::new("/proc/self/fd").exists() => {
                return Err(io::Error::other("/proc is not mounted"));
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

/// Shorter files are left to the kernel.
const COLD_MIN_BYTES: u64 = 8 << 20;
/// At so many places a file is looked at to tell whether it is in the page cache.
const COLD_PROBES: u64 = 16;

/// A regular file, or a block device that is read as an image, open for reading.
pub struct SourceFile {
    file: File,
    /// What it was when it was opened.
    pub meta: Meta,
    size: u64,
    /// It was not in the page cache when it was opened.
    is_cold: bool,
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
        let meta = Meta::of_open(file.as_fd())?;
        let same = if found.is_image {
            meta.kind == FileType::BlockDevice && meta.node == found.meta.node
        } else {
            meta.kind == FileType::RegularFile
        };
        if !same {
            return Err(io::Error::other("it was replaced while we looked"));
        }
        let size = if found.is_image {
            fs::seek(&file, SeekFrom::End(0))?
        } else {
            meta.size
        };
        let mut opened = Self {
            file: File::from(file),
            meta,
            size,
            is_cold: false,
        };
        opened.is_cold = size >= COLD_MIN_BYTES && opened.is_mostly_uncached();
        Ok(opened)
    }

    /// Whether most of the data are not in the page cache, as far as a few places tell. Holes are nobody's loss, so only
    /// data are looked at. A file system that cannot tell has it all there.
    fn is_mostly_uncached(&self) -> bool {
        let places = (0..COLD_PROBES).map(|probe| self.next_data(self.size / COLD_PROBES * probe));
        let (mut probes, mut misses) = (0, 0);
        for place in places.filter(|place| *place < self.size) {
            let mut byte = [0];
            let buffers = &mut [IoSliceMut::new(&mut byte)];
            let read = preadv2(&self.file, buffers, place, ReadWriteFlags::NOWAIT);
            probes += 1;
            misses += u64::from(read == Err(rustix::io::Errno::AGAIN));
        }
        2 * misses > probes
    }

    /// Tells that a range was read and is not needed again: what was not in the page cache before need not be there
    /// after, where it would take the room of what others use.
    pub fn read_once(&self, offset: u64, len: u64) {
        if let (true, Some(len)) = (self.is_cold, NonZeroU64::new(len)) {
            let _ = fs::fadvise(&self.file, offset, Some(len), Advice::DontNeed);
        }
    }

    /// Its length when it was opened.
    pub fn size(&self) -> u64 {
        self.size
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
            Err(rustix::io::Errno::NXIO) => self.size,
            // A file system that knows no holes, or a device.
            Err(_) => offset,
        }
    }

    /// Where the data that begin at `offset` end.
    pub fn data_end(&self, offset: u64) -> u64 {
        fs::seek(&self.file, SeekFrom::Hole(offset)).map_or(self.size, |end| end.max(offset))
    }

    /// Takes what it is now for what it was when it was opened; returns its length.
    pub fn look_again(&mut self) -> io::Result<u64> {
        self.meta = Meta::of_open(&self.file)?;
        if self.meta.kind == FileType::RegularFile {
            self.size = self.meta.size;
        }
        Ok(self.size)
    }

    /// Whether it was written to since it was opened. Of a device this cannot be seen.
    pub fn was_changed(&self) -> io::Result<bool> {
        let (now, before) = (Meta::of_open(&self.file)?, &self.meta);
        let same = (now.size, now.mtime, now.ctime) == (before.size, before.mtime, before.ctime);
        Ok(!same && now.kind == FileType::RegularFile)
    }
}
