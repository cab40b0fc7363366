//! Folding a chain of deltas: a range of the oldest stream traced through all of them, window by window.

use std::ops::Range;
use std::sync::Arc;

use super::Store;
use super::delta::{DeltaReader, ScriptCache, script_cache};
use crate::catalog::Version;
use crate::delta::{Piece, Script};
use crate::error::StoreError;

/// Deltas, from the oldest version to newer ones.
pub struct Chain {
    deltas: Vec<DeltaReader>,
    scripts: ScriptCache,
}

/// A part of a window after folding.
pub(super) enum Fold {
    Literal(Literal),
    Copy { offset: u64, len: u64 },
}

/// Output of a script that is no copy.
pub(super) struct Literal {
    pub script: Arc<Script>,
    pub range: Range<u64>,
}

impl Chain {
    /// These deltas.
    pub(super) fn of(deltas: Vec<DeltaReader>) -> Self {
        Self {
            deltas,
            scripts: script_cache(),
        }
    }

    /// The deltas of these versions, which follow each other.
    pub fn open(store: &Store, versions: &[Version]) -> Result<Self, StoreError> {
        let deltas = versions
            .iter()
            .map(|version| DeltaReader::open(store, &version.delta));
        Ok(Self::of(deltas.collect::<Result<_, _>>()?))
    }

    /// Calls `see` with what makes a range of the oldest stream from the newest one.
    pub fn each(
        &self,
        range: Range<u64>,
        see: &mut impl FnMut(Piece<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for fold in self.fold(range)? {
            match fold {
                Fold::Copy { offset, len } => see(Piece::Copy { offset, len })?,
                Fold::Literal(literal) => literal
                    .script
                    .slice(literal.range.clone())
                    .try_for_each(&mut *see)?,
            }
        }
        Ok(())
    }

    /// The same as parts that hold on to their scripts.
    pub(super) fn fold(&self, range: Range<u64>) -> Result<Vec<Fold>, StoreError> {
        let mut folds = vec![Fold::Copy {
            offset: range.start,
            len: range.end - range.start,
        }];
        for delta in &self.deltas {
            folds = self.through(folds, delta)?;
        }
        Ok(folds)
    }

    /// Traces the copies of a window through one more delta.
    fn through(&self, folds: Vec<Fold>, delta: &DeltaReader) -> Result<Vec<Fold>, StoreError> {
        let mut folded = Vec::with_capacity(folds.len());
        for fold in folds {
            let Fold::Copy { offset, len } = fold else {
                folded.push(fold);
                continue;
            };
            delta.slice(offset..offset + len, &self.scripts, &mut |script, range| {
                let mut at = range.start;
                for piece in script.slice(range) {
                    let end = at + piece.output_bytes();
                    folded.push(match piece {
                        Piece::Copy { offset, len } => Fold::Copy { offset, len },
                        Piece::Literal(_) => Fold::Literal(Literal {
                            script: Arc::clone(script),
                            range: at..end,
                        }),
                    });
                    at = end;
                }
            })?;
        }
        Ok(folded)
    }
}
