//! The index at the end of a delta file.
//!
//! A delta file is a sequence of zstd frames whose decoded bytes are (a part of) an rdiff delta, cut between commands.
//! Its last frame is a zstd *skippable* frame, which `zstd -d` passes over: magic 0x184D2A5B, length (both u32), then per
//! frame stored bytes u32, raw bytes u32, output bytes u64, then the number of frames u32, format version u8, and the
//! eight bytes `btwdelta`. All numbers little-endian.

use super::FormatError;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5B;
const TRAILER: &[u8; 8] = b"btwdelta";
const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 16;
/// Number of frames, version, trailer.
const FOOTER_BYTES: usize = 4 + 1 + 8;
const HEADER_BYTES: usize = 8;

/// One frame of a delta file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaFrame {
    /// Its length in the file.
    pub stored_bytes: u32,
    /// Its length when decoded: bytes of the delta.
    pub raw_bytes: u32,
    /// How many bytes of the old stream its commands produce.
    pub output_bytes: u64,
}

/// The skippable frame for `frames`.
pub fn encode(frames: &[DeltaFrame]) -> Vec<u8> {
    let len =
        u32::try_from(frames.len() * ENTRY_BYTES + FOOTER_BYTES).expect("few frames per file");
    let mut out = SKIPPABLE_MAGIC.to_le_bytes().to_vec();
    out.extend_from_slice(&len.to_le_bytes());
    for frame in frames {
        out.extend_from_slice(&frame.stored_bytes.to_le_bytes());
        out.extend_from_slice(&frame.raw_bytes.to_le_bytes());
        out.extend_from_slice(&frame.output_bytes.to_le_bytes());
    }
    out.extend_from_slice(
        &u32::try_from(frames.len())
            .expect("few frames per file")
            .to_le_bytes(),
    );
    out.push(VERSION);
    out.extend_from_slice(TRAILER);
    out
}

/// How long the index of a file is, from the file's last [`TAIL_BYTES`] bytes.
pub fn index_bytes(tail: &[u8]) -> Result<usize, FormatError> {
    let footer = tail
        .len()
        .checked_sub(FOOTER_BYTES)
        .and_then(|at| tail.get(at..));
    let footer = footer
        .filter(|footer| footer.ends_with(TRAILER))
        .ok_or_else(|| FormatError::content("it does not end with an index"))?;
    if footer[4] != VERSION {
        return Err(FormatError::Newer {
            found: footer[4].to_string(),
            known: VERSION.into(),
        });
    }
    let count = u32::from_le_bytes(footer[..4].try_into().expect("four bytes"));
    Ok(HEADER_BYTES + count as usize * ENTRY_BYTES + FOOTER_BYTES)
}

/// How many bytes at the end of a file [`index_bytes`] needs.
pub const TAIL_BYTES: usize = FOOTER_BYTES;

/// Reads an index of exactly [`index_bytes`] bytes at the end of a file of `file_bytes`.
pub fn decode(index: &[u8], file_bytes: u64) -> Result<Vec<DeltaFrame>, FormatError> {
    let body = &index[HEADER_BYTES..index.len() - FOOTER_BYTES];
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    if number(&index[..4]) != SKIPPABLE_MAGIC
        || number(&index[4..8]) as usize != index.len() - HEADER_BYTES
    {
        return Err(FormatError::content("the index is not a skippable frame"));
    }
    let entry = |bytes: &[u8]| DeltaFrame {
        stored_bytes: number(&bytes[..4]),
        raw_bytes: number(&bytes[4..8]),
        output_bytes: u64::from_le_bytes(bytes[8..].try_into().expect("eight bytes")),
    };
    let frames: Vec<DeltaFrame> = body.chunks_exact(ENTRY_BYTES).map(entry).collect();
    let stored: u64 = frames
        .iter()
        .map(|frame| u64::from(frame.stored_bytes))
        .sum();
    let fits = frames.iter().all(|f| {
        f.raw_bytes <= super::manifest::FRAME_MAX_BYTES && i64::try_from(f.output_bytes).is_ok()
    });
    if stored + index.len() as u64 == file_bytes && fits {
        Ok(frames)
    } else {
        Err(FormatError::content("the index does not fit the file"))
    }
}

#[cfg(test)]
mod tests {
    use super::{DeltaFrame, decode, encode, index_bytes};
    use proptest::prelude::{any, prop, proptest};

    #[test]
    fn index_round_trips_and_zstd_passes_over_it() {
        let frames = [DeltaFrame {
            stored_bytes: 3,
            raw_bytes: 9,
            output_bytes: 1 << 33,
        }; 2];
        let index = encode(&frames);
        assert_eq!(index_bytes(&index[5..]).unwrap(), index.len());
        assert_eq!(decode(&index, 6 + index.len() as u64).unwrap(), frames);
        assert!(decode(&index, 7 + index.len() as u64).is_err());
        let file = [zstd::bulk::compress(b"delta", 3).unwrap(), index].concat();
        assert_eq!(zstd::decode_all(&file[..]).unwrap(), b"delta");
    }

    proptest! {
        #[test]
        fn a11_any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), end: bool) {
            if end {
                bytes.extend_from_slice(&[1, 0, 0, 0, 1]);
                bytes.extend_from_slice(b"btwdelta");
            }
            if let Ok(len) = index_bytes(&bytes) && len <= bytes.len() {
                let _ = decode(&bytes[bytes.len() - len..], 1 << 20);
            }
        }
    }
}
