//! Reading tar archives that other programs made: strictly, with one meaning for everything, or not at all.
//!
//! Understood: v7, ustar, GNU long names, pax (also global records), GNU's sparse format 1.0. Where two parts of an
//! archive contradict each other, or parsers are known to disagree, the archive is refused: parsers that guess are how
//! one archive gets two contents (CVE-2025-62518).

mod header;
mod pax;

use std::io::{self, Read, Seek, SeekFrom};

use crate::catalog::{Content, Kind, Member};
use crate::error::printable;
use header::Header;
use pax::{Pax, Records, decimal, record};

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
        if i64::try_from(real).is_err() {
            return bad("a sparse member is too long");
        }
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
                // The first number counts pairs, which take more bytes than that.
                let limit = if numbers.is_empty() { size } else { real };
                let number = decimal(&digits).filter(|number| *number <= limit);
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

#[cfg(test)]
mod tests {
    use super::ArchiveReader;
    use proptest::prelude::{any, prop, proptest};
    use std::io::Cursor;

    proptest! {
        #[test]
        fn a11_any_bytes_give_members_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let mut reader = ArchiveReader::new(Cursor::new(&bytes)).unwrap();
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
