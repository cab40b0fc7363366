//! A version against a live tree. All files are read, several at once.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use crate::catalog::member::path_order;
use crate::catalog::{Kind, Member};
use crate::error::{Error, StoreError, with_causes};
use crate::report::Monitor;
use crate::tree::ahead::Ahead;
use crate::tree::content::content_of;
use crate::tree::found::{Found, Step};
use crate::tree::meta::FileKey;
use crate::tree::select::Selection;
use crate::tree::source::{self, SourceFile};
use crate::tree::walk::Walk;

/// So many members are compared together; they are in few directories, because these are open.
const BATCH_MEMBERS: usize = 512;
const BATCH_DIRS: usize = 24;

/// How a live tree differs from a version at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the version has it.
    Gone,
    /// Only the tree has it.
    New,
    /// Another kind, length, content, target or device.
    Content,
    /// Another content though length and modification time are the same: what damage looks like.
    Silent,
    /// Only mode, owner, time, attributes.
    Metadata,
    /// It could not be read, or was changed while it was.
    Unread(String),
}

/// What there is to say of a path.
pub struct Seen<'a> {
    /// Below the root of the tree.
    pub path: &'a [u8],
    /// How they differ; `None` for something that is left out of the comparison.
    pub difference: Option<Difference>,
    /// What the version has there.
    pub member: Option<&'a Member>,
    /// What the tree has there, if it could be looked at.
    pub found: Option<&'a Found>,
}

/// Takes differences in path order, and between them, in no order, what is left out.
pub type See<'a> = &'a mut dyn FnMut(Seen<'_>) -> Result<(), Error>;

/// Gives the members of a version in path order.
pub type NextMember<'a> = &'a mut dyn FnMut() -> Result<Option<Member>, StoreError>;

/// What is compared.
pub struct Live<'a> {
    /// The tree's directory, or a file.
    pub root: &'a Path,
    /// What of it.
    pub selection: &'a Selection,
    /// Whether it must belong to the same users.
    pub owners: bool,
}

impl Live<'_> {
    /// Calls `see` for every path at which the tree is not as the members say.
    pub fn compare(
        &self,
        members: NextMember<'_>,
        see: See<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let walk = Walk::open(self.root, self.selection)?;
        let steps = Ahead::start(walk)
            .map_err(|error| Error::file("start a thread for", self.root, error))?;
        let next = members()?;
        let mut comparing = Comparing {
            members,
            next,
            links: HashMap::new(),
            batch: Vec::new(),
            dirs: 0,
            owners: self.owners,
            see,
            monitor,
        };
        for step in steps {
            match step {
                Step::Found(found) => comparing.found(found)?,
                Step::LeftOut(path, _) => (comparing.see)(Seen {
                    path: &path,
                    difference: None,
                    member: None,
                    found: None,
                })?,
                Step::Problem(path, error) => {
                    let member = comparing.take(&path)?;
                    let known = Some(Difference::Unread(with_causes(&error)));
                    comparing.push(Pair::new(path, member, None, known))?;
                }
            }
        }
        comparing.gone_before(None)?;
        comparing.flush()
    }
}

/// What the version has at a path, and what the tree.
struct Pair {
    path: Vec<u8>,
    member: Option<Member>,
    found: Option<Box<Found>>,
    /// The first name of the file that was found, if this is another.
    link: Option<Vec<u8>>,
    /// What need not be found out.
    known: Option<Difference>,
}

impl Pair {
    fn new(
        path: Vec<u8>,
        member: Option<Member>,
        found: Option<Box<Found>>,
        known: Option<Difference>,
    ) -> Self {
        Self {
            path,
            member,
            found,
            link: None,
            known,
        }
    }

    fn difference(&self, owners: bool) -> Option<Difference> {
        if self.known.is_some() {
            return self.known.clone();
        }
        let (member, found) = (self.member.as_ref()?, self.found.as_ref()?);
        differs(found, self.link.as_deref(), member, owners)
            .unwrap_or_else(|error| Some(Difference::Unread(error.to_string())))
    }
}

struct Comparing<'a> {
    members: NextMember<'a>,
    /// The version's next member.
    next: Option<Member>,
    /// First path of each file with several names.
    links: HashMap<FileKey, Vec<u8>>,
    batch: Vec<Pair>,
    /// How many directories those of the batch hold open.
    dirs: usize,
    owners: bool,
    see: See<'a>,
    monitor: &'a dyn Monitor,
}

