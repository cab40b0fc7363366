//! Restoring a version: its stream is read in order, each block checked against the catalog and written to a directory
//! beside the target, which takes the target's name when it is complete.

mod choice;
mod cursor;
mod fill;
mod in_place;
mod place;
mod plan;

use std::path::{Path, PathBuf};

use crate::catalog::version::describe;
use crate::catalog::{Kind, Member, Version};
use crate::error::{Error, StoreError};
use crate::report::Monitor;
use crate::store::Store;
use crate::tree::faults::Faults;
use crate::tree::owners::OwnerRule;
use crate::tree::unpack::Unpacker;

pub use choice::Choice;
use choice::{Item, Wanted};
use fill::{Filled, fill};
pub use in_place::{Done, InPlace, Over};
pub use place::Place;
pub use plan::Action;

/// What to restore and how.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where to: it does not exist or is an empty directory.
    pub target: &'a Path,
    /// Restore what can be, though something is missing or damaged.
    pub partial: bool,
    /// What of the version.
    pub choice: &'a Choice,
    /// Whom it is to belong to.
    pub owners: OwnerRule,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Report {
    /// What was restored.
    pub version: Version,
    /// Where it is.
    pub target: PathBuf,
    /// What could not be restored of members that are there: owners, attributes.
    pub problems: Vec<String>,
    /// Members that are not there, and why. Only a partial restore has any.
    pub missing: Vec<String>,
    /// The store is to blame for some of them.
    pub is_damaged: bool,
}

/// Restores `versions[index]`; the versions are all of the store's. The caller holds the readers' lock.
pub fn restore(
    store: &Store,
    versions: &[Version],
    index: usize,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let version = &versions[index];
    let place = Place::prepare(options.target)?;
    monitor.step("restoring", Some(version.stream_bytes));
    let filled = Wanted::of(store, versions, index, options.choice).and_then(|wanted| {
        let mut unpacker = Unpacker::new(place.dir()?, options.owners != OwnerRule::Nobody)
            .map_err(|error| Error::file("open", options.target, error))?;
        fill(&wanted, &mut unpacker, options, monitor)
    });
    let Filled {
        mut faults,
        single,
        is_damaged,
        members,
    } = filled.inspect_err(|_| place.discard())?;
    if members == 0 {
        place.discard();
        return Err(Error::Refused(format!(
            "Nothing of {} is chosen",
            describe(version)
        )));
    }
    if !options.partial && !faults.missing.is_empty() {
        place.discard();
        let (path, error) = faults.missing.swap_remove(0);
        return Err(Error::file("restore", path, error));
    }
    if single.is_some()
        && let Some((path, error)) = faults.missing.pop()
    {
        // A file of which a block is damaged is not restored: nothing is left.
        place.discard();
        let damage =
            || StoreError::damaged(&path, format!("nothing else is in this version: {error}"));
        return Err(if is_damaged {
            damage().into()
        } else {
            Error::file("restore", path, error)
        });
    }
    let target = place
        .publish(single.as_deref())
        .inspect_err(|_| place.discard())?;
    let missing = faults
        .missing
        .iter()
        .map(|(path, error)| format!("Not restored: {path}: {error}"));
    Ok(Report {
        version: version.clone(),
        target,
        problems: describe_lost(&faults),
        missing: missing.collect(),
        is_damaged,
    })
}

/// Calls `see` for what would be made.
pub fn preview(
    store: &Store,
    versions: &[Version],
    index: usize,
    choice: &Choice,
    see: &mut dyn FnMut(&Member) -> Result<(), Error>,
) -> Result<(), Error> {
    let wanted = Wanted::of(store, versions, index, choice)?;
    let mut members = wanted.members()?;
    while let Some(item) = members.next_item()? {
        let (Item::Plain(_, member) | Item::Promoted(_, member)) = item;
        if member.kind != Kind::Absent {
            see(&member)?;
        }
    }
    Ok(())
}

/// Owners are what an ordinary user cannot set: everything else comes first.
fn describe_lost(faults: &Faults) -> Vec<String> {
    let (owners, others): (Vec<_>, Vec<_>) =
        faults.lost.iter().partition(|(what, _)| **what == "owner");
    let mut lines = Vec::new();
    for (what, lost) in others.into_iter().chain(owners) {
        lines.extend(
            lost.examples
                .iter()
                .map(|example| format!("Not restored: {what} of {example}")),
        );
        let more = lost.count - lost.examples.len() as u64;
        if more > 0 {
            lines.push(format!("Not restored: {what} of {more} more members"));
        }
    }
    lines
}
