//! Configuration: files in, validated options out. Data, never code; what is not known is refused by name.

pub mod general;
pub mod workdir;

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Reads a TOML file; `None` if there is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path, error)),
    };
    let bad = |error: toml::de::Error| Error::Config {
        path: path.to_path_buf(),
        detail: error.to_string().trim_end().to_owned(),
    };
    toml::from_str(&text).map(Some).map_err(bad)
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
