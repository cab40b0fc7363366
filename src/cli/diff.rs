//! `diff`: what differs between two versions.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use super::args::Diff;
use super::document;
use super::exit::Exit;
use super::output::{Output, unwritten};
use super::rows::{self, MemberRow, VersionName};
use super::stores::Read;
use super::{Context, stores};
use crate::catalog::{Kind, Member};
use crate::error::{Error, printable};
use crate::ops::diff::{self, Change};
use crate::ops::{lines, read};
use crate::store::stream::VersionStream;
use crate::tree::select::is_below;

/// Longer files are not compared by lines.
const TEXT_MAX_BYTES: u64 = 1 << 20;
/// After so long the lines of two files are taken as they come.
const PATCH_TIME: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct ChangeRow {
    change: &'static str,
    from: Option<MemberRow>,
    to: Option<MemberRow>,
}

/// Counts of changes, and the bytes that files gained or lost.
#[derive(Default, Serialize)]
struct Stat {
    count: u64,
    from_bytes: u64,
    to_bytes: u64,
}

pub fn run(context: &Context, args: &Diff) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let to = read.index(context, &args.to)?;
    let from = match &args.from {
        Some(text) => read.index(context, text)?,
        None => to.checked_sub(1).ok_or_else(|| {
            Error::Refused("There is no version before; name one with --from".into())
        })?,
    };
    let below = read.path(args.path.as_ref())?;
    Output::answer_with(|out| {
        let mut answer = Answer {
            out,
            read: &read,
            args,
            indices: (from, to),
            rows: Vec::new(),
            stats: BTreeMap::new(),
        };
        let (older, newer) = (&read.versions[from], &read.versions[to]);
        diff::diff(&read.store, older, newer, &mut |change, old, new| {
            let path = &old.or(new).expect("one of them is there").path;
            if is_below(&below, path) {
                answer.add(change, old, new)
            } else {
                Ok(())
            }
        })?;
        answer.end()
    })?;
    Ok(Exit::Done)
}

fn is_stream(member: &Member) -> bool {
    member.content.is_stream()
}

/// The lines that differ between two dumps of any length.
fn patch_streams(
    out: &mut dyn Write,
    read: &Read,
    (from, to): (usize, usize),
    (old, new): (&Member, &Member),
) -> Result<(), Error> {
    let stream = |index| VersionStream::open(&read.store, &read.versions, index);
    let (older, newer) = (stream(from)?, stream(to)?);
    let (a, b) = (printable(&old.path), printable(&new.path));
    writeln!(out, "--- a/{a}\n+++ b/{b}").map_err(unwritten)?;
    lines::differing(&older, &newer, &mut |stretch| {
        let is_text = |text: &[u8]| !text.contains(&0);
        match &stretch.text {
            Some((old, new)) if is_text(old) && is_text(new) => {
                write_hunks(out, stretch.before, old, new).map_err(unwritten)
            }
            _ => writeln!(
                out,
                "@@ -{} +{} @@ {} bytes instead of {}, not compared by line",
                stretch.before.0 + 1,
                stretch.before.1 + 1,
                stretch.bytes.1,
                stretch.bytes.0
            )
            .map_err(unwritten),
        }
    })
}

/// Writes the hunks of a stretch; so many lines lie before it.
fn write_hunks(
    out: &mut dyn Write,
    before: (u64, u64),
    old: &[u8],
    new: &[u8],
) -> std::io::Result<()> {
    let diff = TextDiff::configure()
        .timeout(PATCH_TIME)
        .diff_lines(old, new);
    for group in diff.grouped_ops(lines::CONTEXT_LINES) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let (olds, news) = (
            first.old_range().start..last.old_range().end,
            first.new_range().start..last.new_range().end,
        );
        writeln!(
            out,
            "@@ -{},{} +{},{} @@",
            before.0 + olds.start as u64 + u64::from(!olds.is_empty()),
            olds.len(),
            before.1 + news.start as u64 + u64::from(!news.is_empty()),
            news.len()
        )?;
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            out.write_all(change.tag().to_string().as_bytes())?;
            out.write_all(change.value())?;
            if change.missing_newline() {
                out.write_all(b"\n\\ No newline at end of file\n")?;
            }
        }
    }
    Ok(())
}

