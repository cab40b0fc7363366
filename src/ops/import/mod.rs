//! Taking over what the ancestors kept: the Python tool's tarballs and rdiff-backup directories, and rdiff-backup's own.
//!
//! Each old version is made a tree again, in a private directory, and then backed up like any source. So nothing of the
//! engine knows about old formats, and an imported version is like any other.

mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bzip2::read::MultiBzDecoder;
use jiff::Timestamp;
use rustix::fs::{self, AtFlags, Mode, OFlags};

use crate::error::Error;
use crate::format::legacy::{self, Legacy, RDIFF_DATA};
use crate::tree::beneath::{self, DIR_FLAGS};

/// A version that an ancestor kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldVersion {
    /// When it was made.
    pub time: Timestamp,
    form: Form,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A tarball compressed by bzip2.
    Tarball,
    /// A tarball that rdiff-backup kept.
    KeptTarball,
    /// A tree that rdiff-backup kept.
    KeptTree,
}

/// The name under which the Python tool kept tarballs in rdiff-backup's directories.
const TARBALL: &str = "backup.tar";
/// What that tool wrote beside its backups.
const OLD_LOG: &str = "log.txt";

/// Finds all versions in a directory of the ancestors, oldest first, and the names that are none.
pub fn find(dir: &Path) -> Result<(Vec<OldVersion>, Vec<OsString>), Error> {
    let (mut found, mut ignored) = (Vec::new(), Vec::new());
    if dir.join(RDIFF_DATA).is_dir() {
        kept(dir, Form::KeptTree, &mut found)?;
    } else {
        let entries = std::fs::read_dir(dir).map_err(|error| Error::file("read", dir, error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| Error::file("read", dir, error))?
                .path();
            match path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(legacy::of_name)
            {
                Some(Legacy::Tarball(time)) => found.push(OldVersion {
                    time,
                    form: Form::Tarball,
                    path,
                }),
                Some(Legacy::Directory(_)) if path.join(TARBALL).is_file() => {
                    kept(&path, Form::KeptTarball, &mut found)?;
                }
                Some(Legacy::Directory(_)) => {
                    return Err(Error::Refused(format!(
                        "{} holds no {TARBALL}: if it holds database dumps, they cannot be imported; an interrupted backup can be moved away",
                        path.display()
                    )));
                }
                None => ignored.extend(
                    path.file_name()
                        .filter(|name| *name != OLD_LOG)
                        .map(OsStr::to_owned),
                ),
            }
        }
    }
    found.sort_by(|a, b| (a.time, &a.path).cmp(&(b.time, &b.path)));
    found.dedup();
    if found.is_empty() {
        return Err(Error::Refused(format!(
            "{} holds neither tarballs of the Python tool nor a directory of rdiff-backup",
            dir.display()
        )));
    }
    Ok((found, ignored))
}

