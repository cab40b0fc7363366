//! Which versions stay: facts and rules in, verdicts with their reasons out.
//!
//! Ages are measured from the newest version, not from the clock: after months without backups nothing is older than it
//! was. Every rule is applied twice, to all versions and to the complete ones alone, and what either keeps stays: so
//! partial versions never push out complete ones.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::ISOWeekDate;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::time::rfc3339;

/// A newest version this much later than the clock is not believed.
const FUTURE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// So many backups can be simulated.
const MAX_RUNS: u64 = 100_000;
/// So many verdicts take some seconds.
const MAX_JUDGED: u64 = 20_000_000;

/// What is to be kept. What any rule keeps stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Ages, ascending: of each group between two of them the oldest and the newest version stay, and the youngest one
    /// beyond the last. ("Partitioned backup retention": density falls exponentially with age.)
    pub partitioned: Vec<SignedDuration>,
    /// So many of the newest.
    pub last: Option<u64>,
    /// Everything that is younger.
    pub within: Option<SignedDuration>,
    /// The newest of each of the last so many hours, days, ... that have a version.
    pub periods: BTreeMap<Period, u64>,
    /// Only what is older is removed: everything younger stays.
    pub older_than: Option<SignedDuration>,
    /// What no rule keeps is removed, the oldest first, only while the store is larger than this many bytes.
    pub max_store_bytes: Option<u64>,
}

/// A part of the calendar, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// All of them, from the shortest to the longest.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// As in "hourly".
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// What moments of the same period have in common.
    fn of(self, time: &Zoned) -> (i16, i16, i8) {
        let (year, month) = (time.year(), i16::from(time.month()));
        match self {
            Self::Hour => (year, time.day_of_year(), time.hour()),
            Self::Day => (year, time.day_of_year(), 0),
            Self::Week => {
                let week: ISOWeekDate = time.date().iso_week_date();
                (week.year(), i16::from(week.week()), 0)
            }
            Self::Month => (year, month, 0),
            Self::Year => (year, 0, 0),
        }
    }
}

/// What matters of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its sequence number.
    pub seq: u64,
    /// Its time.
    pub time: Timestamp,
    /// Something is missing or torn in it.
    pub is_partial: bool,
    /// The note of its pin.
    pub pin: Option<String>,
}

/// Whether a version stays, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which version.
    pub seq: u64,
    /// Whether it stays.
    pub stays: bool,
    /// Every rule that keeps it, or why it goes.
    pub reasons: Vec<String>,
}

impl Policy {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether some rule names what stays: else everything does but for the size.
    fn has_rules(&self) -> bool {
        *self
            != Self {
                max_store_bytes: self.max_store_bytes,
                ..Self::default()
            }
    }

    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.is_empty() {
            return Err("no rule says what to keep".into());
        }
        let ages = [self.within, self.older_than].into_iter().flatten();
        if ages
            .chain(self.partitioned.iter().copied())
            .any(|age| age <= SignedDuration::ZERO)
        {
            return Err("an age of 0 keeps nothing; leave the rule out".into());
        }
        if !self.partitioned.is_sorted_by(|a, b| a < b) {
            return Err("the ages of a partition must ascend".into());
        }
        let last = self.last.map(|count| ("last", count));
        let periods = self.periods.iter();
        let counts = periods.map(|(period, count)| (period.adverb(), *count));
        if let Some((rule, _)) = last
            .into_iter()
            .chain(counts)
            .find(|(_, count)| *count == 0)
        {
            return Err(format!("keep_{rule}: 0 keeps nothing; leave the rule out"));
        }
        Ok(())
    }
}

