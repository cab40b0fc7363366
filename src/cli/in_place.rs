//! `restore --in-place`: bring a tree that is in use to what a version says.

use serde::Serialize;

use super::args::Restore;
use super::compare::selection;
use super::document;
use super::exit::Exit;
use super::output::{Output, unwritten};
use super::progress::Progress;
use super::rows::VersionName;
use super::stores::Read;
use super::{Context, owner, restore as fresh, stores};
use crate::catalog::version::describe;
use crate::error::{Error, printable};
use crate::ops::restore::{Action, Choice, InPlace, Over};
use crate::tree::select::Selection;

#[derive(Serialize)]
struct Row {
    action: &'static str,
    path: String,
}

#[derive(Serialize)]
struct Answer {
    version: VersionName,
    actions: Vec<Row>,
}

pub fn run(
    context: &Context,
    args: &Restore,
    read: &Read,
    index: usize,
    choice: &Choice,
) -> Result<Exit, Error> {
    fresh::refuse_stores(&args.target)?;
    let general = stores::existing_config(context)?;
    let source = read.state.source_path();
    if args.delete && owner::trusted_workdir(context, source)?.is_none() {
        return Err(Error::Refused(format!(
            "Nothing here says what backups of {} leave out, and --delete must not remove that: set it up as before with btw-backup fs-init, or restore without --delete",
            source.display()
        )));
    }
    let mut kept = selection(context, &general, source)?;
    kept.exclude.extend(args.exclude.iter().cloned());
    let over = Over {
        selection: Selection {
            exclude: args.exclude.clone(),
            leave_out: kept.leave_out.clone(),
            ..Selection::default()
        },
        removes: args.delete.then_some(kept),
    };
    let options = fresh::options(args, choice);
    let progress = Progress::new(context.output);
    let versions = &read.versions;
    let restore = InPlace::plan(&read.store, versions, index, &options, over, &progress)?;
    if args.dry_run {
        return preview(context, read, index, &restore);
    }
    let done = restore.run(&progress)?;
    let version = &versions[index];
    let mut text = format!(
        "{}: {} restored over {}: {} written, {} given other attributes",
        args.reading.dst,
        describe(version),
        args.target.display(),
        done.written,
        done.adjusted
    );
    if args.delete {
        text += &format!(", {} removed", done.removed);
    } else if done.extra > 0 {
        text += &format!("; {} that this version does not have were left", done.extra);
    }
    context.output.info(&text);
    Ok(fresh::tell(
        context,
        version,
        (&done.missing, &done.problems),
        done.is_damaged,
    ))
}

/// Shows what would be done.
fn preview(
    context: &Context,
    read: &Read,
    index: usize,
    restore: &InPlace<'_>,
) -> Result<Exit, Error> {
    let mut actions = Vec::new();
    Output::answer_with(|out| {
        restore.preview(&mut |action, path| {
            let action = match action {
                Action::Write => "write",
                Action::Adjust => "adjust",
                Action::Remove => "remove",
            };
            let path = printable(if path.is_empty() { b"." } else { path });
            if context.output.json {
                actions.push(Row { action, path });
                return Ok(());
            }
            writeln!(out, "{action:<6} {path}").map_err(unwritten)
        })?;
        if context.output.json {
            document::answer(&Answer {
                version: VersionName::from(&read.versions[index]),
                actions: std::mem::take(&mut actions),
            });
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
