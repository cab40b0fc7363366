//! Whether all is well with a store: facts in, findings out.

use jiff::{SignedDuration, Timestamp};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing.
    Ok,
    /// Needs attention.
    Warning,
    /// What is to be safe is not.
    Critical,
    /// What was stored is damaged.
    Damage,
}

/// Something about a store or about all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, for people.
    pub text: String,
}

impl Finding {
    /// A finding.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
        }
    }
}

/// Who is to back up into a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// A job of this configuration.
    Job,
    /// A job that is not enabled: it may be as old as it is.
    Disabled,
    /// Nobody that this configuration knows.
    Nobody,
}

/// What is known of a store.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who is to back up into it.
    pub duty: Duty,
    /// When it last had all of its source.
    pub last_good: Option<Timestamp>,
    /// When its source was last looked at.
    pub last_ran: Option<Timestamp>,
    /// When it was first backed up to, if that is recorded: its first version may have been thinned out.
    pub first: Option<Timestamp>,
    /// Its versions' times, oldest first, and whether something is missing in them.
    pub versions: Vec<(Timestamp, bool)>,
    /// When all of it was last read, and was sound.
    pub verified: Option<Timestamp>,
    /// The last verification found damage.
    pub is_damaged: bool,
    /// Its copies: the remote's name, and since when it lacks something.
    pub copies: Vec<(String, Lag)>,
}

/// How a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// It has all.
    None,
    /// It lacks pins or deletions, but no version.
    Other,
    /// It lacks what is later than this.
    Since(Timestamp),
    /// Nothing was ever copied.
    Never,
}

/// When something is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The last good backup, and what a copy lacks.
    pub max_age: SignedDuration,
    /// The last verification of all of it.
    pub verified_within: SignedDuration,
}

/// What is to be said of a store.
pub fn judge(facts: &Facts, limits: Limits, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![age(facts, limits, now)];
    if facts.is_damaged {
        findings.push(Finding::new(
            Level::Damage,
            "the last verification found damage: btw-backup verify names it, btw-backup repair mends what it can",
        ));
    }
    let partial = facts
        .versions
        .iter()
        .filter(|(_, is_partial)| *is_partial)
        .count();
    if facts
        .versions
        .last()
        .is_some_and(|(_, is_partial)| *is_partial)
    {
        findings.push(Finding::new(
            Level::Warning,
            format!(
                "something is missing in the newest version ({partial} of {} are partial)",
                facts.versions.len()
            ),
        ));
    } else if partial > 0 {
        let text = format!("{partial} of {} versions are partial", facts.versions.len());
        findings.push(Finding::new(Level::Ok, text));
    }
    findings.extend(verified(facts, limits, now));
    for (remote, lag) in &facts.copies {
        findings.extend(copy(facts, remote, *lag, limits, now));
    }
    findings
}

/// The age of the last good backup.
fn age(facts: &Facts, limits: Limits, now: Timestamp) -> Finding {
    let newest_complete = facts
        .versions
        .iter()
        .rev()
        .find(|(_, is_partial)| !is_partial);
    let recorded = facts.last_good.is_some();
    let Some(last) = facts.last_good.or(newest_complete.map(|(time, _)| *time)) else {
        let level = if facts.duty == Duty::Disabled {
            Level::Ok
        } else {
            Level::Critical
        };
        let text = if facts.versions.is_empty() {
            "was never backed up"
        } else {
            "was never backed up completely"
        };
        return Finding::new(level, text);
    };
    let age = now.duration_since(last);
    let ago = ago(age);
    if age.is_negative() {
        let text = format!("the last good backup is {ago}: is the clock right?");
        return Finding::new(Level::Warning, text);
    }
    let what = match (facts.duty, recorded) {
        (Duty::Disabled, _) => format!("last good backup {ago} (not enabled)"),
        (Duty::Nobody, _) => format!(
            "newest good version {ago}, and nothing here backs it up; [job.NAME] with its source, dst and enabled = false says that this is all right"
        ),
        (Duty::Job, true) => format!("last good backup {ago}"),
        (Duty::Job, false) => format!("newest good version {ago}"),
    };
    let is_old = age > limits.max_age && facts.duty != Duty::Disabled;
    if !is_old {
        return Finding::new(Level::Ok, what);
    }
    let what = match facts.last_ran.filter(|ran| *ran > last) {
        Some(ran) => format!(
            "{what}; since then only partial ones, the last {}",
            self::ago(now.duration_since(ran))
        ),
        None => what,
    };
    Finding::new(Level::Critical, what)
}

