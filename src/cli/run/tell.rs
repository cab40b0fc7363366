//! Telling how a run went: who typed it, the record, those who are to be told.

use jiff::Timestamp;
use serde::Serialize;

use super::super::backing::host;
use super::super::document;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::scrub::scrub;
use super::super::{Context, rows};
use super::outcome::{Outcome, Report, is_failure};
use super::tasks::{Task, Todo};
use super::words::{advice, some, summary};
use crate::config::general::Parts;
use crate::config::notify::{Event, NotifyConfig};
use crate::config::run_state::{NotifierRecord, Record, RunState, TaskRecord};
use crate::error::{Error, with_causes};
use crate::notify::{self, Message, Way};
use crate::time::rfc3339;

/// What would be done.
pub fn preview(tasks: &[Task]) -> Result<Exit, Error> {
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    for task in tasks {
        let (command, why) = match &task.todo {
            Ok(Todo::Run(args)) => (Some(rows::shell_words(args)), None),
            Ok(Todo::Skip(why) | Todo::Cannot(why)) => (None, Some(why)),
            Err(why) => {
                exit = Exit::Failed;
                (None, Some(why))
            }
        };
        let text = match (&command, why) {
            (Some(command), _) => format!("would run: btw-backup {command}\n"),
            (None, why) => format!("{}: {}\n", task.name, why.map_or("", String::as_str)),
        };
        if !document::is_begun() {
            Output::answer(&text)?;
        }
        rows.push(serde_json::json!({ "name": task.name, "command": command, "why_not": why }));
    }
    if tasks.is_empty() {
        Output::answer(
            "nothing is configured yet: btw-backup fs --init SRC DST, or write [job.NAME] into config.toml\n",
        )?;
    }
    document::answer(&serde_json::json!({ "would_run": rows }));
    Ok(exit)
}

#[derive(Serialize)]
struct Answer<'a> {
    host: String,
    event: &'static str,
    subject: &'a str,
    begun: String,
    seconds: f64,
    tasks: &'a [Outcome],
    notified: Vec<Notified>,
}

/// What became of a notifier.
#[derive(Serialize)]
struct Notified {
    name: String,
    error: Option<String>,
}

/// Says how it went, to all who are to know. Whatever is wrong with the record, they are told.
pub fn end(
    context: &Context,
    notifiers: &Parts<NotifyConfig>,
    state: &RunState,
    report: &Report,
) -> Exit {
    let told = Told::of(report, &state.read());
    for line in told.summary.lines() {
        context.output.info(line);
    }
    let (mut exit, notified) = told.record_and_notify(notifiers, state, report);
    for notified in &notified {
        if let Some(error) = &notified.error {
            Output::warning(&format!(
                "[notify.{}]: nobody was told: {error}",
                notified.name
            ));
            exit = exit.or(Exit::Warnings);
        }
    }
    let mut answer = told.answer(report);
    answer.notified = notified;
    document::answer(&answer);
    exit
}

/// The same where the caller says what went wrong.
pub fn end_quietly(notifiers: &Parts<NotifyConfig>, state: &RunState, report: &Report) {
    Told::of(report, &state.read()).record_and_notify(notifiers, state, report);
}

/// Writes the record; that it cannot be written is a warning.
fn write(state: &RunState, record: &Record, exit: Exit) -> Exit {
    state.write(record).map_or_else(
        |error| {
            Output::warning(&format!(
                "How the run went is not recorded: {}",
                with_causes(&error)
            ));
            exit.or(Exit::Warnings)
        },
        |()| exit,
    )
}

fn remember(record: &mut Record, report: &Report) {
    let now = Timestamp::now();
    record.ended = Some(now);
    if report.is_everything {
        // What is not configured any more is forgotten.
        record.tasks.retain(|name, _| report.planned.contains(name));
    }
    if report.outcomes.iter().all(|outcome| outcome.name != RUN) {
        // It could be begun.
        record.tasks.remove(RUN);
    }
    for outcome in report
        .outcomes
        .iter()
        .filter(|outcome| outcome.skipped.is_none())
    {
        let before = record.tasks.get(&outcome.name);
        let since = before.and_then(|before| before.since).unwrap_or(now);
        let task = TaskRecord {
            time: now,
            exit_code: outcome.exit.code(),
            text: outcome.last_words().to_owned(),
            since: (outcome.exit != Exit::Done).then_some(since),
        };
        record.tasks.insert(outcome.name.clone(), task);
    }
}

