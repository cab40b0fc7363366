//! `[remote.NAME]`: where copies of stores go, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::{File, Part};
use super::retention::Retention;
use super::source::parse_size;
use crate::error::Error;
use crate::plan::retention::Policy;
use crate::remote::{Access, Encryption, Limits, Place, Settings, SshAccess};
use crate::tree::select::Patterns;

/// A remote as it is written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    #[serde(default)]
    allow_http: bool,
    storage_class: Option<String>,
    encryption: Option<String>,
    kms_key: Option<String>,
    profile: Option<String>,
    s3cmd_config: Option<PathBuf>,
    identity: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    max_upload: Option<String>,
    parallel: Option<usize>,
    attempts: Option<u32>,
    manual: Option<bool>,
    stores: Option<Vec<String>>,
    keep: Option<toml::Value>,
}

/// Which states stay in a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// All that have a version which no later state has.
    Versions,
    /// Those that rules keep.
    ByRules(Policy),
}

impl Keep {
    /// The rules, if there are any.
    pub fn policy(&self) -> Option<&Policy> {
        match self {
            Self::Versions => None,
            Self::ByRules(policy) => Some(policy),
        }
    }
}

/// What the environment and other programs' configuration say of buckets.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The server's URL.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
}

impl RemoteConfig {
    /// Reads one, and checks all that can be checked before it is used.
    pub(super) fn of(name: &str, file: &File, part: Part<'_>) -> Result<Self, String> {
        let wrong = |detail: String| format!("[remote.{name}]: {detail}");
        let is_word = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(wrong(
                "a remote's name is made of letters, digits, -, _ and .".to_owned(),
            ));
        }
        let remote: Self = file.part(part).map_err(wrong)?;
        let checked = remote.check();
        checked.map_err(|detail| file.placed(&["remote", name], wrong(detail)))?;
        Ok(remote)
    }

    /// A remote of which nothing but its place is known.
    pub fn of_url(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }

    /// The remote that the Python tool's keys describe.
    pub(super) fn of_python(prefix: &str, s3cmd_config: Option<&str>) -> Self {
        Self {
            s3cmd_config: s3cmd_config.map(PathBuf::from),
            encryption: Some("AES256".to_owned()),
            ..Self::of_url(prefix)
        }
    }

    /// Where it is.
    pub fn place(&self) -> Result<Place, String> {
        Place::parse(&self.url)
    }

    /// The URL as it is written.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What tells it from other places, under whatever name.
    pub fn identity(&self, environment: &Environment) -> String {
        let url = self.url.trim_end_matches('/');
        match self.endpoint.as_ref().or(environment.endpoint.as_ref()) {
            Some(endpoint) if url.starts_with("s3:") => format!("{url} at {endpoint}"),
            _ => url.to_owned(),
        }
    }

    /// Whether backups are followed by a sync to it.
    pub fn is_automatic(&self) -> bool {
        !self.manual.unwrap_or(false)
    }

    /// Whether a store is copied to it.
    pub fn takes(&self, dst: &str) -> Result<bool, String> {
        let Some(stores) = &self.stores else {
            return Ok(true);
        };
        let patterns = Patterns::new("stores", stores).map_err(|error| error.to_string())?;
        Ok(patterns.covers(dst.as_bytes(), true))
    }

    /// Which states stay there, if that is said: those that rules keep, or all that have a version of their own.
    pub fn keep(&self) -> Result<Option<Keep>, String> {
        match &self.keep {
            None => Ok(None),
            Some(toml::Value::String(word)) if word == "versions" => Ok(Some(Keep::Versions)),
            Some(toml::Value::Table(rules)) => {
                let rules: Retention = rules
                    .clone()
                    .try_into()
                    .map_err(|error: toml::de::Error| format!("keep: {}", error.message()))?;
                let policy = rules.policy().map_err(|why| format!("keep: {why}"))?;
                if policy.max_store_bytes.is_some() {
                    return Err("keep: max_store_size is not for remotes".to_owned());
                }
                Ok(Some(Keep::ByRules(policy)))
            }
            Some(other) => Err(format!(
                "keep = {other} is not known: write \"versions\", or rules as in RETENTION"
            )),
        }
    }

    /// Everything that must be right before it is used.
    pub fn check(&self) -> Result<(), String> {
        self.place()?;
        let is_server = |url: &str| {
            let rest = url
                .strip_prefix("https://")
                .or_else(|| url.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.trim_end_matches('/').contains('/'))
        };
        if let Some(endpoint) = self
            .endpoint
            .as_ref()
            .filter(|endpoint| !is_server(endpoint))
        {
            return Err(format!(
                "endpoint = '{endpoint}' must be http:// or https:// and a host, without a path"
            ));
        }
        self.encryption()?;
        self.limits()?;
        self.keep()?;
        self.takes("").map(drop)
    }

    fn encryption(&self) -> Result<Option<Encryption>, String> {
        let encryption = match self.encryption.as_deref() {
            None if self.kms_key.is_some() => Some(Encryption::Kms(self.kms_key.clone())),
            None => None,
            Some("aws:kms") => Some(Encryption::Kms(self.kms_key.clone())),
            Some("AES256") => Some(Encryption::Aes256),
            Some("default") => Some(Encryption::Default),
            Some(other) => {
                return Err(format!(
                    "encryption = '{other}' is not known: AES256, aws:kms and default (as the server does by itself) are"
                ));
            }
        };
        Ok(encryption)
    }

    fn limits(&self) -> Result<Limits, String> {
        let usual = Limits::default();
        let per_second = self.max_upload.as_ref();
        let bytes_per_second = per_second
            .map(|text| parse_size("max_upload", text.trim_end_matches("/s")))
            .transpose()?;
        let limits = Limits {
            bytes_per_second,
            parallel: self.parallel.unwrap_or(usual.parallel),
            attempts: self.attempts.unwrap_or(usual.attempts),
        };
        let wrong = limits.parallel == 0
            || limits.parallel > 64
            || limits.attempts == 0
            || limits.bytes_per_second == Some(0);
        if wrong {
            return Err(
                "parallel must be 1 to 64, attempts 1 or more, max_upload above 0".to_owned(),
            );
        }
        Ok(limits)
    }

    /// How it is reached.
    pub fn settings(&self, name: &str, environment: &Environment) -> Result<Settings, Error> {
        let refuse = |detail: String| Error::Usage(format!("remote {name}: {detail}"));
        let s3cmd = self.s3cmd_config.as_deref().map(s3cmd).transpose()?;
        let s3cmd = s3cmd.unwrap_or_default();
        let endpoint = self.endpoint.clone().or(s3cmd.endpoint);
        Ok(Settings {
            name: name.to_owned(),
            place: self.place().map_err(refuse)?,
            s3: Access {
                endpoint: endpoint.or_else(|| environment.endpoint.clone()),
                region: (self.region.clone().or(s3cmd.region))
                    .or_else(|| environment.region.clone()),
                path_style: self.path_style.or(s3cmd.path_style),
                allow_http: self.allow_http || s3cmd.allow_http,
                storage_class: self.storage_class.clone(),
                encryption: self.encryption().map_err(refuse)?,
                key: s3cmd.key,
                profile: self.profile.clone(),
            },
            ssh: SshAccess {
                identity: self.identity.clone(),
                known_hosts: self.known_hosts.clone(),
            },
            limits: self.limits().map_err(refuse)?,
        })
    }
}

