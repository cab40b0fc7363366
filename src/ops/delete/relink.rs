//! Joining versions that were not neighbours: a delta composed of the deltas between them, or a manifest.

use crate::catalog::version::describe;
use crate::catalog::{Version, Whole};
use crate::delta::Piece;
use crate::error::StoreError;
use crate::ops::parts::Parts;
use crate::ops::rebuilt;
use crate::store::Store;
use crate::store::codec::Knobs;
use crate::store::delta::{DeltaReader, DeltaWriter};
use crate::store::fold::Chain;
use crate::store::manifests::{ManifestReader, ManifestWriter};
use crate::store::packer::{Lane, Packer};
use crate::store::pieces::{Origin, Pieces};
use crate::store::sequence::WINDOW_BYTES;
use crate::store::stream::VersionStream;

/// Literals are packed by parts of at most this length.
const PART_BYTES: usize = 1 << 20;

/// Joins versions of a list in which each delta builds on the next version.
pub(super) struct Relinker<'a> {
    pub store: &'a Store,
    pub base: &'a [Version],
    pub knobs: Knobs,
}

impl Relinker<'_> {
    /// A version of the list as it must be when `newer` follow it: rebuilt from the first of them if deltas lead there, else
    /// whole. What was made is proved.
    pub fn relinked(&self, index: usize, newer: &[Version]) -> Result<Version, StoreError> {
        self.joined(index, newer).map_err(|error| match error {
            StoreError::Damaged { file, detail } => {
                let name = describe(&self.base[index]);
                StoreError::damaged(file, format!("{detail}; {name} needs it: delete it too"))
            }
            other => other,
        })
    }

    fn joined(&self, index: usize, newer: &[Version]) -> Result<Version, StoreError> {
        let version = &self.base[index];
        let next = newer
            .first()
            .and_then(|next| self.base.iter().position(|other| other.seq == next.seq));
        match next {
            Some(next) if self.base[index..next].iter().all(has_delta) => {
                if next == index + 1 {
                    return Ok(version.clone());
                }
                self.composed(index, next, newer)
            }
            _ if version.whole.is_some() => Ok(Version {
                delta: Vec::new(),
                ..version.clone()
            }),
            _ => self.made_whole(index),
        }
    }

    fn composed(
        &self,
        index: usize,
        next: usize,
        newer: &[Version],
    ) -> Result<Version, StoreError> {
        let version = &self.base[index];
        let chain = Chain::open(self.store, &self.base[index..next])?;
        let mut writer = DeltaWriter::create(self.store, self.knobs);
        each_window(version, &chain, &mut |piece| writer.push(piece))?;
        let composed = Version {
            delta: writer.finish()?,
            ..version.clone()
        };
        self.prove_delta(&composed, newer)?;
        Ok(composed)
    }

    /// Every part of the version is copied from an equal part of the next one, or is rebuilt and compared.
    fn prove_delta(&self, version: &Version, newer: &[Version]) -> Result<(), StoreError> {
        let parts = Parts::of(self.store, version)?;
        let known = Parts::of(self.store, &newer[0])?;
        let delta = DeltaReader::open(self.store, &version.delta)?;
        let doubtful = rebuilt::doubtful(&delta, &parts, &known)?;
        let list: Vec<Version> = std::iter::once(version).chain(newer).cloned().collect();
        let stream = VersionStream::by_delta(self.store, &list, 0)?;
        if rebuilt::wrong(&stream, &doubtful)?.is_empty() {
            return Ok(());
        }
        Err(self.not_proved(version, &newer[0]))
    }

    /// Why a version is not rebuilt: because it was not before, or else because of what was made.
    fn not_proved(&self, version: &Version, next: &Version) -> StoreError {
        let index = self.base.iter().position(|other| other.seq == version.seq);
        let was_damaged = index.is_some_and(|index| {
            let parts = Parts::of(self.store, version);
            let stream = VersionStream::open(self.store, self.base, index);
            let wrong = stream.and_then(|stream| rebuilt::wrong(&stream, &parts?.list));
            wrong.is_ok_and(|wrong| !wrong.is_empty())
        });
        if was_damaged {
            return StoreError::damaged("deltas", "what they make is another content");
        }
        StoreError::Proof(format!(
            "{} is not rebuilt from {}",
            describe(version),
            describe(next)
        ))
    }

    /// What the version has of the nearest newer whole one stays where it is; the rest is packed.
    fn made_whole(&self, index: usize) -> Result<Version, StoreError> {
        let version = &self.base[index];
        let count = self.base[index..]
            .iter()
            .take_while(|version| version.whole.is_none() && has_delta(version))
            .count();
        let nearest = self.base.get(index + count);
        let Some((nearest, whole)) =
            nearest.and_then(|nearest| Some((nearest, nearest.whole.as_ref()?)))
        else {
            let detail = format!("nothing rebuilds {}", describe(version));
            return Err(StoreError::damaged("state", detail));
        };
        let chain = Chain::open(self.store, &self.base[index..index + count])?;
        let mut packer = Packer::start(self.store, self.knobs)?;
        let mut pieces = Pieces::default();
        each_window(version, &chain, &mut |piece| {
            match piece {
                Piece::Copy { offset, len } => pieces.push(Origin::Old(offset), len),
                Piece::Literal(bytes) => {
                    for part in bytes.chunks(PART_BYTES) {
                        let packed = packer.add(Lane::Small, part, None)?;
                        let origin = Origin::New(packed.frame, packed.skip);
                        pieces.push(origin, part.len() as u64);
                    }
                }
            }
            Ok(())
        })?;
        let written = packer.finish()?;
        let old = ManifestReader::open(self.store, &whole.manifest);
        let writer = ManifestWriter::create(self.store, Some(&whole.manifest))?;
        let (manifest, stored_bytes) =
            pieces.write_manifest(writer, Some(&old), &written.frames, &[])?;
        let stream = VersionStream::whole(self.store, &manifest.root, None);
        if !rebuilt::wrong(&stream, &Parts::of(self.store, version)?.list)?.is_empty() {
            return Err(self.not_proved(version, nearest));
        }
        Ok(Version {
            whole: Some(Whole {
                manifest: manifest.root,
                stored_bytes,
                archive: None,
            }),
            delta: Vec::new(),
            ..version.clone()
        })
    }
}

fn has_delta(version: &Version) -> bool {
    !version.delta.is_empty()
}

fn each_window(
    version: &Version,
    chain: &Chain,
    see: &mut impl FnMut(Piece<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut at = 0;
    while at < version.stream_bytes {
        let end = (at + WINDOW_BYTES).min(version.stream_bytes);
        chain.each(at..end, see)?;
        at = end;
    }
    Ok(())
}
