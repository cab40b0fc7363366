//! Reading a version's stream once, from its beginning to its end.
//!
//! What many files share lies in one frame, so parts of a frame may be needed all over the stream. Where each is needed is
//! known before anything is read: what is needed later is kept when its frame is decoded, and most frames are decoded once.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::stream::{VersionStream, batches};
use crate::catalog::FrameRef;
use crate::error::StoreError;

/// The stream is read by windows of this length.
const WINDOW_BYTES: u64 = 16 << 20;
/// At most so much is kept for later windows; what exceeds it is decoded again.
const KEPT_BYTES: usize = 128 << 20;

/// A stream that is being read.
pub struct Sequence<'a> {
    stream: &'a VersionStream,
    /// The next window.
    number: u64,
    /// Of frames that several windows need: which window needs which part, in order of windows.
    uses: HashMap<FrameRef, Vec<(u64, Range<usize>)>>,
    kept: HashMap<FrameRef, Kept>,
    kept_bytes: usize,
}

/// Parts of a frame for later windows, in order, apart from each other.
struct Kept {
    parts: Vec<(Range<usize>, Vec<u8>)>,
    last_window: u64,
}

impl Kept {
    /// What windows after `number` need of a frame.
    fn of(bytes: &[u8], uses: &[(u64, Range<usize>)], number: u64) -> Option<Self> {
        let mut later: Vec<Range<usize>> = uses
            .iter()
            .filter(|(window, _)| *window > number)
            .map(|(_, part)| part.clone())
            .collect();
        later.sort_unstable_by_key(|part| part.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for part in later {
            match merged.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => merged.push(part),
            }
        }
        let (last_window, _) = uses.last().filter(|(window, _)| *window > number)?;
        let parts = merged
            .into_iter()
            .map(|part| (part.clone(), bytes[part].to_vec()));
        Some(Self {
            parts: parts.collect(),
            last_window: *last_window,
        })
    }

    fn get(&self, part: Range<usize>) -> &[u8] {
        let after = self
            .parts
            .partition_point(|(known, _)| known.start <= part.start);
        let (known, bytes) = &self.parts[after - 1];
        &bytes[part.start - known.start..part.end - known.start]
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

impl<'a> Sequence<'a> {
    /// Finds out where which part of a frame is needed.
    pub fn of(stream: &'a VersionStream) -> Result<Self, StoreError> {
        let mut uses: HashMap<FrameRef, Vec<(u64, Range<usize>)>> = HashMap::new();
        for number in 0..stream.len().div_ceil(WINDOW_BYTES) {
            for fetch in stream.plan(range(stream, number))?.fetches {
                let parts = uses.entry(fetch.frame).or_default();
                match parts.last_mut() {
                    Some((window, part)) if *window == number && part.end == fetch.skip => {
                        part.end += fetch.take;
                    }
                    _ => parts.push((number, fetch.skip..fetch.skip + fetch.take)),
                }
            }
        }
        let is_shared = |parts: &[(u64, _)]| {
            parts.first().map(|use_| use_.0) != parts.last().map(|use_| use_.0)
        };
        uses.retain(|_, parts| is_shared(parts));
        Ok(Self {
            stream,
            number: 0,
            uses,
            kept: HashMap::new(),
            kept_bytes: 0,
        })
    }

    /// Where the next window begins in the stream, and its bytes; `None` behind the last. `buffer` is used again.
    pub fn next_window(&mut self, buffer: Vec<u8>) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let range = range(self.stream, self.number);
        if range.is_empty() {
            return Ok(None);
        }
        let plan = self.stream.plan(range.clone())?;
        let mut window = plan.window(buffer);
        let (known, missing): (Vec<_>, Vec<_>) = plan
            .by_frame()
            .into_iter()
            .partition(|(frame, _)| self.kept.contains_key(frame));
        for (frame, fetches) in &known {
            for fetch in fetches {
                let part = self.kept[frame].get(fetch.skip..fetch.skip + fetch.take);
                window[fetch.at..fetch.at + fetch.take].copy_from_slice(part);
            }
        }
        for batch in batches(&missing) {
            let decoded: Result<Vec<_>, StoreError> = batch
                .par_iter()
                .map(|(frame, _)| self.stream.decoded(frame))
                .collect();
            for ((frame, fetches), bytes) in batch.iter().zip(decoded?) {
                for fetch in fetches {
                    window[fetch.at..fetch.at + fetch.take]
                        .copy_from_slice(&bytes[fetch.skip..fetch.skip + fetch.take]);
                }
                self.keep(frame, &bytes);
            }
        }
        let number = self.number;
        self.kept.retain(|_, kept| kept.last_window > number);
        self.kept_bytes = self.kept.values().map(Kept::bytes).sum();
        self.number += 1;
        Ok(Some((range.start, window)))
    }

    fn keep(&mut self, frame: &FrameRef, bytes: &[u8]) {
        let uses = self.uses.get(frame);
        let Some(kept) = uses.and_then(|uses| Kept::of(bytes, uses, self.number)) else {
            return;
        };
        if self.kept_bytes + kept.bytes() <= KEPT_BYTES {
            self.kept_bytes += kept.bytes();
            self.kept.insert(*frame, kept);
        }
    }
}

fn range(stream: &VersionStream, number: u64) -> Range<u64> {
    let start = (number * WINDOW_BYTES).min(stream.len());
    start..(start + WINDOW_BYTES).min(stream.len())
}
