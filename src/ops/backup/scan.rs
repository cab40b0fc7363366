//! The scan: every member of the source in path order, side by side with the previous catalog.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::content::{KnownBlocks, ReadError};
use super::old::{Old, OldMembers, usable_cache};
use super::{Detection, Options, Previous};
use crate::catalog::{Content, Kind, Member};
use crate::digest::Digest;
use crate::error::{Error, SourceError, StoreError, printable};
use crate::format::scan::{ScanCache, Stamp};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogWriter;
use crate::store::packer::{Lane, Packer};
use crate::store::pieces::{Origin, Pieces};
use crate::store::staging::Staged;
use crate::tree::header::{END_BYTES, header};
use crate::tree::source::{self, Owners};
use crate::tree::walk::{Found, Step, Walk};

/// A file whose times are not older than the last scan by this much may have changed within the clock's resolution
/// after it was read: it is read again.
pub const RACY: SignedDuration = SignedDuration::from_secs(2);

/// Headers and maps are packed by parts of at most this length.
const HEADER_PART_BYTES: usize = 1 << 20;

/// What the scan found.
pub struct Scanned {
    /// The new stream.
    pub pieces: Pieces,
    /// Still holds what was not yet written.
    pub packer: Packer,
    /// The new catalog, complete but for its last page.
    pub catalog: CatalogWriter,
    /// Stamps of the stream's members; version and catalog digest are filled in later.
    pub cache: ScanCache,
    /// How many members the stream has.
    pub members: u64,
    /// The sum of the files' lengths.
    pub size_bytes: u64,
    /// The source is one file.
    pub is_file: bool,
    /// Members that are absent or torn.
    pub problems: Vec<String>,
    /// What was left out on purpose, and other remarks.
    pub notes: Vec<String>,
}

impl Scanned {
    /// Ends a scan that found nothing new; what it may have written is left to the collector.
    pub fn finish_unchanged(self) -> Result<(ScanCache, Vec<String>), StoreError> {
        self.packer.finish()?;
        Ok((self.cache, self.notes))
    }
}

/// Walks the source.
pub fn scan(
    store: &Store,
    options: &Options,
    mut walk: Walk,
    previous: Option<&Previous>,
    staged: &Staged,
    monitor: &dyn Monitor,
) -> Result<Scanned, Error> {
    let mut scan = Scan::begin(store, options, previous, staged, monitor)?;
    while let Some(step) = walk.next_step() {
        match step {
            Step::Found(found) => scan.found(&found)?,
            Step::LeftOut(path, why) if path.is_empty() => {
                return Err(Error::Refused(format!(
                    "{} cannot be backed up: {why}",
                    options.source.display()
                )));
            }
            Step::LeftOut(path, why) => scan
                .out
                .notes
                .push(format!("Left out: {}: {why}", printable(&path))),
            Step::Problem(path, error) if path.is_empty() => {
                return Err(Error::file(error.op, &options.source, error.source));
            }
            Step::Problem(path, error) => scan.absent(path, &error)?,
        }
    }
    Ok(scan.end()?)
}

/// The scan as it goes on.
pub struct Scan<'a> {
    pub monitor: &'a dyn Monitor,
    pub known: KnownBlocks<'a>,
    pub old: OldMembers,
    /// Files not changed since before this need not be read; `None` if everything must be.
    pub trusted_before: Option<(i64, u32)>,
    pub previous_bytes: Option<u64>,
    pub owners: Owners,
    /// First path of each file with several names, by device and inode.
    pub links: HashMap<(u64, u64), Vec<u8>>,
    pub buffer: Vec<u8>,
    pub out: Scanned,
}

