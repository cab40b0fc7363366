//! The part of the new stream's fresh bytes that is in memory, and the search in it.

use std::ops::Range;

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::delta::Script;
use crate::delta::diff::{Index, Params, Segment, differing};
use crate::error::StoreError;
use crate::store::stream::VersionStream;

/// At most this much of the new stream is searched at once; its index takes about as much again.
const INDEXED_BYTES: u64 = 64 << 20;
/// So much is read at once, by all threads together.
const READ_BYTES: u64 = 16 << 20;
/// So much on each side of what was written to in place is indexed too: what was there before is often like its
/// neighbours.
const NEAR_BYTES: usize = 4 << 10;
/// How much of the window lies before the place where a match is expected.
const BEHIND_BYTES: u64 = 16 << 20;

/// A part of the old stream that one thread searches for.
pub struct Part {
    /// Its bytes.
    pub old: Vec<u8>,
    /// Where in the new stream it is expected.
    pub hint: u64,
}

/// The part of the new stream's fresh bytes that is in memory.
pub struct Window<'a> {
    fresh: &'a [(u64, u64)],
    new: &'a VersionStream,
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    range: Range<usize>,
}

impl<'a> Window<'a> {
    /// Nothing is read yet. `fresh` are start and length of what was not in the old stream.
    pub fn new(fresh: &'a [(u64, u64)], new: &'a VersionStream) -> Self {
        Self {
            fresh,
            new,
            bytes: Vec::new(),
            segments: Vec::new(),
            range: 0..0,
        }
    }

    /// Searches for the parts; the window is moved to where the first is expected.
    pub fn search(&mut self, hint: u64, parts: &[Part]) -> Result<Vec<Script>, StoreError> {
        let range = self.choose(hint);
        if range != self.range {
            self.load(range)?;
        }
        // What was written to in place is mostly the same still. Only the rest is indexed and searched for, which for
        // a disk image with scattered writes is a few hundredths.
        let settled: Vec<Settled> = parts.par_iter().map(|part| self.settle(part)).collect();
        let segments = without(&self.segments, settled.iter().flat_map(|part| &part.same));
        let index = Index::new(&self.bytes, &segments, Params::default());
        let search = |(part, settled): (&Part, &Settled)| {
            let mut script = Script::new();
            let mut at = 0;
            for unlike in &settled.unlike {
                script.copy(part.hint + at as u64, (unlike.start - at) as u64);
                let hint = part.hint + unlike.start as u64;
                index.diff_into(&part.old[unlike.clone()], hint, &mut script);
                at = unlike.end;
            }
            script.copy(part.hint + at as u64, (part.old.len() - at) as u64);
            script
        };
        Ok(parts.par_iter().zip(&settled).map(search).collect())
    }

    /// Compares a part with the place where it is expected.
    fn settle(&self, part: &Part) -> Settled {
        let len = part.old.len();
        let nothing = Settled {
            unlike: std::iter::once(0..len).collect(),
            same: Vec::new(),
        };
        let before = self
            .segments
            .partition_point(|segment| segment.offset <= part.hint);
        let Some(segment) = before.checked_sub(1).map(|index| self.segments[index]) else {
            return nothing;
        };
        let skip = usize::try_from(part.hint - segment.offset).unwrap_or(usize::MAX);
        let common = len.min(segment.len.saturating_sub(skip));
        let start = segment.start + skip.min(segment.len);
        let mut unlike = differing(&part.old[..common], &self.bytes[start..start + common]);
        let unlike_bytes: usize = unlike.iter().map(ExactSizeIterator::len).sum();
        if 2 * (unlike_bytes + len - common) > len {
            return nothing;
        }
        let mut same = Vec::new();
        let mut at = 0;
        for range in &unlike {
            same.push(start + at..start + range.start.saturating_sub(NEAR_BYTES).max(at));
            at = (range.end + NEAR_BYTES).min(common);
        }
        same.push(start + at..start + common);
        if common < len {
            unlike.push(common..len);
        }
        Settled { unlike, same }
    }

    /// Which fresh ranges to hold: all if they fit, else those around `hint`.
    fn choose(&self, hint: u64) -> Range<usize> {
        let fresh = self.fresh;
        let first =
            fresh.partition_point(|(start, len)| start + len <= hint.saturating_sub(BEHIND_BYTES));
        let total: u64 = fresh.iter().map(|(_, len)| len).sum();
        let from = if total <= INDEXED_BYTES { 0 } else { first };
        let mut bytes = 0;
        let fits = fresh[from..].iter().take_while(|(_, len)| {
            let before = bytes;
            bytes += len;
            before < INDEXED_BYTES
        });
        from..from + fits.count()
    }

    fn load(&mut self, range: Range<usize>) -> Result<(), StoreError> {
        self.bytes.clear();
        self.segments.clear();
        let mut fresh = &self.fresh[range.clone()];
        // Exactly: doubling would take as much again.
        let total: u64 = fresh.iter().map(|(_, len)| len).sum();
        self.bytes
            .reserve_exact(usize::try_from(total).expect("windows fit in memory"));
        while !fresh.is_empty() {
            let mut bytes = 0;
            let fits = fresh.iter().take_while(|(_, len)| {
                bytes += len;
                bytes <= READ_BYTES
            });
            let (part, later) = fresh.split_at(fits.count().max(1));
            fresh = later;
            let read = |(start, len): &(u64, u64)| self.new.read(*start..*start + *len);
            let runs: Result<Vec<Vec<u8>>, StoreError> = part.par_iter().map(read).collect();
            for ((start, _), bytes) in part.iter().zip(runs?) {
                self.segments.push(Segment {
                    start: self.bytes.len(),
                    offset: *start,
                    len: bytes.len(),
                });
                self.bytes.extend_from_slice(&bytes);
            }
        }
        self.range = range;
        Ok(())
    }
}

/// A part of which most is where it is expected.
struct Settled {
    /// What of the part is not.
    unlike: Vec<Range<usize>>,
    /// Where in the window's bytes the rest is.
    same: Vec<Range<usize>>,
}

/// The segments without some ranges.
fn without<'a>(
    segments: &[Segment],
    ranges: impl Iterator<Item = &'a Range<usize>>,
) -> Vec<Segment> {
    let mut ranges: Vec<&Range<usize>> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut left = Vec::new();
    let mut ranges = ranges.into_iter().peekable();
    for segment in segments {
        let end = segment.start + segment.len;
        let mut at = segment.start;
        let mut keep = |from: usize, to: usize| {
            if from < to {
                left.push(Segment {
                    start: from,
                    offset: segment.offset + (from - segment.start) as u64,
                    len: to - from,
                });
            }
        };
        while let Some(range) = ranges.next_if(|range| range.start < end) {
            keep(at, range.start);
            at = at.max(range.end);
        }
        keep(at, end);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::{Segment, without};

    #[test]
    fn ranges_are_taken_out_of_segments() {
        let segment = |start, offset, len| Segment { start, offset, len };
        let segments = [segment(0, 100, 50), segment(50, 900, 50)];
        let ranges = [60..70, 10..20, 15..30, 90..100, 5..5];
        assert_eq!(
            without(&segments, ranges.iter()),
            [
                segment(0, 100, 10),
                segment(30, 130, 20),
                segment(50, 900, 10),
                segment(70, 920, 20)
            ]
        );
        assert_eq!(without(&segments, [].iter()), segments);
    }
}
