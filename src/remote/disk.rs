//! A store's files read from a remote, as from a disk. Nothing can be written.
//!
//! A request takes long whatever it asks for. So what will be needed is told before ([`Disk::expect`]): neighbours are asked
//! for together, several at once. Of a tree of pages, which is read from the root at the end of its pack, what lies before
//! the page that is asked for comes along.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};

use super::names::{Held, Listing, is_cut, join};
use super::segments::{Segment, Segments, merged};
use super::{Careful, FarDigests, Remote};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RemoteError, RemoteFault};
use crate::store::disk::{Disk, DiskFile, DiskRead, FilePart};
use crate::store::{Area, Store};

/// What comes along before a page.
const BEFORE_BYTES: u64 = 256 << 10;
/// Files whose digests the other side is asked for at once.
const DIGESTS_AT_ONCE: usize = 2000;

/// A store's directory in a remote.
pub struct RemoteDisk {
    shared: Arc<Shared>,
    orders: Sender<Arc<Segment>>,
}

struct Shared {
    remote: Arc<Careful>,
    dir: String,
    /// The same store on this machine, if it is here.
    local: Option<Store>,
    held: Mutex<HashMap<String, Held>>,
    listed: Mutex<HashMap<String, Vec<String>>>,
    segments: Mutex<Segments>,
}

impl RemoteDisk {
    /// The store in the directory `dir` of a remote.
    pub fn open(remote: Arc<Careful>, dir: &str, local: Option<Store>) -> Self {
        let (orders, receiver) = channel::<Arc<Segment>>();
        let receiver = Arc::new(Mutex::new(receiver));
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            local,
            held: Mutex::default(),
            listed: Mutex::default(),
            segments: Mutex::default(),
            remote,
        });
        for _ in 0..shared.remote.limits().parallel.max(1) {
            let (shared, receiver) = (Arc::clone(&shared), Arc::clone(&receiver));
            std::thread::spawn(move || fetch_ordered(&shared, &receiver));
        }
        Self { shared, orders }
    }
}

/// Fetches what is ordered until nobody can order any more.
fn fetch_ordered(shared: &Shared, orders: &Mutex<Receiver<Arc<Segment>>>) {
    loop {
        let order = orders.lock().expect("no thread panics with it").recv();
        let Ok(segment) = order else { return };
        shared.fill(&segment);
    }
}

impl Shared {
    fn path(&self, path: &str) -> String {
        join(&self.dir, path)
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().expect("no thread panics with it")
    }

    fn known(&self, path: &str) -> Option<Held> {
        let held = self.held.lock().expect("no thread panics with it");
        held.get(path).cloned()
    }

    fn list(&self, prefix: &str) -> Result<Listing, RemoteError> {
        let listing = Listing::of(&self.dir, self.remote.list(&self.path(prefix))?);
        let mut held = self.held.lock().expect("no thread panics with it");
        held.extend(
            listing
                .files
                .iter()
                .map(|(path, held)| (path.clone(), held.clone())),
        );
        Ok(listing)
    }

    /// How a file lies there.
    fn held(&self, path: &str) -> Result<Held, RemoteError> {
        if let Some(held) = self.known(path) {
            return Ok(held);
        }
        let listing = self.list(path)?;
        let found = listing.files.get(path).cloned();
        found.ok_or_else(|| self.missing(path))
    }

    fn missing(&self, path: &str) -> RemoteError {
        let detail = "there is no such file";
        super::fault(
            self.remote.name(),
            "read",
            path,
            RemoteFault::Missing,
            detail,
        )
    }

    fn fill(&self, segment: &Arc<Segment>) {
        let result = self.fetch(&segment.path, &segment.range);
        let failed = result.is_err();
        segment.set(result);
        if failed {
            // Whoever asks again asks the remote again.
            self.segments().forget(segment);
        }
    }

    fn fetch(&self, path: &str, range: &Range<u64>) -> Result<Vec<u8>, RemoteError> {
        if !is_cut(path, 0) && !matches!(self.known(path), Some(Held::Cut(_))) {
            match self.remote.read(&self.path(path), Some(range.clone())) {
                // It may lie there in pieces.
                Err(error) if error.fault == RemoteFault::Missing && self.known(path).is_none() => {
                }
                result => return result,
            }
        }
        match self.held(path)? {
            Held::Whole { .. } => self.remote.read(&self.path(path), Some(range.clone())),
            Held::Cut(pieces) => self.fetch_cut(&pieces, range),
        }
    }

    /// What the other side computes. What lies there in pieces is read.
    fn far_digests(&self, paths: &[String]) -> Vec<Option<Digest>> {
        let is_whole = |path: &&String| {
            matches!(self.known(path), Some(Held::Whole { .. })) && !is_cut(path, 0)
        };
        let asked: Vec<&String> = paths.iter().filter(is_whole).collect();
        let full: Vec<String> = asked.iter().map(|path| self.path(path)).collect();
        let answer = if full.is_empty() {
            None
        } else {
            self.remote.digests(&full).ok().flatten()
        };
        let digests: Vec<Option<Digest>> = match answer {
            None => return vec![None; paths.len()],
            Some(FarDigests::Blake3(digests)) => digests.into_iter().map(Some).collect(),
            Some(FarDigests::Sha256(digests)) => {
                let both = asked.par_iter().zip(digests);
                both.map(|(path, sha256)| self.same_here(path, &sha256))
                    .collect()
            }
        };
        let known: HashMap<&String, Option<Digest>> = asked.into_iter().zip(digests).collect();
        paths
            .iter()
            .map(|path| known.get(path).copied().flatten())
            .collect()
    }