/// What is not about a single task.
const RUN: &str = "run";

fn remember_notified(record: &mut Record, notified: &[Notified]) {
    for one in notified {
        let entry = NotifierRecord {
            time: Timestamp::now(),
            error: one.error.clone(),
        };
        record.notifiers.insert(one.name.clone(), entry);
    }
}

/// The words for it.
struct Told {
    event: Event,
    subject: String,
    summary: String,
    text: String,
}

impl Told {
    fn of(report: &Report, before: &Record) -> Self {
        let failed = report.of_class(is_failure);
        let warned = report.of_class(|exit| exit == Exit::Warnings);
        let is_again = |outcome: &&Outcome| {
            let task = before.tasks.get(&outcome.name);
            outcome.exit == Exit::Done
                && outcome.skipped.is_none()
                && task.is_some_and(|task| task.exit_code != 0)
        };
        // What kept it from being begun the last time.
        let is_begun = report.outcomes.iter().all(|outcome| outcome.name != RUN);
        let again = before.tasks.contains_key(RUN) && is_begun;
        let recovered: Vec<&Outcome> = report.outcomes.iter().filter(is_again).collect();
        let done = report
            .outcomes
            .iter()
            .filter(|outcome| outcome.skipped.is_none());
        let count = done.count();
        let (event, what, which) = if !failed.is_empty() || report.stopped.is_some() {
            (Event::Failure, "FAILED", failed)
        } else if !warned.is_empty() {
            (Event::Warning, "has warnings", warned)
        } else if !recovered.is_empty() || again {
            (Event::Recovery, "is well again", recovered)
        } else {
            (Event::Success, "is done", Vec::new())
        };
        let again = Some(RUN).filter(|_| again && event == Event::Recovery);
        let names: Vec<&str> = which
            .iter()
            .map(|outcome| &*outcome.name)
            .chain(again)
            .collect();
        let names = match (report.stopped, names.is_empty()) {
            (Some(signal), _) => format!("stopped by signal {signal}"),
            (None, true) => format!("{count} tasks"),
            (None, false) => some(&names),
        };
        let subject = format!("btw-backup on {} {what}: {names}", host());
        let summary = summary(report);
        let text = format!("{subject}\n\n{summary}\n{}", advice(report, before));
        Self {
            event,
            subject,
            summary,
            text,
        }
    }

    fn answer<'a>(&'a self, report: &'a Report) -> Answer<'a> {
        Answer {
            host: host(),
            event: self.event.word(),
            subject: &self.subject,
            begun: rfc3339(report.begun),
            seconds: report.seconds,
            tasks: &report.outcomes,
            notified: Vec::new(),
        }
    }

    /// Should a notifier hang or kill us, the record is written; what became of it is added.
    fn record_and_notify(
        &self,
        notifiers: &Parts<NotifyConfig>,
        state: &RunState,
        report: &Report,
    ) -> (Exit, Vec<Notified>) {
        let mut record = state.read();
        record
            .notifiers
            .retain(|name, _| notifiers.contains_key(name));
        remember(&mut record, report);
        let exit = write(state, &record, report.exit());
        let notified = self.notify(notifiers, report, &self.answer(report));
        remember_notified(&mut record, &notified);
        if !notified.is_empty() && exit == report.exit() {
            return (write(state, &record, exit), notified);
        }
        (exit, notified)
    }

    fn notify(
        &self,
        notifiers: &Parts<NotifyConfig>,
        report: &Report,
        answer: &Answer<'_>,
    ) -> Vec<Notified> {
        let mut document = serde_json::to_value(answer).expect("plain data");
        // What chat servers show.
        document["text"] = self.text.clone().into();
        let message = Message {
            subject: self.subject.clone(),
            text: self.text.clone(),
            document: document.to_string(),
            event: self.event.word(),
            host: host(),
        };
        let mut notified = Vec::new();
        for (name, config) in notifiers {
            let sent = match config {
                Ok(config) if !config.on.contains(&self.event) => continue,
                // A part of the night's work is not what the switch waits for.
                Ok(NotifyConfig {
                    way: Way::Ping(_), ..
                }) if !report.is_everything => continue,
                Ok(config) => notify::send(&config.way, &message),
                Err(wrong) => Err(wrong.clone()),
            };
            notified.push(Notified {
                name: name.clone(),
                error: sent.err().map(|error| scrub(&error)),
            });
        }
        notified
    }
}
