//! Parts of a remote's files that came or are on their way.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use crate::error::RemoteError;

/// Ranges with no more than this between them are asked for as one.
const GAP_BYTES: u64 = 256 << 10;
/// No request asks for more.
const REQUEST_BYTES: u64 = 16 << 20;
/// What is kept of what came.
const KEPT_BYTES: u64 = 160 << 20;

/// By file; the oldest give way.
#[derive(Default)]
pub(super) struct Segments {
    by_path: HashMap<String, Vec<Arc<Segment>>>,
    order: VecDeque<Arc<Segment>>,
    bytes: u64,
}

pub(super) struct Segment {
    pub path: String,
    pub range: Range<u64>,
    content: Mutex<Option<Result<Arc<Vec<u8>>, RemoteError>>>,
    came: Condvar,
}

impl Segment {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub fn wait(&self) -> Result<Arc<Vec<u8>>, RemoteError> {
        let content = self.content.lock().expect("no thread panics with it");
        let content = self
            .came
            .wait_while(content, |content| content.is_none())
            .expect("no thread panics with it");
        content.clone().expect("waited for")
    }

    pub fn set(&self, result: Result<Vec<u8>, RemoteError>) {
        let mut content = self.content.lock().expect("no thread panics with it");
        *content = Some(result.map(Arc::new));
        self.came.notify_all();
    }
}

impl Segments {
    /// What covers a range.
    pub fn find(&self, path: &str, range: &Range<u64>) -> Option<Arc<Segment>> {
        let segments = self.by_path.get(path)?;
        let covers = |segment: &&Arc<Segment>| {
            segment.range.start <= range.start && range.end <= segment.range.end
        };
        segments.iter().find(covers).cloned()
    }

    /// Adds one that is on its way. The oldest give way.
    pub fn add(&mut self, path: &str, range: Range<u64>) -> Arc<Segment> {
        let segment = Arc::new(Segment {
            path: path.to_owned(),
            range,
            content: Mutex::new(None),
            came: Condvar::new(),
        });
        self.bytes += segment.len();
        self.order.push_back(Arc::clone(&segment));
        let of_file = self.by_path.entry(path.to_owned()).or_default();
        of_file.push(Arc::clone(&segment));
        while self.bytes > KEPT_BYTES && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.forget(&oldest);
        }
        segment
    }

    pub fn forget(&mut self, segment: &Arc<Segment>) {
        if let Some(of_file) = self.by_path.get_mut(&segment.path) {
            of_file.retain(|other| !Arc::ptr_eq(other, segment));
        }
    }
}

/// Ranges of one file that are asked for together, ascending.
pub(super) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last)
                if range.start <= last.end + GAP_BYTES
                    && range.end.max(last.end) - last.start <= REQUEST_BYTES =>
            {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn neighbours_are_asked_for_together() {
        let mib = 1 << 20;
        let near = vec![500..600, 0..100, 100..200, 200_000..200_100];
        assert_eq!(merged(near), vec![0..200_100]);
        let far = vec![0..100, mib..mib + 1];
        assert_eq!(merged(far.clone()), far);
        let long = vec![0..10 * mib, 10 * mib..20 * mib];
        assert_eq!(merged(long.clone()), long);
    }
}
