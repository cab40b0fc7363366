//! Where a restore goes: a hidden directory beside the target, which takes the target's name when it is complete.
//!
//! The directory around the target is found once; from then on everything is done by handle, because others may be
//! able to rename and link there while root restores.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};

use crate::error::Error;
use crate::tree::beneath::{self, DIR_FLAGS};
use crate::tree::meta::Meta;

/// The target, and the directory that becomes it.
pub struct Place {
    target: PathBuf,
    parent: OwnedFd,
    name: OsString,
    hidden: OsString,
    dir: OwnedFd,
    exists: bool,
}

impl Place {
    /// Looks at the target and makes the hidden directory.
    pub fn prepare(target: &Path) -> Result<Self, Error> {
        // A link to an empty directory stands for that directory.
        let resolved = target.canonicalize().ok().filter(|real| real.is_dir());
        let target = resolved.as_deref().unwrap_or(target);
        let target =
            std::path::absolute(target).map_err(|error| Error::file("find", target, error))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Error::Refused(format!(
                "{} cannot be a target",
                target.display()
            )));
        };
        let wrap = |op: &'static str| {
            move |error: rustix::io::Errno| Error::file(op, parent, error.into())
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent_dir = fs::open(parent, flags, Mode::empty())
            .map_err(wrap("open the directory for the target,"))?;
        let exists = is_empty_dir(&parent_dir, name, &target)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".btw-{}", uuid::Uuid::new_v4().simple()));
        let create = || {
            fs::mkdirat(&parent_dir, &hidden, Mode::RWXU)?;
            let dir = fs::openat(&parent_dir, &hidden, DIR_FLAGS, Mode::empty())?;
            beneath::require_ours(&dir)?;
            if !beneath::names(&dir)?.is_empty() {
                return Err(io::Error::other("somebody else put something there"));
            }
            Ok(dir)
        };
        let dir = create().map_err(|error| Error::file("create", parent.join(&hidden), error))?;
        Ok(Self {
            name: name.to_owned(),
            parent: parent_dir,
            hidden,
            dir,
            exists,
            target,
        })
    }

    /// The directory to restore into.
    pub fn dir(&self) -> Result<OwnedFd, Error> {
        self.dir
            .try_clone()
            .map_err(|error| Error::file("open", &self.target, error))
    }

    /// Gives the result its name: the directory, or the single file of a version of one file.
    pub fn publish(&self, single: Option<&Path>) -> Result<PathBuf, Error> {
        let give_name = || match single {
            Some(name) if !self.exists => {
                fs::renameat_with(
                    &self.dir,
                    name,
                    &self.parent,
                    &self.name,
                    RenameFlags::NOREPLACE,
                )?;
                fs::unlinkat(&self.parent, &self.hidden, AtFlags::REMOVEDIR)?;
                Ok(())
            }
            _ => {
                let flags = if self.exists {
                    RenameFlags::empty()
                } else {
                    RenameFlags::NOREPLACE
                };
                fs::renameat_with(&self.parent, &self.hidden, &self.parent, &self.name, flags)?;
                self.require_published()
            }
        };
        give_name().map_err(|error: io::Error| Error::file("create", &self.target, error))?;
        Ok(self.target.clone())
    }

    fn require_published(&self) -> io::Result<()> {
        let named = fs::openat(&self.parent, &self.name, DIR_FLAGS, Mode::empty())?;
        if Meta::of_open(&named)?.identity() == Meta::of_open(&self.dir)?.identity() {
            return Ok(());
        }
        Err(io::Error::other(
            "somebody else put another directory there; restore to a place that only you can write to",
        ))
    }

    /// Removes what was restored. What cannot be removed lies beside the target under a name that says whose it is.
    pub fn discard(&self) {
        let _ = beneath::empty(&self.dir);
        let _ = fs::unlinkat(&self.parent, &self.hidden, AtFlags::REMOVEDIR);
    }
}

/// Whether the target is there, as an empty directory; anything else is refused.
fn is_empty_dir(parent: &OwnedFd, name: &std::ffi::OsStr, target: &Path) -> Result<bool, Error> {
    let refuse = |why: &str| Err(Error::Refused(format!("{} {why}", target.display())));
    let dir = match fs::openat(parent, name, DIR_FLAGS, Mode::empty()) {
        Ok(dir) => dir,
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return refuse("exists and is not a directory; name one that does not exist");
        }
        Err(error) => return Err(Error::file("restore to", target, error.into())),
    };
    let wrap = |error: io::Error| Error::file("look at", target, error);
    if !beneath::names(&dir).map_err(wrap)?.is_empty() {
        return refuse("is not empty; name a directory that is, or one that does not exist");
    }
    if Meta::of_open(&dir).map_err(wrap)?.device != Meta::of_open(parent).map_err(wrap)?.device {
        let inner = target.join("restored");
        return refuse(&format!(
            "is a mount point, which cannot be replaced; name a directory in it, such as {}",
            inner.display()
        ));
    }
    Ok(true)
}
