//! The Python tool's configuration: files of `KEY = value` lines, which that tool executed and this one only reads.

use toml::{Table, Value};

/// A line that is more than a key and a plain value.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// Reads lines of a name, `=`, and a string or whole number; empty lines and comments. Anything else is refused.
pub fn parse(text: &str) -> Result<Table, BadLine> {
    let mut table = Table::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.trim();
        if code.is_empty() || code.starts_with('#') {
            continue;
        }
        let bad = || BadLine {
            line: index + 1,
            text: code.to_owned(),
        };
        // The indentation of Python has a meaning.
        let (key, value) = line
            .split_once('=')
            .filter(|_| !line.starts_with([' ', '\t']))
            .ok_or_else(bad)?;
        let key = key.trim_end();
        let is_name = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !key.starts_with(|c: char| c.is_ascii_digit());
        let value = literal(value.trim())
            .filter(|_| is_name && !key.is_empty())
            .ok_or_else(bad)?;
        // As in Python, the last one counts.
        table.insert(key.to_owned(), value);
    }
    Ok(table)
}

fn literal(text: &str) -> Option<Value> {
    let quote = text
        .chars()
        .next()
        .filter(|first| ['"', '\''].contains(first));
    let (value, rest) = if let Some(quote) = quote {
        string(&text[1..], quote)?
    } else {
        let end = text.find(['#', ' ', '\t']).unwrap_or(text.len());
        (Value::Integer(text[..end].parse().ok()?), &text[end..])
    };
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(value)
}

/// A string after its opening quote, and what follows it.
fn string(text: &str, quote: char) -> Option<(Value, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((Value::String(out), &text[at + 1..]));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()?.1 {
            same @ ('\\' | '\'' | '"') => same,
            'n' => '\n',
            't' => '\t',
            // What else a backslash can mean in Python is not guessed.
            _ => return None,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{BadLine, parse};

    #[test]
    fn plain_lines_are_read() {
        let text = "# comment\n\nTYPE=\"rdiff\"\nROOT_PATH = '/a \\'b\\''  # where\nMAX_INCREMENTAL_COUNT = 10 # ten\n";
        let table = parse(text).unwrap();
        assert_eq!(table["TYPE"].as_str(), Some("rdiff"));
        assert_eq!(table["ROOT_PATH"].as_str(), Some("/a 'b'"));
        assert_eq!(table["MAX_INCREMENTAL_COUNT"].as_integer(), Some(10));
    }

    #[test]
    fn k4_anything_that_would_have_to_be_executed_is_refused_with_its_line() {
        for code in [
            "import os",
            "A = os.environ['HOME']",
            "A = 'a' + 'b'",
            "A = ('a')",
            "A = 'a' 'b'",
            "A = f'{x}'",
            "A = [1]",
            "A += 1",
            "A = \"\"\"x\"\"\"",
            "A = '\\x41'",
            "A = 'open",
            " A = 1",
            "A.b = 1",
            "= 1",
            "A = 1; B = 2",
            "A == 1",
        ] {
            assert_eq!(
                parse(&format!("\n{code}\n")),
                Err(BadLine {
                    line: 2,
                    text: code.trim().into()
                }),
                "{code}"
            );
        }
    }
}
