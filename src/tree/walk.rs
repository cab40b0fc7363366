//! Finding the members of a source in path order, by directory handles.
//!
//! A few innermost directories are held open; an outer one is opened again from within by `..` and must be the same
//! directory as before. So depth is bounded by nothing but memory, and no link is ever followed.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::vec;

use rustix::fs::{self, FileType, Mode, OFlags};

use super::beneath::{self, DIR_FLAGS};
use super::found::{Found, Step};
use super::meta::Meta;
use super::mount::Mounts;
use super::select::{LeftOut, Rules, Selection, Verdict};
use super::tag;
use crate::error::{Error, SourceError, printable};

/// Walks a tree depth first, siblings by raw bytes.
pub struct Walk {
    rules: Rules,
    mounts: Mounts,
    /// The path of the innermost level.
    path: Vec<u8>,
    levels: Vec<Level>,
    queue: VecDeque<Step>,
    /// So many levels from the outside are to be handed out before what is queued.
    to_tell: usize,
    root_device: u64,
}

/// A directory that is being walked.
struct Level {
    path_len: usize,
    meta: Meta,
    /// Closed while the walk is deep below.
    dir: Option<Arc<OwnedFd>>,
    names: vec::IntoIter<CString>,
    verdict: Verdict,
    /// A directory that is left out until something in it turns out to be included.
    is_told: bool,
}

/// So many directories are open at once, whatever the depth.
const OPEN_LEVELS: usize = 16;

