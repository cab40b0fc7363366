//! The output of any command, and what comes on the standard input.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::pipe::Pipe;
use super::process::{Process, Running};
use super::{Dump, Started, Summary, Verdict};
use crate::error::Error;

/// A command whose standard output is backed up. It counts if it exits with 0 and gives enough.
#[derive(Debug, Clone)]
pub struct Command {
    /// What is run.
    pub process: Process,
    /// The file name of the content.
    pub file_name: String,
    /// A shorter output does not count.
    pub min_bytes: u64,
}

impl Dump for Command {
    fn name(&self) -> &str {
        &self.file_name
    }

    fn start(&self) -> Result<Started, Error> {
        let (output, running) = self.process.start()?;
        Ok(Started {
            output: Box::new(output) as Box<dyn Read + Send>,
            verdict: Box::new(Proof {
                running,
                name: self.process.name(),
                min_bytes: self.min_bytes,
            }),
        })
    }
}

struct Proof {
    running: Running,
    name: String,
    min_bytes: u64,
}

impl Verdict for Proof {
    fn finish(self: Box<Self>, summary: &Summary<'_>) -> Result<Vec<String>, Error> {
        let said = self.running.wait()?;
        super::long_enough(&self.name, summary.bytes, self.min_bytes)?;
        Ok(said)
    }
}

/// What comes on the standard input. Whether the program behind it succeeded cannot be seen here.
#[derive(Debug)]
pub struct StandardInput {
    /// The file name of the content.
    pub file_name: String,
    /// Less does not count.
    pub min_bytes: u64,
    /// It can be read once.
    taken: AtomicBool,
}

impl StandardInput {
    /// Nothing is read yet.
    pub fn new(file_name: String, min_bytes: u64) -> Self {
        Self {
            file_name,
            min_bytes,
            taken: AtomicBool::new(false),
        }
    }
}

impl Dump for StandardInput {
    fn name(&self) -> &str {
        &self.file_name
    }

    fn start(&self) -> Result<Started, Error> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(Error::Dump(
                "The store's newest version was found damaged while the standard input was read, which cannot be read again. Run btw-backup verify, then this backup again: it will store everything anew".into(),
            ));
        }
        Ok(Started {
            output: Box::new(Pipe::of(std::io::stdin())),
            verdict: Box::new(Enough(self.min_bytes)),
        })
    }
}

struct Enough(u64);

impl Verdict for Enough {
    fn finish(self: Box<Self>, summary: &Summary<'_>) -> Result<Vec<String>, Error> {
        super::long_enough("the standard input", summary.bytes, self.0)?;
        Ok(Vec::new())
    }
}
