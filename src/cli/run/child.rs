//! A command of this program, in a process of its own.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::AtomicUsize;

use serde::Deserialize;

use super::super::Context;
use super::super::exit::Exit;
use crate::process::{self, End, Limits};

/// This very program, also where another one was installed meanwhile.
const PROGRAM: &str = "/proc/self/exe";

/// How our commands are run.
pub struct Ours<'a> {
    pub context: &'a Context,
    /// Wait for stores that are in use.
    pub wait: bool,
    /// The number of the signal that asked to stop.
    pub stop: &'a AtomicUsize,
}

/// What became of a command.
pub struct Done {
    pub exit: Exit,
    /// What it told.
    pub told: Vec<String>,
    /// What went wrong.
    pub problems: Vec<String>,
}

/// The parts of its answer that matter here.
#[derive(Deserialize)]
struct Answer {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    text: String,
}

impl Ours<'_> {
    /// Runs a command, and shows what it says.
    pub fn run(&self, name: &str, args: &[OsString]) -> Done {
        let output = self.context.output;
        let mut command = Command::new(PROGRAM);
        command
            .arg("--json")
            .arg("--config-dir")
            .arg(&self.context.config_dir);
        if output.verbose {
            command.arg("--verbose");
        }
        if let Some(threads) = self.context.threads {
            command.arg(format!("--threads={threads}"));
        }
        command.args(&args[..1]);
        let has_wait = args[0] != "verify" && args[0] != "ebs";
        command
            .args(Some("--wait").filter(|_| self.wait && has_wait))
            .args(&args[1..]);
        let limits = Limits {
            timeout: None,
            stop: self.stop,
        };
        let mut show = |line: &str| {
            let line = line.strip_prefix("btw-backup: ").unwrap_or(line);
            let _ = writeln!(std::io::stderr(), "btw-backup: [{name}] {line}");
        };
        let ended = match process::run(&mut command, &[], &limits, &mut show) {
            Ok(ended) => ended,
            Err(error) => return Done::failed(format!("cannot be begun: {error}")),
        };
        let answer: Option<Answer> = serde_json::from_slice(&ended.out).ok();
        let Some(answer) = answer else {
            let mut done = Done::failed(ended.end.words());
            // A command line that is not understood is answered in text.
            if let End::Status(code) = ended.end {
                done.exit = Exit::from_code(u8::try_from(code).unwrap_or(1)).or(Exit::Usage);
            }
            done.problems.extend(ended.said);
            return done;
        };
        let texts = |is_told: bool| {
            let messages = answer.messages.iter();
            let chosen = messages.filter(move |message| (message.level == "info") == is_told);
            chosen.map(|message| message.text.clone()).collect()
        };
        let done = Done {
            exit: match ended.end {
                End::Status(code) => Exit::from_code(u8::try_from(code).unwrap_or(1)),
                _ => Exit::Failed,
            },
            told: texts(true),
            problems: texts(false),
        };
        for line in &done.told {
            output.info(&format!("[{name}] {line}"));
        }
        done
    }
}

impl Done {
    fn failed(why: String) -> Self {
        Self {
            exit: Exit::Failed,
            told: Vec::new(),
            problems: vec![why],
        }
    }
}
