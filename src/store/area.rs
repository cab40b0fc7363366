//! The directories of a store.

use crate::digest::Digest;

/// A directory of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Area {
    /// Frames of content.
    Objects,
    /// Pages of manifests.
    Manifests,
    /// Pages of catalogs.
    Catalogs,
    /// Deltas.
    Deltas,
    /// Version files.
    Versions,
    /// States.
    State,
    /// Records of a run that has not committed.
    Staging,
    /// What can be rebuilt.
    Cache,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Objects,
        Self::Manifests,
        Self::Catalogs,
        Self::Deltas,
        Self::Versions,
        Self::State,
        Self::Staging,
        Self::Cache,
    ];

    /// The directory's name.
    pub fn dir(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Manifests => "manifests",
            Self::Catalogs => "catalogs",
            Self::Deltas => "deltas",
            Self::Versions => "versions",
            Self::State => "state",
            Self::Staging => "staging",
            Self::Cache => "cache",
        }
    }

    /// The path of the file that is named by this digest.
    pub fn path(self, name: Digest) -> String {
        format!("{}/{name}", self.dir())
    }
}

/// The path of a numbered state.
pub fn state_path(number: u64) -> String {
    format!("{}/{number:010}", Area::State.dir())
}
