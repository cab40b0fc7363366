//! What can go wrong, in classes that cannot be confused.
//!
//! [`SourceError`] is about one member of the source: it is recorded, the run goes on and the version is partial.
//! [`StoreError`] is about the store: nothing is committed. [`Error`] is what a command ends with.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::format::FormatError;
use crate::time::rfc3339;

/// A member of the source that could not be read. Never caused by the store.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {op} {path}")]
pub struct SourceError {
    /// What was tried, as a verb.
    pub op: &'static str,
    /// The member, as the user would write it, control characters escaped.
    pub path: String,
    /// The system's answer.
    pub source: io::Error,
}

/// A fault of the store: the run ends and nothing is committed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on a file of the store failed.
    #[error("Cannot {op} {path} in the store")]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file, relative to the store.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The store's file system has no room left.
    #[error(
        "The store is full: cannot {op} {path}; nothing was committed, older versions are intact. Free some space and run again"
    )]
    Full {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file, relative to the store.
        path: String,
    },
    /// A file that the state names is missing or holds something else.
    #[error("The store is damaged: {file}: {detail}")]
    Damaged {
        /// The file, relative to the store.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A file that a newer program wrote: nothing is wrong with it.
    #[error("Cannot read {file} in the store: {detail}")]
    Newer {
        /// The file, relative to the store.
        file: String,
        /// Which version it has.
        detail: String,
    },
    /// What was just computed does not reproduce what it must: nothing is committed.
    #[error(
        "Proof failed before the commit: {0}; nothing was committed. This points to faulty memory or a bug"
    )]
    Proof(String),
    /// The store lies in a remote, which failed: that says nothing of the store.
    #[error(transparent)]
    Remote(RemoteError),
    /// Another `run` is at work, since then.
    #[error("Another run is at work already{}; wait for it with --wait", since(*.0))]
    Running(Option<Timestamp>),
    /// Another run holds the store.
    #[error("Another run is using the store {0}; wait for it with --wait")]
    Locked(String),
}

impl StoreError {
    /// Wraps the system's answer to `op` on `path`; a full disk gets its own words.
    pub fn io(op: &'static str, path: impl Into<String>, source: io::Error) -> Self {
        let path = path.into();
        let remote = source.get_ref().and_then(|error| error.downcast_ref());
        if let Some(error) = remote {
            return Self::Remote(RemoteError::clone(error));
        }
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { op, path },
            io::ErrorKind::NotFound => Self::Damaged {
                file: path,
                detail: format!("it is missing (cannot {op})"),
            },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::damaged(path, source.to_string())
            }
            // A link where a file of the store must be.
            _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Self::damaged(path, "it is a link")
            }
            _ => Self::Io { op, path, source },
        }
    }

    /// A file whose content is not what its name or a reference to it says.
    pub fn damaged(file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.into(),
            detail: detail.into(),
        }
    }

    /// What is wrong with a file of the store: damage, or a disk that does not give it back. Other errors say nothing of
    /// the store's content and are handed back.
    pub fn into_fault(self) -> Result<String, Self> {
        match self {
            Self::Damaged { .. } | Self::Io { .. } => Ok(with_causes(&self)),
            other => Err(other),
        }
    }

    /// A file that could not be decoded.
    pub fn format(file: impl Into<String>, error: &FormatError) -> Self {
        if matches!(error, FormatError::Newer { .. }) {
            return Self::Newer {
                file: file.into(),
                detail: error.to_string(),
            };
        }
        Self::damaged(file, error.to_string())
    }
}

/// What a remote answered, or that it did not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("Cannot {op} {path} at {remote}: {detail}")]
pub struct RemoteError {
    /// What was tried, as a verb.
    pub op: &'static str,
    /// The file, relative to the remote.
    pub path: String,
    /// How the user calls the remote.
    pub remote: String,
    /// The answer.
    pub detail: String,
    /// Its class.
    pub fault: RemoteFault,
}

/// Classes of [`RemoteError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteFault {
    /// There is no such file.
    Missing,
    /// There is one already.
    Exists,
    /// It is not allowed, or the remote does not know who asks.
    Denied,
    /// There is no room left.
    Full,
    /// It may go well if it is tried again.
    Temporary,
    /// Anything else.
    Other,
}

/// What a command ends with when it does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A remote failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The configuration cannot be used.
    #[error("{path}: {detail}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong, with the next action.
        detail: String,
    },
    /// The command asks for something that must not be done; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// A file of the user's (source root, target, working directory) could not be handled.
    #[error("Cannot {op} {path}")]
    File {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What was to be backed up did not prove that it was complete: it is no version.
    #[error("{0}")]
    Dump(String),
    /// A program of others, which this one needs, failed.
    #[error("{0}")]
    Program(String),
    /// The command line cannot be understood.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Wraps the system's answer to `op` on a file of the user's.
    pub fn file(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::File {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}

fn since(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| format!(", since {}", rfc3339(time)))
}

/// An error with its causes, each after a colon.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Renders raw bytes of a name for people: control characters and invalid UTF-8 are escaped, so that a name
/// cannot drive a terminal.
pub fn printable(name: &[u8]) -> String {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
