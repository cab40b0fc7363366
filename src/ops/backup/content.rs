//! Reading the content of a regular file: by block, each either known already or packed.

use std::collections::HashMap;
use std::io;

use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSliceMut};

use super::Previous;
use crate::catalog::member::RECORD_BYTES;
use crate::catalog::{Content, Member, Run};
use crate::digest::{BLOCK_BYTES, Digest, is_zero};
use crate::error::StoreError;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::packer::{Lane, Packed, Packer};
use crate::store::pieces::{Origin, Pieces};
use crate::store::staging::Staged;
use crate::tree::source::SourceFile;

/// Files up to this length are read whole before anything of them is packed, so that they lie in one piece.
pub const SMALL_FILE_BYTES: u64 = 1 << 20;
/// Larger files are read by windows of this length.
const WINDOW_BYTES: usize = 4 << 20;
/// What a thread reads and hashes at once.
const PART_BYTES: usize = 4 * BLOCK_BYTES;
/// Shorter blocks are not worth a slice of their own.
const SHARED_MIN_BYTES: u64 = 512;
/// Bounds the memory of the index; blocks beyond are stored again.
const INDEXED_MAX_BLOCKS: usize = 4 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A fault while a file is read: the source's or the store's, never mixed up.
pub enum ReadError {
    /// The file could not be read.
    Source(io::Error),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

/// Which blocks the store holds already, by digest: those of the previous version, those that an interrupted run
/// staged, those of this run.
pub struct KnownBlocks<'a> {
    store: &'a Store,
    previous: Option<&'a Previous>,
    by_digest: HashMap<Digest, Origin>,
    loaded: bool,
}

impl<'a> KnownBlocks<'a> {
    /// Knows what is staged; the previous version's blocks are loaded when they are first needed.
    pub fn new(store: &'a Store, previous: Option<&'a Previous>, staged: &Staged) -> Self {
        let by_digest = staged
            .blocks
            .iter()
            .map(|(digest, (frame, skip, _))| (*digest, Origin::Staged(*frame, *skip)));
        Self {
            store,
            previous,
            by_digest: by_digest.collect(),
            loaded: false,
        }
    }

    /// Where a block lies, if the store holds it.
    pub fn find(&mut self, digest: &Digest, len: u64) -> Result<Option<Origin>, StoreError> {
        if len < SHARED_MIN_BYTES {
            return Ok(None);
        }
        if let Some(previous) = self.previous.filter(|_| !self.loaded) {
            self.loaded = true;
            let mut members = CatalogReader::open(self.store, &previous.version.catalog)?;
            while let Some((offset, member)) = members.next_member()? {
                for block in member
                    .placed_blocks(offset)
                    .filter(|block| block.len >= SHARED_MIN_BYTES)
                {
                    if self.by_digest.len() < INDEXED_MAX_BLOCKS {
                        self.by_digest
                            .insert(block.digest, Origin::Old(block.offset));
                    }
                }
            }
        }
        Ok(self.by_digest.get(digest).copied())
    }

    /// A block lies there from now on.
    pub fn remember(&mut self, digest: Digest, len: u64, origin: Origin) {
        if len >= SHARED_MIN_BYTES && self.by_digest.len() < INDEXED_MAX_BLOCKS {
            self.by_digest.insert(digest, origin);
        }
    }
}

/// What a file was when it was last backed up, and where that lies in the previous stream.
pub struct Before<'a> {
    content: &'a Content,
    data_start: u64,
    /// For each run how many blocks of data lie before it.
    ranks: Vec<u64>,
}

impl<'a> Before<'a> {
    /// A member whose header is at `offset` of the previous stream.
    pub fn new(member: &'a Member, offset: u64) -> Self {
        let content = &member.content;
        let ranks = content.runs.iter().scan(0, |rank, run| {
            let before = *rank;
            *rank += run.digests.len() as u64;
            Some(before)
        });
        let data_start = offset + u64::from(member.header_bytes) + content.map_bytes();
        Self {
            content,
            data_start,
            ranks: ranks.collect(),
        }
    }

    /// Where the block with this number lies if it has this digest.
    fn block(&self, number: u64, digest: &Digest) -> Option<u64> {
        if self.content.block(number).as_ref() != Some(digest) {
            return None;
        }
        let runs = &self.content.runs;
        let rank = match runs
            .partition_point(|run| run.first <= number)
            .checked_sub(1)
        {
            Some(index) => self.ranks[index] + number - runs[index].first,
            None => 0,
        };
        Some(self.data_start + rank * BLOCK)
    }
}

/// What was read.
pub struct Read {
    /// Size and digests.
    pub content: Content,
    /// Where the body's data and padding come from. Empty for a small file that is still to be packed.
    pub data: Pieces,
    /// It ended before its size.
    pub torn: bool,
}

/// Reads a file of at most [`SMALL_FILE_BYTES`] into `buffer`, padded with zeros to its size.
pub fn read_small(file: &SourceFile, buffer: &mut Vec<u8>) -> io::Result<(Content, bool)> {
    buffer.clear();
    buffer.resize(usize::try_from(file.size()).expect("a small file"), 0);
    let count = file.read_at(buffer, 0)?;
    let content = if buffer.len() > BLOCK_BYTES {
        let mut runs = Vec::new();
        for (number, digest) in (0..).zip(digests(buffer)) {
            push_block(&mut runs, number, digest);
        }
        Content::large(file.size(), runs)
    } else {
        Content::small(buffer)
    };
    Ok((content, count < buffer.len()))
}

