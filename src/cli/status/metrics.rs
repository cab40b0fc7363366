//! The same for Prometheus, in its text format.

use jiff::Timestamp;

use super::gather::{Found, StoreFound};
use crate::plan::health::{Lag, Level};

/// A metric: name, what it means, and its value for each store that has one.
type Metric = (&'static str, &'static str, fn(&StoreFound) -> Option<f64>);

const METRICS: [Metric; 7] = [
    (
        "last_good_timestamp_seconds",
        "When the store last had all of its source.",
        |store| seconds(store.last_good),
    ),
    (
        "last_run_timestamp_seconds",
        "When its source was last looked at.",
        |store| seconds(store.last_ran),
    ),
    (
        "newest_version_timestamp_seconds",
        "The time of its newest version.",
        |store| seconds(store.versions.last().map(|version| version.time)),
    ),
    ("versions", "How many versions it has.", |store| {
        Some(number(store.versions.len() as u64))
    }),
    (
        "partial_versions",
        "In how many of them something is missing.",
        |store| Some(number(store.partial())),
    ),
    (
        "verified_timestamp_seconds",
        "When all of it was last verified and sound.",
        |store| seconds(store.verified),
    ),
    (
        "store_level",
        "0 all is well, 1 something needs attention, 2 something is not safe, 3 damage.",
        |store| Some(level(store.worst())),
    ),
];

pub fn text(found: &Found) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        let rows = found.stores.iter().filter_map(|store| {
            let value = value(store)?;
            Some((format!("{{store=\"{}\"}}", escaped(&store.name)), value))
        });
        family(&mut text, name, help, rows);
    }
    let copies = found.stores.iter().flat_map(|store| {
        store.copies.iter().filter_map(|(remote, lag)| {
            let behind = match lag {
                Lag::None | Lag::Other => 0,
                Lag::Since(since) => found.now.duration_since(*since).as_secs().max(0),
                Lag::Never => found
                    .now
                    .duration_since(store.versions.first()?.time)
                    .as_secs()
                    .max(0),
            };
            let labels = format!(
                "{{store=\"{}\",remote=\"{}\"}}",
                escaped(&store.name),
                escaped(remote)
            );
            Some((labels, number(behind.unsigned_abs())))
        })
    });
    family(
        &mut text,
        "remote_behind_seconds",
        "For how long a copy lacks something.",
        copies,
    );
    let of_all = [
        (
            "free_bytes",
            "Free space where the stores are.",
            found.free.map(|free| number(free.free_bytes)),
        ),
        (
            "space_days_left",
            "When that runs out at the pace of the last 30 days.",
            found.free.and_then(|free| free.days_left).map(number),
        ),
        (
            "run_timestamp_seconds",
            "The end of the last run.",
            seconds(found.last_run),
        ),
        (
            "level",
            "The worst of all: 0 to 3 as for stores.",
            Some(level(found.worst())),
        ),
        (
            "status_timestamp_seconds",
            "When this was written.",
            seconds(Some(found.now)),
        ),
    ];
    for (name, help, value) in of_all {
        family(
            &mut text,
            name,
            help,
            value.map(|value| (String::new(), value)).into_iter(),
        );
    }
    text
}

fn family(text: &mut String, name: &str, help: &str, rows: impl Iterator<Item = (String, f64)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    text.push_str(&format!(
        "# HELP btw_backup_{name} {help}\n# TYPE btw_backup_{name} gauge\n"
    ));
    for (labels, value) in rows {
        text.push_str(&format!("btw_backup_{name}{labels} {value}\n"));
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn seconds(time: Option<Timestamp>) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus knows no other numbers"
    )]
    time.map(|time| time.as_second() as f64)
}

fn number(number: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus knows no other numbers"
    )]
    let number = number as f64;
    number
}

fn level(level: Level) -> f64 {
    match level {
        Level::Ok => 0.0,
        Level::Warning => 1.0,
        Level::Critical => 2.0,
        Level::Damage => 3.0,
    }
}
