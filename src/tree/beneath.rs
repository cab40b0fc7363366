//! Opening and removing below a directory handle: no link is followed, nothing outside is reached, depth is no limit.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::meta::Meta;

/// How directories are opened.
pub const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// The kernel takes paths of up to 4096 bytes: longer ones are opened in parts.
const PART_BYTES: usize = 4000;

/// Opens a directory below `root`. Paths that a source cannot have (`..`, empty parts) are refused.
pub fn open_dir(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    check(path)?;
    let mut dir = root.as_fd().try_clone_to_owned()?;
    let mut rest = path;
    while !rest.is_empty() {
        let (part, after) = split_part(rest);
        dir = open_part(&dir, part)?;
        rest = after;
    }
    Ok(dir)
}

/// Refuses a path that leads elsewhere than down. The empty path is the directory itself.
pub fn check(path: &[u8]) -> io::Result<()> {
    let is_odd = |part: &[u8]| [&b""[..], b".", b".."].contains(&part) || part.contains(&0);
    if !path.is_empty() && path.split(|byte| *byte == b'/').any(is_odd) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path that no source can have",
        ));
    }
    Ok(())
}

/// As many whole names as the kernel takes at once, and the rest.
fn split_part(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PART_BYTES {
        return (path, &[]);
    }
    let first = path[..PART_BYTES].iter().rposition(|byte| *byte == b'/');
    let cut = first.or_else(|| path.iter().position(|byte| *byte == b'/'));
    cut.map_or((path, &[]), |cut| (&path[..cut], &path[cut + 1..]))
}

fn open_part(dir: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(
        dir,
        OsStr::from_bytes(path),
        DIR_FLAGS,
        Mode::empty(),
        resolve,
    ) {
        // A kernel before 5.6, or a container that hides the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_component(dir, path),
        result => Ok(result?),
    }
}

fn open_by_component(dir: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let mut dir = dir.try_clone()?;
    for name in path.split(|byte| *byte == b'/') {
        dir = fs::openat(&dir, OsStr::from_bytes(name), DIR_FLAGS, Mode::empty())?;
    }
    Ok(dir)
}

/// Removes everything in a directory. Others may rename what is in it meanwhile: each way back up must lead to the
/// directory that it came from, else this ends.
pub fn empty(dir: impl AsFd) -> io::Result<()> {
    let mut dir = dir.as_fd().try_clone_to_owned()?;
    // For each directory on the way, the innermost last: which it is, and the names still to be removed in it.
    let mut levels = vec![(Meta::of_open(&dir)?.identity(), names(&dir)?)];
    while let Some((_, level)) = levels.last_mut() {
        let Some(name) = level.last() else {
            levels.pop();
            let Some((identity, outer)) = levels.last_mut() else {
                break;
            };
            let parent = fs::openat(&dir, c"..", DIR_FLAGS, Mode::empty())?;
            if Meta::of_open(&parent)?.identity() != *identity {
                return Err(io::Error::other(
                    "somebody moved a directory while it was removed",
                ));
            }
            let name = outer.pop().expect("what was entered");
            fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)?;
            dir = parent;
            continue;
        };
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                level.pop();
            }
            Err(Errno::ISDIR | Errno::PERM) => {
                let inner = fs::openat(&dir, name, DIR_FLAGS, Mode::empty())?;
                // A directory that was restored without the right to write.
                let _ = fs::fchmod(&inner, Mode::RWXU);
                dir = inner;
                levels.push((Meta::of_open(&dir)?.identity(), names(&dir)?));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Refuses a directory that others could have made, or can enter.
pub fn require_ours(dir: &OwnedFd) -> io::Result<()> {
    let meta = Meta::of_open(dir)?;
    // The setgid bit is inherited from the directory around.
    let ours = (meta.uid, meta.mode & 0o777) == (rustix::process::geteuid().as_raw(), 0o700);
    if ours {
        return Ok(());
    }
    Err(io::Error::other(
        "somebody else put another directory there",
    ))
}

/// The names in a directory, in no order.
pub fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{DIR_FLAGS, empty, open_by_component, open_dir, split_part};
    use rustix::fs::{Mode, mkdirat, open, openat};
    use std::os::fd::OwnedFd;

    fn dir(path: &std::path::Path) -> OwnedFd {
        open(path, DIR_FLAGS, Mode::empty()).unwrap()
    }

    #[test]
    fn h1_links_and_ways_up_are_refused_with_and_without_openat2() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(temporary.path(), root.join("a/out")).unwrap();
        std::os::unix::fs::symlink("b", root.join("a/in")).unwrap();
        let root = dir(&root);
        for bad in [
            "a/out",
            "a/out/root",
            "a/in",
            "..",
            "a/..",
            "/",
            "/tmp",
            "a//b",
            "a/./b",
            "a/b/",
        ] {
            assert!(open_dir(&root, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(
            open_by_component(&root, b"a/out").is_err()
                && open_by_component(&root, b"a/in").is_err()
        );
        assert!(open_dir(&root, b"a/b").is_ok() && open_by_component(&root, b"a/b").is_ok());
        assert!(open_dir(&root, b"").is_ok());
    }

    #[test]
    fn a9_what_is_deeper_than_a_path_may_be_long_is_opened_and_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let mut inner = dir(temporary.path());
        let mut path = Vec::new();
        for depth in 0..5000 {
            let name = format!("d{}", depth % 10);
            mkdirat(&inner, &name, Mode::RWXU).unwrap();
            inner = openat(&inner, &name, DIR_FLAGS, Mode::empty()).unwrap();
            path.extend_from_slice(if depth == 0 { b"" } else { b"/" });
            path.extend_from_slice(name.as_bytes());
        }
        let found = open_dir(dir(temporary.path()), &path).unwrap();
        let identity = |dir: &OwnedFd| crate::tree::meta::Meta::of_open(dir).unwrap().identity();
        assert_eq!(identity(&found), identity(&inner));
        empty(dir(temporary.path())).unwrap();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn long_paths_are_cut_between_names() {
        let path = [vec![b'a'; 3990], b"/".to_vec(), vec![b'b'; 300]].concat();
        assert_eq!(split_part(&path), (&path[..3990], &path[3991..]));
        assert_eq!(split_part(b"a/b"), (&b"a/b"[..], &b""[..]));
    }
}
