//! What the text formats share: words separated by single blanks, any bytes percent-encoded.

use std::fmt::Write as _;
use std::str::FromStr;

use super::FormatError;

/// Bytes as one word of printable ASCII: everything else, blanks and `%` become `%XX`; no bytes become `-`.
pub fn escape(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    let mut out = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let lone_dash = *byte == b'-' && index == 0 && bytes.len() == 1;
        if byte.is_ascii_graphic() && *byte != b'%' && !lone_dash {
            out.push(char::from(*byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    out
}

/// Undoes [`escape`].
pub fn unescape(word: &str) -> Option<Vec<u8>> {
    if word == "-" {
        return Some(Vec::new());
    }
    let mut out = Vec::new();
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else if byte.is_ascii_graphic() {
            out.push(byte);
        } else {
            return None;
        }
    }
    Some(out)
}

/// Bytes as text whose every line is ended.
pub fn lines(raw: &[u8]) -> Result<&str, FormatError> {
    let content = std::str::from_utf8(raw).map_err(|_| FormatError::content("not text"))?;
    if content.is_empty() || content.ends_with('\n') {
        Ok(content)
    } else {
        Err(FormatError::content("the last line is cut off"))
    }
}

/// The words of one line, taken one after the other.
pub struct Words<'a> {
    words: std::str::Split<'a, char>,
    line: usize,
}

impl<'a> Words<'a> {
    pub fn of(line: &'a str, number: usize) -> Self {
        Self {
            words: line.split(' '),
            line: number,
        }
    }

    pub fn error(&self, detail: impl Into<String>) -> FormatError {
        FormatError::Line {
            line: self.line,
            detail: detail.into(),
        }
    }

    pub fn word(&mut self, what: &str) -> Result<&'a str, FormatError> {
        self.words
            .next()
            .filter(|word| !word.is_empty())
            .ok_or_else(|| self.error(format!("{what} is missing")))
    }

    pub fn value<T: FromStr>(&mut self, what: &str) -> Result<T, FormatError> {
        let word = self.word(what)?;
        word.parse()
            .map_err(|_| self.error(format!("{what} cannot be '{word}'")))
    }

    pub fn bytes(&mut self, what: &str) -> Result<Vec<u8>, FormatError> {
        let word = self.word(what)?;
        unescape(word).ok_or_else(|| self.error(format!("{what} cannot be '{word}'")))
    }

    /// Takes `name=value` and returns the value.
    pub fn field(&mut self, name: &str) -> Result<&'a str, FormatError> {
        let word = self.word(name)?;
        let value = word
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='));
        value.ok_or_else(|| self.error(format!("{name}= expected instead of '{word}'")))
    }

    /// Takes `name=value` and parses the value.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<T, FormatError> {
        let value = self.field(name)?;
        value
            .parse()
            .map_err(|_| self.error(format!("{name} cannot be '{value}'")))
    }

    pub fn end(mut self) -> Result<(), FormatError> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(self.error(format!("'{word}' is not expected here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};
    use proptest::prelude::{any, prop, proptest};

    proptest! {
        #[test]
        fn a2_any_bytes_become_one_word(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let word = escape(&bytes);
            assert!(!word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic()));
            assert_eq!(unescape(&word), Some(bytes));
        }
    }

    #[test]
    fn a_lone_dash_is_not_nothing() {
        assert_eq!(unescape(&escape(b"-")), Some(b"-".to_vec()));
        assert_eq!(
            (unescape("%4"), unescape("%zz"), unescape("a b")),
            (None, None, None)
        );
    }
}
