//! Versions: what a state says of them, and which one a user means.

use jiff::Timestamp;

use super::place::{DeltaFile, PageRef};
use crate::time::{When, rfc3339};

/// Whether a version began a chain. Fixed at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// The first of a chain.
    Full,
    /// One that follows in the chain.
    Increment,
}

impl VersionKind {
    /// The word for it in formats and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Increment => "increment",
        }
    }
}

/// How a store keeps its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreType {
    /// The newest whole, older ones as reverse deltas.
    Rdiff,
    /// Each as an archive of its own.
    Tar,
}

impl StoreType {
    /// The word for it in configurations and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rdiff => "rdiff",
            Self::Tar => "tar",
        }
    }

    /// The type that a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Rdiff, Self::Tar]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// What the bytes of a version are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// A tar stream of a tree or of one file.
    Tar,
    /// The bytes themselves: a database dump, a command's output.
    Raw,
}

impl StreamKind {
    /// The word for it in formats and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Raw => "raw",
        }
    }

    /// How many zeros stand behind the last member.
    pub fn end_bytes(self) -> usize {
        match self {
            Self::Tar => 1024,
            Self::Raw => 0,
        }
    }
}

/// How a version is held whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The root of its manifest.
    pub manifest: PageRef,
    /// The stored length of the frames that the manifest names.
    pub stored_bytes: u64,
    /// The file that all these frames are in, if it is an archive of this version alone.
    pub archive: Option<String>,
}

/// One committed state of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Rules the order.
    pub seq: u64,
    /// A label: the clock at the beginning of the run, made unique within the store.
    pub time: Timestamp,
    /// Fixed at commit.
    pub kind: VersionKind,
    /// What its bytes are.
    pub stream: StreamKind,
    /// The sum of its files' apparent lengths.
    pub size_bytes: u64,
    /// The length of its stream.
    pub stream_bytes: u64,
    /// How many members the stream has.
    pub members: u64,
    /// How many members are absent, torn, or without attributes that could not be read; with any it is partial.
    pub problems: u64,
    /// What its commit added to the store, in bytes.
    pub added_bytes: u64,
    /// The root of its catalog; its digest is the version's.
    pub catalog: PageRef,
    /// The pack with the catalog pages that were new with this version.
    pub pack: Option<crate::digest::Digest>,
    /// Set if it is held whole.
    pub whole: Option<Whole>,
    /// The delta that rebuilds it from the next newer version; empty for the newest.
    pub delta: Vec<DeltaFile>,
}

impl Version {
    /// `whole`, `delta` or `both`.
    pub fn stored_word(&self) -> &'static str {
        match (&self.whole, self.delta.is_empty()) {
            (Some(_), true) => "whole",
            (Some(_), false) => "both",
            (None, _) => "delta",
        }
    }

    /// What the store holds for it now, in bytes. Frames shared with other versions count for each.
    pub fn stored_bytes(&self) -> u64 {
        let whole = self.whole.as_ref().map_or(0, |whole| whole.stored_bytes);
        whole + self.delta.iter().map(|file| file.stored_bytes).sum::<u64>()
    }

    /// The archive that holds it, in a store of TYPE tar.
    pub fn archive(&self) -> Option<&str> {
        self.whole.as_ref()?.archive.as_deref()
    }

    /// Whether something is missing or torn in it.
    pub fn is_partial(&self) -> bool {
        self.problems > 0
    }
}

/// No version is meant by what the user wrote; the text names what exists.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoVersion(String);

/// The version that `when` means. `versions` are in order of their sequence numbers, which rule: of all versions not
/// later than a moment the one with the highest number is taken, whatever the clock did between.
pub fn resolve<'a>(versions: &'a [Version], when: &When) -> Result<&'a Version, NoVersion> {
    let (Some(first), Some(last)) = (versions.first(), versions.last()) else {
        return Err(NoVersion(
            "There is no version yet; make one with btw-backup fs, db or cmd".into(),
        ));
    };
    let range = || format!("{} to {}", describe(first), describe(last));
    match when {
        When::Latest { back } => usize::try_from(*back)
            .ok()
            .and_then(|back| versions.len().checked_sub(back.checked_add(1)?))
            .map(|index| &versions[index])
            .ok_or_else(|| {
                NoVersion(format!(
                    "There are only {} versions: {}",
                    versions.len(),
                    range()
                ))
            }),
        When::Sequence(seq) => versions
            .binary_search_by_key(seq, |version| version.seq)
            .map(|index| &versions[index])
            .map_err(|at| {
                NoVersion(format!(
                    "There is no version v{seq}; {}",
                    nearest(versions, at)
                ))
            }),
        When::UpTo { last: until, exact } => {
            let named = exact
                .then(|| versions.iter().rfind(|version| version.time == *until))
                .flatten();
            named
                .or_else(|| versions.iter().rfind(|version| version.time <= *until))
                .ok_or_else(|| {
                    NoVersion(format!(
                        "There is no version that old; the first is {}",
                        describe(first)
                    ))
                })
        }
    }
}