impl Walk {
    /// Begins at `root`: a directory, a regular file or a block device. A symbolic link given as root is followed, as
    /// the user means what it points to.
    pub fn open(root: &Path, selection: &Selection) -> Result<Self, Error> {
        let stat = fs::stat(root).map_err(|error| Error::file("read", root, error.into()))?;
        let mut walk = Self {
            rules: Rules::new(selection, root)?,
            mounts: Mounts::read(),
            path: Vec::new(),
            levels: Vec::new(),
            queue: VecDeque::new(),
            to_tell: 0,
            root_device: stat.st_dev,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = DIR_FLAGS.difference(OFlags::NOFOLLOW);
                let dir = fs::open(root, flags, Mode::empty())
                    .map_err(|error| Error::file("open", root, error.into()))?;
                let meta =
                    Meta::of_open(&dir).map_err(|error| Error::file("look at", root, error))?;
                walk.root_device = meta.device;
                walk.enter(dir, meta, Verdict::Kept);
            }
            FileType::RegularFile | FileType::BlockDevice => {
                let found = root_file(root)?;
                if found.meta.kind == FileType::RegularFile
                    && walk.mounts.is_pseudo(&*found.dir, found.meta.device)
                {
                    return Err(Error::Refused(format!(
                        "{} is on a pseudo file system",
                        root.display()
                    )));
                }
                walk.queue.push_back(Step::Found(Box::new(found)));
            }
            _ => {
                return Err(Error::Refused(format!(
                    "{} is neither a directory nor a regular file nor a block device",
                    root.display()
                )));
            }
        }
        Ok(walk)
    }

    /// The next step, `None` at the end.
    pub fn next_step(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.next_outer().or_else(|| self.queue.pop_front()) {
                return Some(step);
            }
            self.to_tell = 0;
            let level = self.levels.last_mut()?;
            match level.names.next() {
                Some(name) => self.look(&name),
                None => self.leave(),
            }
        }
    }

    /// Looks at the next name of the innermost directory.
    fn look(&mut self, name: &CStr) {
        let level = self.levels.last().expect("looked at from a level");
        self.path.truncate(level.path_len);
        self.path = join(&self.path, name.to_bytes());
        if !self.rules.is_looked_at(&self.path) {
            return;
        }
        let parent = level.verdict;
        let dir = Arc::clone(level.dir.as_ref().expect("the innermost directory is open"));
        let meta = match Meta::of(&*dir, name) {
            Ok(meta) => meta,
            Err(error) => {
                let verdict = self.rules.verdict(parent, &self.path, false);
                return match verdict {
                    Verdict::Excluded | Verdict::Searched => self.left_out(LeftOut::Excluded),
                    Verdict::Kept | Verdict::Included => self.problem("look at", error),
                };
            }
        };
        let verdict = self.rules.verdict(parent, &self.path, meta.is_dir());
        if verdict == Verdict::Excluded {
            return self.left_out(LeftOut::Excluded);
        }
        if meta.is_dir() {
            return self.look_into(&dir, name, meta, verdict);
        }
        if meta.kind == FileType::Socket {
            return self.left_out(LeftOut::Socket);
        }
        if meta.kind == FileType::RegularFile && self.rules.is_too_large(meta.size) {
            return self.left_out(LeftOut::TooLarge(meta.size));
        }
        let is_image = meta.kind == FileType::BlockDevice && self.rules.is_read_special(&self.path);
        let path = self.path.clone();
        let name = name.to_owned();
        self.tell_outer();
        self.queue.push_back(Step::Found(Box::new(Found {
            path,
            meta,
            dir,
            name,
            is_image,
        })));
    }

    /// Opens a directory that was found, if it is to be walked.
    fn look_into(&mut self, dir: &OwnedFd, name: &CStr, meta: Meta, verdict: Verdict) {
        if self.rules.selection().leave_out.contains(&meta.identity()) {
            return self.left_out(LeftOut::Backups);
        }
        if self
            .levels
            .iter()
            .any(|level| level.meta.identity() == meta.identity())
        {
            return self.left_out(LeftOut::Loop);
        }
        let opened = match fs::openat(dir, name, DIR_FLAGS, Mode::empty()) {
            Ok(opened) => opened,
            Err(error) => return self.problem("open the directory", error.into()),
        };
        match Meta::of_open(&opened) {
            Ok(now) if now.identity() == meta.identity() => self.enter(opened, now, verdict),
            Ok(_) => self.problem(
                "open the directory",
                io::Error::other("it was replaced while we looked"),
            ),
            Err(error) => self.problem("look at", error),
        }
    }

    /// Begins a directory: its names come next.
    fn enter(&mut self, dir: OwnedFd, mut meta: Meta, verdict: Verdict) {
        if self.path.is_empty() && self.rules.selection().leave_out.contains(&meta.identity()) {
            return self.left_out(LeftOut::Backups);
        }
        let outside = self
            .levels
            .last()
            .is_none_or(|outer| outer.meta.device != meta.device);
        let foreign = self.rules.selection().one_file_system && meta.device != self.root_device;
        let mut reason = match outside {
            true if self.mounts.is_pseudo(&dir, meta.device) => Some(LeftOut::PseudoFileSystem),
            true if foreign => Some(LeftOut::OtherFileSystem),
            _ => None,
        };
        let mut names = Vec::new();
        if reason.is_none() {
            match read_names(&dir) {
                Ok(found) => names = found,
                Err(error) => return self.problem("read the directory", error),
            }
            if let Some(tag) = tag::find(&dir, meta.uid, &names, &self.rules.selection().tags) {
                names.retain(|name| name.to_bytes() == tag.as_bytes());
                reason = Some(LeftOut::Tagged(tag));
            }
        } else {
            // Only the mount point is kept: the time of what is mounted there changes all the time.
            meta.mtime = (0, 0);
        }
        if let Some(reason) = reason {
            self.left_out(reason);
            if self.path.is_empty() {
                return;
            }
        }
        // The root stays open, to begin anew from when something in between is moved.
        if let Some(outer) = self
            .levels
            .len()
            .checked_sub(OPEN_LEVELS)
            .filter(|outer| *outer > 0)
        {
            self.levels[outer].dir = None;
        }
        self.levels.push(Level {
            path_len: self.path.len(),
            meta,
            dir: Some(Arc::new(dir)),
            names: names.into_iter(),
            verdict,
            is_told: false,
        });
        if verdict != Verdict::Searched {
            self.tell_outer();
        }
    }

    /// Lets the directories that have not been handed out yet come before what is queued after this.
    fn tell_outer(&mut self) {
        self.to_tell = self.levels.len();
    }

    /// Hands out the next directory that is to be told, from the outside in: one at a time, as each holds a descriptor.
    fn next_outer(&mut self) -> Option<Step> {
        // Those that were told are all outside of those that were not.
        let index = self.levels.partition_point(|level| level.is_told);
        if index >= self.to_tell.min(self.levels.len()) {
            return None;
        }
        self.levels[index].is_told = true;
        let (meta, path) = (
            self.levels[index].meta,
            self.path[..self.levels[index].path_len].to_vec(),
        );
        Some(match self.reopen(index) {
            Ok(dir) => Step::Found(Box::new(Found {
                path,
                meta,
                dir,
                name: c".".to_owned(),
                is_image: false,
            })),
            Err(error) => {
                // Without it nothing that lies in it can be a member.
                for level in &mut self.levels[index..] {
                    (level.is_told, level.names) = (true, Vec::new().into_iter());
                }
                self.queue.clear();
                problem("open the directory", path, error)
            }
        })
    }

    /// Goes back to the directory around the innermost one.
    fn leave(&mut self) {
        let outer = self.levels.len().checked_sub(2);
        let reopened = outer.map(|outer| self.reopen(outer));
        self.levels.pop();
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        self.path.truncate(level.path_len);
        match reopened.expect("there is an outer level") {
            Ok(dir) => level.dir = Some(dir),
            Err(error) => {
                // What has not been looked at in there cannot be reached any more.
                let lost = std::mem::take(&mut level.names);
                let error = error.kind();
                for name in lost {
                    let path = join(&self.path, name.to_bytes());
                    self.queue
                        .push_back(problem("return to the directory of", path, error.into()));
                }
            }
        }
    }

    /// The directory of a level, opened again if it was closed: from within, or by its path from the root, which stays
    /// open. It must be the one that it was.
    fn reopen(&self, index: usize) -> io::Result<Arc<OwnedFd>> {
        let level = &self.levels[index];
        if let Some(dir) = &level.dir {
            return Ok(Arc::clone(dir));
        }
        let is_it = |dir: &OwnedFd| {
            Meta::of_open(dir).is_ok_and(|meta| meta.identity() == level.meta.identity())
        };
        let inner = self
            .levels
            .get(index + 1)
            .and_then(|inner| inner.dir.as_ref());
        let up = inner.and_then(|inner| fs::openat(&**inner, c"..", DIR_FLAGS, Mode::empty()).ok());
        if let Some(dir) = up.filter(is_it) {
            return Ok(Arc::new(dir));
        }
        let root = self.levels[0].dir.as_ref().expect("the root stays open");
        let dir = beneath::open_dir(&**root, &self.path[..level.path_len])?;
        if is_it(&dir) {
            return Ok(Arc::new(dir));
        }
        Err(io::Error::other("it was moved or replaced while we looked"))
    }

    fn left_out(&mut self, why: LeftOut) {
        self.queue.push_back(Step::LeftOut(self.path.clone(), why));
    }

    fn problem(&mut self, op: &'static str, error: io::Error) {
        self.tell_outer();
        self.queue.push_back(problem(op, self.path.clone(), error));
    }
}

fn root_file(root: &Path) -> Result<Found, Error> {
    let real = root
        .canonicalize()
        .map_err(|error| Error::file("find", root, error))?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(Error::Refused(format!("{} has no name", root.display())));
    };
    let dir = fs::open(parent, DIR_FLAGS, Mode::empty())
        .map_err(|error| Error::file("open", root, error.into()))?;
    let c_name = CString::new(name.as_bytes()).expect("names have no NUL");
    let meta = Meta::of(&dir, &c_name).map_err(|error| Error::file("look at", root, error))?;
    Ok(Found {
        path: name.as_bytes().to_vec(),
        meta,
        dir: Arc::new(dir),
        name: c_name,
        is_image: meta.kind == FileType::BlockDevice,
    })
}

fn problem(op: &'static str, path: Vec<u8>, source: io::Error) -> Step {
    let error = SourceError {
        op,
        path: printable(&path),
        source,
    };
    Step::Problem(path, error)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

fn read_names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = beneath::names(dir)?;
    names.sort_unstable();
    Ok(names)
}
