//! Reading a store's files.

use std::sync::Arc;

use super::Store;
use super::disk::DiskRead;
use crate::digest::{Digest, DigestWriter};
use crate::error::StoreError;

/// More than any state of 10,000 versions needs.
const TEXT_MAX_BYTES: u64 = 64 << 20;
/// Files are read through by pieces of this length.
const PIECE_BYTES: usize = 1 << 20;

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

    pub(crate) fn read_range(
        &self,
        path: &str,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, StoreError> {
        let file = self.open_again(path)?;
        if offset
            .checked_add(len.into())
            .is_none_or(|end| end > file.len())
        {
            return Err(StoreError::damaged(
                path,
                format!(
                    "it has {} bytes, {} are expected",
                    file.len(),
                    offset + u64::from(len)
                ),
            ));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(offset, &mut bytes)
            .map_err(|error| StoreError::io("read", path, error))?;
        Ok(bytes)
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
        let mut at = 0;
        while at < file.len() {
            let len =
                usize::try_from(file.len() - at).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
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
