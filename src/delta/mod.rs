//! The delta core: pure functions over bytes and operations. No paths, threads, clocks or logs.
//!
//! A [`Script`] rebuilds an *old* stream from a *new* one (a reverse delta) by copies from the new stream and literal
//! bytes. [`diff`](diff::diff) makes one, [`apply`](apply::apply) performs it, [`compose`](compose::compose) folds two
//! into one, and [`wire`] is its byte form: the delta format of librsync, so that `rdiff patch` reads it.

pub mod align;
pub mod apply;
pub mod compose;
pub mod diff;
pub mod script;
pub mod wire;

pub use script::{Piece, Script};
