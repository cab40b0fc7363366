//! `run`: everything that is configured, one after the other, and a word about how it went.
//!
//! Each task is a command of this program in a process of its own: whatever becomes of one, the others are done, and
//! what was done can be typed again.

mod child;
mod hooks;
mod jobs;
mod outcome;
mod tasks;
mod tell;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::exit::Exit;
use super::output::Output;
use super::{Context, signals, stores};
use crate::config::general::{self, General};
use crate::config::job::Step;
use crate::config::run_state::{Lock, RunState};
use crate::error::{Error, StoreError};
use crate::time::rfc3339;
use jiff::Timestamp;

pub use jobs::{Job, Jobs};

use child::Ours;
use hooks::{When, around};
use outcome::{Outcome, Report};
use tasks::{Task, Work};

#[derive(clap::Args)]
#[expect(clippy::struct_field_names, reason = "it is what is typed")]
pub struct Run {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Wait while another run is at work, and for stores that are in use
    #[arg(long)]
    pub wait: bool,
    /// Steps (fs, db, cmd, ebs, prune, sync, verify) and jobs [default: all jobs, and STEPS of the configuration]
    #[arg(value_name = "STEP|JOB")]
    pub words: Vec<String>,
}

pub fn run(context: &Context, args: &Run) -> Result<Exit, Error> {
    let state = RunState::new(&context.config_dir);
    let untold = |error| cannot_begin(context, &state, error);
    let general = stores::existing_config(context).map_err(untold)?;
    if args.dry_run {
        let jobs = Jobs::all(context, &general)?;
        let work = Work::of(&general, &jobs, &args.words)?;
        return tell::preview(&work.tasks(&general, Timestamp::now()));
    }
    let stop = catch_signals()?;
    let lock = lock(&state, args.wait, &stop).map_err(|error| {
        // That two meet is no alarm; that one does not end is.
        let is_short = |since| Timestamp::now().duration_since(since) <= general.status.max_age;
        match error {
            Error::Store(StoreError::Running(_)) if state.held_since().is_none_or(is_short) => {
                error
            }
            error => untold(error),
        }
    })?;
    let Some(lock) = lock else {
        return Ok(Exit::Stopped(number(&stop)));
    };
    if let Some(died) = lock.died {
        let died = rfc3339(died);
        Output::warning(&format!(
            "the run that was begun at {died} did not end by itself (killed, or no power): what its hooks of 'after' clear up may not have been"
        ));
    }
    // What another run has done meanwhile need not be done again.
    let jobs = Jobs::all(context, &general).map_err(untold)?;
    let work = Work::of(&general, &jobs, &args.words)?;
    let tasks = work.tasks(&general, Timestamp::now());
    if tasks.is_empty() && !args.words.is_empty() {
        let words = args.words.join(" ");
        return Err(Error::Usage(format!(
            "run {words}: nothing is set up of which that would be a part; btw-backup run --dry-run shows what there is"
        )));
    }
    let ours = Ours {
        context,
        wait: args.wait,
        stop: &stop,
    };
    let runner = Runner {
        ours: &ours,
        general: &general,
        tasks: &tasks,
    };
    let report = runner.run(work.is_everything());
    Ok(tell::end(context, &general.notifiers, &state, &report))
}

