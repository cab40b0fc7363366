//! Packing new content into frames and frames into objects, on a thread of its own.
//!
//! The caller hands over bytes in any order and gets for each the number of its frame and the place in it; where the
//! frame lies in which object is known at the end. Frames are compressed in parallel and written in the order in which
//! they were filled, so the result does not depend on the number of threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::codec::{self, CONTENT_LEVEL, Knobs, Product};
use super::file::NewFile;
use super::staging;
use super::{Area, Store};
use crate::catalog::FrameRef;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::staging::FrameBlocks;

/// Frames that are compressed or wait for it, for each thread: bounds memory.
const FRAMES_PER_THREAD: usize = 2;
const FRAMES_MAX: usize = 32;

/// A frame that will be there once a thread has compressed it.
type Pending = Receiver<Result<Encoded, StoreError>>;

/// Which frame bytes go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Headers and small files, in stream order.
    Small,
    /// Blocks of large files.
    Large,
}

impl Lane {
    fn frame_bytes(self, knobs: Knobs) -> usize {
        match self {
            Self::Small => knobs.frame_bytes,
            // What scattered writes leave of a frame must be decoded with it: a small frame costs a hundredth in size
            // (a disk image: 2.42x at 4 MiB, 2.40x at 1 MiB), and a quarter of the work.
            Self::Large => knobs.frame_bytes / 4,
        }
    }
}

/// Where packed bytes will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Number of the frame.
    pub frame: u32,
    /// Where in its raw bytes.
    pub skip: u32,
}

#[derive(Default)]
struct OpenFrame {
    number: u32,
    bytes: Vec<u8>,
    blocks: Vec<(u32, u32, Digest)>,
}

struct Encoded {
    number: u32,
    stored: Vec<u8>,
    raw_bytes: u32,
    digest: Digest,
    blocks: Vec<(u32, u32, Digest)>,
}

/// Takes new content.
pub struct Packer {
    lanes: [Option<OpenFrame>; 2],
    next_frame: u32,
    knobs: Knobs,
    /// Holds nothing; how many share it tells how many frames are being compressed.
    busy: Arc<()>,
    queue: Option<SyncSender<Pending>>,
    thread: Option<JoinHandle<Result<Written, StoreError>>>,
}

/// What was written.
#[derive(Default)]
pub struct Written {
    /// By number.
    pub frames: Vec<FrameRef>,
    /// The length of all objects.
    pub bytes: u64,
}

