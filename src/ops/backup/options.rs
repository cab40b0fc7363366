//! What a backup is asked for, and what it answers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::NotKept;
use crate::catalog::version::StreamKind;
use crate::catalog::{StoreType, Version, VersionKind};
use crate::dump::Dump;
use crate::format::state::State;
use crate::plan::chain::ChainPolicy;
use crate::store::codec::Knobs;
use crate::tree::select::Selection;

/// How a file is found to be unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detection {
    /// By size, times and inode as the last run saw them; read again after a span.
    Stat {
        /// After this long everything is read.
        read_all_span: SignedDuration,
    },
    /// By its bytes, every time.
    Bytes,
}

/// What is backed up.
#[derive(Debug, Clone)]
pub enum Source {
    /// As a tar stream.
    Tree(Box<Tree>),
    /// As the bytes that it is.
    Dump(Arc<dyn Dump>),
}

impl Source {
    /// What its stream is.
    pub fn stream(&self) -> StreamKind {
        match self {
            Self::Tree(_) => StreamKind::Tar,
            Self::Dump(_) => StreamKind::Raw,
        }
    }
}

/// A directory or file.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Where it is.
    pub path: PathBuf,
    /// What is left out.
    pub selection: Selection,
    /// How unchanged files are found.
    pub detection: Detection,
}

/// What to back up and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is backed up.
    pub source: Source,
    /// Its name as the store records it: a path, or what stands for a dump.
    pub source_name: Vec<u8>,
    /// The machine it is on.
    pub host: String,
    /// How versions are kept.
    pub store_type: StoreType,
    /// How chains grow.
    pub chain: ChainPolicy,
    /// An empty source is all right.
    pub allow_empty: bool,
    /// Take the store over from whatever source it belongs to.
    pub adopt: bool,
    /// What was last seen of the store.
    pub expected: Option<Expected>,
    /// The clock at the beginning of the run.
    pub now: Timestamp,
    /// [`Knobs::REAL`] but in tests.
    pub knobs: Knobs,
}

/// What was last seen of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Its identity.
    pub store: uuid::Uuid,
    /// Its newest state.
    pub state: u64,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// A version was committed.
    Committed(Box<Version>),
    /// The source is as the newest version, which stays the newest.
    Unchanged(Box<Version>, Skipped),
}

/// What was not made because nothing has changed; displayed in the ancestor's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// A version of this kind.
    Version(VersionKind),
    /// An archive.
    Archive,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version(VersionKind::Full) => "skipping creation of new full backup",
            Self::Version(VersionKind::Increment) => "skipping creation of new incremental backup",
            Self::Archive => "dropping backup",
        })
    }
}

impl Report {
    /// Whether the store has everything that the source had.
    pub fn is_complete(&self) -> bool {
        let (Outcome::Committed(version) | Outcome::Unchanged(version, _)) = &self.outcome;
        self.problems.is_empty() && !version.is_partial()
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// The state that is current now.
    pub state: State,
    /// Members that are missing or torn in the version, and other faults worth exit code 3.
    pub problems: Vec<String>,
    /// What was left out without being asked for, and other remarks.
    pub notes: Vec<String>,
    /// How much of the source is not in the version.
    pub not_kept: NotKept,
    /// Files of the store that are missing. The new version does not need them, older ones do.
    pub damage: Vec<String>,
}
