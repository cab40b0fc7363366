//! Proof that the delta, as it lies on the disk, rebuilds the previous version.

use std::ops::Range;

use super::deltify::{Layout, Span, span_at};
use crate::catalog::{DeltaFile, Member, PageRef, Version};
use crate::delta::Piece;
use crate::error::{StoreError, printable};
use crate::ops::parts::{self, Part};
use crate::ops::rebuilt;
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::delta::DeltaReader;
use crate::store::stream::VersionStream;
use crate::tree::header::header;

/// So many blocks are proved together: bounds memory.
const BLOCKS_AT_ONCE: usize = 1 << 16;

/// Decodes the delta again. Copies that the scan proved by equal digests must stand in it exactly so; everything else of
/// the old stream is rebuilt through it and compared with the old catalog.
pub fn prove(
    store: &Store,
    layout: &Layout,
    previous: &Version,
    files: &[DeltaFile],
    manifest: &PageRef,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let delta = DeltaReader::open(store, files).map_err(as_proof)?;
    if delta.output_bytes() != previous.stream_bytes {
        return Err(StoreError::Proof("the delta has the wrong length".into()));
    }
    let doubtful = doubtful(&delta, &layout.spans)?;
    let stream = VersionStream::rebuilt(store, delta, manifest);
    let mut blocks = Vec::new();
    let mut members = CatalogReader::open(store, &previous.catalog)?;
    while let Some((offset, member)) = members.next_member()? {
        if touches(&doubtful, offset..offset + member.stream_bytes()) {
            prove_header_and_padding(&stream, &doubtful, offset, &member).map_err(as_proof)?;
            let touched = member
                .placed_blocks(offset)
                .filter(|block| touches(&doubtful, block.offset..block.offset + block.len));
            blocks.extend(touched.map(|block| Part::of_block(&block)));
            monitor.advance(member.stream_bytes());
        }
        if blocks.len() >= BLOCKS_AT_ONCE {
            prove_blocks(store, &stream, previous, &std::mem::take(&mut blocks))?;
        }
    }
    prove_blocks(store, &stream, previous, &blocks)?;
    let zeros = vec![0; previous.stream.end_bytes()];
    let end = previous.stream_bytes - zeros.len() as u64..previous.stream_bytes;
    if touches(&doubtful, end.clone()) && stream.read(end).map_err(as_proof)? != zeros {
        return Err(StoreError::Proof(
            "the end of the stream is not rebuilt".into(),
        ));
    }
    Ok(())
}

/// What was written a moment ago and cannot be decoded is a failed proof, not damage of the store.
fn as_proof(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { file, detail } => StoreError::Proof(format!("{file}: {detail}")),
        other => other,
    }
}

/// The ranges of the old stream that the delta does not produce by the copies that the layout knows to be right.
fn doubtful(delta: &DeltaReader, spans: &[Span]) -> Result<Vec<Range<u64>>, StoreError> {
    let mut doubtful: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for script in delta.scripts() {
        for piece in script.map_err(as_proof)?.pieces() {
            let end = at + piece.output_bytes();
            let mut index = span_at(spans, at);
            while let Some(span) = spans.get(index).filter(|span| span.old < end) {
                let part = at.max(span.old)..end.min(span.old + span.len);
                if !is_known_copy(&piece, at, span, part.start) {
                    match doubtful.last_mut() {
                        Some(last) if last.end == part.start => last.end = part.end,
                        _ => doubtful.push(part),
                    }
                }
                index += 1;
            }
            at = end;
        }
    }
    Ok(doubtful)
}

fn is_known_copy(piece: &Piece<'_>, piece_start: u64, span: &Span, at: u64) -> bool {
    match (piece, span.new) {
        (Piece::Copy { offset, .. }, Some(new)) => {
            offset + (at - piece_start) == new + (at - span.old)
        }
        _ => false,
    }
}

fn touches(ranges: &[Range<u64>], range: Range<u64>) -> bool {
    let next = ranges.partition_point(|known| known.end <= range.start);
    ranges
        .get(next)
        .is_some_and(|known| known.start < range.end)
}

/// What is around a member's data: header, sparse map, padding.
fn prove_header_and_padding(
    stream: &VersionStream,
    doubtful: &[Range<u64>],
    offset: u64,
    member: &Member,
) -> Result<(), StoreError> {
    let fails = || StoreError::Proof(format!("{} is not rebuilt", printable(&member.path)));
    let mut head = header(member);
    head.extend(member.content.sparse_map().unwrap_or_default());
    let data = offset + head.len() as u64;
    if touches(doubtful, offset..data) && stream.read(offset..data)? != head {
        return Err(fails());
    }
    let padding = data + member.content.data_bytes()..offset + member.stream_bytes();
    if touches(doubtful, padding.clone()) && stream.read(padding)?.iter().any(|byte| *byte != 0) {
        return Err(fails());
    }
    Ok(())
}

/// Blocks, in order: decoded and hashed by all threads.
fn prove_blocks(
    store: &Store,
    stream: &VersionStream,
    previous: &Version,
    blocks: &[Part],
) -> Result<(), StoreError> {
    let wrong = rebuilt::wrong(stream, blocks).map_err(as_proof)?;
    if wrong.is_empty() {
        return Ok(());
    }
    let members = parts::members_of(store, previous, &wrong)?;
    let name = members
        .first()
        .map_or_else(String::new, |path| printable(path));
    Err(StoreError::Proof(format!("{name} is not rebuilt")))
}