struct Answer<'a> {
    out: &'a mut dyn Write,
    read: &'a Read,
    args: &'a Diff,
    indices: (usize, usize),
    rows: Vec<ChangeRow>,
    stats: BTreeMap<&'static str, Stat>,
}

impl Answer<'_> {
    fn add(
        &mut self,
        change: Change,
        old: Option<&Member>,
        new: Option<&Member>,
    ) -> Result<(), Error> {
        let size = |member: Option<&Member>| member.map_or(0, |member| member.content.size);
        let stat = self.stats.entry(change.word()).or_default();
        stat.count += 1;
        stat.from_bytes += size(old);
        stat.to_bytes += size(new);
        if self.args.stat {
            return Ok(());
        }
        if document::is_begun() {
            self.rows.push(ChangeRow {
                change: change.word(),
                from: old.map(MemberRow::from),
                to: new.map(MemberRow::from),
            });
            return Ok(());
        }
        let member = new.or(old).expect("one of them is there");
        let line = format!("{:<9} {}\n", change.word(), rows::name(member));
        self.out.write_all(line.as_bytes()).map_err(unwritten)?;
        if self.args.patch && change != Change::Metadata {
            match (old, new) {
                (Some(old), Some(new)) if is_stream(old) && is_stream(new) => {
                    patch_streams(self.out, self.read, self.indices, (old, new))?;
                }
                _ => self.patch(old, new)?,
            }
        }
        Ok(())
    }

    /// The lines that differ, if both sides are small texts.
    fn patch(&mut self, old: Option<&Member>, new: Option<&Member>) -> Result<(), Error> {
        let is_small = |member: Option<&Member>| {
            member.is_none_or(|member| {
                member.kind == Kind::Regular && member.content.size <= TEXT_MAX_BYTES
            })
        };
        if !is_small(old) || !is_small(new) {
            return Ok(());
        }
        let (Some(before), Some(after)) = (
            self.text(self.indices.0, old)?,
            self.text(self.indices.1, new)?,
        ) else {
            return Ok(());
        };
        let name = |side: &str, member: Option<&Member>| {
            member.map_or("/dev/null".to_owned(), |member| {
                format!("{side}/{}", printable(&member.path))
            })
        };
        let diff = TextDiff::configure()
            .timeout(PATCH_TIME)
            .diff_lines(&before, &after);
        let text = diff
            .unified_diff()
            .header(&name("a", old), &name("b", new))
            .to_string();
        self.out.write_all(text.as_bytes()).map_err(unwritten)
    }

    /// A file's content, if it is text.
    fn text(&self, index: usize, member: Option<&Member>) -> Result<Option<String>, Error> {
        let Some(member) = member else {
            return Ok(Some(String::new()));
        };
        let (store, versions) = (&self.read.store, &self.read.versions);
        let mut bytes = Vec::new();
        read::cat(store, versions, index, &member.path, &mut bytes)?;
        Ok(String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0')))
    }

    fn end(self) -> Result<(), Error> {
        let versions = &self.read.versions;
        let (from, to) = (&versions[self.indices.0], &versions[self.indices.1]);
        if document::is_begun() {
            let answer = serde_json::json!({
                "from": VersionName::from(from),
                "to": VersionName::from(to),
                "stat": self.stats,
                "changes": self.rows,
            });
            document::answer(&answer);
            return Ok(());
        }
        if !self.args.stat {
            return Ok(());
        }
        for (word, stat) in &self.stats {
            let (before, after) = (
                indicatif::HumanBytes(stat.from_bytes),
                indicatif::HumanBytes(stat.to_bytes),
            );
            writeln!(self.out, "{word:<9} {:>9}  {before} -> {after}", stat.count)
                .map_err(unwritten)?;
        }
        Ok(())
    }
}
