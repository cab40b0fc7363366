//! Finding what two byte ranges have in common.
//!
//! The new side is indexed by the hash of a window at every n-th position; every position of the old side is looked up,
//! and each candidate is compared byte by byte and extended in both directions. Hashes never decide. Candidates are
//! tried in the order: the diagonal of the last copy, the place right after the last copy (an insertion), the index with
//! the last occurrence first. Chains are capped and windows of one repeated byte are never indexed, so that no input
//! makes the search slow. Parameters: DESIGN of the project, measured on releases of source code and disk images.

use std::ops::Range;

use super::script::Script;

/// How thoroughly to search.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Bytes hashed at each position, a multiple of 8: no shorter match is found by the index.
    pub window: usize,
    /// Every n-th position of the new side is indexed.
    pub step: usize,
    /// Candidates tried per lookup.
    pub chain: usize,
    /// How many positions further a longer match is looked for.
    pub lazy: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            window: 24,
            step: 8,
            chain: 8,
            lazy: 4,
        }
    }
}

/// A match on a hinted place shorter than this is left to the index.
const HINT_MIN_BYTES: usize = 12;
/// A match of this length is taken at once.
const GOOD_BYTES: usize = 4096;
/// The search goes faster with every so many bytes in which nothing was found,
const STRIDE_BYTES: usize = 8 << 10;
/// but not faster than this: matches of 8 times as much and a window are found still.
const STRIDE_MAX: usize = 31;
const NONE: u32 = u32::MAX;

/// A run of bytes of the new stream, lying somewhere in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where the run begins in the buffer.
    pub start: usize,
    /// Where it begins in the stream.
    pub offset: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// An index of runs of the new stream.
pub struct Index<'a> {
    bytes: &'a [u8],
    segments: &'a [Segment],
    params: Params,
    shift: u32,
    /// The last sample with each hash.
    heads: Vec<u32>,
    /// For each sample the one before it with the same hash.
    links: Vec<u32>,
}

/// What a script needs of `old`: the delta from `new` to `old`, both in memory.
pub fn diff(new: &[u8], old: &[u8]) -> Script {
    let segments = [Segment {
        start: 0,
        offset: 0,
        len: new.len(),
    }];
    let prefix = common_prefix(new, old);
    let suffix = common_suffix(&new[prefix..], &old[prefix..]);
    let mut script = Script::new();
    script.copy(0, prefix as u64);
    Index::new(new, &segments, Params::default()).diff_into(
        &old[prefix..old.len() - suffix],
        prefix as u64,
        &mut script,
    );
    script.copy((new.len() - suffix) as u64, suffix as u64);
    script
}

struct Match {
    old: usize,
    new: usize,
    len: usize,
}

impl<'a> Index<'a> {
    /// Indexes `segments` of `bytes`; they are in order, do not overlap, and end within `bytes`, of which there are
    /// fewer than 4 GiB.
    pub fn new(bytes: &'a [u8], segments: &'a [Segment], params: Params) -> Self {
        let samples = bytes.len() / params.step + 1;
        // As many heads as there are samples in the segments, which may be few.
        let indexed: usize = segments
            .iter()
            .map(|segment| segment.len / params.step)
            .sum();
        let bits = indexed.next_power_of_two().trailing_zeros().clamp(8, 26);
        let mut index = Self {
            bytes,
            segments,
            params,
            shift: 64 - bits,
            heads: vec![NONE; 1 << bits],
            links: vec![NONE; samples],
        };
        for segment in segments {
            index.add(segment);
        }
        index
    }

    fn add(&mut self, segment: &Segment) {
        let (step, window) = (self.params.step, self.params.window);
        let mut at = segment.start.next_multiple_of(step);
        while at + window <= segment.start + segment.len {
            let bytes = &self.bytes[at..at + window];
            if !is_run(bytes) {
                let slot = self.hash(bytes);
                let sample = at / step;
                self.links[sample] = self.heads[slot];
                self.heads[slot] = u32::try_from(sample).expect("fewer than 4 GiB are indexed");
            }
            at += step;
        }
    }

