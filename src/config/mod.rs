//! Configuration: files in, validated options out. Data, never code; what is not known is refused by name.

pub mod dump;
pub mod general;
pub mod keeping;
mod legacy;
pub mod remote;
pub mod retention;
pub mod source;
pub mod sync_state;
pub mod workdir;

use std::io;
use std::path::{Path, PathBuf};

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

/// Reads `config.toml` in a directory, or the Python tool's `config.py` where there is none, and says which.
fn read_config<T: DeserializeOwned>(dir: &Path) -> Result<Option<(T, PathBuf)>, Error> {
    read_either(dir.join("config.toml"), dir.join("config.py"))
}

/// Reads a TOML file, or the Python tool's file where there is none, and says which.
fn read_either<T: DeserializeOwned>(
    path: PathBuf,
    legacy: PathBuf,
) -> Result<Option<(T, PathBuf)>, Error> {
    if let Some(config) = read(&path)? {
        return Ok(Some((config, path)));
    }
    let path = legacy;
    let Some(text) = text(&path)? else {
        return Ok(None);
    };
    let table = legacy::parse(&text).map_err(|bad| Error::Config {
        path: path.clone(),
        detail: format!(
            "line {}: '{}' is not KEY = value with a plain string or number; configuration is not executed. Write it so, or a file with the extension .toml beside it",
            bad.line, bad.text
        ),
    })?;
    match table.try_into() {
        Ok(config) => Ok(Some((config, path))),
        Err(error) => Err(bad(&path, &error)),
    }
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
    let wrap = |error| Error::file("write", path, error);
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(wrap)
}
