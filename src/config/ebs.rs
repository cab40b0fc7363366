//! `[ebs]` in `config.toml`: which volumes `ebs` makes snapshots of.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;

use super::file::{File, Part};
use super::job::positive;
use crate::plan::snapshots::Rule;

/// Volumes and what becomes of their snapshots.
#[derive(Debug, Clone, PartialEq)]
pub struct EbsConfig {
    /// Volumes and what they are. Only these are touched.
    pub volumes: BTreeMap<String, String>,
    /// Which snapshots stay.
    pub rule: Rule,
    /// A profile of the `aws` program.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[serde(default)]
    volumes: BTreeMap<String, String>,
    keep: Option<usize>,
    partitioned: Option<Vec<String>>,
    profile: Option<String>,
    region: Option<String>,
}

/// As many as the script that this takes over from kept.
pub const KEEP: usize = 5;

impl EbsConfig {
    /// `profile` is the one of the Python tool's `AWSCLI_PROFILE`.
    pub(super) fn of(file: &File, part: Part<'_>, profile: Option<String>) -> Result<Self, String> {
        let named = |detail: String| format!("[ebs]: {detail}");
        let typed: Typed = file.part(part).map_err(named)?;
        let checked = typed.check(profile);
        checked.map_err(|detail| file.placed(&["ebs"], named(detail)))
    }
}

impl Typed {
    fn check(self, profile: Option<String>) -> Result<EbsConfig, String> {
        let is_id = |id: &&String| {
            let digits = id.strip_prefix("vol-").unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if let Some(id) = self.volumes.keys().find(|id| !is_id(id)) {
            return Err(format!(
                "volumes: '{id}' is no volume; write \"vol-0123456789abcdef0\" = \"what it is\""
            ));
        }
        let rule = match (self.keep, self.partitioned) {
            (Some(_), Some(_)) => return Err("set keep or partitioned, not both".into()),
            (Some(0), None) => return Err("keep must be 1 or more".into()),
            (keep, None) => Rule::Keep(keep.unwrap_or(KEEP)),
            (None, Some(ages)) => {
                let ages = ages.iter().map(|age| positive("partitioned", age));
                let ages: Vec<SignedDuration> = ages.collect::<Result<_, _>>()?;
                if ages.is_empty() {
                    return Err("partitioned: name ages, [\"1d\", \"7d\", \"28d\"]".into());
                }
                Rule::Partitioned(ages)
            }
        };
        Ok(EbsConfig {
            volumes: self.volumes,
            rule,
            profile: self.profile.or(profile),
            region: self.region,
        })
    }
}
