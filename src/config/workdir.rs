//! Working directories: `<config-dir>/NAME.HASH/` with `src`, `config.toml` and `seen/`, one for each tree; for dumps
//! `<config-dir>/db/NAME.work/` and `<config-dir>/cmd/NAME.work/` with `seen/`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dump::{DumpConfig, DumpSource};
use super::keeping::Keeping;
use super::source::{SourceConfig, default_config};
use super::{read, write};
use crate::catalog::StoreType;
use crate::error::Error;

/// A source's working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// Where it is.
    pub path: PathBuf,
    /// Set for dumps: what is dumped, and where all configuration is.
    dump: Option<(DumpSource, PathBuf)>,
}

/// What was seen of a store when it was last used: catches unmounted, exchanged and rolled-back ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The store's identity.
    pub store: Uuid,
    /// Its newest state.
    pub state: u64,
    /// The user that it was given to with `-u`: numeric user and group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// When it was first backed up to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When the store was last made to hold what the source was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Timestamp>,
    /// The same where nothing was missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Timestamp>,
}

impl Seen {
    /// A store in some state, of which it is not known when it was backed up to.
    pub fn new(store: Uuid, state: u64, owner: Option<(u32, u32)>) -> Self {
        Self {
            store,
            state,
            owner,
            first: None,
            ran: None,
            good: None,
        }
    }
}

/// The suffix of a source's working directory: murmur3-32 of its path as minimal big-endian bytes in URL-safe base64
/// without padding. The Python tool's, so that its directories are found.
pub fn path_hash(source: &Path) -> String {
    let bytes = source.as_os_str().as_bytes();
    let hash = murmur3::murmur3_32(&mut Cursor::new(bytes), 0)
        .expect("memory can be read")
        .to_be_bytes();
    let first = hash
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(hash.len() - 1);
    URL_SAFE_NO_PAD.encode(&hash[first..])
}

/// The path without slashes at its end: `/a/` and `/a` are one source.
pub fn normal(source: &Path) -> Result<PathBuf, Error> {
    if !source.is_absolute() {
        return Err(Error::Refused("the source path must be absolute".into()));
    }
    let bytes = source.as_os_str().as_bytes();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(1, |last| last + 1);
    Ok(PathBuf::from(OsStr::from_bytes(&bytes[..end])))
}

