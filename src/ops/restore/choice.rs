//! Which members are restored. The directories on the way to something that is restored are made too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use crate::catalog::{Kind, Member, Version};
use crate::error::{Error, StoreError, printable};
use crate::ops::paths;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::heads::differing;
use crate::store::sequence::WINDOW_BYTES;
use crate::store::stream::VersionStream;
use crate::tree::select::{Patterns, is_below};

/// Parts of the stream that are nearer to each other than this are read together.
const NEAR_BYTES: u64 = 64 << 10;

/// What a user chose.
#[derive(Default)]
pub struct Choice {
    /// Only what is at or below one of these; all if there are none.
    pub paths: Vec<Vec<u8>>,
    /// Nothing that matches, and nothing below it.
    pub exclude: Option<Patterns>,
    /// Only what is new or different since this version, an index.
    pub since: Option<usize>,
}

/// A choice from one version.
pub(super) struct Chosen<'a> {
    choice: &'a Choice,
    changed: Option<HashSet<Vec<u8>>>,
    /// Hard links to members that are not chosen: the first of them becomes the file. By the path that they name: the path
    /// that the file gets, its place, and what it is.
    promoted: HashMap<Vec<u8>, (Vec<u8>, u64, Member)>,
}

impl<'a> Chosen<'a> {
    /// Finds out what differs since another version, if that is asked for. A path that is not in the version is an error.
    pub fn of(
        store: &Store,
        versions: &[Version],
        version: &Version,
        choice: &'a Choice,
    ) -> Result<Self, Error> {
        for path in choice.paths.iter().filter(|path| !path.is_empty()) {
            let member = paths::find(store, versions, version, path)?;
            if member.kind == Kind::Absent {
                return Err(Error::Refused(format!(
                    "{} could not be read then: {}",
                    printable(path),
                    printable(&member.link)
                )));
            }
        }
        let changed = choice
            .since
            .map(|since| {
                let mut changed = HashSet::new();
                let mut see = |_: Option<&Member>, new: Option<&Member>| {
                    changed.extend(new.map(|member| member.path.clone()));
                    Ok::<_, StoreError>(())
                };
                differing(store, &versions[since].catalog, &version.catalog, &mut see)?;
                Ok::<_, StoreError>(changed)
            })
            .transpose()?;
        let mut chosen = Self {
            choice,
            changed,
            promoted: HashMap::new(),
        };
        if !chosen.is_all() {
            chosen.promote(store, version)?;
        }
        Ok(chosen)
    }

    /// Whether everything is restored.
    pub fn is_all(&self) -> bool {
        let choice = self.choice;
        choice.exclude.is_none() && self.changed.is_none() && choice.paths.iter().all(Vec::is_empty)
    }

    /// Whether a member is chosen itself, not only as a directory on the way.
    pub fn wants(&self, member: &Member) -> bool {
        let choice = self.choice;
        let path = &member.path;
        let is_named =
            choice.paths.is_empty() || choice.paths.iter().any(|named| is_below(named, path));
        let is_changed = self
            .changed
            .as_ref()
            .is_none_or(|changed| changed.contains(path));
        let is_excluded =
            |patterns: &Patterns| patterns.covers(path, member.kind == Kind::Directory);
        is_named && is_changed && !choice.exclude.as_ref().is_some_and(is_excluded)
    }

    fn promote(&mut self, store: &Store, version: &Version) -> Result<(), StoreError> {
        let mut wanted: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut members = CatalogReader::open(store, &version.catalog)?;
        while let Some((_, member)) = members.next_member()? {
            if member.kind == Kind::HardLink && self.wants(&member) {
                wanted.entry(member.link).or_insert(member.path);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut members = CatalogReader::open(store, &version.catalog)?;
        while let Some((offset, member)) = members.next_member()? {
            if let Some(path) = wanted.get(&member.path).filter(|_| !self.wants(&member)) {
                let target = member.path.clone();
                self.promoted.insert(target, (path.clone(), offset, member));
            }
        }
        Ok(())
    }
}

/// What is read of a version.
pub(super) struct Wanted<'a> {
    pub store: &'a Store,
    /// All of the store's.
    pub versions: &'a [Version],
    pub index: usize,
    pub chosen: Chosen<'a>,
    /// Of what was chosen only files, links and devices with these paths.
    pub only: Option<HashMap<Vec<u8>, u64>>,
}

impl<'a> Wanted<'a> {
    /// All that was chosen of `versions[index]`.
    pub fn of(
        store: &'a Store,
        versions: &'a [Version],
        index: usize,
        choice: &'a Choice,
    ) -> Result<Self, Error> {
        Ok(Self {
            store,
            versions,
            index,
            chosen: Chosen::of(store, versions, &versions[index], choice)?,
            only: None,
        })
    }

