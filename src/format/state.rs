//! States: immutable, numbered, self-checksummed text. The current one is the highest whose checksum holds.
//!
//! Older versions are moved to *version files*, which hold the same lines and are named by digest, so that a state stays
//! small. The checksum is SHA-256, because `sha256sum` is part of coreutils: people check a state by hand with
//! `head -n -1 STATE | sha256sum`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::FormatError;
use super::text::{self, escape};
use super::version::{Lines, encode_versions};
use crate::catalog::Version;
use crate::digest::{Digest, hex};
use crate::time::rfc3339;

const TITLE: &str = "btw-backup state ";
const VERSION: u32 = 1;

/// What a state file says; versions in version files are only referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Counts the commits of the store.
    pub number: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// The store's identity.
    pub store: Uuid,
    /// The machine the source is on.
    pub host: String,
    /// The source's absolute path.
    pub source: Vec<u8>,
    /// The sequence number that the next version gets.
    pub next_seq: u64,
    /// Older states kept on purpose.
    pub retained: Vec<Retained>,
    /// Catalog packs of deleted versions that other versions still need.
    pub kept_packs: Vec<Digest>,
    /// Versions that are not to be deleted.
    pub pins: Vec<Pin>,
    /// Older versions, oldest first.
    pub archived: Vec<VersionFile>,
    /// The versions after those in version files.
    pub versions: Vec<Version>,
}

/// An older state that is kept until a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// The state's number.
    pub number: u64,
    /// Until when.
    pub until: Timestamp,
}

/// A version that is not to be deleted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its sequence number.
    pub seq: u64,
    /// What the user noted; may be empty.
    pub note: String,
}

impl State {
    /// The source's path.
    pub fn source_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.source))
    }
}

/// A file that holds a run of older versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFile {
    /// Its name: the BLAKE3 of its bytes.
    pub name: Digest,
    /// Its first version.
    pub first_seq: u64,
    /// Its last version.
    pub last_seq: u64,
}

/// The text of a state.
pub fn encode(state: &State) -> Vec<u8> {
    let mut out = format!("{TITLE}{VERSION}\n");
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("number {}", state.number));
    line(format!("time {}", rfc3339(state.time)));
    line(format!("store {}", state.store));
    line(format!("host {}", escape(state.host.as_bytes())));
    line(format!("source {}", escape(&state.source)));
    line(format!("next {}", state.next_seq));
    for retained in &state.retained {
        line(format!(
            "retain {} {}",
            retained.number,
            rfc3339(retained.until)
        ));
    }
    for pack in &state.kept_packs {
        line(format!("keep {pack}"));
    }
    for pin in &state.pins {
        line(format!("pin {} {}", pin.seq, escape(pin.note.as_bytes())));
    }
    for file in &state.archived {
        line(format!(
            "versions {} {} {}",
            file.name, file.first_seq, file.last_seq
        ));
    }
    out.push_str(&encode_versions(&state.versions));
    let checksum = checksum(out.as_bytes());
    writeln!(out, "sha256 {checksum}").expect("a String takes everything");
    out.into_bytes()
}

