//! A raw stream as it comes: read ahead, and cut by content.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use fastcdc::v2020::{FastCDC, Normalization};

use crate::error::Error;
use crate::store::codec::Knobs;

/// So much is read before it is looked at.
const BATCH_BYTES: usize = 8 << 20;
/// So many batches are in memory: one is read, one waits, one is worked on.
const BATCHES: usize = 3;

/// How a raw stream is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    min: usize,
    average: usize,
    /// No block is longer.
    pub max: usize,
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
    pub fn ends(self, bytes: &[u8], is_last: bool) -> Vec<usize> {
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

/// A part of the stream. Room is left in front for what is left of the part before.
pub struct Batch {
    buffer: Vec<u8>,
    room: usize,
    len: usize,
    /// Nothing follows.
    pub is_last: bool,
}

impl Batch {
    /// Its bytes, with `rest` in front.
    pub fn with(&mut self, rest: &[u8]) -> &[u8] {
        let start = self.room - rest.len();
        self.buffer[start..self.room].copy_from_slice(rest);
        &self.buffer[start..self.room + self.len]
    }

    fn read(&mut self, output: &mut dyn Read) -> std::io::Result<()> {
        (self.len, self.is_last) = (0, false);
        while self.len < BATCH_BYTES {
            let free = &mut self.buffer[self.room + self.len..];
            match output.read(free) {
                Ok(0) => {
                    self.is_last = true;
                    break;
                }
                Ok(count) => self.len += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The stream as another thread reads it, lest its program waits.
pub struct Batches {
    full: Receiver<std::io::Result<Batch>>,
    empty: SyncSender<Batch>,
}

impl Batches {
    /// Begins to read. `room` is how much may be left of a part.
    pub fn of(mut output: Box<dyn Read + Send>, room: usize) -> Result<Self, Error> {
        let (empty, free) = sync_channel::<Batch>(BATCHES);
        let (sender, full) = sync_channel(BATCHES);
        for _ in 0..BATCHES {
            let batch = Batch {
                buffer: vec![0; room + BATCH_BYTES],
                room,
                len: 0,
                is_last: false,
            };
            empty.send(batch).expect("there is room for all");
        }
        let run = move || {
            while let Ok(mut batch) = free.recv() {
                let result = batch.read(&mut *output);
                let is_last = batch.is_last || result.is_err();
                // Whoever listened may have given up.
                if sender.send(result.map(|()| batch)).is_err() || is_last {
                    return;
                }
            }
        };
        // Not waited for: where the program says nothing and the run has failed, it might read for ever.
        std::thread::Builder::new()
            .spawn(run)
            .map_err(|error| Error::file("start", "a thread", error))?;
        Ok(Self { full, empty })
    }

    /// The parts in order.
    pub fn iter(&self) -> impl Iterator<Item = std::io::Result<Batch>> + '_ {
        self.full.iter()
    }

    /// Takes a part back that was used.
    pub fn give_back(&self, batch: Batch) {
        // The last one is not needed any more.
        let _ = self.empty.send(batch);
    }
}
