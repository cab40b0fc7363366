//! How a run went, in words: a summary for all, advice for those who have to do something.

use super::super::exit::Exit;
use super::outcome::{Outcome, Report, is_failure};
use crate::config::run_state::Record;
use crate::time::rfc3339;

/// So many tasks are named in a subject.
const NAMED: usize = 5;

/// Names for a subject line, which must stay short.
pub fn some(names: &[&str]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// One line for each task, and one for all.
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    let width = report
        .outcomes
        .iter()
        .map(|outcome| outcome.name.chars().count())
        .max();
    let width = width.unwrap_or(0);
    for outcome in &report.outcomes {
        let word = match &outcome.skipped {
            Some(why) => why,
            None => outcome.exit.words(),
        };
        let name = &outcome.name;
        let more = if outcome.exit == Exit::Done {
            outcome.result()
        } else {
            outcome.problems.first()
        };
        let more = more.map_or_else(String::new, |line| {
            format!("  {}", line.lines().next().unwrap_or(""))
        });
        text.push_str(format!("{name:<width$}  {word:<8}{more}").trim_end());
        text.push('\n');
    }
    let count = |is_meant: fn(Exit) -> bool| report.of_class(is_meant).len();
    let skipped = report
        .outcomes
        .iter()
        .filter(|outcome| outcome.skipped.is_some())
        .count();
    let done = count(|exit| exit == Exit::Done) - skipped;
    let mut words = vec![format!("{done} done")];
    for (number, word) in [
        (count(|exit| exit == Exit::Warnings), "with warnings"),
        (count(is_failure), "failed"),
        (skipped, "left out"),
    ] {
        if number > 0 {
            words.push(format!("{number} {word}"));
        }
    }
    let seconds = std::time::Duration::from_secs_f64(report.seconds.max(0.0).round());
    text.push_str(&format!(
        "{} in {}\n",
        words.join(", "),
        humantime::format_duration(seconds)
    ));
    text
}

/// What did not go well, at length, and what can be done.
pub fn advice(report: &Report, before: &Record) -> String {
    let mut text = String::new();
    for outcome in report.of_class(|exit| exit != Exit::Done) {
        text.push_str(&format!("{}: {}\n", outcome.name, outcome.exit.words()));
        let since = before.tasks.get(&outcome.name).and_then(|task| task.since);
        if let Some(since) = since {
            text.push_str(&format!("  since {}\n", rfc3339(since)));
        }
        for line in outcome.problems.iter().flat_map(|problem| problem.lines()) {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str(&next(outcome));
    }
    text.push_str("btw-backup status shows what every store has.\n");
    text
}

/// What can be done about it.
fn next(outcome: &Outcome) -> String {
    let step = outcome.name.split(' ').next().unwrap_or_default();
    match (outcome.exit, &outcome.job, &outcome.store) {
        (Exit::Damage, _, Some(store)) => format!(
            "  What is damaged is named by: btw-backup verify {store}. What can be mended is by: btw-backup repair {store}\n"
        ),
        (exit, Some(job), Some(_)) if is_failure(exit) => {
            let by_hand = outcome.command.as_deref().unwrap_or_default();
            format!(
                "  Older versions are as they were. To try again: btw-backup run {step} {job}
  By hand, where other options are needed: btw-backup {by_hand}
"
            )
        }
        _ => String::new(),
    }
}
