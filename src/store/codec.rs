//! zstd frames: encoded with a checksum, decoded within declared bounds.

use crate::error::StoreError;

/// Level for content: measured best for speed at the size that people expect.
pub const CONTENT_LEVEL: i32 = 3;
/// Level for pages, which are small.
pub const PAGE_LEVEL: i32 = 9;

/// A hook with which tests spoil an encoded frame or delta before it is proved; [`SOUND`] does nothing.
pub type Tamper = fn(Product, &mut Vec<u8>);

/// What was just encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A frame of content.
    Frame,
    /// The commands of a delta, before compression.
    Delta,
}

/// The hook of every real run.
pub const SOUND: Tamper = |_, _| {};

/// Encodes an independent frame with content size and checksum.
pub fn encode(raw: &[u8], level: i32) -> Vec<u8> {
    let mut encoder = zstd::bulk::Compressor::new(level).expect("the level is a constant within zstd's range");
    encoder.include_checksum(true).expect("zstd has checksums");
    encoder.compress(raw).expect("the buffer is as large as the worst case")
}

/// Decodes a frame that must have exactly `raw_bytes`; `place` names it in the error.
pub fn decode(stored: &[u8], raw_bytes: u32, place: &str) -> Result<Vec<u8>, StoreError> {
    let raw = zstd::bulk::decompress(stored, raw_bytes as usize);
    let raw = raw.map_err(|error| StoreError::damaged(place, format!("a frame cannot be decoded: {error}")))?;
    if raw.len() == raw_bytes as usize {
        Ok(raw)
    } else {
        Err(StoreError::damaged(place, format!("a frame has {} bytes instead of {raw_bytes}", raw.len())))
    }
}
