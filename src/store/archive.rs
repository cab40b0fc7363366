//! Archives: versions of a store of TYPE tar, each a file `<stamp>.tar.zst` that is complete in itself.
//!
//! An archive is zstd frames, which together are the tar stream, and a seek table behind them, so that tools which know
//! it read any part without the rest: zstd's `contrib/seekable_format`. Plain zstd passes over the table. What a scan
//! found and packed is put together here: whole frames are taken over as they are, the rest is encoded anew.

use std::collections::VecDeque;

use jiff::Timestamp;
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};

use super::codec::{self, CONTENT_LEVEL, Knobs, Product};
use super::file::{NewFile, TEMPORARY};
use super::manifests::ManifestReader;
use super::pieces::Pieces;
use super::{Area, Store};
use crate::catalog::{FrameRef, Slice};
use crate::digest::{Digest, hex};
use crate::error::StoreError;

const SUFFIX: &str = ".tar.zst";
const DIGEST_SUFFIX: &str = ".sha256";
/// So many parts per thread are held in memory at once.
const PARTS_PER_THREAD: usize = 2;

/// So many decoded frames are kept while a new one is put together.
const DECODED_FRAMES: usize = 4;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

/// The name of the archive of a version of this time. Without colons, which tar takes for the end of a host's name.
pub fn name(time: Timestamp) -> String {
    format!("{}{SUFFIX}", time.strftime("%Y-%m-%dT%H-%M-%S%.9fZ"))
}

/// The name of the file that holds an archive's SHA-256, as `sha256sum -c` reads it.
pub fn digest_name(archive: &str) -> String {
    format!("{archive}{DIGEST_SUFFIX}")
}

/// Whether a file in a store's directory is an archive or belongs to one.
pub fn is_archive(file: &str) -> bool {
    let stamp = of_file(file).strip_suffix(SUFFIX);
    stamp.is_some_and(|stamp| jiff::fmt::strtime::parse("%Y-%m-%dT%H-%M-%S%.fZ", stamp).is_ok())
}

/// The archive that a file is or belongs to.
pub fn of_file(file: &str) -> &str {
    file.strip_suffix(DIGEST_SUFFIX).unwrap_or(file)
}

/// Whether this digest is a file's name.
pub fn is_named(path: &str, digest: Digest) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    digest.to_string() == name
}

/// Compares a file that versions need with what its name says, an archive with its digest file; returns its length.
pub fn check_file(store: &Store, path: &str) -> Result<u64, StoreError> {
    if is_archive(path) {
        return check(store, path);
    }
    let (digest, bytes) = store.digest_of(path)?;
    if is_named(path, digest) {
        return Ok(bytes);
    }
    let detail = "its content is not what its name says";
    Err(StoreError::damaged(path, detail))
}

/// Compares an archive with its SHA-256, and returns its length.
fn check(store: &Store, archive: &str) -> Result<u64, StoreError> {
    let path = digest_name(archive);
    let line = String::from_utf8_lossy(&store.read_all(&path)?).into_owned();
    let mut hasher = Sha256::new();
    let len = store.read_pieces(archive, &mut |bytes| hasher.update(bytes))?;
    if line == format!("{}  {archive}\n", hex(&hasher.finalize())) {
        return Ok(len);
    }
    let detail = format!("it does not have the SHA-256 that {path} says");
    Err(StoreError::damaged(archive, detail))
}

/// Where the bytes of a new archive are now.
pub struct Parts<'a> {
    /// The new stream.
    pub pieces: &'a Pieces,
    /// The previous version's manifest, and its archive.
    pub old: Option<(&'a ManifestReader, Option<&'a str>)>,
    /// Frames of this run.
    pub new: &'a [FrameRef],
    /// Staged frames.
    pub staged: &'a [FrameRef],
}

/// A frame to be: a frame that is taken over, or slices that are encoded together.
enum Part {
    Whole(Place),
    Slices(Vec<(Place, Slice)>),
}

/// A frame and the file that it is in.
#[derive(Clone)]
struct Place {
    path: String,
    frame: FrameRef,
}

