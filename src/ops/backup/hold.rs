//! How a new version is held: by slices of frames and a delta for the version before it, or by an archive of its own.

use jiff::Timestamp;

use super::previous::Previous;
use super::{Run, deltify, prove};
use crate::catalog::{DeltaFile, Slice, VersionKind, Whole};
use crate::error::StoreError;
use crate::store::archive::{self, Parts};
use crate::store::manifests::ManifestWriter;
use crate::store::packer::Written;
use crate::store::pieces::Pieces;
use crate::store::stream::VersionStream;
use crate::store::tree::WrittenTree;

/// How a new version is held, and what became of the one before.
pub(super) struct Held {
    pub kind: VersionKind,
    pub whole: Whole,
    /// The delta that rebuilds the version before.
    pub delta: Vec<DeltaFile>,
    /// What was written for it, without the catalog.
    pub added_bytes: u64,
}

impl Run<'_> {
    /// Holds the new version by the frames there are, and makes the version before a delta. `pieces` say what is new,
    /// `placed` where everything lies.
    pub(super) fn hold(
        &self,
        previous: Option<&Previous>,
        pieces: &Pieces,
        placed: &Pieces,
        written: &Written,
        problems: &mut Vec<String>,
    ) -> Result<Held, StoreError> {
        let like = previous.map(|previous| &previous.manifest);
        let old = previous.map(|previous| previous.stream.manifest());
        let writer = ManifestWriter::create(self.store, like)?;
        let (manifest, stored_bytes) =
            placed.write_manifest(writer, old, &written.frames, &self.staged.frames)?;
        let (delta, proved) = self.proved_delta(previous, pieces, &manifest, problems)?;
        let delta_bytes: u64 = delta.iter().map(|file| file.stored_bytes).sum();
        let taken_over = pieces.staged_bytes(&self.staged.frames);
        Ok(Held {
            kind: if proved {
                self.next_kind()
            } else {
                VersionKind::Full
            },
            whole: Whole {
                manifest: manifest.root,
                stored_bytes,
                archive: None,
            },
            delta,
            added_bytes: written.bytes + taken_over + manifest.written_bytes + delta_bytes,
        })
    }

    /// Puts the new version together in an archive of its own. The objects of this run are then of no use any more.
    pub(super) fn archive(
        &self,
        previous: Option<&Previous>,
        pieces: &Pieces,
        written: &Written,
        time: Timestamp,
    ) -> Result<Held, StoreError> {
        let name = archive::name(time);
        let old = previous.map(|previous| (previous.stream.manifest(), previous.version.archive()));
        let parts = Parts {
            pieces,
            old,
            new: &written.frames,
            staged: &self.staged.frames,
        };
        let frames = archive::write(self.store, &parts, &name, self.options.knobs)?;
        let mut writer = ManifestWriter::create(self.store, None)?;
        for frame in &frames {
            writer.add(Slice {
                frame: *frame,
                skip: 0,
                take: frame.raw_bytes,
            })?;
        }
        let manifest = writer.finish()?;
        let stored_bytes = frames
            .iter()
            .map(|frame| u64::from(frame.stored_bytes))
            .sum();
        let added_bytes = stored_bytes + manifest.written_bytes;
        let whole = Whole {
            manifest: manifest.root,
            stored_bytes,
            archive: Some(name),
        };
        Ok(Held {
            kind: VersionKind::Full,
            whole,
            delta: Vec::new(),
            added_bytes,
        })
    }

    /// The delta for the previous version, if there is one. If it cannot be proved there is none, and that version stays
    /// whole: nothing is lost, and the next backup goes on.
    fn proved_delta(
        &self,
        previous: Option<&Previous>,
        pieces: &Pieces,
        manifest: &WrittenTree,
        problems: &mut Vec<String>,
    ) -> Result<(Vec<DeltaFile>, bool), StoreError> {
        let Some(previous) = previous else {
            return Ok((Vec::new(), self.versions.is_empty()));
        };
        match self.delta(previous, pieces, manifest) {
            Ok(files) => Ok((files, true)),
            Err(StoreError::Proof(detail)) => {
                problems.push(format!(
                    "The previous version is kept whole, because its delta could not be proved: {detail}"
                ));
                Ok((Vec::new(), false))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes and proves the delta that rebuilds the previous version from the new one.
    fn delta(
        &self,
        previous: &Previous,
        pieces: &Pieces,
        manifest: &WrittenTree,
    ) -> Result<Vec<DeltaFile>, StoreError> {
        let new = VersionStream::whole(self.store, &manifest.root, None);
        let layout = deltify::Layout::of(self.store, pieces, &previous.version)?;
        self.monitor.step("comparing", Some(layout.unknown_bytes()));
        let files = deltify::write(
            self.store,
            &layout,
            &previous.stream,
            &new,
            self.options.knobs,
            self.monitor,
        )?;
        self.monitor.step("proving", Some(layout.unknown_bytes()));
        prove::prove(
            self.store,
            &layout,
            &previous.version,
            &files,
            &manifest.root,
            self.monitor,
        )?;
        Ok(files)
    }
}
