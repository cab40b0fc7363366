//! The lines of versions, which states and version files share.

use std::fmt::Write as _;

use super::text::{self, Words, unescape};
use super::{FormatError, page};
use crate::catalog::version::StreamKind;
use crate::catalog::{DeltaFile, Version, VersionKind, Whole};
use crate::time::rfc3339;

/// The lines of versions, as a state and a version file hold them.
pub fn encode_versions(versions: &[Version]) -> String {
    let mut out = String::new();
    for version in versions {
        encode_version(version, &mut out).expect("a String takes everything");
    }
    out
}

fn encode_version(version: &Version, out: &mut String) -> std::fmt::Result {
    let (seq, time) = (version.seq, rfc3339(version.time));
    let words = format!(
        "kind={} stream={}",
        version.kind.word(),
        version.stream.word()
    );
    let sizes = format!(
        "size={} bytes={} members={}",
        version.size_bytes, version.stream_bytes, version.members
    );
    let pack = version
        .pack
        .map_or_else(|| "-".to_owned(), |pack| pack.to_string());
    let run = format!(
        "problems={} added={} pack={pack}",
        version.problems, version.added_bytes
    );
    writeln!(out, "version {seq} time={time} {words} {sizes} {run}")?;
    writeln!(out, "catalog {}", page::to_words(&version.catalog))?;
    if let Some(whole) = &version.whole {
        writeln!(out, "whole {}", whole.stored_bytes)?;
        if let Some(archive) = &whole.archive {
            writeln!(out, "archive {archive}")?;
        }
        writeln!(out, "manifest {}", page::to_words(&whole.manifest))?;
    }
    for file in &version.delta {
        writeln!(
            out,
            "delta {} {} {}",
            file.name, file.output_bytes, file.stored_bytes
        )?;
    }
    Ok(())
}

/// Reads a version file.
pub fn decode_versions(raw: &[u8]) -> Result<Vec<Version>, FormatError> {
    let mut lines = Lines::of(text::lines(raw)?);
    let versions = lines.versions()?;
    lines.end()?;
    Ok(versions)
}

/// Lines taken one after the other by how they begin.
pub(super) struct Lines<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(content: &'a str) -> Self {
        Self {
            lines: content.lines().peekable(),
            number: 0,
        }
    }

    pub(super) fn take(&mut self, prefix: &str) -> Option<&'a str> {
        let line = self.lines.next_if(|line| line.starts_with(prefix))?;
        self.number += 1;
        Some(&line[prefix.len()..])
    }

    pub(super) fn error(&self, detail: String) -> FormatError {
        FormatError::Line {
            line: self.number + 1,
            detail,
        }
    }

    pub(super) fn value<T: std::str::FromStr>(&mut self, prefix: &str) -> Result<T, FormatError> {
        let found = self.take(prefix).and_then(|value| value.parse().ok());
        found.ok_or_else(|| {
            self.error(format!(
                "'{}' is missing or cannot be read",
                prefix.trim_end()
            ))
        })
    }

    pub(super) fn bytes(&mut self, prefix: &str) -> Result<Vec<u8>, FormatError> {
        let found = self.take(prefix).and_then(unescape);
        found.ok_or_else(|| {
            self.error(format!(
                "'{}' is missing or cannot be read",
                prefix.trim_end()
            ))
        })
    }

    pub(super) fn words(&mut self, prefix: &str) -> Option<Words<'a>> {
        let rest = self.take(prefix)?;
        Some(Words::of(rest, self.number))
    }

    pub(super) fn many<T>(
        &mut self,
        prefix: &str,
        read: impl Fn(&mut Words<'a>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let mut found = Vec::new();
        while let Some(mut words) = self.words(prefix) {
            found.push(read(&mut words)?);
            words.end()?;
        }
        Ok(found)
    }

    fn page(&mut self, prefix: &str) -> Result<Option<crate::catalog::PageRef>, FormatError> {
        let Some(mut words) = self.words(prefix) else {
            return Ok(None);
        };
        let page = page::take(&mut words, None)?;
        if page.pack.is_none() {
            return Err(words.error("the page's pack is missing"));
        }
        words.end()?;
        Ok(Some(page))
    }

    pub(super) fn versions(&mut self) -> Result<Vec<Version>, FormatError> {
        let mut versions: Vec<Version> = Vec::new();
        while let Some(words) = self.words("version ") {
            let version = self.version(words)?;
            if versions.last().is_some_and(|last| last.seq >= version.seq) {
                return Err(self.error("versions are out of order".into()));
            }
            versions.push(version);
        }
        Ok(versions)
    }

    fn version(&mut self, mut words: Words<'a>) -> Result<Version, FormatError> {
        let seq = words.value("SEQ")?;
        let time = words.parsed("time")?;
        let kind = match words.field("kind")? {
            "full" => VersionKind::Full,
            "increment" => VersionKind::Increment,
            other => return Err(words.error(format!("kind cannot be '{other}'"))),
        };
        let stream = match words.field("stream")? {
            "tar" => StreamKind::Tar,
            "raw" => StreamKind::Raw,
            other => return Err(words.error(format!("stream cannot be '{other}'"))),
        };
        let (size_bytes, stream_bytes, members) = (
            words.parsed("size")?,
            words.parsed("bytes")?,
            words.parsed("members")?,
        );
        let (problems, added_bytes) = (words.parsed("problems")?, words.parsed("added")?);
        let pack = match words.field("pack")? {
            "-" => None,
            name => Some(
                name.parse()
                    .map_err(|_| words.error(format!("pack cannot be '{name}'")))?,
            ),
        };
        words.end()?;
        let catalog = self
            .page("catalog ")?
            .ok_or_else(|| self.error(format!("version {seq} has no catalog")))?;
        let whole = match self.take("whole ") {
            None => None,
            Some(bytes) => Some(Whole {
                stored_bytes: bytes
                    .parse()
                    .map_err(|_| self.error(format!("'whole' cannot be '{bytes}'")))?,
                archive: self.archive()?,
                manifest: self
                    .page("manifest ")?
                    .ok_or_else(|| self.error(format!("version {seq} has no manifest")))?,
            }),
        };
        let delta = self.many("delta ", |words| {
            Ok(DeltaFile {
                name: words.value("NAME")?,
                output_bytes: words.value("OUTPUT")?,
                stored_bytes: words.value("STORED")?,
            })
        })?;
        Ok(Version {
            seq,
            time,
            kind,
            stream,
            size_bytes,
            stream_bytes,
            members,
            problems,
            added_bytes,
            catalog,
            pack,
            whole,
            delta,
        })
    }

    /// The name of an archive: a plain name, as it is a path in the store.
    fn archive(&mut self) -> Result<Option<String>, FormatError> {
        let Some(name) = self.take("archive ") else {
            return Ok(None);
        };
        let is_plain = name.ends_with(".tar.zst")
            && !name.starts_with('.')
            && !name.contains(['/', '\\', '\0']);
        if is_plain {
            Ok(Some(name.to_owned()))
        } else {
            Err(self.error(format!("'{name}' cannot be an archive")))
        }
    }

    pub(super) fn end(mut self) -> Result<(), FormatError> {
        match self.lines.next() {
            None => Ok(()),
            Some(line) => Err(self.error(format!("'{line}' is not expected here"))),
        }
    }
}
