//! zstd frames: encoded with a checksum, decoded within declared bounds.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::StoreError;

/// Level for content: measured best for speed at the size that people expect.
pub const CONTENT_LEVEL: i32 = 3;
/// Level for pages, which are small.
pub const PAGE_LEVEL: i32 = 9;

/// What tests may turn. Real runs use [`Knobs::REAL`].
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// A frame is closed before it would grow beyond this; a quarter of it for blocks of large files.
    pub frame_bytes: usize,
    /// An object is closed once it is this long.
    pub object_bytes: u64,
    /// Spoils what was encoded before it is proved.
    pub tamper: fn(Product, &mut Vec<u8>),
}

impl Knobs {
    /// Frames of 4 MiB: a source tree compresses to 7.68x, against 6.44x at 1 MiB and 8.19x whole (zstd -3). Objects
    /// of 16 MiB: few files, few syncs, uploads that can be repeated.
    pub const REAL: Self = Self {
        frame_bytes: 4 << 20,
        object_bytes: 16 << 20,
        tamper: |_, _| {},
    };
}

/// What was just encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A frame of content.
    Frame,
    /// The commands of a delta, before compression.
    Delta,
}

thread_local! {
    /// Making a context costs more than coding a small page with it.
    static CONTEXTS: RefCell<(Compressor<'static>, Decompressor<'static>)> = RefCell::new((
        Compressor::new(CONTENT_LEVEL).expect("the level is a constant within zstd's range"),
        Decompressor::new().expect("a context takes little memory"),
    ));
}

/// Encodes an independent frame with content size and checksum.
pub fn encode(raw: &[u8], level: i32) -> Vec<u8> {
    let encode = |encoder: &mut Compressor| {
        encoder
            .set_compression_level(level)
            .expect("the level is a constant within zstd's range");
        encoder.include_checksum(true).expect("zstd has checksums");
        encoder
            .compress(raw)
            .expect("the buffer is as large as the worst case")
    };
    if level > PAGE_LEVEL {
        // Such contexts are large, and rarely needed.
        return encode(&mut Compressor::new(level).expect("the level is a constant"));
    }
    CONTEXTS.with_borrow_mut(|(encoder, _)| encode(encoder))
}

/// What a frame holds; never more than `max_bytes`.
fn decompress(stored: &[u8], max_bytes: usize) -> std::io::Result<Vec<u8>> {
    CONTEXTS.with_borrow_mut(|(_, decoder)| decoder.decompress(stored, max_bytes))
}

/// Encodes a frame and proves that it decodes to the same bytes; `tamper` may spoil it in between.
pub fn encode_proved(
    raw: &[u8],
    level: i32,
    tamper: impl FnOnce(&mut Vec<u8>),
) -> Result<Vec<u8>, StoreError> {
    let mut stored = encode(raw, level);
    tamper(&mut stored);
    match decompress(&stored, raw.len()) {
        Ok(decoded) if decoded == raw => Ok(stored),
        _ => Err(StoreError::Proof(
            "a compressed frame does not decode to its content".into(),
        )),
    }
}

/// Decodes a frame that must have exactly `raw_bytes`; `place` names it in the error.
pub fn decode(stored: &[u8], raw_bytes: u32, place: &str) -> Result<Vec<u8>, StoreError> {
    let mut raw = Vec::new();
    decode_into(&mut raw, stored, raw_bytes, place)?;
    Ok(raw)
}

/// The same into a buffer, which is emptied before.
pub fn decode_into(
    raw: &mut Vec<u8>,
    stored: &[u8],
    raw_bytes: u32,
    place: &str,
) -> Result<(), StoreError> {
    raw.clear();
    raw.reserve(raw_bytes as usize);
    let decoded =
        CONTEXTS.with_borrow_mut(|(_, decoder)| decoder.decompress_to_buffer(stored, raw));
    decoded.map_err(|error| {
        StoreError::damaged(place, format!("a frame cannot be decoded: {error}"))
    })?;
    if raw.len() == raw_bytes as usize {
        Ok(())
    } else {
        Err(StoreError::damaged(
            place,
            format!("a frame has {} bytes instead of {raw_bytes}", raw.len()),
        ))
    }
}
