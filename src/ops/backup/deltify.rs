//! Turning the previous version into a reverse delta.
//!
//! What the new stream took over from the old one is known from the scan: those parts are copies, without reading
//! anything. Only the rest of the old stream is read, and searched for in the rest of the new one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::window::{Part, Window};
use crate::catalog::{DeltaFile, Version};
use crate::delta::{Piece, Script};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::codec::Knobs;
use crate::store::delta::DeltaWriter;
use crate::store::pieces::{Origin, Pieces};
use crate::store::stream::VersionStream;

/// The old stream is searched for in batches of this many bytes.
const BATCH_BYTES: u64 = 64 << 20;
/// Fresh ranges are no longer than this.
const FRESH_MAX_BYTES: u64 = 8 << 20;
/// Unknown spans are no longer than this.
const PART_BYTES: u64 = 1 << 20;
/// Shorter blocks are left to the search.
const SHARED_MIN_BYTES: u64 = 512;

/// A run of the old stream, and where it lies in the new one if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins in the old stream.
    pub old: u64,
    /// Its length.
    pub len: u64,
    /// Where the same bytes begin in the new stream.
    pub new: Option<u64>,
}

/// The whole old stream as spans, and what of the new stream was not in the old one.
pub struct Layout {
    /// In order, without gaps.
    pub spans: Vec<Span>,
    /// (start, length) in the new stream, in order.
    pub fresh: Vec<(u64, u64)>,
}

impl Layout {
    /// Derives it from the plan of the new stream.
    pub fn of(store: &Store, pieces: &Pieces, previous: &Version) -> Result<Self, StoreError> {
        let mut taken: Vec<(u64, u64, u64)> = Vec::new();
        let mut fresh = Vec::new();
        for piece in pieces.iter() {
            match piece.origin {
                Origin::Old(old) => taken.push((old, piece.len, piece.start)),
                Origin::New(..) | Origin::Staged(..) => {
                    push_range(&mut fresh, piece.start, piece.len);
                }
            }
        }
        taken.sort_unstable();
        let spans = partition(&taken, previous.stream_bytes);
        let spans = cut_unknown(find_duplicates(store, spans, previous)?);
        Ok(Self { spans, fresh })
    }

    /// How much of the old stream has to be searched for.
    pub fn unknown_bytes(&self) -> u64 {
        self.spans
            .iter()
            .filter(|span| span.new.is_none())
            .map(|span| span.len)
            .sum()
    }
}

/// Adds a range, joined to the last one while that stays short enough to choose windows from.
fn push_range(ranges: &mut Vec<(u64, u64)>, mut start: u64, mut len: u64) {
    if let Some((last, total)) = ranges.last_mut()
        && *last + *total == start
    {
        let joined = len.min(FRESH_MAX_BYTES.saturating_sub(*total));
        (*total, start, len) = (*total + joined, start + joined, len - joined);
    }
    while len > 0 {
        let part = len.min(FRESH_MAX_BYTES);
        ranges.push((start, part));
        (start, len) = (start + part, len - part);
    }
}

/// Cuts the old stream at what was taken over, sorted by place; where something was taken twice the first counts.
fn partition(taken: &[(u64, u64, u64)], old_bytes: u64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut at = 0;
    for &(old, len, new) in taken {
        let end = old + len;
        if end <= at {
            continue;
        }
        if old > at {
            spans.push(Span {
                old: at,
                len: old - at,
                new: None,
            });
        }
        let skip = at.saturating_sub(old);
        spans.push(Span {
            old: old + skip,
            len: len - skip,
            new: Some(new + skip),
        });
        at = end;
    }
    if at < old_bytes {
        spans.push(Span {
            old: at,
            len: old_bytes - at,
            new: None,
        });
    }
    spans
}

/// Cuts what is unknown into parts that one thread searches for at a time: memory does not follow the change.
fn cut_unknown(spans: Vec<Span>) -> Vec<Span> {
    let cut = |span: Span| {
        let part = if span.new.is_some() {
            span.len
        } else {
            PART_BYTES
        };
        let starts = (0..span.len.div_ceil(part)).map(move |index| index * part);
        starts.map(move |at| Span {
            old: span.old + at,
            len: part.min(span.len - at),
            new: span.new,
        })
    };
    spans.into_iter().flat_map(cut).collect()
}

/// The span that holds a byte of the old stream.
pub fn span_at(spans: &[Span], offset: u64) -> usize {
    spans
        .partition_point(|span| span.old <= offset)
        .saturating_sub(1)
}

