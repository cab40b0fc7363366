//! Reading any version's stream by place.
//!
//! The chain of deltas from the version to the nearest newer whole one is folded for each window that is read: first
//! copies and literals are traced through all deltas, then every byte is fetched once. Memory follows the window, not
//! the chain, and nothing is written.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::decoding::Encoded;
use super::delta::DeltaReader;
use super::fold::{Chain, Fold, Literal};
use super::manifests::ManifestReader;
use super::{Area, Store};
use crate::catalog::{FrameRef, PageRef, Version};
use crate::delta::Piece;
use crate::digest::Digest;
use crate::error::StoreError;

/// Decoded frames held at once while a window is fetched.
const DECODED_BYTES: u64 = 32 << 20;
/// Decoded frames kept for the next window.
const KEPT_BYTES: usize = 32 << 20;

/// The frames that were needed last. Windows follow each other in the stream, so a frame is needed again soon or never.
#[derive(Default)]
struct Recent(Mutex<VecDeque<(FrameRef, Arc<Vec<u8>>)>>);

impl Recent {
    fn frames(&self) -> MutexGuard<'_, VecDeque<(FrameRef, Arc<Vec<u8>>)>> {
        self.0.lock().expect("no thread panics with it")
    }

    fn get(&self, frame: &FrameRef) -> Option<Arc<Vec<u8>>> {
        let mut frames = self.frames();
        let place = frames.iter().position(|(known, _)| known == frame)?;
        let found = frames.remove(place)?;
        let bytes = Arc::clone(&found.1);
        frames.push_front(found);
        Some(bytes)
    }

    fn insert(&self, frame: FrameRef, bytes: Arc<Vec<u8>>) {
        let mut frames = self.frames();
        frames.push_front((frame, bytes));
        let mut sum = 0;
        let fits = frames.iter().take_while(|(_, bytes)| {
            sum += bytes.len();
            sum <= KEPT_BYTES
        });
        let count = fits.count().max(1);
        frames.truncate(count);
    }
}

/// A version's stream.
pub struct VersionStream {
    store: Store,
    chain: Chain,
    manifest: ManifestReader,
    /// The file that all frames are in, if it is not their objects.
    archive: Option<String>,
    frames: Recent,
    len: u64,
}

/// Bytes of a frame that go to a place of the window.
pub(super) struct Fetch {
    pub frame: FrameRef,
    pub skip: usize,
    pub take: usize,
    pub at: usize,
}

/// Where the bytes of a window come from.
pub(super) struct Plan {
    size: usize,
    literals: Vec<(usize, Literal)>,
    pub fetches: Vec<Fetch>,
}

impl Plan {
    /// A window with its literals in place; what is fetched is zero yet. A buffer is used again.
    pub fn window(&self, mut window: Vec<u8>) -> Vec<u8> {
        window.clear();
        window.resize(self.size, 0);
        for (at, literal) in &self.literals {
            let mut at = *at;
            for piece in literal.script.slice(literal.range.clone()) {
                if let Piece::Literal(bytes) = piece {
                    window[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                }
            }
        }
        window
    }

    /// The frames that are needed, in their order, some of them more than once.
    pub fn frames(&self) -> impl Iterator<Item = FrameRef> + '_ {
        self.fetches.iter().map(|fetch| fetch.frame)
    }

    /// What is fetched from each frame, in the order in which the frames are needed first.
    pub fn by_frame(&self) -> Vec<(FrameRef, Vec<&Fetch>)> {
        let mut places: HashMap<FrameRef, usize> = HashMap::new();
        let mut frames: Vec<(FrameRef, Vec<&Fetch>)> = Vec::new();
        for fetch in &self.fetches {
            let place = *places.entry(fetch.frame).or_insert_with(|| {
                frames.push((fetch.frame, Vec::new()));
                frames.len() - 1
            });
            frames[place].1.push(fetch);
        }
        frames
    }
}

/// Cuts frames into batches that memory has room for when they are decoded.
fn batches<T>(frames: &[(FrameRef, T)]) -> impl Iterator<Item = &[(FrameRef, T)]> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(frame, _)| {
            bytes += u64::from(frame.raw_bytes);
            bytes <= DECODED_BYTES
        });
        let (batch, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}

impl VersionStream {
    /// The stream of `versions[index]`; the versions are all of the store's, in order.
    pub fn open(store: &Store, versions: &[Version], index: usize) -> Result<Self, StoreError> {
        Self::open_from(store, versions, index, false)
    }

    /// The same by its delta, though it may be held whole too.
    pub fn by_delta(store: &Store, versions: &[Version], index: usize) -> Result<Self, StoreError> {
        Self::open_from(store, versions, index, true)
    }

    fn open_from(
        store: &Store,
        versions: &[Version],
        index: usize,
        by_delta: bool,
    ) -> Result<Self, StoreError> {
        let mut deltas: Vec<DeltaReader> = Vec::new();
        for version in &versions[index..] {
            let length = |found: u64| {
                let fits = found == version.stream_bytes;
                let wrong = || {
                    StoreError::damaged(
                        Area::State.dir(),
                        format!("v{} has the wrong length", version.seq),
                    )
                };
                if fits { Ok(()) } else { Err(wrong()) }
            };
            let is_passed = by_delta && version.seq == versions[index].seq;
            if let Some(whole) = version.whole.as_ref().filter(|_| !is_passed) {
                length(whole.manifest.stream_bytes)?;
                return Ok(Self::new(
                    store,
                    deltas,
                    &whole.manifest,
                    versions[index].stream_bytes,
                    whole.archive.clone(),
                ));
            }
            let delta = DeltaReader::open(store, &version.delta)?;
            length(delta.output_bytes())?;
            deltas.push(delta);
        }
        Err(StoreError::damaged(
            Area::State.dir(),
            "the newest version is not whole",
        ))
    }