fn nearest(versions: &[Version], at: usize) -> String {
    let around = [at.checked_sub(1), Some(at)]
        .into_iter()
        .flatten()
        .filter_map(|index| versions.get(index));
    let names: Vec<String> = around.map(describe).collect();
    format!("the nearest: {}", names.join(", "))
}

/// `v17 (2026-11-20T10:00:00.000000000Z)`.
pub fn describe(version: &Version) -> String {
    format!("v{} ({})", version.seq, rfc3339(version.time))
}

/// A time for a new version that no other has: the clock's, moved on by nanoseconds where it is taken.
pub fn unique_time(versions: &[Version], now: Timestamp) -> Timestamp {
    let mut time = now;
    while versions.iter().rev().any(|version| version.time == time) {
        time = time
            .checked_add(jiff::SignedDuration::from_nanos(1))
            .unwrap_or(Timestamp::MIN);
    }
    time
}

#[cfg(test)]
mod tests {
    use super::{StreamKind, Version, VersionKind, resolve, unique_time};
    use crate::catalog::PageRef;
    use crate::digest::Digest;
    use crate::time::When;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    fn version(seq: u64, second: i64) -> Version {
        let root = PageRef {
            level: 0,
            pack: None,
            offset: 0,
            stored_bytes: 0,
            raw_bytes: 0,
            digest: Digest::of(b""),
            items: 0,
            stream_bytes: 0,
            first: Vec::new(),
        };
        Version {
            seq,
            time: Timestamp::from_second(second).unwrap(),
            kind: VersionKind::Full,
            stream: StreamKind::Tar,
            size_bytes: 0,
            stream_bytes: 0,
            members: 0,
            problems: 0,
            added_bytes: 0,
            catalog: root,
            pack: None,
            whole: None,
            delta: Vec::new(),
        }
    }

    #[test]
    fn h9_j2_the_highest_number_not_later_is_taken() {
        // The clock went back before v3.
        let versions = [
            version(1, 1000),
            version(2, 2000),
            version(3, 1500),
            version(5, 3000),
        ];
        let now = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        let seq = |text: &str| {
            resolve(&versions, &When::parse(text, &now).unwrap().0)
                .map(|v| v.seq)
                .map_err(|e| e.to_string())
        };
        assert_eq!(seq("latest"), Ok(5));
        assert_eq!(seq("latest~3"), Ok(1));
        assert_eq!(seq("v2"), Ok(2));
        assert_eq!(seq("1970-01-01T00:16:40Z"), Ok(1));
        assert_eq!(
            seq("1970-01-01T00:33:20Z"),
            Ok(3),
            "2000 s: v3 is newer than v2"
        );
        assert_eq!(
            seq("1970-01-01T00:33:20.000000000Z"),
            Ok(2),
            "stated to the nanosecond it names v2"
        );
        assert_eq!(seq("1970-01-01"), Ok(5));
        assert!(
            seq("v4")
                .unwrap_err()
                .contains("v3 (1970-01-01T00:25:00.000000000Z), v5")
        );
        assert!(
            seq("1970-01-01T00:16:39Z")
                .unwrap_err()
                .contains("the first is v1")
        );
        assert!(seq("latest~4").unwrap_err().contains("only 4 versions"));
        assert!(
            resolve(&[], &When::Latest { back: 0 })
                .unwrap_err()
                .to_string()
                .contains("no version yet")
        );
    }

    #[test]
    fn j1_two_versions_never_have_the_same_time() {
        let versions = [version(1, 1000)];
        let time = unique_time(&versions, versions[0].time);
        assert_eq!(time.as_nanosecond(), 1_000_000_000_001);
    }
}
