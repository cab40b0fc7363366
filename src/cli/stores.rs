//! From what the user calls a store to the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Gid, Uid};

use super::Context;
use super::owner::{self, Ownership};
use crate::config::general::General;
use crate::error::Error;
use crate::format::legacy::is_legacy;
use crate::ops::backup::refuse_foreign;
use crate::store::disk::{Disk, LocalDisk};
use crate::store::{Guard, Presence, Store};

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
    let path = general.store_path(dst)?;
    require_root(general)?;
    let disk = match LocalDisk::open(&path) {
        Ok(disk) => disk,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(unknown(general, dst));
        }
        Err(error) => return Err(Error::file("open", &path, error)),
    };
    let store = Store::new(Arc::new(disk), dst);
    match store.presence()? {
        Presence::Store => Ok(store),
        Presence::Foreign(name) if is_legacy(&name) => Err(Error::Refused(format!(
            "{dst} holds backups of the Python tool or of rdiff-backup; `btw-backup import {dst} DST` takes them over"
        ))),
        _ => Err(unknown(general, dst)),
    }
}

/// A store that is to be written to, locked; its directory is made if it is new. Whatever is wrong with whose it is, is said
/// before anything is touched.
pub fn open_to_write(
    general: &General,
    dst: &str,
    ownership: &Ownership,
    wait: bool,
) -> Result<(Store, Guard), Error> {
    let path = general.store_path(dst)?;
    owner::refuse_foreign_store(&path, ownership)?;
    let owner = ownership
        .wanted
        .map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group)));
    let disk = LocalDisk::create(&general.root_path, dst.as_ref(), owner)
        .map_err(|error| Error::file("create the store", &path, error))?;
    owner::refuse_foreign_disk(&disk, &path, ownership)?;
    let disk = Arc::new(disk);
    let store = Store::new(Arc::clone(&disk) as Arc<dyn Disk>, dst);
    refuse_foreign(&store)?;
    let guard = store.lock_writer(wait)?;
    disk.bring_over()
        .map_err(|error| Error::file("change the owner of", &path, error))?;
    Ok((store, guard))
}

fn unknown(general: &General, dst: &str) -> Error {
    let known = find(&general.root_path);
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

/// The names of all stores below the root, sorted.
pub fn find(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&below)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            if is_store(&root.join(&path)) {
                found.push(path.display().to_string());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}
