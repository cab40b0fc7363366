//! Finding the members of a source in path order, by directory handles.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::vec;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};

use crate::error::{Error, SourceError, printable};

/// What is not part of the source.
#[derive(Debug, Default, Clone)]
pub struct Selection {
    /// Patterns as in a .gitignore file at the source's root.
    pub exclude: Vec<String>,
    /// Directories that are left out with everything below: device and inode.
    pub leave_out: HashSet<(u64, u64)>,
}

/// Something found in the source.
#[derive(Clone)]
pub struct Found {
    /// Its path below the source; empty for the source directory itself.
    pub path: Vec<u8>,
    /// What `lstat` says.
    pub stat: Stat,
    /// The directory that it is in; for the source itself the source.
    pub dir: Rc<OwnedFd>,
    /// Its name in there.
    pub name: CString,
}

/// What the walk has to say at each step.
pub enum Step {
    /// A member.
    Found(Box<Found>),
    /// A directory on purpose left out with everything below, and why.
    LeftOut(Vec<u8>, &'static str),
    /// A path at which something could not be looked at.
    Problem(Vec<u8>, SourceError),
}

/// Walks a tree depth first, siblings by raw bytes.
pub struct Walk {
    levels: Vec<Level>,
    exclude: Gitignore,
    leave_out: HashSet<(u64, u64)>,
    first: Option<Box<Found>>,
}

struct Level {
    path: Vec<u8>,
    dir: Rc<OwnedFd>,
    device: u64,
    names: vec::IntoIter<CString>,
}

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// File systems without data of their own: their content is the kernel's. `statfs` types, from Linux `magic.h`.
const PSEUDO: [u64; 18] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1373,      // devfs
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6265_6570, // configfs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x6573_5543, // fusectl
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
];

impl Walk {
    /// Begins at `root`, a directory or a regular file. A symbolic link given as root is followed, as the user means
    /// what it points to.
    pub fn open(root: &Path, selection: &Selection) -> Result<Self, Error> {
        let stat = fs::stat(root).map_err(|error| Error::file("read", root, error.into()))?;
        let mut builder = GitignoreBuilder::new("/");
        for pattern in &selection.exclude {
            let added = builder.add_line(None, pattern);
            added.map_err(|error| {
                Error::Refused(format!(
                    "EXCLUDE: cannot understand the pattern '{pattern}': {error}"
                ))
            })?;
        }
        let exclude = builder
            .build()
            .map_err(|error| Error::Refused(format!("EXCLUDE: {error}")))?;
        let first = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => root_directory(root)?,
            FileType::RegularFile => root_file(root)?,
            _ => {
                return Err(Error::Refused(format!(
                    "{} is neither a directory nor a regular file",
                    root.display()
                )));
            }
        };
        Ok(Self {
            levels: Vec::new(),
            exclude,
            leave_out: selection.leave_out.clone(),
            first: Some(Box::new(first)),
        })
    }

    /// The next step, `None` at the end.
    pub fn next_step(&mut self) -> Option<Step> {
        if let Some(first) = self.first.take() {
            return Some(self.enter(first));
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let path = join(&level.path, name.as_bytes());
            let dir = Rc::clone(&level.dir);
            let stat = match fs::statat(&*dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(error) => return Some(problem("look at", path, error.into())),
            };
            if self.is_excluded(&path, &stat) {
                continue;
            }
            return Some(self.enter(Box::new(Found {
                path,
                stat,
                dir,
                name,
            })));
        }
        None
    }

    fn is_excluded(&self, path: &[u8], stat: &Stat) -> bool {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.exclude
            .matched(Path::new(OsStr::from_bytes(path)), is_dir)
            .is_ignore()
    }

    /// Hands out what was found; a directory's content comes next.
    fn enter(&mut self, mut found: Box<Found>) -> Step {
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
            return Step::Found(found);
        }
        if self
            .leave_out
            .contains(&(found.stat.st_dev, found.stat.st_ino))
        {
            return Step::LeftOut(found.path, "it holds the backups or their bookkeeping");
        }
        let opened = fs::openat(&*found.dir, &found.name, DIR_FLAGS, Mode::empty());
        let dir = match opened {
            Ok(dir) => Rc::new(dir),
            Err(error) => return problem("open the directory", found.path, error.into()),
        };
        match fs::fstat(&*dir) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (found.stat.st_dev, found.stat.st_ino) => {
                found.stat = stat;
            }
            Ok(_) => {
                return problem(
                    "open the directory",
                    found.path,
                    io::Error::other("it was replaced while we looked"),
                );
            }
            Err(error) => return problem("look at", found.path, error.into()),
        }
        let crossed = self
            .levels
            .last()
            .is_none_or(|level| level.device != found.stat.st_dev);
        if crossed && is_pseudo(&dir) {
            return Step::LeftOut(found.path, "it is a pseudo file system");
        }
        match read_names(&dir) {
            Ok(names) => {
                let (path, device) = (found.path.clone(), found.stat.st_dev);
                self.levels.push(Level {
                    path,
                    dir,
                    device,
                    names: names.into_iter(),
                });
                Step::Found(found)
            }
            Err(error) => problem("read the directory", found.path, error),
        }
    }
}

fn root_directory(root: &Path) -> Result<Found, Error> {
    let wrap = |error: rustix::io::Errno| Error::file("open", root, error.into());
    let dir =
        fs::open(root, DIR_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(wrap)?;
    let stat = fs::fstat(&dir).map_err(wrap)?;
    Ok(Found {
        path: Vec::new(),
        stat,
        dir: Rc::new(dir),
        name: c".".to_owned(),
    })
}

fn root_file(root: &Path) -> Result<Found, Error> {
    let real = root
        .canonicalize()
        .map_err(|error| Error::file("find", root, error))?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(Error::Refused(format!("{} has no name", root.display())));
    };
    let wrap = |error: rustix::io::Errno| Error::file("open", root, error.into());
    let dir = fs::open(parent, DIR_FLAGS, Mode::empty()).map_err(wrap)?;
    let stat = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(wrap)?;
    let c_name = CString::new(name.as_bytes()).expect("names have no NUL");
    Ok(Found {
        path: name.as_bytes().to_vec(),
        stat,
        dir: Rc::new(dir),
        name: c_name,
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
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_pseudo(dir: &OwnedFd) -> bool {
    // The field's type differs between architectures; the numbers fit in 32 bits.
    fs::fstatfs(dir).is_ok_and(|stat| {
        PSEUDO.contains(&(u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff))
    })
}
