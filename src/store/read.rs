//! Reading a store's files.

use std::io;
use std::sync::Arc;

use super::disk::{DiskRead, FilePart};
use super::{Store, state_path};
use crate::digest::{Digest, DigestWriter};
use crate::error::StoreError;

/// More than any state of 10,000 versions needs.
const TEXT_MAX_BYTES: u64 = 64 << 20;
/// Files are read through by pieces of this length.
const PIECE_BYTES: usize = 1 << 20;
/// And so much of them is expected at once.
const AHEAD_BYTES: u64 = 16 << 20;

impl Store {
    /// A file that is never changed; the one that was read last is still open.
    fn open_again(&self, path: &str) -> Result<Arc<dyn DiskRead>, StoreError> {
        let last = || self.last.lock().expect("no thread panics with it");
        if let Some((_, file)) = last().as_ref().filter(|(name, _)| name == path) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(path);
        let file = Arc::from(file.map_err(|error| StoreError::io("open", path, error))?);
        *last() = Some((path.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    /// Says which frames or pages, by path and place, will be read soon.
    pub(super) fn expect(&self, mut places: impl Iterator<Item = FilePart>) {
        self.disk.expect(&mut places);
    }

    pub(crate) fn read_range(
        &self,
        path: &str,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, StoreError> {
        let file = self.open_again(path)?;
        let too_short = || {
            let (has, needs) = (file.len(), offset.saturating_add(len.into()));
            StoreError::damaged(path, format!("it has {has} bytes, {needs} are expected"))
        };
        if offset.checked_add(len.into()).is_none() {
            return Err(too_short());
        }
        let mut bytes = vec![0; len as usize];
        // Its length is not asked for: a remote would have to be asked for that alone.
        match file.read_at(offset, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(too_short()),
            Err(error) => Err(StoreError::io("read", path, error)),
        }
    }

    /// A file's length in bytes.
    pub fn len_of(&self, path: &str) -> Result<u64, StoreError> {
        let file = self.disk.open(path);
        file.map(|file| file.len())
            .map_err(|error| StoreError::io("open", path, error))
    }

    /// The bytes of a state.
    pub fn state_text(&self, number: u64) -> Result<Vec<u8>, StoreError> {
        self.read_all(&state_path(number))
    }

    /// The BLAKE3 of a file, and its length.
    pub fn digest_of(&self, path: &str) -> Result<(Digest, u64), StoreError> {
        let mut digest = DigestWriter::default();
        let len = self.read_pieces(path, &mut |bytes| digest.update(bytes))?;
        Ok((digest.digest(), len))
    }

    /// Hands out a file's bytes from its beginning to its end, and returns its length.
    pub(crate) fn read_pieces(
        &self,
        path: &str,
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, StoreError> {
        let file = self
            .disk
            .open(path)
            .map_err(|error| StoreError::io("open", path, error))?;
        let mut buffer = vec![0; PIECE_BYTES];
        let (mut at, end) = (0, file.len());
        while at < end {
            if at % AHEAD_BYTES == 0 {
                let ahead = at..end.min(at + AHEAD_BYTES);
                self.expect(std::iter::once((path.to_owned(), ahead)));
            }
            let len = usize::try_from(end - at).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
            file.read_at(at, &mut buffer[..len])
                .map_err(|error| StoreError::io("read", path, error))?;
            see(&buffer[..len]);
            at += len as u64;
        }
        Ok(at)
    }

    /// A text of the store, of bounded length.
    pub(crate) fn read_all(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.read_bounded(path, TEXT_MAX_BYTES)
    }

    /// A file of bounded length.
    pub(super) fn read_bounded(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let file = self
            .disk
            .open(path)
            .map_err(|error| StoreError::io("open", path, error))?;
        if file.len() > max_bytes {
            return Err(StoreError::damaged(path, "it is far too large"));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).expect("bounded above")];
        file.read_at(0, &mut bytes)
            .map_err(|error| StoreError::io("read", path, error))?;
        Ok(bytes)
    }
}
