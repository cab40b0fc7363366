//! Trees of pages: catalogs and manifests, written so that unchanged pages are shared, read by position.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::codec::{self, PAGE_LEVEL};
use super::file::NewFile;
use super::{Area, Store};
use crate::catalog::member::{Content, Kind, Member};
use crate::catalog::{PageRef, Slice};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::member::{self, Record};
use crate::format::{manifest, page};

/// An inner page ends after a child whose digest begins with a byte below this: after 64 children on average.
const INNER_CUT_BELOW: u8 = 4;
const INNER_MAX_CHILDREN: usize = 256;
/// A leaf is never larger than this by more than one record.
const LEAF_MAX_BYTES: usize = 1 << 20;

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
            return Ok(known.clone());
        }
        let stored = codec::encode(raw, PAGE_LEVEL);
        let file = match &mut self.file {
            Some(file) => file,
            None => self
                .file
                .insert(NewFile::create(self.store.disk(), self.area, 0)?),
        };
        let size = |len: usize| u32::try_from(len).expect("pages are bounded");
        let page = PageRef {
            offset: file.len(),
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
        if cut || self.levels[level].len() >= INNER_MAX_CHILDREN {
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
        let written_bytes = self.file.as_ref().map_or(0, NewFile::len);
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
}

impl TreeReader {
    /// The tree with this root. Nothing is read yet.
    pub fn open(store: &Store, area: Area, root: &PageRef) -> Self {
        Self {
            store: store.clone(),
            area,
            root: root.clone(),
            inner: Mutex::default(),
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
    fn leaf(&self, page: &PageRef) -> Result<(String, Vec<u8>), StoreError> {
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

    /// All leaves in order.
    fn leaves(&self) -> Result<Vec<PageRef>, StoreError> {
        let mut leaves = Vec::new();
        self.visit(&mut |page| {
            if page.level == 0 {
                leaves.push(page.clone());
            }
        })?;
        Ok(leaves)
    }

    /// The leaf that holds a byte of the stream, and where in the stream it begins.
    fn leaf_at(&self, offset: u64) -> Result<(PageRef, u64), StoreError> {
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
            if self.items > 0 && (begins_page(&record) || self.raw.len() >= LEAF_MAX_BYTES) {
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

/// Pages begin at keys chosen by their digest, so that an insertion moves no later boundary: every 128th member, every
/// 8th record of block digests, which are larger.
fn begins_page(record: &member::Keyed) -> bool {
    let digest = Digest::of(&record.key).0;
    let chance = u16::from_le_bytes([digest[0], digest[1]]);
    chance.is_multiple_of(if record.is_member { 128 } else { 8 })
}

/// Reads the members of a catalog in order, each with the offset of its first byte in the stream.
pub struct CatalogReader {
    tree: TreeReader,
    leaves: std::vec::IntoIter<PageRef>,
    records: std::vec::IntoIter<Record>,
    path: String,
    begun: Option<Member>,
    offset: u64,
}

impl CatalogReader {
    /// Opens the catalog with this root.
    pub fn open(store: &Store, root: &PageRef) -> Result<Self, StoreError> {
        let tree = TreeReader::open(store, Area::Catalogs, root);
        let leaves = tree.leaves()?.into_iter();
        Ok(Self {
            tree,
            leaves,
            records: Vec::new().into_iter(),
            path: String::new(),
            begun: None,
            offset: 0,
        })
    }

    /// The next member, `None` at the end.
    pub fn next_member(&mut self) -> Result<Option<(u64, Member)>, StoreError> {
        loop {
            let Some(record) = self.records.next() else {
                if self.next_leaf()? {
                    continue;
                }
                return self.complete(None);
            };
            let result = match record {
                Record::Member(record) => member::begin(record).map(Some),
                Record::Blocks(blocks) => match &mut self.begun {
                    Some(member) => member::add_blocks(member, blocks).map(|()| None),
                    None => return Err(StoreError::damaged(&self.path, "blocks without a member")),
                },
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
        let Some(leaf) = self.leaves.next() else {
            return Ok(false);
        };
        let (path, raw) = self.tree.leaf(&leaf)?;
        let records = member::decode(&raw).map_err(|error| StoreError::format(&path, &error))?;
        (self.path, self.records) = (path, records.into_iter());
        Ok(true)
    }
}

/// Whether a member has content of its own to be read from the stream.
pub fn has_content(member: &Member) -> bool {
    member.kind == Kind::Regular && member.content != Content::default()
}

/// Writes a manifest.
pub struct ManifestWriter {
    tree: TreeWriter,
    slices: Vec<Slice>,
    last: Option<Slice>,
}

/// A leaf ends after a slice chosen by its content, after 128 on average.
const MANIFEST_CUT_ONE_IN: u64 = 128;
const MANIFEST_MAX_SLICES: usize = 1024;

impl ManifestWriter {
    /// Begins a manifest that shares pages with `like`.
    pub fn create(store: &Store, like: Option<&PageRef>) -> Result<Self, StoreError> {
        Ok(Self {
            tree: TreeWriter::create(store, Area::Manifests, like)?,
            slices: Vec::new(),
            last: None,
        })
    }

    /// Adds the next slice; one that continues the last is joined to it.
    pub fn add(&mut self, slice: Slice) -> Result<(), StoreError> {
        if let Some(last) = &mut self.last
            && last.frame == slice.frame
            && last.skip + last.take == slice.skip
        {
            last.take += slice.take;
            return Ok(());
        }
        match self.last.replace(slice) {
            Some(done) => self.push(done),
            None => Ok(()),
        }
    }

    fn push(&mut self, slice: Slice) -> Result<(), StoreError> {
        self.slices.push(slice);
        let mix = u64::from_le_bytes(slice.frame.digest.0[..8].try_into().expect("eight bytes"));
        let mix = (mix ^ u64::from(slice.skip) << 32 ^ u64::from(slice.take))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 32;
        if mix.is_multiple_of(MANIFEST_CUT_ONE_IN) || self.slices.len() >= MANIFEST_MAX_SLICES {
            self.close()
        } else {
            Ok(())
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let slices = std::mem::take(&mut self.slices);
        let bytes = slices.iter().map(|slice| u64::from(slice.take)).sum();
        self.tree.leaf(
            &manifest::encode(&slices),
            slices.len() as u64,
            bytes,
            Vec::new(),
        )
    }

    /// Completes the manifest.
    pub fn finish(mut self) -> Result<WrittenTree, StoreError> {
        if let Some(last) = self.last.take() {
            self.push(last)?;
        }
        let nothing_yet = self.tree.levels.iter().all(Vec::is_empty);
        if !self.slices.is_empty() || nothing_yet {
            self.close()?;
        }
        self.tree.finish()
    }
}

/// The slices of a manifest, found by their place in the stream.
pub struct ManifestReader {
    tree: TreeReader,
    leaves: quick_cache::sync::Cache<Digest, Arc<Vec<(u64, Slice)>>>,
}

const CACHED_LEAVES: usize = 256;

impl ManifestReader {
    /// The manifest with this root.
    pub fn open(store: &Store, root: &PageRef) -> Self {
        let tree = TreeReader::open(store, Area::Manifests, root);
        Self {
            tree,
            leaves: quick_cache::sync::Cache::new(CACHED_LEAVES),
        }
    }

    /// The length of the stream.
    pub fn stream_bytes(&self) -> u64 {
        self.tree.root.stream_bytes
    }

    /// Calls `see` with the slices that make `range` of the stream, cut at its ends.
    pub fn slices(
        &self,
        range: std::ops::Range<u64>,
        see: &mut impl FnMut(Slice),
    ) -> Result<(), StoreError> {
        let mut at = range.start;
        while at < range.end {
            let (page, start) = self.tree.leaf_at(at)?;
            let leaf = self.leaf(&page)?;
            let within = at - start;
            let first = leaf
                .partition_point(|(begin, _)| *begin <= within)
                .saturating_sub(1);
            for (begin, slice) in &leaf[first..] {
                let slice_start = start + begin;
                if slice_start >= range.end {
                    break;
                }
                let from =
                    u32::try_from(at.saturating_sub(slice_start)).expect("slices are bounded");
                let to = u32::try_from((range.end - slice_start).min(slice.take.into()))
                    .expect("slices are bounded");
                see(Slice {
                    frame: slice.frame,
                    skip: slice.skip + from,
                    take: to - from,
                });
                at = slice_start + u64::from(to);
            }
        }
        Ok(())
    }

    fn leaf(&self, page: &PageRef) -> Result<Arc<Vec<(u64, Slice)>>, StoreError> {
        self.leaves.get_or_insert_with(&page.digest, || {
            let (path, raw) = self.tree.leaf(page)?;
            let slices =
                manifest::decode(&raw).map_err(|error| StoreError::format(&path, &error))?;
            let mut end = 0;
            let begins = slices.into_iter().map(|slice| {
                let begin = end;
                end += u64::from(slice.take);
                (begin, slice)
            });
            let leaf = begins.collect::<Vec<_>>();
            if end == page.stream_bytes {
                Ok(Arc::new(leaf))
            } else {
                Err(StoreError::damaged(path, "a page has the wrong length"))
            }
        })
    }

    /// Calls `see` with every slice.
    pub fn all(&self, see: &mut impl FnMut(Slice)) -> Result<(), StoreError> {
        self.slices(0..self.stream_bytes(), see)
    }

    /// Calls `see` with every page.
    pub fn pages(&self, see: &mut impl FnMut(&PageRef)) -> Result<(), StoreError> {
        self.tree.visit(see)
    }
}
