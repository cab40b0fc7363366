//! Performing a script on a base in memory.

use std::io::{self, Write};

use super::script::{Piece, Script};

/// Why a script could not be performed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The script copies from beyond the base: it belongs to another one.
    #[error("The delta needs a base of {needed} bytes, this one has {base}")]
    Base {
        /// The end of the furthest copy.
        needed: u64,
        /// The length of the base.
        base: u64,
    },
    /// The output did not take the bytes.
    #[error("Cannot write the output")]
    Write(#[from] io::Error),
}

/// Writes what `script` produces from `base`. The script is checked against the base before the first byte is written.
pub fn apply(base: &[u8], script: &Script, out: &mut impl Write) -> Result<(), ApplyError> {
    let (needed, have) = (script.base_bytes_needed(), base.len() as u64);
    if needed > have {
        return Err(ApplyError::Base { needed, base: have });
    }
    let at = |offset: u64| usize::try_from(offset).expect("within the base, which is in memory");
    for piece in script.pieces() {
        match piece {
            Piece::Copy { offset, len } => out.write_all(&base[at(offset)..at(offset + len)])?,
            Piece::Literal(bytes) => out.write_all(bytes)?,
        }
    }
    Ok(())
}
