//! Whether the next version is a full, and which versions stay whole.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Version, VersionKind};

/// How chains grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainPolicy {
    /// At most this many increments follow a full.
    pub max_incremental_count: u64,
    /// A version this much later than its chain's full begins a new chain.
    pub max_incremental_span: SignedDuration,
    /// For how many chains the version before the full stays whole.
    pub fulls_kept: usize,
}

/// The kind of a version that is made now. A full in the future (the clock went back) begins a new chain at once, so that
/// neither never nor always is one due.
pub fn next_kind(versions: &[Version], now: Timestamp, policy: &ChainPolicy) -> VersionKind {
    let Some(index) = versions
        .iter()
        .rposition(|version| version.kind == VersionKind::Full)
    else {
        return VersionKind::Full;
    };
    let increments = (versions.len() - index - 1) as u64;
    let age = now.duration_since(versions[index].time);
    let within = !age.is_negative() && age < policy.max_incremental_span;
    if increments < policy.max_incremental_count && within {
        VersionKind::Increment
    } else {
        VersionKind::Full
    }
}

/// The sequence numbers of the versions that are to be held whole: the newest, the anchors (the version before each of
/// the last `fulls_kept` fulls), and any that no delta can rebuild.
pub fn whole(versions: &[Version], fulls_kept: usize) -> BTreeSet<u64> {
    let anchors = versions
        .windows(2)
        .rev()
        .filter(|pair| pair[1].kind == VersionKind::Full)
        .map(|pair| pair[0].seq);
    let mut whole: BTreeSet<u64> = anchors.take(fulls_kept).collect();
    whole.extend(
        versions
            .iter()
            .filter(|version| version.delta.is_empty())
            .map(|version| version.seq),
    );
    whole
}
