//! From what the user calls a store to the store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Gid, Uid};

use jiff::Zoned;

use super::Context;
use super::args::Reading;
use super::owner::{self, Ownership};
use super::remotes::{self, Remotes};
use crate::catalog::Version;
use crate::catalog::version::{StreamKind, resolve};
use crate::config::general::General;
use crate::error::{Error, StoreError};
use crate::format::legacy::is_legacy;
use crate::format::state::State;
use crate::ops::backup::refuse_foreign;
use crate::ops::paths::member_path;
use crate::store::disk::{Disk, LocalDisk};
use crate::store::{Guard, Presence, Store};
use crate::time::When;

/// The configuration, for commands that only look.
pub fn existing_config(context: &Context) -> Result<General, Error> {
    General::read(&context.config_dir)?.ok_or_else(|| {
        Error::Refused(format!(
            "Nothing is configured in {} yet; begin with btw-backup fs --init SRC DST",
            context.config_dir.display()
        ))
    })
}

/// An existing store.
pub fn open(general: &General, dst: &str) -> Result<Store, Error> {
    existing(general, dst, open_disk(general, dst)?)
}

/// An existing store, if root may trust it.
pub fn open_trusted(general: &General, dst: &str, ownership: &Ownership) -> Result<Store, Error> {
    let path = general.store_path(dst)?;
    owner::refuse_foreign_store(&path, ownership)?;
    let disk = open_disk(general, dst)?;
    owner::refuse_foreign_disk(&disk, &path, ownership)?;
    existing(general, dst, disk)
}

/// A store that is being read, and its versions.
pub struct Read {
    pub store: Store,
    pub state: State,
    pub versions: Vec<Version>,
    _guard: Guard,
}

impl Read {
    /// The index of the version that a user means.
    pub fn index(&self, context: &Context, text: &str) -> Result<usize, Error> {
        let when = when(context, text)?;
        let version = resolve(&self.versions, &when)
            .map_err(|error| Error::Refused(format!("{}: {error}", self.store.name())))?;
        let index = self
            .versions
            .iter()
            .position(|other| other.seq == version.seq);
        Ok(index.expect("resolved from these"))
    }

    /// Refuses what needs a place in a file system, if the version has none.
    pub fn refuse_dump(&self, index: usize) -> Result<(), Error> {
        match self.versions[index].stream {
            StreamKind::Tar => Ok(()),
            StreamKind::Raw => Err(Error::Refused(format!(
                "{0} holds a dump, which has no place of its own: restore it to a new file, or `btw-backup restore {0} -` to the standard output",
                self.store.name()
            ))),
        }
    }

    /// The same; without one the file that the source was in the version with this index.
    pub fn file(&self, index: usize, text: Option<&OsString>) -> Result<Vec<u8>, Error> {
        if text.is_some() {
            return self.path(text);
        }
        let path = self.versions[index].catalog.first.clone();
        if path.is_empty() {
            return Err(Error::Usage(format!(
                "{} is a tree: name a file in it; btw-backup ls shows what there is",
                self.store.name()
            )));
        }
        Ok(path)
    }

    /// The member path that a user means; without one the source itself.
    pub fn path(&self, text: Option<&OsString>) -> Result<Vec<u8>, Error> {
        let Some(text) = text else {
            return Ok(Vec::new());
        };
        let path = member_path(text, &self.state.source)?;
        // A source that is one file has that file as its only member.
        let first = self.versions.last().map(|version| &version.catalog.first);
        Ok(match first {
            Some(file) if path.is_empty() => file.clone(),
            _ => path,
        })
    }
}

/// What a user wrote for a time; a remark is passed on.
pub fn when(context: &Context, text: &str) -> Result<When, Error> {
    let (when, remark) =
        When::parse(text, &Zoned::now()).map_err(|error| Error::Usage(error.to_string()))?;
    if let Some(remark) = remark {
        context.output.remark(&remark);
    }
    Ok(when)
}

/// Opens a store to look into it; nothing is removed meanwhile.
pub fn open_to_read(context: &Context, reading: &Reading) -> Result<Read, Error> {
    let remote = Remotes::existing(context)?.chosen(&reading.dst, reading.remote.as_deref())?;
    let store = if let Some(mirror) = remote {
        // The same store here, if it is, saves reading there.
        let general = General::read(&context.config_dir)?;
        let local = general.and_then(|general| open(&general, &reading.dst).ok());
        remotes::open_store(&mirror, local.as_ref(), reading.state)?
    } else {
        let general = existing_config(context)?;
        let ownership = owner::of_store(context, None, reading.user.as_deref(), &reading.dst)?;
        as_of(
            open_trusted(&general, &reading.dst, &ownership)?,
            reading.state,
        )?
    };
    let guard = store.lock_reader()?;
    let state = store.current()?;
    Ok(Read {
        versions: store.versions(&state)?,
        state,
        store,
        _guard: guard,
    })
}

