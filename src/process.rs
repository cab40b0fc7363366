//! Programs that are run to their end, but not for ever: ours, hooks, `sendmail`, `aws`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::printable;

/// So many of the last lines that a program says are kept.
const KEPT_LINES: usize = 40;
/// A line is cut here.
const LINE_BYTES: u64 = 1000;
/// What a program prints is cut here.
const OUT_MAX_BYTES: u64 = 64 << 20;
/// Between two looks at a program.
const TICK: Duration = Duration::from_millis(20);
/// When a program has ended, something that it left running may still hold its output: that is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// So long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a program may run.
pub struct Limits<'a> {
    /// It is ended after this long.
    pub timeout: Option<Duration>,
    /// It is ended when this is the number of a signal, not 0.
    pub stop: &'a AtomicUsize,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It took too long.
    Timeout(Duration),
    /// It was stopped, by this signal to this program.
    Stopped(usize),
}

impl End {
    /// Whether all went well.
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }

    /// What happened, to be said after the program's name.
    pub fn words(self) -> String {
        match self {
            Self::Status(code) => format!("exited with code: {code}"),
            Self::Signal(signal) => format!("was ended by signal {signal}"),
            Self::Timeout(limit) => format!("was ended, as it took longer than {limit:?}"),
            Self::Stopped(signal) => format!("was stopped by signal {signal}"),
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What it printed.
    pub out: Vec<u8>,
    /// The last lines of its standard error.
    pub said: Vec<String>,
}

enum Heard {
    Line(String),
    Out(Vec<u8>),
    Silence,
}

/// Runs a program with this on its standard input. Each line of its standard error is handed on as it comes.
pub fn run(
    command: &mut Command,
    input: &[u8],
    limits: &Limits<'_>,
    see: &mut dyn FnMut(&str),
) -> io::Result<Ended> {
    command
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    apart(command);
    let mut child = command.spawn()?;
    let heard = listen(&mut child, input.to_vec());
    let mut ended = Ended {
        end: End::Status(0),
        out: Vec::new(),
        said: Vec::new(),
    };
    let mut silent = 0;
    let begun = Instant::now();
    let mut asked: Option<(End, Instant)> = None;
    let status = loop {
        take(&heard, &mut ended, &mut silent, see);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        match asked {
            None => {
                if let Some(why) = limits.reached(begun.elapsed()) {
                    signal(&child, Signal::TERM);
                    asked = Some((why, Instant::now()));
                }
            }
            Some((_, since)) if since.elapsed() > PATIENCE => signal(&child, Signal::KILL),
            Some(_) => {}
        }
    };
    if asked.is_some() {
        // What it has started and what did not listen.
        signal(&child, Signal::KILL);
    }
    let until = Instant::now() + LAST_WORDS;
    while silent < 2 && Instant::now() < until {
        take(&heard, &mut ended, &mut silent, see);
    }
    ended.end = match (asked, status.code(), status.signal()) {
        (Some((why, _)), ..) => why,
        (None, Some(code), _) => End::Status(code),
        (None, None, signal) => End::Signal(signal.unwrap_or(0)),
    };
    Ok(ended)
}

impl Limits<'_> {
    fn reached(&self, elapsed: Duration) -> Option<End> {
        let stop = self.stop.load(Ordering::Relaxed);
        if stop != 0 {
            return Some(End::Stopped(stop));
        }
        let timeout = self.timeout.filter(|timeout| elapsed > *timeout);
        timeout.map(End::Timeout)
    }
}

/// Takes in what is there, or waits a moment.
fn take(heard: &Receiver<Heard>, ended: &mut Ended, silent: &mut usize, see: &mut dyn FnMut(&str)) {
    let mut next = heard.recv_timeout(TICK);
    loop {
        match next {
            Ok(Heard::Line(line)) => {
                see(&line);
                if ended.said.len() == KEPT_LINES {
                    ended.said.remove(0);
                }
                ended.said.push(line);
            }
            Ok(Heard::Out(out)) => ended.out = out,
            Ok(Heard::Silence) => *silent += 1,
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => {
                // All was heard; the program itself goes on.
                std::thread::sleep(TICK);
                return;
            }
        }
        next = heard.try_recv().map_err(|_| RecvTimeoutError::Timeout);
    }
}

