//! What differs between two versions. Pages that their catalogs share are not read.

use crate::catalog::{Member, Version};
use crate::error::Error;
use crate::store::Store;
use crate::store::heads::differing;

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only in the later version.
    Added,
    /// Only in the earlier version.
    Removed,
    /// Another kind, length, content, target or device.
    Content,
    /// Only mode, owner, times, attributes.
    Metadata,
}

impl Change {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Content => "content",
            Self::Metadata => "metadata",
        }
    }

    fn of(old: Option<&Member>, new: Option<&Member>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (None, Some(_)) => Some(Self::Added),
            (Some(_), None) => Some(Self::Removed),
            (Some(old), Some(new)) => Some(Self::between(old, new)),
        }
    }

    /// How two members that are not equal differ.
    pub fn between(old: &Member, new: &Member) -> Self {
        let same = (old.kind, &old.link, old.device) == (new.kind, &new.link, new.device)
            && (old.content.size, old.content.digest) == (new.content.size, new.content.digest);
        if same { Self::Metadata } else { Self::Content }
    }
}

/// Takes changes in path order: what it is, the old member, the new one. They have no blocks.
pub type See<'a> = &'a mut dyn FnMut(Change, Option<&Member>, Option<&Member>) -> Result<(), Error>;

/// Calls `see` for everything that differs between two versions.
pub fn diff(store: &Store, from: &Version, to: &Version, see: See<'_>) -> Result<(), Error> {
    differing(
        store,
        &from.catalog,
        &to.catalog,
        &mut |old, new| match Change::of(old, new) {
            Some(change) => see(change, old, new),
            None => Ok(()),
        },
    )
}