/// The versions in a directory of rdiff-backup.
fn kept(dir: &Path, form: Form, found: &mut Vec<OldVersion>) -> Result<(), Error> {
    let data = dir.join(RDIFF_DATA);
    let wrap = |error| Error::file("read", &data, error);
    for entry in std::fs::read_dir(&data).map_err(wrap)? {
        let name = entry.map_err(wrap)?.file_name();
        if let Some(time) = name.to_str().and_then(legacy::session_time) {
            found.push(OldVersion {
                time,
                form,
                path: dir.to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Runs rdiff-backup, whose command line changed with version 2.2: the first form that works counts.
fn rdiff_backup(forms: &[&[&str]], operands: &[&Path]) -> Result<(), Error> {
    let mut said = String::new();
    for form in forms {
        let mut command = Command::new("rdiff-backup");
        command.args(*form).args(operands).stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::Refused("rdiff-backup is needed to read its directories: install it".into())
            }
            _ => Error::file("run", "rdiff-backup", error),
        })?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(Error::Refused(format!(
        "rdiff-backup failed: {}",
        said.trim()
    )))
}

/// A private directory in which old versions become trees.
pub struct Workplace {
    path: PathBuf,
    parent: OwnedFd,
    name: String,
    dir: OwnedFd,
}

/// How it is called when that fails: one bad version need not stop the others.
const UNPACK: &str = "unpack (move it away to go on without it)";
const TREE: &str = "tree";
const PLAIN: &str = "plain.tar";

impl Workplace {
    /// Makes it in `parent`, in place of one that an interrupted import of the same store left.
    pub fn create(parent: &Path, dst: &str) -> Result<Self, Error> {
        let name = format!(
            ".btw-import-{}",
            dst.replace('%', "%25").replace('/', "%2F")
        );
        let path = parent.join(&name);
        let make = || {
            let parent = fs::open(
                parent,
                DIR_FLAGS.difference(OFlags::NOFOLLOW),
                Mode::empty(),
            )?;
            match fs::openat(&parent, &name, DIR_FLAGS, Mode::empty()) {
                Ok(left) => {
                    beneath::require_ours(&left)?;
                    beneath::empty(&left)?;
                    fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)?;
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            fs::mkdirat(&parent, &name, Mode::RWXU)?;
            let dir = fs::openat(&parent, &name, DIR_FLAGS, Mode::empty())?;
            beneath::require_ours(&dir)?;
            Ok((parent, dir))
        };
        let (parent, dir) =
            make().map_err(|error: io::Error| Error::file("create", &path, error))?;
        Ok(Self {
            path,
            parent,
            name,
            dir,
        })
    }

    /// Makes an old version the tree that it was. Returns where, and what could not be made as it was.
    pub fn unpack(&self, version: &OldVersion) -> Result<(PathBuf, Vec<String>), Error> {
        beneath::empty(&self.dir).map_err(|error| Error::file("empty", &self.path, error))?;
        let target = self.path.join(TREE);
        let at = version.time.as_second().to_string();
        let restore = |what: &Path, to: &Path| {
            rdiff_backup(&[&["restore", "--at", &at], &["-r", &at]], &[what, to])
        };
        match version.form {
            Form::KeptTree => {
                restore(&version.path, &target)?;
                return Ok((target, Vec::new()));
            }
            Form::KeptTarball => restore(&version.path.join(TARBALL), &self.path.join(PLAIN))?,
            Form::Tarball => self.decompress(&version.path)?,
        }
        let wrap = |error| Error::file(UNPACK, &version.path, error);
        let open = || {
            let plain = fs::openat(
                &self.dir,
                PLAIN,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            fs::mkdirat(&self.dir, TREE, Mode::RWXU)?;
            Ok((
                File::from(plain),
                fs::openat(&self.dir, TREE, DIR_FLAGS, Mode::empty())?,
            ))
        };
        let (plain, root) = open().map_err(|error: rustix::io::Errno| wrap(error.into()))?;
        let faults = tree::unpack(&plain, root).map_err(wrap)?;
        if let Some((path, error)) = faults.missing.into_iter().next() {
            return Err(Error::file("restore", path, error));
        }
        let lost = faults.lost.iter().map(|(what, lost)| {
            format!(
                "The import could not keep the {what} of {} members, such as {}",
                lost.count, lost.examples[0]
            )
        });
        Ok((target, lost.collect()))
    }

    fn decompress(&self, tarball: &Path) -> Result<(), Error> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = || {
            let packed = File::from(fs::open(tarball, read, Mode::empty())?);
            let plain = fs::openat(self.dir.as_fd(), PLAIN, write, Mode::RUSR | Mode::WUSR)?;
            io::copy(&mut MultiBzDecoder::new(packed), &mut File::from(plain))
        };
        copy()
            .map(|_| ())
            .map_err(|error| Error::file(UNPACK, tarball, error))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What is left is removed by the next import.
        let _ = beneath::empty(&self.dir);
        let _ = fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}
