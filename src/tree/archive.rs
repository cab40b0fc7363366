//! Reading tar archives that other programs made: strictly, with one meaning for everything, or not at all.
//!
//! Understood: v7, ustar, GNU long names, pax (also global records), GNU's sparse format 1.0. Where two parts of an
//! archive contradict each other, or parsers are known to disagree, the archive is refused: parsers that guess are how
//! one archive gets two contents (CVE-2025-62518).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use crate::catalog::{Content, Kind, Member};
use crate::error::printable;

const BLOCK: u64 = 512;
/// Longer pax parts and names are refused.
const EXTENSION_MAX_BYTES: u64 = 1 << 20;

/// A member of an archive.
#[derive(Debug)]
pub struct Entry {
    /// What it is. The path is as it stands in the archive; of the content only the length is known.
    pub member: Member,
    /// Where its data are: offset in the file, offset in the archive, length.
    pub data: Vec<(u64, u64, u64)>,
}

/// Reads entries one after the other.
pub struct ArchiveReader<R> {
    input: R,
    at: u64,
    len: u64,
    global: Records,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What extensions before a header say.
#[derive(Default)]
struct Extensions {
    pax: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

fn bad<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what.into()))
}

impl<R: Read + Seek> ArchiveReader<R> {
    /// Begins at the beginning of an archive.
    pub fn new(mut input: R) -> io::Result<Self> {
        let len = input.seek(SeekFrom::End(0))?;
        Ok(Self {
            input,
            at: 0,
            len,
            global: Records::new(),
        })
    }

    /// The next member, `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let is_open = !extensions.pax.is_empty() || extensions.long_name.is_some();
                return if is_open {
                    bad("it ends after an extension")
                } else {
                    Ok(None)
                };
            };
            match header.kind {
                b'x' => extensions.pax = self.records(&header, extensions.pax)?,
                b'g' => {
                    let global = std::mem::take(&mut self.global);
                    self.global = self.records(&header, global)?;
                }
                b'L' => extensions.long_name = Some(self.long(&header)?),
                b'K' => extensions.long_link = Some(self.long(&header)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn read(&mut self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return bad("it ends within a member");
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.input.seek(SeekFrom::Start(at))?;
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.at == self.len {
            return Ok(None);
        }
        let block = self.read(self.at, BLOCK)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.at += BLOCK;
        Header::parse(&block).map(Some)
    }

    /// The data of an extension.
    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        if header.size > EXTENSION_MAX_BYTES {
            return bad("an extension is too long");
        }
        let bytes = self.read(self.at, header.size)?;
        self.skip(header.size)?;
        Ok(bytes)
    }

    fn skip(&mut self, size: u64) -> io::Result<()> {
        let end = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|size| self.at.checked_add(size));
        match end.filter(|end| *end <= self.len) {
            Some(end) => self.at = end,
            None => return bad("it ends within a member"),
        }
        Ok(())
    }

    fn long(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut bytes = self.extension(header)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        if bytes.is_empty() || bytes.contains(&0) {
            return bad("a long name is empty or has a NUL in it");
        }
        Ok(bytes)
    }

    fn records(&mut self, header: &Header, mut records: Records) -> io::Result<Records> {
        let bytes = self.extension(header)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (key, value, after) = record(rest)?;
            records.insert(key.to_vec(), value.to_vec());
            rest = after;
        }
        Ok(records)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> io::Result<Entry> {
        let mut records = self.global.clone();
        records.extend(extensions.pax);
        let mut pax = Pax(records);
        let path = one_of(pax.take("path"), extensions.long_name, &header.name)?;
        let link = one_of(pax.take("linkpath"), extensions.long_link, &header.link)?;
        let size = pax.number("size")?.unwrap_or(header.size);
        let kind = header.member_kind(&path)?;
        if kind != Kind::Regular && size != 0 {
            return bad(format!(
                "{} has data, which is not allowed",
                printable(&path)
            ));
        }
        let start = self.at;
        self.skip(size)?;
        let (path, size, data) = match pax.sparse_name()? {
            Some((name, real)) if kind == Kind::Regular => {
                (name, real, self.sparse_map(start, size, real)?)
            }
            Some(_) => return bad("a sparse member that is no file"),
            None => (path, size, vec![(0, start, size)]),
        };
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return bad("a name is empty or has a NUL in it");
        }
        let id = |number: Option<u64>, own: u64| {
            u32::try_from(number.unwrap_or(own)).map_err(io::Error::other)
        };
        let member = Member {
            kind,
            mode: header.mode,
            uid: id(pax.number("uid")?, header.uid)?,
            gid: id(pax.number("gid")?, header.gid)?,
            user: pax.take("uname").unwrap_or_else(|| header.user.clone()),
            group: pax.take("gname").unwrap_or_else(|| header.group.clone()),
            mtime: pax.time("mtime")?.unwrap_or((header.mtime, 0)),
            link,
            device: header.device,
            xattrs: pax.xattrs()?,
            content: Content {
                size,
                ..Content::default()
            },
            header_bytes: 0,
            torn: false,
            path,
        };
        Ok(Entry { member, data })
    }

    /// The map at the beginning of a sparse member's data.
    fn sparse_map(&mut self, start: u64, size: u64, real: u64) -> io::Result<Vec<(u64, u64, u64)>> {
        let mut numbers = Vec::new();
        let (mut digits, mut used) = (Vec::new(), 0);
        while numbers
            .first()
            .is_none_or(|count| numbers.len() as u64 != 1 + 2 * count)
        {
            if used >= size {
                return bad("a sparse map does not end");
            }
            for byte in self.read(start + used, BLOCK)? {
                let is_done = numbers
                    .first()
                    .is_some_and(|count| numbers.len() as u64 == 1 + 2 * count);
                if is_done {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = decimal(&digits).filter(|number| *number <= real.max(size));
                numbers.push(number.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "a sparse map is wrong")
                })?);
                digits.clear();
            }
            used += BLOCK;
        }
        let (mut data, mut at, mut last) = (Vec::new(), start + used, 0);
        for pair in numbers[1..].chunks_exact(2) {
            let (offset, len) = (pair[0], pair[1]);
            if offset < last || offset + len > real || at + len > start + size {
                return bad("a sparse map is wrong");
            }
            data.push((offset, at, len));
            (at, last) = (at + len, offset + len);
        }
        Ok(data)
    }
}