/// The digest of each block, `None` for a whole block of zeros.
fn digests(bytes: &[u8]) -> impl Iterator<Item = Option<Digest>> {
    bytes
        .chunks(BLOCK_BYTES)
        .map(|block| (block.len() < BLOCK_BYTES || !is_zero(block)).then(|| Digest::of(block)))
}

/// Fills a window, with zeros where the file ends before it. Returns how many bytes there were, and the blocks' digests.
///
/// Each thread reads what it hashes: the bytes are in its cache then. That is faster than to hash a mapped file, which
/// costs a page fault for every 64 KiB at best, and a file may shrink without harm.
fn read_window(
    file: &SourceFile,
    window: &mut [u8],
    at: u64,
    parallel: bool,
) -> io::Result<(usize, Vec<Option<Digest>>)> {
    let read = |(index, part): (usize, &mut [u8])| {
        let count = file.read_at(part, at + (index * PART_BYTES) as u64)?;
        part[count..].fill(0);
        Ok((count, digests(part).collect::<Vec<_>>()))
    };
    let parts: io::Result<Vec<_>> = if parallel {
        window
            .par_chunks_mut(PART_BYTES)
            .enumerate()
            .map(read)
            .collect()
    } else {
        window
            .chunks_mut(PART_BYTES)
            .enumerate()
            .map(read)
            .collect()
    };
    let (counts, digests): (Vec<usize>, Vec<_>) = parts?.into_iter().unzip();
    file.read_once(at, window.len() as u64);
    Ok((counts.into_iter().sum(), digests.concat()))
}

fn push_block(runs: &mut Vec<Run>, number: u64, digest: Option<Digest>) {
    let Some(digest) = digest else { return };
    match runs.last_mut() {
        Some(run) if run.first + run.digests.len() as u64 == number => run.digests.push(digest),
        _ => runs.push(Run {
            first: number,
            digests: vec![digest],
        }),
    }
}

/// Packs blocks, or finds where they are.
pub struct Placer<'a, 'b> {
    /// Takes what is new.
    pub packer: &'a mut Packer,
    /// What is not new.
    pub known: &'a mut KnownBlocks<'b>,
    /// The file as it was.
    pub before: Option<&'a Before<'a>>,
}

impl Placer<'_, '_> {
    /// Places the data of a small file that was read into `bytes`.
    pub fn place_small(&mut self, content: &Content, bytes: &[u8]) -> Result<Pieces, StoreError> {
        let mut data = Pieces::default();
        for (number, digest) in content.blocks() {
            let start = usize::try_from(number * BLOCK).expect("a small file");
            let block = &bytes[start..(start + BLOCK_BYTES).min(bytes.len())];
            self.place(Lane::Small, content.size, number, digest, block, &mut data)?;
        }
        Ok(data)
    }

    /// Reads and places a file of any size, window by window; holes are passed over unread.
    pub fn read_large(
        &mut self,
        file: &SourceFile,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Read, ReadError> {
        let size = file.size();
        let (mut runs, mut data, mut torn) = (Vec::new(), Pieces::default(), false);
        let mut buffer = vec![0; WINDOW_BYTES];
        let last_block = (size - 1) / BLOCK * BLOCK;
        let mut at = 0;
        while at < size {
            // The last block is data even if it is zeros, unless it is a whole one: see `Content`.
            let next = file.next_data(at).min(last_block) / BLOCK * BLOCK;
            advance(next.max(at) - at);
            at = next.max(at);
            // Not a byte of a hole is read, but for those that share a block with data.
            let extent = file.data_end(at).max(at + 1).next_multiple_of(BLOCK) - at;
            let window = (size - at).min(WINDOW_BYTES as u64).min(extent);
            let window = usize::try_from(window).expect("at most the buffer");
            // While all threads compress, to wait for one of them takes longer than to go on alone.
            let parallel = window >= 2 * PART_BYTES && !self.packer.is_busy();
            let (count, digests) = read_window(file, &mut buffer[..window], at, parallel)?;
            torn |= count < window;
            for (index, digest) in digests.into_iter().enumerate() {
                let number = at / BLOCK + index as u64;
                push_block(&mut runs, number, digest);
                if let Some(digest) = digest {
                    let start = index * BLOCK_BYTES;
                    let block = &buffer[start..(start + BLOCK_BYTES).min(window)];
                    self.place(Lane::Large, size, number, digest, block, &mut data)?;
                }
            }
            at += window as u64;
            advance(window as u64);
        }
        Ok(Read {
            content: Content::large(size, runs),
            data,
            torn,
        })
    }

    /// Finds or packs one block. The padding behind a file's last block stays with it: wherever such a block lies, its
    /// padding follows.
    fn place(
        &mut self,
        lane: Lane,
        size: u64,
        number: u64,
        digest: Digest,
        block: &[u8],
        data: &mut Pieces,
    ) -> Result<(), StoreError> {
        let len = block.len() as u64;
        let is_last = (number + 1) * BLOCK >= size;
        let padded = if is_last {
            len.next_multiple_of(RECORD_BYTES)
        } else {
            len
        };
        if let Some(offset) = self.before.and_then(|before| before.block(number, &digest)) {
            data.push(Origin::Old(offset), padded);
            return Ok(());
        }
        if let Some(origin) = self.known.find(&digest, len)? {
            data.push(origin, padded);
            return Ok(());
        }
        let mut bytes = block.to_vec();
        bytes.resize(usize::try_from(padded).expect("a block"), 0);
        let Packed { frame, skip } = self.packer.add(lane, &bytes, Some((digest, len)))?;
        let origin = Origin::New(frame, skip);
        self.known.remember(digest, len, origin);
        data.push(origin, padded);
        Ok(())
    }
}
