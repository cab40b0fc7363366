//! What differs between two raw streams, as stretches of whole lines. Memory follows what differs, not the streams.

use memchr::memchr_iter;

use crate::delta::Piece;
use crate::delta::align::Aligner;
use crate::error::{Error, StoreError};
use crate::store::stream::VersionStream;

/// The newer stream is read by windows of this length,
const WINDOW_BYTES: u64 = 8 << 20;
/// and looked for around the expected place in the older one.
const BEFORE_BYTES: u64 = 64 << 10;
const BEHIND_BYTES: u64 = 1 << 20;
/// Shorter stretches in common are not looked for.
const MIN_BYTES: usize = 64;
/// What is in common counts from so many lines on: less is shown with what is around it.
const ANCHOR_LINES: usize = 8;
/// So many lines around what differs are shown.
pub const CONTEXT_LINES: usize = 3;
/// Lines may be long: no more around it is shown.
const CONTEXT_MAX_BYTES: usize = 64 << 10;
/// Longer stretches are not compared by lines.
const STRETCH_MAX_BYTES: u64 = 4 << 20;

/// A stretch that differs, with some lines around it.
pub struct Stretch {
    /// How many lines lie before it in the older stream, and in the newer one.
    pub before: (u64, u64),
    /// What stands there; `None` if it is too long to be compared.
    pub text: Option<(Vec<u8>, Vec<u8>)>,
    /// How many bytes differ: of the older stream, of the newer one.
    pub bytes: (u64, u64),
}

/// Takes stretches in order.
pub type See<'a> = &'a mut dyn FnMut(&Stretch) -> Result<(), Error>;

/// Calls `see` for every stretch of lines that differs.
pub fn differing(old: &VersionStream, new: &VersionStream, see: See<'_>) -> Result<(), Error> {
    let mut comparison = Comparison {
        old,
        new,
        at: (0, 0),
        lines: (0, 0),
        tail: Vec::new(),
    };
    let mut start = 0;
    while start < new.len() {
        let end = (start + WINDOW_BYTES).min(new.len());
        let bytes = new.read(start..end)?;
        comparison.window(start, &bytes, see)?;
        start = end;
    }
    comparison.stretch((old.len(), new.len()), &[], see)
}

/// How far two streams are known to be the same, or told of.
struct Comparison<'a> {
    old: &'a VersionStream,
    new: &'a VersionStream,
    /// Where the last stretch in common ends in both.
    at: (u64, u64),
    /// How many lines end before that.
    lines: (u64, u64),
    /// Its last lines.
    tail: Vec<u8>,
}

impl Comparison<'_> {
    fn window(&mut self, start: u64, bytes: &[u8], see: See<'_>) -> Result<(), Error> {
        let expected = self.at.0;
        let until = expected + bytes.len() as u64 + BEHIND_BYTES;
        let region = expected.saturating_sub(BEFORE_BYTES)..until.min(self.old.len());
        let old = self.old.read(region.clone())?;
        let script = Aligner::of(&old, region.start, MIN_BYTES).align(bytes, expected);
        let mut place = 0;
        for piece in script.pieces() {
            let len = usize::try_from(piece.output_bytes()).expect("a window fits in memory");
            let common = &bytes[place..place + len];
            if let Piece::Copy { offset, .. } = piece {
                self.common(offset, start + place as u64, common, see)?;
            }
            place += len;
        }
        Ok(())
    }

    /// Takes a stretch that both have, if it is behind the last one and long enough, or goes on with it.
    fn common(&mut self, old: u64, new: u64, bytes: &[u8], see: See<'_>) -> Result<(), Error> {
        let goes_on = (old, new) == self.at;
        if old < self.at.0 || !goes_on && newlines(bytes) < ANCHOR_LINES {
            return Ok(());
        }
        if !goes_on {
            let head = first_lines(bytes);
            self.stretch((old, new), &head[..head.len().min(CONTEXT_MAX_BYTES)], see)?;
        }
        let count = newlines(bytes) as u64;
        self.lines = (self.lines.0 + count, self.lines.1 + count);
        self.at = (old + bytes.len() as u64, new + bytes.len() as u64);
        self.tail.extend_from_slice(bytes);
        let tail = last_lines(&self.tail);
        self.tail = tail[tail.len().saturating_sub(CONTEXT_MAX_BYTES)..].to_vec();
        Ok(())
    }

    /// Tells of what lies between the last stretch in common and the next, which begins with `head`.
    fn stretch(&mut self, to: (u64, u64), head: &[u8], see: See<'_>) -> Result<(), Error> {
        let bytes = (to.0 - self.at.0, to.1 - self.at.1);
        if bytes == (0, 0) {
            return Ok(());
        }
        let context = newlines(&self.tail) as u64;
        let mut stretch = Stretch {
            before: (self.lines.0 - context, self.lines.1 - context),
            text: None,
            bytes,
        };
        let (mut old_lines, mut new_lines) = (0, 0);
        if bytes.0.max(bytes.1) <= STRETCH_MAX_BYTES {
            let old = self.old.read(self.at.0..to.0)?;
            let new = self.new.read(self.at.1..to.1)?;
            (old_lines, new_lines) = (newlines(&old) as u64, newlines(&new) as u64);
            let around = |text: &[u8]| [&self.tail, text, head].concat();
            stretch.text = Some((around(&old), around(&new)));
        } else {
            each_part(self.old, self.at.0, to.0, &mut |part| {
                old_lines += newlines(part) as u64;
            })?;
            each_part(self.new, self.at.1, to.1, &mut |part| {
                new_lines += newlines(part) as u64;
            })?;
        }
        self.lines = (self.lines.0 + old_lines, self.lines.1 + new_lines);
        self.tail.clear();
        see(&stretch)
    }
}

fn each_part(
    stream: &VersionStream,
    from: u64,
    to: u64,
    see: &mut dyn FnMut(&[u8]),
) -> Result<(), StoreError> {
    let mut at = from;
    while at < to {
        let end = (at + WINDOW_BYTES).min(to);
        see(&stream.read(at..end)?);
        at = end;
    }
    Ok(())
}

fn newlines(bytes: &[u8]) -> usize {
    memchr_iter(b'\n', bytes).count()
}

/// The rest of the line that is begun, and the lines behind it that are shown.
fn first_lines(bytes: &[u8]) -> &[u8] {
    let end = memchr_iter(b'\n', bytes)
        .map(|at| at + 1)
        .nth(CONTEXT_LINES);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// The last lines that are shown, and the one that is begun.
fn last_lines(bytes: &[u8]) -> &[u8] {
    let ends = memchr_iter(b'\n', bytes).rev();
    let start = ends.map(|at| at + 1).nth(CONTEXT_LINES);
    &bytes[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::{first_lines, last_lines};

    #[test]
    fn the_lines_around_are_whole() {
        assert_eq!(first_lines(b"st\n1\n2\n3\n4\n"), b"st\n1\n2\n3\n");
        assert_eq!(last_lines(b"1\n2\n3\n4\n5\nbeg"), b"3\n4\n5\nbeg");
        assert_eq!(
            (first_lines(b"a"), last_lines(b"a")),
            (&b"a"[..], &b"a"[..])
        );
    }
}
