//! `<config-dir>/config.toml`, or the Python tool's `config.py`: what holds for all backups.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::remote::RemoteConfig;
use super::{read_config, write};
use crate::error::Error;

/// The general configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct General {
    /// The directory in which all stores lie.
    pub root_path: PathBuf,
    /// Where copies of stores go, by name; or what is wrong with that, which stops no backup.
    pub remotes: BTreeMap<String, Result<RemoteConfig, String>>,
}

/// The remote that the Python tool's keys describe.
const PYTHON_REMOTE: &str = "s3";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
struct Typed {
    root_path: Option<PathBuf>,
    s3_uri_prefix: Option<String>,
    s3cmd_config: Option<String>,
    #[serde(rename = "AWSCLI_PROFILE")]
    _awscli_profile: Option<String>,
    #[serde(default, rename = "remote")]
    remotes: BTreeMap<String, toml::Value>,
}

fn path(config_dir: &Path) -> PathBuf {
    config_dir.join("config.toml")
}

impl General {
    /// Reads the configuration; `None` if there is none yet.
    pub fn read(config_dir: &Path) -> Result<Option<Self>, Error> {
        let Some((typed, path)) = read_config::<Typed>(config_dir)? else {
            return Ok(None);
        };
        let refuse = |detail: String| Error::Config {
            path: path.clone(),
            detail,
        };
        let root_path = typed.root_path.ok_or_else(|| {
            refuse("you must specify ROOT_PATH in the general configuration".into())
        })?;
        if !root_path.is_absolute() {
            return Err(refuse(format!(
                "ROOT_PATH must be absolute, not '{}'",
                root_path.display()
            )));
        }
        let mut remotes: BTreeMap<_, _> = typed
            .remotes
            .into_iter()
            .map(|(name, value)| {
                let remote = RemoteConfig::of_toml(&name, value);
                (
                    name,
                    remote.map_err(|detail| format!("{}: {detail}", path.display())),
                )
            })
            .collect();
        if let Some(prefix) = typed.s3_uri_prefix.filter(|prefix| !prefix.is_empty()) {
            let python = RemoteConfig::of_python(&prefix, typed.s3cmd_config.as_deref());
            let checked = python.check().map(|()| python);
            let named = |detail| format!("{}: S3_URI_PREFIX: {detail}", path.display());
            remotes
                .entry(PYTHON_REMOTE.to_owned())
                .or_insert(checked.map_err(named));
        }
        Ok(Some(Self { root_path, remotes }))
    }

    /// Makes the first configuration, with stores in `root_path`, and that directory.
    pub fn create(config_dir: &Path, root_path: &Path) -> Result<Self, Error> {
        for dir in [config_dir, root_path] {
            std::fs::create_dir_all(dir).map_err(|error| Error::file("create", dir, error))?;
        }
        let Some(text) = root_path.to_str() else {
            return Err(Error::Refused(format!(
                "{} is not UTF-8: write ROOT_PATH into {} yourself",
                root_path.display(),
                path(config_dir).display()
            )));
        };
        let value = toml::Value::String(text.to_owned());
        write(
            &path(config_dir),
            &format!(
                "# The directory in which all stores lie. It must exist: it is never created again.\nROOT_PATH = {value}\n"
            ),
        )?;
        Ok(Self {
            root_path: root_path.to_path_buf(),
            remotes: BTreeMap::new(),
        })
    }

    /// The directory of the store `dst`, after the checks that need no look at the disk.
    pub fn store_path(&self, dst: &str) -> Result<PathBuf, Error> {
        let path = Path::new(dst);
        if path.is_absolute() {
            return Err(Error::Refused(
                "the dst argument cannot be an absolute path".into(),
            ));
        }
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if dst.is_empty() || !plain || dst.contains('\0') {
            return Err(Error::Refused(format!(
                "the dst argument must name a directory below ROOT_PATH, not '{dst}'"
            )));
        }
        Ok(self.root_path.join(path))
    }
}
