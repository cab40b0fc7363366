//! Manifests: the slices that make a stream, as a tree of pages.

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::tree::{TreeReader, TreeWriter, WrittenTree};
use super::{Area, Store};
use crate::catalog::{PageRef, Slice};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::manifest;

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
        let nothing_yet = self.tree.is_empty();
        if !self.slices.is_empty() || nothing_yet {
            self.close()?;
        }
        self.tree.finish()
    }
}

/// The slices of a manifest, found by their place in the stream.
pub struct ManifestReader {
    store: Store,
    tree: TreeReader,
    leaves: quick_cache::sync::Cache<Digest, Arc<Vec<(u64, Slice)>>>,
}

const CACHED_LEAVES: usize = 256;

impl ManifestReader {
    /// The manifest with this root.
    pub fn open(store: &Store, root: &PageRef) -> Self {
        let tree = TreeReader::open(store, Area::Manifests, root);
        Self {
            store: store.clone(),
            tree,
            leaves: quick_cache::sync::Cache::new(CACHED_LEAVES),
        }
    }

    /// Says that all of it will be read soon.
    pub fn expect_all(&self) {
        // What cannot be read is said when it is needed.
        let leaves = || self.tree.leaves().unwrap_or_default();
        self.tree.expect(std::iter::once_with(leaves).flatten());
    }

    /// The length of the stream.
    pub fn stream_bytes(&self) -> u64 {
        self.tree.stream_bytes()
    }

    /// Calls `see` with the slices that make `range` of the stream, cut at its ends.
    pub fn slices(
        &self,
        range: std::ops::Range<u64>,
        see: &mut impl FnMut(Slice),
    ) -> Result<(), StoreError> {
        if range.end > self.stream_bytes() {
            return Err(StoreError::damaged(
                Area::Manifests.dir(),
                format!("byte {} is beyond the stream", range.end),
            ));
        }
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
        let leaf = self.leaves.get_or_insert_with(&page.digest, || {
            let (path, raw) = self.tree.leaf(page)?;
            let slices =
                manifest::decode(&raw).map_err(|error| StoreError::format(&path, &error))?;
            let mut end = 0;
            let begins = slices.into_iter().map(|slice| {
                let begin = end;
                end += u64::from(slice.take);
                (begin, slice)
            });
            Ok::<_, StoreError>(Arc::new(begins.collect::<Vec<_>>()))
        })?;
        // Each time: a forged page may be named with several lengths.
        let end = leaf
            .last()
            .map_or(0, |(begin, slice)| begin + u64::from(slice.take));
        if end == page.stream_bytes {
            return Ok(leaf);
        }
        let dir = Area::Manifests.dir();
        Err(StoreError::damaged(dir, "a page has the wrong length"))
    }

    /// Calls `see` with every object that is named, some more than once.
    pub fn objects(&self, see: &mut impl FnMut(Digest)) -> Result<(), StoreError> {
        let leaves = self.tree.leaves()?;
        let named = leaves.par_iter().map(|page| self.objects_of(page));
        for objects in named.collect::<Result<Vec<_>, _>>()? {
            objects.iter().for_each(|object| see(*object));
        }
        Ok(())
    }

    fn objects_of(&self, page: &PageRef) -> Result<Arc<HashSet<Digest>>, StoreError> {
        let memo = || self.store.named.lock().expect("no thread panics with it");
        if let Some(objects) = memo().get(&page.digest) {
            return Ok(Arc::clone(objects));
        }
        let leaf = self.leaf(page)?;
        let objects: HashSet<Digest> = leaf.iter().map(|(_, slice)| slice.frame.object).collect();
        let objects = Arc::new(objects);
        memo().insert(page.digest, Arc::clone(&objects));
        Ok(objects)
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
