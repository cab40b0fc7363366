//! Reading out of a version: one file's content, or the whole tar stream.

use std::io::{self, Write};
use std::path::Path;

use super::parts::{self, Parts};
use super::paths;
use crate::catalog::member::PlacedBlock;
use crate::catalog::version::describe;
use crate::catalog::{Kind, Member, Version};
use crate::digest::{BLOCK_BYTES, Digest};
use crate::error::{Error, StoreError, printable};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::sequence::Sequence;
use crate::store::stream::VersionStream;

/// About so much is read at once.
const GROUP_BYTES: u64 = 16 << 20;
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Writes the content of a regular file to `out`; each block is compared with the catalog before it is written.
pub fn cat(
    store: &Store,
    versions: &[Version],
    index: usize,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<(), Error> {
    let version = &versions[index];
    let head = paths::find(store, versions, version, path)?;
    let path = match head.kind {
        Kind::Regular => head.path,
        Kind::HardLink => head.link,
        kind => return Err(no_content(&head, kind)),
    };
    let found = CatalogReader::open_at(store, &version.catalog, &path)?.next_member()?;
    let (offset, member) = match found {
        Some((offset, member)) if member.path == path && member.kind == Kind::Regular => {
            (offset, member)
        }
        // A symbolic link or a pipe may have several names too.
        Some((_, member)) if member.path == path && member.kind != Kind::HardLink => {
            return Err(no_content(&member, member.kind));
        }
        _ => {
            let detail = format!("{} is a link to nothing", printable(&path));
            return Err(StoreError::damaged("catalogs", detail).into());
        }
    };
    let stream = VersionStream::open(store, versions, index)?;
    content(&stream, version, offset, &member, out)
}

fn no_content(member: &Member, kind: Kind) -> Error {
    let path = printable(&member.path);
    Error::Refused(match kind {
        Kind::Directory => format!("{path} is a directory; btw-backup ls shows what is in it"),
        Kind::Symlink => format!("{path} is a link to {}", printable(&member.link)),
        Kind::Absent => format!("{path} could not be read then: {}", printable(&member.link)),
        _ => format!("{path} is a device or a pipe: it has no content"),
    })
}

/// Writes the content of a member that begins at `offset` of the stream.
pub fn content(
    stream: &VersionStream,
    version: &Version,
    offset: u64,
    member: &Member,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let write_error = |error| Error::file("write", "the output", error);
    let mut at = 0;
    let mut blocks = member.placed_blocks(offset).peekable();
    while let Some(first) = blocks.peek().copied() {
        let mut group: Vec<PlacedBlock> = Vec::new();
        while let Some(block) = blocks.next_if(|block| block.offset - first.offset < GROUP_BYTES) {
            group.push(block);
        }
        let last = group[group.len() - 1];
        let bytes = stream.read(first.offset..last.offset + last.len)?;
        let mut rest = &bytes[..];
        for block in group {
            let (data, after) = rest.split_at(usize::try_from(block.len).expect("it is in memory"));
            rest = after;
            if Digest::of(data) != block.digest {
                return Err(not_as_recorded(&printable(&member.path), version).into());
            }
            write_zeros(out, block.at - at).map_err(write_error)?;
            out.write_all(data).map_err(write_error)?;
            at = block.at + block.len;
        }
    }
    write_zeros(out, member.content.size - at).map_err(write_error)
}

fn write_zeros(out: &mut dyn Write, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let part = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        out.write_all(&ZEROS[..part])?;
        count -= part as u64;
    }
    Ok(())
}

/// Writes the tar stream of a version to `out`, which `name` names in errors. It is compared with the catalog as it goes.
pub fn export(
    store: &Store,
    versions: &[Version],
    index: usize,
    out: &mut dyn Write,
    name: &Path,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let version = &versions[index];
    let stream = VersionStream::open(store, versions, index)?;
    monitor.step("exporting", Some(stream.len()));
    let expected = Parts::of(store, version)?;
    let windows = parts::windows(&expected.list);
    let ranges = windows.iter().map(|parts| parts::range(parts));
    let mut sequence = Sequence::of_windows(&stream, ranges.collect())?;
    let (mut buffer, mut windows) = (Vec::new(), windows.into_iter());
    while let (Some(parts), Some((start, window))) = (windows.next(), sequence.next_window(buffer)?)
    {
        let wrong = parts::wrong(parts, start, &window);
        if !wrong.is_empty() {
            let members = parts::members_of(store, version, &wrong)?;
            let path = printable(members.first().map_or(b"its end", |path| path));
            return Err(not_as_recorded(&path, version).into());
        }
        out.write_all(&window)
            .map_err(|error| Error::file("write", name, error))?;
        monitor.advance(window.len() as u64);
        buffer = window;
    }
    out.flush()
        .map_err(|error| Error::file("write", name, error))
}

fn not_as_recorded(path: &str, version: &Version) -> StoreError {
    let detail = format!(
        "{path} in {} is not what the catalog says",
        describe(version)
    );
    StoreError::damaged("objects or deltas", detail)
}
