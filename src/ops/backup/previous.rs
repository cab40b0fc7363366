//! The version that a new one is compared with and built upon, and whether it may be.

use jiff::Timestamp;

use crate::catalog::{PageRef, Version};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::stream::VersionStream;
use crate::store::{Store, archive, collect};

/// How many frames of the newest version are checked in each run.
const SAMPLED_FRAMES: u32 = 2;

/// The previous version and how it lies in the store.
pub struct Previous {
    /// The version.
    pub version: Version,
    /// The root of its manifest.
    pub manifest: PageRef,
    /// Its stream.
    pub stream: VersionStream,
}

impl Previous {
    /// Opens a version that is held whole.
    pub fn open(store: &Store, version: &Version) -> Result<Self, StoreError> {
        let whole = version
            .whole
            .as_ref()
            .ok_or_else(|| StoreError::damaged("state", "the newest version is not whole"))?;
        if whole.manifest.stream_bytes != version.stream_bytes
            || version.stream_bytes < version.stream.end_bytes() as u64
        {
            return Err(StoreError::damaged(
                "state",
                format!("v{} has the wrong length", version.seq),
            ));
        }
        Ok(Self {
            version: version.clone(),
            manifest: whole.manifest.clone(),
            stream: VersionStream::whole(store, &whole.manifest, version.archive()),
        })
    }
}

/// What is wrong with the version that a new one would build on: something is missing, or was found damaged by the last
/// verification and still is, or one of a few frames, taken at random in each run, is not what it should be. Then
/// everything is stored anew, and that version stays as it is.
pub fn faults(store: &Store, newest: &Version, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut faults = collect::missing(store, std::slice::from_ref(newest))?;
    if let Some(verified) = store.verified().filter(|verified| !verified.is_sound) {
        let (needed, _) = collect::needed(store, newest)?;
        for file in verified.faults.iter().filter(|file| needed.contains(file)) {
            faults.extend(wrong_with(store, file)?);
        }
    }
    if faults.is_empty() {
        let stream = Previous::open(store, newest)?.stream;
        let samples = if stream.is_empty() { 0 } else { SAMPLED_FRAMES };
        for sample in 0..samples {
            let seed = [
                now.as_nanosecond().to_le_bytes(),
                i128::from(sample).to_le_bytes(),
            ]
            .concat();
            let number =
                u64::from_le_bytes(Digest::of(&seed).0[..8].try_into().expect("eight bytes"));
            match stream.check_at(number % stream.len()) {
                Err(StoreError::Damaged { file, detail }) => {
                    faults.push(format!("{file}: {detail}"));
                }
                result => result?,
            }
        }
    }
    Ok(faults)
}

/// What is wrong with a file of the store, if anything.
pub fn wrong_with(store: &Store, file: &str) -> Result<Option<String>, StoreError> {
    match archive::check_file(store, file) {
        Ok(_) => Ok(None),
        Err(error) => error.into_fault().map(Some),
    }
}
