//! Programs before and after a backup, and after a failure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicUsize;

use super::super::backing::host;
use super::super::exit::Exit;
use super::child::Ours;
use super::tasks::Task;
use crate::config::job::{Argv, Hooks};
use crate::process::{self, Limits};

/// When a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    Failed,
    After,
}

/// What programs are told in their environment.
pub struct Variables(Vec<(&'static str, OsString)>);

impl Variables {
    /// Of the whole run.
    pub fn of_run() -> Self {
        Self(vec![("BTW_HOST", host().into())])
    }

    /// Of one task.
    pub fn of_task(task: &Task) -> Self {
        let mut variables = Self::of_run();
        variables.0.extend([
            ("BTW_JOB", task.job.clone().unwrap_or_default().into()),
            ("BTW_SOURCE", task.source.clone()),
            ("BTW_DST", task.dst.clone().unwrap_or_default().into()),
        ]);
        variables
    }
}

/// What became of something with programs around it.
pub struct Around<T> {
    /// What it came to; nothing if a program before it failed.
    pub done: Option<T>,
    /// What the programs add to that.
    pub exit: Exit,
    /// Programs that failed.
    pub problems: Vec<(When, String)>,
}

/// Does something between programs. Those that clear up are run in any case.
pub fn around<T>(
    ours: &Ours<'_>,
    hooks: &Hooks,
    variables: &Variables,
    work: &mut dyn FnMut() -> (T, Exit),
) -> Around<T> {
    let mut around = Around {
        done: None,
        exit: Exit::Done,
        problems: Vec::new(),
    };
    let mut exit = Exit::Done;
    // What is being stopped begins nothing.
    match all(ours, hooks, When::Before, (variables, exit), ours.stop) {
        Ok(()) => {
            let (done, ended) = work();
            (around.done, exit) = (Some(done), ended);
        }
        Err(problem) => {
            around.problems.push((When::Before, problem));
            (around.exit, exit) = (Exit::Failed, Exit::Failed);
        }
    }
    // What clears up is not stopped by what stops the rest.
    let never = AtomicUsize::new(0);
    let is_failure = !matches!(exit, Exit::Done | Exit::Warnings);
    for when in [When::Failed, When::After] {
        if when == When::Failed && !is_failure {
            continue;
        }
        if let Err(problem) = all(ours, hooks, when, (variables, exit), &never) {
            around.problems.push((when, problem));
            around.exit = around.exit.or(Exit::Warnings);
        }
    }
    around
}

/// Runs the programs of one moment. Before a backup the first that fails ends it; afterwards each has its chance.
fn all(
    ours: &Ours<'_>,
    hooks: &Hooks,
    when: When,
    (variables, exit): (&Variables, Exit),
    stop: &AtomicUsize,
) -> Result<(), String> {
    let (commands, word) = match when {
        When::Before => (&hooks.before, "before"),
        When::Failed => (&hooks.failed, "failed"),
        When::After => (&hooks.after, "after"),
    };
    let mut problems = Vec::new();
    for (number, argv) in (1..).zip(commands) {
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .envs(variables.0.iter().map(|(name, value)| (name, value)))
            .env("PATH", search_path())
            .env("BTW_HOOK", word)
            .env("BTW_EXIT_CODE", exit.code().to_string());
        let limits = Limits {
            timeout: Some(hooks.timeout),
            stop,
        };
        if let Err(why) = one(ours, argv, &mut command, &limits) {
            problems.push(format!("command {number} of '{word}' {why}"));
            if when == When::Before {
                break;
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("; "))
    }
}

fn one(
    ours: &Ours<'_>,
    argv: &Argv,
    command: &mut Command,
    limits: &Limits<'_>,
) -> Result<(), String> {
    if ours.context.output.verbose {
        super::super::output::Output::detail(&format!("runs {}", argv.join(" ")));
    }
    // What stands behind it may be secret.
    let shown = &argv[0];
    let ended = process::run(command, &[], limits, &mut |_| {});
    let ended = ended.map_err(|error| format!("cannot be run: {shown}: {error}"))?;
    if ended.end.is_success() {
        return Ok(());
    }
    let said = ended
        .said
        .last()
        .map_or_else(String::new, |line| format!(": {line}"));
    Err(format!("{}: {shown}{said}", ended.end.words()))
}

/// Where programs are; cron leaves out those for administrators.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).unwrap_or(path)
}