/// The store as an older state says, which must be there.
pub fn as_of(store: Store, number: Option<u64>) -> Result<Store, Error> {
    let numbers = store.state_numbers()?;
    if let Some(number) = number.filter(|number| !numbers.contains(number)) {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        return Err(Error::Refused(format!(
            "{} has no state {number}; there are {}",
            store.name(),
            numbers.join(", ")
        )));
    }
    Ok(store.as_of(number))
}

fn open_disk(general: &General, dst: &str) -> Result<LocalDisk, Error> {
    let path = general.store_path(dst)?;
    require_root(general)?;
    LocalDisk::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unknown(general, dst),
        _ => Error::file("open", &path, error),
    })
}

fn existing(general: &General, dst: &str, disk: LocalDisk) -> Result<Store, Error> {
    let store = Store::new(Arc::new(disk), dst);
    match store.presence()? {
        Presence::Store => Ok(store),
        Presence::Foreign(name) if is_legacy(&name) => Err(Error::Refused(format!(
            "{dst} holds backups of the Python tool or of rdiff-backup; `btw-backup import {dst} DST` takes them over"
        ))),
        _ => Err(unknown(general, dst)),
    }
}

/// A store that is to be written to.
pub struct Opened {
    pub store: Store,
    disk: Arc<LocalDisk>,
    path: PathBuf,
    _guard: Guard,
}

impl Opened {
    /// Gives everything in it to its owner. Not before it is known to be the right store: else a slip of the tongue gives
    /// away another one.
    pub fn bring_over(&self) -> Result<(), Error> {
        let wrap = |error| Error::file("change the owner of", &self.path, error);
        self.disk.bring_over().map_err(wrap)
    }
}

/// Opens a store to be written to and locks it; its directory is made if it is new. What is wrong with its place and owner
/// is said before anything is touched.
pub fn open_to_write(
    general: &General,
    dst: &str,
    ownership: &Ownership,
    wait: bool,
) -> Result<Opened, Error> {
    open_locked(general, dst, ownership, (wait, false))
}

/// The same where a store may have lost its states.
pub fn open_to_repair(
    general: &General,
    dst: &str,
    ownership: &Ownership,
    wait: bool,
) -> Result<Opened, Error> {
    open_locked(general, dst, ownership, (wait, true))
}

fn open_locked(
    general: &General,
    dst: &str,
    ownership: &Ownership,
    (wait, is_repair): (bool, bool),
) -> Result<Opened, Error> {
    let path = general.store_path(dst)?;
    refuse_nested(general, &path)?;
    owner::refuse_foreign_store(&path, ownership)?;
    let owner = ownership
        .wanted
        .map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group)));
    let disk = LocalDisk::create(&general.root_path, dst.as_ref(), owner)
        .map_err(|error| Error::file("create the store", &path, error))?;
    owner::refuse_foreign_disk(&disk, &path, ownership)?;
    let disk = Arc::new(disk);
    let store = Store::new(Arc::clone(&disk) as Arc<dyn Disk>, dst);
    match refuse_foreign(&store) {
        Err(Error::Store(StoreError::Damaged { .. })) if is_repair => {}
        result => result?,
    }
    let guard = store.lock_writer(wait)?;
    Ok(Opened {
        store,
        disk,
        path,
        _guard: guard,
    })
}

fn refuse_nested(general: &General, store: &Path) -> Result<(), Error> {
    let outer = store
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(&general.root_path))
        .find(|dir| is_store(dir));
    match outer {
        Some(outer) => Err(Error::Refused(format!(
            "{} would lie in the store {}",
            store.display(),
            outer.display()
        ))),
        None => Ok(()),
    }
}

fn unknown(general: &General, dst: &str) -> Error {
    let (known, _) = find(&general.root_path);
    let names = if known.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Error::Refused(format!(
        "There is no store {dst} in {}; {names}",
        general.root_path.display()
    ))
}

/// The root must be there: a missing one is an unmounted disk, not a place to make.
pub fn require_root(general: &General) -> Result<(), Error> {
    if general.root_path.is_dir() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "ROOT_PATH {} does not exist; is its disk mounted?",
        general.root_path.display()
    )))
}

/// Whether a directory is a store, judged by its own description.
pub fn is_store(dir: &Path) -> bool {
    dir.join("state").is_dir() && dir.join("objects").is_dir() && dir.join("README.txt").is_file()
}

/// The names of all stores below the root, sorted, and the directories that could not be looked into.
pub fn find(root: &Path) -> (Vec<String>, Vec<Error>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let dir = root.join(&below);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                unread.push(Error::file("read", &dir, error));
                continue;
            }
        };
        for entry in entries.flatten() {
            // Only root can look into it.
            if entry.file_name() == "lost+found" {
                continue;
            }
            let path = below.join(entry.file_name());
            if is_store(&root.join(&path)) {
                found.push(path.display().to_string());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path);
            }
        }
    }
    found.sort();
    (found, unread)
}
