//! Configuration: files in, validated options out. Data, never code; what is not known is refused by name.

pub mod dump;
pub mod ebs;
mod file;
pub mod general;
pub mod inventory;
pub mod job;
pub mod keeping;
mod legacy;
pub mod notify;
pub mod remote;
pub mod retention;
pub mod run_state;
pub mod settings;
pub mod source;
pub mod sync_state;
pub mod workdir;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Reads a TOML file; `None` if there is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(text) = text(path)? else {
        return Ok(None);
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|error| bad(path, &error))
}

fn bad(path: &Path, error: &toml::de::Error) -> Error {
    Error::Config {
        path: path.to_path_buf(),
        detail: error.to_string().trim_end().to_owned(),
    }
}

fn text(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

/// Writes a small file of the configuration: new, or replaced as a whole.
fn write(path: &Path, content: &str) -> Result<(), Error> {
    write_for(path, content, 0o600)
}

/// Removes a file that this program has written.
pub fn remove(path: &Path) -> Result<(), Error> {
    std::fs::remove_file(path).map_err(|error| Error::file("remove", path, error))
}

/// Writes a small file as a whole, with this mode.
pub fn write_for(path: &Path, content: &str, mode: u32) -> Result<(), Error> {
    let wrap = |error| Error::file("write", path, error);
    let temporary = path.with_extension("tmp");
    let write = || {
        // A link that somebody has put there is not followed.
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::File::create_new(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(wrap)
}
