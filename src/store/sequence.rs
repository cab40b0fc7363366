//! Reading a version's stream, or parts of it, once and in order.
//!
//! What many files share lies in one frame, so parts of a frame may be needed all over the stream. Where each is needed is
//! known before anything is read: what is needed later is kept when its frame is decoded, and most frames are decoded once.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::decoding::Decoding;
use super::stream::{Fetch, Plan, VersionStream};
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
    /// The frames of the next window are decoded while the one before is used.
    decoding: Decoding,
    /// How the next window is made, and what was ordered for it.
    next: Option<Result<(Plan, HashSet<FrameRef>), StoreError>>,
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
        stream.manifest().expect_all();
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
            decoding: Decoding::default(),
            next: None,
        })
    }

    /// Where the next window begins in the stream, and its bytes; `None` behind the last. `buffer` is used again. After an
    /// error the next call goes on with the window behind.
    pub fn next_window(&mut self, buffer: Vec<u8>) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let Some(range) = self.windows.get(self.number).cloned() else {
            return Ok(None);
        };
        let planned = self.next.take().or_else(|| self.planned());
        self.number += 1;
        let result = planned
            .expect("there is such a window")
            .and_then(|(plan, ordered)| {
                let mut due = ordered;
                for frame in plan.frames() {
                    if !self.kept.contains_key(&frame) && due.insert(frame) {
                        self.decoding.order(self.stream.encoded(&frame));
                    }
                }
                // After what this window needs.
                self.next = self.planned();
                let mut window = plan.window(buffer);
                self.fill(&mut window, &plan, due.len())?;
                Ok(Some((range.start, window)))
            });
        let next = self.number;
        self.kept.retain(|_, kept| kept.last_window >= next);
        self.kept_bytes = self.kept.values().map(Kept::bytes).sum();
        result
    }

    /// How the next window is made. The frames that no window before needed are ordered: what others needed is kept, if
    /// there is room.
    fn planned(&mut self) -> Option<Result<(Plan, HashSet<FrameRef>), StoreError>> {
        let range = self.windows.get(self.number)?.clone();
        let plan = match self.stream.plan(range) {
            Ok(plan) => plan,
            Err(error) => return Some(Err(error)),
        };
        let mut ordered = HashSet::new();
        self.stream.expect(plan.frames());
        for frame in plan.frames() {
            let first = self.uses.get(&frame).and_then(|uses| uses.first());
            if first.is_none_or(|(window, _)| *window == self.number) && ordered.insert(frame) {
                self.decoding.order(self.stream.encoded(&frame));
            }
        }
        Some(Ok((plan, ordered)))
    }

    /// Fills a window from what is kept and from the next `ordered` frames.
    fn fill(&mut self, window: &mut [u8], plan: &Plan, ordered: usize) -> Result<(), StoreError> {
        let by_frame: HashMap<FrameRef, Vec<&Fetch>> = plan.by_frame().into_iter().collect();
        let copy = |window: &mut [u8], fetch: &Fetch, bytes: &[u8]| {
            window[fetch.at..fetch.at + fetch.take].copy_from_slice(bytes);
        };
        for (frame, fetches) in &by_frame {
            if let Some(kept) = self.kept.get(frame) {
                for fetch in fetches {
                    let part = kept.get(fetch.skip..fetch.skip + fetch.take);
                    copy(window, fetch, part);
                }
            }
        }
        let mut result = Ok(());
        for _ in 0..ordered {
            let (frame, decoded) = self.decoding.next();
            match decoded {
                Ok(bytes) => {
                    for fetch in by_frame.get(&frame).into_iter().flatten() {
                        let part = &bytes[fetch.skip..fetch.skip + fetch.take];
                        copy(window, fetch, part);
                    }
                    self.keep(&frame, &bytes);
                    self.decoding.give_back(bytes);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
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
