//! The fields of a tar header.

use std::io;

use super::bad;
use crate::catalog::Kind;
use crate::error::printable;

/// A header as it stands in the archive.
pub struct Header {
    pub kind: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: i64,
    pub user: Vec<u8>,
    pub group: Vec<u8>,
    pub device: (u32, u32),
}

impl Header {
    pub fn parse(block: &[u8]) -> io::Result<Self> {
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

    pub fn member_kind(&self, path: &[u8]) -> io::Result<Kind> {
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
    use super::number;

    #[test]
    fn a4_numbers_of_all_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0 "), Some(0o644));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
            Some(-2)
        );
        assert_eq!((number(b"\0\0\0\0"), number(b"68\0")), (Some(0), None));
    }
}
