//! A version against the live source: what differs. All files are read.

use std::collections::HashMap;
use std::path::Path;

use crate::catalog::member::path_order;
use crate::catalog::{Kind, Member, Version};
use crate::error::{Error, StoreError, with_causes};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::heads::Heads;
use crate::tree::ahead::Ahead;
use crate::tree::content::content_of;
use crate::tree::found::{Found, Step};
use crate::tree::meta::FileKey;
use crate::tree::select::Selection;
use crate::tree::source::{self, Owners, SourceFile};
use crate::tree::walk::Walk;

/// How the source differs from a version at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the version has it.
    Gone,
    /// Only the source has it.
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

/// Takes differences in path order.
pub type See<'a> = &'a mut dyn FnMut(&[u8], &Difference) -> Result<(), Error>;

/// Calls `see` for every path at which the source is not as the version says.
pub fn compare(
    store: &Store,
    version: &Version,
    root: &Path,
    selection: &Selection,
    see: See<'_>,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let walk = Walk::open(root, selection)?;
    let steps =
        Ahead::start(walk).map_err(|error| Error::file("start a thread for", root, error))?;
    monitor.step("comparing", Some(version.size_bytes));
    let mut comparing = Comparing {
        heads: Heads::open(store, &version.catalog),
        next: None,
        owners: Owners::default(),
        links: HashMap::new(),
        see,
        monitor,
    };
    comparing.advance()?;
    for step in steps {
        match step {
            Step::Found(found) => comparing.found(&found)?,
            Step::LeftOut(..) => {}
            Step::Problem(path, error) => {
                let old = comparing.take(&path)?;
                if old.is_none_or(|old| old.kind != Kind::Absent) {
                    (comparing.see)(&path, &Difference::Unread(with_causes(&error)))?;
                }
            }
        }
    }
    comparing.gone_before(None)
}

struct Comparing<'a> {
    heads: Heads,
    /// The version's next member.
    next: Option<Member>,
    owners: Owners,
    /// First path of each file with several names.
    links: HashMap<FileKey, Vec<u8>>,
    see: See<'a>,
    monitor: &'a dyn Monitor,
}

impl Comparing<'_> {
    fn advance(&mut self) -> Result<(), StoreError> {
        self.next = self.heads.next_member()?;
        Ok(())
    }

    /// Tells of the version's members before `path`, which the source does not have; without a path of all.
    fn gone_before(&mut self, path: Option<&[u8]>) -> Result<(), Error> {
        while let Some(member) = self.next.take() {
            if path.is_some_and(|path| path_order(&member.path, path).is_ge()) {
                self.next = Some(member);
                return Ok(());
            }
            if member.kind != Kind::Absent {
                (self.see)(&member.path, &Difference::Gone)?;
            }
            self.advance()?;
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
        self.advance()?;
        Ok(member)
    }

    fn found(&mut self, found: &Found) -> Result<(), Error> {
        let Some(kind) = source::kind(found) else {
            return Ok(());
        };
        let Some(old) = self.take(&found.path)? else {
            return (self.see)(&found.path, &Difference::New);
        };
        let difference = match self.difference(found, kind, &old) {
            Ok(difference) => difference,
            Err(error) => Some(Difference::Unread(error.to_string())),
        };
        self.monitor.advance(old.content.size);
        match difference {
            Some(difference) => (self.see)(&found.path, &difference),
            None => Ok(()),
        }
    }

    fn difference(
        &mut self,
        found: &Found,
        kind: Kind,
        old: &Member,
    ) -> std::io::Result<Option<Difference>> {
        let (mut new, unread) = source::member(found, kind, &mut self.owners, None)?;
        if let Some(error) = unread {
            return Err(error);
        }
        if kind == Kind::Regular && found.meta.names > 1 {
            let first = self.links.entry(found.meta.key());
            let first = first.or_insert_with(|| found.path.clone());
            // A file of several names is compared at the first of them.
            if old.kind == Kind::HardLink && *first == old.link {
                return Ok(None);
            }
        }
        if (old.kind, &old.link, old.device) != (new.kind, &new.link, new.device) {
            return Ok(Some(Difference::Content));
        }
        if kind == Kind::Regular {
            if found.meta.size == old.content.size || found.is_image {
                let file = SourceFile::open(found)?;
                match content_of(&file)? {
                    Some(content) => new.content = content,
                    None => {
                        return Ok(Some(Difference::Unread("it is being changed".to_owned())));
                    }
                }
            } else {
                return Ok(Some(Difference::Content));
            }
            if new.content.digest != old.content.digest {
                let silent = new.mtime == old.mtime && !found.is_image;
                return Ok(Some(if silent {
                    Difference::Silent
                } else {
                    Difference::Content
                }));
            }
        }
        let about = |member: &Member| (member.mode, member.uid, member.gid, member.mtime);
        let same = about(&new) == about(old) && new.xattrs == old.xattrs;
        Ok((!same).then_some(Difference::Metadata))
    }
}