fn verified(facts: &Facts, limits: Limits, now: Timestamp) -> Option<Finding> {
    let oldest = facts.versions.first()?.0;
    let first = facts.first.map_or(oldest, |first| first.min(oldest));
    let since = now.duration_since(facts.verified.unwrap_or(first));
    let is_old = since > limits.verified_within;
    let level = if is_old { Level::Warning } else { Level::Ok };
    Some(match facts.verified {
        Some(_) => Finding::new(level, format!("all of it verified {}", ago(since))),
        None if is_old => Finding::new(
            level,
            "was never verified as a whole: btw-backup verify --deep",
        ),
        None => Finding::new(level, "not yet verified as a whole"),
    })
}

fn copy(facts: &Facts, remote: &str, lag: Lag, limits: Limits, now: Timestamp) -> Option<Finding> {
    let first = facts.versions.first()?.0;
    Some(match lag {
        Lag::None => Finding::new(Level::Ok, format!("copied to {remote}")),
        Lag::Other => Finding::new(Level::Ok, format!("all versions are copied to {remote}")),
        Lag::Since(since) => {
            let behind = now.duration_since(since);
            let level = if behind > limits.max_age {
                Level::Critical
            } else {
                Level::Ok
            };
            let behind = length(behind);
            Finding::new(level, format!("the copy in {remote} is {behind} behind"))
        }
        Lag::Never => {
            let is_old = now.duration_since(first) > limits.max_age;
            let level = if is_old { Level::Critical } else { Level::Ok };
            Finding::new(level, format!("not copied to {remote} yet"))
        }
    })
}

/// A time as people say it.
pub fn ago(age: SignedDuration) -> String {
    let length = length(age);
    if age.is_negative() {
        format!("{length} in the future")
    } else {
        format!("{length} ago")
    }
}

