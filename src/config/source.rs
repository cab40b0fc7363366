//! `config.toml` of a working directory: how one source is backed up.

use std::path::Path;

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::Deserialize;

use super::file::File;
use super::keeping::{Keeping, KeepingKeys, span};
use super::retention::Retention;
use crate::catalog::StoreType;
use crate::error::Error;
use crate::tree::select::Selection;
use crate::tree::tag::CACHE_TAG;

/// How a source is backed up.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// How its versions are kept.
    pub store_type: StoreType,
    /// How they grow and go.
    pub keeping: Keeping,
    /// Every file is read and compared in every run.
    pub compare_bytes: bool,
    /// Otherwise every file is read again after this long.
    pub read_all_span: SignedDuration,
    /// What is left out.
    pub selection: Selection,
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
    #[serde(default)]
    include: Vec<String>,
    exclude_larger_than: Option<String>,
    exclude_tagged: Option<Vec<String>>,
    #[serde(default)]
    read_special: Vec<String>,
    #[serde(default)]
    one_file_system: bool,
    #[serde(default)]
    retention: Retention,
    grace: Option<String>,
}

const DEFAULT_TAGS: [&str; 2] = ["NOBACKUP-TAG", CACHE_TAG];

const DEFAULT_CONFIG: &str = r#"# How this source is backed up. Lines with # show the defaults.

# rdiff: the newest version whole, older ones as reverse deltas.
# tar: each version a tar.zst file, complete in itself.
TYPE = "rdiff"

# rdiff: at most so many increments follow a full version, ...
MAX_INCREMENTAL_COUNT = 10

# ... and a full is due this long after the last one. COUNT 0 or SPAN "0s": every version is a full.
# "24h", "7d", "1w3d2h32m", "2 days, 4:13:02"; m is a minute.
MAX_INCREMENTAL_SPAN = "24h"

# "stat": a file whose size, times and inode are as in the last run is not read.
# "bytes": every file is read in every run.
#CHANGE_DETECTION = "stat"

# With "stat": after this long every file is read once more.
#READ_ALL_SPAN = "7d"

# rdiff: the version before a full stays whole, besides its delta, for so many chains.
#FULLS_KEPT = 2

# What is left out: patterns as in a .gitignore at the top of the source.
#EXCLUDE = ["*.tmp", "/cache/"]

# What EXCLUDE does not leave out, with everything below: patterns of the same kind.
#INCLUDE = ["/cache/precious/"]

# Longer files are left out: "500MB", "4GiB".
#EXCLUDE_LARGER_THAN = "1TiB"

# Of a directory with such a file in it, of root or of its own owner, only this file is kept.
#EXCLUDE_TAGGED = ["NOBACKUP-TAG", "CACHEDIR.TAG"]

# Block devices in the source that are read as images: patterns as with EXCLUDE.
#READ_SPECIAL = ["/dev/vg/*"]

# What is mounted in the source is left out.
#ONE_FILE_SYSTEM = false

# Which versions stay after each backup: all if this is not set; else what any rule keeps. Rules: partitioned, keep_last,
# keep_within, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, older_than, max_store_size ("50GiB").
#RETENTION = { partitioned = ["1d", "7d", "28d"], keep_monthly = 12 }

# For so long `undelete` brings back what was deleted; its space is freed afterwards.
#GRACE = "24h"
"#;

/// The configuration that a new working directory gets.
pub fn default_config(store_type: StoreType) -> String {
    DEFAULT_CONFIG.replace(
        "TYPE = \"rdiff\"",
        &format!("TYPE = \"{}\"", store_type.word()),
    )
}

impl SourceConfig {
    /// What a new working directory begins with.
    pub fn new(store_type: StoreType) -> Self {
        let typed: Typed = toml::from_str(&default_config(store_type)).expect("it is tested");
        typed.check().expect("it is tested")
    }

    /// Reads the configuration in a working directory.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let Some(file) = File::in_dir(dir)? else {
            let detail = "it is missing; write one with at least TYPE = \"rdiff\"".into();
            return Err(Error::Config {
                path: dir.join("config.toml"),
                detail,
            });
        };
        let checked = file.typed::<Typed>()?.check();
        checked.map_err(|detail| file.refuse_value(detail))
    }
}

