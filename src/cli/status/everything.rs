//! What is to be said of everything: free space, and what the last runs have recorded.

use jiff::Timestamp;

use super::super::Context;
use super::super::exit::Exit;
use super::super::fs::output_bytes;
use super::gather::{Found, Free};
use crate::config::general::{General, StatusConfig};
use crate::config::run_state::{RunState, TaskRecord};
use crate::plan::health::{Finding, Level, ago, days_left, space};

/// The space in which stores lie.
pub fn free(general: &General, found: &mut Found) {
    let Ok(stat) = rustix::fs::statvfs(&general.root_path) else {
        return;
    };
    let free_bytes = stat.f_bavail * stat.f_frsize;
    let versions = found
        .stores
        .iter()
        .flat_map(|store| store.versions.iter().skip(1));
    let added: Vec<(Timestamp, u64)> = versions
        .map(|version| (version.time, version.added_bytes))
        .collect();
    let days_left = days_left(free_bytes, &added, found.now);
    let total_bytes = stat.f_blocks * stat.f_frsize;
    let finding = space(
        free_bytes,
        total_bytes,
        days_left,
        &output_bytes(free_bytes),
    );
    found.findings.push(finding);
    found.free = Some(Free {
        free_bytes,
        days_left,
    });
}

/// What the last runs said.
pub fn records(context: &Context, general: Option<&General>, found: &mut Found) {
    let state = RunState::new(&context.config_dir);
    let limit = general.map_or_else(
        || StatusConfig::default().max_age,
        |general| general.status.max_age,
    );
    let is_long = |since: Timestamp, now: Timestamp| now.duration_since(since) > limit;
    if let Some(since) = state
        .held_since()
        .filter(|since| is_long(*since, found.now))
    {
        let text = format!(
            "a run has been at work since {}: does it hang?",
            ago(found.now.duration_since(since))
        );
        found.findings.push(Finding::new(Level::Critical, text));
    }
    if let Some(since) = state.died() {
        let text = format!(
            "the run that was begun {} did not end by itself: what hooks clear up may not have been",
            ago(found.now.duration_since(since))
        );
        found.findings.push(Finding::new(Level::Warning, text));
    }
    let record = state.read();
    found.last_run = record.ended;
    // What is wrong with the configuration is said from what it is now.
    // Damage that was verified away, or deleted.
    let is_sound = |name: &str| {
        let dst = name.strip_prefix("verify ");
        let of_name = |dst| found.stores.iter().find(|store| store.name == dst);
        dst.and_then(of_name).is_some_and(|store| !store.is_damaged)
    };
    let is_meant = |(name, task): &(&String, &TaskRecord)| {
        task.exit_code != 0 && !name.starts_with("job ") && !is_sound(name)
    };
    let failed: Vec<(&String, &TaskRecord)> = record.tasks.iter().filter(is_meant).collect();
    for (name, task) in failed {
        let exit = Exit::from_code(task.exit_code);
        let since = task.since.unwrap_or(task.time);
        let level = match exit {
            Exit::Damage => Level::Damage,
            Exit::Warnings => Level::Warning,
            // One failed night was told; what goes on like this is not safe.
            _ if is_long(since, found.now) => Level::Critical,
            _ => Level::Warning,
        };
        let since = ago(found.now.duration_since(since));
        let text = format!(
            "{name}: {}, since {since}: {}",
            exit.words(),
            task.text.replace('\n', " ")
        );
        found.findings.push(Finding::new(level, text));
    }
    for (name, notifier) in record.notifiers {
        let is_configured = general.is_none_or(|general| general.notifiers.contains_key(&name));
        let text = notifier.error.filter(|_| is_configured).map(|error| {
            let when = ago(found.now.duration_since(notifier.time));
            format!("nobody was told by {name} {when}: {error}")
        });
        found
            .findings
            .extend(text.map(|text| Finding::new(Level::Warning, text)));
    }
}
