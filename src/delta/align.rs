//! Laying new bytes beside old ones that are mostly the same: long stretches in common are found fast, short ones are
//! passed over.
//!
//! The old side is indexed by the hash of a window at every n-th position; over the new side a hash is rolled byte by byte
//! (Karp and Rabin). The window is long: rows of a table have much in common, but not so much. Hashes never decide.

use super::diff::{common_prefix, common_suffix, is_run};
use super::script::Script;

/// Bytes hashed at each position.
const WINDOW: usize = 128;
/// Every n-th position of the old side is indexed.
const STEP: usize = 128;
/// So many windows are hashed at once.
const LANES: usize = 8;
/// Candidates tried for each position.
const CHAIN: usize = 8;
const NONE: u32 = u32::MAX;
/// Odd and without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// A part of the old side, ready to have new bytes laid beside it.
pub struct Aligner<'a> {
    old: &'a [u8],
    /// Where it begins in the old stream.
    start: u64,
    /// Shorter stretches are passed over.
    min: usize,
    shift: u32,
    /// The last sample with each hash.
    heads: Vec<u32>,
    /// For each sample the one before it with the same hash.
    links: Vec<u32>,
}

struct Match {
    new: usize,
    old: usize,
    len: usize,
}

impl<'a> Aligner<'a> {
    /// Indexes `old`, fewer than 4 GiB, which begin at `start` of the old stream.
    pub fn of(old: &'a [u8], start: u64, min: usize) -> Self {
        let samples = old.len() / STEP + 1;
        let bits = samples.next_power_of_two().trailing_zeros().clamp(8, 26);
        let mut aligner = Self {
            old,
            start,
            min,
            shift: 64 - bits,
            heads: vec![NONE; 1 << bits],
            links: vec![NONE; samples],
        };
        let groups = old.chunks_exact(LANES * STEP);
        let rest = groups.remainder();
        for (number, group) in groups.enumerate() {
            for (lane, hash) in hashes(group).into_iter().enumerate() {
                aligner.add(number * LANES + lane, hash);
            }
        }
        for (number, window) in rest.chunks_exact(STEP).enumerate() {
            aligner.add(old.len() / (LANES * STEP) * LANES + number, hash(window));
        }
        aligner
    }

    fn add(&mut self, sample: usize, hash: u64) {
        // Runs of one byte are everywhere, and found by extension.
        if !is_run(&self.old[sample * STEP..sample * STEP + WINDOW]) {
            let slot = self.slot(hash);
            self.links[sample] = self.heads[slot];
            self.heads[slot] = u32::try_from(sample).expect("fewer than 4 GiB are indexed");
        }
    }

    fn slot(&self, hash: u64) -> usize {
        usize::try_from((hash ^ hash >> 32).wrapping_mul(MIX) >> self.shift)
            .expect("at most 26 bits")
    }

    /// What rebuilds `new`: long stretches of the old stream, and between them the new bytes themselves. `hint` is where
    /// in the old stream the first byte is expected.
    pub fn align(&self, new: &[u8], hint: u64) -> Script {
        let mut script = Script::new();
        let (mut anchor, mut at) = (0, 0);
        let expected = hint.checked_sub(self.start);
        let expected = expected.and_then(|place| usize::try_from(place).ok());
        let mut found = expected
            .filter(|place| *place < self.old.len())
            .map(|place| self.extend(new, 0, place, 0))
            .filter(|found| found.len >= self.min);
        loop {
            if let Some(found) = found {
                script.literal(&new[anchor..found.new]);
                script.copy(self.start + found.old as u64, found.len as u64);
                anchor = found.new + found.len;
                at = anchor;
            }
            match self.next(new, at, anchor) {
                None => break,
                Some(next) if next.len >= self.min => found = Some(next),
                Some(short) => {
                    // Nothing on its way is longer.
                    at = short.new + short.len;
                    found = None;
                }
            }
        }
        script.literal(&new[anchor..]);
        script
    }

    /// The first match of a whole window from `at` on. It ends behind `at`.
    fn next(&self, new: &[u8], mut at: usize, anchor: usize) -> Option<Match> {
        let mut rolling = hash(new.get(at..at + WINDOW)?);
        loop {
            if let Some(found) = self.best(new, at, anchor, rolling) {
                return Some(found);
            }
            let next = *new.get(at + WINDOW)?;
            rolling = roll(rolling, new[at], next);
            at += 1;
        }
    }