/// Writes the archive `name` and its digest file, and returns its frames.
pub fn write(
    store: &Store,
    parts: &Parts<'_>,
    name: &str,
    knobs: Knobs,
) -> Result<Vec<FrameRef>, StoreError> {
    let mut writer = ArchiveWriter {
        store,
        knobs,
        file: NewFile::create(store.disk(), Area::Objects, 0)?,
        sha256: Sha256::new(),
        frames: Vec::new(),
        waiting: Vec::new(),
        open: Vec::new(),
        open_bytes: 0,
        run: None,
    };
    let (old, archive) = parts.old.map_or((None, None), |(manifest, archive)| {
        (Some(manifest), archive)
    });
    parts
        .pieces
        .slices(old, parts.new, parts.staged, &mut |slice, is_old| {
            let path = match archive.filter(|_| is_old) {
                Some(archive) => archive.to_owned(),
                None => Area::Objects.path(slice.frame.object),
            };
            writer.add(&path, slice)
        })?;
    writer.finish(name)
}

struct ArchiveWriter<'a> {
    store: &'a Store,
    knobs: Knobs,
    file: NewFile,
    sha256: Sha256,
    frames: Vec<FrameRef>,
    /// Parts to be encoded together in parallel.
    waiting: Vec<Part>,
    /// Slices of the frame that is being put together.
    open: Vec<(Place, Slice)>,
    open_bytes: usize,
    /// The last slice, which the next one may continue.
    run: Option<(Place, Slice)>,
}

impl ArchiveWriter<'_> {
    fn add(&mut self, path: &str, slice: Slice) -> Result<(), StoreError> {
        if let Some((place, last)) = &mut self.run
            && place.path == path
            && last.frame == slice.frame
            && last.skip + last.take == slice.skip
        {
            last.take += slice.take;
            return Ok(());
        }
        let place = Place {
            path: path.to_owned(),
            frame: slice.frame,
        };
        match self.run.replace((place, slice)) {
            Some((place, slice)) => self.push(place, slice),
            None => Ok(()),
        }
    }

    /// Adds slices that do not continue each other.
    fn push(&mut self, place: Place, slice: Slice) -> Result<(), StoreError> {
        if slice.take == slice.frame.raw_bytes {
            self.close()?;
            return self.wait(Part::Whole(place));
        }
        if self.open_bytes + slice.take as usize > self.knobs.frame_bytes {
            self.close()?;
        }
        self.open_bytes += slice.take as usize;
        self.open.push((place, slice));
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let open = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        if open.is_empty() {
            Ok(())
        } else {
            self.wait(Part::Slices(open))
        }
    }

    fn wait(&mut self, part: Part) -> Result<(), StoreError> {
        self.waiting.push(part);
        if self.waiting.len() < PARTS_PER_THREAD * rayon::current_num_threads() {
            return Ok(());
        }
        self.encode()
    }

    fn encode(&mut self) -> Result<(), StoreError> {
        let (store, knobs) = (self.store, self.knobs);
        let encoded: Result<Vec<_>, StoreError> = self
            .waiting
            .par_iter()
            .map(|part| part.encode(store, knobs))
            .collect();
        self.waiting.clear();
        for (stored, raw_bytes, digest) in encoded? {
            let stored_bytes = u32::try_from(stored.len()).expect("frames are bounded");
            let offset = self.file.written_bytes();
            self.frames.push(FrameRef {
                object: digest,
                offset,
                stored_bytes,
                raw_bytes,
                digest,
            });
            self.write(&stored)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sha256.update(bytes);
        self.file.write(bytes)
    }

    fn finish(mut self, name: &str) -> Result<Vec<FrameRef>, StoreError> {
        if let Some((place, slice)) = self.run.take() {
            self.push(place, slice)?;
        }
        self.close()?;
        self.encode()?;
        let table = seek_table(&self.frames);
        self.write(&table)?;
        let line = format!("{}  {name}\n", hex(&self.sha256.finalize()));
        let object = self.file.finish_as(name)?;
        write_digest(self.store, &digest_name(name), line.as_bytes())?;
        self.store.sync_dir("")?;
        Ok(self
            .frames
            .into_iter()
            .map(|frame| FrameRef { object, ..frame })
            .collect())
    }
}

