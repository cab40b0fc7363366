//! `<config-dir>/config.toml`, or the Python tool's `config.py`: what holds for all backups.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ebs::EbsConfig;
use super::file::{File, take};
use super::job::{HookKeys, Hooks, JobConfig, Step, positive, steps};
use super::notify::NotifyConfig;
use super::remote::RemoteConfig;
use super::write;
use crate::error::Error;

/// Parts of the configuration by name; or what is wrong with one, which stops nothing but what needs it.
pub type Parts<T> = BTreeMap<String, Result<T, String>>;

/// The general configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct General {
    /// The directory in which all stores lie.
    pub root_path: PathBuf,
    /// Where copies of stores go.
    pub remotes: Parts<RemoteConfig>,
    /// What `run` does, in this order.
    pub steps: Vec<Step>,
    /// What `run` backs up, besides what has a working directory.
    pub jobs: Parts<JobConfig>,
    /// Programs around the whole run.
    pub hooks: Hooks,
    /// Who is told how a run went.
    pub notifiers: Parts<NotifyConfig>,
    /// How much a run verifies.
    pub verify: VerifyConfig,
    /// When `status` finds something too old.
    pub status: StatusConfig,
    /// Snapshots of volumes, if there are any.
    pub ebs: Option<Result<EbsConfig, String>>,
}

/// `[verify]`: how much a run verifies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifyConfig {
    /// So many percent of each store.
    pub sample: f64,
    /// A store of which every version was not rebuilt for this long is verified in depth; never without it.
    pub deep_every: Option<SignedDuration>,
}

/// `[status]`: when something is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusConfig {
    /// The last good backup.
    pub max_age: SignedDuration,
    /// The last verification of all of a store.
    pub verified_within: SignedDuration,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            sample: 5.0,
            deep_every: Some(SignedDuration::from_hours(24 * 28)),
        }
    }
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            max_age: SignedDuration::from_hours(26),
            verified_within: SignedDuration::from_hours(24 * 30),
        }
    }
}

