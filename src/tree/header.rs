//! Tar headers: ustar, with pax records only for what ustar cannot hold. The same member always gives the same bytes.
//!
//! Source: POSIX.1-2017 `pax`, GNU tar's documentation of its sparse format 1.0, star's `SCHILY.*` keywords.

use tar::{EntryType, Header};

use super::acl;
use crate::catalog::{Kind, Member};

const NAME_BYTES: usize = 100;
const OWNER_BYTES: usize = 31;
const RECORD: usize = 512;
/// Seven octal digits.
const ID_MAX: u64 = 0o7_777_777;
/// Eleven octal digits.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// The header of a member with the pax records before it; nothing for a member that is not in the stream, or is all of it.
pub fn header(member: &Member) -> Vec<u8> {
    if member.kind == Kind::Absent || member.content.is_stream() {
        return Vec::new();
    }
    let name = archive_name(member);
    let link = archive_link(member);
    let records = pax_records(member, &name, &link);
    let mut out = Vec::new();
    if !records.is_empty() {
        let pax_name = [b"./PaxHeaders/", base(&name)].concat();
        let block = ustar(
            &pax_name,
            b"",
            EntryType::XHeader,
            &Fields {
                mode: 0o644,
                size: records.len() as u64,
                ..Fields::default()
            },
        );
        out.extend_from_slice(block.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(RECORD), 0);
    }
    let in_range = |value: u64, max: u64| if value > max { 0 } else { value };
    let (seconds, _) = member.mtime;
    let fields = Fields {
        mode: member.mode,
        uid: in_range(member.uid.into(), ID_MAX),
        gid: in_range(member.gid.into(), ID_MAX),
        size: in_range(member.body_bytes(), SIZE_MAX),
        mtime: u64::try_from(seconds)
            .ok()
            .filter(|s| *s <= SIZE_MAX)
            .unwrap_or(0),
        user: &member.user,
        group: &member.group,
        device: member.device,
    };
    let short = if member.content.is_sparse() {
        [b"./GNUSparseFile.0/", base(&name)].concat()
    } else {
        name
    };
    out.extend_from_slice(ustar(&short, &link, entry_type(member.kind), &fields).as_bytes());
    out
}

#[derive(Default)]
struct Fields<'a> {
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    user: &'a [u8],
    group: &'a [u8],
    device: (u32, u32),
}

fn ustar(name: &[u8], link: &[u8], kind: EntryType, fields: &Fields<'_>) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(fields.mode);
    header.set_uid(fields.uid);
    header.set_gid(fields.gid);
    header.set_size(fields.size);
    header.set_mtime(fields.mtime);
    header.set_entry_type(kind);
    let block = header.as_ustar_mut().expect("made as ustar");
    copy_cut(name, &mut block.name);
    copy_cut(link, &mut block.linkname);
    copy_cut(
        &fields.user[..fields.user.len().min(OWNER_BYTES)],
        &mut block.uname,
    );
    copy_cut(
        &fields.group[..fields.group.len().min(OWNER_BYTES)],
        &mut block.gname,
    );
    if matches!(kind, EntryType::Char | EntryType::Block) {
        block.set_device_major(fields.device.0);
        block.set_device_minor(fields.device.1);
    }
    header.set_cksum();
    header
}

fn copy_cut(from: &[u8], to: &mut [u8]) {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
}

fn entry_type(kind: Kind) -> EntryType {
    match kind {
        Kind::Regular | Kind::Absent => EntryType::Regular,
        Kind::Directory => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::HardLink => EntryType::Link,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
    }
}

/// `./a/b`, with a slash behind a directory.
fn archive_name(member: &Member) -> Vec<u8> {
    let slash: &[u8] = if member.kind == Kind::Directory && !member.path.is_empty() {
        b"/"
    } else {
        b""
    };
    [b"./", &member.path[..], slash].concat()
}

fn archive_link(member: &Member) -> Vec<u8> {
    match member.kind {
        Kind::HardLink => [b"./", &member.link[..]].concat(),
        Kind::Symlink => member.link.clone(),
        _ => Vec::new(),
    }
}

fn base(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}

