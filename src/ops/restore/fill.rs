//! Making members: in their order by one thread; what files hold is checked and written, and their attributes are set, by
//! all threads.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rayon::Scope;
use rustix::process::{Resource, getrlimit};

use super::Options;
use super::choice::{ChosenMembers, Item, Wanted};
use super::cursor::{Cursor, Window};
use crate::catalog::version::describe;
use crate::catalog::{Kind, Member, Version};
use crate::digest::Digest;
use crate::error::{Error, StoreError, printable, with_causes};
use crate::report::Monitor;
use crate::store::stream::VersionStream;
use crate::tree::faults::{Faults, Loss};
use crate::tree::make::{Maker, NewFile};
use crate::tree::owners::{LocalOwners, OwnerRule};

/// So many files, or so many bytes, are one thread's job.
const JOB_FILES: usize = 8;
const JOB_BYTES: u64 = 1 << 20;
/// So many jobs at most wait or are under way.
const JOBS: usize = 24;

/// What came of it.
pub(super) struct Filled {
    pub faults: Faults,
    /// The name of a single file.
    pub single: Option<PathBuf>,
    /// The store is to blame for some of the faults.
    pub is_damaged: bool,
    /// How many members were to be made.
    pub members: u64,
}

/// Has what was chosen of a version made.
pub(super) fn fill(
    wanted: &Wanted<'_>,
    maker: &mut dyn Maker,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<Filled, Error> {
    let stream = wanted.stream()?;
    let windows = wanted.windows()?;
    let members = wanted.members()?;
    let earlier = || wanted.stream();
    let partial = options.partial;
    std::thread::scope(|scope| {
        let cursor = if partial {
            Cursor::Direct(Box::new(stream))
        } else {
            let (cursor, reader) = Cursor::ahead();
            std::thread::Builder::new()
                .spawn_scoped(scope, move || reader.run(&stream, windows))
                .map_err(|error| Error::file("start", "a thread", error))?;
            cursor
        };
        let results = Results {
            version: wanted.version(),
            faults: Mutex::default(),
            error: Mutex::default(),
        };
        // The windows are dropped with the cursor, which ends the other thread.
        let mut filled = rayon::in_place_scope(|pool| {
            let (free, slots) = channel();
            for _ in 0..jobs() {
                free.send(()).expect("the other end is here");
            }
            let filling = Filling {
                maker,
                cursor,
                results: &results,
                partial,
                owners: (options.owners == OwnerRule::ByName).then(LocalOwners::default),
                earlier: &earlier,
                is_damaged: false,
                pool,
                job: Vec::new(),
                job_bytes: 0,
                free,
                slots,
            };
            filling.run(members, monitor)
        })?;
        if let Some(error) = results.error.into_inner().expect("no thread panics") {
            return Err(error);
        }
        let lost = results.faults.into_inner().expect("no thread panics");
        filled.faults.merge(lost);
        Ok(filled)
    })
}

/// How many jobs may wait: their files are open, which is limited (`RLIMIT_NOFILE`). One more is being put together.
fn jobs() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(limit / 4).unwrap_or(usize::MAX);
    (files / JOB_FILES).saturating_sub(1).clamp(1, JOBS)
}

/// What the threads that fill files leave behind.
struct Results<'a> {
    version: &'a Version,
    faults: Mutex<Faults>,
    /// The first error, which ends the restore.
    error: Mutex<Option<Error>>,
}

impl Results<'_> {
    fn fail(&self, error: Error) {
        self.error
            .lock()
            .expect("no thread panics")
            .get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.error.lock().expect("no thread panics").is_some()
    }

    fn lose(&self, member: &Member, losses: Vec<Loss>) {
        if !losses.is_empty() {
            let mut faults = self.faults.lock().expect("no thread panics");
            faults.lose_all(&member.path, losses);
        }
    }

    fn damaged(&self, member: &Member) -> StoreError {
        let detail = format!(
            "{} in {} is not what the catalog says",
            printable(&member.path),
            describe(self.version)
        );
        StoreError::damaged("objects or deltas", detail)
    }
}

/// A regular file that was made. Whoever fills the last part of it gives it its attributes.
struct Made {
    member: Member,
    file: NewFile,
}

/// Blocks of a file, all or some.
struct Part {
    made: Arc<Made>,
    blocks: Vec<Block>,
}

struct Block {
    /// Where it begins in the file.
    at: u64,
    digest: Digest,
    bytes: Bytes,
}

enum Bytes {
    In(Arc<Window>, Range<u64>),
    /// A block that no window holds whole.
    Own(Vec<u8>),
}

impl Part {
    fn fill(self, results: &Results<'_>) -> Result<(), Error> {
        let Made { member, file } = &*self.made;
        let sparse = member.content.is_sparse();
        for block in &self.blocks {
            let bytes = match &block.bytes {
                Bytes::In(window, range) => window.slice(range.clone()),
                Bytes::Own(bytes) => bytes,
            };
            if Digest::of(bytes) != block.digest {
                return Err(results.damaged(member).into());
            }
            file.write_data(bytes, block.at, sparse)
                .map_err(|error| Error::file("restore", printable(&member.path), error))?;
        }
        if let Some(Made { member, file }) = Arc::into_inner(self.made) {
            results.lose(&member, file.finish(&member));
        }
        Ok(())
    }
}

