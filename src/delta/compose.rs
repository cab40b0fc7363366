//! Folding two scripts into one.

use super::script::{Piece, Script};

/// The script that does in one step what `newer` and then `older` do in two: `newer` rebuilds stream 2 from stream 3,
/// `older` rebuilds stream 1 from stream 2, the result rebuilds 1 from 3. `None` if `older` copies from beyond what
/// `newer` produces, that is if they do not belong together.
pub fn compose(newer: &Script, older: &Script) -> Option<Script> {
    if older.base_bytes_needed() > newer.output_bytes() {
        return None;
    }
    let mut folded = Script::new();
    for piece in older.pieces() {
        match piece {
            Piece::Literal(bytes) => folded.literal(bytes),
            Piece::Copy { offset, len } => newer
                .slice(offset..offset + len)
                .for_each(|part| folded.push(part)),
        }
    }
    Some(folded)
}
