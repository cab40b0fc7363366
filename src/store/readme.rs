//! The description that lies in every store.

/// How to restore with coreutils, tar, zstd and rdiff alone. The script in it is run by a test.
pub const TEXT: &str = include_str!("readme.txt");
