//! The sync journal: what is to be copied to remotes, and what was. A line a record, each with a checksum; a line that does
//! not check, such as the last one after a crash, counts for nothing.
//!
//! `TIME pending|done REMOTE DST STATE CHECK` and `TIME exclusive REMOTE yes|no CHECK`, CHECK being the first 16 digits of
//! the BLAKE3 of what stands before it, without the blank.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::text::{escape, unescape};
use crate::digest::Digest;
use crate::time::rfc3339;

const CHECK_DIGITS: usize = 16;

/// A store's copy in a remote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// The remote's name.
    pub remote: String,
    /// The store's.
    pub dst: String,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This state is to be copied.
    Pending(Copy, u64),
    /// It is.
    Done(Copy, u64),
    /// Whether a remote itself refuses a second writer.
    Exclusive(String, bool),
}

/// The line of a record.
pub fn encode(time: Timestamp, event: &Event) -> String {
    let of_copy = |word: &str, copy: &Copy, state: u64| {
        let (remote, dst) = (escape(copy.remote.as_bytes()), escape(copy.dst.as_bytes()));
        format!("{word} {remote} {dst} {state}")
    };
    let text = match event {
        Event::Pending(copy, state) => of_copy("pending", copy, *state),
        Event::Done(copy, state) => of_copy("done", copy, *state),
        Event::Exclusive(remote, yes) => {
            let word = if *yes { "yes" } else { "no" };
            format!("exclusive {} {word}", escape(remote.as_bytes()))
        }
    };
    let line = format!("{} {text}", rfc3339(time));
    format!("{line} {}\n", check(&line))
}

fn check(line: &str) -> String {
    Digest::of(line.as_bytes()).to_string()[..CHECK_DIGITS].to_owned()
}

fn decode(line: &str) -> Option<(Timestamp, Event)> {
    let (text, sum) = line.rsplit_once(' ')?;
    if check(text) != sum {
        return None;
    }
    let word = |word: &str| String::from_utf8(unescape(word)?).ok();
    let (time, text) = text.split_once(' ')?;
    let words: Vec<&str> = text.split(' ').collect();
    let copy = |remote, dst| {
        Some(Copy {
            remote: word(remote)?,
            dst: word(dst)?,
        })
    };
    let event = match words[..] {
        ["pending", remote, dst, state] => {
            Some(Event::Pending(copy(remote, dst)?, state.parse().ok()?))
        }
        ["done", remote, dst, state] => Some(Event::Done(copy(remote, dst)?, state.parse().ok()?)),
        ["exclusive", remote, yes] => Some(Event::Exclusive(word(remote)?, yes == "yes")),
        _ => None,
    };
    Some((time.parse().ok()?, event?))
}

/// What the records come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// States that are to be copied.
    pub pending: BTreeMap<Copy, u64>,
    /// The last states that were.
    pub done: BTreeMap<Copy, u64>,
    /// When these states were made.
    pub done_at: BTreeMap<Copy, Timestamp>,
    /// Remotes of which it is known.
    pub exclusive: BTreeMap<String, bool>,
    /// How many lines there are.
    pub lines: usize,
    /// Whether lines were passed over, so that something may be missing.
    pub is_torn: bool,
}

impl Journal {
    /// Adds what was recorded.
    pub fn apply(&mut self, time: Timestamp, event: Event) {
        match event {
            Event::Pending(copy, state) => {
                self.pending.insert(copy, state);
            }
            Event::Done(copy, state) => {
                if self
                    .pending
                    .get(&copy)
                    .is_some_and(|pending| *pending <= state)
                {
                    self.pending.remove(&copy);
                }
                self.done_at.insert(copy.clone(), time);
                self.done.insert(copy, state);
            }
            Event::Exclusive(remote, yes) => {
                self.exclusive.insert(remote, yes);
            }
        }
    }

    /// Replays a journal.
    pub fn replay(content: &[u8]) -> Self {
        let mut journal = Self::default();
        for line in String::from_utf8_lossy(content).lines() {
            journal.lines += 1;
            match decode(line) {
                Some((time, event)) => journal.apply(time, event),
                None => journal.is_torn = true,
            }
        }
        journal
    }

    /// The same in as few lines as it needs.
    pub fn compact(&self, time: Timestamp) -> String {
        let done = self.done.iter().map(|(copy, state)| {
            let at = self.done_at.get(copy).copied().unwrap_or(time);
            (at, Event::Done(copy.clone(), *state))
        });
        let pending = self.pending.iter();
        let pending = pending.map(|(copy, state)| Event::Pending(copy.clone(), *state));
        let exclusive = self.exclusive.iter();
        let exclusive = exclusive.map(|(remote, yes)| Event::Exclusive(remote.clone(), *yes));
        let others = pending.chain(exclusive).map(|event| (time, event));
        done.chain(others)
            .map(|(time, event)| encode(time, &event))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Copy, Event, Journal, encode};
    use jiff::Timestamp;
    use proptest::prelude::{any, prop, proptest};

    fn copy(dst: &str) -> Copy {
        Copy {
            remote: "off site".into(),
            dst: dst.into(),
        }
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Pending(copy("a"), 3),
            Event::Pending(copy("b\nc"), 7),
            Event::Done(copy("a"), 3),
            Event::Exclusive("off site".into(), true),
            Event::Pending(copy("a"), 4),
            Event::Done(copy("b\nc"), 6),
        ]
    }

    fn text(events: &[Event]) -> String {
        let line = |event| encode(Timestamp::UNIX_EPOCH, event);
        events.iter().map(line).collect()
    }

    #[test]
    fn d10_the_journal_says_what_is_pending() {
        let journal = Journal::replay(text(&events()).as_bytes());
        let pending: Vec<_> = journal.pending.into_iter().collect();
        assert_eq!(pending, [(copy("a"), 4), (copy("b\nc"), 7)]);
        assert_eq!(journal.done[&copy("b\nc")], 6);
        assert!(journal.exclusive["off site"] && !journal.is_torn);
    }

    #[test]
    fn d10_a_torn_journal_keeps_what_stands_before_the_tear() {
        let whole = text(&events());
        for cut in 0..whole.len() {
            let journal = Journal::replay(&whole.as_bytes()[..cut]);
            let lines = whole[..cut].matches('\n').count();
            let mut expected = Journal::default();
            // A line is whole without its end, too.
            let complete = lines + usize::from(whole.as_bytes()[cut] == b'\n');
            events()
                .into_iter()
                .take(complete)
                .for_each(|event| expected.apply(Timestamp::UNIX_EPOCH, event));
            assert_eq!(
                (journal.pending, journal.done),
                (expected.pending, expected.done),
                "{cut}"
            );
        }
    }

    #[test]
    fn compaction_changes_nothing() {
        let journal = Journal::replay(text(&events()).as_bytes());
        let now = "2026-11-22T03:00:00Z".parse().unwrap();
        let compact = Journal::replay(journal.compact(now).as_bytes());
        assert_eq!(compact.done_at, journal.done_at);
        assert!(compact.lines < journal.lines);
        assert_eq!(
            (compact.pending, compact.done),
            (journal.pending, journal.done)
        );
    }

    proptest! {
        #[test]
        fn a11_any_bytes_are_replayed(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Journal::replay(&raw);
        }
    }
}
