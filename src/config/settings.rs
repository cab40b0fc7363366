//! Every setting that is in effect, and where it comes from.

use std::path::{Path, PathBuf};

use super::dump::DumpSource;
use super::file::File;
use crate::error::Error;

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The table it is in; empty at the top.
    pub table: String,
    /// Its name.
    pub key: String,
    /// Its value, as it is written.
    pub value: String,
    /// The line of the file where it stands; nothing for a default.
    pub line: Option<usize>,
}

/// The settings of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file; there may be none.
    pub path: PathBuf,
    /// In order.
    pub settings: Vec<Setting>,
}

/// Table, key, and the value that is meant where nothing is written.
type Default = (&'static str, &'static str, &'static str);

const GENERAL: [Default; 9] = [
    (
        "",
        "STEPS",
        r#"["fs", "db", "cmd", "ebs", "prune", "sync", "verify"]"#,
    ),
    ("hooks", "before", "[]"),
    ("hooks", "after", "[]"),
    ("hooks", "failed", "[]"),
    ("hooks", "hook_timeout", r#""1h""#),
    ("verify", "sample", "5.0"),
    ("verify", "deep_every", r#""28d""#),
    ("status", "max_age", r#""26h""#),
    ("status", "verified_within", r#""30d""#),
];

const KEEPING: [Default; 4] = [
    ("", "MAX_INCREMENTAL_COUNT", "10"),
    ("", "MAX_INCREMENTAL_SPAN", r#""24h""#),
    ("", "FULLS_KEPT", "2"),
    ("", "GRACE", r#""24h""#),
];

const TREE: [Default; 7] = [
    ("", "CHANGE_DETECTION", r#""stat""#),
    ("", "READ_ALL_SPAN", r#""7d""#),
    ("", "EXCLUDE", "[]"),
    ("", "INCLUDE", "[]"),
    ("", "EXCLUDE_TAGGED", r#"["NOBACKUP-TAG", "CACHEDIR.TAG"]"#),
    ("", "READ_SPECIAL", "[]"),
    ("", "ONE_FILE_SYSTEM", "false"),
];

/// A dump of one byte is long enough.
const DUMP: [Default; 1] = [("", "MIN_SIZE", r#""1B""#)];

impl Settings {
    /// What holds for all backups.
    pub fn general(config_dir: &Path) -> Result<Self, Error> {
        let path = super::general::path(config_dir);
        Self::of(File::in_dir(config_dir)?.as_ref(), path, &GENERAL)
    }

    /// Those of a tree, from its working directory.
    pub fn tree(dir: &Path) -> Result<Self, Error> {
        let defaults = [&KEEPING[..], &TREE].concat();
        Self::of(
            File::in_dir(dir)?.as_ref(),
            dir.join("config.toml"),
            &defaults,
        )
    }

    /// Those of a dump.
    pub fn dump(config_dir: &Path, source: &DumpSource) -> Result<Self, Error> {
        let path = |extension| source.config_path(config_dir, extension);
        let file = File::find(path("toml"), path("py"))?;
        let defaults = [&KEEPING[..], &DUMP].concat();
        Self::of(file.as_ref(), path("toml"), &defaults)
    }

    fn of(file: Option<&File>, path: PathBuf, defaults: &[Default]) -> Result<Self, Error> {
        let mut settings = Vec::new();
        if let Some(file) = file {
            let table: toml::Table = file.typed()?;
            written(file, &mut Vec::new(), &table, &mut settings);
        }
        for (table, key, value) in defaults {
            let is_written = |setting: &Setting| setting.table == *table && setting.key == *key;
            if !settings.iter().any(is_written) {
                settings.push(Setting {
                    table: (*table).to_owned(),
                    key: (*key).to_owned(),
                    value: (*value).to_owned(),
                    line: None,
                });
            }
        }
        // Tables one after the other, as they would be written.
        let mut order: Vec<String> = Vec::new();
        for setting in &settings {
            if !order.contains(&setting.table) {
                order.push(setting.table.clone());
            }
        }
        order.sort_by_key(|table| !table.is_empty());
        settings.sort_by_key(|setting| order.iter().position(|table| *table == setting.table));
        Ok(Self {
            path: file.map_or(path, |file| file.path.clone()),
            settings,
        })
    }
}

/// What is written in a table and in those below it.
fn written(file: &File, names: &mut Vec<String>, table: &toml::Table, settings: &mut Vec<Setting>) {
    let above = names.clone();
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    for (key, value) in table.iter().filter(|(_, value)| !is_part(&above, value)) {
        settings.push(Setting {
            table: names.join("."),
            key: key.clone(),
            value: shown(names, key, value),
            line: file.place(&path, Some(key)).map(|(line, _)| line),
        });
    }
    for (key, value) in table.iter().filter(|(_, value)| is_part(&above, value)) {
        if let toml::Value::Table(below) = value {
            names.push(key.clone());
            written(file, names, below, settings);
            names.pop();
        }
    }
}

/// Tables at the top are parts of a file, as `[verify]`; so are those with names, as `[job.NAME]`. Others are values.
fn is_part(names: &[String], value: &toml::Value) -> bool {
    let is_named = |name: &String| ["job", "notify", "remote"].contains(&name.as_str());
    value.is_table() && (names.is_empty() || names.len() == 1 && is_named(&names[0]))
}

/// A value; what may be a secret is not shown.
fn shown(names: &[String], key: &str, value: &toml::Value) -> String {
    let is_secret =
        names.first().is_some_and(|name| name == "notify") && ["webhook", "ping"].contains(&key);
    match value.as_str().filter(|_| is_secret) {
        Some(url) => {
            let parsed: Option<http::Uri> = url.parse().ok();
            let host = parsed.as_ref().and_then(http::Uri::host);
            format!("\"{}/...\"", host.unwrap_or_default())
        }
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{DUMP, Default, GENERAL, KEEPING, Settings, TREE};
    use crate::config::dump::{DumpConfig, DumpSource};
    use crate::config::general::General;
    use crate::config::source::SourceConfig;

    fn text(defaults: &[Default]) -> String {
        let mut text = String::new();
        let mut table = "";
        for (of, key, value) in defaults {
            if *of != table {
                text.push_str(&format!("[{of}]\n"));
                table = of;
            }
            text.push_str(&format!("{key} = {value}\n"));
        }
        text
    }

    #[test]
    fn the_defaults_that_are_shown_are_those_that_are_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let mut both = Vec::new();
        for defaults in [String::new(), text(&GENERAL)] {
            std::fs::write(&path, format!("ROOT_PATH = \"/r\"\n{defaults}")).unwrap();
            both.push(General::read(dir.path()).unwrap().unwrap());
        }
        assert_eq!(both[0], both[1]);
        let mut both = Vec::new();
        for defaults in [String::new(), text(&[&KEEPING[..], &TREE].concat())] {
            std::fs::write(&path, format!("TYPE = \"rdiff\"\n{defaults}")).unwrap();
            both.push(format!("{:?}", SourceConfig::read(dir.path()).unwrap()));
        }
        assert_eq!(both[0], both[1]);
        let source = DumpSource::Database("x".into());
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let mut both = Vec::new();
        for defaults in [String::new(), text(&[&KEEPING[..], &DUMP].concat())] {
            std::fs::write(dir.path().join("db/x.toml"), defaults).unwrap();
            both.push(format!(
                "{:?}",
                DumpConfig::read(dir.path(), &source).unwrap()
            ));
        }
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn each_setting_has_its_line_and_secrets_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# first\nROOT_PATH = \"/r\"\n\n[notify.a]\nping = \"https://h.example/SECRET\"\n[job.etc]\nsource = \"/etc\"\n[remote.r]\nurl = \"file:///x\"\nkeep = { keep_daily = 3 }\n";
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        let settings = Settings::general(dir.path()).unwrap().settings;
        let found = |table: &str, key: &str| {
            let setting = settings
                .iter()
                .find(|setting| setting.table == table && setting.key == key);
            let setting = setting.unwrap();
            (setting.value.clone(), setting.line)
        };
        assert_eq!(found("", "ROOT_PATH"), ("\"/r\"".to_owned(), Some(2)));
        assert_eq!(
            found("notify.a", "ping"),
            ("\"h.example/...\"".to_owned(), Some(5))
        );
        assert_eq!(found("job.etc", "source").1, Some(7));
        assert_eq!(
            found("remote.r", "keep"),
            ("{ keep_daily = 3 }".to_owned(), Some(10))
        );
        assert_eq!(found("verify", "sample"), ("5.0".to_owned(), None));
    }
}