/// The one name among those given; the header's field is cut where there is another.
fn one_of(pax: Option<Vec<u8>>, long: Option<Vec<u8>>, own: &[u8]) -> io::Result<Vec<u8>> {
    match (pax, long) {
        (Some(pax), Some(long)) if pax != long => bad("a name is given twice and differently"),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(own.to_vec()),
    }
}

/// A pax record: key, value, and what follows it.
fn record(bytes: &[u8]) -> io::Result<(&[u8], &[u8], &[u8])> {
    let parse = || {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
        let (record, rest) = bytes.split_at_checked(len)?;
        let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = body
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)?;
        Some((&body[..equals], &body[equals + 1..], rest))
    };
    parse().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a pax record is malformed"))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

struct Pax(Records);

impl Pax {
    fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        self.0.remove(key.as_bytes())
    }

    fn number(&mut self, key: &str) -> io::Result<Option<u64>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        decimal(&value).map_or_else(
            || bad(format!("the pax record {key} is no number")),
            |number| Ok(Some(number)),
        )
    }

    fn time(&mut self, key: &str) -> io::Result<Option<(i64, u32)>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        parse_time(&value).map_or_else(
            || bad(format!("the pax record {key} is no time")),
            |time| Ok(Some(time)),
        )
    }

    /// Name and length of a sparse member, if it is one.
    fn sparse_name(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        let version = (self.take("GNU.sparse.major"), self.take("GNU.sparse.minor"));
        match version {
            (None, None) if self.0.keys().any(|key| key.starts_with(b"GNU.sparse.")) => {
                bad("an old sparse format")
            }
            (None, None) => Ok(None),
            (Some(major), Some(minor)) if (&major[..], &minor[..]) == (b"1", b"0") => {
                match (
                    self.take("GNU.sparse.name"),
                    self.number("GNU.sparse.realsize")?,
                ) {
                    (Some(name), Some(size)) => Ok(Some((name, size))),
                    _ => bad("a sparse member without name or length"),
                }
            }
            _ => bad("an unknown sparse format"),
        }
    }

    fn xattrs(self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = Vec::new();
        for (key, value) in self.0 {
            if key.starts_with(b"SCHILY.acl.") {
                return bad("access control lists cannot be taken over from an archive");
            }
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattrs.push((unescape(name), value));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }
}

