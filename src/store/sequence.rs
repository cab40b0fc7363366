//! Reading a version's stream, or parts of it, once and in order.
//!
//! What many files share lies in one frame, so parts of a frame may be needed all over the stream. Where each is needed is
//! known before anything is read: what is needed later is kept when its frame is decoded, and most frames are decoded once.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::stream::{VersionStream, batches};
use crate::catalog::FrameRef;
use crate::error::StoreError;

/// A whole stream is read by windows of this length.
pub const WINDOW_BYTES: u64 = 16 << 20;
/// At most so much is kept for later windows: what is needed soonest. The rest is decoded again.
const KEPT_BYTES: usize = 128 << 20;

/// A stream that is being read.
pub struct Sequence<'a> {
    stream: &'a VersionStream,
    windows: Vec<Range<u64>>,
    /// The next window.
    number: usize,
    /// Of frames that several windows need: which window needs which part, in order of windows.
    uses: HashMap<FrameRef, Vec<(usize, Range<usize>)>>,
    kept: HashMap<FrameRef, Kept>,
    kept_bytes: usize,
}

/// Parts of a frame for later windows, in order, apart from each other.
struct Kept {
    parts: Vec<(Range<usize>, Vec<u8>)>,
    last_window: usize,
}

impl Kept {
    /// What the windows from `next` on need of a frame.
    fn of(bytes: &[u8], uses: &[(usize, Range<usize>)], next: usize) -> Option<Self> {
        let mut later: Vec<Range<usize>> = uses
            .iter()
            .filter(|(window, _)| *window >= next)
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
        let (last_window, _) = uses.last().filter(|(window, _)| *window >= next)?;
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
    /// The whole stream.
    pub fn of(stream: &'a VersionStream) -> Result<Self, StoreError> {
        let starts = (0..stream.len().div_ceil(WINDOW_BYTES)).map(|number| number * WINDOW_BYTES);
        let windows = starts.map(|start| start..(start + WINDOW_BYTES).min(stream.len()));
        Self::of_windows(stream, windows.collect())
    }

    /// These parts of the stream, ascending, each of which fits in memory. Finds out which of them need what of a frame.
    pub fn of_windows(
        stream: &'a VersionStream,
        windows: Vec<Range<u64>>,
    ) -> Result<Self, StoreError> {
        let mut uses: HashMap<FrameRef, Vec<(usize, Range<usize>)>> = HashMap::new();
        for (number, window) in windows.iter().enumerate() {
            for fetch in stream.plan(window.clone())?.fetches {
                let parts = uses.entry(fetch.frame).or_default();
                match parts.last_mut() {
                    Some((window, part)) if *window == number && part.end == fetch.skip => {
                        part.end += fetch.take;
                    }
                    _ => parts.push((number, fetch.skip..fetch.skip + fetch.take)),
                }
            }
        }
        let is_shared = |parts: &[(usize, _)]| {
            parts.first().map(|use_| use_.0) != parts.last().map(|use_| use_.0)
        };
        uses.retain(|_, parts| is_shared(parts));
        Ok(Self {
            stream,
            windows,
            number: 0,
            uses,
            kept: HashMap::new(),
            kept_bytes: 0,
        })
    }

    /// Where the next window begins in the stream, and its bytes; `None` behind the last. `buffer` is used again. After an
    /// error the next call goes on with the window behind.
    pub fn next_window(&mut self, buffer: Vec<u8>) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let Some(range) = self.windows.get(self.number).cloned() else {
            return Ok(None);
        };
        self.number += 1;
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
        let next = self.number;
        self.kept.retain(|_, kept| kept.last_window >= next);
        self.kept_bytes = self.kept.values().map(Kept::bytes).sum();
        Ok(Some((range.start, window)))
    }

    /// Keeps what later windows need of a frame. If there is no room, what is needed last gives way.
    fn keep(&mut self, frame: &FrameRef, bytes: &[u8]) {
        let uses = self.uses.get(frame);
        let Some(kept) = uses.and_then(|uses| Kept::of(bytes, uses, self.number)) else {
            return;
        };
        let soon = self.next_use(frame);
        while self.kept_bytes + kept.bytes() > KEPT_BYTES {
            let last = self.kept.keys().max_by_key(|frame| self.next_use(frame));
            let Some(last) = last.copied().filter(|last| self.next_use(last) > soon) else {
                return;
            };
            let dropped = self.kept.remove(&last).map_or(0, |kept| kept.bytes());
            self.kept_bytes -= dropped;
        }
        self.kept_bytes += kept.bytes();
        self.kept.insert(*frame, kept);
    }

    /// The next window that needs something of a frame.
    fn next_use(&self, frame: &FrameRef) -> usize {
        let uses = self.uses.get(frame).map_or(&[][..], Vec::as_slice);
        let next = uses.partition_point(|(window, _)| *window < self.number);
        uses.get(next).map_or(usize::MAX, |(window, _)| *window)
    }
}
