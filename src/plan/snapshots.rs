//! Snapshots of EBS volumes: facts and a rule in, what to make and what to delete out.
//!
//! One snapshot a day and volume, days being UTC as the snapshots' times are. While one is pending nothing is made, and
//! nothing is deleted of a volume of which none was made.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::retention::{Candidate, Policy, judge};

/// Which snapshots of a volume stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The newest so many, with the one that is made.
    Keep(usize),
    /// Of each group between two ages the oldest and the newest, and the youngest beyond.
    Partitioned(Vec<SignedDuration>),
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, `snap-...`.
    pub id: String,
    /// The volume's name, `vol-...`.
    pub volume: String,
    /// `completed`, `pending`, `error`, ...
    pub status: String,
    /// When it was begun.
    pub time: Timestamp,
    /// What it says it is.
    pub description: String,
}

impl Snapshot {
    /// Whether it will never be of use: it neither counts nor keeps others from being made.
    pub fn has_failed(&self) -> bool {
        self.status == "error"
    }
}

/// What is to be done for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan<'a> {
    /// There is one of today.
    Today(&'a Snapshot),
    /// One is not finished yet.
    Pending(&'a Snapshot),
    /// Make one, then delete these.
    Make(Vec<&'a Snapshot>),
}

/// The UTC day of a moment.
pub fn day(time: Timestamp) -> jiff::civil::Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// What is to be done for a volume with these snapshots.
pub fn plan<'a>(
    snapshots: &'a [Snapshot],
    rule: &Rule,
    now: Timestamp,
) -> Result<Plan<'a>, String> {
    let mut sorted: Vec<&Snapshot> = snapshots.iter().filter(|one| !one.has_failed()).collect();
    sorted.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
    if let Some(pending) = sorted
        .iter()
        .find(|snapshot| snapshot.status != "completed")
    {
        return Ok(Plan::Pending(pending));
    }
    if let Some(today) = sorted
        .iter()
        .find(|snapshot| day(snapshot.time) == day(now))
    {
        return Ok(Plan::Today(today));
    }
    if let Some(newest) = sorted.first().filter(|newest| newest.time > now) {
        return Err(format!(
            "{} is of {}, but it is {now}: is the clock of this machine right?",
            newest.id, newest.time
        ));
    }
    let mut doomed = match rule {
        Rule::Keep(count) => sorted
            .iter()
            .skip(count.saturating_sub(1))
            .copied()
            .collect(),
        Rule::Partitioned(ages) => partitioned(&sorted, ages, now)?,
    };
    // What is made now takes a while, and may fail: until then the newest that is there is all there is.
    doomed.retain(|snapshot| sorted.first() != Some(snapshot));
    Ok(Plan::Make(doomed))
}

/// Those that the rule does not keep, the newest first. The one that is to be made counts as made now.
fn partitioned<'a>(
    sorted: &[&'a Snapshot],
    ages: &[SignedDuration],
    now: Timestamp,
) -> Result<Vec<&'a Snapshot>, String> {
    let times = sorted
        .iter()
        .rev()
        .map(|snapshot| snapshot.time)
        .chain([now]);
    let candidates: Vec<Candidate> = (0..)
        .zip(times)
        .map(|(seq, time)| Candidate {
            seq,
            time,
            is_partial: false,
            pin: None,
        })
        .collect();
    let policy = Policy {
        partitioned: ages.to_vec(),
        ..Policy::default()
    };
    let verdicts = judge(&candidates, &policy, now, &TimeZone::UTC)?;
    let judged = sorted.iter().rev().zip(&verdicts);
    let mut doomed: Vec<&Snapshot> = judged
        .filter(|(_, verdict)| !verdict.stays)
        .map(|(snapshot, _)| *snapshot)
        .collect();
    doomed.reverse();
    Ok(doomed)
}

#[cfg(test)]
mod tests {
    use super::{Plan, Rule, Snapshot, plan};
    use jiff::{SignedDuration, Timestamp};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn snapshot(time: &str, status: &str) -> Snapshot {
        Snapshot {
            id: format!("snap-{time}"),
            volume: "vol-1".into(),
            status: status.into(),
            time: at(time),
            description: String::new(),
        }
    }

    fn days(days: &[&str]) -> Vec<Snapshot> {
        let time = |day: &&str| snapshot(&format!("2026-11-{day}T23:30:00Z"), "completed");
        days.iter().map(time).collect()
    }

    fn doomed(snapshots: &[Snapshot], rule: &Rule, now: &str) -> Vec<String> {
        match plan(snapshots, rule, at(now)).unwrap() {
            Plan::Make(doomed) => doomed
                .iter()
                .map(|snapshot| snapshot.id[13..15].to_owned())
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_stay_counting_the_new_one() {
        let snapshots = days(&["03", "01", "02", "05", "04", "06"]);
        assert_eq!(
            doomed(&snapshots, &Rule::Keep(5), "2026-11-07T00:10:00Z"),
            ["02", "01"]
        );
        assert_eq!(
            doomed(&snapshots, &Rule::Keep(1), "2026-11-07T00:10:00Z").len(),
            5
        );
        assert!(doomed(&[], &Rule::Keep(5), "2026-11-07T00:10:00Z").is_empty());
    }

    #[test]
    fn days_are_utc_and_one_that_is_pending_stops_everything() {
        let rule = Rule::Keep(1);
        let snapshots = days(&["05", "06"]);
        // 20 minutes before midnight it is still the same day, wherever the machine is.
        let same = plan(&snapshots, &rule, at("2026-11-06T23:50:00Z")).unwrap();
        assert_eq!(same, Plan::Today(&snapshots[1]));
        assert_eq!(doomed(&snapshots, &rule, "2026-11-07T00:00:00Z"), ["05"]);
        let mut pending = days(&["05", "06"]);
        pending[0].status = "pending".into();
        let later = "2026-11-09T00:00:00Z";
        assert_eq!(
            plan(&pending, &rule, at(later)).unwrap(),
            Plan::Pending(&pending[0])
        );
        // One that has failed would keep others from being made for ever.
        pending[0].status = "error".into();
        assert!(doomed(&pending, &rule, later).is_empty());
        assert!(plan(&snapshots, &rule, at("2026-10-01T00:00:00Z")).is_err());
    }

    #[test]
    fn partitioned_retention_is_that_of_versions() {
        let rule = Rule::Partitioned(
            [1, 7, 28]
                .map(|days| SignedDuration::from_hours(24 * days))
                .to_vec(),
        );
        let snapshots = days(&["01", "02", "03", "09", "10", "11", "12", "13", "14"]);
        // Of 1-7 days the 13th to 9th keep both ends, of 7-28 days the 3rd to 1st.
        assert_eq!(
            doomed(&snapshots, &rule, "2026-11-15T23:30:00Z"),
            ["13", "12", "11", "10", "02"]
        );
    }
}
