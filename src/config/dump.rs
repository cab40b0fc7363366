//! `db/NAME.toml` and `cmd/NAME.toml`: how databases and commands are backed up. None is needed.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::File;
use super::inventory::unescaped;
use super::keeping::{Keeping, KeepingKeys};
use super::retention::Retention;
use super::source::parse_size;
use crate::error::Error;

/// What is dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpSource {
    /// A PostgreSQL database.
    Database(String),
    /// The roles and tablespaces of a PostgreSQL server.
    Globals,
    /// A command's output.
    Command(String),
}

const DATABASE: &str = "postgresql:";
const GLOBALS: &str = "postgresql-globals";
const COMMAND: &str = "command:";
/// The file of the globals.
const GLOBAL: &str = "global";

impl DumpSource {
    /// What a store records as its source. No path of a tree begins so.
    pub fn source_name(&self) -> String {
        match self {
            Self::Database(name) => format!("{DATABASE}{name}"),
            Self::Globals => GLOBALS.to_owned(),
            Self::Command(name) => format!("{COMMAND}{name}"),
        }
    }

    /// The dump that a store records as its source, if it is one.
    pub fn of(source: &[u8]) -> Option<Self> {
        let source = std::str::from_utf8(source).ok()?;
        if source == GLOBALS {
            return Some(Self::Globals);
        }
        let database = source.strip_prefix(DATABASE).map(str::to_owned);
        let command = || source.strip_prefix(COMMAND).map(str::to_owned);
        database
            .map(Self::Database)
            .or_else(|| command().map(Self::Command))
    }

    /// The one that has the configuration file with this name, without its extension, in `db` or `cmd`.
    pub(super) fn of_file(dir: &str, stem: &str) -> Option<Self> {
        let name = String::from_utf8(unescaped(stem.as_bytes())).ok()?;
        match dir {
            "db" if stem == GLOBAL => Some(Self::Globals),
            "db" => Some(Self::Database(name)),
            _ => Some(Self::Command(name)),
        }
    }

    /// The file name of its content.
    pub fn file_name(&self) -> String {
        match self {
            Self::Database(name) => format!("{}.sql", file_name(name)),
            Self::Globals => "globals.sql".to_owned(),
            Self::Command(name) => file_name(name),
        }
    }

    /// Its configuration, with this extension.
    pub fn config_path(&self, config_dir: &Path, extension: &str) -> PathBuf {
        let (dir, name) = match self {
            // The name of the globals' file is taken.
            Self::Database(name) if name == GLOBAL => ("db", "%67lobal".to_owned()),
            Self::Database(name) => ("db", file_name(name)),
            Self::Globals => ("db", GLOBAL.to_owned()),
            Self::Command(name) => ("cmd", file_name(name)),
        };
        config_dir.join(dir).join(format!("{name}.{extension}"))
    }
}

