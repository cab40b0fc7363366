//! What is to be done to a tree that is in use so that it is as a version says.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::choice::Wanted;
use crate::catalog::{Kind, Member};
use crate::error::{Error, StoreError, printable, with_causes};
use crate::ops::live::{Difference, Live, Seen};
use crate::report::Monitor;
use crate::tree::found::{Found, Step};
use crate::tree::owners::{LocalOwners, OwnerRule};
use crate::tree::select::{Selection, is_below};
use crate::tree::walk::Walk;

/// What a restore does at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Makes what is not there, or replaces what is.
    Write,
    /// Sets mode, owner, time, attributes.
    Adjust,
    /// Removes what the version does not have.
    Remove,
}

/// The plan.
#[derive(Default)]
pub(super) struct Plan {
    /// What is to be made, numbered.
    pub write: HashMap<Vec<u8>, u64>,
    /// Files and directories of which only the attributes differ, and which they are.
    pub adjust: HashMap<Vec<u8>, (u64, u64)>,
    /// What the version does not have, in path order, and whether it is a directory.
    pub extras: Vec<(Vec<u8>, bool)>,
    /// Mount points below the tree, in order.
    mounts: Vec<Vec<u8>>,
    /// Mount points in which the version has something.
    used_mounts: HashSet<Vec<u8>>,
    /// Directories where the version has something else.
    obstacles: Vec<Vec<u8>>,
    /// What was not looked into, and what the version does not know.
    unknown: BTreeSet<Vec<u8>>,
    /// What could not be looked at, and why: whether something is to be removed there is not known.
    pub unread: Vec<String>,
}

