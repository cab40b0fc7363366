//! `compare`: a version against the live source.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::args::Compare;
use super::document;
use super::exit::Exit;
use super::output::{Output, unwritten};
use super::progress::Progress;
use super::rows::VersionName;
use super::{Context, owner, stores};
use crate::config::general::General;
use crate::config::workdir::normal;
use crate::error::{Error, printable};
use crate::ops::compare;
use crate::ops::live::Difference;
use crate::tree::select::Selection;

#[derive(Serialize)]
struct Row {
    difference: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    version: VersionName,
    differences: Vec<Row>,
}

fn word(difference: &Difference) -> &'static str {
    match difference {
        Difference::Gone => "gone",
        Difference::New => "new",
        Difference::Content => "content",
        Difference::Silent => "silent",
        Difference::Metadata => "metadata",
        Difference::Unread(_) => "unread",
    }
}

/// What backups keep of a source.
pub fn selection(context: &Context, general: &General, source: &Path) -> Result<Selection, Error> {
    let mut selection = Selection::default();
    if let Some(work) = owner::trusted_workdir(context, source)? {
        selection = work.config()?.selection;
        let seen = std::fs::metadata(work.seen_dir()).ok();
        selection
            .leave_out
            .extend(seen.map(|dir| (dir.dev(), dir.ino())));
    }
    let root = std::fs::metadata(&general.root_path).ok();
    selection
        .leave_out
        .extend(root.map(|dir| (dir.dev(), dir.ino())));
    Ok(selection)
}

pub fn run(context: &Context, args: &Compare) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let read = stores::open_to_read(context, &args.reading)?;
    let index = read.index(context, &args.at.at)?;
    read.refuse_dump(index)?;
    let version = &read.versions[index];
    let source = normal(&args.src)?;
    // What a backup leaves out is not new.
    let selection = selection(context, &general, &source)?;
    let (mut rows, mut kinds) = (Vec::new(), HashSet::new());
    Output::answer_with(|out| {
        let progress = Progress::new(context.output);
        let mut see = |path: &[u8], difference: &Difference| {
            kinds.insert(word(difference));
            let path = printable(if path.is_empty() { b"." } else { path });
            let reason = match difference {
                Difference::Unread(why) => Some(why.clone()),
                _ => None,
            };
            if context.output.json {
                rows.push(Row {
                    difference: word(difference),
                    path,
                    reason,
                });
                return Ok(());
            }
            let note = match difference {
                Difference::Silent => "  (size and time are the same: damage?)".to_owned(),
                Difference::Unread(why) => format!("  ({why})"),
                _ => String::new(),
            };
            writeln!(out, "{:<9} {path}{note}", word(difference)).map_err(unwritten)
        };
        let store = &read.store;
        compare::compare(store, version, &source, &selection, &mut see, &progress)?;
        if context.output.json {
            document::answer(&Answer {
                version: VersionName::from(version),
                differences: std::mem::take(&mut rows),
            });
        }
        Ok(())
    })?;
    Ok(if kinds.is_empty() {
        Exit::Done
    } else {
        Exit::Warnings
    })
}