/// A restore under way.
struct Filling<'a, 'scope> {
    maker: &'a mut dyn Maker,
    cursor: Cursor,
    results: &'scope Results<'scope>,
    partial: bool,
    /// Set if members go to the users of their names.
    owners: Option<LocalOwners>,
    /// Opens the stream for what lies before the cursor.
    earlier: &'a dyn Fn() -> Result<VersionStream, StoreError>,
    is_damaged: bool,
    pool: &'a Scope<'scope>,
    /// The next job, and how much its files hold.
    job: Vec<Part>,
    job_bytes: u64,
    free: Sender<()>,
    slots: Receiver<()>,
}

impl Filling<'_, '_> {
    fn run(
        mut self,
        mut members: ChosenMembers<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Filled, Error> {
        let (mut single, mut first, mut members_made) = (None, true, 0);
        while let Some(item) = members.next_item()? {
            let is_promoted = matches!(item, Item::Promoted(..));
            let (Item::Plain(offset, mut member) | Item::Promoted(offset, mut member)) = item;
            if first && !member.path.is_empty() && member.kind == Kind::Regular {
                single = Some(PathBuf::from(OsStr::from_bytes(&member.path)));
            }
            first = false;
            members_made += 1;
            let stream_bytes = member.stream_bytes();
            if let Some(owners) = &mut self.owners {
                owners.apply(&mut member);
            }
            match member.kind {
                Kind::Regular if is_promoted => self.promoted(offset, &member)?,
                Kind::Absent => {}
                Kind::Regular => self.file(offset, member)?,
                _ => self.maker.make(&member),
            }
            self.give_up_if_full()?;
            if self.results.has_failed() {
                break;
            }
            monitor.advance(stream_bytes);
        }
        self.send();
        Ok(Filled {
            faults: self.maker.finish(),
            single,
            is_damaged: self.is_damaged,
            members: members_made,
        })
    }

    fn file(&mut self, offset: u64, member: Member) -> Result<(), Error> {
        let Some(file) = self.maker.create(&member) else {
            return Ok(());
        };
        if self.partial {
            return self.file_if_sound(offset, &member, &file);
        }
        let made = Arc::new(Made { member, file });
        let mut blocks = Vec::new();
        for block in made.member.placed_blocks(offset) {
            let range = block.offset..block.offset + block.len;
            if self.results.has_failed() {
                return Ok(());
            }
            if self.cursor.must_go_on(range.start) {
                self.add(&made, std::mem::take(&mut blocks));
                self.send();
            }
            let bytes = match self.cursor.window(&range)? {
                Some(window) => Bytes::In(window, range),
                None => Bytes::Own(self.cursor.take(range)?),
            };
            self.job_bytes += block.len;
            blocks.push(Block {
                at: block.at,
                digest: block.digest,
                bytes,
            });
            if self.job_bytes >= JOB_BYTES {
                self.add(&made, std::mem::take(&mut blocks));
                self.send();
            }
        }
        // Also a file without blocks gets its attributes.
        self.add(&made, blocks);
        drop(made);
        if self.job.len() >= JOB_FILES {
            self.send();
        }
        Ok(())
    }

    /// A file whose content lies before the cursor.
    fn promoted(&mut self, offset: u64, member: &Member) -> Result<(), Error> {
        let Some(file) = self.maker.create(member) else {
            return Ok(());
        };
        let direct = Cursor::Direct(Box::new((self.earlier)()?));
        let ahead = std::mem::replace(&mut self.cursor, direct);
        let result = self.file_if_sound(offset, member, &file);
        self.cursor = ahead;
        result
    }

    fn add(&mut self, made: &Arc<Made>, blocks: Vec<Block>) {
        let made = Arc::clone(made);
        self.job.push(Part { made, blocks });
    }

    /// Has another thread fill the files that were made.
    fn send(&mut self) {
        let job = std::mem::take(&mut self.job);
        self.job_bytes = 0;
        self.slots.recv().expect("this holds a sender");
        let (results, free) = (self.results, self.free.clone());
        self.pool.spawn(move |_| {
            if let Err(error) = job.into_iter().try_for_each(|part| part.fill(results)) {
                results.fail(error);
            }
            // The restore may have ended.
            let _ = free.send(());
        });
    }

    /// After a full disk nothing else can succeed.
    fn give_up_if_full(&mut self) -> Result<(), Error> {
        match self.maker.faults().missing.last() {
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

    /// Fills a file, or removes it again if a block of it is damaged.
    fn file_if_sound(&mut self, offset: u64, member: &Member, file: &NewFile) -> Result<(), Error> {
        match self.write_blocks(file, offset, member) {
            Ok(Ok(())) => self
                .maker
                .faults()
                .lose_all(&member.path, file.finish(member)),
            Ok(Err(error)) => self.maker.failed(member, error),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) if self.partial => {
                self.is_damaged = true;
                self.maker
                    .failed(member, io::Error::other(with_causes(&error)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes a file's blocks where they belong. The outer error is the store's, the inner one the target's.
    fn write_blocks(
        &mut self,
        file: &NewFile,
        offset: u64,
        member: &Member,
    ) -> Result<io::Result<()>, StoreError> {
        let sparse = member.content.is_sparse();
        for block in member.placed_blocks(offset) {
            let bytes = self.cursor.take(block.offset..block.offset + block.len)?;
            if Digest::of(&bytes) != block.digest {
                return Err(self.results.damaged(member));
            }
            if let Err(error) = file.write_data(&bytes, block.at, sparse) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}
