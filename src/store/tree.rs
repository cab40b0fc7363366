//! Trees of pages, written so that unchanged pages are shared, read by position. What the leaves hold is the business
//! of [`super::catalogs`] and [`super::manifests`].

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::codec::{self, PAGE_LEVEL};
use super::file::NewFile;
use super::{Area, Store};
use crate::catalog::PageRef;
use crate::catalog::member::path_order;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::page;

/// An inner page ends after a child whose digest begins with a byte below this: after 64 children on average.
const INNER_CUT_BELOW: u8 = 4;
const INNER_MAX_CHILDREN: usize = 256;
/// In a walk pages of about so many bytes are expected together.
const AHEAD_BYTES: u64 = 1 << 20;
/// Paths may be long: an inner page also ends when its keys have this many bytes.
const INNER_MAX_KEY_BYTES: usize = 512 << 10;

/// Writes one tree. Pages that the tree `like` has already are referred to, not written.
pub struct TreeWriter {
    store: Store,
    area: Area,
    known: HashMap<Digest, PageRef>,
    file: Option<NewFile>,
    levels: Vec<Vec<PageRef>>,
}

/// A finished tree.
pub struct WrittenTree {
    /// Its root.
    pub root: PageRef,
    /// The pack with the pages that were new; `None` if none was.
    pub pack: Option<Digest>,
    /// The length of that pack.
    pub written_bytes: u64,
}

impl TreeWriter {
    /// Begins a tree whose pages go to `area`.
    pub fn create(store: &Store, area: Area, like: Option<&PageRef>) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        if let Some(root) = like {
            TreeReader::open(store, area, root).visit(&mut |page| {
                known.insert(page.digest, page.clone());
            })?;
        }
        Ok(Self {
            store: store.clone(),
            area,
            known,
            file: None,
            levels: vec![Vec::new()],
        })
    }

    /// Adds a leaf.
    pub fn leaf(
        &mut self,
        raw: &[u8],
        items: u64,
        stream_bytes: u64,
        first: Vec<u8>,
    ) -> Result<(), StoreError> {
        let digest = Digest::of(raw);
        let page = self.page(
            raw,
            PageRef {
                level: 0,
                pack: None,
                offset: 0,
                stored_bytes: 0,
                raw_bytes: 0,
                digest,
                items,
                stream_bytes,
                first,
            },
        )?;
        self.add(page)
    }

    /// Writes a page unless the tree has it already; `page` says all but where it lies.
    fn page(&mut self, raw: &[u8], page: PageRef) -> Result<PageRef, StoreError> {
        if let Some(known) = self.known.get(&page.digest) {
            // The key is not in the bytes of a leaf that holds only cuts.
            return Ok(PageRef {
                first: page.first,
                ..known.clone()
            });
        }
        let stored = codec::encode_proved(raw, PAGE_LEVEL, |_| ())?;
        if raw.len().max(stored.len()) > page::PAGE_MAX_BYTES as usize {
            return Err(StoreError::Proof(format!(
                "a page of {} would be larger than the format allows",
                self.area.dir()
            )));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self
                .file
                .insert(NewFile::create(self.store.disk(), self.area, 0)?),
        };
        let size = |len: usize| u32::try_from(len).expect("pages are bounded");
        let page = PageRef {
            offset: file.written_bytes(),
            stored_bytes: size(stored.len()),
            raw_bytes: size(raw.len()),
            ..page
        };
        file.write(&stored)?;
        self.known.insert(page.digest, page.clone());
        Ok(page)
    }

    fn add(&mut self, page: PageRef) -> Result<(), StoreError> {
        let level = usize::from(page.level);
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        let cut = page.digest.0[0] < INNER_CUT_BELOW;
        self.levels[level].push(page);
        let waiting = &self.levels[level];
        let keys: usize = waiting.iter().map(|page| page.first.len()).sum();
        let full =
            waiting.len() >= INNER_MAX_CHILDREN || waiting.len() > 1 && keys >= INNER_MAX_KEY_BYTES;
        if cut || full {
            self.close(level)
        } else {
            Ok(())
        }
    }

    /// Makes an inner page of the children that wait on a level.
    fn close(&mut self, level: usize) -> Result<(), StoreError> {
        let children = std::mem::take(&mut self.levels[level]);
        let above = children[0].level + 1;
        let page = PageRef {
            level: above,
            pack: None,
            offset: 0,
            stored_bytes: 0,
            raw_bytes: 0,
            digest: page::inner_digest(above, &children),
            items: children.iter().map(|child| child.items).sum(),
            stream_bytes: children.iter().map(|child| child.stream_bytes).sum(),
            first: children[0].first.clone(),
        };
        let page = self.page(&page::encode_inner(&children), page)?;
        self.add(page)
    }

    /// Whether no leaf was added yet.
    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(Vec::is_empty)
    }

    /// Completes the tree. At least one leaf was added.
    pub fn finish(mut self) -> Result<WrittenTree, StoreError> {
        let mut level = 0;
        let root = loop {
            let top = level + 1 == self.levels.len();
            match self.levels[level].len() {
                1 if top => break self.levels[level].remove(0),
                0 => {}
                _ => self.close(level)?,
            }
            level += 1;
        };
        let written_bytes = self.file.as_ref().map_or(0, NewFile::written_bytes);
        let pack = self.file.map(NewFile::finish).transpose()?;
        Ok(WrittenTree {
            root: PageRef {
                pack: root.pack.or(pack),
                ..root
            },
            pack,
            written_bytes,
        })
    }
}

