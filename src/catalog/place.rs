//! Where things lie in a store.

use crate::digest::Digest;

/// Where a page is and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRef {
    /// 0 for a leaf.
    pub level: u8,
    /// The pack; `None` while the pack that is being written has no name yet.
    pub pack: Option<Digest>,
    /// Where the page's zstd frame begins in the pack.
    pub offset: u64,
    /// Its length there.
    pub stored_bytes: u32,
    /// Its length when decoded.
    pub raw_bytes: u32,
    /// What identifies it.
    pub digest: Digest,
    /// How many items (members, slices) lie below it.
    pub items: u64,
    /// How many bytes of the stream lie below it.
    pub stream_bytes: u64,
    /// The key of its first item; empty where items have no keys.
    pub first: Vec<u8>,
}

/// An independent zstd frame in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRef {
    /// The object's name: the BLAKE3 of its bytes.
    pub object: Digest,
    /// Where the frame begins in the object.
    pub offset: u64,
    /// Its length there.
    pub stored_bytes: u32,
    /// Its length when decoded.
    pub raw_bytes: u32,
    /// The BLAKE3 of its raw bytes.
    pub digest: Digest,
}

/// A part of a frame's raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The frame.
    pub frame: FrameRef,
    /// Where the slice begins in the raw bytes.
    pub skip: u32,
    /// Its length, at least 1.
    pub take: u32,
}

/// One of the files whose decoded bytes, one after the other, are a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaFile {
    /// Its name: the BLAKE3 of its bytes.
    pub name: Digest,
    /// How many bytes of the old stream it produces.
    pub output_bytes: u64,
    /// Its length.
    pub stored_bytes: u64,
}