fn checksum(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Reads a state and checks its checksum.
pub fn decode(raw: &[u8]) -> Result<State, FormatError> {
    let content = checked(raw)?;
    let mut lines = Lines::of(content);
    let title = lines.take("").unwrap_or_default();
    let version = title
        .strip_prefix(TITLE)
        .ok_or_else(|| FormatError::content("not a state"))?;
    if version != VERSION.to_string() {
        return Err(FormatError::Newer {
            found: version.into(),
            known: VERSION,
        });
    }
    let state = State {
        number: lines.value("number ")?,
        time: lines.value("time ")?,
        store: lines.value("store ")?,
        host: String::from_utf8_lossy(&lines.bytes("host ")?).into_owned(),
        source: lines.bytes("source ")?,
        next_seq: lines.value("next ")?,
        retained: lines.many("retain ", |words| {
            Ok(Retained {
                number: words.value("NUMBER")?,
                until: words.value("UNTIL")?,
            })
        })?,
        kept_packs: lines.many("keep ", |words| words.value("PACK"))?,
        pins: lines.many("pin ", |words| {
            Ok(Pin {
                seq: words.value("SEQ")?,
                note: String::from_utf8_lossy(&words.bytes("NOTE")?).into_owned(),
            })
        })?,
        archived: lines.many("versions ", |words| {
            Ok(VersionFile {
                name: words.value("NAME")?,
                first_seq: words.value("FIRST")?,
                last_seq: words.value("LAST")?,
            })
        })?,
        versions: lines.versions()?,
    };
    lines.end()?;
    check_order(&state)?;
    Ok(state)
}

fn checked(raw: &[u8]) -> Result<&str, FormatError> {
    let content = text::lines(raw)?;
    let body_end = content
        .trim_end_matches('\n')
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let (body, last) = content.split_at(body_end);
    if last.strip_prefix("sha256 ").map(str::trim_end) == Some(checksum(body.as_bytes()).as_str()) {
        Ok(body)
    } else {
        Err(FormatError::content("its checksum does not hold"))
    }
}

fn check_order(state: &State) -> Result<(), FormatError> {
    let mut last = 0;
    let spans = state
        .archived
        .iter()
        .map(|file| (file.first_seq, file.last_seq));
    for (first, end) in spans.chain(
        state
            .versions
            .iter()
            .map(|version| (version.seq, version.seq)),
    ) {
        if first <= last || end < first {
            return Err(FormatError::content("versions are out of order"));
        }
        last = end;
    }
    if state.next_seq > last {
        Ok(())
    } else {
        Err(FormatError::content("the next sequence number is taken"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Pin, Retained, State, VersionFile, decode, encode, encode_versions};
    use crate::catalog::version::StreamKind;
    use crate::catalog::{DeltaFile, PageRef, Version, VersionKind, Whole};
    use crate::digest::Digest;
    use crate::format::FormatError;
    use crate::format::version::decode_versions;
    use jiff::Timestamp;
    use proptest::prelude::{any, prop, proptest};

    fn state() -> State {
        let page = PageRef {
            level: 1,
            pack: Some(Digest::of(b"p")),
            offset: 1,
            stored_bytes: 2,
            raw_bytes: 3,
            digest: Digest::of(b"d"),
            items: 4,
            stream_bytes: 5,
            first: b"a b\xff".to_vec(),
        };
        let version = |seq: u64, newest: bool| Version {
            seq,
            time: Timestamp::from_second(i64::try_from(seq).unwrap()).unwrap(),
            kind: if seq == 3 {
                VersionKind::Full
            } else {
                VersionKind::Increment
            },
            stream: StreamKind::Tar,
            size_bytes: 10,
            stream_bytes: 11,
            members: 12,
            problems: 13,
            added_bytes: 14,
            catalog: page.clone(),
            pack: newest.then(|| Digest::of(b"q")),
            whole: newest.then(|| Whole {
                manifest: page.clone(),
                stored_bytes: 15,
                archive: (seq == 3).then(|| "a.tar.zst".to_owned()),
            }),
            delta: if newest {
                Vec::new()
            } else {
                vec![DeltaFile {
                    name: Digest::of(b"f"),
                    output_bytes: 16,
                    stored_bytes: 17,
                }]
            },
        };
        State {
            number: 42,
            time: Timestamp::UNIX_EPOCH,
            store: uuid::Uuid::nil(),
            host: "h ö".into(),
            source: b"/a\nb\xff".to_vec(),
            next_seq: 5,
            retained: vec![Retained {
                number: 41,
                until: Timestamp::UNIX_EPOCH,
            }],
            kept_packs: vec![Digest::of(b"k")],
            pins: vec![Pin {
                seq: 3,
                note: "before the move\n".into(),
            }],
            archived: vec![VersionFile {
                name: Digest::of(b"v"),
                first_seq: 1,
                last_seq: 2,
            }],
            versions: vec![version(3, false), version(4, true)],
        }
    }

    #[test]
    fn states_and_version_files_round_trip() {
        let state = state();
        assert_eq!(decode(&encode(&state)).unwrap(), state);
        assert_eq!(
            decode_versions(encode_versions(&state.versions).as_bytes()).unwrap(),
            state.versions
        );
    }

    #[test]
    fn f1_every_flipped_bit_and_every_cut_is_seen() {
        let good = encode(&state());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        assert!((0..good.len()).all(|len| decode(&good[..len]).is_err()));
    }

    #[test]
    fn k8_a_newer_format_is_refused_by_name() {
        let text = String::from_utf8(encode(&state()))
            .unwrap()
            .replace("btw-backup state 1", "btw-backup state 2");
        let body = &text[..text.rfind("sha256").unwrap()];
        let resealed = format!("{body}sha256 {}\n", super::checksum(body.as_bytes()));
        assert_eq!(
            decode(resealed.as_bytes()),
            Err(FormatError::Newer {
                found: "2".into(),
                known: 1
            })
        );
    }

    proptest! {
        #[test]
        fn a11_any_text_is_decoded_or_refused(text in "(version |catalog |delta |whole |[0-9a-f =.%-]{0,9}|\n){0,30}", raw in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = (decode_versions(text.as_bytes()), decode(&raw));
        }
    }
}
