//! `restore`: bring a version back.

use std::io::{BufWriter, Write};
use std::path::Path;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::args::Restore;
use super::document;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::{Output, unwritten};
use super::progress::Progress;
use super::rows::{self, JsonRows, VersionName};
use super::stores::Read;
use super::{Context, in_place, stores};
use crate::catalog::Version;
use crate::catalog::version::describe;
use crate::error::Error;
use crate::ops::read;
use crate::ops::restore::{self, Choice};
use crate::tree::owners::OwnerRule;
use crate::tree::select::Patterns;

#[derive(Serialize)]
struct Answer<'a> {
    version: VersionName,
    partial: bool,
    /// What should be there and is not.
    missing: &'a [String],
    /// What is there, but not in every way as it was.
    problems: &'a [String],
}

/// What is put into a store would be removed from there, or harm it.
pub(super) fn refuse_stores(target: &Path) -> Result<(), Error> {
    let absolute =
        std::path::absolute(target).map_err(|error| Error::file("find", target, error))?;
    let existing = absolute
        .ancestors()
        .find_map(|dir| dir.canonicalize().ok())
        .unwrap_or(absolute);
    match existing.ancestors().find(|dir| stores::is_store(dir)) {
        Some(inside) => Err(Error::Refused(format!(
            "{} lies in the store {}; restore to another place",
            target.display(),
            inside.display()
        ))),
        None => Ok(()),
    }
}

pub fn run(context: &Context, args: &Restore) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let index = read.index(context, &args.at.at)?;
    let choice = choice(context, args, &read)?;
    if args.target == Path::new("-") {
        context.output.refuse_json()?;
        return to_output(args, &read, index);
    }
    if args.in_place {
        read.refuse_dump(index)?;
    }
    // What is not there can be restored as without it.
    if args.in_place && args.target.exists() {
        return in_place::run(context, args, &read, index, &choice);
    }
    if args.dry_run {
        return preview(context, args, &read, index, &choice);
    }
    refuse_stores(&args.target)?;
    let report = restore::restore(
        &read.store,
        &read.versions,
        index,
        &options(args, &choice),
        &Progress::new(context.output),
    )?;
    let output = context.output;
    output.info(&format!(
        "{}: {} restored to {}",
        args.reading.dst,
        describe(&report.version),
        report.target.display()
    ));
    Ok(tell(
        context,
        &report.version,
        (&report.missing, &report.problems),
        report.is_damaged,
    ))
}

/// Writes the content of a version of one file to the standard output.
fn to_output(args: &Restore, read: &Read, index: usize) -> Result<Exit, Error> {
    let version = &read.versions[index];
    let path = &version.catalog.first;
    if path.is_empty() {
        return Err(Error::Refused(format!(
            "{} is a tree: name a directory to restore to; btw-backup export writes its tar",
            args.reading.dst
        )));
    }
    let is_plain = args.path.is_empty() && args.exclude.is_empty() && args.changed_since.is_none();
    if !is_plain || args.in_place || args.partial || args.dry_run {
        return Err(Error::Usage(
            "to the standard output a version is restored as a whole, without other options".into(),
        ));
    }
    // Unlike a look at a file, a restore that nobody took whole is a failure.
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    read::cat(&read.store, &read.versions, index, path, &mut out)?;
    out.flush().map_err(unwritten)?;
    Ok(Exit::Done)
}

/// Says what is not as it was, and what that means for the exit status.
pub(super) fn tell(
    context: &Context,
    version: &Version,
    (missing, problems): (&[String], &[String]),
    is_damaged: bool,
) -> Exit {
    if version.is_partial() {
        context.output.info(&format!(
            "This version is partial: {} members were not readable or changed while they were read",
            version.problems
        ));
    }
    for line in missing.iter().chain(problems) {
        Output::warning(line);
    }
    document::answer(&Answer {
        version: VersionName::from(version),
        partial: version.is_partial(),
        missing,
        problems,
    });
    match (missing.is_empty(), is_damaged) {
        (true, _) => Exit::done(problems),
        (false, false) => Exit::Failed,
        (false, true) => Exit::Damage,
    }
}

pub(super) fn options<'a>(args: &'a Restore, choice: &'a Choice) -> restore::Options<'a> {
    let owners = match (args.no_owner, args.numeric_ids) {
        (true, _) => OwnerRule::Nobody,
        (_, true) => OwnerRule::ByNumber,
        _ => OwnerRule::ByName,
    };
    restore::Options {
        target: &args.target,
        partial: args.partial,
        choice,
        owners,
    }
}

fn choice(context: &Context, args: &Restore, read: &Read) -> Result<Choice, Error> {
    let paths = args.path.iter().map(|path| read.path(Some(path)));
    let exclude = (!args.exclude.is_empty()).then(|| Patterns::new("--exclude", &args.exclude));
    let since = args.changed_since.as_deref();
    Ok(Choice {
        paths: paths.collect::<Result<_, _>>()?,
        exclude: exclude.transpose()?,
        since: since.map(|text| read.index(context, text)).transpose()?,
    })
}

/// Shows what would be made.
fn preview(
    context: &Context,
    args: &Restore,
    read: &Read,
    index: usize,
    choice: &Choice,
) -> Result<Exit, Error> {
    let zone = TimeZone::system();
    let (mut members, mut bytes) = (0_u64, 0);
    Output::answer_with(|out| {
        let mut rows = JsonRows::begin(&read.versions[index]);
        restore::preview(&read.store, &read.versions, index, choice, &mut |member| {
            members += 1;
            bytes += member.content.size;
            let line = if context.output.json {
                rows.row(member)
            } else {
                format!("{}\n", rows::long(member, &zone))
            };
            out.write_all(line.as_bytes()).map_err(unwritten)
        })?;
        let end = if context.output.json {
            rows.end()
        } else {
            format!(
                "{members} members, {} would be made in {}\n",
                output_bytes(bytes),
                args.target.display()
            )
        };
        out.write_all(end.as_bytes()).map_err(unwritten)
    })?;
    Ok(Exit::Done)
}
