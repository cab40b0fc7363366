//! Records of pax extensions.

use std::collections::BTreeMap;
use std::io;

use super::bad;

/// Keys and values.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A pax record: key, value, and what follows it.
pub fn record(bytes: &[u8]) -> io::Result<(&[u8], &[u8], &[u8])> {
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

/// Digits only.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// Records that are taken one after the other.
pub struct Pax(pub Records);

impl Pax {
    pub fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        self.0.remove(key.as_bytes())
    }

    pub fn number(&mut self, key: &str) -> io::Result<Option<u64>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        decimal(&value).map_or_else(
            || bad(format!("the pax record {key} is no number")),
            |number| Ok(Some(number)),
        )
    }

    pub fn time(&mut self, key: &str) -> io::Result<Option<(i64, u32)>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        parse_time(&value).map_or_else(
            || bad(format!("the pax record {key} is no time")),
            |time| Ok(Some(time)),
        )
    }

    /// Name and length of a sparse member, if it is one.
    pub fn sparse_name(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
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

    pub fn xattrs(self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
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

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn a6_times_are_decimal_fractions() {
        assert_eq!(parse_time(b"5.000000001"), Some((5, 1)));
        assert_eq!(parse_time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(
            (parse_time(b"-3"), parse_time(b"1.2.3"), parse_time(b"")),
            (Some((-3, 0)), None, None)
        );
    }
}