/// Reads one tree.
pub struct TreeReader {
    store: Store,
    area: Area,
    root: PageRef,
    inner: Mutex<HashMap<Digest, Arc<Vec<PageRef>>>>,
    /// How many leaves of a walk came since some were expected.
    ahead: AtomicUsize,
}

impl TreeReader {
    /// The length of the stream that the tree describes.
    pub(super) fn stream_bytes(&self) -> u64 {
        self.root.stream_bytes
    }

    /// The tree with this root. Nothing is read yet.
    pub fn open(store: &Store, area: Area, root: &PageRef) -> Self {
        Self {
            store: store.clone(),
            area,
            root: root.clone(),
            inner: Mutex::default(),
            ahead: AtomicUsize::new(0),
        }
    }

    fn raw(&self, page: &PageRef) -> Result<(String, Digest, Vec<u8>), StoreError> {
        let pack = page
            .pack
            .ok_or_else(|| StoreError::damaged(self.area.dir(), "a page has no pack"))?;
        let path = self.area.path(pack);
        let stored = self
            .store
            .read_range(&path, page.offset, page.stored_bytes)?;
        let raw = codec::decode(&stored, page.raw_bytes, &path)?;
        Ok((path, pack, raw))
    }

    fn children(&self, page: &PageRef) -> Result<Arc<Vec<PageRef>>, StoreError> {
        if let Some(children) = self
            .inner
            .lock()
            .expect("no thread panics with it")
            .get(&page.digest)
        {
            return Ok(Arc::clone(children));
        }
        let (path, pack, raw) = self.raw(page)?;
        let children = page::decode_inner(&raw, pack, page.level)
            .map_err(|error| StoreError::format(&path, &error))?;
        if page::inner_digest(page.level, &children) != page.digest {
            return Err(StoreError::damaged(
                path,
                "a page is not the one that is expected",
            ));
        }
        let children = Arc::new(children);
        self.inner
            .lock()
            .expect("no thread panics with it")
            .insert(page.digest, Arc::clone(&children));
        Ok(children)
    }

    /// The raw bytes of a leaf, checked.
    pub(super) fn leaf(&self, page: &PageRef) -> Result<(String, Vec<u8>), StoreError> {
        let (path, _, raw) = self.raw(page)?;
        if Digest::of(&raw) == page.digest {
            Ok((path, raw))
        } else {
            Err(StoreError::damaged(
                path,
                "a page is not the one that is expected",
            ))
        }
    }

    /// Calls `see` with every page; leaves are not read.
    pub fn visit(&self, see: &mut impl FnMut(&PageRef)) -> Result<(), StoreError> {
        let mut pending = vec![self.root.clone()];
        while let Some(page) = pending.pop() {
            see(&page);
            if page.level > 0 {
                pending.extend(self.children(&page)?.iter().rev().cloned());
            }
        }
        Ok(())
    }

