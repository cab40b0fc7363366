//! Comparing a stream, as it is rebuilt, with what its parts must be.

use super::parts::{self, Part, Parts};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::delta::{DeltaReader, script_cache};
use crate::store::sequence::Sequence;
use crate::store::stream::VersionStream;

/// The parts that are not copied from an equal part of the next newer version.
pub fn doubtful(
    delta: &DeltaReader,
    parts: &Parts,
    known: &Parts,
) -> Result<Vec<Part>, StoreError> {
    let cache = script_cache();
    let mut doubtful = Vec::new();
    for part in &parts.list {
        let from = delta.copied_from(part.offset..part.offset + u64::from(part.len), &cache)?;
        let is_known = from
            .and_then(|from| known.at(from))
            .is_some_and(|there| (there.len, there.digest) == (part.len, part.digest));
        if !is_known {
            doubtful.push(*part);
        }
    }
    Ok(doubtful)
}

/// Reads parts and returns those that are something else, or cannot be read.
pub fn wrong(stream: &VersionStream, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
    let windows = parts::windows(parts);
    let mut bad = Vec::new();
    let ranges = windows.iter().map(|parts| parts::range(parts)).collect();
    let Ok(mut sequence) = Sequence::of_windows(stream, ranges) else {
        return one_by_one(stream, parts);
    };
    let mut buffer = Vec::new();
    for parts in windows {
        match sequence.next_window(std::mem::take(&mut buffer)) {
            Ok(Some((start, bytes))) => {
                bad.extend(parts::wrong(parts, start, &bytes));
                buffer = bytes;
            }
            Ok(None) => break,
            // Which of them are lost is found by reading each alone.
            Err(error) => {
                error.into_fault()?;
                bad.extend(one_by_one(stream, parts)?);
            }
        }
    }
    Ok(bad)
}

fn one_by_one(stream: &VersionStream, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
    let mut bad = Vec::new();
    for part in parts {
        match stream.read(part.offset..part.offset + u64::from(part.len)) {
            Ok(bytes) if parts::half(Digest::of(&bytes)) == part.digest => {}
            Ok(_) => bad.push(*part),
            Err(error) => {
                error.into_fault()?;
                bad.push(*part);
            }
        }
    }
    Ok(bad)
}