/// Judges versions, which are in order of their sequence numbers; the verdicts are too. An error says why nothing may be
/// removed now.
pub fn judge(
    versions: &[Candidate],
    policy: &Policy,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Verdict>, String> {
    policy.check()?;
    let Some(newest) = versions.last() else {
        return Ok(Vec::new());
    };
    if newest.time.duration_since(now) > FUTURE_MAX {
        return Err(format!(
            "the newest version, v{}, is of {}, but it is {}: one of the clocks is wrong",
            newest.seq,
            rfc3339(newest.time),
            rfc3339(now)
        ));
    }
    let mut reasons: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut keep = |seq: u64, reason: String| {
        let reasons = reasons.entry(seq).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    for version in versions {
        if let Some(note) = &version.pin {
            let note = if note.is_empty() {
                String::new()
            } else {
                format!(": {note}")
            };
            keep(version.seq, format!("pinned{note}"));
        }
        if version.time > newest.time {
            keep(
                version.seq,
                "its time is later than the newest version's".into(),
            );
        }
    }
    let all: Vec<&Candidate> = versions.iter().collect();
    let complete: Vec<&Candidate> = versions
        .iter()
        .filter(|version| !version.is_partial)
        .collect();
    if let Some(complete) = complete.last() {
        keep(complete.seq, "newest complete version".into());
    }
    if newest.is_partial {
        keep(newest.seq, "newest version".into());
    }
    for group in [all, complete] {
        apply(&group, newest.time, policy, zone, &mut keep);
    }
    if !policy.has_rules() {
        // Only the size limits: see the caller.
        return Ok(verdicts(
            versions,
            &reasons,
            "the store is larger than allowed",
        ));
    }
    let why = match policy.older_than {
        Some(age) => format!("older than {}, and no other rule keeps it", words(age)),
        None => "no rule keeps it".into(),
    };
    Ok(verdicts(versions, &reasons, &why))
}

fn verdicts(
    versions: &[Candidate],
    reasons: &BTreeMap<u64, Vec<String>>,
    why_not: &str,
) -> Vec<Verdict> {
    let verdict = |version: &Candidate| {
        let kept = reasons.get(&version.seq);
        Verdict {
            seq: version.seq,
            stays: kept.is_some(),
            reasons: kept.cloned().unwrap_or_else(|| vec![why_not.to_owned()]),
        }
    };
    versions.iter().map(verdict).collect()
}

fn apply(
    versions: &[&Candidate],
    newest: Timestamp,
    policy: &Policy,
    zone: &TimeZone,
    keep: &mut impl FnMut(u64, String),
) {
    let age = |version: &Candidate| newest.duration_since(version.time);
    partition(versions, newest, &policy.partitioned, keep);
    let last = usize::try_from(policy.last.unwrap_or(0)).unwrap_or(usize::MAX);
    for version in versions.iter().rev().take(last) {
        keep(version.seq, format!("one of the last {last}"));
    }
    for version in versions {
        if let Some(within) = policy.within.filter(|within| age(version) < *within) {
            keep(version.seq, format!("within {}", words(within)));
        }
        if let Some(limit) = policy.older_than.filter(|limit| age(version) <= *limit) {
            keep(version.seq, format!("not older than {}", words(limit)));
        }
    }
    for (period, count) in &policy.periods {
        let mut seen = BTreeSet::new();
        for version in versions.iter().rev() {
            let key = period.of(&version.time.to_zoned(zone.clone()));
            if seen.len() as u64 >= *count && !seen.contains(&key) {
                break;
            }
            if seen.insert(key) {
                let number = seen.len();
                keep(
                    version.seq,
                    format!("{} {number} of {count}", period.adverb()),
                );
            }
        }
    }
}

/// The groups are half-open: an age that is exactly an edge belongs to the older group.
fn partition(
    versions: &[&Candidate],
    newest: Timestamp,
    ages: &[SignedDuration],
    keep: &mut impl FnMut(u64, String),
) {
    let age = |version: &Candidate| newest.duration_since(version.time);
    let mut from = SignedDuration::ZERO;
    for until in ages {
        let in_group = |version: &&&Candidate| (from..*until).contains(&age(version));
        let group = || versions.iter().filter(in_group);
        let name = format!("{}-{}", words(from), words(*until));
        if let Some(oldest) = group().min_by_key(|version| (version.time, version.seq)) {
            keep(oldest.seq, format!("oldest of group {name}"));
        }
        if let Some(newest) = group().max_by_key(|version| (version.time, version.seq)) {
            keep(newest.seq, format!("newest of group {name}"));
        }
        from = *until;
    }
    if let Some(last) = ages.last() {
        let beyond = versions.iter().filter(|version| age(version) >= *last);
        if let Some(youngest) = beyond.max_by_key(|version| (version.time, version.seq)) {
            keep(youngest.seq, format!("youngest beyond {}", words(*last)));
        }
    }
}

/// How a policy behaves in the long run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// How many backups were made.
    pub runs: u64,
    /// How many versions stayed after each of them.
    pub kept: Vec<u64>,
    /// The greatest age of an oldest version.
    pub oldest: SignedDuration,
    /// The longest time between two neighbouring versions that stayed.
    pub hole: SignedDuration,
}

/// Makes a backup every so often for some time, and prunes after each.
pub fn simulate(
    policy: &Policy,
    span: SignedDuration,
    every: SignedDuration,
) -> Result<Simulation, String> {
    if policy.max_store_bytes.is_some() {
        return Err("max_store_size: the size of a store is not simulated".into());
    }
    let step = every.as_secs();
    if step <= 0 || span < every {
        return Err("the time between backups must be positive and shorter than all".into());
    }
    let runs = u64::try_from(span.as_secs() / step).unwrap_or(0);
    if runs > MAX_RUNS {
        return Err(format!(
            "{runs} backups are too many; {MAX_RUNS} can be simulated"
        ));
    }
    let mut versions: Vec<Candidate> = Vec::new();
    let mut judged = 0;
    let mut simulation = Simulation {
        runs,
        kept: Vec::new(),
        oldest: SignedDuration::ZERO,
        hole: SignedDuration::ZERO,
    };
    for (seq, number) in (1..=runs).zip(0_i64..) {
        let time = Timestamp::from_second(number * step).map_err(|error| error.to_string())?;
        versions.push(Candidate {
            seq,
            time,
            is_partial: false,
            pin: None,
        });
        judged += versions.len() as u64;
        if judged > MAX_JUDGED {
            return Err("these rules keep too many versions to be simulated for so long".into());
        }
        let verdicts = judge(&versions, policy, time, &TimeZone::UTC)?;
        let mut stays = verdicts.iter().map(|verdict| verdict.stays);
        versions.retain(|_| stays.next().unwrap_or(true));
        simulation.kept.push(versions.len() as u64);
        let oldest = versions
            .first()
            .map(|oldest| time.duration_since(oldest.time));
        simulation.oldest = simulation.oldest.max(oldest.unwrap_or_default());
        for pair in versions.windows(2) {
            let hole = pair[1].time.duration_since(pair[0].time);
            simulation.hole = simulation.hole.max(hole);
        }
    }
    Ok(simulation)
}

/// A duration as people write it.
pub fn words(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = [(604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(length, _)| seconds != 0 && seconds % length == 0)
        .map_or((seconds, "s"), |(length, unit)| (seconds / length, unit));
    // Weeks are rarely meant: 28d is read more easily than 4w.
    match unit {
        "w" => format!("{}d", count * 7),
        _ if seconds == 0 => "0".into(),
        _ => format!("{count}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Period, Policy, judge, simulate, words};
    use jiff::tz::TimeZone;
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeMap;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn at(seq: u64, seconds: i64) -> Candidate {
        Candidate {
            seq,
            time: Timestamp::from_second(1_700_000_000 + seconds).unwrap(),
            is_partial: false,
            pin: None,
        }
    }

    fn partitioned() -> Policy {
        Policy {
            partitioned: [1, 7, 28]
                .map(|days| SignedDuration::from_hours(24 * days))
                .into(),
            ..Policy::default()
        }
    }

    fn kept(versions: &[Candidate], policy: &Policy) -> Vec<u64> {
        let now = versions
            .last()
            .map_or(Timestamp::UNIX_EPOCH, |newest| newest.time);
        let verdicts = judge(versions, policy, now, &TimeZone::UTC).unwrap();
        verdicts
            .iter()
            .filter(|verdict| verdict.stays)
            .map(|verdict| verdict.seq)
            .collect()
    }

    /// Versions at these ages in days, the oldest first; ages name them.
    fn aged(days: &[i64]) -> Vec<Candidate> {
        (1..)
            .zip(days)
            .map(|(seq, days)| at(seq, -days * DAY))
            .collect()
    }

    #[test]
    fn partitioned_keeps_both_ends_of_each_group_and_one_beyond() {
        // Ages: 40 and 30 beyond, 27 20 8 in 7-28, 6 1 in 1-7, 0 in 0-1.
        let versions = aged(&[40, 30, 27, 20, 8, 6, 1, 0]);
        assert_eq!(kept(&versions, &partitioned()), [2, 3, 5, 6, 7, 8]);
        // Exactly on an edge: the older group.
        assert_eq!(
            kept(&aged(&[28, 14, 7, 3, 0]), &partitioned()),
            [1, 2, 3, 4, 5]
        );
        assert_eq!(
            kept(&aged(&[29, 28, 7, 3, 2, 1, 0]), &partitioned()),
            [2, 3, 4, 6, 7]
        );
        // One member, empty groups, nothing at all.
        assert_eq!(kept(&aged(&[100]), &partitioned()), [1]);
        assert_eq!(kept(&aged(&[100, 90, 0]), &partitioned()), [2, 3]);
        assert_eq!(kept(&[], &partitioned()), Vec::<u64>::new());
    }

    #[test]
    fn partitioned_every_hour_for_200_days_keeps_six_or_seven() {
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        let hour = SignedDuration::from_hours(1);
        let simulation = simulate(&partitioned(), days(200), hour).unwrap();
        let settled = &simulation.kept[60 * 24..];
        assert!(settled.iter().all(|count| (6..=7).contains(count)));
        // As measured of the rule by its author: 45.2 and 17.25 days.
        assert!(
            (days(45)..days(46)).contains(&simulation.oldest),
            "{}",
            simulation.oldest
        );
        assert!(
            (days(17)..days(18)).contains(&simulation.hole),
            "{}",
            simulation.hole
        );
        assert!(simulate(&partitioned(), hour, days(1)).is_err());
    }

    #[test]
    fn i1_i7_partial_versions_push_out_no_complete_one() {
        let mut versions = aged(&[5, 4, 3, 2, 1, 0]);
        for index in [2, 4, 5] {
            versions[index].is_partial = true;
        }
        let policy = Policy {
            last: Some(2),
            ..Policy::default()
        };
        // The last two, and the last two complete ones.
        assert_eq!(kept(&versions, &policy), [2, 4, 5, 6]);
        versions[0].pin = Some("before the move".into());
        assert_eq!(kept(&versions, &policy), [1, 2, 4, 5, 6]);
    }

    #[test]
    fn calendar_rules_keep_the_newest_of_each_period_that_has_one() {
        let versions: Vec<Candidate> = (0..100_u64)
            .map(|day| at(day + 1, i64::try_from(day).unwrap() * DAY))
            .collect();
        let policy = Policy {
            periods: BTreeMap::from([(Period::Day, 3), (Period::Month, 2)]),
            ..Policy::default()
        };
        // 2023-11-14 is day 1; day 100 is 2024-02-21; day 79 is 2024-01-31.
        assert_eq!(kept(&versions, &policy), [79, 98, 99, 100]);
        let zone = TimeZone::UTC;
        let verdicts = judge(&versions, &policy, versions[99].time, &zone).unwrap();
        assert_eq!(
            verdicts[99].reasons,
            ["newest complete version", "daily 1 of 3", "monthly 1 of 2"]
        );
        assert_eq!(verdicts[0].reasons, ["no rule keeps it"]);
    }

    #[test]
    fn i2_i3_i6_ages_count_from_the_newest_version_and_odd_policies_are_refused() {
        let versions = aged(&[3, 2, 1, 0]);
        let policy = Policy {
            within: Some(SignedDuration::from_hours(36)),
            ..Policy::default()
        };
        let late = Timestamp::from_second(1_900_000_000).unwrap();
        let verdicts = judge(&versions, &policy, late, &TimeZone::UTC).unwrap();
        assert!(verdicts[3].stays && verdicts[2].stays && !verdicts[1].stays);
        let early = Timestamp::UNIX_EPOCH;
        assert!(
            judge(&versions, &policy, early, &TimeZone::UTC)
                .unwrap_err()
                .contains("clocks")
        );
        for bad in [
            Policy::default(),
            Policy {
                last: Some(0),
                ..Policy::default()
            },
            Policy {
                within: Some(SignedDuration::ZERO),
                ..Policy::default()
            },
            Policy {
                partitioned: vec![SignedDuration::from_hours(2), SignedDuration::from_hours(1)],
                ..Policy::default()
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ages_are_said_as_people_write_them() {
        let said =
            [0, 90, 3600, DAY, 28 * DAY, 36 * HOUR].map(|s| words(SignedDuration::from_secs(s)));
        assert_eq!(said, ["0", "90s", "1h", "1d", "28d", "36h"]);
    }

    proptest! {
        #[test]
        fn i1_a_second_run_removes_nothing_and_the_newest_complete_one_stays(
            times in prop::collection::vec((0_i64..100 * DAY, any::<bool>()), 1..60),
            last in prop::option::of(1_u64..5),
            days in prop::option::of(1_u64..5),
        ) {
            let mut versions: Vec<Candidate> = (1..)
                .zip(&times)
                .map(|(seq, (time, is_partial))| Candidate { is_partial: *is_partial, ..at(seq, *time) })
                .collect();
            let policy = Policy {
                last,
                periods: days.map(|count| (Period::Day, count)).into_iter().collect(),
                ..partitioned()
            };
            let newest_complete = versions.iter().rfind(|version| !version.is_partial).map(|version| version.seq);
            let stay = kept(&versions, &policy);
            prop_assert!(!stay.is_empty());
            prop_assert!(newest_complete.is_none_or(|seq| stay.contains(&seq)));
            prop_assert!(stay.contains(&(times.len() as u64)));
            versions.retain(|version| stay.contains(&version.seq));
            if newest_complete == versions.last().map(|version| version.seq) {
                prop_assert_eq!(kept(&versions, &policy), stay);
            }
        }
    }
}