    fn hash(&self, window: &[u8]) -> usize {
        let mut hash = 0_u64;
        for word in window.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("a chunk of 8"));
            hash = (hash.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        usize::try_from((hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> self.shift)
            .expect("at most 26 bits")
    }

    /// Appends to `script` what rebuilds `old`. `hint` is where in the new stream its first byte is expected.
    pub fn diff_into(&self, old: &[u8], hint: u64, script: &mut Script) {
        let mut anchor = 0;
        let mut at = 0;
        // The place in the buffer that continues the last copy, and where in `old` that copy ended.
        let mut expected = self.buffer_place(hint).map(|place| (place, 0));
        while at < old.len() {
            if let Some(after) = self.run_end(old, at) {
                at = after;
                continue;
            }
            let Some(found) = self.best(old, at, anchor, expected) else {
                at += stride(at - anchor);
                continue;
            };
            script.literal(&old[anchor..found.old]);
            script.copy(self.stream_offset(found.new), found.len as u64);
            at = found.old + found.len;
            anchor = at;
            expected = Some((found.new + found.len, at));
        }
        script.literal(&old[anchor..]);
    }

    /// If a run of one byte begins here: a place within it from which to go on, close to its end. Its bytes become
    /// a literal or a part of a match that is extended over them.
    fn run_end(&self, old: &[u8], at: usize) -> Option<usize> {
        let window = old.get(at..at + 2 * self.params.window)?;
        if !is_run(window) {
            return None;
        }
        let same = old[at..]
            .iter()
            .take_while(|byte| **byte == window[0])
            .count();
        Some(at + same - self.params.window + 1)
    }

    fn best(
        &self,
        old: &[u8],
        at: usize,
        anchor: usize,
        expected: Option<(usize, usize)>,
    ) -> Option<Match> {
        let mut best = self
            .hinted(old, at, anchor, expected)
            .or_else(|| self.indexed(old, at, anchor))?;
        for ahead in 1..=self.params.lazy {
            if best.len >= GOOD_BYTES || at + ahead >= old.len() {
                break;
            }
            if let Some(found) = self
                .indexed(old, at + ahead, anchor)
                .filter(|found| found.len > best.len)
            {
                best = found;
            }
        }
        Some(best)
    }

    fn hinted(
        &self,
        old: &[u8],
        at: usize,
        anchor: usize,
        expected: Option<(usize, usize)>,
    ) -> Option<Match> {
        let (place, since) = expected?;
        let min = HINT_MIN_BYTES.min(old.len() - at);
        [place + (at - since), place].into_iter().find_map(|new| {
            let end = self.segment_at(new)?;
            let quick = self.bytes.get(new..end.start + end.len)?;
            (quick.first() == old.get(at)).then_some(())?;
            self.extend(old, at, new, anchor)
                .filter(|found| found.old + found.len >= at + min)
        })
    }

    fn indexed(&self, old: &[u8], at: usize, anchor: usize) -> Option<Match> {
        let window = old.get(at..at + self.params.window)?;
        let mut best: Option<Match> = None;
        let mut sample = self.heads[self.hash(window)];
        for _ in 0..self.params.chain {
            if sample == NONE {
                break;
            }
            let new = sample as usize * self.params.step;
            if self.bytes[new..new + self.params.window] == *window {
                let found = self.extend(old, at, new, anchor)?;
                if best.as_ref().is_none_or(|best| found.len > best.len) {
                    best = Some(found);
                }
                if best.as_ref().is_some_and(|best| best.len >= GOOD_BYTES) {
                    break;
                }
            }
            sample = self.links[sample as usize];
        }
        best
    }

    /// The longest match through `old[at]` and `bytes[new]` within the segment and not before `anchor`.
    fn extend(&self, old: &[u8], at: usize, new: usize, anchor: usize) -> Option<Match> {
        let segment = self.segment_at(new)?;
        let forward = common_prefix(&old[at..], &self.bytes[new..segment.start + segment.len]);
        let back = common_suffix(&old[anchor..at], &self.bytes[segment.start..new]);
        Some(Match {
            old: at - back,
            new: new - back,
            len: forward + back,
        })
    }

    fn segment_at(&self, place: usize) -> Option<&Segment> {
        let index = self
            .segments
            .partition_point(|segment| segment.start <= place)
            .checked_sub(1)?;
        self.segments
            .get(index)
            .filter(|segment| place < segment.start + segment.len)
    }

    fn stream_offset(&self, place: usize) -> u64 {
        let segment = self.segment_at(place).expect("matches lie in segments");
        segment.offset + (place - segment.start) as u64
    }

    fn buffer_place(&self, offset: u64) -> Option<usize> {
        let index = self
            .segments
            .partition_point(|segment| segment.offset <= offset)
            .checked_sub(1)?;
        let segment = &self.segments[index];
        let skip = usize::try_from(offset - segment.offset)
            .ok()
            .filter(|skip| *skip < segment.len)?;
        Some(segment.start + skip)
    }
}

/// How far to go on after `missed` bytes without a match: where nothing was found for long (other compressed or encrypted
/// data) it is enough to find long matches, which are extended backwards. Odd, so that all alignments with the indexed
/// positions come in turn.
fn stride(missed: usize) -> usize {
    (2 * (missed / STRIDE_BYTES) + 1).min(STRIDE_MAX)
}

pub(super) fn is_run(bytes: &[u8]) -> bool {
    bytes[1..] == bytes[..bytes.len() - 1]
}

/// The ranges in which two slices of the same length differ; stretches that are the same count if they are long enough to be
/// worth a copy each.
pub fn differing(a: &[u8], b: &[u8]) -> Vec<Range<usize>> {
    const STEP: usize = 64;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (number, (a, b)) in a.chunks(STEP).zip(b.chunks(STEP)).enumerate() {
        if a != b {
            let start = number * STEP;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = start + a.len(),
                _ => ranges.push(start..start + a.len()),
            }
        }
    }
    for range in &mut ranges {
        let start = range.start + common_prefix(&a[range.clone()], &b[range.clone()]);
        let end = range.end - common_suffix(&a[start..range.end], &b[start..range.end]);
        *range = start..end;
    }
    ranges
}

