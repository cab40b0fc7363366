//! Operations that rebuild one stream from another, and what always holds for them.

use std::ops::Range;

/// One operation, with where its output begins; its length follows from where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Op {
    output: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// An offset in the base.
    Base(u64),
    /// An index into the script's own bytes.
    Own(usize),
}

/// A part of what a script produces, as handed to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes of the base.
    Copy {
        /// Where they begin in the base.
        offset: u64,
        /// How many, at least one.
        len: u64,
    },
    /// These bytes, at least one.
    Literal(&'a [u8]),
}

impl Piece<'_> {
    /// How many bytes the piece produces.
    pub fn output_bytes(&self) -> u64 {
        match self {
            Piece::Copy { len, .. } => *len,
            Piece::Literal(bytes) => bytes.len() as u64,
        }
    }
}

/// Copies and literals in the order of the stream that they produce.
///
/// Invariants: no operation is empty; built with [`copy`](Self::copy) and [`literal`](Self::literal), neighbouring
/// copies that continue each other are one operation, and so are neighbouring literals.
#[derive(Debug, Clone, Default)]
pub struct Script {
    ops: Vec<Op>,
    output_bytes: u64,
    bytes: Vec<u8>,
}

impl Script {
    /// A script that produces nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A script whose literals lie in `bytes`, for a decoder that adds them with [`literal_at`](Self::literal_at).
    pub(super) fn over(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// The bytes that literals lie in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it produces nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many bytes the script produces.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// How much memory it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.ops.len() * size_of::<Op>()
    }

    /// Appends a copy of `len` bytes at `offset` of the base; nothing if `len` is 0.
    pub fn copy(&mut self, offset: u64, len: u64) {
        let continues = self.ops.last().is_some_and(|op| match op.source {
            Source::Base(base) => base + (self.output_bytes - op.output) == offset,
            Source::Own(_) => false,
        });
        self.append(Source::Base(offset), len, continues);
    }

    /// Appends literal `bytes`; nothing if there are none.
    pub fn literal(&mut self, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.literal_at(start, bytes.len());
    }

    /// Appends a literal that lies in the script's bytes already.
    pub(super) fn literal_at(&mut self, start: usize, len: usize) {
        let continues = self.ops.last().is_some_and(|op| match op.source {
            Source::Own(own) => (own as u64) + (self.output_bytes - op.output) == start as u64,
            Source::Base(_) => false,
        });
        self.append(Source::Own(start), len as u64, continues);
    }

    fn append(&mut self, source: Source, len: u64, continues: bool) {
        if len > 0 && !continues {
            self.ops.push(Op {
                output: self.output_bytes,
                source,
            });
        }
        self.output_bytes += len;
    }

    /// Appends any piece.
    pub fn push(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Copy { offset, len } => self.copy(offset, len),
            Piece::Literal(bytes) => self.literal(bytes),
        }
    }

    /// Everything it produces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.slice(0..self.output_bytes)
    }

    /// The pieces that produce `range` of the output, cut at its ends. What lies beyond the output is left out.
    pub fn slice(&self, range: Range<u64>) -> impl Iterator<Item = Piece<'_>> {
        let end = range.end.min(self.output_bytes);
        let start = range.start.min(end);
        let first = self
            .ops
            .partition_point(|op| op.output <= start)
            .saturating_sub(1);
        self.ops[first..]
            .iter()
            .enumerate()
            .take_while(move |(_, op)| op.output < end)
            .filter_map(move |(index, op)| {
                let op_end = self
                    .ops
                    .get(first + index + 1)
                    .map_or(self.output_bytes, |next| next.output);
                self.cut(op, start.max(op.output), end.min(op_end))
            })
    }

    fn cut(&self, op: &Op, from: u64, to: u64) -> Option<Piece<'_>> {
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        let skip = from - op.output;
        Some(match op.source {
            Source::Base(offset) => Piece::Copy {
                offset: offset + skip,
                len,
            },
            Source::Own(start) => {
                let start = start + usize::try_from(skip).expect("a literal lies in memory");
                Piece::Literal(
                    &self.bytes
                        [start..start + usize::try_from(len).expect("a literal lies in memory")],
                )
            }
        })
    }

    /// The end of the furthest copy: the base must have at least this many bytes.
    pub fn base_bytes_needed(&self) -> u64 {
        let ends = self.pieces().map(|piece| match piece {
            Piece::Copy { offset, len } => offset + len,
            Piece::Literal(_) => 0,
        });
        ends.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, Script};

    #[test]
    fn neighbours_are_merged_and_slices_are_cut() {
        let mut script = Script::new();
        script.copy(10, 5);
        script.copy(15, 5);
        script.literal(b"ab");
        script.literal(b"");
        script.literal(b"cd");
        script.copy(0, 3);
        assert_eq!(
            (
                script.len(),
                script.output_bytes(),
                script.base_bytes_needed()
            ),
            (3, 17, 20)
        );
        let cut: Vec<_> = script.slice(8..13).collect();
        assert_eq!(
            cut,
            [Piece::Copy { offset: 18, len: 2 }, Piece::Literal(b"abc")]
        );
        assert_eq!(script.slice(17..99).count(), 0);
        assert_eq!(
            script.slice(16..99).collect::<Vec<_>>(),
            [Piece::Copy { offset: 2, len: 1 }]
        );
        assert_eq!(Script::new().pieces().count(), 0);
    }
}
