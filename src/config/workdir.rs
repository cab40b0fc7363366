//! Working directories: `<config-dir>/NAME.HASH/` with `src`, `config.toml` and `seen/`, one for each source.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{read, write};
use crate::error::Error;
use crate::time::parse_span;

/// How a source is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// At most this many increments follow a full.
    pub max_incremental_count: u64,
    /// A full is due this long after the last one.
    pub max_incremental_span: SignedDuration,
    /// Every file is read and compared in every run.
    pub compare_bytes: bool,
    /// Otherwise every file is read again after this long.
    pub read_all_span: SignedDuration,
    /// For how many chains the version before the full stays whole.
    pub fulls_kept: usize,
    /// What is left out.
    pub exclude: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
struct Typed {
    r#type: String,
    max_incremental_count: Option<u64>,
    max_incremental_span: Option<String>,
    change_detection: Option<String>,
    read_all_span: Option<String>,
    fulls_kept: Option<usize>,
    #[serde(default)]
    exclude: Vec<String>,
}

const DEFAULT_CONFIG: &str = r#"# How this source is backed up. Lines with # show the defaults.

# rdiff: the newest version whole, older ones as reverse deltas.
TYPE = "rdiff"

# At most so many increments follow a full version, ...
MAX_INCREMENTAL_COUNT = 10

# ... and a full is due this long after the last one. COUNT 0 or SPAN "0s": every version is a full.
# "24h", "7d", "1w3d2h32m", "2 days, 4:13:02"; m is a minute.
MAX_INCREMENTAL_SPAN = "24h"

# "stat": a file whose size, times and inode are as in the last run is not read.
# "bytes": every file is read in every run.
#CHANGE_DETECTION = "stat"

# With "stat": after this long every file is read once more.
#READ_ALL_SPAN = "7d"

# The version before a full stays whole, besides its delta, for so many chains.
#FULLS_KEPT = 2

# What is left out: patterns as in a .gitignore at the top of the source.
#EXCLUDE = ["*.tmp", "/cache/"]
"#;

/// A source's working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// Where it is.
    pub path: PathBuf,
}

/// What was seen of a store when it was last used: catches unmounted, exchanged and rolled-back ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The store's identity.
    pub store: Uuid,
    /// Its newest state.
    pub state: u64,
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

impl Workdir {
    /// The working directory of a source, if there is one.
    pub fn find(config_dir: &Path, source: &Path) -> Result<Option<Self>, Error> {
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
        Ok(Some(Self { path }))
    }

