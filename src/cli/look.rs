//! `ls`, `cat`, `find`, `history`: looking into versions.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::args::{Cat, Find, History, Ls};
use super::document;
use super::exit::Exit;
use super::output::{Output, unwritten};
use super::rows::{self, JsonRows, MemberRow, VersionName};
use super::{Context, stores};
use crate::catalog::{Kind, Member, Version};
use crate::error::{Error, printable};
use crate::ops::look::{self, Span};
use crate::ops::{paths, read};
use crate::tree::select::Patterns;

pub fn ls(context: &Context, args: &Ls) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let version = &read.versions[read.index(context, &args.at.at)?];
    let path = read.path(args.path.as_ref())?;
    let zone = TimeZone::system();
    Output::answer_with(|out| {
        let mut rows = JsonRows::begin(version);
        let see = &mut |member: &Member| {
            let line = if context.output.json {
                rows.row(member)
            } else if args.long {
                format!("{}\n", rows::long(member, &zone))
            } else {
                format!("{}\n", rows::name(member))
            };
            out.write_all(line.as_bytes()).map_err(unwritten)
        };
        look::list(
            &read.store,
            &read.versions,
            version,
            &path,
            args.recursive,
            see,
        )?;
        if context.output.json {
            out.write_all(rows.end().as_bytes()).map_err(unwritten)?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

pub fn cat(context: &Context, args: &Cat) -> Result<Exit, Error> {
    context.output.refuse_json()?;
    let read = stores::open_to_read(context, &args.reading)?;
    let index = read.index(context, &args.at.at)?;
    let path = read.file(index, args.path.as_ref())?;
    Output::answer_with(|out| read::cat(&read.store, &read.versions, index, &path, out))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct SpanRow {
    first: VersionName,
    last: VersionName,
    member: MemberRow,
}

#[derive(Serialize)]
struct Spans {
    spans: Vec<SpanRow>,
}

fn answer(versions: &[Version], spans: &[Span]) {
    let rows = spans.iter().map(|span| SpanRow {
        first: VersionName::from(&versions[span.first]),
        last: VersionName::from(&versions[span.last]),
        member: MemberRow::from(&span.member),
    });
    document::answer(&Spans {
        spans: rows.collect(),
    });
}

/// A line for versions in which a path was the same.
fn line(versions: &[Version], span: &Span, zone: &TimeZone) -> String {
    let (first, last) = (&versions[span.first], &versions[span.last]);
    let name = if first.seq == last.seq {
        format!("v{}", first.seq)
    } else {
        format!("v{}-v{}", first.seq, last.seq)
    };
    let time = first.time.to_zoned(zone.clone());
    let member = &span.member;
    let what = match member.kind {
        Kind::Regular => format!(
            "{:>12}  modified {}  {}",
            member.content.size,
            rows::time_of(member, zone, "%Y-%m-%d %H:%M:%S"),
            &member.content.digest.to_string()[..16],
        ),
        Kind::Symlink => format!("link to {}", printable(&member.link)),
        Kind::HardLink => format!("hard link to {}", printable(&member.link)),
        Kind::Absent => format!("could not be read: {}", printable(&member.link)),
        kind => rows::word(kind).to_owned(),
    };
    format!(
        "{name:<11} {}  {what}\n",
        time.strftime("%Y-%m-%d %H:%M:%S")
    )
}

/// From when on a path is gone, if it is.
fn gone(versions: &[Version], spans: &[Span], zone: &TimeZone) -> String {
    let next = spans.last().and_then(|span| versions.get(span.last + 1));
    next.map_or_else(String::new, |version| {
        let time = version.time.to_zoned(zone.clone());
        format!(
            "v{:<10} {}  gone\n",
            version.seq,
            time.strftime("%Y-%m-%d %H:%M:%S")
        )
    })
}

pub fn history(context: &Context, args: &History) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let last = read.index(context, &args.at.at)?;
    let path = read.file(last, args.path.as_ref())?;
    let versions = &read.versions[..=last];
    let spans = look::history(&read.store, versions, &path)?;
    if spans.is_empty() {
        // What is near is named.
        paths::find(&read.store, &read.versions, &versions[last], &path)?;
    }
    if context.output.json {
        answer(versions, &spans);
        return Ok(Exit::Done);
    }
    let zone = TimeZone::system();
    let mut text: String = spans
        .iter()
        .map(|span| line(versions, span, &zone))
        .collect();
    text.push_str(&gone(versions, &spans, &zone));
    Output::answer(&text)?;
    Ok(Exit::Done)
}

pub fn find(context: &Context, args: &Find) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let last = read.index(context, &args.at.at)?;
    let versions = &read.versions[..=last];
    let patterns = Patterns::new("PATTERN", std::slice::from_ref(&args.pattern))?;
    let found = look::find(&read.store, versions, &patterns)?;
    if context.output.json {
        answer(versions, &found.concat());
    } else {
        let zone = TimeZone::system();
        Output::answer_with(|out| {
            for spans in &found {
                let mut text = format!("{}\n", printable(&spans[0].member.path));
                for span in spans {
                    text.push_str(&format!("  {}", line(versions, span, &zone)));
                }
                let gone = gone(versions, spans, &zone);
                if !gone.is_empty() {
                    text.push_str(&format!("  {gone}"));
                }
                out.write_all(text.as_bytes()).map_err(unwritten)?;
            }
            Ok(())
        })?;
    }
    if found.is_empty() {
        return Err(Error::Refused(format!(
            "Nothing matches {} in {} versions of {}",
            args.pattern,
            versions.len(),
            args.reading.dst
        )));
    }
    Ok(Exit::Done)
}
