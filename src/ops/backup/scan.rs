//! The scan: every member of the source in path order, side by side with the previous catalog.

use std::collections::HashMap;

use super::content::{KnownBlocks, ReadError};
use super::old::{Old, OldMembers, usable_cache};
use super::scanned::Scanned;
use super::trust::Trust;
use super::{Options, Previous, Tree};
use crate::catalog::version::StreamKind;
use crate::catalog::{Content, Kind, Member};
use crate::digest::Digest;
use crate::error::{Error, SourceError, StoreError, printable};
use crate::format::scan::{ScanCache, Stamp};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::packer::Lane;
use crate::store::pieces::{Origin, Pieces};
use crate::store::staging::Staged;
use crate::tree::ahead::Ahead;
use crate::tree::found::{Found, Step};
use crate::tree::header::header;
use crate::tree::meta::FileKey;
use crate::tree::select::LeftOut;
use crate::tree::source::{self, Owners};
use crate::tree::walk::Walk;

/// Headers and maps are packed by parts of at most this length.
const HEADER_PART_BYTES: usize = 1 << 20;

/// Walks the source.
pub fn scan(
    store: &Store,
    options: &Options,
    tree: &Tree,
    walk: Walk,
    previous: Option<&Previous>,
    staged: &Staged,
    monitor: &dyn Monitor,
) -> Result<Scanned, Error> {
    let mut scan = Scan::begin(store, options, tree, previous, staged, monitor)?;
    let steps =
        Ahead::start(walk).map_err(|error| Error::file("start a thread for", &tree.path, error))?;
    for step in steps {
        match step {
            Step::Found(found) => scan.found(&found)?,
            Step::LeftOut(path, why) if path.is_empty() => {
                return Err(Error::Refused(format!(
                    "{} cannot be backed up; left out: {why}",
                    tree.path.display()
                )));
            }
            Step::LeftOut(path, why) => scan.left_out(&path, &why),
            Step::Problem(path, error) if path.is_empty() => {
                return Err(Error::file(error.op, &tree.path, error.source));
            }
            Step::Problem(path, error) => scan.absent(path, error)?,
        }
    }
    Ok(scan.end()?)
}

/// The scan as it goes on.
pub struct Scan<'a> {
    pub monitor: &'a dyn Monitor,
    pub known: KnownBlocks<'a>,
    pub old: OldMembers,
    pub trust: Trust,
    pub previous_bytes: Option<u64>,
    pub owners: Owners,
    /// First path of each file with several names, by what tells files apart, also those that take each other's inode.
    pub links: HashMap<FileKey, Vec<u8>>,
    pub buffer: Vec<u8>,
    /// The attributes of the member that was described last could not be read.
    is_unread: bool,
    pub cache: ScanCache,
    pub out: Scanned,
}