/// Where the whole range lies in the new stream, if one span says so.
fn mapped(spans: &[Span], range: Range<u64>) -> Option<u64> {
    let span = spans.get(span_at(spans, range.start))?;
    let new = span.new.filter(|_| range.end <= span.old + span.len)?;
    Some(new + (range.start - span.old))
}

/// Blocks of the old stream that were not taken over themselves, but whose content stands elsewhere in it too and was
/// taken over there: one of two equal files was deleted.
fn find_duplicates(
    store: &Store,
    spans: Vec<Span>,
    previous: &Version,
) -> Result<Vec<Span>, StoreError> {
    if spans
        .iter()
        .all(|span| span.new.is_some() || span.len < SHARED_MIN_BYTES)
    {
        return Ok(spans);
    }
    let mut lost: Vec<(u64, u64, Digest)> = Vec::new();
    each_block(store, previous, &mut |offset, len, digest| {
        let span = &spans[span_at(&spans, offset)];
        if span.new.is_none() && offset + len <= span.old + span.len {
            lost.push((offset, len, digest));
        }
    })?;
    let wanted: HashSet<Digest> = lost.iter().map(|(.., digest)| *digest).collect();
    let mut places: HashMap<Digest, u64> = HashMap::new();
    if !wanted.is_empty() {
        each_block(store, previous, &mut |offset, len, digest| {
            if wanted.contains(&digest)
                && let Some(new) = mapped(&spans, offset..offset + len)
            {
                places.insert(digest, new);
            }
        })?;
    }
    let kept = spans
        .iter()
        .filter_map(|span| span.new.map(|new| (span.old, span.len, new)));
    let found = lost
        .iter()
        .filter_map(|(offset, len, digest)| places.get(digest).map(|new| (*offset, *len, *new)));
    let mut taken: Vec<_> = kept.chain(found).collect();
    taken.sort_unstable();
    Ok(partition(&taken, previous.stream_bytes))
}

fn each_block(
    store: &Store,
    version: &Version,
    see: &mut impl FnMut(u64, u64, Digest),
) -> Result<(), StoreError> {
    let mut members = CatalogReader::open(store, &version.catalog)?;
    while let Some((offset, member)) = members.next_member()? {
        member
            .placed_blocks(offset)
            .filter(|block| block.len >= SHARED_MIN_BYTES)
            .for_each(|block| see(block.offset, block.len, block.digest));
    }
    Ok(())
}

/// Writes the delta's files.
pub fn write(
    store: &Store,
    layout: &Layout,
    old: &VersionStream,
    new: &VersionStream,
    knobs: Knobs,
    monitor: &dyn Monitor,
) -> Result<Vec<DeltaFile>, StoreError> {
    let mut writer = DeltaWriter::create(store, knobs);
    let mut window = Window::new(&layout.fresh, new);
    let mut rest = &layout.spans[..];
    let mut hint = 0;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_len(rest));
        rest = later;
        let mut unknown = Vec::new();
        for span in batch {
            if let Some(new) = span.new {
                hint = new;
            } else {
                unknown.push((*span, hint));
            }
            // The next part of a long unknown stretch is expected on the same diagonal.
            hint += span.len;
        }
        let read = |(span, hint): &(Span, u64)| {
            let old = old.read(span.old..span.old + span.len)?;
            Ok(Part { old, hint: *hint })
        };
        let parts: Result<Vec<Part>, StoreError> = unknown.par_iter().map(read).collect();
        let parts = parts?;
        let scripts = match parts.first() {
            Some(first) => window.search(first.hint, &parts)?,
            None => Vec::new(),
        };
        write_batch(batch, &scripts, &mut writer)?;
        monitor.advance(parts.iter().map(|part| part.old.len() as u64).sum());
    }
    writer.finish()
}

/// How many spans make a batch.
fn batch_len(spans: &[Span]) -> usize {
    let mut bytes = 0;
    let fits = spans.iter().take_while(|span| {
        let before = bytes;
        bytes += if span.new.is_none() { span.len } else { 0 };
        before < BATCH_BYTES
    });
    fits.count()
}

fn write_batch(
    batch: &[Span],
    scripts: &[Script],
    writer: &mut DeltaWriter,
) -> Result<(), StoreError> {
    let mut scripts = scripts.iter();
    for span in batch {
        let Some(new) = span.new else {
            let script = scripts.next().expect("one script per unknown span");
            script.pieces().try_for_each(|piece| writer.push(piece))?;
            continue;
        };
        writer.push(Piece::Copy {
            offset: new,
            len: span.len,
        })?;
    }
    Ok(())
}