impl<'a> Scan<'a> {
    fn begin(
        store: &'a Store,
        options: &'a Options,
        previous: Option<&'a Previous>,
        staged: &Staged,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, StoreError> {
        let now = options.now;
        let cache = previous.and_then(|previous| usable_cache(store, previous));
        let read_all_due = match (options.detection, &cache) {
            (Detection::Stat { read_all_span }, Some(cache)) => {
                let age = now.duration_since(cache.read_all);
                age >= read_all_span || age.is_negative()
            }
            _ => true,
        };
        let trusted_before = cache
            .as_ref()
            .filter(|_| !read_all_due)
            .and_then(|cache| before(cache.scan_start));
        let read_all = cache
            .as_ref()
            .filter(|_| !read_all_due)
            .map_or(now, |cache| cache.read_all);
        let stamps = cache.map_or_else(Vec::new, |cache| cache.stamps);
        Ok(Self {
            monitor,
            known: KnownBlocks::new(store, previous, staged),
            old: OldMembers::open(store, previous, stamps)?,
            trusted_before,
            previous_bytes: previous.map(|previous| previous.version.stream_bytes),
            owners: Owners::default(),
            links: HashMap::new(),
            buffer: Vec::new(),
            out: Scanned {
                pieces: Pieces::default(),
                packer: Packer::start(store, options.knobs),
                catalog: CatalogWriter::create(
                    store,
                    previous.map(|previous| &previous.version.catalog),
                )?,
                cache: ScanCache {
                    seq: 0,
                    catalog: Digest::of(b""),
                    scan_start: now,
                    read_all,
                    stamps: Vec::new(),
                },
                members: 0,
                size_bytes: 0,
                is_file: false,
                problems: Vec::new(),
                notes: Vec::new(),
            },
        })
    }

    fn found(&mut self, found: &Found) -> Result<(), Error> {
        let old = self.old.take(&found.path)?;
        let Some(kind) = source::kind(&found.stat) else {
            self.out.notes.push(format!(
                "Left out: {}: a socket cannot be stored",
                printable(&found.path)
            ));
            return Ok(());
        };
        self.out.is_file |= self.out.cache.stamps.is_empty() && kind == Kind::Regular;
        let result = self.described(found, kind).map_err(ReadError::Source);
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
                Ok(self.absent(found.path.clone(), &error)?)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The member without content. Attributes that cannot be read are a problem, but no reason to leave out the rest.
    pub fn described(&mut self, found: &Found, kind: Kind) -> std::io::Result<Member> {
        let (member, unread) = source::member(found, kind, &mut self.owners)?;
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
        let stamp = source::stamp(&found.stat);
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
        let stat = &found.stat;
        if member.kind == Kind::Directory || stat.st_nlink < 2 {
            return None;
        }
        self.links.get(&(stat.st_dev, stat.st_ino)).cloned()
    }

    pub fn remember_link(&mut self, found: &Found) {
        let stat = &found.stat;
        if stat.st_nlink > 1 && source::kind(stat) != Some(Kind::Directory) {
            self.links
                .insert((stat.st_dev, stat.st_ino), found.path.clone());
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
        let head = header(member);
        member.header_bytes = u32::try_from(head.len()).expect("a header is small");
        let map = member.content.sparse_map().unwrap_or_default();
        let mut pieces = Pieces::default();
        let old = old.filter(|old| old.member.kind != Kind::Absent);
        let same_length = |old: &&Old| old.member.header_bytes as usize == head.len();
        let old_head = old
            .filter(same_length)
            .filter(|old| header(&old.member) == head);
        match old_head {
            Some(old) => pieces.push(Origin::Old(old.offset), head.len() as u64),
            None => self.pack(&head, &mut pieces)?,
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
        self.out.cache.stamps.push(stamp);
        self.out.catalog.add(member)
    }

    /// Records something that could not be read: it is listed, and the version is partial.
    fn absent(&mut self, path: Vec<u8>, error: &SourceError) -> Result<(), StoreError> {
        let reason = format!("{error}: {}", error.source);
        self.out.problems.push(reason.clone());
        self.out.catalog.add(&Member {
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
        })
    }

    /// Ends the stream with its two zero blocks.
    fn end(mut self) -> Result<Scanned, StoreError> {
        if let Some(bytes) = self.previous_bytes {
            self.out
                .pieces
                .push(Origin::Old(bytes - END_BYTES as u64), END_BYTES as u64);
        } else {
            let packed = self.out.packer.add(Lane::Small, &[0; END_BYTES], None)?;
            self.out
                .pieces
                .push(Origin::New(packed.frame, packed.skip), END_BYTES as u64);
        }
        Ok(self.out)
    }
}

fn before(scan_start: Timestamp) -> Option<(i64, u32)> {
    let limit = scan_start.checked_sub(RACY).ok()?;
    Some((
        limit.as_second(),
        u32::try_from(limit.subsec_nanosecond()).unwrap_or(0),
    ))
}
