//! Restoring a version: its stream is read in order, each block checked against the catalog and written to a directory
//! beside the target, which takes the target's name when it is complete.

mod place;

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use crate::catalog::version::{describe, resolve};
use crate::catalog::{Kind, Member, Version};
use crate::digest::{BLOCK_BYTES, Digest};
use crate::error::{Error, StoreError, printable, with_causes};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::stream::VersionStream;
use crate::time::When;
use crate::tree::unpack::{Faults, NewFile, Unpacker};

pub use place::Place;

/// The stream is read by windows of this length, one ahead of the writing. Frames that hold what several files share are
/// decoded once a window: with 16 MiB a tree of 50,000 files decoded ten times its length.
const WINDOW_BYTES: u64 = 48 << 20;
/// So many blocks are checked at once, by all threads.
const GROUP_BLOCKS: usize = 64;

/// What to restore and how.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Which version.
    pub when: &'a When,
    /// Where to: it does not exist or is an empty directory.
    pub target: &'a Path,
    /// Restore what can be, though something is missing or damaged.
    pub partial: bool,
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

/// Restores a version. The caller holds the readers' lock.
pub fn restore(
    store: &Store,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let version = resolve(&versions, options.when)
        .map_err(|error| Error::Refused(format!("{}: {error}", store.name())))?;
    let index = versions
        .iter()
        .position(|other| other.seq == version.seq)
        .expect("resolved from these");
    let place = Place::prepare(options.target)?;
    monitor.step("restoring", Some(version.stream_bytes));
    let filled = fill(store, &versions, index, &place, options.partial, monitor);
    let Filled {
        mut faults,
        single,
        is_damaged,
    } = filled.inspect_err(|_| place.discard())?;
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

/// Where a window begins in the stream, and its bytes.
type Window = Result<(u64, Vec<u8>), StoreError>;

struct Filled {
    faults: Faults,
    /// The name of a single file.
    single: Option<PathBuf>,
    is_damaged: bool,
}

/// Unpacks everything below the hidden directory.
fn fill(
    store: &Store,
    versions: &[Version],
    index: usize,
    place: &Place,
    partial: bool,
    monitor: &dyn Monitor,
) -> Result<Filled, Error> {
    let version = &versions[index];
    let stream = VersionStream::open(store, versions, index)?;
    let mut members = CatalogReader::open(store, &version.catalog)?;
    let unpacker =
        Unpacker::new(place.dir()?).map_err(|error| Error::file("open", "the target", error))?;
    std::thread::scope(|scope| {
        let cursor = if partial {
            Cursor::Direct(Box::new(stream))
        } else {
            let (sender, windows) = sync_channel(1);
            std::thread::Builder::new()
                .spawn_scoped(scope, move || read_ahead(&stream, &sender))
                .map_err(|error| Error::file("start", "a thread", error))?;
            Cursor::Ahead {
                windows,
                start: 0,
                bytes: Vec::new(),
            }
        };
        let mut filling = Filling {
            unpacker,
            cursor,
            version,
            partial,
            is_damaged: false,
        };
        let (mut single, mut first) = (None, true);
        while let Some((offset, member)) = members.next_member()? {
            if first && !member.path.is_empty() && member.kind == Kind::Regular {
                single = Some(PathBuf::from(OsStr::from_bytes(&member.path)));
            }
            first = false;
            match member.kind {
                Kind::Absent => {}
                Kind::Regular => filling.file(offset, &member)?,
                _ => filling.unpacker.make(&member),
            }
            filling.give_up_if_full()?;
            monitor.advance(member.stream_bytes());
        }
        // The windows are dropped with the cursor, which ends the other thread.
        let Filling {
            unpacker,
            is_damaged,
            ..
        } = filling;
        Ok(Filled {
            faults: unpacker.finish(),
            single,
            is_damaged,
        })
    })
}

fn read_ahead(stream: &VersionStream, sender: &SyncSender<Window>) {
    let mut at = 0;
    while at < stream.len() {
        let end = (at + WINDOW_BYTES).min(stream.len());
        let window = stream.read(at..end).map(|bytes| (at, bytes));
        let failed = window.is_err();
        // Nobody listens any more: the restore has ended.
        if sender.send(window).is_err() || failed {
            return;
        }
        at = end;
    }
}

/// A restore under way.
struct Filling<'a> {
    unpacker: Unpacker,
    cursor: Cursor,
    version: &'a Version,
    partial: bool,
    is_damaged: bool,
}

impl Filling<'_> {
    fn file(&mut self, offset: u64, member: &Member) -> Result<(), Error> {
        let Some(file) = self.unpacker.create(member) else {
            return Ok(());
        };
        match self.write_blocks(&file, offset, member) {
            Ok(Ok(())) => self.unpacker.finish_file(member, &file),
            Ok(Err(error)) => self.unpacker.failed(member, error),
            Err(error @ StoreError::Damaged { .. }) if self.partial => {
                self.is_damaged = true;
                self.unpacker
                    .failed(member, io::Error::other(with_causes(&error)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// After a full disk nothing else can succeed.
    fn give_up_if_full(&self) -> Result<(), Error> {
        match self.unpacker.last_missing() {
            Some((path, error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Err(Error::file("restore", path, io::Error::from(error.kind())))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file's blocks where they belong. The outer error is the store's, the inner one the target's.
    fn write_blocks(
        &mut self,
        file: &NewFile,
        offset: u64,
        member: &Member,
    ) -> Result<io::Result<()>, StoreError> {
        let sparse = member.content.is_sparse();
        let mut blocks = member.content.blocks().zip(member.placed_blocks(offset));
        loop {
            let group: Result<Vec<_>, StoreError> = blocks
                .by_ref()
                .take(GROUP_BLOCKS)
                .map(|((number, digest), block)| {
                    let bytes = self.cursor.take(block.offset..block.offset + block.len)?;
                    Ok((number, digest, bytes))
                })
                .collect();
            let group = group?;
            let is_right =
                |(_, digest, bytes): &(u64, Digest, Vec<u8>)| Digest::of(bytes) == *digest;
            let right = match &group[..] {
                [] => return Ok(Ok(())),
                [block] => is_right(block),
                blocks => blocks.par_iter().all(is_right),
            };
            if !right {
                let detail = format!(
                    "{} in {} is not what the catalog says",
                    printable(&member.path),
                    describe(self.version)
                );
                return Err(StoreError::damaged("objects or deltas", detail));
            }
            for (number, _, bytes) in group {
                if let Err(error) = file.write_data(&bytes, number * BLOCK_BYTES as u64, sparse) {
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// The stream; ranges are taken in order.
enum Cursor {
    /// As it arrives from the other thread, window by window.
    Ahead {
        windows: Receiver<Window>,
        start: u64,
        bytes: Vec<u8>,
    },
    /// Block by block, so that damage costs no more than the blocks that it is in.
    Direct(Box<VersionStream>),
}

impl Cursor {
    fn take(&mut self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let (windows, start, bytes) = match self {
            Self::Direct(stream) => return stream.read(range),
            Self::Ahead {
                windows,
                start,
                bytes,
            } => (windows, start, bytes),
        };
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = *start + bytes.len() as u64;
            if at >= end {
                let next = windows.recv();
                let next = next.map_err(|_| {
                    StoreError::damaged("catalogs", "a member lies beyond the stream")
                })?;
                (*start, *bytes) = next?;
                continue;
            }
            let place =
                |offset: u64| usize::try_from(offset - *start).expect("windows fit in memory");
            let until = range.end.min(end);
            out.extend_from_slice(&bytes[place(at)..place(until)]);
            at = until;
        }
        Ok(out)
    }
}
