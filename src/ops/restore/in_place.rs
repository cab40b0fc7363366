//! Restoring over a tree that is in use: only what differs is written. First everything is compared, then all that is to be
//! written is made and proved beside the tree, then it takes its places.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode, OFlags};

use super::choice::Wanted;
use super::fill::{Filled, fill};
use super::plan::{Action, Plan};
use super::{Options, describe_lost};
use crate::catalog::version::describe;
use crate::catalog::{Kind, Version};
use crate::error::{Error, printable};
use crate::report::Monitor;
use crate::store::Store;
use crate::tree::beneath::DIR_FLAGS;
use crate::tree::mount;
use crate::tree::overlay::{Changed, Overlay};
use crate::tree::owners::{LocalOwners, OwnerRule};
use crate::tree::select::Selection;
use crate::tree::stage::{self, Stage};

/// What of the live tree is looked at, and what may be removed of it.
pub struct Over {
    /// What is compared.
    pub selection: Selection,
    /// What backups keep: what is part of it, and not of the version, is removed. `None` removes nothing.
    pub removes: Option<Selection>,
}

/// The result of a restore in place.
#[derive(Debug, Default)]
pub struct Done {
    /// How many members were made or replaced.
    pub written: u64,
    /// How many were given other attributes.
    pub adjusted: u64,
    /// How many were removed.
    pub removed: u64,
    /// How many are there that the version does not have.
    pub extra: u64,
    /// What could not be restored of members that are there, or could not be removed.
    pub problems: Vec<String>,
    /// Members that are not as the version says, and why.
    pub missing: Vec<String>,
    /// The store is to blame for some of them.
    pub is_damaged: bool,
}

/// Takes what is to be done, and at which path.
pub type SeeAction<'a> = &'a mut dyn FnMut(Action, &[u8]) -> Result<(), Error>;

/// A restore in place that is planned.
pub struct InPlace<'a> {
    wanted: Wanted<'a>,
    plan: Plan,
    options: Options<'a>,
    root: OwnedFd,
    removes: bool,
}

impl<'a> InPlace<'a> {
    /// Compares the target of `options` with `versions[index]`. Nothing is changed. The caller holds the readers' lock.
    pub fn plan(
        store: &'a Store,
        versions: &'a [Version],
        index: usize,
        options: &Options<'a>,
        mut over: Over,
        monitor: &dyn Monitor,
    ) -> Result<Self, Error> {
        let version = &versions[index];
        let (target, root) = open_target(version, options.target)?;
        let wanted = Wanted::of(store, versions, index, options.choice)?;
        let mut below = options.choice.paths.clone();
        if !version.catalog.first.is_empty() {
            if over.removes.is_some() {
                return Err(Error::Refused(format!(
                    "{} is one file: --delete has no meaning with it",
                    describe(version)
                )));
            }
            below = vec![version.catalog.first.clone()];
        }
        if let Some(kept) = &mut over.removes {
            kept.below.clone_from(&below);
        }
        over.selection.below = below;
        // What other restores have staged is no part of the tree.
        over.selection.exclude.push(format!("{}*", stage::PREFIX));
        // From here on by the handle: the path may come to lead elsewhere.
        let walked = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        monitor.step("comparing", Some(version.size_bytes));
        let mounts = mount::points_below(&target);
        let mut plan = Plan::of(
            &wanted,
            &walked,
            mounts,
            &over.selection,
            options.owners,
            monitor,
        )?;
        if let Some(kept) = &over.removes {
            plan.spare(&walked, kept)?;
        }
        if options.choice.since.is_some() {
            // What was not changed since then was not looked for.
            plan.extras.clear();
        }
        plan.refuse_obstacles(over.removes.is_some())?;
        Ok(Self {
            wanted,
            plan,
            options: *options,
            root,
            removes: over.removes.is_some(),
        })
    }

    /// Calls `see` for everything that is to be done.
    pub fn preview(&self, see: SeeAction<'_>) -> Result<(), Error> {
        if self.removes {
            for (path, _) in &self.plan.extras {
                see(Action::Remove, path)?;
            }
        }
        let mut members = self.wanted.all()?;
        while let Some(item) = members.next_item()? {
            let member = item.member();
            if let Some(action) = self.plan.action(&member) {
                see(action, &member.path)?;
            }
        }
        Ok(())
    }

