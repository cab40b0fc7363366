//! Names that the Python tool gave to its backups.

use jiff::Timestamp;

/// What the Python tool kept under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legacy {
    /// `YYYY-MM-DDTHH:MM:SS.tbz`: a compressed tarball.
    Tarball(Timestamp),
    /// `YYYY-MM-DDTHH:MM:SS`: a directory of rdiff-backup, full at that time and with increments after it.
    Directory(Timestamp),
}

/// What a name stands for; times are UTC.
pub fn of_name(name: &str) -> Option<Legacy> {
    let time = |stamp: &str| {
        let plain = stamp.len() == "YYYY-MM-DDTHH:MM:SS".len();
        format!("{stamp}Z").parse().ok().filter(|_| plain)
    };
    match name.strip_suffix(".tbz") {
        Some(stamp) => time(stamp).map(Legacy::Tarball),
        None => time(name).map(Legacy::Directory),
    }
}

/// What rdiff-backup keeps beside a mirror.
pub const RDIFF_DATA: &str = "rdiff-backup-data";

/// The time of a session of rdiff-backup, from the name of a file in its data: `mirror_metadata.TIME.diff.gz` and the like,
/// one for each session. (Its list of increments has only those that changed the topmost directory itself.) TIME may have
/// dashes for colons.
pub fn session_time(name: &str) -> Option<Timestamp> {
    let (kind, rest) = name.split_once('.')?;
    if !["mirror_metadata", "current_mirror"].contains(&kind) {
        return None;
    }
    let stamp = rest.split('.').next()?;
    let (date, time) = stamp.split_once('T')?;
    let (clock, offset) = time.split_at_checked(8)?;
    let offset = match offset.split_at_checked(1) {
        Some((sign @ ("+" | "-"), offset)) => format!("{sign}{}", offset.replace('-', ":")),
        _ => offset.to_owned(),
    };
    format!("{date}T{}{offset}", clock.replace('-', ":"))
        .parse()
        .ok()
}

/// Whether a name is the ancestors'.
pub fn is_legacy(name: &str) -> bool {
    name == RDIFF_DATA || of_name(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::{Legacy, is_legacy, of_name, session_time};

    #[test]
    fn sessions_of_rdiff_backup_are_known_by_their_files() {
        let time = "2023-05-09T03:00:00Z".parse().unwrap();
        for name in [
            "mirror_metadata.2023-05-09T03:00:00Z.diff",
            "mirror_metadata.2023-05-09T05:00:00+02:00.snapshot.gz",
            "current_mirror.2023-05-09T05-00-00+02-00.data",
            "mirror_metadata.2023-05-08T22-00-00-05-00.diff.gz",
        ] {
            assert_eq!(session_time(name), Some(time), "{name}");
        }
        for other in [
            "error_log.2023-05-09T03:00:00Z.data",
            "mirror_metadata",
            "mirror_metadata.x.diff",
            "increments",
        ] {
            assert_eq!(session_time(other), None, "{other}");
        }
    }

    #[test]
    fn old_backups_are_known_by_their_names() {
        let time = "2013-07-05T10:00:00Z".parse().unwrap();
        assert_eq!(
            of_name("2013-07-05T10:00:00"),
            Some(Legacy::Directory(time))
        );
        assert_eq!(
            of_name("2013-07-05T10:00:00.tbz"),
            Some(Legacy::Tarball(time))
        );
        for other in [
            "2013-07-05",
            "2013-07-05T10:00:00Z",
            "2013-07-05T10:00.tbz",
            "log.txt",
            "2013-13-05T10:00:00",
        ] {
            assert!(!is_legacy(other), "{other}");
        }
    }
}
