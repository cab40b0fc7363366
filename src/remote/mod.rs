//! Copies of stores elsewhere: in a bucket, over SSH, on another disk.
//!
//! A remote holds files by path, each written as a whole and seen only when it is complete. All kinds do the same, which
//! one suite of tests checks. [`names`] says where a store's files lie in it, [`disk`] lets a store be read from it.

mod careful;
mod directory;
pub mod disk;
mod http;
pub mod mirror;
pub mod names;
pub mod place;
mod s3;
mod segments;
mod sftp;
mod ssh;

use std::ops::Range;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{RemoteError, RemoteFault};

pub use careful::{Careful, Limits, Traffic};
pub use place::Place;
pub use s3::{Access, Encryption};
pub use ssh::Access as SshAccess;

/// Nothing longer is written at once, so that whatever fails can be repeated and no upload has parts that could stay.
pub const FILE_MAX_BYTES: usize = 32 << 20;
/// Nothing longer is read at once, whatever a remote says of its files: more than any state and any piece.
const READ_MAX_BYTES: u64 = 80 << 20;

/// A place for files. Paths are relative to it, with `/` between names.
pub trait Remote: Send + Sync {
    /// How the user calls it.
    fn name(&self) -> &str;
    /// All files whose paths begin with `prefix`, also in directories below; with names that say so what is being
    /// written, or what was cut off.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError>;
    /// A file's bytes in `range`, of which all must be there, or all that it has.
    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError>;
    /// Writes a file, which appears complete and durable or not at all.
    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError>;
    /// Removes a file; one that is not there is no error.
    fn remove(&self, path: &str) -> Result<(), RemoteError>;
    /// What the other side itself computes of files, in their order; `None` if it cannot.
    fn digests(&self, paths: &[String]) -> Result<Option<FarDigests>, RemoteError>;
}

/// A file of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
}

/// What is done if there is a file of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is replaced.
    Replace,
    /// It is an error, [`RemoteFault::Exists`], as far as the remote can tell: see [`Place`].
    New,
}

/// Digests that were computed on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarDigests {
    /// BLAKE3: the names of a store's files.
    Blake3(Vec<Digest>),
    /// SHA-256, where nothing else is installed.
    Sha256(Vec<[u8; 32]>),
}

/// How a remote is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the user calls it.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// For buckets.
    pub s3: Access,
    /// For SSH.
    pub ssh: SshAccess,
    /// What it may take.
    pub limits: Limits,
}

/// Connects to a remote. Nothing is sent yet.
pub fn open(settings: &Settings) -> Result<Arc<Careful>, RemoteError> {
    let name = settings.name.clone();
    let inner: Box<dyn Remote> = match &settings.place {
        Place::S3 { bucket, prefix } => Box::new(s3::S3::open(name, bucket, prefix, &settings.s3)?),
        Place::Sftp(host) => Box::new(sftp::Sftp::open(name, host, &settings.ssh)?),
        Place::Directory(path) => Box::new(directory::Directory::new(name, path)),
    };
    Ok(Arc::new(Careful::new(inner, settings.limits)))
}

/// What went wrong with one file of one remote.
fn fault(
    remote: &str,
    op: &'static str,
    path: &str,
    fault: RemoteFault,
    detail: impl Into<String>,
) -> RemoteError {
    RemoteError {
        op,
        path: if path.is_empty() { "files" } else { path }.to_owned(),
        remote: remote.to_owned(),
        // What a server says may be of any length and try to drive a terminal.
        detail: crate::error::printable(detail.into().as_bytes())
            .chars()
            .take(600)
            .collect(),
        fault,
    }
}

/// The class of what the system says.
fn class(error: &std::io::Error) -> RemoteFault {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => RemoteFault::Missing,
        ErrorKind::AlreadyExists => RemoteFault::Exists,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => RemoteFault::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => RemoteFault::Full,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionRefused
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::TimedOut
        | ErrorKind::Interrupted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => RemoteFault::Temporary,
        _ => RemoteFault::Other,
    }
}
