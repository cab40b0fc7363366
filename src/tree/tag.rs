//! Tags: files that say that the rest of their directory is not to be backed up.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Mode, OFlags};

use super::meta::Meta;

/// A tag of this name counts only with its signature: <https://bford.info/cachedir/>.
pub const CACHE_TAG: &str = "CACHEDIR.TAG";
const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The first of the tags that stands in a directory and counts: a regular file of root or of the directory's owner. Others
/// who may write there must not hide what is not theirs. The names are sorted.
pub fn find(dir: &OwnedFd, owner: u32, names: &[CString], tags: &[String]) -> Option<String> {
    let counts = |tag: &&String| {
        let at = names.binary_search_by(|name| name.to_bytes().cmp(tag.as_bytes()));
        let meta = at.ok().and_then(|at| Meta::of(dir, &names[at]).ok());
        meta.is_some_and(|meta| {
            meta.kind == FileType::RegularFile && [0, owner].contains(&meta.uid)
        }) && (*tag != CACHE_TAG || has_signature(dir))
    };
    tags.iter().find(counts).cloned()
}

fn has_signature(dir: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut start = [0; SIGNATURE.len()];
    fs::openat(dir, CACHE_TAG, flags, Mode::empty())
        .and_then(|file| rustix::io::pread(&file, &mut start[..], 0))
        .is_ok_and(|count| &start[..count] == SIGNATURE)
}
