//! What went wrong while members were made.

use std::collections::BTreeMap;
use std::io;

use crate::catalog::Member;
use crate::error::printable;

/// Of each kind of loss so many examples are kept.
const EXAMPLES: usize = 20;

/// What could not be made, or not made as it was.
#[derive(Debug, Default)]
pub struct Faults {
    /// Members that are missing from the target, and why.
    pub missing: Vec<(String, io::Error)>,
    /// What about members that are there could not be set: owner, mode, ...
    pub lost: BTreeMap<&'static str, Lost>,
}

/// What about a member could not be set, and why.
pub type Loss = (&'static str, io::Error);

/// How many members lost something.
#[derive(Debug, Default)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// The first of them, each with the reason.
    pub examples: Vec<String>,
}

impl Faults {
    /// Records that something about a member could not be set.
    pub fn lose(&mut self, what: &'static str, path: &[u8], error: &io::Error) {
        let lost = self.lost.entry(what).or_default();
        lost.count += 1;
        if lost.examples.len() < EXAMPLES {
            lost.examples.push(format!("{}: {error}", printable(path)));
        }
    }

    /// Records what a member lost.
    pub fn lose_all(&mut self, path: &[u8], losses: Vec<Loss>) {
        for (what, error) in losses {
            self.lose(what, path, &error);
        }
    }

    /// Adds what another thread recorded.
    pub fn merge(&mut self, other: Self) {
        self.missing.extend(other.missing);
        for (what, more) in other.lost {
            let lost = self.lost.entry(what).or_default();
            lost.count += more.count;
            lost.examples.extend(more.examples);
            lost.examples.sort_unstable();
            lost.examples.truncate(EXAMPLES);
        }
    }

    /// Records that a member is missing.
    pub fn miss(&mut self, member: &Member, error: io::Error) {
        self.missing.push((printable(&member.path), error));
    }
}
