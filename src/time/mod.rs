//! Instants, spans and the ways people write them.

mod span;
mod when;

use jiff::Timestamp;

pub use span::parse_span;
pub use when::When;

/// A value that could not be understood; the text names the value and what would be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTime(String);

/// RFC 3339 in UTC with nanoseconds: the form in which a version's time is written everywhere and given back to `--at`.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}
