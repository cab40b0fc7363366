//! `RETENTION`: which versions stay, as it is written in a configuration or on the command line.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;

use super::source::parse_size;
use crate::plan::retention::{Period, Policy};
use crate::time::parse_span;

/// The rules as they are written. What any of them keeps stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Of each group between two of these ages keep the oldest and the newest version, and one beyond: 1d,7d,28d
    #[arg(long, value_name = "AGE,...", value_delimiter = ',')]
    #[serde(default)]
    pub partitioned: Vec<String>,
    /// Keep so many of the newest
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u64>,
    /// Keep everything younger than this
    #[arg(long, value_name = "AGE")]
    pub keep_within: Option<String>,
    /// Keep the newest version of each of so many hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u64>,
    /// The same for days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u64>,
    /// The same for weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u64>,
    /// The same for months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u64>,
    /// The same for years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u64>,
    /// Remove only what is older than this
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Remove only while the store is larger than this, the oldest first
    #[arg(long, value_name = "SIZE")]
    pub max_store_size: Option<String>,
}

impl Retention {
    /// Whether no rule is written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The rules, checked. An error names the rule and the value.
    pub fn policy(&self) -> Result<Policy, String> {
        let age =
            |key: &str, text: &String| parse_span(text).map_err(|error| format!("{key}: {error}"));
        let ages: Result<Vec<SignedDuration>, String> = self
            .partitioned
            .iter()
            .map(|text| age("partitioned", text))
            .collect();
        let counts = [
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let periods = Period::ALL.into_iter().zip(counts);
        let policy = Policy {
            partitioned: ages?,
            last: self.keep_last,
            within: (self.keep_within.as_ref())
                .map(|text| age("keep_within", text))
                .transpose()?,
            periods: periods
                .filter_map(|(period, count)| Some((period, count?)))
                .collect::<BTreeMap<_, _>>(),
            older_than: (self.older_than.as_ref())
                .map(|text| age("older_than", text))
                .transpose()?,
            max_store_bytes: (self.max_store_size.as_ref())
                .map(|text| parse_size("max_store_size", text))
                .transpose()?,
        };
        policy.check()?;
        Ok(policy)
    }
}