fn pax_records(member: &Member, name: &[u8], link: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend_from_slice(&pax_record(key, value));
    if member.content.is_sparse() {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", name);
        add(
            b"GNU.sparse.realsize",
            member.content.size.to_string().as_bytes(),
        );
    } else if name.len() > NAME_BYTES || !name.is_ascii() {
        add(b"path", name);
    }
    if link.len() > NAME_BYTES || !link.is_ascii() {
        add(b"linkpath", link);
    }
    for (key, id) in [(&b"uid"[..], member.uid), (b"gid", member.gid)] {
        if u64::from(id) > ID_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    for (key, owner) in [(&b"uname"[..], &member.user), (b"gname", &member.group)] {
        if owner.len() > OWNER_BYTES || !owner.is_ascii() {
            add(key, owner);
        }
    }
    if member.body_bytes() > SIZE_MAX {
        add(b"size", member.body_bytes().to_string().as_bytes());
    }
    if let Some(mtime) = pax_mtime(member.mtime) {
        add(b"mtime", mtime.as_bytes());
    }
    add_xattrs(member, &mut add);
    records
}

fn add_xattrs(member: &Member, add: &mut impl FnMut(&[u8], &[u8])) {
    for (name, value) in &member.xattrs {
        let list = match &name[..] {
            acl::ACCESS => Some(&b"SCHILY.acl.access"[..]),
            acl::DEFAULT => Some(&b"SCHILY.acl.default"[..]),
            _ => None,
        };
        match list.zip(acl::to_text(value)) {
            Some((key, text)) => add(key, text.as_bytes()),
            None => add(&[b"SCHILY.xattr.", &keyword(name)[..]].concat(), value),
        }
    }
}

/// A pax keyword ends at `=`: GNU tar writes that and `%` as `%3D` and `%25`.
fn keyword(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in name {
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' => out.extend_from_slice(b"%25"),
            other => out.push(*other),
        }
    }
    out
}

/// Seconds as a decimal fraction, if ustar's whole seconds since 1970 are not enough.
fn pax_mtime((seconds, nanoseconds): (i64, u32)) -> Option<String> {
    let fits = u64::try_from(seconds).is_ok_and(|seconds| seconds <= SIZE_MAX);
    if fits && nanoseconds == 0 {
        return None;
    }
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, magnitude) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let (whole, fraction) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    let text = if fraction == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction:09}")
    };
    Some(text)
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::{header, pax_mtime, pax_record};
    use crate::catalog::{Content, Kind, Member};
    use std::io::Read as _;

    pub fn member(path: &[u8], kind: Kind) -> Member {
        Member {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            user: b"root".to_vec(),
            group: b"root".to_vec(),
            mtime: (1_700_000_000, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            content: Content::default(),
            header_bytes: 0,
            torn: false,
        }
    }

    #[test]
    fn plain_members_need_no_pax_records() {
        assert_eq!(header(&member(b"a", Kind::Directory)).len(), 512);
        assert_eq!(header(&member(b"", Kind::Directory))[..3], *b"./\0");
        assert!(header(&member(b"a", Kind::Absent)).is_empty());
    }

    #[test]
    fn a6_times_are_decimal_fractions() {
        assert_eq!(pax_mtime((5, 0)), None);
        assert_eq!(pax_mtime((5, 1)).unwrap(), "5.000000001");
        assert_eq!(pax_mtime((-2, 500_000_000)).unwrap(), "-1.500000000");
        assert_eq!(pax_mtime((-1, 0)).unwrap(), "-1");
        assert_eq!(pax_mtime(((1 << 33) - 1, 0)), None);
        assert_eq!(pax_mtime((1 << 33, 0)).unwrap(), "8589934592");
        assert_eq!(pax_mtime((1 << 34, 0)).unwrap(), "17179869184");
    }

    #[test]
    fn pax_lengths_count_themselves() {
        for len in 0..2000 {
            let record = pax_record(b"k", &vec![b'x'; len]);
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(
                text.split(' ').next().unwrap().parse::<usize>().unwrap(),
                record.len()
            );
        }
    }

    #[test]
    fn a2_a3_long_and_binary_names_are_read_back_by_the_tar_crate() {
        let mut long = member(&[b'n'; 255], Kind::Symlink);
        long.link = [b"../", &[b'\xff'; 200][..]].concat();
        let stream = [header(&long), vec![0; 1024]].concat();
        let mut archive = tar::Archive::new(&stream[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(*entry.path_bytes(), [b"./", &long.path[..]].concat());
        assert_eq!(*entry.link_name_bytes().unwrap(), long.link);
        assert_eq!(entry.read(&mut [0; 1]).unwrap(), 0);
    }
}
