//! Whether a file must be read, or is known from the last run.

use jiff::{SignedDuration, Timestamp};

use super::old::Old;
use super::{Detection, Tree};
use crate::catalog::Kind;
use crate::format::scan::{ScanCache, Stamp};
use crate::tree::found::Found;

/// A file whose times are not older than the last scan by this much may have changed within the clock's resolution
/// after it was read: it is read again.
pub const RACY: SignedDuration = SignedDuration::from_secs(2);

/// Which files need not be read.
pub struct Trust {
    /// Those that were not changed since before this; `None` if everything is read.
    before: Option<(i64, u32)>,
    /// Why everything is read, if it is.
    why_all: &'static str,
    /// When the last scan began that read every file: this one's if everything is read now.
    pub read_all: Timestamp,
}

impl Trust {
    /// What may be trusted after a run that left this cache.
    pub fn of(tree: &Tree, now: Timestamp, cache: Option<&ScanCache>) -> Self {
        let all = |why_all| Self {
            before: None,
            why_all,
            read_all: now,
        };
        let (Detection::Stat { read_all_span }, Some(cache)) = (tree.detection, cache) else {
            return all(match tree.detection {
                Detection::Bytes => "CHANGE_DETECTION is \"bytes\"",
                Detection::Stat { .. } => "nothing is known from a run before",
            });
        };
        let age = now.duration_since(cache.read_all);
        if age >= read_all_span {
            return all("READ_ALL_SPAN has passed since every file was read");
        }
        let Some(limit) = cache
            .scan_start
            .checked_sub(RACY)
            .ok()
            .filter(|_| !age.is_negative())
        else {
            return all("the clock was set back");
        };
        let nanoseconds = u32::try_from(limit.subsec_nanosecond()).unwrap_or(0);
        Self {
            before: Some((limit.as_second(), nanoseconds)),
            why_all: "",
            read_all: cache.read_all,
        }
    }

    /// Whether nothing about a file was changed, its extended attributes included: every change of them is a new change
    /// time. Then what the catalog says of it holds, whatever its content.
    pub fn knows(&self, old: &Old, found: &Found) -> bool {
        let (meta, stamp) = (&found.meta, found.meta.stamp());
        self.before.is_some_and(|limit| {
            stamp == old.stamp
                && meta.mtime == old.member.mtime
                && meta.mtime < limit
                && stamp.ctime < limit
        })
    }

    /// Why a file must be read; `None` if size, times and inode say that it is as it was.
    pub fn why_read(&self, old: Option<&Old>, found: &Found) -> Option<&'static str> {
        let (meta, stamp) = (&found.meta, found.meta.stamp());
        let Some(old) = old else {
            return Some("it is new");
        };
        if old.member.kind != Kind::Regular {
            return Some("the last version does not have it as a file of its own");
        }
        if found.is_image {
            return Some("a device is always read");
        }
        let Some(limit) = self.before else {
            return Some(self.why_all);
        };
        let reasons = [
            (
                old.member.torn,
                "it was changed while it was read in the last run",
            ),
            (
                old.stamp == Stamp::NONE,
                "nothing is known of it from the last run",
            ),
            (meta.size != old.member.content.size, "its size changed"),
            (
                meta.mtime != old.member.mtime,
                "its modification time changed",
            ),
            (
                (stamp.inode, stamp.device) != (old.stamp.inode, old.stamp.device),
                "it is another file of that name",
            ),
            (stamp.ctime != old.stamp.ctime, "its change time changed"),
            (
                meta.mtime >= limit || stamp.ctime >= limit,
                "its times are too near to the last run's",
            ),
        ];
        reasons
            .into_iter()
            .find_map(|(holds, why)| holds.then_some(why))
    }
}
