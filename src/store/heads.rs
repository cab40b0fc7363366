//! Members without their block digests: what listings and comparisons need. Pages that two catalogs share are not read, so
//! comparing two versions costs what differs between them.

use std::collections::HashSet;

use super::tree::TreeReader;
use super::{Area, Store};
use crate::catalog::member::path_order;
use crate::catalog::{Member, PageRef};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::member::{self, Record};

/// Reads members in path order. Their content has length and digest, but no blocks: nothing that depends on those may be
/// asked of it.
pub struct Heads {
    tree: TreeReader,
    pending: Vec<PageRef>,
    records: std::vec::IntoIter<Record>,
    path: String,
    /// Pages that are passed over.
    same: HashSet<Digest>,
    /// What comes before this path is passed over.
    from: Vec<u8>,
    root: PageRef,
}

impl Heads {
    /// All members of the catalog with this root.
    pub fn open(store: &Store, root: &PageRef) -> Self {
        Self::but(store, root, HashSet::new())
    }

    fn but(store: &Store, root: &PageRef, same: HashSet<Digest>) -> Self {
        Self {
            tree: TreeReader::open(store, Area::Catalogs, root),
            pending: vec![root.clone()],
            records: Vec::new().into_iter(),
            path: String::new(),
            same,
            from: Vec::new(),
            root: root.clone(),
        }
    }

    /// Goes on with the first member that does not come before `path`, which lies ahead.
    pub fn seek(&mut self, path: &[u8]) -> Result<(), StoreError> {
        path.clone_into(&mut self.from);
        // What is near is in the page that is open.
        let is_here = self.records.as_slice().iter().any(|record| match record {
            Record::Member(record) => path_order(record.path(), path).is_ge(),
            Record::Blocks(_) | Record::Cut(_) => false,
        });
        if !is_here {
            self.pending = self.tree.walk_from(path)?.0;
            self.records = Vec::new().into_iter();
        }
        Ok(())
    }

    /// The next member, `None` at the end.
    pub fn next_member(&mut self) -> Result<Option<Member>, StoreError> {
        loop {
            match self.records.next() {
                Some(Record::Member(record)) if path_order(record.path(), &self.from).is_lt() => {}
                Some(Record::Member(record)) => {
                    let member = member::begin(record);
                    return member
                        .map(Some)
                        .map_err(|error| StoreError::format(&self.path, &error));
                }
                Some(Record::Blocks(_) | Record::Cut(_)) => {}
                None => {
                    let same = &self.same;
                    let is_same = |digest: &Digest| same.contains(digest);
                    let Some(leaf) = self.tree.next_leaf(&mut self.pending, is_same)? else {
                        return Ok(None);
                    };
                    let (path, raw) = self.tree.leaf(&leaf)?;
                    let records =
                        member::decode(&raw).map_err(|error| StoreError::format(&path, &error))?;
                    (self.path, self.records) = (path, records.into_iter());
                }
            }
        }
    }

    /// The member with this path.
    pub fn get(&mut self, path: &[u8]) -> Result<Option<Member>, StoreError> {
        self.pending = vec![self.root.clone()];
        self.records = Vec::new().into_iter();
        self.seek(path)?;
        Ok(self.next_member()?.filter(|member| member.path == path))
    }
}

/// Takes what one catalog holds at a path, and what the other.
pub type SeeBoth<'a, E> = &'a mut dyn FnMut(Option<&Member>, Option<&Member>) -> Result<(), E>;

/// Calls `see` for every path at which two catalogs do not hold the same.
pub fn differing<E: From<StoreError>>(
    store: &Store,
    one: &PageRef,
    other: &PageRef,
    see: SeeBoth<'_, E>,
) -> Result<(), E> {
    let pages = |root| {
        let mut pages = HashSet::new();
        TreeReader::open(store, Area::Catalogs, root).visit(&mut |page| {
            pages.insert(page.digest);
        })?;
        Ok::<_, StoreError>(pages)
    };
    let mut same = pages(one)?;
    let others = pages(other)?;
    same.retain(|page| others.contains(page));
    let mut left = Heads::but(store, one, same.clone());
    let mut right = Heads::but(store, other, same);
    let (mut a, mut b) = (left.next_member()?, right.next_member()?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => path_order(&a.path, &b.path),
        };
        if order.is_lt() {
            see(a.as_ref(), None)?;
        } else if order.is_gt() {
            see(None, b.as_ref())?;
        } else if a != b {
            see(a.as_ref(), b.as_ref())?;
        }
        if order.is_le() {
            a = left.next_member()?;
        }
        if order.is_ge() {
            b = right.next_member()?;
        }
    }
}