impl Part {
    /// The frame's stored bytes, its length and the digest of its content, proved by decoding.
    fn encode(&self, store: &Store, knobs: Knobs) -> Result<(Vec<u8>, u32, Digest), StoreError> {
        match self {
            Self::Whole(place) => {
                let (stored, _) = place.read(store)?;
                Ok((stored, place.frame.raw_bytes, place.frame.digest))
            }
            Self::Slices(slices) => {
                let mut raw = Vec::new();
                // Headers and bodies may lie in frames that take turns.
                let mut decoded: VecDeque<(FrameRef, Vec<u8>)> = VecDeque::new();
                for (place, slice) in slices {
                    let held = decoded.iter().position(|(frame, _)| *frame == place.frame);
                    let bytes = if let Some(held) = held {
                        &decoded[held].1
                    } else {
                        decoded.truncate(DECODED_FRAMES - 1);
                        decoded.push_front((place.frame, place.read(store)?.1));
                        &decoded[0].1
                    };
                    let start = slice.skip as usize;
                    raw.extend_from_slice(&bytes[start..start + slice.take as usize]);
                }
                let tamper = |stored: &mut Vec<u8>| (knobs.tamper)(Product::Frame, stored);
                let stored = codec::encode_proved(&raw, CONTENT_LEVEL, tamper)?;
                let raw_bytes = u32::try_from(raw.len()).expect("frames are bounded");
                Ok((stored, raw_bytes, Digest::of(&raw)))
            }
        }
    }
}

impl Place {
    /// The frame as it is stored, and decoded; its content is what its digest says.
    fn read(&self, store: &Store) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let stored = store.read_range(&self.path, self.frame.offset, self.frame.stored_bytes)?;
        let raw = codec::decode(&stored, self.frame.raw_bytes, &self.path)?;
        if Digest::of(&raw) == self.frame.digest {
            return Ok((stored, raw));
        }
        let detail = format!(
            "the frame at byte {} holds something else",
            self.frame.offset
        );
        Err(StoreError::damaged(&self.path, detail))
    }
}

/// A skippable frame with the stored and raw length of each frame before it.
fn seek_table(frames: &[FrameRef]) -> Vec<u8> {
    let count = u32::try_from(frames.len()).expect("fewer frames than 2^32");
    let mut table = SKIPPABLE_MAGIC.to_le_bytes().to_vec();
    table.extend_from_slice(&(8 * count + 9).to_le_bytes());
    for frame in frames {
        table.extend_from_slice(&frame.stored_bytes.to_le_bytes());
        table.extend_from_slice(&frame.raw_bytes.to_le_bytes());
    }
    table.extend_from_slice(&count.to_le_bytes());
    // No checksums in the table: each frame has its own.
    table.push(0);
    table.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
    table
}

fn write_digest(store: &Store, path: &str, line: &[u8]) -> Result<(), StoreError> {
    let temporary = format!("{}/{TEMPORARY}digest", Area::Objects.dir());
    let write = || {
        let mut file = store.disk().create(&temporary, false)?;
        file.write(line)?;
        file.sync()?;
        drop(file);
        store.disk().publish(&temporary, path, true)
    };
    write().map_err(|error| StoreError::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::{digest_name, is_archive, name};
    use jiff::Timestamp;

    #[test]
    fn archives_are_known_by_their_names() {
        let time: Timestamp = "2026-11-20T10:00:00.000000005Z".parse().unwrap();
        assert_eq!(name(time), "2026-11-20T10-00-00.000000005Z.tar.zst");
        assert!(is_archive(&name(time)) && is_archive(&digest_name(&name(time))));
        for other in [
            "2026-11-20T10:00:00.tbz",
            "a.tar.zst",
            "2026-11-20.tar.zst",
            ".tar.zst",
            "log.txt.sha256",
        ] {
            assert!(!is_archive(other), "{other}");
        }
    }
}
