//! Restoring a version: its stream is read in order, each block checked against the catalog and written to a directory
//! beside the target, which takes the target's name when it is complete.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::catalog::version::{describe, resolve};
use crate::catalog::{Kind, Member, Version};
use crate::digest::{BLOCK_BYTES, Digest};
use crate::error::{Error, StoreError, printable};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::stream::VersionStream;
use crate::time::When;
use crate::tree::unpack::{Fault, NewFile, Unpacker};

/// The stream is read by windows of this length, one ahead of the writing.
const WINDOW_BYTES: u64 = 16 << 20;

/// The result of a restore.
#[derive(Debug)]
pub struct Report {
    /// What was restored.
    pub version: Version,
    /// Where it is.
    pub target: PathBuf,
    /// What could not be restored of members that are there: owners, attributes.
    pub problems: Vec<String>,
}

/// Restores the version that `when` means to `target`, which does not exist or is an empty directory. The caller holds
/// the readers' lock.
pub fn restore(
    store: &Store,
    when: &When,
    target: &Path,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let version = resolve(&versions, when)
        .map_err(|error| Error::Refused(format!("{}: {error}", store.name())))?;
    let index = versions
        .iter()
        .position(|other| other.seq == version.seq)
        .expect("resolved from these");
    let place = Place::prepare(target)?;
    monitor.step("restoring", Some(version.stream_bytes));
    let result = fill(store, &versions, index, &place, monitor);
    let (faults, single) = result.inspect_err(|_| place.discard())?;
    let (missing, problems): (Vec<Fault>, Vec<Fault>) = faults
        .into_iter()
        .partition(|fault| matches!(fault, Fault::Missing(..)));
    if let Some(Fault::Missing(path, error)) = missing.into_iter().next() {
        place.discard();
        return Err(Error::file("restore", path, error));
    }
    // Owners are what an ordinary user cannot set: everything else comes first.
    let (owners, others): (Vec<Fault>, Vec<Fault>) = problems
        .into_iter()
        .partition(|fault| matches!(fault, Fault::Attribute(_, "owner", _)));
    let problems = others.iter().chain(&owners).map(describe_fault).collect();
    let target = place
        .publish(single.as_deref())
        .inspect_err(|_| place.discard())?;
    Ok(Report {
        version: version.clone(),
        target,
        problems,
    })
}

fn describe_fault(fault: &Fault) -> String {
    match fault {
        Fault::Missing(path, error) => format!("Missing: {path}: {error}"),
        Fault::Attribute(path, what, error) => format!("Not restored: {what} of {path}: {error}"),
    }
}

/// The target, and the directory that becomes it.
struct Place {
    target: PathBuf,
    temporary: PathBuf,
    exists: bool,
}

impl Place {
    fn prepare(target: &Path) -> Result<Self, Error> {
        // A link to an empty directory stands for that directory.
        let resolved = target.canonicalize().ok().filter(|real| real.is_dir());
        let target = resolved.as_deref().unwrap_or(target);
        let exists = match std::fs::read_dir(target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::Refused(format!(
                        "{} is not empty; name a directory that is, or one that does not exist",
                        target.display()
                    )));
                }
                true
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && target.symlink_metadata().is_err() =>
            {
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::Refused(format!(
                    "{} exists and is not a directory; name one that does not exist",
                    target.display()
                )));
            }
            Err(error) => return Err(Error::file("restore to", target, error)),
        };
        let absolute =
            std::path::absolute(target).map_err(|error| Error::file("find", target, error))?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::Refused(format!(
                "{} cannot be a target",
                target.display()
            )));
        };
        if exists && device(&absolute)? != device(parent)? {
            return Err(Error::Refused(format!(
                "{} is a mount point, which cannot be replaced; name a directory in it, such as {}",
                target.display(),
                target.join("restored").display()
            )));
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".btw-{}", uuid::Uuid::new_v4().simple()));
        let temporary = parent.join(hidden);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&temporary)
            .map_err(|error| Error::file("create", &temporary, error))?;
        Ok(Self {
            target: absolute,
            temporary,
            exists,
        })
    }

    /// Gives the result its name: the directory, or the single file of a version of one file.
    fn publish(&self, single: Option<&Path>) -> Result<PathBuf, Error> {
        let wrap = |error| Error::file("create", &self.target, error);
        match single {
            Some(name) if !self.exists => {
                rename_new(&self.temporary.join(name), &self.target).map_err(wrap)?;
                std::fs::remove_dir(&self.temporary)
                    .map_err(|error| Error::file("remove", &self.temporary, error))?;
            }
            _ if self.exists => std::fs::rename(&self.temporary, &self.target).map_err(wrap)?,
            _ => rename_new(&self.temporary, &self.target).map_err(wrap)?,
        }
        Ok(self.target.clone())
    }

    fn discard(&self) {
        // What cannot be removed lies beside the target under a name that says whose it is.
        let _ = std::fs::remove_dir_all(&self.temporary);
    }
}

