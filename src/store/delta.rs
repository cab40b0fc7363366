//! Delta files: rdiff deltas in zstd frames with an index behind, written in one go, read by place.

use std::ops::Range;
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use rayon::prelude::{IntoParallelIterator, ParallelIterator};

use super::codec::{self, Knobs, Product};
use super::file::NewFile;
use super::{Area, Store};
use crate::catalog::DeltaFile;
use crate::delta::wire::{self, Part};
use crate::delta::{Piece, Script};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::frames::{self, DeltaFrame};

/// A frame is closed once its commands have this many bytes: of a delta of 1.4 MB two halves are 1.2 % larger than the
/// whole, but are compressed at once, and an old version is read by less.
const FRAME_RAW_BYTES: usize = 1 << 20;
/// A frame is closed once it has this many: bounds the memory of its decoded form.
const FRAME_OPERATIONS: usize = 64 << 10;
/// Longer literals are written as several.
const LITERAL_MAX_BYTES: usize = 1 << 20;
/// A file is closed once it is this long.
const FILE_BYTES: u64 = 28 << 20;
/// Memory for decoded frames of deltas while a version is read.
const CACHE_BYTES: u64 = 64 << 20;

/// Deltas are small and written once: the best compression, less of it as they grow. (beyond these bytes, level)
const LEVELS: [(u64, i32); 3] = [(0, 19), (4 << 20, 9), (64 << 20, 3)];

struct RawFrame {
    commands: Vec<u8>,
    output_bytes: u64,
    operations: usize,
    level: i32,
}

/// Writes one delta.
pub struct DeltaWriter {
    store: Store,
    knobs: Knobs,
    open: RawFrame,
    /// The last copy, as long as the next one may continue it.
    copy: Option<(u64, u64)>,
    raw_bytes: u64,
    waiting: Vec<RawFrame>,
    file: Option<(NewFile, Vec<DeltaFrame>)>,
    files: Vec<DeltaFile>,
}

impl DeltaWriter {
    /// Begins a delta.
    pub fn create(store: &Store, knobs: Knobs) -> Self {
        Self {
            store: store.clone(),
            knobs,
            open: RawFrame {
                commands: wire::MAGIC.to_vec(),
                output_bytes: 0,
                operations: 0,
                level: LEVELS[0].1,
            },
            copy: None,
            raw_bytes: 0,
            waiting: Vec::new(),
            file: None,
            files: Vec::new(),
        }
    }

    /// Adds what produces the next bytes of the old stream.
    pub fn push(&mut self, piece: Piece<'_>) -> Result<(), StoreError> {
        match piece {
            Piece::Copy { offset, len } => match &mut self.copy {
                Some((start, total)) if *start + *total == offset => *total += len,
                _ => {
                    self.flush_copy()?;
                    self.copy = Some((offset, len));
                }
            },
            Piece::Literal(bytes) => {
                self.flush_copy()?;
                for part in bytes.chunks(LITERAL_MAX_BYTES) {
                    self.command(Piece::Literal(part))?;
                }
            }
        }
        Ok(())
    }

    fn flush_copy(&mut self) -> Result<(), StoreError> {
        self.copy.take().map_or(Ok(()), |(offset, len)| {
            self.command(Piece::Copy { offset, len })
        })
    }

    fn command(&mut self, piece: Piece<'_>) -> Result<(), StoreError> {
        if self.open.commands.len() >= FRAME_RAW_BYTES || self.open.operations >= FRAME_OPERATIONS {
            self.close_frame()?;
        }
        wire::encode_piece(piece, &mut self.open.commands);
        self.open.output_bytes += piece.output_bytes();
        self.open.operations += 1;
        Ok(())
    }

    fn close_frame(&mut self) -> Result<(), StoreError> {
        self.raw_bytes += self.open.commands.len() as u64;
        let level = LEVELS
            .iter()
            .rfind(|(from, _)| self.raw_bytes > *from)
            .map_or(LEVELS[0].1, |(_, level)| *level);
        let next = RawFrame {
            commands: Vec::new(),
            output_bytes: 0,
            operations: 0,
            level,
        };
        self.waiting.push(std::mem::replace(&mut self.open, next));
        if self.waiting.len() >= rayon::current_num_threads() {
            self.write_waiting()
        } else {
            Ok(())
        }
    }