impl<'a> Scan<'a> {
    fn begin(
        store: &'a Store,
        options: &'a Options,
        tree: &Tree,
        previous: Option<&'a Previous>,
        staged: &Staged,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, StoreError> {
        let cache = previous.and_then(|previous| usable_cache(store, previous));
        let trust = Trust::of(tree, options.now, cache.as_ref());
        let stamps = cache.map_or_else(Vec::new, |cache| cache.stamps);
        Ok(Self {
            monitor,
            known: KnownBlocks::new(store, previous, staged),
            old: OldMembers::open(store, previous, stamps)?,
            previous_bytes: previous.map(|previous| previous.version.stream_bytes),
            owners: Owners::default(),
            links: HashMap::new(),
            buffer: Vec::new(),
            is_unread: false,
            cache: ScanCache {
                seq: 0,
                catalog: Digest::of(b""),
                scan_start: options.now,
                read_all: trust.read_all,
                stamps: Vec::new(),
            },
            out: Scanned::begin(store, options, previous)?,
            trust,
        })
    }

    fn left_out(&mut self, path: &[u8], why: &LeftOut) {
        let text = format!("Left out: {}: {why}", printable(path));
        self.monitor.detail(&text);
        if !self.out.not_kept.count(why) {
            self.out.notes.push(text);
        }
    }

    fn found(&mut self, found: &Found) -> Result<(), Error> {
        let old = self.old.take(&found.path)?;
        let Some(kind) = source::kind(found) else {
            self.left_out(&found.path, &LeftOut::Socket);
            return Ok(());
        };
        self.out.not_kept.flagged += u64::from(found.meta.is_flagged);
        self.out.is_file |= self.cache.stamps.is_empty() && kind == Kind::Regular;
        let known = old.as_ref().filter(|old| self.trust.knows(old, found));
        let known = known.map(|old| &old.member);
        let result = self
            .described(found, kind, known)
            .map_err(ReadError::Source);
        let result = result.and_then(|member| self.place(found, kind, member, old.as_ref()));
        match result {
            Err(ReadError::Store(error)) => Err(error.into()),
            // Without its only member there is nothing to make a version of.
            Err(ReadError::Source(error)) if self.out.is_file => {
                Err(Error::file("read", printable(&found.path), error))
            }
            Err(ReadError::Source(source)) => {
                let error = SourceError {
                    op: "read",
                    path: printable(&found.path),
                    source,
                };
                self.absent(found.path.clone(), error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The member without content. Attributes that cannot be read are a problem, but no reason to leave out the rest.
    pub fn described(
        &mut self,
        found: &Found,
        kind: Kind,
        known: Option<&Member>,
    ) -> std::io::Result<Member> {
        let (member, unread) = source::member(found, kind, &mut self.owners, known)?;
        self.out.problems.append(&mut self.owners.faults);
        self.is_unread = unread.is_some();
        if let Some(error) = unread {
            let path = printable(&found.path);
            self.out.problems.push(format!(
                "Cannot read the extended attributes of {path}: {error}"
            ));
        }
        Ok(member)
    }

    /// Adds a member whose metadata are known.
    fn place(
        &mut self,
        found: &Found,
        kind: Kind,
        member: Member,
        old: Option<&Old>,
    ) -> Result<(), ReadError> {
        let stamp = found.meta.stamp();
        match self.link_to(found, &member) {
            Some(link) => self.add(
                Member {
                    kind: Kind::HardLink,
                    link,
                    ..member
                },
                stamp,
                old,
                None,
            )?,
            None if kind == Kind::Regular => self.regular(found, member, old)?,
            None => {
                self.remember_link(found);
                self.add(member, stamp, old, None)?;
            }
        }
        Ok(())
    }

    /// The first name of a file that was met before under another one.
    fn link_to(&mut self, found: &Found, member: &Member) -> Option<Vec<u8>> {
        if member.kind == Kind::Directory || found.meta.names < 2 || found.is_image {
            return None;
        }
        self.links.get(&found.meta.key()).cloned()
    }

    pub fn remember_link(&mut self, found: &Found) {
        if found.meta.names > 1 && !found.meta.is_dir() && !found.is_image {
            self.links.insert(found.meta.key(), found.path.clone());
        }
    }

    /// Adds a member whose data are placed already.
    pub fn add(
        &mut self,
        mut member: Member,
        stamp: Stamp,
        old: Option<&Old>,
        data: Option<&Pieces>,
    ) -> Result<(), StoreError> {
        let header_and_map = self.header_pieces(&mut member, old, false)?;
        self.out.pieces.append(&header_and_map);
        if let Some(data) = data {
            self.out.pieces.append(data);
        }
        self.record(&member, stamp)
    }

    /// Makes the header and the sparse map: those of the previous stream if they are the same.
    pub fn header_pieces(
        &mut self,
        member: &mut Member,
        old: Option<&Old>,
        torn: bool,
    ) -> Result<Pieces, StoreError> {
        member.torn = torn;
        let map = member.content.sparse_map().unwrap_or_default();
        let mut pieces = Pieces::default();
        let old = old.filter(|old| old.member.kind != Kind::Absent);
        if let Some(old) = old.filter(|old| member.has_header_of(&old.member)) {
            member.header_bytes = old.member.header_bytes;
            pieces.push(Origin::Old(old.offset), member.header_bytes.into());
        } else {
            let head = header(member);
            member.header_bytes = u32::try_from(head.len()).expect("a header is small");
            self.pack(&head, &mut pieces)?;
        }
        let same_map = old.filter(|old| old.member.content.sparse_map().unwrap_or_default() == map);
        match same_map {
            Some(old) => pieces.push(
                Origin::Old(old.offset + u64::from(old.member.header_bytes)),
                map.len() as u64,
            ),
            None => self.pack(&map, &mut pieces)?,
        }
        Ok(pieces)
    }

    fn pack(&mut self, bytes: &[u8], pieces: &mut Pieces) -> Result<(), StoreError> {
        // The map of a file with millions of holes is longer than a frame may be.
        for part in bytes.chunks(HEADER_PART_BYTES) {
            let packed = self.out.packer.add(Lane::Small, part, None)?;
            pieces.push(Origin::New(packed.frame, packed.skip), part.len() as u64);
        }
        Ok(())
    }

    /// Records a member that is in the stream.
    pub fn record(&mut self, member: &Member, stamp: Stamp) -> Result<(), StoreError> {
        self.out.members += 1;
        self.out.size_bytes += member.content.size;
        // What could not be read is looked at again in the next run.
        let stamp = if self.is_unread { Stamp::NONE } else { stamp };
        self.cache.stamps.push(stamp);
        self.out.catalog.add(member)
    }

    /// Records something that could not be read: it is listed, and the version is partial.
    fn absent(&mut self, path: Vec<u8>, error: SourceError) -> Result<(), Error> {
        if is_our_own(&error.source) {
            return Err(Error::file(error.op, error.path, error.source));
        }
        let reason = format!("{error}: {}", error.source);
        self.out.problems.push(reason.clone());
        Ok(self.out.catalog.add(&Member {
            path,
            kind: Kind::Absent,
            mode: 0,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: (0, 0),
            link: reason.into_bytes(),
            device: (0, 0),
            xattrs: Vec::new(),
            content: Content::default(),
            header_bytes: 0,
            torn: false,
        })?)
    }

    /// Ends the stream with its two zero blocks.
    fn end(mut self) -> Result<Scanned, StoreError> {
        let zeros = vec![0; StreamKind::Tar.end_bytes()];
        let len = zeros.len() as u64;
        let origin = if let Some(bytes) = self.previous_bytes {
            Origin::Old(bytes - len)
        } else {
            let packed = self.out.packer.add(Lane::Small, &zeros, None)?;
            Origin::New(packed.frame, packed.skip)
        };
        self.out.pieces.push(origin, len);
        self.out.cache = Some(self.cache);
        Ok(self.out)
    }
}

/// Whether an error is about this process and not about the file: then everything that follows would fail too, and a
/// version without it would be a lie.
fn is_our_own(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    ours.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
