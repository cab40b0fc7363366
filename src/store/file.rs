//! Immutable files named by the BLAKE3 of their bytes: written under a temporary name, synced, then published.

use std::sync::Arc;

use super::Area;
use super::disk::{Disk, DiskFile};
use crate::digest::{Digest, DigestWriter};
use crate::error::StoreError;

/// Temporary names begin with this; a new run removes what it finds.
pub const TEMPORARY: &str = "tmp-";

/// A file that is being written into an area of the store.
pub struct NewFile {
    disk: Arc<dyn Disk>,
    area: Area,
    path: String,
    file: Box<dyn DiskFile>,
    digest: DigestWriter,
    len: u64,
}

impl NewFile {
    /// Begins a file; `number` makes its temporary name unique within the area and run.
    pub fn create(disk: &Arc<dyn Disk>, area: Area, number: u64) -> Result<Self, StoreError> {
        let path = format!("{}/{TEMPORARY}{number}", area.dir());
        let file = disk
            .create(&path, false)
            .map_err(|error| StoreError::io("create", &path, error))?;
        Ok(Self {
            disk: Arc::clone(disk),
            area,
            path,
            file,
            digest: DigestWriter::default(),
            len: 0,
        })
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write(bytes)
            .map_err(|error| StoreError::io("write", &self.path, error))?;
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes were written.
    pub fn written_bytes(&self) -> u64 {
        self.len
    }

    /// Syncs the content and gives the file its name. The name is durable once the area's directory is synced.
    ///
    /// An existing file of that name is replaced: whatever it holds, these bytes have that digest, and its presence
    /// proves nothing about its content.
    pub fn finish(self) -> Result<Digest, StoreError> {
        let path = self.area.path(self.digest.digest());
        self.finish_as(&path)
    }

    /// The same with another name.
    pub fn finish_as(mut self, path: &str) -> Result<Digest, StoreError> {
        self.file
            .sync()
            .map_err(|error| StoreError::io("sync", &self.path, error))?;
        drop(self.file);
        self.disk
            .publish(&self.path, path, true)
            .map_err(|error| StoreError::io("publish", path, error))?;
        Ok(self.digest.digest())
    }
}