/// A name as a file's: what cannot be in one is written as `%XX`.
fn file_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c == '/' || c == '%' || c.is_control() || (c == '.' && out.is_empty()) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// How something is dumped.
#[derive(Debug, Clone)]
pub struct DumpConfig {
    /// How versions are kept.
    pub keeping: Keeping,
    /// A shorter dump does not count.
    pub min_bytes: u64,
    /// The user that the program runs as.
    pub run_as: Option<String>,
    /// PostgreSQL: how to connect, in libpq's `keyword=value` form.
    pub conninfo: Option<String>,
    /// PostgreSQL: the section of the service file.
    pub service: Option<String>,
    /// PostgreSQL: the directory of the programs.
    pub bin: Option<PathBuf>,
    /// PostgreSQL: more arguments for the program.
    pub args: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
struct Typed {
    max_incremental_count: Option<u64>,
    max_incremental_span: Option<String>,
    fulls_kept: Option<usize>,
    retention: Retention,
    grace: Option<String>,
    min_size: Option<String>,
    run_as: Option<String>,
    conninfo: Option<String>,
    service: Option<String>,
    bin: Option<PathBuf>,
    args: Vec<String>,
}

impl DumpConfig {
    /// Reads what is configured; what is not has its default.
    pub fn read(config_dir: &Path, source: &DumpSource) -> Result<Self, Error> {
        let path = |extension| source.config_path(config_dir, extension);
        let Some(file) = File::find(path("toml"), path("py"))? else {
            let checked = Typed::default().check(source);
            let path = path("toml");
            return checked.map_err(|detail| Error::Config { path, detail });
        };
        let checked = file.typed::<Typed>()?.check(source);
        checked.map_err(|detail| file.refuse_value(detail))
    }
}

impl Typed {
    fn check(self, source: &DumpSource) -> Result<DumpConfig, String> {
        if matches!(source, DumpSource::Command(_)) {
            let keys = [
                ("CONNINFO", self.conninfo.is_some()),
                ("SERVICE", self.service.is_some()),
                ("BIN", self.bin.is_some()),
                ("ARGS", !self.args.is_empty()),
            ];
            if let Some((key, _)) = keys.iter().find(|(_, is_set)| *is_set) {
                return Err(format!(
                    "{key} is for databases; a command is named on the command line"
                ));
            }
        }
        if self.conninfo.is_some() && self.service.is_some() {
            return Err("set CONNINFO or SERVICE, not both".into());
        }
        if self.bin.as_ref().is_some_and(|bin| !bin.is_absolute()) {
            return Err("BIN must be absolute: the directory of pg_dump".into());
        }
        Ok(DumpConfig {
            keeping: KeepingKeys {
                max_incremental_count: self.max_incremental_count,
                max_incremental_span: self.max_incremental_span,
                fulls_kept: self.fulls_kept,
                retention: self.retention,
                grace: self.grace,
            }
            .check()?,
            min_bytes: self
                .min_size
                .as_deref()
                .map(|text| parse_size("MIN_SIZE", text))
                .transpose()?
                .unwrap_or(1),
            run_as: self.run_as,
            conninfo: self.conninfo,
            service: self.service,
            bin: self.bin,
            args: self.args,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DumpConfig, DumpSource};
    use std::path::Path;

    #[test]
    fn g7_every_name_has_a_file_of_its_own() {
        let database = |name: &str| DumpSource::Database(name.into());
        let path = |source: &DumpSource| source.config_path(Path::new("/c"), "toml");
        for (source, expected) in [
            (DumpSource::Globals, "/c/db/global.toml"),
            (database("global"), "/c/db/%67lobal.toml"),
            (database("%67lobal"), "/c/db/%2567lobal.toml"),
            (database("a b'\"-=é"), "/c/db/a b'\"-=é.toml"),
            (database("../x\n"), "/c/db/%2E.%2Fx%0A.toml"),
            (DumpSource::Command("redis".into()), "/c/cmd/redis.toml"),
        ] {
            assert_eq!(path(&source), Path::new(expected));
            assert_eq!(
                DumpSource::of(source.source_name().as_bytes()),
                Some(source)
            );
        }
        assert_eq!(DumpSource::of(b"/home"), None);
    }

    #[test]
    fn k3_k4_settings_are_checked_and_those_of_the_python_tool_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let shop = DumpSource::Database("shop".into());
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join("db").join(name), text).unwrap();
        };
        let read = || DumpConfig::read(dir.path(), &shop);
        assert_eq!(read().unwrap().keeping.chain.max_incremental_count, 10);
        write("shop.py", "MAX_INCREMENTAL_COUNT = 3\n");
        assert_eq!(read().unwrap().keeping.chain.max_incremental_count, 3);
        write("shop.toml", "MIN_SIZE = \"1MiB\"\nSERVICE = \"shop\"\n");
        let config = read().unwrap();
        assert_eq!(
            (config.min_bytes, config.keeping.chain.max_incremental_count),
            (1 << 20, 10)
        );
        for (bad, named) in [
            ("MIN_SIZE = \"1\"", "'1'"),
            ("CONNINFO = \"a=b\"\nSERVICE = \"c\"", "not both"),
            ("TYPE = \"rdiff\"", "TYPE"),
            ("BIN = \"bin\"", "absolute"),
        ] {
            write("shop.toml", bad);
            let error = read().unwrap_err().to_string();
            assert!(
                error.contains(named) && error.contains("shop.toml"),
                "{error}"
            );
        }
    }
}
