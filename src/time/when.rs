//! Which version a user means.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use super::span::parse_span;
use super::{BadTime, rfc3339};

/// A moment or a version, as a user names it on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// The newest version, or the n-th before it.
    Latest {
        /// How many versions back.
        back: u64,
    },
    /// The version with this sequence number.
    Sequence(u64),
    /// The newest version not later than the end of a stated period.
    UpTo {
        /// The last instant of the period that was stated.
        last: Timestamp,
        /// The instant itself if it was stated to the nanosecond: a version with this very time is meant.
        exact: bool,
    },
}

/// What was understood, and a remark if the local time that was given does not exist or exists twice.
type Understood = (When, Option<String>);

impl When {
    /// Reads what a user wrote; times without an offset are in the zone of `now`. A stated period (a day, a minute) is
    /// meant to its end. The forms:
    ///
    /// | form | meaning |
    /// |---|---|
    /// | `latest`, `now`, `latest~2`, `~2`, `2B` | the newest version; the second before it (`B` as in rdiff-backup) |
    /// | `v17` | the version with this number |
    /// | `2026-11-20`, `2026/11/20`, `today`, `yesterday`, `-1` | that day; so many days back (as in Altbackup) |
    /// | `2026-11-20 10:00`, `10:00`, `10:00:30` | that minute or second, today if no day is given |
    /// | `2026-11-20T10:00:00.123456789Z`, `…+01:00` | that instant |
    /// | `3d`, `2h 30m`, `3D`, `1W` | so long ago |
    pub fn parse(text: &str, now: &Zoned) -> Result<Understood, BadTime> {
        let text = text.trim();
        let bad = || {
            BadTime(format!(
                "Cannot understand the time '{text}': write latest, latest~2, v17, 2026-11-20, '2026-11-20 10:00', 10:00, yesterday, 3d (that long ago) or 2026-11-20T10:00:00Z"
            ))
        };
        let plain = |when| Ok((when, None));
        if let Some(when) = by_rank(text) {
            return plain(when);
        }
        let days_back = match text {
            "today" => Some(0),
            "yesterday" => Some(1),
            _ => text.strip_prefix('-').and_then(digits),
        };
        if let Some(days) = days_back {
            let days = i64::try_from(days).map_err(|_| bad())?;
            let date = now
                .date()
                .checked_sub(jiff::Span::new().try_days(days).map_err(|_| bad())?);
            return day(date.map_err(|_| bad())?, now.time_zone()).ok_or_else(bad);
        }
        if let Some(understood) = period(text, now) {
            return Ok(understood);
        }
        if text.contains(':') {
            // As a span `25:00` would be 25 minutes: hardly what was meant here.
            return Err(bad());
        }
        let ago = parse_span(&lower_units(text)).map_err(|_| bad())?;
        let last = now.timestamp().checked_sub(ago).map_err(|_| bad())?;
        plain(Self::UpTo { last, exact: false })
    }
}

fn by_rank(text: &str) -> Option<When> {
    let back = match text {
        "latest" | "now" => 0,
        "latest~" | "~" => 1,
        _ => {
            let rank = text
                .strip_prefix("latest~")
                .or_else(|| text.strip_prefix('~'));
            match rank.or_else(|| text.strip_suffix('B')) {
                Some(rank) => digits(rank)?,
                None => return text.strip_prefix('v').and_then(digits).map(When::Sequence),
            }
        }
    };
    Some(When::Latest { back })
}

/// Digits only: a sign means something else here.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// rdiff-backup writes days and weeks in capitals.
fn lower_units(text: &str) -> String {
    text.replace('D', "d").replace('W', "w")
}

/// A day, a minute, a second or an instant.
fn period(text: &str, now: &Zoned) -> Option<Understood> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (date(&text[..at])?, text[at + 1..].trim()),
        None => match date(text) {
            Some(date) => return day(date, now.time_zone()),
            None => (now.date(), text),
        },
    };
    let split = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, offset) = time.split_at(split);
    let (clock, unit, exact) = clock_and_unit(clock.trim())?;
    let (start, remark) = if offset.is_empty() {
        instant(date.to_datetime(clock), now.time_zone())?
    } else {
        (
            format!("{}{offset}", date.to_datetime(clock))
                .parse()
                .ok()?,
            None,
        )
    };
    Some((up_to(start.checked_add(unit).ok()?, exact)?, remark))
}

fn day(date: Date, zone: &TimeZone) -> Option<Understood> {
    let next = date
        .checked_add(1.day())
        .ok()?
        .to_datetime(Time::midnight());
    let end = zone.to_ambiguous_timestamp(next).compatible().ok()?;
    Some((up_to(end, false)?, None))
}

/// `10:00`, `10:00:30`, `10:00:30.5`: the time, how long the stated period is, and whether it is a single instant.
fn clock_and_unit(clock: &str) -> Option<(Time, SignedDuration, bool)> {
    let (text, unit, exact) = match (clock.len(), clock.split_once('.')) {
        (5, None) => (format!("{clock}:00"), SignedDuration::from_mins(1), false),
        (8, None) => (clock.to_owned(), SignedDuration::from_secs(1), false),
        (_, Some((whole, fraction))) if whole.len() == 8 && (1..=9).contains(&fraction.len()) => {
            let places = u32::try_from(9 - fraction.len()).ok()?;
            let unit = SignedDuration::from_nanos(10_i64.pow(places));
            (clock.to_owned(), unit, fraction.len() == 9)
        }
        _ => return None,
    };
    Some((text.parse().ok()?, unit, exact))
}