    /// The longest match through the window at `new[at]`.
    fn best(&self, new: &[u8], at: usize, anchor: usize, hash: u64) -> Option<Match> {
        let mut best: Option<Match> = None;
        let mut sample = self.heads[self.slot(hash)];
        for _ in 0..CHAIN {
            if sample == NONE {
                break;
            }
            let old = sample as usize * STEP;
            if self.old[old..old + WINDOW] == new[at..at + WINDOW] {
                let found = self.extend(new, at, old, anchor);
                if best.as_ref().is_none_or(|best| found.len > best.len) {
                    best = Some(found);
                }
            }
            sample = self.links[sample as usize];
        }
        best
    }

    /// The longest match through `new[at]` and `old[old]`, not before `anchor`.
    fn extend(&self, new: &[u8], at: usize, old: usize, anchor: usize) -> Match {
        let forward = common_prefix(&new[at..], &self.old[old..]);
        let back = common_suffix(&new[anchor..at], &self.old[..old]);
        Match {
            new: at - back,
            old: old - back,
            len: forward + back,
        }
    }
}

/// The hashes of neighbouring windows: each alone would wait for its own multiplications.
fn hashes(group: &[u8]) -> [u64; LANES] {
    let mut hashes = [0_u64; LANES];
    for at in 0..WINDOW {
        for (lane, hash) in hashes.iter_mut().enumerate() {
            let byte = u64::from(group[lane * STEP + at]);
            *hash = hash.wrapping_mul(FACTOR).wrapping_add(byte);
        }
    }
    hashes
}

fn hash(window: &[u8]) -> u64 {
    window.iter().fold(0, |hash: u64, byte| {
        hash.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte))
    })
}

/// The hash of a window that begins one byte later.
fn roll(hash: u64, first: u8, next: u8) -> u64 {
    const OUT: u64 = power(FACTOR, WINDOW);
    hash.wrapping_mul(FACTOR)
        .wrapping_add(u64::from(next))
        .wrapping_sub(u64::from(first).wrapping_mul(OUT))
}

const fn power(base: u64, exponent: usize) -> u64 {
    let (mut result, mut count) = (1_u64, 0);
    while count < exponent {
        result = result.wrapping_mul(base);
        count += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{Aligner, WINDOW, hash, roll};
    use crate::delta::{Piece, Script, apply::apply};
    use proptest::prelude::{any, prop, proptest};

    #[test]
    fn the_rolled_hash_is_the_hash() {
        let bytes: Vec<u8> = (0..400_u32)
            .map(|n| (n * n % 251).to_le_bytes()[0])
            .collect();
        let mut rolling = hash(&bytes[..WINDOW]);
        for at in 1..bytes.len() - WINDOW {
            rolling = roll(rolling, bytes[at - 1], bytes[at + WINDOW - 1]);
            assert_eq!(rolling, hash(&bytes[at..at + WINDOW]));
        }
    }

    fn applied(old: &[u8], script: &Script) -> Vec<u8> {
        let mut out = Vec::new();
        apply(old, script, &mut out).unwrap();
        out
    }

    /// Rows as of a table, most of each the same in all.
    fn rows(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
        let row = |n: u32| format!("{n}\t{}\t0\t{:84}\n", n % 10, "");
        numbers.flat_map(|n| row(n).into_bytes()).collect()
    }

    #[test]
    fn rows_that_go_come_and_move_cost_little() {
        let old = rows(0..20_000);
        let new = rows((0..20_000).filter(|n| n % 100 != 7).chain([107, 207, 7]));
        let aligner = Aligner::of(&old, 1000, 2048);
        let script = aligner.align(&new, 1000);
        let copied: u64 = script
            .pieces()
            .filter(|piece| matches!(piece, Piece::Copy { .. }))
            .map(|piece| piece.output_bytes())
            .sum();
        assert!(
            copied + 1000 > new.len() as u64,
            "{copied} of {}",
            new.len()
        );
        let base = [vec![0; 1000], old.clone()].concat();
        assert_eq!(applied(&base, &script), new);
    }

    proptest! {
        #[test]
        fn what_is_laid_beside_is_rebuilt(
            words in prop::collection::vec(0_u8..6, 0..60),
            changed in prop::collection::vec(0_u8..6, 0..60),
            noise in prop::collection::vec(any::<u8>(), 300),
            hint in 0_u64..3000,
        ) {
            let text = |words: &[u8]| -> Vec<u8> {
                words.iter().flat_map(|word| match word {
                    0 => vec![0; 200],
                    word => noise[usize::from(*word) * 40..][..80 + usize::from(*word)].to_vec(),
                }).collect()
            };
            let (old, new) = (text(&words), text(&changed));
            let script = Aligner::of(&old, 0, 150).align(&new, hint);
            assert_eq!(applied(&old, &script), new);
            for piece in script.pieces() {
                assert!(!matches!(piece, Piece::Copy { len, .. } if len < 150));
            }
        }
    }
}
