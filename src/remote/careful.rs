//! What every remote needs: another try, a limit, a count.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Entry, FarDigests, Put, Remote};
use crate::digest::Digest;
use crate::error::{RemoteError, RemoteFault};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a remote may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of files a second that are sent; without it as many as go.
    pub bytes_per_second: Option<u64>,
    /// How many requests are under way at once.
    pub parallel: usize,
    /// How often something is tried.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_per_second: None,
            parallel: 8,
            attempts: 6,
        }
    }
}

/// What was asked of a remote so far, further tries included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls, each of them one request or a few.
    pub calls: u64,
    /// Bytes of files that were sent.
    pub sent_bytes: u64,
    /// Bytes of files that came.
    pub received_bytes: u64,
}

/// A remote that is asked again after faults that may pass, and not asked for more than it may give.
pub struct Careful {
    inner: Box<dyn Remote>,
    limits: Limits,
    /// When the next byte may be sent.
    free_at: Mutex<Instant>,
    calls: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Careful {
    /// Wraps a remote.
    pub fn new(inner: Box<dyn Remote>, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            free_at: Mutex::new(Instant::now()),
            calls: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// What it may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What was asked of it.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            calls: self.calls.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    fn again<T>(
        &self,
        path: &str,
        mut call: impl FnMut() -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let mut attempt = 0;
        loop {
            self.calls.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
            match call() {
                Err(error)
                    if error.fault == RemoteFault::Temporary && attempt < self.limits.attempts =>
                {
                    std::thread::sleep(pause(attempt, path));
                }
                Err(mut error) if error.fault == RemoteFault::Temporary && attempt > 1 => {
                    error.detail = format!("{} (tried {attempt} times)", error.detail);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Waits until so many bytes may be sent.
    fn throttle(&self, bytes: usize) {
        let Some(limit) = self.limits.bytes_per_second else {
            return;
        };
        let takes = Duration::from_micros(bytes as u64 * 1_000_000 / limit.max(1));
        let wait = {
            let mut free_at = self.free_at.lock().expect("no thread panics with it");
            let now = Instant::now();
            let begin = (*free_at).max(now);
            *free_at = begin + takes;
            begin - now
        };
        std::thread::sleep(wait);
    }
}

/// Doubles from try to try. Those that failed together do not come back together.
fn pause(attempt: u32, path: &str) -> Duration {
    let longest = FIRST_PAUSE * 2_u32.saturating_pow(attempt - 1);
    let chance = u32::from(Digest::of(path.as_bytes()).0[0]);
    let part = (longest / 2) + (longest / 2) * chance / 255;
    part.min(LONGEST_PAUSE)
}

impl Remote for Careful {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError> {
        self.again(prefix, || self.inner.list(prefix))
    }

    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError> {
        let bytes = self.again(path, || self.inner.read(path, range.clone()))?;
        self.received_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError> {
        let mut is_again = false;
        let result = self.again(path, || {
            self.throttle(content.len());
            self.sent_bytes
                .fetch_add(content.len() as u64, Ordering::Relaxed);
            let result = self.inner.write(path, content, put);
            is_again |= result
                .as_ref()
                .is_err_and(|error| error.fault == RemoteFault::Temporary);
            result
        });
        match result {
            // The first try may have gone well, and only its answer been lost.
            Err(error) if error.fault == RemoteFault::Exists && is_again => {
                if self.read(path, None)? == content {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            result => result,
        }
    }

    fn remove(&self, path: &str) -> Result<(), RemoteError> {
        self.again(path, || self.inner.remove(path))
    }

    fn digests(&self, paths: &[String]) -> Result<Option<FarDigests>, RemoteError> {
        self.again("", || self.inner.digests(paths))
    }
}
