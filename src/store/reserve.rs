//! Room that can be given up when the disk is full.

use super::{Area, Store, file};
use crate::digest::Digest;
use crate::error::StoreError;

const RESERVE: &str = "cache/reserve";
const RESERVE_BYTES: usize = 1 << 20;

impl Store {
    /// Keeps a file that can be given up for what is needed to delete versions on a full disk. Without room there is none.
    pub fn keep_reserve(&self) -> Result<(), StoreError> {
        let is_there = self.disk.open(RESERVE);
        if is_there.is_ok_and(|file| file.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        let temporary = format!("{}/{}reserve", Area::Cache.dir(), file::TEMPORARY);
        let _ = self.disk.remove(&temporary);
        let write = || {
            // No file system can store this in less.
            let blocks = (0..RESERVE_BYTES as u64 / 32).map(|n| Digest::of(&n.to_le_bytes()).0);
            let bytes: Vec<u8> = blocks.flatten().collect();
            let mut file = self.disk.create(&temporary, false)?;
            file.write(&bytes)?;
            file.sync()?;
            self.disk.publish(&temporary, RESERVE, true)
        };
        write().map_err(|error| {
            let _ = self.disk.remove(&temporary);
            StoreError::io("write", RESERVE, error)
        })
    }

    /// Gives the reserve up; `false` if there is none.
    pub fn release_reserve(&self) -> bool {
        let released = self.disk.remove(RESERVE).is_ok();
        // The room is there once the removal is on the disk.
        released && self.sync_dir(Area::Cache.dir()).is_ok()
    }
}
