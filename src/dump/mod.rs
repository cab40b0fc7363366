//! What is backed up as the bytes that it is: a command's output, a database's dump. A source of bytes with a verdict: it
//! counts only if it is proved at the end.

mod command;
mod pipe;
pub mod postgres;
mod process;

use std::fmt::Debug;
use std::io::Read;

pub use command::{Command, StandardInput};
pub use process::{Process, User, end_running};

use crate::error::Error;

/// Something that can be dumped.
pub trait Dump: Debug + Send + Sync {
    /// The file name that a version's content has.
    fn name(&self) -> &str;

    /// Begins.
    fn start(&self) -> Result<Started, Error>;
}

/// A dump under way.
pub struct Started {
    /// Its bytes. They end also when it fails.
    pub output: Box<dyn Read + Send>,
    /// Whether it was complete. To drop this ends whatever runs.
    pub verdict: Box<dyn Verdict>,
}

/// What a dump was, when its bytes have come to their end.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// How many there were.
    pub bytes: u64,
    /// The last of them: at least [`END_BYTES`], or all.
    pub end: &'a [u8],
}

/// So much of a dump's end is shown to its verdict.
pub const END_BYTES: usize = 4096;

/// Says at the end whether a dump was complete.
pub trait Verdict {
    /// Waits for the end. Returns what was said meanwhile; an error if anything speaks against the dump.
    fn finish(self: Box<Self>, summary: &Summary<'_>) -> Result<Vec<String>, Error>;
}

/// A dump that is too short to be true does not count.
fn long_enough(name: &str, bytes: u64, min_bytes: u64) -> Result<(), Error> {
    if bytes >= min_bytes {
        return Ok(());
    }
    let found = if bytes == 0 {
        "nothing".to_owned()
    } else {
        format!("only {bytes} bytes")
    };
    Err(Error::Dump(format!(
        "{name} gave {found}, where at least {min_bytes} bytes are expected (MIN_SIZE)"
    )))
}