/// The values of a file of lines `KEY = VALUE`, those of one section if one is named.
pub fn ini_values(text: &str, section: Option<&str>) -> BTreeMap<String, String> {
    let mut here = section.is_none();
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            here = section.is_none_or(|section| name.trim() == section);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| here)
            && !line.starts_with(['#', ';'])
        {
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    values
}

/// What a configuration of s3cmd says. Its other settings are about what it does itself.
fn s3cmd(path: &Path) -> Result<Access, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    let values = ini_values(&text, None);
    let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
    let is_http = value("use_https").is_some_and(|word| !word.eq_ignore_ascii_case("true"));
    let endpoint = value("host_base").map(|host| {
        let scheme = if is_http { "http" } else { "https" };
        format!("{scheme}://{host}")
    });
    let key = match (value("access_key"), value("secret_key")) {
        (Some(key), Some(secret)) => Some((key, secret, value("access_token"))),
        _ => None,
    };
    let region = value("bucket_location").filter(|region| region != "US");
    Ok(Access {
        endpoint,
        region,
        path_style: value("host_bucket").map(|host| !host.contains("%(bucket)")),
        allow_http: is_http,
        key,
        ..Access::default()
    })
}

#[cfg(test)]
mod tests {
    use super::{RemoteConfig, ini_values};

    fn config(text: &str) -> RemoteConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("url = 'nothing'", "nothing"),
            ("url = 's3://b'\nendpoint = 'host:9000'", "host:9000"),
            (
                "url = 's3://b'\nendpoint = 'http://host/x'",
                "without a path",
            ),
            ("url = 's3://b'\nencryption = 'rot13'", "rot13"),
            ("url = 's3://b'\nparallel = 0", "parallel"),
            ("url = 's3://b'\nmax_upload = 'fast'", "fast"),
            ("url = 's3://b'\nkeep = 'all'", "all"),
            ("url = 's3://b'\nkeep = {}", "no rule"),
            ("url = 's3://b'\nkeep = { keep_dayly = 3 }", "keep_dayly"),
            ("url = 's3://b'\nkeep = { keep_within = 'long' }", "long"),
        ] {
            let error = config(text).check().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(
            config("url = 's3://b'\nmax_upload = '1MB/s'").check(),
            Ok(())
        );
    }

    #[test]
    fn stores_are_chosen_by_pattern() {
        let some = config("url = 's3://b'\nstores = ['home', '/db/*']");
        for (dst, taken) in [
            ("home", true),
            ("home/ada", true),
            ("db/shop", true),
            ("vm/disk", false),
            ("homes", false),
        ] {
            assert_eq!(some.takes(dst), Ok(taken), "{dst}");
        }
    }

    #[test]
    fn sections_are_told_apart() {
        let text = "[default]\nregion = a\n[profile x]\nregion=b # no comment\n";
        assert_eq!(ini_values(text, Some("default"))["region"], "a");
        assert_eq!(
            ini_values(text, Some("profile x"))["region"],
            "b # no comment"
        );
        assert!(ini_values(text, Some("y")).is_empty());
    }
}