impl Typed {
    fn check(self) -> Result<SourceConfig, String> {
        let store_type = StoreType::from_word(&self.r#type).ok_or_else(|| {
            format!(
                "unknown backup type: {}; write TYPE = \"rdiff\" or \"tar\"",
                self.r#type
            )
        })?;
        let compare_bytes = match self.change_detection.as_deref() {
            None | Some("stat") => false,
            Some("bytes") => true,
            Some(other) => {
                return Err(format!(
                    "CHANGE_DETECTION is \"stat\" or \"bytes\", not \"{other}\""
                ));
            }
        };
        let tags = self
            .exclude_tagged
            .unwrap_or_else(|| DEFAULT_TAGS.map(str::to_owned).to_vec());
        if let Some(tag) = tags
            .iter()
            .find(|tag| tag.is_empty() || tag.contains(['/', '\0']))
        {
            return Err(format!(
                "EXCLUDE_TAGGED: '{tag}' cannot be the name of a file"
            ));
        }
        Ok(SourceConfig {
            store_type,
            keeping: KeepingKeys {
                max_incremental_count: self.max_incremental_count,
                max_incremental_span: self.max_incremental_span,
                fulls_kept: self.fulls_kept,
                retention: self.retention,
                grace: self.grace,
            }
            .check()?,
            compare_bytes,
            read_all_span: span("READ_ALL_SPAN", self.read_all_span.as_deref(), "7d")?,
            selection: Selection {
                exclude: self.exclude,
                include: self.include,
                larger_than: self
                    .exclude_larger_than
                    .as_deref()
                    .map(|text| parse_size("EXCLUDE_LARGER_THAN", text))
                    .transpose()?,
                tags,
                one_file_system: self.one_file_system,
                read_special: self.read_special,
                ..Selection::default()
            },
        })
    }
}

/// A bare number has no unit: it is refused, as with spans.
pub(super) fn parse_size(key: &str, text: &str) -> Result<u64, String> {
    let has_unit = text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic());
    let size = text.parse::<ByteSize>().ok().filter(|_| has_unit);
    size.map(|size| size.as_u64()).ok_or_else(|| {
        format!(
            "{key}: cannot understand the size '{text}'; write for example \"500MB\" or \"4GiB\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{SourceConfig, Typed, default_config};
    use crate::catalog::StoreType;

    #[test]
    fn k3_the_default_configuration_is_complete_and_shows_the_defaults() {
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(rest)
                if rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.contains(" = ") =>
            {
                rest.to_owned()
            }
            _ => line.to_owned(),
        };
        let text = default_config(StoreType::Rdiff);
        let shown: Vec<String> = text.lines().map(uncommented).collect();
        let shown = toml::from_str::<Typed>(&shown.join("\n"))
            .unwrap()
            .check()
            .unwrap();
        let real = toml::from_str::<Typed>(&text).unwrap().check().unwrap();
        assert_eq!(
            (
                shown.keeping.chain,
                shown.compare_bytes,
                shown.read_all_span
            ),
            (real.keeping.chain, real.compare_bytes, real.read_all_span)
        );
        assert_eq!(shown.selection.tags, real.selection.tags);
        assert_eq!(shown.selection.larger_than, Some(1 << 40));
        assert!(default_config(StoreType::Tar).contains("\nTYPE = \"tar\"\n"));
    }

    #[test]
    fn k3_i6_typing_errors_are_refused() {
        let dir = tempfile::tempdir().unwrap();
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
            ("TYPE = \"rdiff\"\nEXCLUDE_LARGER_THAN = \"10\"", "'10'"),
            (
                "TYPE = \"rdiff\"\nEXCLUDE_LARGER_THAN = \"10 XB\"",
                "'10 XB'",
            ),
            ("TYPE = \"rdiff\"\nEXCLUDE_TAGGED = [\"a/b\"]", "'a/b'"),
        ] {
            std::fs::write(dir.path().join("config.toml"), bad).unwrap();
            let error = SourceConfig::read(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains(named) && error.contains("config.toml"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn k4_the_python_tools_configuration_is_read_where_there_is_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.py", "TYPE=\"tar\"\nMAX_INCREMENTAL_COUNT=3\n");
        let config = SourceConfig::read(dir.path()).unwrap();
        assert_eq!(
            (
                config.store_type,
                config.keeping.chain.max_incremental_count
            ),
            (StoreType::Tar, 3)
        );
        write("config.py", "import os\nTYPE=\"tar\"\n");
        let error = SourceConfig::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.py: line 1: 'import os'"), "{error}");
        write("config.toml", "TYPE = \"rdiff\"\n");
        assert_eq!(
            SourceConfig::read(dir.path()).unwrap().store_type,
            StoreType::Rdiff
        );
    }
}