/// A store's name as it is meant: `home/` and `a//b` are `home` and `a/b`.
pub fn normal_dst(dst: &str) -> String {
    let parts = dst
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

impl Workdir {
    /// The working directory of a source, if there is one.
    pub fn find(config_dir: &Path, source: &Path) -> Result<Option<Self>, Error> {
        if let Some(dump) = DumpSource::of(source.as_os_str().as_bytes()) {
            let work = Self::of_dump(config_dir, dump);
            return Ok(Some(work).filter(|work| work.path.exists()));
        }
        let source = normal(source)?;
        if let Some(found) = Self::find_exact(config_dir, &source)? {
            return Ok(Some(found));
        }
        // The Python tool took a path with a slash behind for another one.
        let with_slash = PathBuf::from(OsStr::from_bytes(
            &[source.as_os_str().as_bytes(), b"/"].concat(),
        ));
        Self::find_exact(config_dir, &with_slash)
    }

    fn find_exact(config_dir: &Path, source: &Path) -> Result<Option<Self>, Error> {
        let suffix = format!(".{}", path_hash(source));
        let entries = match std::fs::read_dir(config_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", config_dir, error)),
        };
        let mut found = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::file("read", config_dir, error))?;
            if entry.file_name().as_bytes().ends_with(suffix.as_bytes()) {
                found.insert(entry.path());
            }
        }
        if found.len() > 1 {
            let names: Vec<String> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            return Err(Error::Refused(format!(
                "duplicate working directories: {}",
                names.join(", ")
            )));
        }
        let Some(path) = found.pop_first() else {
            return Ok(None);
        };
        let link = path.join("src");
        let target =
            std::fs::read_link(&link).map_err(|error| Error::file("read", &link, error))?;
        if target.as_os_str() != source.as_os_str() {
            return Err(Error::Refused(format!(
                "found a working directory with the wrong path: {}",
                path.display()
            )));
        }
        Ok(Some(Self::of_tree(path)))
    }

    /// The working directory of a dump. It needs none before something was seen of a store.
    pub fn of_dump(config_dir: &Path, source: DumpSource) -> Self {
        Self {
            path: source.config_path(config_dir, "work"),
            dump: Some((source, config_dir.to_path_buf())),
        }
    }

    /// Makes a source's working directory.
    pub fn create(
        config_dir: &Path,
        source: &Path,
        name: &str,
        store_type: StoreType,
    ) -> Result<Self, Error> {
        let source = normal(source)?;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(Error::Refused(format!(
                "'{name}' cannot be the name of a working directory: it must be a plain name"
            )));
        }
        if let Some(found) = Self::find(config_dir, &source)? {
            return Err(Error::Refused(format!(
                "there is already a directory for this path: {}; how it is backed up is said in its config.toml",
                found.path.display()
            )));
        }
        let path = config_dir.join(format!("{name}.{}", path_hash(&source)));
        // Made under another name first: a half-made directory is never found.
        let temporary = config_dir.join(format!(".{name}.{}", Uuid::new_v4().simple()));
        let make = || {
            std::fs::create_dir_all(temporary.join("seen"))?;
            std::os::unix::fs::symlink(&source, temporary.join("src"))?;
            std::fs::write(temporary.join("config.toml"), default_config(store_type))?;
            std::fs::rename(&temporary, &path)
        };
        make().map_err(|error| {
            let _ = std::fs::remove_dir_all(&temporary);
            Error::file("create", &path, error)
        })?;
        Ok(Self::of_tree(path))
    }

    pub(super) fn of_tree(path: PathBuf) -> Self {
        Self { path, dump: None }
    }

    /// The configuration of a tree.
    pub fn config(&self) -> Result<SourceConfig, Error> {
        SourceConfig::read(&self.path)
    }

    /// How the versions of whatever it is are kept.
    pub fn keeping(&self) -> Result<Keeping, Error> {
        match &self.dump {
            Some((source, config_dir)) => Ok(DumpConfig::read(config_dir, source)?.keeping),
            None => Ok(self.config()?.keeping),
        }
    }

    /// The files and directories that say how the source is backed up, whether they are there or not.
    pub fn files(&self) -> Vec<PathBuf> {
        let configs = match &self.dump {
            Some((source, config_dir)) => ["toml", "py"]
                .map(|extension| source.config_path(config_dir, extension))
                .to_vec(),
            None => ["config.toml", "config.py"]
                .map(|name| self.path.join(name))
                .to_vec(),
        };
        let above = self.path.parent().map(Path::to_path_buf);
        let own = [self.path.clone(), self.seen_dir()];
        configs.into_iter().chain(above).chain(own).collect()
    }

    /// The directory with what was seen. It is left out of backups: it changes with every one.
    pub fn seen_dir(&self) -> PathBuf {
        self.path.join("seen")
    }

    fn seen_path(&self, dst: &str) -> PathBuf {
        let dst = normal_dst(dst);
        self.seen_dir().join(format!(
            "{}.toml",
            dst.replace('%', "%25").replace('/', "%2F")
        ))
    }

    /// What was last seen of the store `dst`.
    pub fn seen(&self, dst: &str) -> Result<Option<Seen>, Error> {
        read(&self.seen_path(dst))
    }

    /// The user that the store `dst` was given to, by whatever source; sources must not disagree.
    pub fn recorded_owner(config_dir: &Path, dst: &str) -> Result<Option<(u32, u32)>, Error> {
        let dirs = ["", "db", "cmd"].map(|dir| config_dir.join(dir));
        let entries = dirs.iter().flat_map(std::fs::read_dir).flatten();
        let seen = entries
            .flatten()
            .map(|entry| Self::of_tree(entry.path()).seen(dst));
        let owners: BTreeSet<(u32, u32)> =
            seen.filter_map(|seen| seen.ok().flatten()?.owner).collect();
        match owners.len() {
            0 | 1 => Ok(owners.first().copied()),
            _ => Err(Error::Refused(format!(
                "sources disagree about whose the store {dst} is; say it with -u"
            ))),
        }
    }

    /// Remembers what was seen of the store `dst`.
    pub fn remember(&self, dst: &str, seen: Seen) -> Result<(), Error> {
        let dir = self.seen_dir();
        std::fs::create_dir_all(&dir).map_err(|error| Error::file("create", &dir, error))?;
        let text = toml::to_string(&seen).map_err(|error| Error::Refused(error.to_string()))?;
        write(&self.seen_path(dst), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::{normal, path_hash};
    use std::path::Path;

    #[test]
    fn hashes_are_those_of_the_python_tool() {
        // murmur3-32 with seed 0: known values of "" and "hello" are 0 and 0x248bfa47.
        assert_eq!(path_hash(Path::new("hello")), "JIv6Rw");
        assert_eq!(path_hash(Path::new("")), "AA");
    }

    #[test]
    fn a_slash_behind_is_the_same_source() {
        assert_eq!(normal(Path::new("/a/b//")).unwrap(), Path::new("/a/b"));
        assert_eq!(normal(Path::new("/")).unwrap(), Path::new("/"));
        assert_eq!(
            normal(Path::new("a")).unwrap_err().to_string(),
            "the source path must be absolute"
        );
    }
}
