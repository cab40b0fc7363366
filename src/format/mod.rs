//! Bytes and text on disk ⇄ structs. Every decoder is bounded and strict: what it does not know, it refuses.
//!
//! One file per format: [`state`], [`page`] (the tree that holds catalogs and manifests), [`manifest`] and [`member`]
//! (its leaves), [`frames`] (the index at the end of a delta file), [`scan`] (the scan cache) and [`staging`].
//! `ARCHITECTURE.md` describes each byte for byte.

pub mod frames;
pub mod journal;
pub mod legacy;
pub mod manifest;
pub mod member;
pub mod page;
pub mod scan;
pub mod staging;
pub mod state;
mod text;
pub mod verified;
pub mod version;

/// Why bytes or text are not what they should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Text that does not follow the format.
    #[error("line {line}: {detail}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// Written by a newer program.
    #[error("it has format version {found}; this program knows {known}. Use a newer btw-backup")]
    Newer {
        /// The version in the file.
        found: String,
        /// The newest version that this program reads.
        known: u32,
    },
    /// Bytes that do not follow the format.
    #[error("{0}")]
    Content(String),
}

impl FormatError {
    fn content(detail: impl Into<String>) -> Self {
        Self::Content(detail.into())
    }
}