impl Packer {
    /// Starts the thread. Nothing is written before the first frame is full.
    pub fn start(store: &Store, knobs: Knobs) -> Result<Self, StoreError> {
        let waiting = FRAMES_PER_THREAD * rayon::current_num_threads();
        let (queue, frames) = sync_channel(waiting.min(FRAMES_MAX));
        let writer = ObjectWriter {
            store: store.clone(),
            knobs,
            file: None,
            begun: 0,
            in_object: Vec::new(),
            done: Vec::new(),
            bytes: 0,
        };
        let thread = std::thread::Builder::new()
            .spawn(move || writer.run(&frames))
            .map_err(|error| StoreError::io("start a thread for", Area::Objects.dir(), error))?;
        Ok(Self {
            lanes: [None, None],
            knobs,
            busy: Arc::new(()),
            next_frame: 0,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Packs bytes. `block` is digest and length of the block they begin with, for the staging record.
    pub fn add(
        &mut self,
        lane: Lane,
        bytes: &[u8],
        block: Option<(Digest, u64)>,
    ) -> Result<Packed, StoreError> {
        let index = lane as usize;
        if self.lanes[index]
            .as_ref()
            .is_some_and(|open| open.bytes.len() + bytes.len() > lane.frame_bytes(self.knobs))
        {
            self.close(index)?;
        }
        let open = self.lanes[index].get_or_insert_with(|| {
            let number = self.next_frame;
            self.next_frame += 1;
            OpenFrame {
                number,
                ..OpenFrame::default()
            }
        });
        let size = |len: usize| u32::try_from(len).expect("frames are bounded");
        let packed = Packed {
            frame: open.number,
            skip: size(open.bytes.len()),
        };
        open.bytes.extend_from_slice(bytes);
        if let Some((digest, len)) = block {
            open.blocks
                .push((packed.skip, u32::try_from(len).expect("a block"), digest));
        }
        Ok(packed)
    }

    fn close(&mut self, lane: usize) -> Result<(), StoreError> {
        let Some(frame) = self.lanes[lane].take() else {
            return Ok(());
        };
        let (done, pending) = sync_channel(1);
        let (knobs, busy) = (self.knobs, Arc::clone(&self.busy));
        rayon::spawn(move || {
            // Whoever waited for it may have given up.
            let _ = done.send(encode(frame, knobs));
            drop(busy);
        });
        let queue = self.queue.as_ref().expect("present until the end");
        match queue.send(pending) {
            Ok(()) => Ok(()),
            // The thread is gone: its error says why.
            Err(_) => self.join().map(|_| ()),
        }
    }

    /// Whether every thread has a frame to compress.
    pub fn is_busy(&self) -> bool {
        Arc::strong_count(&self.busy) > rayon::current_num_threads()
    }

    fn join(&mut self) -> Result<Written, StoreError> {
        self.queue = None;
        let thread = self.thread.take().expect("joined once");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Writes what is left and ends the thread.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        self.close(Lane::Small as usize)?;
        self.close(Lane::Large as usize)?;
        self.join()
    }
}

impl Drop for Packer {
    /// A run that ends early must not leave a thread that goes on writing after the lock is gone.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct ObjectWriter {
    store: Store,
    knobs: Knobs,
    file: Option<NewFile>,
    begun: u64,
    /// Frames of the open object; its name is not known yet.
    in_object: Vec<(u32, FrameBlocks)>,
    done: Vec<(u32, FrameRef)>,
    bytes: u64,
}

impl ObjectWriter {
    fn run(mut self, frames: &Receiver<Pending>) -> Result<Written, StoreError> {
        while let Ok(pending) = frames.recv() {
            let frame = pending.recv();
            self.write(frame.expect("the thread that compresses does not panic")?)?;
        }
        self.close(false)?;
        self.done.sort_unstable_by_key(|(number, _)| *number);
        Ok(Written {
            frames: self.done.into_iter().map(|(_, frame)| frame).collect(),
            bytes: self.bytes,
        })
    }

    fn write(&mut self, frame: Encoded) -> Result<(), StoreError> {
        if self
            .file
            .as_ref()
            .is_some_and(|file| file.written_bytes() >= self.knobs.object_bytes)
        {
            self.close(true)?;
        }
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            self.begun += 1;
            self.file.insert(NewFile::create(
                self.store.disk(),
                Area::Objects,
                self.begun,
            )?)
        };
        let stored_bytes = u32::try_from(frame.stored.len()).expect("frames are bounded");
        let placeholder = frame.digest;
        let place = FrameRef {
            object: placeholder,
            offset: file.written_bytes(),
            stored_bytes,
            raw_bytes: frame.raw_bytes,
            digest: frame.digest,
        };
        file.write(&frame.stored)?;
        self.in_object.push((frame.number, (place, frame.blocks)));
        Ok(())
    }

    /// Publishes the open object; with `record` the staging record names its blocks, for the case that the run dies
    /// before it commits.
    fn close(&mut self, record: bool) -> Result<(), StoreError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        self.bytes += file.written_bytes();
        let object = file.finish()?;
        let mut recorded: Vec<FrameBlocks> = Vec::new();
        for (number, (frame, blocks)) in self.in_object.drain(..) {
            let frame = FrameRef { object, ..frame };
            self.done.push((number, frame));
            recorded.push((frame, blocks));
        }
        if record {
            staging::record(&self.store, object, &recorded)
        } else {
            Ok(())
        }
    }
}

/// Encodes a frame and proves that it decodes to the same bytes.
fn encode(frame: OpenFrame, knobs: Knobs) -> Result<Encoded, StoreError> {
    let raw_bytes = u32::try_from(frame.bytes.len()).expect("frames are bounded");
    let tamper = |stored: &mut Vec<u8>| (knobs.tamper)(Product::Frame, stored);
    let stored = codec::encode_proved(&frame.bytes, CONTENT_LEVEL, tamper)?;
    Ok(Encoded {
        number: frame.number,
        stored,
        raw_bytes,
        digest: Digest::of(&frame.bytes),
        blocks: frame.blocks,
    })
}
