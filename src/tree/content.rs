//! What a file of the source holds, by digest: nothing is kept of its bytes.

use std::io;

use rayon::prelude::{ParallelIterator, ParallelSlice};

use super::source::SourceFile;
use crate::catalog::{Content, Run};
use crate::digest::{BLOCK_BYTES, Digest, is_zero};

/// So much is read at once.
const WINDOW_BYTES: usize = 4 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Reads a file once. `None` if it was changed meanwhile.
pub fn content_of(file: &SourceFile) -> io::Result<Option<Content>> {
    let size = file.size();
    let window = usize::try_from(size).map_or(WINDOW_BYTES, |size| size.min(WINDOW_BYTES));
    let mut buffer = vec![0; window];
    if size <= BLOCK {
        let is_whole = file.read_at(&mut buffer, 0)? == buffer.len();
        return Ok((is_whole && !file.was_changed()?).then(|| Content::small(&buffer)));
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    while at < size {
        // Holes are passed over, by whole blocks.
        let data = file.next_data(at) / BLOCK * BLOCK;
        at = at.max(data);
        if at >= size {
            break;
        }
        let len = usize::try_from(size - at).map_or(window, |left| left.min(window));
        if file.read_at(&mut buffer[..len], at)? < len {
            return Ok(None);
        }
        file.read_once(at, len as u64);
        let digests: Vec<Option<Digest>> = buffer[..len]
            .par_chunks(BLOCK_BYTES)
            .map(data_digest)
            .collect();
        for (number, digest) in (at / BLOCK..).zip(digests) {
            let Some(digest) = digest else { continue };
            match runs.last_mut() {
                Some(run) if run.first + run.digests.len() as u64 == number => {
                    run.digests.push(digest);
                }
                _ => runs.push(Run {
                    first: number,
                    digests: vec![digest],
                }),
            }
        }
        at += len as u64;
    }
    Ok((!file.was_changed()?).then(|| Content::large(size, runs)))
}

/// A whole block of zeros is a hole.
fn data_digest(block: &[u8]) -> Option<Digest> {
    let is_hole = block.len() == BLOCK_BYTES && is_zero(block);
    (!is_hole).then(|| Digest::of(block))
}
