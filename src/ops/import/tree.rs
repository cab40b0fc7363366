//! A foreign tar archive becomes a tree: read strictly, put into path order, and made beneath one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::catalog::member::path_order;
use crate::catalog::{Content, Kind, Member};
use crate::digest::{BLOCK_BYTES, is_zero};
use crate::error::printable;
use crate::tree::archive::{ArchiveReader, Entry};
use crate::tree::beneath;
use crate::tree::faults::Faults;
use crate::tree::make::{Maker, NewFile};
use crate::tree::unpack::Unpacker;

/// Unpacks an archive below `root`, which is empty and private. Of several members of one name the last counts, as with
/// tar. A name that leads elsewhere makes the whole archive unfit.
pub fn unpack(archive: &File, root: OwnedFd) -> io::Result<Faults> {
    let entries = in_order(read(archive)?)?;
    let mut unpacker = Unpacker::new(root, true)?;
    for entry in &entries {
        if entry.member.kind != Kind::Regular {
            unpacker.make(&entry.member);
            continue;
        }
        let Some(file) = unpacker.create(&entry.member) else {
            continue;
        };
        match entry
            .data
            .iter()
            .try_for_each(|part| copy(archive, &file, *part))
        {
            Ok(()) => {
                let lost = file.finish(&entry.member);
                unpacker.faults().lose_all(&entry.member.path, lost);
            }
            Err(error) => unpacker.failed(&entry.member, error),
        }
    }
    Ok(unpacker.finish())
}

type ByPath = BTreeMap<Ordered, Entry>;

/// A path, ordered as members are.
#[derive(PartialEq, Eq)]
struct Ordered(Vec<u8>);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        path_order(&self.0, &other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn read(archive: &File) -> io::Result<ByPath> {
    let mut reader = ArchiveReader::new(BufReader::new(archive.try_clone()?))?;
    let mut entries = ByPath::new();
    while let Some(mut entry) = reader.next_entry()? {
        entry.member.path = below(&entry.member.path)?;
        if entry.member.kind == Kind::HardLink {
            entry.member.link = below(&entry.member.link)?;
        }
        entries.insert(Ordered(entry.member.path.clone()), entry);
    }
    Ok(entries)
}

/// The path without `./` before and `/` behind it; refused if it does not lead down.
fn below(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut inner = path;
    while let Some(rest) = inner.strip_prefix(b"./") {
        inner = rest;
    }
    while let Some(rest) = inner.strip_suffix(b"/").filter(|rest| !rest.is_empty()) {
        inner = rest;
    }
    if inner == b"." {
        inner = b"";
    }
    let refuse = |_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the name '{}' leads elsewhere", printable(path)),
        )
    };
    beneath::check(inner).map_err(refuse)?;
    Ok(inner.to_vec())
}

/// Adds the directories that nothing is said of, and makes the first name of each file the one that has its content.
fn in_order(mut entries: ByPath) -> io::Result<Vec<Entry>> {
    let mut missing = BTreeSet::new();
    for path in entries.keys() {
        // Beyond one that is there already, the others were looked at before.
        let unknown = |parent: &&[u8]| {
            !entries.contains_key(&Ordered(parent.to_vec())) && !missing.contains(*parent)
        };
        let new: Vec<Vec<u8>> = ancestors(&path.0)
            .take_while(unknown)
            .map(<[u8]>::to_vec)
            .collect();
        missing.extend(new);
    }
    for parent in missing {
        entries.insert(Ordered(parent.clone()), directory(parent));
    }
    let links = entries
        .values()
        .filter(|entry| entry.member.kind == Kind::HardLink);
    let mut names_of: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for Entry { member, .. } in links {
        names_of
            .entry(member.link.clone())
            .or_default()
            .push(member.path.clone());
    }
    for (target, names) in names_of {
        name_anew(&mut entries, &target, names)?;
    }
    Ok(entries.into_values().collect())
}

/// Makes the first of a file's names, in path order, the one with its content, and the others links to it.
fn name_anew(entries: &mut ByPath, target: &[u8], mut names: Vec<Vec<u8>>) -> io::Result<()> {
    let held = entries.remove(&Ordered(target.to_vec()));
    let fit = |entry: &Entry| !matches!(entry.member.kind, Kind::Directory | Kind::HardLink);
    let Some(mut held) = held.filter(fit) else {
        let (name, target) = (printable(&names[0]), printable(target));
        let what = format!("'{name}' is a link to '{target}', which is not a file of the archive");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    };
    names.push(target.to_vec());
    names.sort_by(|a, b| path_order(a, b));
    for name in &names[1..] {
        let link = Member {
            path: name.clone(),
            kind: Kind::HardLink,
            link: names[0].clone(),
            content: Content::default(),
            ..held.member.clone()
        };
        entries.insert(
            Ordered(name.clone()),
            Entry {
                member: link,
                data: Vec::new(),
            },
        );
    }
    held.member.path.clone_from(&names[0]);
    entries.insert(Ordered(names.swap_remove(0)), held);
    Ok(())
}

/// The directories that a path lies in, the nearest first, the root last; nothing for the root itself.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = (0..path.len()).rev().filter(|at| path[*at] == b'/');
    let root = (!path.is_empty()).then_some(&path[..0]);
    slashes.map(|at| &path[..at]).chain(root)
}

/// A directory that the archive says nothing of.
fn directory(path: Vec<u8>) -> Entry {
    let member = Member {
        path,
        kind: Kind::Directory,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: Vec::new(),
        group: Vec::new(),
        mtime: (0, 0),
        link: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
        content: Content::default(),
        header_bytes: 0,
        torn: false,
    };
    Entry {
        member,
        data: Vec::new(),
    }
}

/// Copies a part of the archive into a file; blocks of zeros become holes.
fn copy(archive: &File, file: &NewFile, (offset, at, len): (u64, u64, u64)) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut done = 0;
    while done < len {
        let part =
            usize::try_from((len - done).min(BLOCK_BYTES as u64)).expect("at most the buffer");
        archive.read_exact_at(&mut buffer[..part], at + done)?;
        if !is_zero(&buffer[..part]) {
            file.write_at(&buffer[..part], offset + done)?;
        }
        done += part as u64;
    }
    Ok(())
}