impl Plan {
    /// Compares a tree with what is wanted. `mounts` are the mount points below it.
    pub fn of(
        wanted: &Wanted<'_>,
        root: &Path,
        mounts: Vec<Vec<u8>>,
        selection: &Selection,
        owners: OwnerRule,
        monitor: &dyn Monitor,
    ) -> Result<Self, Error> {
        let mut plan = Self {
            mounts,
            ..Self::default()
        };
        let mounts = plan.mounts.clone();
        let mut used_mounts = HashSet::new();
        let mut members = wanted.all()?;
        let mut local = (owners == OwnerRule::ByName).then(LocalOwners::default);
        let mut next = || {
            let Some(item) = members.next_item()? else {
                return Ok::<_, StoreError>(None);
            };
            let mut member = item.member();
            if let Some(local) = &mut local {
                local.apply(&mut member);
            }
            if let Some(mount) = innermost(&mounts, &member.path)
                && *mount != member.path
            {
                used_mounts.insert(mount.clone());
            }
            Ok(Some(member))
        };
        let live = Live {
            root,
            selection,
            owners: owners != OwnerRule::Nobody,
        };
        let mut see = |seen: Seen<'_>| {
            plan.add(wanted, &seen);
            Ok(())
        };
        live.compare(&mut next, &mut see, monitor)?;
        plan.used_mounts = used_mounts;
        Ok(plan)
    }

    fn add(&mut self, wanted: &Wanted<'_>, seen: &Seen<'_>) {
        let path = seen.path.to_vec();
        if let (Some(Difference::Unread(why)), None) = (&seen.difference, seen.found) {
            self.unread.push(why.clone());
        }
        let (Some(difference), Some(member)) = (&seen.difference, seen.member) else {
            match (&seen.difference, seen.found) {
                (Some(Difference::New), Some(found)) if !path.is_empty() => {
                    self.extras.push((path, found.meta.is_dir()));
                }
                _ => drop(self.unknown.insert(path)),
            }
            return;
        };
        match (member.kind, difference) {
            (Kind::Absent, _) => drop(self.unknown.insert(path)),
            (Kind::Directory, Difference::Unread(_)) => {}
            (Kind::Directory, Difference::Metadata) => {
                let identity = seen.found.map(|found| found.meta.identity());
                if let Some(identity) = identity.filter(|_| wanted.chosen.wants(member)) {
                    self.adjust.insert(path, identity);
                }
            }
            (Kind::Regular, Difference::Metadata) if seen.found.is_some_and(is_only_name) => {
                let identity = seen.found.map(|found| found.meta.identity());
                self.adjust
                    .extend(identity.map(|identity| (path, identity)));
            }
            (kind, _) => {
                if kind != Kind::Directory && seen.found.is_some_and(|found| found.meta.is_dir()) {
                    self.obstacles.push(path.clone());
                }
                let number = self.write.len() as u64;
                self.write.insert(path, number);
            }
        }
    }

    /// Refuses to replace directories by something else if what is in them would be lost.
    pub fn refuse_obstacles(&self, removes: bool) -> Result<(), Error> {
        for obstacle in &self.obstacles {
            let is_in = |path: &Vec<u8>| path != obstacle && is_below(obstacle, path);
            let refuse = |what: &[u8], advice: &str| {
                Err(Error::Refused(format!(
                    "{} is a directory and holds {}, where the version has something else; {advice}",
                    printable(obstacle),
                    printable(what)
                )))
            };
            if let Some(kept) = self.unknown.iter().find(|path| is_in(path)) {
                return refuse(kept, "move it away");
            }
            let lost = self.extras.iter().find(|(path, _)| is_in(path));
            if let Some((lost, _)) = lost.filter(|_| !removes) {
                return refuse(lost, "move it away, or add --delete");
            }
        }
        Ok(())
    }

    /// Leaves as what is to be removed only what a backup would have kept had it been there: nothing that this selection
    /// leaves out, nothing below what could not be read then, and nothing on file systems of which the version has nothing.
    pub fn spare(&mut self, root: &Path, selection: &Selection) -> Result<(), Error> {
        if self.extras.is_empty() {
            return Ok(());
        }
        let mut kept = HashSet::new();
        let mut walk = Walk::open(root, selection)?;
        while let Some(step) = walk.next_step() {
            match step {
                Step::Found(found) => {
                    kept.insert(found.path);
                }
                Step::LeftOut(..) => {}
                Step::Problem(_, error) => self.unread.push(with_causes(&error)),
            }
        }
        let (mounts, used_mounts, unknown) = (&self.mounts, &self.used_mounts, &self.unknown);
        let (goes, stays) = std::mem::take(&mut self.extras)
            .into_iter()
            .partition(|(path, _)| {
                let is_mount = mounts.binary_search(path).is_ok();
                let is_foreign =
                    innermost(mounts, path).is_some_and(|mount| !used_mounts.contains(mount));
                let is_unknown = around(path).any(|dir| unknown.contains(dir));
                kept.contains(path) && !is_mount && !is_foreign && !is_unknown
            });
        let stays: Vec<(Vec<u8>, bool)> = stays;
        self.extras = goes;
        self.unknown.extend(stays.into_iter().map(|(path, _)| path));
        Ok(())
    }

    /// The mount points, below the tree, on which something is to be written; the tree itself is the empty path.
    pub fn places(&self) -> Vec<Vec<u8>> {
        let mount_of = |path: &Vec<u8>| match innermost(&self.mounts, path) {
            Some(mount) if mount != path => mount.clone(),
            _ => Vec::new(),
        };
        let places: HashSet<Vec<u8>> = self.write.keys().map(mount_of).collect();
        places.into_iter().collect()
    }

    /// What is done at a member's path.
    pub fn action(&self, member: &Member) -> Option<Action> {
        // A link to something that is replaced is made again.
        let is_relinked = member.kind == Kind::HardLink && self.write.contains_key(&member.link);
        if member.kind != Kind::Absent && (self.write.contains_key(&member.path) || is_relinked) {
            Some(Action::Write)
        } else {
            let adjusted = self.adjust.contains_key(&member.path);
            adjusted.then_some(Action::Adjust)
        }
    }
}

fn is_only_name(found: &Found) -> bool {
    found.meta.names == 1
}

/// A path and the directories around it.
fn around(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(end, _)| &path[..end]).chain([b"", path])
}

/// The deepest of the mount points that a path lies in or is.
fn innermost<'a>(mounts: &'a [Vec<u8>], path: &[u8]) -> Option<&'a Vec<u8>> {
    let around = mounts.iter().filter(|mount| is_below(mount, path));
    around.max_by_key(|mount| mount.len())
}