/// How many bytes two slices have in common at their beginnings.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WIDE: usize = 32;
    let wide = a
        .chunks_exact(WIDE)
        .zip(b.chunks_exact(WIDE))
        .take_while(|(a, b)| a == b)
        .count()
        * WIDE;
    wide + a[wide..]
        .iter()
        .zip(&b[wide..])
        .take_while(|(a, b)| a == b)
        .count()
}

/// How many bytes two slices have in common at their ends.
pub fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    const WIDE: usize = 32;
    let wide = a
        .rchunks_exact(WIDE)
        .zip(b.rchunks_exact(WIDE))
        .take_while(|(a, b)| a == b)
        .count()
        * WIDE;
    let (a, b) = (&a[..a.len() - wide], &b[..b.len() - wide]);
    wide + a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(a, b)| a == b)
        .count()
}

#[cfg(test)]
mod tests {
    use super::differing;

    #[test]
    fn bytes_outside_of_the_differing_ranges_are_the_same() {
        let old: Vec<u8> = (0..1000_u32)
            .map(|n| (n * n % 251).to_le_bytes()[0])
            .collect();
        for places in [
            &[][..],
            &[0],
            &[999],
            &[63, 64],
            &[5, 700, 701],
            &[128, 300],
        ] {
            let mut new = old.clone();
            for place in places {
                new[*place] ^= 1;
            }
            let ranges = differing(&old, &new);
            let within = |place: &usize| ranges.iter().any(|range| range.contains(place));
            assert!(places.iter().all(within), "{places:?}: {ranges:?}");
            let same = (0..1000).filter(|place| !within(place));
            assert!(same.into_iter().all(|place| old[place] == new[place]));
            assert!(
                ranges.iter().all(|range| range.len() <= 64 + 2),
                "{ranges:?}"
            );
        }
    }
}
