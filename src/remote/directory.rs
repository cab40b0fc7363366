//! A directory of this machine: another disk, a mounted share.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Entry, FarDigests, Put, READ_MAX_BYTES, Remote, class, fault};
use crate::error::{RemoteError, RemoteFault};
use crate::store::disk::{Disk, LocalDisk};
use crate::store::file::TEMPORARY;

/// A directory. It must be there: a missing one is a disk that is not mounted.
pub(super) struct Directory {
    name: String,
    path: PathBuf,
}

impl Directory {
    pub fn new(name: String, path: &Path) -> Self {
        Self {
            name,
            path: path.to_path_buf(),
        }
    }

    fn run<T>(
        &self,
        op: &'static str,
        path: &str,
        work: impl FnOnce(&LocalDisk) -> io::Result<T>,
    ) -> Result<T, RemoteError> {
        let disk = LocalDisk::open(&self.path).map_err(|error| {
            let detail = format!(
                "{} cannot be used: {error}; is its disk mounted?",
                self.path.display()
            );
            fault(&self.name, op, path, RemoteFault::Other, detail)
        })?;
        work(&disk).map_err(|error| fault(&self.name, op, path, class(&error), error.to_string()))
    }
}

/// Directory and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn list(disk: &LocalDisk, dir: &str, prefix: &str, found: &mut Vec<Entry>) -> io::Result<()> {
    for name in disk.list(dir)? {
        let path = if dir.is_empty() {
            name
        } else {
            format!("{dir}/{name}")
        };
        let may_be_below = path.starts_with(prefix) || prefix.starts_with(&format!("{path}/"));
        if !may_be_below {
            continue;
        }
        match disk.open(&path) {
            Ok(file) if path.starts_with(prefix) => found.push(Entry {
                path,
                len: file.len(),
            }),
            Ok(_) => {}
            // A directory; in something else nothing is found.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                match list(disk, &path, prefix, found) {
                    Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                    result => result?,
                }
            }
            // Gone meanwhile, or a link.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write(disk: &LocalDisk, path: &str, content: &[u8], put: Put) -> io::Result<()> {
    let (dir, name) = split(path);
    // A name of its own, so that two writers do not mix their bytes.
    let aside = format!("{TEMPORARY}{}-{name}", uuid::Uuid::new_v4().simple());
    let aside = if dir.is_empty() {
        aside
    } else {
        format!("{dir}/{aside}")
    };
    let mut file = match disk.create(&aside, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.is_empty() => {
            for (at, _) in path.match_indices('/') {
                disk.create_dir(&path[..at])?;
                disk.sync_dir(split(&path[..at]).0)?;
            }
            disk.create(&aside, false)?
        }
        result => result?,
    };
    let written = file.write(content).and_then(|()| file.sync());
    drop(file);
    let published = written.and_then(|()| disk.publish(&aside, path, put == Put::Replace));
    if published.is_err() {
        let _ = disk.remove(&aside);
    }
    published?;
    disk.sync_dir(dir)
}

impl Remote for Directory {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError> {
        self.run("list", prefix, |disk| {
            let mut found = Vec::new();
            list(disk, split(prefix).0, prefix, &mut found)?;
            Ok(found)
        })
    }

    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError> {
        self.run("read", path, |disk| {
            let file = disk.open(path)?;
            let range = range.unwrap_or(0..file.len());
            if range.end.saturating_sub(range.start) > READ_MAX_BYTES {
                return Err(io::Error::other(
                    "it is longer than any file that is expected",
                ));
            }
            if range.end > file.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            file.read_at(range.start, &mut bytes)?;
            Ok(bytes)
        })
    }

    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError> {
        self.run("write", path, |disk| write(disk, path, content, put))
    }

    fn remove(&self, path: &str) -> Result<(), RemoteError> {
        self.run("remove", path, |disk| match disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        })
    }

    fn digests(&self, _: &[String]) -> Result<Option<FarDigests>, RemoteError> {
        Ok(None)
    }
}
