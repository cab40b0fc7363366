//! How versions are kept, whatever the source.

use jiff::SignedDuration;

use super::retention::Retention;
use crate::plan::chain::ChainPolicy;
use crate::plan::retention::Policy;
use crate::time::parse_span;

/// How a source's versions are kept.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// How chains grow.
    pub chain: ChainPolicy,
    /// Which versions stay after each backup; all if there are no rules.
    pub retention: Option<Policy>,
    /// For so long deleted versions can be brought back.
    pub grace: SignedDuration,
}

/// The keys as they are written. Each configuration lists them itself: serde cannot both share keys between structures and
/// refuse those that are not known.
#[derive(Default)]
pub(super) struct KeepingKeys {
    pub max_incremental_count: Option<u64>,
    pub max_incremental_span: Option<String>,
    pub fulls_kept: Option<usize>,
    pub retention: Retention,
    pub grace: Option<String>,
}

impl KeepingKeys {
    /// The meaning of the keys, with the defaults for those that are missing.
    pub fn check(self) -> Result<Keeping, String> {
        Ok(Keeping {
            chain: ChainPolicy {
                max_incremental_count: self.max_incremental_count.unwrap_or(10),
                max_incremental_span: span(
                    "MAX_INCREMENTAL_SPAN",
                    self.max_incremental_span.as_deref(),
                    "24h",
                )?,
                fulls_kept: self.fulls_kept.unwrap_or(2),
            },
            retention: (!self.retention.is_empty())
                .then(|| self.retention.policy())
                .transpose()
                .map_err(|error| format!("RETENTION: {error}"))?,
            grace: span("GRACE", self.grace.as_deref(), "24h")?,
        })
    }
}

/// A span of time, or its default.
pub(super) fn span(
    key: &str,
    value: Option<&str>,
    default: &str,
) -> Result<SignedDuration, String> {
    parse_span(value.unwrap_or(default)).map_err(|error| format!("{key}: {error}"))
}
