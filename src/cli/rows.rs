//! Members and versions as rows, for people and for programs.

use std::ffi::OsString;

use base64::Engine as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::document;
use crate::catalog::{Kind, Member, Version};
use crate::error::printable;
use crate::time::rfc3339;

/// A member for programs.
#[derive(Serialize)]
pub struct MemberRow {
    path: String,
    /// The path's bytes in base64, if they are not all plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    size_bytes: u64,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    torn: bool,
}

impl From<&Member> for MemberRow {
    fn from(member: &Member) -> Self {
        let path = printable(&member.path);
        let is_plain = path.as_bytes() == member.path;
        let base64 = || base64::engine::general_purpose::STANDARD.encode(&member.path);
        Self {
            path_base64: (!is_plain).then(base64),
            path,
            kind: word(member.kind),
            mode: format!("{:04o}", member.mode),
            uid: member.uid,
            gid: member.gid,
            user: printable(&member.user),
            group: printable(&member.group),
            size_bytes: member.content.size,
            mtime: time_of(member, &TimeZone::UTC, "%Y-%m-%dT%H:%M:%S%.9fZ"),
            link: (!member.link.is_empty()).then(|| printable(&member.link)),
            digest: (member.kind == Kind::Regular).then(|| member.content.digest.to_string()),
            torn: member.torn,
        }
    }
}

/// A version for programs, in short.
#[derive(Serialize)]
pub struct VersionName {
    seq: u64,
    timestamp: String,
}

impl From<&Version> for VersionName {
    fn from(version: &Version) -> Self {
        Self {
            seq: version.seq,
            timestamp: rfc3339(version.time),
        }
    }
}

/// A version for programs.
#[derive(Serialize)]
pub struct VersionRow {
    seq: u64,
    timestamp: String,
    kind: &'static str,
    stored: &'static str,
    stream: &'static str,
    archive: Option<String>,
    size_bytes: u64,
    added_bytes: u64,
    stored_bytes: u64,
    members: u64,
    partial: bool,
}

impl From<&Version> for VersionRow {
    fn from(version: &Version) -> Self {
        Self {
            seq: version.seq,
            timestamp: rfc3339(version.time),
            kind: version.kind.word(),
            stored: version.stored_word(),
            stream: version.stream.word(),
            archive: version.archive().map(str::to_owned),
            size_bytes: version.size_bytes,
            added_bytes: version.added_bytes,
            stored_bytes: version.stored_bytes(),
            members: version.members,
            partial: version.is_partial(),
        }
    }
}

/// Many members for programs, one document written row by row.
pub struct JsonRows {
    head: String,
    is_first: bool,
}

impl JsonRows {
    /// Members of a version.
    pub fn begin(version: &Version) -> Self {
        let version = VersionName::from(version);
        Self {
            head: document::open_list(&serde_json::json!({ "version": version }), "members"),
            is_first: true,
        }
    }

    /// The next row's text.
    pub fn row(&mut self, member: &Member) -> String {
        let row = serde_json::to_string(&MemberRow::from(member)).expect("plain data");
        let comma = if self.is_first { "" } else { "," };
        if self.is_first {
            document::begin_list();
        }
        self.is_first = false;
        format!("{}{comma}\n{row}", std::mem::take(&mut self.head))
    }

    /// The end of the document.
    pub fn end(self) -> String {
        if self.is_first {
            document::begin_list();
        }
        format!("{}{}", self.head, document::close_list())
    }
}

/// A command as it can be typed.
pub fn shell_words(args: &[OsString]) -> String {
    let word = |arg: &OsString| {
        let text = printable(arg.as_encoded_bytes());
        let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
        if !text.is_empty() && text.chars().all(is_plain) {
            text
        } else {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
    };
    args.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The word for a kind of member.
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Regular => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::HardLink => "hardlink",
        Kind::CharDevice => "chardevice",
        Kind::BlockDevice => "blockdevice",
        Kind::Fifo => "fifo",
        Kind::Absent => "absent",
    }
}

/// A member's name as listings show it: a directory ends in a slash.
pub fn name(member: &Member) -> String {
    let path = printable(&member.path);
    match member.kind {
        Kind::Directory => format!("{path}/"),
        Kind::Absent => format!("{path} (could not be read: {})", printable(&member.link)),
        _ => path,
    }
}

/// A line as `ls -l` shows it.
pub fn long(member: &Member, zone: &TimeZone) -> String {
    let owner = |name: &[u8], id: u32| {
        if name.is_empty() {
            id.to_string()
        } else {
            printable(name)
        }
    };
    let size = match member.kind {
        Kind::CharDevice | Kind::BlockDevice => {
            format!("{}, {}", member.device.0, member.device.1)
        }
        _ => member.content.size.to_string(),
    };
    let arrow = match member.kind {
        Kind::Symlink => format!(" -> {}", printable(&member.link)),
        Kind::HardLink => format!(" = {}", printable(&member.link)),
        _ => String::new(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {} {}{arrow}",
        mode(member),
        owner(&member.user, member.uid),
        owner(&member.group, member.gid),
        time_of(member, zone, "%Y-%m-%d %H:%M:%S"),
        name(member),
    )
}

/// `drwxr-xr-x`.
fn mode(member: &Member) -> String {
    let kind = match member.kind {
        Kind::Regular => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::HardLink => 'h',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
        Kind::Absent => '?',
    };
    let bits = member.mode;
    let special =
        |bit: u32, execute: u32, letter: char| match (bits & bit != 0, bits & execute != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        };
    let plain = |bit: u32, letter: char| if bits & bit == 0 { '-' } else { letter };
    [
        kind,
        plain(0o400, 'r'),
        plain(0o200, 'w'),
        special(0o4000, 0o100, 's'),
        plain(0o040, 'r'),
        plain(0o020, 'w'),
        special(0o2000, 0o010, 's'),
        plain(0o004, 'r'),
        plain(0o002, 'w'),
        special(0o1000, 0o001, 't'),
    ]
    .iter()
    .collect()
}

/// A member's modification time; as seconds since 1970 if no calendar goes so far.
pub fn time_of(member: &Member, zone: &TimeZone, form: &str) -> String {
    let (seconds, nanoseconds) = member.mtime;
    let time = i32::try_from(nanoseconds)
        .ok()
        .and_then(|nanoseconds| Timestamp::new(seconds, nanoseconds).ok());
    match time {
        Some(time) => time.to_zoned(zone.clone()).strftime(form).to_string(),
        None => format!("@{seconds}.{nanoseconds:09}"),
    }
}

/// `v1-v4, v7`.
pub fn ranges(seqs: &[u64]) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for seq in seqs {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *seq => *last = *seq,
            _ => parts.push((*seq, *seq)),
        }
    }
    let words = parts.iter().map(|(first, last)| {
        if first == last {
            format!("v{first}")
        } else {
            format!("v{first}-v{last}")
        }
    });
    words.collect::<Vec<_>>().join(", ")
}
