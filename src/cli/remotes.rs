//! From what the user calls a remote, or a store in one, to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Context, stores};
use crate::config::general::General;
use crate::config::remote::{Environment, RemoteConfig, ini_values};
use crate::error::Error;
use crate::format::journal::Copy;
use crate::remote::mirror::Mirror;
use crate::remote::{Careful, Place, Remote as _};
use crate::store::Store;

/// The remotes that are configured, and others by their URLs.
pub struct Remotes {
    configured: BTreeMap<String, Result<RemoteConfig, String>>,
    root_path: Option<PathBuf>,
    environment: Environment,
    open: RefCell<BTreeMap<String, Arc<Careful>>>,
}

impl Remotes {
    /// Those of a configuration.
    pub fn of(general: &General) -> Self {
        Self {
            configured: general.remotes.clone(),
            root_path: Some(general.root_path.clone()),
            environment: environment(),
            open: RefCell::default(),
        }
    }

    /// Those of the configuration, if there is one.
    pub fn existing(context: &Context) -> Result<Self, Error> {
        let general = General::read(&context.config_dir)?;
        Ok(general.as_ref().map_or_else(
            || Self {
                configured: BTreeMap::new(),
                root_path: None,
                environment: environment(),
                open: RefCell::default(),
            },
            Self::of,
        ))
    }

    /// The names of all of them, also of those that are configured wrongly.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.configured.keys().map(String::as_str)
    }

    /// The configured one of this name.
    pub fn config(&self, name: &str) -> Result<&RemoteConfig, Error> {
        let found = self.configured.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.configured.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none is configured: write [remote.NAME] and url = \"s3://BUCKET/PREFIX\" into config.toml".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            Error::Usage(format!("There is no remote {name}; {known}"))
        })?;
        let config = found
            .as_ref()
            .map_err(|wrong| Error::Usage(wrong.clone()))?;
        self.refuse_inside(name, config)?;
        Ok(config)
    }

    /// A copy among the stores would be taken for one of them, and be copied again.
    fn refuse_inside(&self, name: &str, config: &RemoteConfig) -> Result<(), Error> {
        let (Ok(Place::Directory(path)), Some(root)) = (config.place(), &self.root_path) else {
            return Ok(());
        };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let (path, root) = (real(&path), real(root));
        if path.starts_with(&root) || root.starts_with(&path) {
            return Err(Error::Usage(format!(
                "remote {name}: {} and ROOT_PATH {} lie in each other: copies must be kept apart from the stores",
                path.display(),
                root.display()
            )));
        }
        Ok(())
    }

    /// A store's copy in a configured remote, as the journal calls it: by the place, since a name may come to mean another.
    pub fn copy(&self, name: &str, dst: &str) -> Result<Copy, Error> {
        Ok(Copy {
            remote: self.config(name)?.identity(&self.environment),
            dst: normal(dst),
        })
    }

    fn remote(&self, name: &str, config: &RemoteConfig) -> Result<Arc<Careful>, Error> {
        if let Some(open) = self.open.borrow().get(name) {
            return Ok(Arc::clone(open));
        }
        let opened = crate::remote::open(&config.settings(name, &self.environment)?)?;
        self.open
            .borrow_mut()
            .insert(name.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    /// A store's copy in a configured remote.
    pub fn mirror(&self, name: &str, dst: &str) -> Result<Mirror, Error> {
        let config = self.config(name)?;
        let remote = self.remote(name, config)?;
        let dst = normal(dst);
        Ok(Mirror::new(remote, &dst, &joined(config.url(), &dst)))
    }

    /// The directory that a URL names. If it lies in a configured remote, it is reached as that is.
    pub fn mirror_at(&self, url: &str) -> Result<Mirror, Error> {
        let place = Place::parse(url).map_err(Error::Usage)?;
        let mut best: Option<(&String, &RemoteConfig, String)> = None;
        let usable = self.configured.iter();
        for (name, config) in
            usable.filter_map(|(name, config)| Some((name, config.as_ref().ok()?)))
        {
            let outer = config.place().map_err(Error::Usage)?;
            if let Some(below) = outer.below(&place)
                && best
                    .as_ref()
                    .is_none_or(|(_, _, other)| below.len() < other.len())
            {
                best = Some((name, config, below));
            }
        }
        match best {
            Some((name, config, below)) => Ok(Mirror::new(self.remote(name, config)?, &below, url)),
            None => Ok(Mirror::new(
                self.remote(url, &RemoteConfig::of_url(url))?,
                "",
                url,
            )),
        }
    }

    /// What `DST` and `--remote` mean, if it is in a remote.
    pub fn chosen(&self, dst: &str, remote: Option<&str>) -> Result<Option<Mirror>, Error> {
        match remote {
            Some(_) if Place::is_url(dst) => Err(Error::Usage(
                "name the remote by --remote or by its URL, not by both".into(),
            )),
            Some(name) => self.mirror(name, dst).map(Some),
            None if Place::is_url(dst) => self.mirror_at(dst).map(Some),
            None => Ok(None),
        }
    }
}

/// One name for one store, however it is typed.
fn normal(dst: &str) -> String {
    let parts = dst
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

fn joined(url: &str, dst: &str) -> String {
    format!("{}/{dst}", url.trim_end_matches('/'))
}

/// The stores in a directory of a remote: their paths below it, sorted.
pub fn stores_in(mirror: &Mirror) -> Result<Vec<String>, Error> {
    let prefix = mirror.path("");
    let mut found = BTreeSet::new();
    for entry in mirror.remote().list(&prefix)? {
        let path = entry.path.strip_prefix(&prefix).unwrap_or(&entry.path);
        let state = path.rsplit_once('/').and_then(|(dir, number)| {
            let store = dir.strip_suffix("state")?;
            number
                .parse::<u64>()
                .ok()
                .map(|_| store.trim_end_matches('/'))
        });
        found.extend(state.map(str::to_owned));
    }
    Ok(found.into_iter().collect())
}

/// A copy as a store to look into. It must be one.
pub fn open_store(
    mirror: &Mirror,
    local: Option<&Store>,
    state: Option<u64>,
) -> Result<Store, Error> {
    let store = mirror.store(local);
    if store.state_numbers()?.is_empty() {
        return Err(Error::Refused(format!(
            "There is no store at {}; btw-backup list URL shows which there are",
            mirror.name()
        )));
    }
    stores::as_of(store, state)
}

/// What the environment, and the AWS configuration that it names, say of buckets.
fn environment() -> Environment {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(value);
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(value);
    let profile = value("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let file = value("AWS_CONFIG_FILE").map(PathBuf::from);
    let file = file.or_else(|| Some(std::env::home_dir()?.join(".aws/config")));
    let text = file
        .and_then(|file| std::fs::read_to_string(file).ok())
        .unwrap_or_default();
    let section = if profile == "default" {
        profile
    } else {
        format!("profile {profile}")
    };
    let values = ini_values(&text, Some(&section));
    Environment {
        endpoint: endpoint.or_else(|| values.get("endpoint_url").cloned()),
        region: region.or_else(|| values.get("region").cloned()),
    }
}
