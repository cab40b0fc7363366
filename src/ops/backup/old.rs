//! The previous version's members, side by side with the walk.

use super::Previous;
use crate::catalog::member::path_order;
use crate::catalog::{Kind, Member};
use crate::error::StoreError;
use crate::format::scan::{ScanCache, Stamp};
use crate::store::Store;
use crate::store::catalogs::CatalogReader;

/// The previous catalog, read in step with the walk.
pub struct OldMembers {
    reader: Option<CatalogReader>,
    next: Option<Old>,
    stamps: std::vec::IntoIter<Stamp>,
}

pub struct Old {
    pub offset: u64,
    pub member: Member,
    pub stamp: Stamp,
}

impl OldMembers {
    pub fn open(
        store: &Store,
        previous: Option<&Previous>,
        stamps: Vec<Stamp>,
    ) -> Result<Self, StoreError> {
        let reader = previous
            .map(|previous| CatalogReader::open(store, &previous.version.catalog))
            .transpose()?;
        let mut old = Self {
            reader,
            next: None,
            stamps: stamps.into_iter(),
        };
        old.advance()?;
        Ok(old)
    }

    fn advance(&mut self) -> Result<Option<Old>, StoreError> {
        let next = match &mut self.reader {
            Some(reader) => reader.next_member()?,
            None => None,
        };
        let next = next.map(|(offset, member)| {
            // What is not in the stream has no stamp: such members come and go without a new version.
            let stamp = if member.kind == Kind::Absent {
                None
            } else {
                self.stamps.next()
            };
            Old {
                offset,
                member,
                stamp: stamp.unwrap_or(Stamp::NONE),
            }
        });
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// The previous member with this path. Paths must be asked for in order.
    pub fn take(&mut self, path: &[u8]) -> Result<Option<Old>, StoreError> {
        while let Some(next) = &self.next {
            match path_order(&next.member.path, path) {
                std::cmp::Ordering::Less => self.advance()?,
                std::cmp::Ordering::Equal => return self.advance(),
                std::cmp::Ordering::Greater => return Ok(None),
            };
        }
        Ok(None)
    }
}

/// The cache, if its stamps belong to the previous version's catalog.
pub fn usable_cache(store: &Store, previous: &Previous) -> Option<ScanCache> {
    store.scan_cache().filter(|cache| {
        cache.seq == previous.version.seq && cache.catalog == previous.version.catalog.digest
    })
}