    /// The stream that a manifest describes; all its frames are in `archive`, if there is one.
    pub fn whole(store: &Store, manifest: &PageRef, archive: Option<&str>) -> Self {
        Self::new(
            store,
            Vec::new(),
            manifest,
            manifest.stream_bytes,
            archive.map(str::to_owned),
        )
    }

    /// The stream that a delta rebuilds from the one that a manifest describes.
    pub fn rebuilt(store: &Store, delta: DeltaReader, manifest: &PageRef) -> Self {
        let len = delta.output_bytes();
        Self::new(store, vec![delta], manifest, len, None)
    }

    fn new(
        store: &Store,
        deltas: Vec<DeltaReader>,
        manifest: &PageRef,
        len: u64,
        archive: Option<String>,
    ) -> Self {
        let manifest = ManifestReader::open(store, manifest);
        Self {
            store: store.clone(),
            chain: Chain::of(deltas),
            manifest,
            archive,
            frames: Recent::default(),
            len,
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How the whole stream is laid out.
    pub fn manifest(&self) -> &ManifestReader {
        &self.manifest
    }

    /// The bytes of `range`, which lies within the stream and fits in memory.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let plan = self.plan(range)?;
        let mut window = plan.window(Vec::new());
        for batch in batches(&plan.by_frame()) {
            // To ask other threads for what is decoded already takes longer than to look oneself.
            let missing = batch
                .iter()
                .filter(|(frame, _)| self.frames.get(frame).is_none());
            self.expect(batch.iter().map(|(frame, _)| *frame));
            let get = |(frame, _): &(FrameRef, _)| self.frame(frame);
            let decoded: Result<Vec<_>, StoreError> = if missing.count() > 1 {
                batch.par_iter().map(get).collect()
            } else {
                batch.iter().map(get).collect()
            };
            for ((_, fetches), bytes) in batch.iter().zip(decoded?) {
                for fetch in fetches {
                    window[fetch.at..fetch.at + fetch.take]
                        .copy_from_slice(&bytes[fetch.skip..fetch.skip + fetch.take]);
                }
            }
        }
        Ok(window)
    }

    /// Where the bytes of `range` come from.
    pub(super) fn plan(&self, range: Range<u64>) -> Result<Plan, StoreError> {
        let (mut literals, mut fetches, mut at) = (Vec::new(), Vec::new(), 0);
        for fold in self.chain.fold(range.clone())? {
            match fold {
                Fold::Literal(literal) => {
                    let len = literal.range.end - literal.range.start;
                    literals.push((at, literal));
                    at += usize::try_from(len).expect("windows fit in memory");
                }
                Fold::Copy { offset, len } => {
                    self.manifest.slices(offset..offset + len, &mut |slice| {
                        let (skip, take) = (slice.skip as usize, slice.take as usize);
                        fetches.push(Fetch {
                            frame: slice.frame,
                            skip,
                            take,
                            at,
                        });
                        at += take;
                    })?;
                }
            }
        }
        let size = usize::try_from(range.end - range.start).expect("windows fit in memory");
        if at != size {
            return Err(StoreError::damaged(
                Area::Deltas.dir(),
                "the deltas do not produce the whole stream",
            ));
        }
        Ok(Plan {
            size,
            literals,
            fetches,
        })
    }

    /// Checks the frame that holds a byte of a version that is held whole: it is there and is what it should be.
    pub fn check_at(&self, offset: u64) -> Result<(), StoreError> {
        let mut frames = Vec::new();
        self.manifest
            .slices(offset..offset + 1, &mut |slice| frames.push(slice.frame))?;
        frames
            .iter()
            .try_for_each(|frame| self.checked(frame).map(drop))
    }

    /// The bytes of a frame, which are what they should be, bit for bit.
    pub fn checked(&self, frame: &FrameRef) -> Result<Arc<Vec<u8>>, StoreError> {
        let bytes = self.frame(frame)?;
        if Digest::of(&bytes) == frame.digest {
            return Ok(bytes);
        }
        Err(StoreError::damaged(
            self.path(frame),
            format!("the frame at byte {} holds something else", frame.offset),
        ))
    }

    /// Says that these frames will be read soon.
    pub(super) fn expect(&self, frames: impl Iterator<Item = FrameRef>) {
        self.store.expect(frames.map(|frame| {
            let end = frame.offset.saturating_add(frame.stored_bytes.into());
            (self.path(&frame), frame.offset..end)
        }));
    }

    fn path(&self, frame: &FrameRef) -> String {
        self.archive
            .clone()
            .unwrap_or_else(|| Area::Objects.path(frame.object))
    }

    fn frame(&self, frame: &FrameRef) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.frames.get(frame) {
            return Ok(bytes);
        }
        let bytes = Arc::new(self.decoded(frame)?);
        self.frames.insert(*frame, Arc::clone(&bytes));
        Ok(bytes)
    }

    /// A frame's raw bytes, read and decoded.
    fn decoded(&self, frame: &FrameRef) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.encoded(frame).decode_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Where a frame is.
    pub(super) fn encoded(&self, frame: &FrameRef) -> Encoded {
        Encoded {
            store: self.store.clone(),
            path: self.path(frame),
            frame: *frame,
        }
    }
}
