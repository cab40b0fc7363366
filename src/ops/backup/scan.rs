//! The scan: every member of the source in path order, side by side with the previous catalog.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::content::{Before, KnownBlocks, Placer, Read, ReadError, SMALL_FILE_BYTES, read_small};
use super::old::{Old, OldMembers, usable_cache};
use super::{Detection, Options, Previous};
use crate::catalog::{Content, Kind, Member, PageRef};
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
use crate::tree::source::{self, Owners, SourceFile};
use crate::tree::walk::{Found, Step, Walk};

/// A file whose times are not older than the last scan by this much may have changed within the clock's resolution
/// after it was read: it is read again.
const RACY: SignedDuration = SignedDuration::from_secs(2);
/// A small file that changes while it is read is read again so many times before it is marked.
const RETRIES: usize = 2;

/// What the scan found.
pub struct Scanned {
    /// The new stream.
    pub pieces: Pieces,
    /// Still holds what was not yet written.
    pub packer: Packer,
    /// The new catalog, complete but for its last page.
    pub catalog: CatalogWriter,
    /// Stamps of all members; version and catalog digest are filled in later.
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
    pub fn finish_unchanged(self) -> Result<(PageRef, ScanCache, Vec<String>), StoreError> {
        self.packer.finish()?;
        Ok((self.catalog.finish()?.root, self.cache, self.notes))
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

struct Scan<'a> {
    monitor: &'a dyn Monitor,
    known: KnownBlocks<'a>,
    old: OldMembers,
    /// Files not changed since before this need not be read; `None` if everything must be.
    trusted_before: Option<(i64, u32)>,
    previous_bytes: Option<u64>,
    owners: Owners,
    /// First path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    out: Scanned,
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

    fn found(&mut self, found: &Found) -> Result<(), StoreError> {
        let old = self.old.take(&found.path)?;
        let Some(kind) = source::kind(&found.stat) else {
            self.out.notes.push(format!(
                "Left out: {}: a socket cannot be stored",
                printable(&found.path)
            ));
            return Ok(());
        };
        self.out.is_file |= self.out.cache.stamps.is_empty() && kind == Kind::Regular;
        let result = match source::member(found, kind, &mut self.owners) {
            Ok(member) => match self.link_to(found, &member) {
                Some(first) => self
                    .add(
                        Member {
                            kind: Kind::HardLink,
                            link: first,
                            ..member
                        },
                        source::stamp(&found.stat),
                        old.as_ref(),
                        None,
                    )
                    .map_err(ReadError::Store),
                None if kind == Kind::Regular => self.regular(found, member, old.as_ref()),
                None => {
                    self.remember_link(found);
                    self.add(member, source::stamp(&found.stat), old.as_ref(), None)
                        .map_err(ReadError::Store)
                }
            },
            Err(error) => Err(ReadError::Source(error)),
        };
        match result {
            Err(ReadError::Store(error)) => Err(error),
            Err(ReadError::Source(source)) => {
                let error = SourceError {
                    op: "read",
                    path: printable(&found.path),
                    source,
                };
                self.absent(found.path.clone(), &error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The first name of a file that was met before under another one.
    fn link_to(&mut self, found: &Found, member: &Member) -> Option<Vec<u8>> {
        let stat = &found.stat;
        if member.kind == Kind::Directory || stat.st_nlink < 2 {
            return None;
        }
        self.links.get(&(stat.st_dev, stat.st_ino)).cloned()
    }

    fn remember_link(&mut self, found: &Found) {
        let stat = &found.stat;
        if stat.st_nlink > 1 && source::kind(stat) != Some(Kind::Directory) {
            self.links
                .insert((stat.st_dev, stat.st_ino), found.path.clone());
        }
    }

    fn regular(
        &mut self,
        found: &Found,
        member: Member,
        old: Option<&Old>,
    ) -> Result<(), ReadError> {
        let before = old.filter(|old| old.member.kind == Kind::Regular);
        let stamp = source::stamp(&found.stat);
        if let Some(old) = before.filter(|old| self.is_trusted(old, &member, found)) {
            let size = old.member.content.size;
            let member = Member {
                content: old.member.content.clone(),
                ..member
            };
            let mut data = Pieces::default();
            let bytes = old.member.stream_bytes()
                - u64::from(old.member.header_bytes)
                - old.member.content.map_bytes();
            data.push(
                Origin::Old(
                    old.offset
                        + u64::from(old.member.header_bytes)
                        + old.member.content.map_bytes(),
                ),
                bytes,
            );
            self.add(member, stamp, Some(old), Some(&data))?;
            self.monitor.advance(size);
        } else {
            self.monitor
                .detail(&format!("reading {}", printable(&found.path)));
            self.read(found, member, before, old)?;
        }
        self.remember_link(found);
        Ok(())
    }

    /// Whether size, times and inode say that a file is as it was.
    fn is_trusted(&self, old: &Old, member: &Member, found: &Found) -> bool {
        let stamp = source::stamp(&found.stat);
        let same = u64::try_from(found.stat.st_size) == Ok(old.member.content.size)
            && member.mtime == old.member.mtime
            && stamp == old.stamp;
        same && !old.member.torn
            && self
                .trusted_before
                .is_some_and(|limit| member.mtime < limit && stamp.ctime < limit)
    }

    fn read(
        &mut self,
        found: &Found,
        mut member: Member,
        before: Option<&Old>,
        old: Option<&Old>,
    ) -> Result<(), ReadError> {
        let file = SourceFile::open(found)?;
        let before_ref = before.map(|old| Before {
            member: &old.member,
            offset: old.offset,
        });
        // What it is now, not what it was when its directory was read.
        (member.mtime, member.mode) = (source::mtime(&file.stat), file.stat.st_mode & 0o7777);
        let mut stamp = source::stamp(&file.stat);
        let small = file.size() <= SMALL_FILE_BYTES;
        let (data, torn);
        if small {
            let mut buffer = std::mem::take(&mut self.buffer);
            (member.content, torn) = read_settled(&file, &mut buffer)?;
            self.monitor.advance(file.size());
            let header_and_map = self.header_pieces(&mut member, old, torn)?;
            let mut placer = Placer {
                packer: &mut self.out.packer,
                known: &mut self.known,
                before: before_ref,
            };
            data = placer.place_small(&member.content, &buffer)?;
            self.buffer = buffer;
            self.out.pieces.append(&header_and_map);
            self.out.pieces.append(&data);
        } else {
            let monitor = self.monitor;
            let mut placer = Placer {
                packer: &mut self.out.packer,
                known: &mut self.known,
                before: before_ref,
            };
            let read: Read = placer.read_large(&file, &mut |bytes| monitor.advance(bytes))?;
            torn = read.torn || file.was_changed()?;
            member.content = read.content;
            let header_and_map = self.header_pieces(&mut member, old, torn)?;
            self.out.pieces.append(&header_and_map);
            self.out.pieces.append(&read.data);
        }
        if torn {
            stamp = Stamp::NONE;
            self.out.problems.push(format!(
                "Changed while it was read: {}",
                printable(&found.path)
            ));
        }
        self.warn_of_rot(before, &member, stamp, found);
        Ok(self.record(&member, stamp)?)
    }

    /// Content that changed while size, times and inode did not is what silent corruption looks like.
    fn warn_of_rot(&mut self, before: Option<&Old>, member: &Member, stamp: Stamp, found: &Found) {
        let rotten = before.is_some_and(|old| {
            old.stamp == stamp
                && old.member.mtime == member.mtime
                && old.member.content.size == member.content.size
                && old.member.content.digest != member.content.digest
        });
        let settled = self.out.cache.scan_start.as_second() - member.mtime.0 > RACY.as_secs();
        if rotten && settled {
            self.out.notes.push(format!(
                "Content changed though size and times did not (damage on the source's disk?): {}",
                printable(&found.path)
            ));
        }
    }

    /// Adds a member whose data are placed already.
    fn add(
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
    fn header_pieces(
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
        let old_head = old.filter(|old| header(&old.member) == head);
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
        if !bytes.is_empty() {
            let packed = self.out.packer.add(Lane::Small, bytes, None)?;
            pieces.push(Origin::New(packed.frame, packed.skip), bytes.len() as u64);
        }
        Ok(())
    }

    /// Records a member that is in the stream.
    fn record(&mut self, member: &Member, stamp: Stamp) -> Result<(), StoreError> {
        self.out.members += 1;
        self.out.size_bytes += member.content.size;
        self.out.cache.stamps.push(stamp);
        self.out.catalog.add(member)
    }

    /// Records something that could not be read: it is listed, and the version is partial.
    fn absent(&mut self, path: Vec<u8>, error: &SourceError) -> Result<(), StoreError> {
        let reason = format!("{error}: {}", error.source);
        self.out.problems.push(reason.clone());
        self.out.cache.stamps.push(Stamp::NONE);
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
                .push(Origin::Old(bytes - END_BYTES as u64), END_BYTES as u64)
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

/// Reads a small file, again if it changed meanwhile.
fn read_settled(file: &SourceFile, buffer: &mut Vec<u8>) -> std::io::Result<(Content, bool)> {
    let mut result = read_small(file, buffer)?;
    for _ in 0..RETRIES {
        if !result.1 && !file.was_changed()? {
            return Ok(result);
        }
        std::thread::yield_now();
        result = read_small(file, buffer)?;
    }
    let changed = file.was_changed()?;
    Ok((result.0, result.1 || changed))
}