/// A span of time as people say it.
pub fn length(span: SignedDuration) -> String {
    let seconds = span.abs().as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// What counts for the pace at which stores grow.
const PACE: SignedDuration = SignedDuration::from_hours(24 * 30);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Space that runs out sooner needs attention, or is an alarm.
const SPACE: [(i64, Level); 2] = [(3, Level::Critical), (14, Level::Warning)];

/// In how many days the space runs out if stores grow as in the last 30 days: times of backups, and what each added.
/// Nothing if that cannot be said. A store's first backup is not growth; what is thinned out is not taken off.
pub fn days_left(free_bytes: u64, added: &[(Timestamp, u64)], now: Timestamp) -> Option<u64> {
    let recent = added
        .iter()
        .filter(|(time, _)| now.duration_since(*time) <= PACE);
    let first = added.iter().map(|(time, _)| *time).min()?;
    let span = now.duration_since(first).min(PACE);
    if span < DAY {
        return None;
    }
    let sum: u64 = recent.map(|(_, bytes)| bytes).sum();
    let days = u128::try_from(span.as_secs()).ok()?;
    let left = u128::from(free_bytes) * days / 86_400 / u128::from(sum.max(1));
    u64::try_from(left).ok().filter(|left| *left < 36_500)
}

/// What is to be said of free space.
pub fn space(free_bytes: u64, total_bytes: u64, days_left: Option<u64>, shown: &str) -> Finding {
    let by_days = days_left.and_then(|days| {
        let limits = SPACE.iter();
        limits
            .filter(|(limit, _)| days.cast_signed() < *limit)
            .map(|(_, level)| *level)
            .max()
    });
    let by_part = if free_bytes < total_bytes / 100 {
        Level::Warning
    } else {
        Level::Ok
    };
    let level = by_days.unwrap_or(Level::Ok).max(by_part);
    let when = days_left.map_or_else(String::new, |days| {
        format!("; at the pace of the last days it runs out in {days} days")
    });
    Finding::new(level, format!("{shown} free{when}"))
}

#[cfg(test)]
mod tests {
    use super::{Duty, Facts, Lag, Level, Limits, days_left, judge, space};
    use jiff::{SignedDuration, Timestamp};

    fn now() -> Timestamp {
        "2026-11-22T03:00:00Z".parse().unwrap()
    }

    fn before(hours: i64) -> Timestamp {
        now() - SignedDuration::from_hours(hours)
    }

    fn facts() -> Facts {
        Facts {
            duty: Duty::Job,
            last_good: Some(before(1)),
            last_ran: Some(before(1)),
            first: Some(before(2000)),
            versions: vec![(before(2000), false), (before(900), false)],
            verified: Some(before(48)),
            is_damaged: false,
            copies: vec![("offsite".into(), Lag::None)],
        }
    }

    fn level(facts: &Facts) -> Level {
        let limits = Limits {
            max_age: SignedDuration::from_hours(26),
            verified_within: SignedDuration::from_hours(720),
        };
        judge(facts, limits, now())
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap()
    }

    #[test]
    fn k1_silence_is_an_alarm() {
        // Unchanged for a month, looked at an hour ago: all is well.
        assert_eq!(level(&facts()), Level::Ok);
        let check = |expected: Level, change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            assert_eq!(level(&facts), expected, "{facts:?}");
        };
        check(Level::Critical, &|facts| facts.last_good = Some(before(27)));
        check(Level::Warning, &|facts| facts.last_good = Some(before(-5)));
        // It runs every night, but something is always missing.
        check(Level::Critical, &|facts| facts.last_good = Some(before(80)));
        check(Level::Ok, &|facts| {
            (facts.last_good, facts.verified, facts.first) = (None, None, None);
            facts.versions = vec![(before(1), false)];
        });
        check(Level::Warning, &|facts| {
            facts.versions = vec![(before(1), true)];
        });
        for versions in [vec![], vec![(before(1), true)]] {
            check(Level::Critical, &|facts| {
                facts.last_good = None;
                facts.versions.clone_from(&versions);
            });
        }
        for duty in [Duty::Nobody, Duty::Job] {
            check(Level::Critical, &|facts| {
                (facts.duty, facts.last_good) = (duty, None);
            });
        }
        check(Level::Ok, &|facts| {
            (facts.duty, facts.last_good) = (Duty::Disabled, None);
        });
        check(Level::Ok, &|facts| {
            (facts.duty, facts.last_good, facts.verified) = (Duty::Disabled, None, None);
            facts.versions.clear();
        });
    }

    #[test]
    fn k1_so_are_damage_old_proofs_and_copies() {
        let check = |expected: Level, change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            assert_eq!(level(&facts), expected, "{facts:?}");
        };
        check(Level::Warning, &|facts| facts.verified = Some(before(721)));
        check(Level::Warning, &|facts| facts.verified = None);
        // Older versions have been thinned out.
        check(Level::Warning, &|facts| {
            (facts.verified, facts.versions) = (None, vec![(before(20), false)]);
        });
        check(Level::Damage, &|facts| facts.is_damaged = true);
        for (lag, expected) in [
            (Lag::Since(before(25)), Level::Ok),
            (Lag::Since(before(27)), Level::Critical),
            (Lag::Never, Level::Critical),
        ] {
            check(expected, &|facts| facts.copies = vec![("r".into(), lag)]);
        }
    }

    #[test]
    fn space_runs_out_at_the_pace_of_the_last_month() {
        let gib = 1 << 30;
        let daily: Vec<_> = (0..60).map(|day| (before(24 * day), gib)).collect();
        assert_eq!(days_left(31 * gib, &daily, now()), Some(30));
        assert_eq!(days_left(0, &daily, now()), Some(0));
        assert_eq!(days_left(gib, &[(before(1), gib)], now()), None);
        assert_eq!(days_left(gib, &[], now()), None);
        assert_eq!(days_left(u64::MAX, &daily, now()), None);
        for (free, days, expected) in [
            (50, None, Level::Ok),
            (50, Some(20), Level::Ok),
            (50, Some(13), Level::Warning),
            (50, Some(2), Level::Critical),
            (0, None, Level::Warning),
        ] {
            assert_eq!(
                space(free, 100, days, "x").level,
                expected,
                "{free} {days:?}"
            );
        }
    }
}
