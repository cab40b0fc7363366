//! Looking into versions: what is in one, and how one path was in all of them. Only catalogs are read.

use std::collections::BTreeMap;

use super::paths;
use crate::catalog::{Kind, Member, Version};
use crate::error::{Error, StoreError};
use crate::store::Store;
use crate::store::heads::{Heads, differing};
use crate::tree::select::{Patterns, is_below};

/// Takes members one by one.
pub type See<'a> = &'a mut dyn FnMut(&Member) -> Result<(), Error>;

/// Calls `see` for what is in a directory, or with `deep` for everything below it; for a path that is no directory, for
/// that itself. Members have no blocks.
pub fn list(
    store: &Store,
    versions: &[Version],
    version: &Version,
    path: &[u8],
    deep: bool,
    see: See<'_>,
) -> Result<(), Error> {
    let mut heads = Heads::open(store, &version.catalog);
    if !path.is_empty() {
        let member = paths::find(store, versions, version, path)?;
        if member.kind != Kind::Directory {
            return see(&member);
        }
    }
    if !deep {
        return paths::children(&mut heads, path, see);
    }
    heads.get(path)?;
    heads.seek(path)?;
    while let Some(member) = heads.next_member()? {
        if !is_below(path, &member.path) {
            break;
        }
        if member.path != path {
            see(&member)?;
        }
    }
    Ok(())
}

/// Neighbouring versions in which a path was the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Index of the first of them.
    pub first: usize,
    /// Index of the last.
    pub last: usize,
    /// What was there; it has no blocks.
    pub member: Member,
}

/// How a path was in all versions, oldest first; versions without it belong to no span.
pub fn history(store: &Store, versions: &[Version], path: &[u8]) -> Result<Vec<Span>, StoreError> {
    let mut spans: Vec<Span> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let found = Heads::open(store, &version.catalog).get(path)?;
        let Some(member) = found else { continue };
        match spans.last_mut() {
            Some(span) if span.last + 1 == index && span.member == member => span.last = index,
            _ => spans.push(Span {
                first: index,
                last: index,
                member,
            }),
        }
    }
    Ok(spans)
}

/// How the paths that match were in all versions, in path order. The first catalog is read whole, of the others what
/// differs from the one before.
pub fn find(
    store: &Store,
    versions: &[Version],
    patterns: &Patterns,
) -> Result<Vec<Vec<Span>>, StoreError> {
    let is_match = |member: &Member| {
        !member.path.is_empty() && patterns.matches(&member.path, member.kind == Kind::Directory)
    };
    let mut found: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
    let Some(first) = versions.first() else {
        return Ok(Vec::new());
    };
    let mut heads = Heads::open(store, &first.catalog);
    while let Some(member) = heads.next_member()? {
        if is_match(&member) {
            begin(&mut found, 0, member);
        }
    }
    for (before, pair) in versions.windows(2).enumerate() {
        let mut see = |old: Option<&Member>, new: Option<&Member>| {
            if let Some(old) = old.filter(|old| is_match(old))
                && let Some(span) = found.get_mut(&old.path).and_then(|spans| spans.last_mut())
            {
                span.last = before;
            }
            if let Some(new) = new.filter(|new| is_match(new)) {
                begin(&mut found, before + 1, new.clone());
            }
            Ok::<_, StoreError>(())
        };
        differing(store, &pair[0].catalog, &pair[1].catalog, &mut see)?;
    }
    let mut found: Vec<Vec<Span>> = found.into_values().collect();
    found.iter_mut().flatten().for_each(|span| {
        if span.last == STILL {
            span.last = versions.len() - 1;
        }
    });
    found.sort_by(|a, b| crate::catalog::member::path_order(&a[0].member.path, &b[0].member.path));
    Ok(found)
}

/// The end of a span that no later version has ended yet.
const STILL: usize = usize::MAX;

fn begin(found: &mut BTreeMap<Vec<u8>, Vec<Span>>, first: usize, member: Member) {
    let spans = found.entry(member.path.clone()).or_default();
    spans.push(Span {
        first,
        last: STILL,
        member,
    });
}
