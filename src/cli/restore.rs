//! `restore`: bring a version back.

use std::path::Path;

use jiff::tz::TimeZone;

use super::args::Restore;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::{Output, unwritten};
use super::progress::Progress;
use super::rows::{self, JsonRows};
use super::stores::Read;
use super::{Context, stores};
use crate::catalog::version::describe;
use crate::error::Error;
use crate::ops::restore::{self, Choice};
use crate::tree::owners::OwnerRule;
use crate::tree::select::Patterns;

/// What is put into a store would be removed from there, or harm it.
fn refuse_stores(target: &Path) -> Result<(), Error> {
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
    if args.dry_run {
        return preview(args, &read, index, &choice);
    }
    refuse_stores(&args.target)?;
    let owners = match (args.no_owner, args.numeric_ids) {
        (true, _) => OwnerRule::Nobody,
        (_, true) => OwnerRule::ByNumber,
        _ => OwnerRule::ByName,
    };
    let report = restore::restore(
        &read.store,
        &read.versions,
        index,
        &restore::Options {
            target: &args.target,
            partial: args.partial,
            choice: &choice,
            owners,
        },
        &Progress::new(context.output),
    )?;
    let output = context.output;
    output.info(&format!(
        "{}: {} restored to {}",
        args.reading.dst,
        describe(&report.version),
        report.target.display()
    ));
    if report.version.is_partial() {
        output.info(&format!(
            "This version is partial: {} members were not readable or changed while they were read",
            report.version.problems
        ));
    }
    for missing in &report.missing {
        Output::warning(missing);
    }
    for problem in &report.problems {
        Output::warning(problem);
    }
    let exit = Exit::done(&report.problems);
    Ok(match (report.missing.is_empty(), report.is_damaged) {
        (true, _) => exit,
        (false, false) => Exit::Failed,
        (false, true) => Exit::Damage,
    })
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
fn preview(args: &Restore, read: &Read, index: usize, choice: &Choice) -> Result<Exit, Error> {
    let zone = TimeZone::system();
    let (mut members, mut bytes) = (0_u64, 0);
    Output::answer_with(|out| {
        let mut rows = JsonRows::begin(&read.versions[index]);
        restore::preview(&read.store, &read.versions, index, choice, &mut |member| {
            members += 1;
            bytes += member.content.size;
            let line = if args.json {
                rows.row(member)
            } else {
                format!("{}\n", rows::long(member, &zone))
            };
            out.write_all(line.as_bytes()).map_err(unwritten)
        })?;
        let end = if args.json {
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
