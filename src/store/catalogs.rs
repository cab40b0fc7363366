//! Catalogs: a version's members in path order, as a tree of pages.

use super::tree::{TreeReader, TreeWriter, WrittenTree};
use super::{Area, Store};
use crate::catalog::member::path_order;
use crate::catalog::{Member, PageRef};
use crate::error::StoreError;
use crate::format::member::{self, Record};

/// A leaf is never larger than this by more than one record.
const LEAF_MAX_BYTES: usize = 1 << 20;

/// Writes a catalog.
pub struct CatalogWriter {
    tree: TreeWriter,
    raw: Vec<u8>,
    first: Vec<u8>,
    items: u64,
    stream_bytes: u64,
}

impl CatalogWriter {
    /// Begins a catalog that shares pages with `like`.
    pub fn create(store: &Store, like: Option<&PageRef>) -> Result<Self, StoreError> {
        let tree = TreeWriter::create(store, Area::Catalogs, like)?;
        Ok(Self {
            tree,
            raw: member::header(),
            first: Vec::new(),
            items: 0,
            stream_bytes: 0,
        })
    }

    /// Adds the next member in path order.
    pub fn add(&mut self, member: &Member) -> Result<(), StoreError> {
        for record in member::encode(member) {
            if self.items > 0 && (record.begins_page || self.raw.len() >= LEAF_MAX_BYTES) {
                self.close()?;
            }
            if self.items == 0 {
                self.first.clone_from(&record.key);
            }
            self.raw.extend_from_slice(&record.bytes);
            self.items += 1;
            self.stream_bytes += if record.is_member {
                member.stream_bytes()
            } else {
                0
            };
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let raw = std::mem::replace(&mut self.raw, member::header());
        self.tree.leaf(
            &raw,
            self.items,
            self.stream_bytes,
            std::mem::take(&mut self.first),
        )?;
        (self.items, self.stream_bytes) = (0, 0);
        Ok(())
    }

    /// Completes the catalog.
    pub fn finish(mut self) -> Result<WrittenTree, StoreError> {
        self.close()?;
        self.tree.finish()
    }
}

/// Reads the members of a catalog in order, each with the offset of its first byte in the stream.
pub struct CatalogReader {
    tree: TreeReader,
    pending: Vec<PageRef>,
    records: std::vec::IntoIter<Record>,
    path: String,
    begun: Option<Member>,
    offset: u64,
    /// What comes before this path is passed over.
    from: Vec<u8>,
}

impl CatalogReader {
    /// Opens the catalog with this root.
    pub fn open(store: &Store, root: &PageRef) -> Result<Self, StoreError> {
        Self::open_at(store, root, &[])
    }

    /// The same from the first member on that does not come before `path`.
    pub fn open_at(store: &Store, root: &PageRef, path: &[u8]) -> Result<Self, StoreError> {
        let tree = TreeReader::open(store, Area::Catalogs, root);
        let (pending, offset) = tree.walk_from(path)?;
        Ok(Self {
            tree,
            pending,
            records: Vec::new().into_iter(),
            path: String::new(),
            begun: None,
            offset,
            from: path.to_vec(),
        })
    }

    /// The next member, `None` at the end.
    pub fn next_member(&mut self) -> Result<Option<(u64, Member)>, StoreError> {
        loop {
            let next = self.next_in_leaves()?;
            match &next {
                Some((_, member)) if path_order(&member.path, &self.from).is_lt() => {}
                _ => {
                    self.from.clear();
                    return Ok(next);
                }
            }
        }
    }

    fn next_in_leaves(&mut self) -> Result<Option<(u64, Member)>, StoreError> {
        loop {
            let Some(record) = self.records.next() else {
                if self.next_leaf()? {
                    continue;
                }
                return self.complete(None);
            };
            let result = match (record, &mut self.begun) {
                (Record::Member(record), _) => member::begin(record).map(Some),
                (Record::Blocks(blocks), Some(member)) => {
                    member::add_blocks(member, blocks).map(|()| None)
                }
                (Record::Cut(cut), Some(member)) => member::add_cut(member, &cut).map(|()| None),
                // The first leaf may begin with blocks of a member that comes before.
                (_, None) if !self.from.is_empty() => continue,
                (_, None) => {
                    return Err(StoreError::damaged(&self.path, "blocks without a member"));
                }
            };
            if let Some(next) = result.map_err(|error| StoreError::format(&self.path, &error))?
                && let Some(done) = self.complete(Some(next))?
            {
                return Ok(Some(done));
            }
        }
    }

    /// Hands out the member whose records are complete, and begins `next`.
    fn complete(&mut self, next: Option<Member>) -> Result<Option<(u64, Member)>, StoreError> {
        let Some(done) = std::mem::replace(&mut self.begun, next) else {
            return Ok(None);
        };
        let done = member::finish(done).map_err(|error| StoreError::format(&self.path, &error))?;
        let offset = self.offset;
        self.offset += done.stream_bytes();
        Ok(Some((offset, done)))
    }

    fn next_leaf(&mut self) -> Result<bool, StoreError> {
        let Some(leaf) = self.tree.next_leaf(&mut self.pending, |_| false)? else {
            return Ok(false);
        };
        let (path, raw) = self.tree.leaf(&leaf)?;
        let records = member::decode(&raw).map_err(|error| StoreError::format(&path, &error))?;
        (self.path, self.records) = (path, records.into_iter());
        Ok(true)
    }
}