    fn write_waiting(&mut self) -> Result<(), StoreError> {
        let knobs = self.knobs;
        let encode = |mut frame: RawFrame| {
            (knobs.tamper)(Product::Delta, &mut frame.commands);
            let stored = codec::encode(&frame.commands, frame.level);
            (stored, frame.commands.len(), frame.output_bytes)
        };
        let encoded: Vec<_> = std::mem::take(&mut self.waiting)
            .into_par_iter()
            .map(encode)
            .collect();
        for (stored, raw_len, output_bytes) in encoded {
            self.write_frame(&stored, raw_len, output_bytes)?;
        }
        Ok(())
    }

    fn write_frame(
        &mut self,
        stored: &[u8],
        raw_len: usize,
        output_bytes: u64,
    ) -> Result<(), StoreError> {
        if self
            .file
            .as_ref()
            .is_some_and(|(file, _)| file.written_bytes() >= FILE_BYTES)
        {
            self.close_file()?;
        }
        let number = self.files.len() as u64;
        let (file, frames) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert((
                NewFile::create(self.store.disk(), Area::Deltas, number)?,
                Vec::new(),
            )),
        };
        file.write(stored)?;
        let size = |len: usize| u32::try_from(len).expect("frames are bounded");
        frames.push(DeltaFrame {
            stored_bytes: size(stored.len()),
            raw_bytes: size(raw_len),
            output_bytes,
        });
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), StoreError> {
        let Some((mut file, frames)) = self.file.take() else {
            return Ok(());
        };
        file.write(&frames::encode(&frames))?;
        let output_bytes = frames.iter().map(|frame| frame.output_bytes).sum();
        let stored_bytes = file.written_bytes();
        self.files.push(DeltaFile {
            name: file.finish()?,
            output_bytes,
            stored_bytes,
        });
        Ok(())
    }

    /// Completes the delta and returns its files in order.
    pub fn finish(mut self) -> Result<Vec<DeltaFile>, StoreError> {
        self.flush_copy()?;
        wire::encode_end(&mut self.open.commands);
        self.close_frame()?;
        self.write_waiting()?;
        self.close_file()?;
        Ok(self.files)
    }
}

struct Place {
    file: Digest,
    offset: u64,
    frame: DeltaFrame,
    /// Where its output begins in the old stream.
    output: u64,
}

/// Reads one delta by the place in the stream that it produces.
pub struct DeltaReader {
    store: Store,
    places: Vec<Place>,
    output_bytes: u64,
}

/// Decoded frames of all deltas that are read together.
pub type ScriptCache = Cache<(Digest, u64), Arc<Script>, ByMemory>;

/// Weighs scripts by their memory.
#[derive(Clone)]
pub struct ByMemory;

impl Weighter<(Digest, u64), Arc<Script>> for ByMemory {
    fn weight(&self, _: &(Digest, u64), script: &Arc<Script>) -> u64 {
        script.memory_bytes() as u64 + 64
    }
}