/// The remote that the Python tool's keys describe.
const PYTHON_REMOTE: &str = "s3";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
struct Typed {
    root_path: Option<PathBuf>,
    steps: Option<Vec<String>>,
    s3_uri_prefix: Option<String>,
    s3cmd_config: Option<String>,
    awscli_profile: Option<String>,
    #[serde(default, rename = "hooks")]
    hooks: HookKeys,
    #[serde(default, rename = "verify")]
    verify: TypedVerify,
    #[serde(default, rename = "status")]
    status: TypedStatus,
    // Taken out before; named here so that they are when another key is not known.
    #[serde(rename = "job")]
    _jobs: Option<IgnoredAny>,
    #[serde(rename = "remote")]
    _remotes: Option<IgnoredAny>,
    #[serde(rename = "notify")]
    _notifiers: Option<IgnoredAny>,
    #[serde(rename = "ebs")]
    _ebs: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TypedVerify {
    sample: Option<f64>,
    deep_every: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TypedStatus {
    max_age: Option<String>,
    verified_within: Option<String>,
}

impl TypedVerify {
    fn check(&self) -> Result<VerifyConfig, String> {
        let usual = VerifyConfig::default();
        let sample = self.sample.unwrap_or(usual.sample);
        if !(0.0..=100.0).contains(&sample) {
            return Err(format!("sample = {sample}: percent are expected, 0 to 100"));
        }
        let deep_every = match self.deep_every.as_deref() {
            None => usual.deep_every,
            Some("never") => None,
            Some(text) => Some(positive("deep_every", text)?),
        };
        Ok(VerifyConfig { sample, deep_every })
    }
}

impl TypedStatus {
    fn check(&self) -> Result<StatusConfig, String> {
        let span = |key, text: &Option<String>, usual| {
            text.as_deref()
                .map_or(Ok(usual), |text| positive(key, text))
        };
        let usual = StatusConfig::default();
        Ok(StatusConfig {
            max_age: span("max_age", &self.max_age, usual.max_age)?,
            verified_within: span(
                "verified_within",
                &self.verified_within,
                usual.verified_within,
            )?,
        })
    }
}

/// The general configuration's file.
pub fn path(config_dir: &Path) -> PathBuf {
    config_dir.join("config.toml")
}

impl General {
    /// Reads the configuration; `None` if there is none yet.
    pub fn read(config_dir: &Path) -> Result<Option<Self>, Error> {
        File::in_dir(config_dir)?.as_ref().map(Self::of).transpose()
    }

    fn of(file: &File) -> Result<Self, Error> {
        let mut table = file.table()?;
        let mut taken = |name| take(&mut table, name).map_err(|detail| file.refuse_value(detail));
        let (remotes, jobs, notifiers) = (taken("remote")?, taken("job")?, taken("notify")?);
        let ebs = table.remove("ebs");
        let typed: Typed = file.rest(table)?;
        let root_path = typed.root_path.ok_or_else(|| {
            file.refuse("you must specify ROOT_PATH in the general configuration".into())
        })?;
        if !root_path.is_absolute() {
            return Err(file.refuse_value(format!(
                "ROOT_PATH must be absolute, not '{}'",
                root_path.display()
            )));
        }
        let named = |detail: String| format!("{}: {detail}", file.path.display());
        let mut remotes: Parts<_> = remotes
            .into_iter()
            .map(|(name, part)| {
                let remote = RemoteConfig::of(&name, file, part).map_err(named);
                (name, remote)
            })
            .collect();
        if let Some(prefix) = typed.s3_uri_prefix.filter(|prefix| !prefix.is_empty()) {
            let python = RemoteConfig::of_python(&prefix, typed.s3cmd_config.as_deref());
            let checked = python.check().map(|()| python);
            let checked = checked.map_err(|detail| named(format!("S3_URI_PREFIX: {detail}")));
            remotes.entry(PYTHON_REMOTE.to_owned()).or_insert(checked);
        }
        let steps = typed.steps.as_deref().map_or(Ok(Step::ALL.to_vec()), steps);
        let in_table =
            |name, detail| file.refuse(file.placed(&[name], format!("[{name}]: {detail}")));
        Ok(Self {
            root_path,
            remotes,
            steps: steps.map_err(|detail| file.refuse_value(detail))?,
            jobs: jobs
                .into_iter()
                .map(|(name, part)| {
                    let job = JobConfig::of(&name, file, part).map_err(named);
                    (name, job)
                })
                .collect(),
            hooks: typed
                .hooks
                .check()
                .map_err(|detail| in_table("hooks", detail))?,
            notifiers: notifiers_of(file, notifiers),
            verify: typed
                .verify
                .check()
                .map_err(|detail| in_table("verify", detail))?,
            status: typed
                .status
                .check()
                .map_err(|detail| in_table("status", detail))?,
            ebs: ebs.map(|part| EbsConfig::of(file, part, typed.awscli_profile).map_err(named)),
        })
    }

    /// Makes the first configuration, with stores in `root_path`, and that directory.
    pub fn create(config_dir: &Path, root_path: &Path) -> Result<Self, Error> {
        for dir in [config_dir, root_path] {
            std::fs::create_dir_all(dir).map_err(|error| Error::file("create", dir, error))?;
        }
        write(&path(config_dir), &first(config_dir, root_path)?)?;
        let general = Self::read(config_dir)?;
        general.ok_or_else(|| Error::Refused(format!("{} is gone", path(config_dir).display())))
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

fn notifiers_of(file: &File, parts: Vec<(String, super::file::Part<'_>)>) -> Parts<NotifyConfig> {
    let named = |detail: String| format!("{}: {detail}", file.path.display());
    parts
        .into_iter()
        .map(|(name, part)| {
            let notifier = NotifyConfig::of(&name, file, part).map_err(named);
            (name, notifier)
        })
        .collect()
}

/// The notifiers alone: those who are told that the rest of the configuration cannot be used.
pub fn notifiers(config_dir: &Path) -> Parts<NotifyConfig> {
    let Ok(Some(file)) = File::in_dir(config_dir) else {
        return Parts::new();
    };
    let Ok(mut table) = file.table() else {
        return Parts::new();
    };
    take(&mut table, "notify").map_or_else(|_| Parts::new(), |parts| notifiers_of(&file, parts))
}

const FIRST: &str = include_str!("config.toml");

/// The text of the first configuration.
pub fn first(config_dir: &Path, root_path: &Path) -> Result<String, Error> {
    let Some(text) = root_path.to_str() else {
        return Err(Error::Refused(format!(
            "{} is not UTF-8: write ROOT_PATH into {} yourself",
            root_path.display(),
            path(config_dir).display()
        )));
    };
    let value = toml::Value::String(text.to_owned());
    Ok(FIRST.replace("ROOT_PATH = \"\"", &format!("ROOT_PATH = {value}")))
}