/// Only `YYYY-MM-DD` and `YYYY/MM/DD`: the date parser of the library takes more forms, which are not documented here.
fn date(text: &str) -> Option<Date> {
    let mark = *text.as_bytes().get(4)?;
    let plain = text.len() == 10
        && [b'-', b'/'].contains(&mark)
        && text.bytes().enumerate().all(|(at, byte)| {
            if at == 4 || at == 7 {
                byte == mark
            } else {
                byte.is_ascii_digit()
            }
        });
    text.replace('/', "-").parse().ok().filter(|_| plain)
}

/// The instant of a local time. One that exists twice (the clock was set back) is the later one, so that everything up
/// to it is meant; one that does not exist (the clock was set forward) is as much later. Both are said.
fn instant(local: DateTime, zone: &TimeZone) -> Option<(Timestamp, Option<String>)> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let what = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Fold { .. } => {
            Some("existed twice, because the clock was set back; the later one is taken")
        }
        AmbiguousOffset::Gap { .. } => {
            Some("did not exist, because the clock was set forward; taken for")
        }
    };
    let time = ambiguous.later().ok()?;
    let remark = |what| {
        format!(
            "{} {what}, {}",
            local.strftime("%Y-%m-%d %H:%M"),
            rfc3339(time)
        )
    };
    Some((time, what.map(remark)))
}

fn up_to(end: Timestamp, exact: bool) -> Option<When> {
    let last = end.checked_sub(SignedDuration::from_nanos(1)).ok()?;
    Some(When::UpTo { last, exact })
}

#[cfg(test)]
mod tests {
    use super::{When, rfc3339};
    use jiff::tz::TimeZone;
    use jiff::{Timestamp, Zoned};

    fn now() -> Zoned {
        "2026-11-20T15:30:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[track_caller]
    fn last(text: &str) -> (String, bool) {
        match When::parse(text, &now()).unwrap() {
            (When::UpTo { last, exact }, None) => (rfc3339(last), exact),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn h9_a_stated_period_is_inclusive() {
        for (text, end) in [
            ("2026-11-20", "2026-11-20T22:59:59.999999999Z"),
            ("2026/11/20", "2026-11-20T22:59:59.999999999Z"),
            ("today", "2026-11-20T22:59:59.999999999Z"),
            ("yesterday", "2026-11-19T22:59:59.999999999Z"),
            ("-1", "2026-11-19T22:59:59.999999999Z"),
            ("-30", "2026-10-21T21:59:59.999999999Z"),
            ("2026-11-20 10:00", "2026-11-20T09:00:59.999999999Z"),
            ("2026/11/20 10:00", "2026-11-20T09:00:59.999999999Z"),
            ("10:00", "2026-11-20T09:00:59.999999999Z"),
            ("10:00:05", "2026-11-20T09:00:05.999999999Z"),
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00.999999999Z"),
            (
                "2026-11-20T10:00:00+02:00",
                "2026-11-20T08:00:00.999999999Z",
            ),
            ("3d", "2026-11-17T14:30:00.000000000Z"),
            ("3D", "2026-11-17T14:30:00.000000000Z"),
            ("1W", "2026-11-13T14:30:00.000000000Z"),
            ("2h 30m", "2026-11-20T12:00:00.000000000Z"),
        ] {
            assert_eq!(last(text), (end.into(), false), "{text}");
        }
        let exact = "2026-11-20T10:00:00.123456789Z";
        assert_eq!(last(exact), (exact.into(), true));
        let stamp: Timestamp = exact.parse().unwrap();
        assert_eq!(rfc3339(stamp), exact);
    }

    #[test]
    fn h9_j3_times_that_exist_twice_or_never_are_resolved_and_said() {
        let parse = |text| match When::parse(text, &now()).unwrap() {
            (When::UpTo { last, .. }, remark) => (rfc3339(last), remark.unwrap()),
            other => panic!("{other:?}"),
        };
        let (time, remark) = parse("2026-10-25 02:30");
        assert_eq!(time, "2026-10-25T01:30:59.999999999Z");
        assert!(
            remark.contains("existed twice") && remark.contains("2026-10-25T01:30:00"),
            "{remark}"
        );
        let (time, remark) = parse("2026-03-29 02:30");
        assert_eq!(time, "2026-03-29T01:30:59.999999999Z");
        assert!(remark.contains("did not exist"), "{remark}");
        // With an offset nothing is ambiguous; a day ends where the next begins, however long it is.
        assert_eq!(
            last("2026-10-25 02:30+02:00").0,
            "2026-10-25T00:30:59.999999999Z"
        );
        assert_eq!(last("2026-10-25").0, "2026-10-25T22:59:59.999999999Z");
    }

    #[test]
    fn versions_are_named_by_rank_and_number() {
        let parse = |text| When::parse(text, &now().with_time_zone(TimeZone::UTC)).unwrap();
        for (text, back) in [
            ("latest", 0),
            ("now", 0),
            ("latest~", 1),
            ("latest~2", 2),
            ("~2", 2),
            ("3B", 3),
            ("0B", 0),
        ] {
            assert_eq!(parse(text), (When::Latest { back }, None), "{text}");
        }
        assert_eq!(parse("v17"), (When::Sequence(17), None));
        for bad in [
            "",
            "later",
            "latest2",
            "v",
            "v-1",
            "~-1",
            "B",
            "-1B",
            "2026-13-01",
            "20261120",
            "2026-11-20 1",
            "2026-11-20Tx",
            "2026/11-20",
            "25:00",
            "3M",
            "10",
            "--1",
            "-",
            "é",
            "+3d3",
        ] {
            assert!(
                When::parse(bad, &now()).is_err(),
                "{bad}: {:?}",
                When::parse(bad, &now())
            );
        }
    }
}