fn device(path: &Path) -> Result<u64, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::file("look at", path, error))?;
    Ok(std::os::unix::fs::MetadataExt::dev(&metadata))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

type Window = Result<(u64, Vec<u8>), StoreError>;

/// Unpacks everything below the temporary directory. Returns the faults, and the name of a single file.
fn fill(
    store: &Store,
    versions: &[Version],
    index: usize,
    place: &Place,
    monitor: &dyn Monitor,
) -> Result<(Vec<Fault>, Option<PathBuf>), Error> {
    let version = &versions[index];
    let stream = VersionStream::open(store, versions, index)?;
    let mut members = CatalogReader::open(store, &version.catalog)?;
    let mut unpacker = Unpacker::open(&place.temporary)
        .map_err(|error| Error::file("open", &place.temporary, error))?;
    let mut single = None;
    std::thread::scope(|scope| {
        let (sender, windows) = sync_channel(1);
        scope.spawn(move || read_ahead(&stream, &sender));
        let mut cursor = Cursor {
            windows,
            start: 0,
            bytes: Vec::new(),
        };
        let mut first = true;
        while let Some((offset, member)) = members.next_member()? {
            if first && !member.path.is_empty() && member.kind == Kind::Regular {
                single = Some(PathBuf::from(OsStr::from_bytes(&member.path)));
            }
            first = false;
            match member.kind {
                Kind::Absent => {}
                Kind::Regular => file(&mut unpacker, &mut cursor, offset, &member, version)?,
                _ => unpacker.make(&member),
            }
            monitor.advance(member.stream_bytes());
        }
        // The windows are dropped with the cursor, which ends the other thread.
        Ok::<(), Error>(())
    })?;
    Ok((unpacker.finish(), single))
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

fn file(
    unpacker: &mut Unpacker,
    cursor: &mut Cursor,
    offset: u64,
    member: &Member,
    version: &Version,
) -> Result<(), Error> {
    let Some(file) = unpacker.create(member) else {
        return give_up_if_full(unpacker);
    };
    if let Err(error) = write_blocks(&file, cursor, offset, member, version)? {
        unpacker.failed(member, error);
        return give_up_if_full(unpacker);
    }
    unpacker.finish_file(member);
    Ok(())
}

/// After a full disk nothing else can succeed.
fn give_up_if_full(unpacker: &Unpacker) -> Result<(), Error> {
    match unpacker.last_missing() {
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
    file: &NewFile,
    cursor: &mut Cursor,
    offset: u64,
    member: &Member,
    version: &Version,
) -> Result<io::Result<()>, StoreError> {
    for ((number, digest), block) in member.content.blocks().zip(member.placed_blocks(offset)) {
        let bytes = cursor.take(block.offset..block.offset + block.len)?;
        if Digest::of(&bytes) != digest {
            let detail = format!(
                "{} in {} is not what the catalog says",
                printable(&member.path),
                describe(version)
            );
            return Err(StoreError::damaged("objects or deltas", detail));
        }
        if let Err(error) = file.write_at(&bytes, number * BLOCK_BYTES as u64) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// The stream as it arrives from the other thread; ranges are taken in order.
struct Cursor {
    windows: Receiver<Window>,
    start: u64,
    bytes: Vec<u8>,
}

impl Cursor {
    fn take(&mut self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = self.start + self.bytes.len() as u64;
            if at >= end {
                let next = self.windows.recv();
                let next = next.map_err(|_| {
                    StoreError::damaged("catalogs", "a member lies beyond the stream")
                })?;
                (self.start, self.bytes) = next?;
                continue;
            }
            let place =
                |offset: u64| usize::try_from(offset - self.start).expect("windows fit in memory");
            let until = range.end.min(end);
            out.extend_from_slice(&self.bytes[place(at)..place(until)]);
            at = until;
        }
        Ok(out)
    }
}