    /// The same with the pages that are not in `seen`, nor below one that is; adds them.
    pub fn visit_new(
        &self,
        seen: &mut HashSet<(Digest, Option<Digest>)>,
        see: &mut impl FnMut(&PageRef),
    ) -> Result<(), StoreError> {
        let mut pending = vec![self.root.clone()];
        while let Some(page) = pending.pop() {
            if !seen.insert((page.digest, page.pack)) {
                continue;
            }
            see(&page);
            if page.level > 0 {
                pending.extend(self.children(&page)?.iter().cloned());
            }
        }
        Ok(())
    }

    /// All leaves in order.
    pub(super) fn leaves(&self) -> Result<Vec<PageRef>, StoreError> {
        let mut leaves = Vec::new();
        self.visit(&mut |page| {
            if page.level == 0 {
                leaves.push(page.clone());
            }
        })?;
        Ok(leaves)
    }

    /// Says that these pages will be read soon.
    pub(super) fn expect(&self, pages: impl Iterator<Item = PageRef>) {
        self.store.expect(pages.filter_map(|page| {
            let end = page.offset.saturating_add(page.stored_bytes.into());
            Some((self.area.path(page.pack?), page.offset..end))
        }));
    }

    /// Says that a walk goes on with these pages, when those that it said so of before are used up.
    fn expect_walk(&self, page: &PageRef, pending: &[PageRef]) {
        let left = self.ahead.load(Ordering::Relaxed);
        if left > 0 {
            self.ahead.store(left - 1, Ordering::Relaxed);
            return;
        }
        let mut bytes = u64::from(page.stored_bytes);
        let is_near = |next: &&PageRef| {
            bytes += u64::from(next.stored_bytes);
            bytes <= AHEAD_BYTES
        };
        let next: Vec<&PageRef> = pending.iter().rev().take_while(is_near).collect();
        let leaves = next.iter().filter(|page| page.level == 0).count();
        self.ahead.store(leaves, Ordering::Relaxed);
        self.expect(std::iter::once(page).chain(next).cloned());
    }

    /// The next leaf of a walk. `pending` is what is still to come, the next page last; pages that `skip` names are passed
    /// over with all below them.
    pub(super) fn next_leaf(
        &self,
        pending: &mut Vec<PageRef>,
        skip: impl Fn(&Digest) -> bool,
    ) -> Result<Option<PageRef>, StoreError> {
        while let Some(page) = pending.pop() {
            if skip(&page.digest) {
                continue;
            }
            if page.level == 0 {
                self.expect_walk(&page, pending);
                return Ok(Some(page));
            }
            pending.extend(self.children(&page)?.iter().rev().cloned());
        }
        Ok(None)
    }

    /// A walk from the leaf on that holds `path`, if any does, and where in the stream that leaf's members begin.
    pub(super) fn walk_from(&self, path: &[u8]) -> Result<(Vec<PageRef>, u64), StoreError> {
        let (mut pending, mut start) = (vec![self.root.clone()], 0);
        while let Some(page) = pending.pop_if(|page| page.level > 0) {
            let children = self.children(&page)?;
            let after = children.partition_point(|child| path_order(&child.first, path).is_le());
            let at = after.saturating_sub(1);
            start += children[..at]
                .iter()
                .map(|child| child.stream_bytes)
                .sum::<u64>();
            pending.extend(children[at..].iter().rev().cloned());
        }
        Ok((pending, start))
    }

    /// The leaf that holds a byte of the stream, and where in the stream it begins.
    pub(super) fn leaf_at(&self, offset: u64) -> Result<(PageRef, u64), StoreError> {
        let (mut page, mut start) = (self.root.clone(), 0);
        while page.level > 0 {
            let children = self.children(&page)?;
            let mut next = None;
            for child in children.iter() {
                if offset < start + child.stream_bytes {
                    next = Some(child.clone());
                    break;
                }
                start += child.stream_bytes;
            }
            page = next.ok_or_else(|| {
                StoreError::damaged(self.area.dir(), format!("no page holds byte {offset}"))
            })?;
        }
        Ok((page, start))
    }
}