    /// Makes a source's working directory.
    pub fn create(config_dir: &Path, source: &Path, name: &str) -> Result<Self, Error> {
        let source = normal(source)?;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(Error::Refused(format!(
                "'{name}' cannot be the name of a working directory: it must be a plain name"
            )));
        }
        if Self::find(config_dir, &source)?.is_some() {
            return Err(Error::Refused(
                "there is already a directory for this path".into(),
            ));
        }
        let path = config_dir.join(format!("{name}.{}", path_hash(&source)));
        // Made under another name first: a half-made directory is never found.
        let temporary = config_dir.join(format!(".{name}.{}", Uuid::new_v4().simple()));
        let make = || {
            std::fs::create_dir_all(temporary.join("seen"))?;
            std::os::unix::fs::symlink(&source, temporary.join("src"))?;
            std::fs::write(temporary.join("config.toml"), DEFAULT_CONFIG)?;
            std::fs::rename(&temporary, &path)
        };
        make().map_err(|error| {
            let _ = std::fs::remove_dir_all(&temporary);
            Error::file("create", &path, error)
        })?;
        Ok(Self { path })
    }

    /// Its configuration.
    pub fn config(&self) -> Result<SourceConfig, Error> {
        let path = self.path.join("config.toml");
        let refuse = |detail: String| Error::Config {
            path: path.clone(),
            detail,
        };
        let typed: Typed = read(&path)?.ok_or_else(|| {
            refuse("it is missing; write one with at least TYPE = \"rdiff\"".into())
        })?;
        if typed.r#type != "rdiff" {
            return Err(refuse(format!(
                "unknown backup type: {}; write TYPE = \"rdiff\"",
                typed.r#type
            )));
        }
        let span = |key: &str, value: Option<String>, default: &str| {
            parse_span(value.as_deref().unwrap_or(default))
                .map_err(|error| refuse(format!("{key}: {error}")))
        };
        let compare_bytes = match typed.change_detection.as_deref() {
            None | Some("stat") => false,
            Some("bytes") => true,
            Some(other) => {
                return Err(refuse(format!(
                    "CHANGE_DETECTION is \"stat\" or \"bytes\", not \"{other}\""
                )));
            }
        };
        Ok(SourceConfig {
            max_incremental_count: typed.max_incremental_count.unwrap_or(10),
            max_incremental_span: span("MAX_INCREMENTAL_SPAN", typed.max_incremental_span, "24h")?,
            compare_bytes,
            read_all_span: span("READ_ALL_SPAN", typed.read_all_span, "7d")?,
            fulls_kept: typed.fulls_kept.unwrap_or(2),
            exclude: typed.exclude,
        })
    }

    /// The directory with what was seen. It is left out of backups: it changes with every one.
    pub fn seen_dir(&self) -> PathBuf {
        self.path.join("seen")
    }

    fn seen_path(&self, dst: &str) -> PathBuf {
        self.seen_dir().join(format!(
            "{}.toml",
            dst.replace('%', "%25").replace('/', "%2F")
        ))
    }

    /// What was last seen of the store `dst`.
    pub fn seen(&self, dst: &str) -> Result<Option<Seen>, Error> {
        read(&self.seen_path(dst))
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
    use super::{DEFAULT_CONFIG, Typed, Workdir, normal, path_hash};
    use std::path::Path;

    #[test]
    fn hashes_are_those_of_the_python_tool() {
        // murmur3-32 with seed 0: known values of "" and "hello" are 0 and 0x248bfa47.
        assert_eq!(path_hash(Path::new("hello")), "JIv6Rw");
        assert_eq!(path_hash(Path::new("")), "AA");
    }

    #[test]
    fn k3_the_default_configuration_is_complete_and_typing_errors_are_refused() {
        let uncommented = DEFAULT_CONFIG
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest)
                    if rest.starts_with(|c: char| c.is_ascii_uppercase())
                        && rest.contains(" = ") =>
                {
                    rest
                }
                _ => line,
            });
        let text = uncommented.collect::<Vec<_>>().join("\n");
        let typed: Typed = toml::from_str(&text).unwrap();
        assert_eq!(
            (
                typed.fulls_kept,
                typed.read_all_span.as_deref(),
                typed.exclude.len()
            ),
            (Some(2), Some("7d"), 2)
        );
        let dir = tempfile::tempdir().unwrap();
        let work = Workdir {
            path: dir.path().to_path_buf(),
        };
        for (bad, named) in [
            (
                "TYPE = \"rdiff\"\nMAX_INCREMENTAL_CUONT = 3",
                "MAX_INCREMENTAL_CUONT",
            ),
            (
                "TYPE = \"rdiff\"\nMAX_INCREMENTAL_COUNT = \"3\"",
                "MAX_INCREMENTAL_COUNT",
            ),
            (
                "TYPE = \"rdiff\"\nMAX_INCREMENTAL_COUNT = -1",
                "MAX_INCREMENTAL_COUNT",
            ),
            ("TYPE = \"rdiff\"\nMAX_INCREMENTAL_SPAN = \"24\"", "'24'"),
            ("TYPE = \"rdiff\"\nTYPE = \"rdiff\"", "TYPE"),
            ("TYPE = \"zip\"", "unknown backup type: zip"),
            ("", "TYPE"),
            ("TYPE = \"rdiff\"\nCHANGE_DETECTION = \"mtime\"", "mtime"),
        ] {
            std::fs::write(dir.path().join("config.toml"), bad).unwrap();
            let error = work.config().unwrap_err().to_string();
            assert!(
                error.contains(named) && error.contains("config.toml"),
                "{bad}: {error}"
            );
        }
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
