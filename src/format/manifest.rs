//! Leaves of a manifest: which slices of which frames make a stream.
//!
//! Text, so that a shell can follow it. `frame N OBJECT OFFSET STORED RAW DIGEST` gives a frame a number within the page;
//! `slice N SKIP TAKE` are TAKE bytes of that frame's raw bytes from SKIP on. The slices of all leaves in order are the
//! stream.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::FormatError;
use super::text::{self, Words};
use crate::catalog::{FrameRef, Slice};

/// A frame is never larger than this, raw or stored; a decoder refuses more.
pub const FRAME_MAX_BYTES: u32 = 64 << 20;

/// The text of a leaf.
pub fn encode(slices: &[Slice]) -> Vec<u8> {
    let mut out = String::new();
    let mut numbers: HashMap<FrameRef, usize> = HashMap::new();
    for slice in slices {
        let next = numbers.len();
        let number = *numbers.entry(slice.frame).or_insert(next);
        if number == next {
            let frame = &slice.frame;
            let place = format!(
                "{} {} {} {}",
                frame.object, frame.offset, frame.stored_bytes, frame.raw_bytes
            );
            writeln!(out, "frame {number} {place} {}", frame.digest)
                .expect("a String takes everything");
        }
        writeln!(out, "slice {number} {} {}", slice.skip, slice.take)
            .expect("a String takes everything");
    }
    out.into_bytes()
}

/// Reads a leaf.
pub fn decode(raw: &[u8]) -> Result<Vec<Slice>, FormatError> {
    let mut frames: Vec<FrameRef> = Vec::new();
    let mut slices = Vec::new();
    for (index, line) in text::lines(raw)?.lines().enumerate() {
        let mut words = Words::of(line, index + 1);
        match words.word("frame or slice")? {
            "frame" => frames.push(take_frame(&mut words, frames.len())?),
            "slice" => slices.push(take_slice(&mut words, &frames)?),
            other => return Err(words.error(format!("'{other}' is unknown"))),
        }
        words.end()?;
    }
    Ok(slices)
}

fn take_frame(words: &mut Words<'_>, expected: usize) -> Result<FrameRef, FormatError> {
    if words.value::<usize>("N")? != expected {
        return Err(words.error("frames are not numbered in order"));
    }
    let frame = FrameRef {
        object: words.value("OBJECT")?,
        offset: words.value("OFFSET")?,
        stored_bytes: words.value("STORED")?,
        raw_bytes: words.value("RAW")?,
        digest: words.value("DIGEST")?,
    };
    let fits = frame.raw_bytes <= FRAME_MAX_BYTES && frame.stored_bytes <= FRAME_MAX_BYTES;
    if fits {
        Ok(frame)
    } else {
        Err(words.error("the frame is larger than this program allows"))
    }
}

fn take_slice(words: &mut Words<'_>, frames: &[FrameRef]) -> Result<Slice, FormatError> {
    let number: usize = words.value("N")?;
    let frame = *frames
        .get(number)
        .ok_or_else(|| words.error(format!("there is no frame {number}")))?;
    let (skip, take): (u32, u32) = (words.value("SKIP")?, words.value("TAKE")?);
    match skip.checked_add(take) {
        Some(end) if take > 0 && end <= frame.raw_bytes => Ok(Slice { frame, skip, take }),
        _ => Err(words.error("the slice is not within its frame")),
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameRef, Slice, decode, encode};
    use crate::digest::Digest;
    use proptest::prelude::{any, prop, proptest};

    fn frame(n: u8) -> FrameRef {
        FrameRef {
            object: Digest([n; 32]),
            offset: u64::from(n),
            stored_bytes: 5,
            raw_bytes: 100,
            digest: Digest([n; 32]),
        }
    }

    #[test]
    fn leaves_round_trip_and_name_each_frame_once() {
        let slices = [(1, 0, 50), (2, 0, 100), (1, 50, 50)].map(|(n, skip, take)| Slice {
            frame: frame(n),
            skip,
            take,
        });
        let raw = encode(&slices);
        assert_eq!(
            raw.split(|b| *b == b'\n')
                .filter(|line| line.starts_with(b"frame"))
                .count(),
            2
        );
        assert_eq!(decode(&raw).unwrap(), slices);
    }

    #[test]
    fn f3_slices_outside_their_frame_and_wrong_names_are_refused() {
        let good = String::from_utf8(encode(&[Slice {
            frame: frame(1),
            skip: 0,
            take: 50,
        }]))
        .unwrap();
        for (from, to) in [
            ("slice 0 0 50", "slice 0 51 50"),
            ("slice 0", "slice 1"),
            ("slice 0 0 50", "slice 0 0 0"),
            ("frame 0 01", "frame 0 .."),
            ("0 50\n", "0 50"),
            (" 100 ", " 99999999 "),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a11_any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