/// The lock of runs; nothing if it was waited for and a signal came first.
fn lock(state: &RunState, wait: bool, stop: &AtomicUsize) -> Result<Option<Lock>, Error> {
    loop {
        match state.lock(Timestamp::now()) {
            Err(Error::Store(StoreError::Running(_))) if wait => {}
            result => return result.map(Some),
        }
        if stop.load(Ordering::Relaxed) != 0 {
            return Ok(None);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// The signal that asked to stop, or 0.
fn number(stop: &AtomicUsize) -> u8 {
    u8::try_from(stop.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Who is to be told hears also of a configuration that cannot be used.
fn cannot_begin(context: &Context, state: &RunState, error: Error) -> Error {
    if !context.config_dir.exists() {
        return error;
    }
    let notifiers = general::notifiers(&context.config_dir);
    tell::end_quietly(&notifiers, state, &Report::of_error(&error));
    error
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// From here on a signal asks for an end in order: what was begun is stopped, and hooks clear up.
fn catch_signals() -> Result<Arc<AtomicUsize>, Error> {
    let stop = Arc::new(AtomicUsize::new(0));
    for signal in signals::that_end() {
        let number = usize::try_from(signal).unwrap_or(0);
        signal_hook::flag::register_usize(signal, Arc::clone(&stop), number)
            .map_err(|error| Error::Refused(format!("Cannot catch signals: {error}")))?;
    }
    Ok(stop)
}

struct Runner<'a> {
    ours: &'a Ours<'a>,
    general: &'a General,
    tasks: &'a [Task],
}

impl Runner<'_> {
    fn run(&self, is_everything: bool) -> Report {
        let begun = (Timestamp::now(), Instant::now());
        let mut outcomes = Vec::new();
        if let Err(error) = stores::require_root(self.general) {
            Output::error(&error);
            outcomes.push(Outcome::of_error("run", &error));
        } else {
            let variables = hooks::Variables::of_run();
            let hooks = &self.general.hooks;
            let around = around(self.ours, hooks, &variables, &mut || self.all());
            outcomes.extend(around.done.unwrap_or_default());
            if around.exit != Exit::Done {
                outcomes.push(Outcome::of_hooks("run", around.exit, &around.problems));
            }
        }
        let is_backup = |task: &Task| BACKUPS.contains(&task.step);
        let is_due = self.general.steps.iter().any(|step| BACKUPS.contains(step));
        if is_everything && is_due && !self.tasks.iter().any(is_backup) {
            let error = Error::Refused(
                "nothing is configured to be backed up: btw-backup fs --init SRC DST, or [job.NAME] in config.toml".into(),
            );
            Output::error(&error);
            outcomes.push(Outcome::of_error("run", &error));
        }
        outcomes.iter_mut().for_each(Outcome::tidy);
        let stopped = number(self.ours.stop);
        Report {
            begun: begun.0,
            seconds: begun.1.elapsed().as_secs_f64(),
            outcomes,
            planned: self.tasks.iter().map(|task| task.name.clone()).collect(),
            is_everything,
            stopped: (stopped != 0).then_some(stopped),
        }
    }

    /// Every task; how they went, and the worst of it.
    fn all(&self) -> (Vec<Outcome>, Exit) {
        let outcomes: Vec<Outcome> = self.tasks.iter().map(|task| self.one(task)).collect();
        let exits = outcomes.iter().map(|outcome| outcome.exit);
        let worst = exits.fold(Exit::Done, Exit::or);
        (outcomes, worst)
    }

    fn one(&self, task: &Task) -> Outcome {
        let begun = Instant::now();
        let mut outcome = match &task.todo {
            Err(why) => {
                Output::fault(&format!("{}: {why}", task.name));
                Outcome::wrong(task, why)
            }
            Ok(tasks::Todo::Skip(why)) => Outcome::skipped(task, why),
            Ok(tasks::Todo::Cannot(why)) => {
                Output::warning(&format!("{}: {why}", task.name));
                Outcome::unable(task, why)
            }
            Ok(_) if self.ours.stop.load(Ordering::Relaxed) != 0 => {
                Outcome::wrong(task, "not begun: the run was stopped")
            }
            Ok(tasks::Todo::Run(_)) if task.needs_store() && !self.has_store(task) => {
                Outcome::skipped(task, "there is no store")
            }
            Ok(tasks::Todo::Run(args)) => self.perform(task, args),
        };
        outcome.seconds = begun.elapsed().as_secs_f64();
        outcome
    }

    /// A backup that failed may have left none.
    fn has_store(&self, task: &Task) -> bool {
        let dst = task.dst.as_deref().unwrap_or_default();
        self.general
            .store_path(dst)
            .is_ok_and(|path| stores::is_store(&path))
    }

    fn perform(&self, task: &Task, args: &[std::ffi::OsString]) -> Outcome {
        let variables = hooks::Variables::of_task(task);
        let around = around(self.ours, &task.hooks, &variables, &mut || {
            let done = self.ours.run(&task.name, args);
            let exit = done.exit;
            (done, exit)
        });
        let mut outcome = Outcome::of(task, around.done);
        outcome.exit = outcome.exit.or(around.exit);
        for (when, problem) in around.problems {
            let text = match when {
                When::Before => format!("nothing was backed up: {problem}"),
                When::After | When::Failed => problem,
            };
            let line = format!("{}: {text}", task.name);
            match when {
                When::Before => Output::fault(&line),
                When::After | When::Failed => Output::warning(&line),
            }
            outcome.problems.push(text);
        }
        outcome
    }
}

/// The steps that back something up.
pub(super) const BACKUPS: [Step; 3] = [Step::Fs, Step::Db, Step::Cmd];
