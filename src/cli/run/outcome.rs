//! How tasks went, and with them the run.

use jiff::Timestamp;
use serde::Serialize;

use super::super::exit::Exit;
use super::super::output::Output;
use super::super::rows::shell_words;
use super::super::scrub::scrub;
use super::child::Done;
use super::hooks::When;
use super::tasks::{Task, Todo};
use crate::config::job::Step;
use crate::error::{Error, with_causes};

/// So much is told of each task: chat servers refuse what is long.
const TOLD: usize = 30;

/// How a task went.
#[derive(Serialize)]
pub struct Outcome {
    pub name: String,
    pub job: Option<String>,
    pub store: Option<String>,
    /// What can be typed to do it by hand.
    pub command: Option<String>,
    #[serde(rename = "exit_code")]
    pub exit: Exit,
    pub seconds: f64,
    /// Why it was not done, if it was not to be.
    pub skipped: Option<String>,
    /// What it told.
    pub told: Vec<String>,
    /// What went wrong.
    pub problems: Vec<String>,
}

impl Outcome {
    fn new(name: &str, exit: Exit) -> Self {
        Self {
            name: name.to_owned(),
            job: None,
            store: None,
            command: None,
            exit,
            seconds: 0.0,
            skipped: None,
            told: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Of a command; without one, of the programs before it that failed.
    pub fn of(task: &Task, done: Option<Done>) -> Self {
        let mut outcome = Self::new(&task.name, Exit::Done);
        (outcome.job, outcome.store) = (task.job.clone(), task.dst.clone());
        if let Ok(Todo::Run(args)) = &task.todo {
            // What a command is given may be secret.
            let shown = match (task.step, args.iter().position(|arg| arg == "--")) {
                (Step::Cmd, Some(at)) => format!("{} ...", shell_words(&args[..at + 2])),
                _ => shell_words(args),
            };
            outcome.command = Some(shown);
        }
        if let Some(done) = done {
            (outcome.exit, outcome.told, outcome.problems) = (done.exit, done.told, done.problems);
        }
        outcome
    }

    /// Of something that cannot be done.
    pub fn wrong(task: &Task, why: &str) -> Self {
        let mut outcome = Self::of(task, None);
        (outcome.exit, outcome.problems) = (Exit::Failed, vec![why.to_owned()]);
        outcome
    }

    /// Of something that should be done, but nobody has said how.
    pub fn unable(task: &Task, why: &str) -> Self {
        let mut outcome = Self::of(task, None);
        (outcome.exit, outcome.problems) = (Exit::Warnings, vec![why.to_owned()]);
        outcome
    }

    /// Of something that is not to be done now.
    pub fn skipped(task: &Task, why: &str) -> Self {
        let mut outcome = Self::of(task, None);
        outcome.skipped = Some(why.to_owned());
        outcome
    }

    /// Of a run that could not be begun.
    pub fn of_error(name: &str, error: &Error) -> Self {
        let mut outcome = Self::new(name, Exit::of(error));
        outcome.problems = vec![with_causes(error)];
        outcome
    }

    /// Of the programs around all.
    pub fn of_hooks(name: &str, exit: Exit, problems: &[(When, String)]) -> Self {
        let mut outcome = Self::new(name, exit);
        outcome.problems = problems
            .iter()
            .map(|(_, problem)| problem.clone())
            .collect();
        for problem in &outcome.problems {
            Output::warning(&format!("{name}: {problem}"));
        }
        outcome
    }

    /// Without secrets, and short enough to be told.
    pub fn tidy(&mut self) {
        for texts in [&mut self.told, &mut self.problems] {
            let more = texts.len().saturating_sub(TOLD);
            texts.truncate(TOLD);
            for text in texts.iter_mut() {
                let lines: Vec<&str> = text.lines().take(TOLD).collect();
                *text = scrub(&lines.join("\n"));
            }
            if more > 0 {
                texts.push(format!("and {more} more: see the store's log.txt"));
            }
        }
    }

    /// What it came to: what it told of its store.
    pub fn result(&self) -> Option<&String> {
        let of_store = self.told.iter().find(|line| {
            let dst = self.store.as_deref().unwrap_or_default();
            line.strip_prefix(dst)
                .is_some_and(|rest| rest.starts_with(':'))
        });
        of_store.or(self.told.first())
    }

    /// What is most worth knowing of it.
    pub fn last_words(&self) -> &str {
        let of_interest = self.problems.first().or(self.result());
        of_interest.map_or("", String::as_str)
    }
}

/// How a run went.
pub struct Report {
    pub begun: Timestamp,
    pub seconds: f64,
    pub outcomes: Vec<Outcome>,
    /// The names of all tasks that were to be done.
    pub planned: Vec<String>,
    /// All that is configured was meant.
    pub is_everything: bool,
    /// It was stopped by this signal.
    pub stopped: Option<u8>,
}

impl Report {
    /// Of a run that could not be begun.
    pub fn of_error(error: &Error) -> Self {
        let mut outcome = Outcome::of_error("run", error);
        outcome.tidy();
        Self {
            begun: Timestamp::now(),
            seconds: 0.0,
            outcomes: vec![outcome],
            planned: Vec::new(),
            is_everything: false,
            stopped: None,
        }
    }

    /// The worst of it.
    pub fn exit(&self) -> Exit {
        let exits = self.outcomes.iter().map(|outcome| outcome.exit);
        let worst = exits.fold(Exit::Done, Exit::or);
        self.stopped
            .map_or(worst, |signal| worst.or(Exit::Stopped(signal)))
    }

    /// The tasks that ended so.
    pub fn of_class(&self, is_meant: impl Fn(Exit) -> bool) -> Vec<&Outcome> {
        let outcomes = self.outcomes.iter();
        outcomes.filter(|outcome| is_meant(outcome.exit)).collect()
    }
}

/// Whether something was not done.
pub fn is_failure(exit: Exit) -> bool {
    !matches!(exit, Exit::Done | Exit::Warnings)
}
