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

/// Whether a name is the ancestors'.
pub fn is_legacy(name: &str) -> bool {
    name == RDIFF_DATA || of_name(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::{Legacy, is_legacy, of_name};

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
