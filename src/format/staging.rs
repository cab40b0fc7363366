//! The staging record: which blocks the objects of a run hold that has not committed yet.
//!
//! One text file per object, named as the object: `object NAME`, then per frame `frame OFFSET STORED RAW DIGEST`, then for each block in the frame
//! `block SKIP TAKE DIGEST`; the last line is `end` with the BLAKE3 of all before. The next run hashes the object before it believes any of it.

use std::fmt::Write as _;

use super::FormatError;
use super::manifest::FRAME_MAX_BYTES;
use super::text::{self, Words};
use crate::catalog::{FrameRef, Slice};
use crate::digest::Digest;

/// A block of the source that lies in a staged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedBlock {
    /// The block's BLAKE3.
    pub digest: Digest,
    /// Where it lies.
    pub slice: Slice,
}

/// A frame of an object with the blocks in it: (skip, take, digest).
pub type FrameBlocks = (FrameRef, Vec<(u32, u32, Digest)>);

/// The record of one object. It names the object itself: after a crash a name may lead to another run's file.
pub fn encode(object: Digest, frames: &[FrameBlocks]) -> Vec<u8> {
    let mut out = format!("object {object}\n");
    for (frame, blocks) in frames {
        let place = format!(
            "{} {} {}",
            frame.offset, frame.stored_bytes, frame.raw_bytes
        );
        writeln!(out, "frame {place} {}", frame.digest).expect("a String takes everything");
        for (skip, take, digest) in blocks {
            writeln!(out, "block {skip} {take} {digest}").expect("a String takes everything");
        }
    }
    let digest = Digest::of(out.as_bytes());
    writeln!(out, "end {digest}").expect("a String takes everything");
    out.into_bytes()
}

/// Reads the record of `object`.
pub fn decode(raw: &[u8], object: Digest) -> Result<Vec<StagedBlock>, FormatError> {
    let content = text::lines(raw)?;
    let (content, end) = content.split_at(content.rfind("end ").unwrap_or(0));
    if end
        != format!(
            "end {}
",
            Digest::of(content.as_bytes())
        )
    {
        return Err(FormatError::content("the record is cut off or spoilt"));
    }
    let content = content
        .strip_prefix(&format!("object {object}\n"))
        .ok_or_else(|| FormatError::content("another object's record"))?;
    let mut frame = None;
    let mut found = Vec::new();
    for (index, line) in content.lines().enumerate() {
        let mut words = Words::of(line, index + 1);
        match (words.word("frame or block")?, frame) {
            ("frame", _) => {
                let (offset, stored_bytes) = (words.value("OFFSET")?, words.value("STORED")?);
                let (raw_bytes, digest) = (words.value("RAW")?, words.value("DIGEST")?);
                if stored_bytes > FRAME_MAX_BYTES || raw_bytes > FRAME_MAX_BYTES {
                    return Err(words.error("the frame is larger than this program allows"));
                }
                frame = Some(FrameRef {
                    object,
                    offset,
                    stored_bytes,
                    raw_bytes,
                    digest,
                });
            }
            ("block", Some(frame)) => {
                let (skip, take): (u32, u32) = (words.value("SKIP")?, words.value("TAKE")?);
                let fits = skip
                    .checked_add(take)
                    .is_some_and(|end| end <= frame.raw_bytes)
                    && take > 0;
                if !fits {
                    return Err(words.error("the block is not within its frame"));
                }
                found.push(StagedBlock {
                    digest: words.value("DIGEST")?,
                    slice: Slice { frame, skip, take },
                });
            }
            (other, _) => return Err(words.error(format!("'{other}' is not expected here"))),
        }
        words.end()?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use crate::catalog::FrameRef;
    use crate::digest::Digest;

    #[test]
    fn records_round_trip_and_cut_ones_are_refused() {
        let object = Digest::of(b"o");
        let frame = FrameRef {
            object,
            offset: 9,
            stored_bytes: 10,
            raw_bytes: 11,
            digest: Digest::of(b"f"),
        };
        let good = encode(object, &[(frame, vec![(1, 10, Digest::of(b"b"))])]);
        let blocks = decode(&good, object).unwrap();
        assert_eq!(
            (blocks.len(), blocks[0].slice.frame, blocks[0].slice.skip),
            (1, frame, 1)
        );
        assert!(decode(&good, Digest::of(b"other")).is_err());
        assert!((0..good.len()).all(|len| decode(&good[..len], object).is_err()));
    }
}
