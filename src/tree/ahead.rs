//! A walk on a thread of its own, a little ahead of whoever takes its steps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::vec;

use super::found::Step;
use super::walk::Walk;

/// Steps go from thread to thread by batches of this many.
const BATCH_STEPS: usize = 64;
/// A batch ends earlier when it holds so many directories open: three batches are on the way at most.
const BATCH_DIRS: usize = 4;

/// The steps of a walk, in its order.
pub struct Ahead {
    batch: vec::IntoIter<Step>,
    batches: Option<Receiver<Vec<Step>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Begins to walk.
    pub fn start(walk: Walk) -> io::Result<Self> {
        let (sender, batches) = sync_channel(1);
        let thread = Builder::new().spawn(move || send_all(walk, &sender))?;
        Ok(Self {
            batch: Vec::new().into_iter(),
            batches: Some(batches),
            thread: Some(thread),
        })
    }

    fn join(&mut self) {
        // Without a receiver the thread ends at its next batch.
        self.batches = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Iterator for Ahead {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.batch.next() {
                return Some(step);
            }
            let Ok(batch) = self.batches.as_ref()?.recv() else {
                self.join();
                return None;
            };
            self.batch = batch.into_iter();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.join();
    }
}

fn send_all(mut walk: Walk, batches: &SyncSender<Vec<Step>>) {
    let (mut batch, mut dirs) = (Vec::new(), 0);
    let mut last: Option<Arc<OwnedFd>> = None;
    while let Some(step) = walk.next_step() {
        if let Step::Found(found) = &step
            && last
                .as_ref()
                .is_none_or(|dir| !Arc::ptr_eq(dir, &found.dir))
        {
            last = Some(Arc::clone(&found.dir));
            dirs += 1;
        }
        batch.push(step);
        if batch.len() >= BATCH_STEPS || dirs >= BATCH_DIRS {
            if batches.send(std::mem::take(&mut batch)).is_err() {
                return;
            }
            (last, dirs) = (None, 0);
        }
    }
    let _ = batches.send(batch);
}
