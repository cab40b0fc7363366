//! Frames decoded by all threads, ahead of whoever takes them, in their order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use super::{Store, codec};
use crate::catalog::FrameRef;
use crate::error::StoreError;

/// At most so much is decoded and not taken yet, one frame at least.
const AHEAD_BYTES: u64 = 32 << 20;
/// So many buffers are kept for further frames: what the kernel gives anew it has to clear first.
const BUFFERS: usize = 8;

/// A frame that can be decoded by any thread.
pub(super) struct Encoded {
    pub store: Store,
    /// Of its file.
    pub path: String,
    pub frame: FrameRef,
}

impl Encoded {
    /// Reads it and decodes it into a buffer, which is emptied before.
    pub fn decode_into(&self, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        let (path, frame) = (&self.path, &self.frame);
        let stored = self
            .store
            .read_range(path, frame.offset, frame.stored_bytes)?;
        codec::decode_into(bytes, &stored, frame.raw_bytes, path)
    }
}

type Decoded = Result<Vec<u8>, StoreError>;

/// Frames in the order in which they were ordered.
#[derive(Default)]
pub(super) struct Decoding {
    waiting: VecDeque<Encoded>,
    under_way: VecDeque<(FrameRef, Receiver<Decoded>)>,
    ahead_bytes: u64,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Decoding {
    /// Has a frame decoded after those before.
    pub fn order(&mut self, frame: Encoded) {
        self.waiting.push_back(frame);
        self.start();
    }

    /// The next frame that was ordered, one for each call.
    pub fn next(&mut self) -> (FrameRef, Decoded) {
        let Some((frame, result)) = self.under_way.pop_front() else {
            let encoded = self.waiting.pop_front().expect("a frame was ordered");
            return (encoded.frame, decoded(&encoded, &self.buffers));
        };
        self.ahead_bytes -= u64::from(frame.raw_bytes);
        let result = result.recv().expect("every job sends its result");
        self.start();
        (frame, result)
    }

    /// Takes the buffer of a frame that was used for another one.
    pub fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().expect("no thread panics");
        if buffers.len() < BUFFERS {
            buffers.push(buffer);
        }
    }

    fn start(&mut self) {
        // A thread of the pool that waits for others of the pool could wait for ever.
        if rayon::current_thread_index().is_some() {
            return;
        }
        while let Some(encoded) = self.waiting.front() {
            let bytes = u64::from(encoded.frame.raw_bytes);
            if self.ahead_bytes + bytes > AHEAD_BYTES && !self.under_way.is_empty() {
                return;
            }
            let encoded = self.waiting.pop_front().expect("looked at");
            let (sender, receiver) = channel();
            let buffers = Arc::clone(&self.buffers);
            self.ahead_bytes += bytes;
            self.under_way.push_back((encoded.frame, receiver));
            rayon::spawn_fifo(move || {
                // The reader may have ended.
                let _ = sender.send(decoded(&encoded, &buffers));
            });
        }
    }
}

fn decoded(encoded: &Encoded, buffers: &Mutex<Vec<Vec<u8>>>) -> Decoded {
    let used = buffers.lock().expect("no thread panics").pop();
    let mut bytes = used.unwrap_or_default();
    encoded.decode_into(&mut bytes)?;
    Ok(bytes)
}