    /// Does it. If something cannot be made or is damaged, nothing is changed, unless a partial restore was asked for.
    pub fn run(mut self, monitor: &dyn Monitor) -> Result<Done, Error> {
        let target = self.options.target;
        let gives_owners = self.options.owners != OwnerRule::Nobody;
        self.wanted.only = Some(self.plan.write.clone());
        let wrap = |error| Error::file("prepare", target, error);
        let places = self.plan.places();
        let mut stage =
            Stage::new(&self.root, &places, &self.plan.write, gives_owners).map_err(wrap)?;
        let staged = self.stage(&mut stage, monitor);
        let filled = staged.inspect_err(|_| stage.discard())?;
        let mut done = Done {
            is_damaged: filled.is_damaged,
            problems: describe_lost(&filled.faults),
            ..Done::default()
        };
        let root = self.root.try_clone().map_err(wrap)?;
        let mut overlay = Overlay::new(root, gives_owners);
        let changed = self.change(&mut overlay, &stage, &mut done);
        stage.remove(&|dir| overlay.is_touched(dir));
        changed?;
        let Changed { faults, kept } = overlay.finish();
        done.problems.extend(describe_lost(&faults));
        let unread = self.plan.unread.iter();
        done.problems
            .extend(unread.map(|why| format!("Not restored: {why}")));
        let kept = kept.iter().map(|path| {
            let path = printable(path);
            format!("Not removed: {path}: something in it is not backed up")
        });
        done.problems.extend(kept);
        let missing = filled.faults.missing.iter().chain(&faults.missing);
        done.missing = missing
            .map(|(path, error)| format!("Not restored: {path}: {error}"))
            .collect();
        Ok(done)
    }

    fn stage(&self, stage: &mut Stage<'_>, monitor: &dyn Monitor) -> Result<Filled, Error> {
        monitor.step("restoring", None);
        let mut filled = fill(&self.wanted, stage, &self.options, monitor)?;
        if !self.options.partial && !filled.faults.missing.is_empty() {
            let (path, error) = filled.faults.missing.swap_remove(0);
            return Err(Error::file("restore", path, error));
        }
        stage
            .sync()
            .map_err(|error| Error::file("sync", self.options.target, error))?;
        Ok(filled)
    }

    /// Removes what is too much, then goes through all members.
    fn change(
        &self,
        overlay: &mut Overlay,
        stage: &Stage<'_>,
        done: &mut Done,
    ) -> Result<(), Error> {
        let extras = &self.plan.extras;
        if self.removes {
            // What is in a directory before the directory.
            for (path, is_dir) in extras.iter().rev() {
                done.removed += u64::from(overlay.remove(path, *is_dir));
            }
        } else {
            done.extra = extras.len() as u64;
        }
        let mut local = (self.options.owners == OwnerRule::ByName).then(LocalOwners::default);
        let mut members = self.wanted.all()?;
        while let Some(item) = members.next_item()? {
            let mut member = item.member();
            if let Some(local) = &mut local {
                local.apply(&mut member);
            }
            let action = self.plan.action(&member);
            match action {
                Some(Action::Write) => done.written += 1,
                Some(Action::Adjust) => done.adjusted += 1,
                _ => {}
            }
            match (member.kind, action) {
                (Kind::Directory, _) => overlay.directory(
                    &member,
                    action == Some(Action::Write),
                    action.is_some(),
                    self.wanted.chosen.wants(&member),
                ),
                (Kind::HardLink, Some(Action::Write)) => overlay.link(&member, stage),
                (_, Some(Action::Write)) => overlay.put(&member, stage),
                (_, Some(Action::Adjust)) => {
                    overlay.adjust(&member, self.plan.adjust[&member.path]);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The directory that is restored to: for a version of one file that may be the file itself.
fn open_target(version: &Version, target: &Path) -> Result<(PathBuf, OwnedFd), Error> {
    let wrap = |error| Error::file("open", target, error);
    let meta = target.symlink_metadata().map_err(wrap)?;
    let own = [0, rustix::process::geteuid().as_raw()];
    if meta.is_symlink() && !own.contains(&meta.uid()) {
        return Err(Error::Refused(format!(
            "{} is a link that somebody else made; name the directory itself",
            target.display()
        )));
    }
    let mut real = target.canonicalize().map_err(wrap)?;
    if !real.is_dir() {
        let name = real.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes);
        if name != Some(&version.catalog.first[..]) {
            return Err(Error::Refused(format!(
                "{} is not a directory, and not the file of {}",
                target.display(),
                describe(version)
            )));
        }
        real.pop();
    }
    let flags = DIR_FLAGS.difference(OFlags::NOFOLLOW);
    let root = fs::open(&real, flags, Mode::empty()).map_err(|error| wrap(error.into()))?;
    Ok((real, root))
}
