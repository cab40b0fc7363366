//! Saying things to people. A closed output is no reason to fail.

use std::io::Write as _;

use super::document::{self, Level};
use crate::error::{Error, with_causes};
use crate::ops::backup::NotKept;

const NAME: &str = "btw-backup";

/// How much is said.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub quiet: bool,
    pub verbose: bool,
    /// What is said goes into a document.
    pub json: bool,
}

impl Output {
    /// A result, unless the user wants silence.
    pub fn info(self, text: &str) {
        if !document::say(Level::Info, text) && !self.quiet {
            let _ = writeln!(std::io::stdout(), "{NAME}: {text}");
        }
    }

    /// What of the source is not in a version, if anything.
    pub fn info_not_kept(self, not_kept: &NotKept) {
        let counts = [
            (not_kept.excluded, "left out as configured (-v names them)"),
            (not_kept.sockets, "sockets"),
            (not_kept.flagged, "members' inode flags"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !words.is_empty() {
            self.info(&format!("Not kept: {}", words.join(", ")));
        }
    }

    /// A remark beside an answer: to standard error, so that it is not taken for a part of it.
    pub fn remark(self, text: &str) {
        if !document::say(Level::Info, text) && !self.quiet {
            let _ = writeln!(std::io::stderr(), "{NAME}: {text}");
        }
    }

    /// An answer that is written piece by piece. Who reads no further has what was wanted.
    pub fn answer_with(
        answer: impl FnOnce(&mut dyn std::io::Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if document::is_begun() {
            let mut out = Rows::default();
            return match answer(&mut out) {
                Err(error) if is_broken_pipe(&error) => Ok(()),
                result => result.and_then(|()| Self::answer(&String::from_utf8_lossy(&out.text))),
            };
        }
        let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        let result = answer(&mut out).and_then(|()| out.flush().map_err(unwritten));
        match result {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            result => result,
        }
    }

    /// What was asked for: printed even when quiet, without the program's name.
    pub fn answer(text: &str) -> Result<(), Error> {
        if document::is_begun() {
            for line in text.lines() {
                document::say(Level::Info, line);
            }
            return Ok(());
        }
        let written = std::io::stdout()
            .write_all(text.as_bytes())
            .and_then(|()| std::io::stdout().flush());
        match written {
            // Who reads no further has what was wanted.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritten(error)),
            _ => Ok(()),
        }
    }

    /// Content that goes to the standard output leaves no place for a document.
    pub fn refuse_json(self) -> Result<(), Error> {
        if self.json {
            return Err(Error::Usage(
                "--json cannot be used where content is written to the standard output".into(),
            ));
        }
        Ok(())
    }

    /// Something for those who want to know more.
    pub fn detail(text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Something that needs attention.
    pub fn warning(text: &str) {
        document::say(Level::Warning, text);
        let _ = writeln!(std::io::stderr(), "{NAME}: warning: {text}");
    }

    /// An error about one of several things.
    pub fn error_of(name: &str, error: &Error) {
        Self::fault(&format!("{name}: {}", with_causes(error)));
    }

    /// An error with its causes.
    pub fn error(error: &Error) {
        Self::fault(&with_causes(error));
    }

    /// The same in words of its own.
    pub fn fault(text: &str) {
        document::say(Level::Error, text);
        let _ = writeln!(std::io::stderr(), "{NAME}: {text}");
    }
}

/// Who reads no further has what was wanted.
fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::File { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Where an answer goes while a document is made: its list to the standard output at once, other text into messages.
#[derive(Default)]
struct Rows {
    text: Vec<u8>,
}

impl std::io::Write for Rows {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if document::is_streamed() {
            return std::io::stdout().write(bytes);
        }
        self.text.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

/// The answer could not be written.
pub fn unwritten(error: std::io::Error) -> Error {
    Error::file("write", "the standard output", error)
}
