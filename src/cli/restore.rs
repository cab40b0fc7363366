//! `restore`: bring a version back.

use std::path::Path;

use super::args::Restore;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::{Context, stores};
use crate::catalog::version::describe;
use crate::error::Error;
use crate::ops::restore;

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
    let when = stores::when(context, &args.at.at)?;
    let store = stores::open_to_restore(context, &args.reading)?;
    refuse_stores(&args.target)?;
    let _guard = store.lock_reader()?;
    let report = {
        let progress = Progress::new(context.output);
        restore::restore(
            &store,
            &restore::Options {
                when: &when,
                target: &args.target,
                partial: args.partial,
            },
            &progress,
        )?
    };
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
