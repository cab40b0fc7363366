//! A raw stream as it comes: read ahead, and cut by content.

use std::io::Read;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use fastcdc::v2020::{FastCDC, Normalization};
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use crate::digest::Digest;
use crate::error::Error;
use crate::store::codec::Knobs;

/// So much is read before it is looked at.
const BATCH_BYTES: usize = 8 << 20;
/// So many batches are in memory: one is read, one is cut, one is placed, one waits.
const BATCHES: usize = 4;

/// How a raw stream is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    min: usize,
    average: usize,
    max: usize,
}

impl Cutting {
    /// 64, 256 and 1024 KiB.
    pub fn of(knobs: Knobs) -> Self {
        let average = (knobs.frame_bytes / 16).max(256);
        Self {
            min: average / 4,
            average,
            max: average * 4,
        }
    }

    /// Shorter stretches are not worth a slice of their own: 512 bytes.
    pub fn worth_taking(self) -> usize {
        self.average / 512
    }

    /// A block of which the slices are shorter on average is stored anew: 4 KiB.
    pub fn worth_keeping(self) -> u64 {
        self.average as u64 / 64
    }

    /// Where blocks end, but for the last, if what follows may belong to it.
    fn ends(self, bytes: &[u8], is_last: bool) -> Vec<usize> {
        let cutter = FastCDC::with_level(
            bytes,
            self.min,
            self.average,
            self.max,
            Normalization::Level1,
        );
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < bytes.len() && (is_last || bytes.len() - at >= self.max) {
            at = cutter.cut(at, bytes.len() - at).1;
            ends.push(at);
        }
        ends
    }
}

/// A block of a batch.
pub struct Block {
    /// Where it is in the batch's bytes.
    pub range: Range<usize>,
    /// Its BLAKE3.
    pub digest: Digest,
}

impl Block {
    /// Its length.
    pub fn len(&self) -> u64 {
        self.range.len() as u64
    }
}

/// A part of the stream.
pub struct Batch {
    buffer: Vec<u8>,
    /// So much may be left of the part before: room for it is in front.
    room: usize,
    /// Where the part begins and ends in the buffer.
    range: Range<usize>,
    /// It ends where the stream does.
    pub is_last: bool,
    /// The part's blocks, one after the other.
    pub blocks: Vec<Block>,
}

impl Batch {
    fn new(room: usize) -> Self {
        Self {
            buffer: vec![0; room + BATCH_BYTES],
            room,
            range: room..room,
            is_last: false,
            blocks: Vec::new(),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    fn read(&mut self, output: &mut dyn Read) -> std::io::Result<()> {
        (self.range, self.is_last) = (self.room..self.room, false);
        while self.range.end < self.buffer.len() && !self.is_last {
            match output.read(&mut self.buffer[self.range.end..]) {
                Ok(0) => self.is_last = true,
                Ok(count) => self.range.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cuts it, with `rest` in front, and leaves in `rest` what may belong to a block that goes on.
    fn cut(&mut self, cutting: Cutting, rest: &mut Vec<u8>) {
        self.range.start = self.room - rest.len();
        self.buffer[self.range.start..self.room].copy_from_slice(rest);
        let bytes = self.bytes();
        let ends = cutting.ends(bytes, self.is_last);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let ranges: Vec<Range<usize>> = starts.zip(&ends).map(|(from, to)| from..*to).collect();
        let block = |range: &Range<usize>| Block {
            range: range.clone(),
            digest: Digest::of(&bytes[range.clone()]),
        };
        let blocks = ranges.par_iter().map(block).collect();
        let used = ends.last().copied().unwrap_or(0);
        rest.clear();
        rest.extend_from_slice(&bytes[used..]);
        self.blocks = blocks;
        self.range.end = self.range.start + used;
    }
}

type Next = std::io::Result<Batch>;

/// The stream as other threads read and cut it, lest its program waits.
pub struct Batches {
    full: Receiver<Next>,
    empty: SyncSender<Batch>,
}

impl Batches {
    /// Begins to read.
    pub fn of(mut output: Box<dyn Read + Send>, cutting: Cutting) -> Result<Self, Error> {
        let (empty, free) = sync_channel::<Batch>(BATCHES);
        let (read, uncut) = sync_channel::<Next>(BATCHES);
        let (cut, full) = sync_channel(BATCHES);
        for _ in 0..BATCHES {
            let batch = Batch::new(cutting.max);
            empty.send(batch).expect("there is room for all");
        }
        // Neither is waited for: where the program says nothing and the run has failed, one might read for ever. Whoever
        // listens may have given up.
        start(move || {
            while let Ok(mut batch) = free.recv() {
                let result = batch.read(&mut *output);
                let is_last = batch.is_last || result.is_err();
                if read.send(result.map(|()| batch)).is_err() || is_last {
                    return;
                }
            }
        })?;
        start(move || {
            let mut rest = Vec::new();
            for mut batch in uncut {
                if let Ok(batch) = &mut batch {
                    batch.cut(cutting, &mut rest);
                }
                if cut.send(batch).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { full, empty })
    }

    /// The parts in order.
    pub fn iter(&self) -> impl Iterator<Item = Next> + '_ {
        self.full.iter()
    }

    /// Takes a part back that was used.
    pub fn give_back(&self, batch: Batch) {
        // The last ones are not needed any more.
        let _ = self.empty.send(batch);
    }
}

fn start(run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().spawn(run);
    started
        .map(drop)
        .map_err(|error| Error::file("start", "a thread", error))
}
