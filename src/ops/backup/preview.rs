//! What a backup would do: the walk and the decisions of a real one, without reading content and without writing.

use std::collections::HashSet;

use jiff::Timestamp;

use super::old::{OldMembers, usable_cache};
use super::previous::Previous;
use super::trust::Trust;
use super::{NotKept, Tree};
use crate::catalog::Kind;
use crate::error::{Error, SourceError};
use crate::store::{Presence, Store};
use crate::tree::found::Step;
use crate::tree::select::LeftOut;
use crate::tree::source;
use crate::tree::walk::Walk;

/// What would become of something in the source.
pub enum Fate {
    /// A file of this length would be read, and why.
    Read(u64, &'static str),
    /// It would be left out, and why.
    LeftOut(LeftOut),
    /// It could not be looked at.
    Problem(SourceError),
}

/// How much a backup would do.
#[derive(Debug, Default)]
pub struct Preview {
    /// Files that would be read.
    pub read: u64,
    /// Their length.
    pub read_bytes: u64,
    /// Members that are not read: known files, further names of files, and what has no content.
    pub others: u64,
    /// What could not be looked at.
    pub problems: u64,
    /// What would not be kept.
    pub not_kept: NotKept,
}

/// Tells of everything in the source that a backup would read or leave out. `store` is what there is at the
/// destination; the caller holds the readers' lock.
pub fn preview(
    store: Option<&Store>,
    tree: &Tree,
    now: Timestamp,
    tell: &mut dyn FnMut(&[u8], &Fate),
) -> Result<Preview, Error> {
    let mut walk = Walk::open(&tree.path, &tree.selection)?;
    let mut known = match store {
        Some(store) if store.presence()? == Presence::Store => Some(Known::of(store)?),
        _ => None,
    };
    let trust = known.as_ref().map_or_else(
        || Trust::of(tree, now, None),
        |known| Trust::of(tree, now, known.cache.as_ref()),
    );
    let (mut preview, mut links) = (Preview::default(), HashSet::new());
    while let Some(step) = walk.next_step() {
        match step {
            Step::Found(found) => {
                let old = match &mut known {
                    Some(known) => known.old.take(&found.path)?,
                    None => None,
                };
                preview.not_kept.flagged += u64::from(found.meta.is_flagged);
                // Of a file with several names the first is read.
                let is_link =
                    found.meta.names > 1 && !found.is_image && !links.insert(found.meta.key());
                let why = match source::kind(&found) {
                    Some(Kind::Regular) if !is_link => trust.why_read(old.as_ref(), &found),
                    _ => None,
                };
                if let Some(why) = why {
                    preview.read += 1;
                    preview.read_bytes += found.meta.size;
                    tell(&found.path, &Fate::Read(found.meta.size, why));
                } else {
                    preview.others += 1;
                }
            }
            Step::LeftOut(path, why) => {
                preview.not_kept.count(&why);
                tell(&path, &Fate::LeftOut(why));
            }
            Step::Problem(path, error) => {
                preview.problems += 1;
                tell(&path, &Fate::Problem(error));
            }
        }
    }
    Ok(preview)
}

/// What is known from the last run.
struct Known {
    old: OldMembers,
    cache: Option<crate::format::scan::ScanCache>,
}

impl Known {
    fn of(store: &Store) -> Result<Self, Error> {
        let versions = store.versions(&store.current()?)?;
        let previous = versions
            .last()
            .map(|newest| Previous::open(store, newest))
            .transpose()?;
        let cache = previous
            .as_ref()
            .and_then(|previous| usable_cache(store, previous));
        let stamps = cache
            .as_ref()
            .map_or_else(Vec::new, |cache| cache.stamps.clone());
        Ok(Self {
            old: OldMembers::open(store, previous.as_ref(), stamps)?,
            cache,
        })
    }
}
