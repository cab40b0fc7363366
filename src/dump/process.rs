//! A program whose standard output is backed up.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::pipe::Pipe;
use crate::error::{Error, printable};
use crate::process::{apart, words};

/// So many of the last lines that a program says are kept.
const KEPT_LINES: usize = 40;
/// A line is cut here.
const LINE_BYTES: u64 = 1000;
/// When a program has ended, something that it left running may still hold its standard error: that is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A user that a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// Numeric user and group.
    pub ids: (u32, u32),
    /// The home directory.
    pub home: PathBuf,
}

/// A program and how it is run.
#[derive(Debug, Clone)]
pub struct Process {
    /// Looked for in `PATH` if it has no slash.
    pub program: OsString,
    /// What follows it. No shell sees it.
    pub args: Vec<OsString>,
    /// As whom, if not as whoever calls.
    pub user: Option<User>,
    /// Where, if not here.
    pub dir: Option<PathBuf>,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
}

impl Process {
    /// The program's name for messages.
    pub fn name(&self) -> String {
        let path = Path::new(&self.program);
        printable(path.file_name().unwrap_or(&self.program).as_encoded_bytes())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some(user) = &self.user {
            command.uid(user.ids.0).gid(user.ids.1);
            command.env("HOME", &user.home);
            command.env("USER", &user.name).env("LOGNAME", &user.name);
        }
        command
    }

    fn cannot_run(&self, error: &io::Error) -> Error {
        let as_whom = self.user.as_ref().map_or_else(String::new, |user| {
            format!(" as {}", printable(user.name.as_bytes()))
        });
        let program = printable(self.program.as_encoded_bytes());
        Error::Dump(format!("Cannot run {program}{as_whom}: {error}"))
    }

    /// Where it is, if it can be run.
    pub fn find(&self) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        };
        if self.program.as_encoded_bytes().contains(&b'/') {
            return Some(PathBuf::from(&self.program)).filter(is_program);
        }
        let mut places = self.path.iter().map(|dir| dir.join(&self.program));
        places.find(is_program)
    }

    /// Runs it to its end and returns what it printed.
    pub fn answer(&self) -> Result<String, Error> {
        let mut command = self.command();
        apart(&mut command);
        let output = command.output();
        let output = output.map_err(|error| self.cannot_run(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said: Vec<String> = output
            .stderr
            .split(|byte| *byte == b'\n')
            .map(words)
            .collect();
        Err(self.failed(output.status, &said))
    }

    /// Starts it.
    pub fn start(&self) -> Result<(impl Read + Send + use<>, Running), Error> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        apart(&mut command);
        let mut child = command.spawn().map_err(|error| self.cannot_run(&error))?;
        let output = Pipe::of(child.stdout.take().expect("it is piped"));
        let said = listen(child.stderr.take().expect("it is piped"));
        let program = pid(&child);
        RUNS.store(program.as_raw_nonzero().get(), Ordering::Relaxed);
        let running = Running {
            process: self.clone(),
            child,
            said,
            watcher: Some(std::thread::spawn(move || watch(program))),
        };
        Ok((output, running))
    }

    fn failed(&self, status: ExitStatus, said: &[String]) -> Error {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code: {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "did not succeed".to_owned(),
        };
        let mut text = format!("{} {how}", self.name());
        for line in said.iter().filter(|line| !line.is_empty()) {
            text.push_str("\n  ");
            text.push_str(line);
        }
        Error::Dump(text)
    }
}

/// Takes in what a program says on its standard error, lest it waits for somebody to do so. The last lines are sent at the
/// end.
fn listen(stderr: ChildStderr) -> Receiver<Vec<String>> {
    let (sender, said) = channel();
    std::thread::spawn(move || {
        let mut lines = VecDeque::new();
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while let Ok(1..) = (&mut stderr).take(LINE_BYTES).read_until(b'\n', &mut line) {
            lines.push_back(words(line.trim_ascii_end()));
            if lines.len() > KEPT_LINES {
                lines.pop_front();
            }
            line.clear();
        }
        // Nobody may listen any more.
        let _ = sender.send(lines.into());
    });
    said
}

/// The program that runs now, if one does: there is one at a time.
static RUNS: AtomicI32 = AtomicI32::new(0);

/// Ends the program that runs, with all that it has started: for those who are about to end themselves.
pub fn end_running() {
    if let Some(program) = Pid::from_raw(RUNS.load(Ordering::Relaxed)) {
        end_group(program);
    }
}

/// A program that runs. It is ended, with all that it has started, when this is dropped.
pub struct Running {
    process: Process,
    child: Child,
    said: Receiver<Vec<String>>,
    /// Ends with the program.
    watcher: Option<JoinHandle<()>>,
}

/// Waits for a program's end. If it fails, what it has started is ended too: that may hold the pipe open for ever. The
/// program is not reaped yet, so that its number is still its own.
fn watch(program: Pid) {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let ended = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(program), how));
    if !matches!(ended, Ok(Some(status)) if status.exit_status() == Some(0)) {
        end_group(program);
    }
}

/// Ends all that is left of a program and of what it has started, but for what has made itself a group of its own.
fn end_group(program: Pid) {
    // There may be nothing left.
    let _ = kill_process_group(program, Signal::KILL);
}

fn pid(child: &Child) -> Pid {
    let number = i32::try_from(child.id()).ok();
    number
        .and_then(Pid::from_raw)
        .expect("a process has a number")
}

impl Running {
    /// Waits for its end, and says what it said if it succeeded.
    pub fn wait(mut self) -> Result<Vec<String>, Error> {
        let status = self.reap();
        let said = self.said.recv_timeout(LAST_WORDS).unwrap_or_default();
        let status = status.map_err(|error| {
            let name = self.process.name();
            Error::Dump(format!("Cannot wait for {name}: {error}"))
        })?;
        if status.success() {
            Ok(said)
        } else {
            Err(self.process.failed(status, &said))
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        if let Some(watcher) = self.watcher.take() {
            watcher.join().expect("it does not panic");
        }
        // After this its number may be another's.
        RUNS.store(0, Ordering::Relaxed);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.watcher.is_some() {
            end_group(pid(&self.child));
            let _ = self.reap();
        }
    }
}