    pub fn version(&self) -> &'a Version {
        &self.versions[self.index]
    }

    pub fn stream(&self) -> Result<VersionStream, StoreError> {
        VersionStream::open(self.store, self.versions, self.index)
    }

    /// The members that are read.
    pub fn members(&self) -> Result<ChosenMembers<'_>, StoreError> {
        self.members_of(self.only.as_ref())
    }

    /// All that was chosen.
    pub fn all(&self) -> Result<ChosenMembers<'_>, StoreError> {
        self.members_of(None)
    }

    fn members_of<'b>(
        &'b self,
        only: Option<&'b HashMap<Vec<u8>, u64>>,
    ) -> Result<ChosenMembers<'b>, StoreError> {
        Ok(ChosenMembers {
            members: CatalogReader::open(self.store, &self.version().catalog)?,
            chosen: &self.chosen,
            only,
            way: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// Which parts of the stream are needed, in order; all if there are none.
    pub fn windows(&self) -> Result<Option<Vec<Range<u64>>>, StoreError> {
        if self.chosen.is_all() && self.only.is_none() {
            return Ok(None);
        }
        let mut windows: Vec<Range<u64>> = Vec::new();
        let mut members = self.members()?;
        while let Some(item) = members.next_item()? {
            let Item::Plain(offset, member) = item else {
                continue;
            };
            for block in member.placed_blocks(offset) {
                let end = block.offset + block.len;
                match windows.last_mut() {
                    Some(last)
                        if block.offset - last.end <= NEAR_BYTES
                            && end - last.start <= WINDOW_BYTES =>
                    {
                        last.end = end;
                    }
                    _ => windows.push(block.offset..end),
                }
            }
        }
        Ok(Some(windows))
    }
}

/// What is to be made.
pub(super) enum Item {
    /// A member, and where it begins in the stream.
    Plain(u64, Member),
    /// A file in place of a hard link to it; its content lies at an earlier place.
    Promoted(u64, Member),
}

impl Item {
    pub fn member(self) -> Member {
        let (Self::Plain(_, member) | Self::Promoted(_, member)) = self;
        member
    }
}

/// The chosen members in path order.
pub(super) struct ChosenMembers<'a> {
    members: CatalogReader,
    chosen: &'a Chosen<'a>,
    only: Option<&'a HashMap<Vec<u8>, u64>>,
    /// Directories that are not chosen themselves, from the outermost in.
    way: Vec<(u64, Member)>,
    ready: VecDeque<Item>,
}

impl ChosenMembers<'_> {
    pub fn next_item(&mut self) -> Result<Option<Item>, StoreError> {
        while let Some(item) = self.next_chosen()? {
            let (Item::Plain(_, member) | Item::Promoted(_, member)) = &item;
            let is_wanted = |only: &HashMap<Vec<u8>, u64>| {
                !matches!(member.kind, Kind::Directory | Kind::HardLink)
                    && only.contains_key(&member.path)
            };
            if self.only.is_none_or(is_wanted) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn next_chosen(&mut self) -> Result<Option<Item>, StoreError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some((offset, member)) = self.members.next_member()? else {
                // The source itself is always there.
                let root = self
                    .way
                    .drain(..)
                    .find(|(_, member)| member.path.is_empty());
                return Ok(root.map(|(offset, member)| Item::Plain(offset, member)));
            };
            while self
                .way
                .pop_if(|(_, outer)| !is_below(&outer.path, &member.path))
                .is_some()
            {}
            if self.chosen.wants(&member) {
                let way = self.way.drain(..);
                self.ready
                    .extend(way.map(|(offset, member)| Item::Plain(offset, member)));
                let item = self.item(offset, member);
                self.ready.push_back(item);
            } else if member.kind == Kind::Directory {
                self.way.push((offset, member));
            }
        }
    }

    fn item(&self, offset: u64, member: Member) -> Item {
        let promoted = (member.kind == Kind::HardLink)
            .then(|| self.chosen.promoted.get(&member.link))
            .flatten();
        let Some((path, place, file)) = promoted else {
            return Item::Plain(offset, member);
        };
        if *path == member.path {
            let path = member.path;
            return Item::Promoted(
                *place,
                Member {
                    path,
                    ..file.clone()
                },
            );
        }
        let link = path.clone();
        Item::Plain(offset, Member { link, ..member })
    }
}