/// Feeds a program and takes in what it says, each by a thread of its own: it must not wait for us.
fn listen(child: &mut Child, input: Vec<u8>) -> Receiver<Heard> {
    let (sender, heard) = channel();
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has what it wants.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut out = Vec::new();
            let mut stdout = BufReader::new(stdout);
            let _ = (&mut stdout).take(OUT_MAX_BYTES).read_to_end(&mut out);
            let _ = io::copy(&mut stdout, &mut io::sink());
            let _ = sender.send(Heard::Out(out));
            let _ = sender.send(Heard::Silence);
        });
    }
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || lines(BufReader::new(stderr), &sender));
    }
    heard
}

fn lines(mut from: impl BufRead, sender: &Sender<Heard>) {
    let mut line = Vec::new();
    while let Ok(1..) = (&mut from).take(LINE_BYTES).read_until(b'\n', &mut line) {
        let _ = sender.send(Heard::Line(words(line.trim_ascii_end())));
        line.clear();
    }
    let _ = sender.send(Heard::Silence);
}

/// What a program said, for people.
pub fn words(line: &[u8]) -> String {
    let line: Vec<u8> = line
        .iter()
        .map(|byte| if *byte == b'\t' { b' ' } else { *byte })
        .collect();
    printable(&line)
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        let _ = kill_process_group(pid, signal);
    }
}

/// Gives a child a session of its own: it can be ended with all that it starts, and finds no terminal to ask questions
/// on, which nobody might answer. If this process dies, however it does, the child is told to end.
pub fn apart(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "between fork and exec only two system calls are made, which need neither memory nor locks; std offers neither"
    )]
    unsafe {
        command.pre_exec(prepare);
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Limits, run};
    use std::process::Command;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    fn shell(
        script: &str,
        input: &[u8],
        timeout: Option<Duration>,
        stop: usize,
    ) -> (super::Ended, usize) {
        let stop = AtomicUsize::new(stop);
        let mut seen = 0;
        let limits = Limits {
            timeout,
            stop: &stop,
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let ended = run(&mut command, input, &limits, &mut |_| seen += 1).unwrap();
        (ended, seen)
    }

    #[test]
    fn both_outputs_are_taken_in_and_the_input_is_fed() {
        let (ended, seen) = shell(
            "cat; echo one >&2; echo 'two\t2' >&2; exit 7",
            b"input",
            None,
            0,
        );
        assert_eq!(ended.end, End::Status(7));
        assert_eq!(ended.out, b"input");
        assert_eq!(
            (ended.said, seen),
            (vec!["one".to_owned(), "two 2".to_owned()], 2)
        );
        // More than a pipe holds, both ways, into a program that reads nothing.
        let (ended, _) = shell(
            "head -c 300000 /dev/zero; seq 100000 >&2",
            &vec![0; 1 << 20],
            None,
            0,
        );
        assert_eq!(
            (ended.end, ended.out.len(), ended.said.len()),
            (End::Status(0), 300_000, 40)
        );
        assert_eq!(ended.said.last().map(String::as_str), Some("100000"));
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_started() {
        let begun = Instant::now();
        let limit = Duration::from_millis(200);
        let (ended, _) = shell("sleep 1000 & sleep 1000", b"", Some(limit), 0);
        assert_eq!(ended.end, End::Timeout(limit));
        let mark = format!("{}", std::process::id());
        let script = format!("(trap '' TERM; exec -a btw-{mark} sleep 1000) & sleep 1000");
        let mut command = Command::new("/bin/bash");
        let none = AtomicUsize::new(0);
        let limits = Limits {
            timeout: Some(limit),
            stop: &none,
        };
        run(command.args(["-c", &script]), &[], &limits, &mut |_| {}).unwrap();
        let left = Command::new("pgrep")
            .args(["-f", &format!("^btw-{mark}")])
            .output()
            .unwrap();
        assert!(left.stdout.is_empty(), "what ignores TERM goes on");
        let (ended, _) = shell("sleep 1000", b"", None, 15);
        assert_eq!(ended.end, End::Stopped(15));
        let (ended, _) = shell("kill -9 $$", b"", None, 0);
        assert_eq!(ended.end, End::Signal(9));
        // What goes on beyond it and holds the pipe is not waited for.
        let (ended, _) = shell("sleep 30 & exit 0", b"", None, 0);
        assert_eq!(ended.end, End::Status(0));
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}
