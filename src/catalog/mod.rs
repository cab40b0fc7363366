//! What the engine knows about a store, in memory: members of versions, versions and their order, and where pages,
//! frames and deltas lie. Pure data and pure questions.

pub mod member;
pub mod place;
pub mod version;

pub use member::{Content, Cut, Kind, Member, Run};
pub use place::{DeltaFile, FrameRef, PageRef, Slice};
pub use version::{StoreType, Version, VersionKind, Whole};
