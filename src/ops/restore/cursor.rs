//! The stream's bytes, in order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::StoreError;
use crate::store::sequence::Sequence;
use crate::store::stream::VersionStream;

/// So many windows are in memory: one is read, one waits, one is written.
const WINDOWS: usize = 3;

/// A part of the stream. Its buffer goes back to the reading thread with the last file that needs it.
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Window {
    /// The bytes of a range of the stream that lies in the window.
    pub fn slice(&self, range: Range<u64>) -> &[u8] {
        let place = |offset: u64| usize::try_from(offset - self.start).expect("fits in memory");
        &self.bytes[place(range.start)..place(range.end)]
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // The reading thread may have ended.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// The reading thread's side.
pub(super) struct Reader {
    buffers: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
    windows: Sender<Result<Window, StoreError>>,
}

impl Reader {
    /// Reads these parts of the stream, or all of it, until nobody listens any more.
    pub fn run(self, stream: &VersionStream, windows: Option<Vec<Range<u64>>>) {
        if let Err(error) = self.try_run(stream, windows) {
            // Nobody listens any more: the restore has ended.
            let _ = self.windows.send(Err(error));
        }
    }

    fn try_run(
        &self,
        stream: &VersionStream,
        windows: Option<Vec<Range<u64>>>,
    ) -> Result<(), StoreError> {
        let mut sequence = match windows {
            Some(windows) => Sequence::of_windows(stream, windows)?,
            None => Sequence::of(stream)?,
        };
        while let Ok(buffer) = self.buffers.recv() {
            let Some((start, bytes)) = sequence.next_window(buffer)? else {
                break;
            };
            let home = self.home.clone();
            let window = Window { start, bytes, home };
            if self.windows.send(Ok(window)).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The stream; ranges are taken in order.
pub(super) enum Cursor {
    /// As it arrives from the other thread, window by window.
    Ahead {
        windows: Receiver<Result<Window, StoreError>>,
        window: Option<Arc<Window>>,
    },
    /// Block by block, so that damage costs no more than the blocks that it is in.
    Direct(Box<VersionStream>),
}

impl Cursor {
    /// A cursor, and what a thread must run for it.
    pub fn ahead() -> (Self, Reader) {
        let (home, buffers) = channel();
        let (sender, windows) = channel();
        for _ in 0..WINDOWS {
            home.send(Vec::new()).expect("the other end is here");
        }
        let reader = Reader {
            buffers,
            home,
            windows: sender,
        };
        let window = None;
        (Self::Ahead { windows, window }, reader)
    }

    /// Whether the next window is needed for a place. What holds the current one must not wait then: there are few.
    pub fn must_go_on(&self, offset: u64) -> bool {
        match self {
            Self::Ahead { window, .. } => {
                window.as_ref().is_none_or(|window| offset >= window.end())
            }
            Self::Direct(_) => false,
        }
    }

    /// The window that holds all of a range, if one does.
    pub fn window(&mut self, range: &Range<u64>) -> Result<Option<Arc<Window>>, StoreError> {
        let Self::Ahead { windows, window } = self else {
            return Ok(None);
        };
        let current = reach(windows, window, range.start)?;
        Ok((range.end <= current.end()).then(|| Arc::clone(current)))
    }

    /// The bytes of a range.
    pub fn take(&mut self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let (windows, window) = match self {
            Self::Direct(stream) => return stream.read(range),
            Self::Ahead { windows, window } => (windows, window),
        };
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let current = reach(windows, window, at)?;
            let until = range.end.min(current.end());
            out.extend_from_slice(current.slice(at..until));
            at = until;
        }
        Ok(out)
    }
}

/// Goes on to the window that holds a place.
fn reach<'a>(
    windows: &Receiver<Result<Window, StoreError>>,
    window: &'a mut Option<Arc<Window>>,
    offset: u64,
) -> Result<&'a Arc<Window>, StoreError> {
    while window.as_ref().is_none_or(|window| offset >= window.end()) {
        *window = None;
        let next = windows.recv();
        let beyond = |_| StoreError::damaged("catalogs", "a member lies beyond the stream");
        *window = Some(Arc::new(next.map_err(beyond)??));
    }
    let current = window.as_ref().expect("just set");
    if offset < current.start {
        return Err(StoreError::damaged("catalogs", "members overlap"));
    }
    Ok(current)
}