impl Comparing<'_> {
    fn push(&mut self, pair: Pair) -> Result<(), Error> {
        let dir = |pair: &Pair| pair.found.as_ref().map(|found| Arc::clone(&found.dir));
        if let Some(dir) = dir(&pair) {
            let last = self.batch.last().and_then(|last| last.found.as_ref());
            let same = last.is_some_and(|last| Arc::ptr_eq(&last.dir, &dir));
            self.dirs += usize::from(!same);
        }
        self.batch.push(pair);
        if self.batch.len() >= BATCH_MEMBERS || self.dirs >= BATCH_DIRS {
            self.flush()?;
        }
        Ok(())
    }

    /// Compares those that wait.
    fn flush(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.dirs = 0;
        let owners = self.owners;
        let differences: Vec<Option<Difference>> = batch
            .par_iter()
            .map(|pair| pair.difference(owners))
            .collect();
        for (pair, difference) in batch.iter().zip(differences) {
            if let Some(member) = &pair.member {
                self.monitor.advance(member.content.size);
            }
            if difference.is_some() {
                (self.see)(Seen {
                    path: &pair.path,
                    difference,
                    member: pair.member.as_ref(),
                    found: pair.found.as_deref(),
                })?;
            }
        }
        Ok(())
    }

    /// Tells of the version's members before `path`, which the tree does not have; without a path of all.
    fn gone_before(&mut self, path: Option<&[u8]>) -> Result<(), Error> {
        while let Some(member) = self.next.take() {
            if path.is_some_and(|path| path_order(&member.path, path).is_ge()) {
                self.next = Some(member);
                return Ok(());
            }
            if member.kind != Kind::Absent {
                let path = member.path.clone();
                self.push(Pair::new(path, Some(member), None, Some(Difference::Gone)))?;
            }
            self.next = (self.members)()?;
        }
        Ok(())
    }

    /// The version's member at a path.
    fn take(&mut self, path: &[u8]) -> Result<Option<Member>, Error> {
        self.gone_before(Some(path))?;
        if self.next.as_ref().is_none_or(|member| member.path != path) {
            return Ok(None);
        }
        let member = self.next.take();
        self.next = (self.members)()?;
        Ok(member)
    }

    fn found(&mut self, found: Box<Found>) -> Result<(), Error> {
        let path = found.path.clone();
        let member = self.take(&path)?;
        let known = member.is_none().then_some(Difference::New);
        let link = self.first_name(&found);
        self.push(Pair {
            link,
            ..Pair::new(path, member, Some(found), known)
        })
    }

    /// The first name of a file that was met before.
    fn first_name(&mut self, found: &Found) -> Option<Vec<u8>> {
        if found.meta.names < 2 || found.meta.is_dir() || found.is_image {
            return None;
        }
        let first = self.links.entry(found.meta.key());
        let first = first.or_insert_with(|| found.path.clone());
        (*first != found.path).then(|| first.clone())
    }
}

/// How what was found differs from a member.
fn differs(
    found: &Found,
    link: Option<&[u8]>,
    old: &Member,
    owners: bool,
) -> io::Result<Option<Difference>> {
    let Some(kind) = source::kind(found) else {
        return Ok(Some(Difference::Content));
    };
    // A file of several names is compared at the first of them.
    match (link, old.kind) {
        (Some(link), Kind::HardLink) if link == old.link => return Ok(None),
        (None, old) if old == kind => {}
        _ => return Ok(Some(Difference::Content)),
    }
    let mtime = source::mtime(found);
    let differs = match kind {
        Kind::Symlink => source::target(found)? != old.link,
        Kind::CharDevice | Kind::BlockDevice => found.meta.node != old.device,
        Kind::Regular if found.meta.size != old.content.size && !found.is_image => true,
        Kind::Regular => {
            let Some(content) = content_of(&SourceFile::open(found)?)? else {
                return Ok(Some(Difference::Unread("it is being changed".to_owned())));
            };
            let differs = content.digest != old.content.digest;
            if differs && mtime == old.mtime && !found.is_image {
                return Ok(Some(Difference::Silent));
            }
            differs
        }
        _ => false,
    };
    if differs {
        return Ok(Some(Difference::Content));
    }
    let meta = &found.meta;
    let same = meta.mode == old.mode
        && mtime == old.mtime
        && (!owners || (meta.uid, meta.gid) == (old.uid, old.gid))
        && source::xattrs(found)? == old.xattrs;
    Ok((!same).then_some(Difference::Metadata))
}