    /// The BLAKE3 of the file of this machine, if it has the SHA-256 of the other.
    fn same_here(&self, path: &str, sha256: &[u8; 32]) -> Option<Digest> {
        let (mut hasher, mut digest) = (Sha256::new(), DigestWriter::default());
        let see = &mut |bytes: &[u8]| {
            hasher.update(bytes);
            digest.update(bytes);
        };
        self.local.as_ref()?.read_pieces(path, see).ok()?;
        (hasher.finalize().as_slice() == sha256).then(|| digest.digest())
    }

    fn fetch_cut(
        &self,
        pieces: &[(String, u64)],
        range: &Range<u64>,
    ) -> Result<Vec<u8>, RemoteError> {
        let (mut bytes, mut begin) = (Vec::new(), 0);
        for (piece, len) in pieces {
            let (from, to) = (range.start.max(begin), range.end.min(begin + len));
            if from < to {
                let part = from - begin..to - begin;
                bytes.extend(self.remote.read(&self.path(piece), Some(part))?);
            }
            begin += len;
        }
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        let path = pieces.first().map_or("", |(path, _)| path);
        let detail = "the file ends before";
        Err(super::fault(
            self.remote.name(),
            "read",
            path,
            RemoteFault::Other,
            detail,
        ))
    }
}

/// What is asked for when a range is needed that nobody expected.
fn widened(path: &str, range: Range<u64>) -> Range<u64> {
    // Inner pages and indexes stand behind what they are about, and are read first.
    let is_read_backwards = [Area::Catalogs, Area::Manifests, Area::Deltas]
        .iter()
        .any(|area| path.starts_with(area.dir()));
    if is_read_backwards {
        range.start.saturating_sub(BEFORE_BYTES)..range.end
    } else {
        range
    }
}

fn to_io(error: RemoteError) -> io::Error {
    match error.fault {
        RemoteFault::Missing => io::ErrorKind::NotFound.into(),
        _ => io::Error::other(error),
    }
}

fn refuse<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "a remote is only read",
    ))
}

/// What belongs to a machine and is not copied.
fn is_local(path: &str) -> bool {
    let dir = path.split('/').next().unwrap_or_default();
    ["cache", "staging", "lock", "readers", "log.txt"].contains(&dir)
}

impl Disk for RemoteDisk {
    fn create_dir(&self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn create(&self, _: &str, _: bool) -> io::Result<Box<dyn DiskFile>> {
        refuse()
    }

    fn publish(&self, _: &str, _: &str, _: bool) -> io::Result<()> {
        refuse()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut listed = self.shared.listed.lock().expect("no thread panics with it");
        if is_local(dir) {
            return Ok(Vec::new());
        }
        if let Some(names) = listed.get(dir) {
            return Ok(names.clone());
        }
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let listing = self.shared.list(&prefix).map_err(to_io)?;
        let below = listing
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix));
        let mut names: Vec<String> = below
            .map(|path| path.split('/').next().unwrap_or_default().to_owned())
            .collect();
        names.dedup();
        listed.insert(dir.to_owned(), names.clone());
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskRead>> {
        if is_local(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(RemoteRead {
            shared: Arc::clone(&self.shared),
            path: path.to_owned(),
        }))
    }

    fn lock(&self, _: &str, _: bool, _: bool) -> io::Result<Option<Box<dyn Send>>> {
        // Whoever removes files there says so, and leaves what states name for a while.
        Ok(Some(Box::new(())))
    }

    fn digests(&self, paths: &[String]) -> Vec<Option<Digest>> {
        // What lies there whole is asked for by name; what cannot be asked for is read.
        let _ = self.shared.list("");
        let batches = paths.chunks(DIGESTS_AT_ONCE);
        batches
            .flat_map(|batch| self.shared.far_digests(batch))
            .collect()
    }

    fn expect(&self, places: &mut dyn Iterator<Item = FilePart>) {
        let mut by_path: HashMap<String, Vec<Range<u64>>> = HashMap::new();
        for (path, range) in places {
            by_path.entry(path).or_default().push(range);
        }
        let mut segments = self.shared.segments();
        for (path, ranges) in by_path {
            let unknown = |range: &Range<u64>| segments.find(&path, range).is_none();
            let ranges = merged(ranges.into_iter().filter(unknown).collect());
            for range in ranges {
                let segment = segments.add(&path, range);
                self.orders
                    .send(segment)
                    .expect("the threads wait for orders");
            }
        }
    }
}

/// A file of a remote.
struct RemoteRead {
    shared: Arc<Shared>,
    path: String,
}

impl DiskRead for RemoteRead {
    fn len(&self) -> u64 {
        // What cannot be asked for now is said when it is read.
        self.shared.held(&self.path).map_or(0, |held| held.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return self.shared.held(&self.path).map(drop).map_err(to_io);
        }
        let range = offset..offset + buffer.len() as u64;
        let (segment, is_new) = {
            let mut segments = self.shared.segments();
            if let Some(segment) = segments.find(&self.path, &range) {
                (segment, false)
            } else {
                let wide = widened(&self.path, range);
                (segments.add(&self.path, wide), true)
            }
        };
        if is_new {
            self.shared.fill(&segment);
        }
        let bytes = segment.wait().map_err(to_io)?;
        let from = usize::try_from(offset - segment.range.start).map_err(io::Error::other)?;
        let part = bytes.get(from..from + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