/// In keywords GNU tar writes `=` and `%` as `%3D` and `%25`.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [b'3', b'D', after @ ..]) => (b'=', after),
            (b'%', [b'2', b'5', after @ ..]) => (b'%', after),
            _ => (*first, after),
        };
        out.push(byte);
        rest = after;
    }
    out
}

/// A decimal fraction of seconds, perhaps negative.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    let mut nine = fraction.iter().copied().take(9).collect::<Vec<u8>>();
    nine.resize(9, b'0');
    let nanoseconds = u32::try_from(decimal(&nine)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

struct Header {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    user: Vec<u8>,
    group: Vec<u8>,
    device: (u32, u32),
}

impl Header {
    fn parse(block: &[u8]) -> io::Result<Self> {
        let field = |at: usize, len: usize| &block[at..at + len];
        let is_checksum = number(field(148, 8)) == Some(checksum(block));
        if !is_checksum {
            return bad("a header's checksum is wrong");
        }
        let is_ustar = field(257, 6) == b"ustar\0";
        let mut name = text(field(0, 100)).to_vec();
        let prefix = text(field(345, 155));
        if is_ustar && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let unsigned = |at, len, what: &str| match number(field(at, len))
            .and_then(|number| u64::try_from(number).ok())
        {
            Some(number) => Ok(number),
            None => bad(format!("the {what} in a header is no number")),
        };
        let kind = block[156];
        let device = |at| {
            unsigned(at, 8, "device")
                .and_then(|number| u32::try_from(number).map_err(io::Error::other))
        };
        let is_device = matches!(kind, b'3' | b'4');
        let mode = unsigned(100, 8, "mode")?;
        let known = block[257..262] == *b"ustar";
        Ok(Self {
            kind,
            name,
            link: text(field(157, 100)).to_vec(),
            mode: u32::try_from(mode & 0o7777).expect("twelve bits"),
            uid: unsigned(108, 8, "owner")?,
            gid: unsigned(116, 8, "group")?,
            size: unsigned(124, 12, "size")?,
            mtime: number(field(136, 12))
                .map_or_else(|| bad("the time in a header is no number"), Ok)?,
            user: if known {
                text(field(265, 32)).to_vec()
            } else {
                Vec::new()
            },
            group: if known {
                text(field(297, 32)).to_vec()
            } else {
                Vec::new()
            },
            device: if is_device {
                (device(329)?, device(337)?)
            } else {
                (0, 0)
            },
        })
    }

    fn member_kind(&self, path: &[u8]) -> io::Result<Kind> {
        if self.kind == 0 && self.name.ends_with(b"/") && !path.ends_with(b"/") {
            // The name in the header is cut after a slash: a directory to Python's tarfile, a file to GNU tar.
            return bad(format!(
                "{} is a file to some programs and a directory to others",
                printable(path)
            ));
        }
        Ok(match self.kind {
            // In v7 a directory is a file whose name ends in a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return bad(format!(
                    "{} is of a type that is not understood: {:?}",
                    printable(path),
                    char::from(other)
                ));
            }
        })
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// The sum of all bytes, the checksum itself taken as blanks.
fn checksum(block: &[u8]) -> i64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(*byte)).sum::<i64>();
    sum(&block[..148]) + 8 * i64::from(b' ') + sum(&block[156..])
}

/// Octal digits between blanks and NULs, or GNU's binary form. An empty field is 0.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] == 0xff;
        let start = if negative {
            -1_i128
        } else {
            i128::from(field[0] & 0x7f)
        };
        let value = field[1..]
            .iter()
            .fold(start, |value, byte| (value << 8) | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    let plain = digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    i64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::{ArchiveReader, number, parse_time};
    use proptest::prelude::{any, prop, proptest};
    use std::io::Cursor;

    #[test]
    fn a4_a6_numbers_and_times_of_all_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0 "), Some(0o644));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
            Some(-2)
        );
        assert_eq!((number(b"\0\0\0\0"), number(b"68\0")), (Some(0), None));
        assert_eq!(parse_time(b"5.000000001"), Some((5, 1)));
        assert_eq!(parse_time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(
            (parse_time(b"-3"), parse_time(b"1.2.3"), parse_time(b"")),
            (Some((-3, 0)), None, None)
        );
    }

    proptest! {
        #[test]
        fn a11_any_bytes_give_members_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let mut reader = ArchiveReader::new(Cursor::new(&bytes)).unwrap();
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