/// A cache for [`DeltaReader::slice`].
pub fn script_cache() -> ScriptCache {
    // A single shard: of several, each would refuse what is larger than its part.
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(1024)
        .weight_capacity(CACHE_BYTES)
        .build();
    let options = options.expect("all options are given");
    Cache::with_options(
        options,
        ByMemory,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}

impl DeltaReader {
    /// Opens a delta and reads the indexes of its files.
    pub fn open(store: &Store, files: &[DeltaFile]) -> Result<Self, StoreError> {
        let mut reader = Self {
            store: store.clone(),
            places: Vec::new(),
            output_bytes: 0,
        };
        for file in files {
            reader.add(file)?;
        }
        Ok(reader)
    }

    fn add(&mut self, file: &DeltaFile) -> Result<(), StoreError> {
        let path = Area::Deltas.path(file.name);
        let frames = read_index(&self.store, &path, file.stored_bytes)?;
        let mut offset = 0;
        let begin = self.output_bytes;
        for frame in frames {
            self.places.push(Place {
                file: file.name,
                offset,
                frame,
                output: self.output_bytes,
            });
            offset += u64::from(frame.stored_bytes);
            let end = self.output_bytes.checked_add(frame.output_bytes);
            self.output_bytes =
                end.ok_or_else(|| StoreError::damaged(&path, "its index is out of range"))?;
        }
        if self.output_bytes - begin == file.output_bytes {
            Ok(())
        } else {
            Err(StoreError::damaged(path, "its index has the wrong length"))
        }
    }

    /// The length of the stream that it produces.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Calls `see` with what produces `range`: the frame's script, and the part of that script's output.
    pub fn slice(
        &self,
        range: Range<u64>,
        cache: &ScriptCache,
        see: &mut impl FnMut(&Arc<Script>, Range<u64>),
    ) -> Result<(), StoreError> {
        let first = self
            .places
            .partition_point(|place| place.output <= range.start)
            .saturating_sub(1);
        for (index, place) in self.places.iter().enumerate().skip(first) {
            if place.output >= range.end {
                break;
            }
            let end = range.end.min(place.output + place.frame.output_bytes);
            let start = range.start.max(place.output);
            if start < end {
                see(
                    &self.script(index, cache)?,
                    start - place.output..end - place.output,
                );
            }
        }
        Ok(())
    }

    /// Where in the newer stream `range` lies, if a single copy produces it.
    pub fn copied_from(
        &self,
        range: Range<u64>,
        cache: &ScriptCache,
    ) -> Result<Option<u64>, StoreError> {
        let (mut from, mut parts) = (None, 0);
        self.slice(range, cache, &mut |script, part| {
            for piece in script.slice(part) {
                parts += 1;
                from = match piece {
                    Piece::Copy { offset, .. } => Some(offset),
                    Piece::Literal(_) => None,
                };
            }
        })?;
        Ok(from.filter(|_| parts == 1))
    }

    /// All frames' scripts in order.
    pub fn scripts(&self) -> impl Iterator<Item = Result<Arc<Script>, StoreError>> {
        (0..self.places.len()).map(|index| self.decode(index).map(Arc::new))
    }

    fn script(&self, index: usize, cache: &ScriptCache) -> Result<Arc<Script>, StoreError> {
        let place = &self.places[index];
        cache.get_or_insert_with(&(place.file, place.offset), || {
            self.decode(index).map(Arc::new)
        })
    }

    fn decode(&self, index: usize) -> Result<Script, StoreError> {
        let place = &self.places[index];
        let path = Area::Deltas.path(place.file);
        let stored = self
            .store
            .read_range(&path, place.offset, place.frame.stored_bytes)?;
        let raw = codec::decode(&stored, place.frame.raw_bytes, &path)?;
        let part = Part {
            first: index == 0,
            last: index + 1 == self.places.len(),
        };
        let script = wire::decode(raw, part)
            .map_err(|error| StoreError::damaged(&path, error.to_string()))?;
        if script.output_bytes() == place.frame.output_bytes {
            Ok(script)
        } else {
            Err(StoreError::damaged(
                path,
                "a frame produces the wrong number of bytes",
            ))
        }
    }
}

fn read_index(store: &Store, path: &str, file_bytes: u64) -> Result<Vec<DeltaFrame>, StoreError> {
    let damaged = |error| StoreError::format(path, &error);
    let tail_bytes = frames::TAIL_BYTES as u64;
    let tail_at = file_bytes
        .checked_sub(tail_bytes)
        .ok_or_else(|| StoreError::damaged(path, "it is too short"))?;
    let tail = store.read_range(
        path,
        tail_at,
        u32::try_from(tail_bytes).expect("a few bytes"),
    )?;
    let index_bytes = frames::index_bytes(&tail).map_err(damaged)?;
    let index_at = file_bytes
        .checked_sub(index_bytes as u64)
        .ok_or_else(|| StoreError::damaged(path, "its index is too long"))?;
    let index = store.read_range(
        path,
        index_at,
        u32::try_from(index_bytes).unwrap_or(u32::MAX),
    )?;
    frames::decode(&index, file_bytes).map_err(damaged)
}
