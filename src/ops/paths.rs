//! What users write for a path, and what they may have meant.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::catalog::version::describe;
use crate::catalog::{Member, Version};
use crate::error::{Error, StoreError, printable};
use crate::store::Store;
use crate::store::heads::Heads;

/// So many near names are offered.
const NEAR: usize = 5;

/// A path below the source from what a user wrote: relative to the source, or absolute and in it; empty for the source
/// itself.
pub fn member_path(text: &OsStr, source: &[u8]) -> Result<Vec<u8>, Error> {
    let mut path = text.as_bytes();
    if path.starts_with(b"/") {
        let base = source.strip_suffix(b"/").unwrap_or(source);
        let inner = path.strip_prefix(base);
        let Some(inner) = inner.filter(|rest| rest.is_empty() || rest.starts_with(b"/")) else {
            return Err(Error::Refused(format!(
                "{} does not lie in the source {}; write paths as they are below it",
                printable(path),
                printable(source)
            )));
        };
        path = inner;
    }
    let parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    Ok(parts.collect::<Vec<_>>().join(&b'/'))
}

/// The member that `path` names in a version. If it is absent there, what is near is named, and versions that have it.
pub fn find(
    store: &Store,
    versions: &[Version],
    version: &Version,
    path: &[u8],
) -> Result<Member, Error> {
    if let Some(member) = Heads::open(store, &version.catalog).get(path)? {
        return Ok(member);
    }
    let shown = if path.is_empty() { b"." } else { path };
    let mut text = format!("There is no {} in {}", printable(shown), describe(version));
    if let Some(other) = nearest_with(store, versions, version, path)? {
        text.push_str(&format!("; it is in {}", describe(other)));
    } else {
        let near = near(store, version, path)?;
        if !near.is_empty() {
            text.push_str(&format!("; near: {}", near.join(", ")));
        }
    }
    Err(Error::Refused(text))
}

/// The version with the path that is nearest to `version`, older ones first.
fn nearest_with<'a>(
    store: &Store,
    versions: &'a [Version],
    version: &Version,
    path: &[u8],
) -> Result<Option<&'a Version>, StoreError> {
    let older = versions
        .iter()
        .rev()
        .filter(|other| other.seq < version.seq);
    let newer = versions.iter().filter(|other| other.seq > version.seq);
    for other in older.chain(newer) {
        if Heads::open(store, &other.catalog).get(path)?.is_some() {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Names like the one that was written, in the innermost directory on its way that exists.
fn near(store: &Store, version: &Version, path: &[u8]) -> Result<Vec<String>, StoreError> {
    let mut heads = Heads::open(store, &version.catalog);
    let mut dir = path;
    loop {
        let end = dir.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        dir = &dir[..end];
        if dir.is_empty() || heads.get(dir)?.is_some() {
            break;
        }
    }
    let wanted = path[dir.len()..]
        .split(|byte| *byte == b'/')
        .find(|part| !part.is_empty());
    let wanted = printable(wanted.unwrap_or_default()).to_lowercase();
    let mut names: Vec<(f64, String)> = Vec::new();
    children(&mut heads, dir, &mut |member| {
        let name = member
            .path
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        let likeness = strsim::jaro_winkler(&wanted, &printable(name).to_lowercase());
        if likeness > 0.7 {
            names.push((likeness, printable(&member.path)));
        }
        Ok::<_, StoreError>(())
    })?;
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.truncate(NEAR);
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Calls `see` for the members right in a directory; what lies deeper is passed over unread where it fills pages.
pub fn children<E: From<StoreError>>(
    heads: &mut Heads,
    dir: &[u8],
    see: &mut dyn FnMut(&Member) -> Result<(), E>,
) -> Result<(), E> {
    let start = if dir.is_empty() {
        Vec::new()
    } else {
        [dir, b"/"].concat()
    };
    heads.get(dir)?;
    heads.seek(&start)?;
    while let Some(member) = heads.next_member()? {
        if member.path.is_empty() {
            continue;
        }
        let Some(name) = member.path.strip_prefix(&start[..]) else {
            break;
        };
        if let Some(slash) = name.iter().position(|byte| *byte == b'/') {
            // All that begins with this and a slash comes before the first other byte.
            heads.seek(&[&member.path[..start.len() + slash], &[1]].concat())?;
            continue;
        }
        see(&member)?;
    }
    Ok(())
}
