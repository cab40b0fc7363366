//! Instants, spans and the ways people write them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A value that could not be understood; the text names the value and what would be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTime(String);

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

impl When {
    /// Reads `latest`, `latest~2`, `v17`, RFC 3339, `2026-11-20`, `2026-11-20 10:00[:30]`; times without an offset are
    /// in `zone`. A stated period is inclusive.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, BadTime> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("latest") {
            return parse_back(rest)
                .map(|back| Self::Latest { back })
                .ok_or_else(|| bad_when(text));
        }
        if let Some(number) = text
            .strip_prefix('v')
            .and_then(|digits| digits.parse().ok())
        {
            return Ok(Self::Sequence(number));
        }
        parse_period(text, zone).ok_or_else(|| bad_when(text))
    }
}

fn bad_when(text: &str) -> BadTime {
    BadTime(format!(
        "Cannot understand the time '{text}': write latest, latest~2, v17, 2026-11-20, '2026-11-20 10:00' or 2026-11-20T10:00:00Z"
    ))
}

fn parse_back(rest: &str) -> Option<u64> {
    match rest.strip_prefix('~') {
        None if rest.is_empty() => Some(0),
        None => None,
        Some("") => Some(1),
        Some(digits) => digits.parse().ok(),
    }
}

fn parse_period(text: &str, zone: &TimeZone) -> Option<When> {
    if !text.is_ascii() {
        return None;
    }
    let (date_text, time_text) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(text[at + 1..].trim())),
        None => (text, None),
    };
    let date: Date = date_text
        .parse()
        .ok()
        .filter(|_| is_plain_date(date_text))?;
    let Some(time_text) = time_text else {
        let next = date
            .checked_add(1.day())
            .ok()?
            .to_datetime(jiff::civil::Time::midnight());
        return up_to(instant(next, zone)?, false);
    };
    let split = time_text
        .find(['Z', 'z', '+', '-'])
        .unwrap_or(time_text.len());
    let (clock, offset) = time_text.split_at(split);
    let clock = clock.trim();
    let (padded, unit, exact) = match (clock.len(), clock.split_once('.')) {
        (5, None) => (format!("{clock}:00"), SignedDuration::from_mins(1), false),
        (8, None) => (clock.to_owned(), SignedDuration::from_secs(1), false),
        (_, Some((whole, fraction))) if whole.len() == 8 && (1..=9).contains(&fraction.len()) => {
            let places = u32::try_from(9 - fraction.len()).ok()?;
            (
                clock.to_owned(),
                SignedDuration::from_nanos(10_i64.pow(places)),
                fraction.len() == 9,
            )
        }
        _ => return None,
    };
    let start = if offset.is_empty() {
        instant(format!("{date}T{padded}").parse().ok()?, zone)?
    } else {
        format!("{date}T{padded}{offset}").parse().ok()?
    };
    up_to(start.checked_add(unit).ok()?, exact)
}

/// Only `YYYY-MM-DD`: the date parser of the library takes more forms, which are not documented here.
fn is_plain_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(i, b)| {
            if i == 4 || i == 7 {
                b == b'-'
            } else {
                b.is_ascii_digit()
            }
        })
}

fn instant(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(local).ok()
}

fn up_to(end: Timestamp, exact: bool) -> Option<When> {
    Some(When::UpTo {
        last: end.checked_sub(SignedDuration::from_nanos(1)).ok()?,
        exact,
    })
}

/// RFC 3339 in UTC with nanoseconds: the form in which a version's time is written everywhere and given back to `--at`.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Seconds of a span as old configurations write it: the forms of Python's pytimeparse (`24h`, `1w3d2h32m`,
/// `2 days, 4:13:02`, `4:13` = 4 min 13 s) and those of humantime. Units are required except after colons; a month (`M`)
/// and negative spans are refused because the ancestors disagree about them.
///
/// ```
/// assert_eq!(btw_backup::time::parse_span("1w3d2h32m").unwrap().as_secs(), 873_120);
/// ```
pub fn parse_span(text: &str) -> Result<SignedDuration, BadTime> {
    let bad = |why: &str| {
        BadTime(format!(
            "Cannot understand the span '{text}': {why}; write for example \"24h\" or \"7d\""
        ))
    };
    let trimmed = text.trim();
    if trimmed.starts_with('-') {
        return Err(bad("a span cannot be negative"));
    }
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("the unit is missing"));
    }
    if has_month(trimmed) {
        return Err(bad("a month has no fixed length (m is a minute)"));
    }
    let nanos = parse_pytimeparse(trimmed.trim_start_matches('+').trim())
        .or_else(|| {
            humantime::parse_duration(trimmed)
                .ok()
                .and_then(|d| i128::try_from(d.as_nanos()).ok())
        })
        .ok_or_else(|| bad("unknown form"))?;
    SignedDuration::try_from_nanos_i128(nanos).ok_or_else(|| bad("too long"))
}

fn has_month(text: &str) -> bool {
    text.contains('M') || text.contains("month")
}

const UNITS: [(&[&str], i128); 5] = [
    (&["w", "wk", "wks", "week", "weeks"], 604_800),
    (&["d", "dy", "dys", "day", "days"], 86_400),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600),
    (&["m", "min", "mins", "minute", "minutes"], 60),
    (&["s", "sec", "secs", "second", "seconds"], 1),
];

fn parse_pytimeparse(text: &str) -> Option<i128> {
    let mut total = 0_i128;
    let mut rest = text.trim();
    let mut last_unit = i128::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        if number.contains(':') {
            return tail
                .trim()
                .is_empty()
                .then(|| clock_nanos(number))
                .flatten()
                .and_then(|n| total.checked_add(n));
        }
        let tail = tail.trim_start();
        let word_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (word, tail) = tail.split_at(word_end);
        let unit = UNITS.iter().find(|(names, _)| names.contains(&word))?.1;
        if unit >= last_unit {
            return None;
        }
        last_unit = unit;
        total = total.checked_add(decimal_nanos(number)?.checked_mul(unit)?)?;
        rest = tail.trim_start().trim_start_matches(',').trim_start();
    }
    Some(total)
}

/// `4:13`, `4:13:02.266`, `2:04:13:02`, `:22`: from the right seconds, minutes, hours, days.
fn clock_nanos(text: &str) -> Option<i128> {
    let parts: Vec<&str> = text.split(':').collect();
    let units = [1, 60, 3_600, 86_400];
    if parts.len() > units.len() {
        return None;
    }
    let mut total = 0_i128;
    for (index, (part, unit)) in parts.iter().rev().zip(units).enumerate() {
        let value = if part.is_empty() && index + 1 == parts.len() {
            0
        } else {
            decimal_nanos(part)?
        };
        if index > 0 && part.contains('.') {
            return None;
        }
        total = total.checked_add(value.checked_mul(unit)?)?;
    }
    Some(total)
}

/// A decimal number as billionths; no exponent, no sign.
fn decimal_nanos(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits = |part: &str| {
        if part.is_empty() {
            Some(0)
        } else {
            part.parse::<u64>().ok().map(i128::from)
        }
    };
    let scale = 10_i128.pow(u32::try_from(9 - fraction.len()).ok()?);
    digits(whole)?
        .checked_mul(1_000_000_000)?
        .checked_add(digits(fraction)? * scale)
}

#[cfg(test)]
mod tests {
    use super::{When, parse_span, rfc3339};
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    fn secs(text: &str) -> Option<f64> {
        parse_span(text).ok().map(|d| d.as_secs_f64())
    }

    #[test]
    fn spans_of_the_ancestors_and_of_humantime_are_understood() {
        let cases = [
            ("24h", 86_400.0),
            ("7d", 604_800.0),
            ("32m", 1_920.0),
            ("2h32m", 9_120.0),
            ("3d2h32m", 268_320.0),
            ("1w3d2h32m", 873_120.0),
            ("1w 3d 2h 32m", 873_120.0),
            ("4:13", 253.0),
            ("4:13:02", 15_182.0),
            ("4:13:02.266", 15_182.266),
            ("2:04:13:02.266", 187_982.266),
            (":22", 22.0),
            ("2 days, 4:13:02", 187_982.0),
            ("5hr34m56s", 20_096.0),
            ("5 hours, 34 minutes, 56 seconds", 20_096.0),
            ("1.2 minutes", 72.0),
            ("5.6 weeks", 3_386_880.0),
            ("+32m", 1_920.0),
            ("0s", 0.0),
            ("500ms", 0.5),
            ("1year", 31_557_600.0),
        ];
        for (text, want) in cases {
            let got = secs(text).unwrap_or_else(|| panic!("{text} refused"));
            assert!((got - want).abs() < 1e-6, "{text}: {got} instead of {want}");
        }
    }

    #[test]
    fn i6_unclear_spans_are_refused_by_value() {
        for text in [
            "",
            "0",
            "10",
            "-32m",
            "3M",
            "2 months",
            "2x",
            "h",
            "1:2:3:4:5",
            "99999999999999999w",
            "1..2h",
        ] {
            let error = parse_span(text).expect_err(text).to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn h9_a_stated_period_is_inclusive() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let last = |text: &str| match When::parse(text, &zone).unwrap() {
            When::UpTo { last, exact } => (rfc3339(last), exact),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            last("2026-11-20"),
            ("2026-11-20T22:59:59.999999999Z".into(), false)
        );
        assert_eq!(
            last("2026-11-20 10:00"),
            ("2026-11-20T09:00:59.999999999Z".into(), false)
        );
        assert_eq!(
            last("2026-11-20T10:00:00Z"),
            ("2026-11-20T10:00:00.999999999Z".into(), false)
        );
        assert_eq!(
            last("2026-11-20T10:00:00+02:00"),
            ("2026-11-20T08:00:00.999999999Z".into(), false)
        );
        let exact = "2026-11-20T10:00:00.123456789Z";
        assert_eq!(last(exact), (exact.into(), true));
        let stamp: Timestamp = exact.parse().unwrap();
        assert_eq!(rfc3339(stamp), exact);
    }

    #[test]
    fn versions_are_named_by_rank_and_number() {
        let parse = |text| When::parse(text, &TimeZone::UTC);
        assert_eq!(parse("latest").unwrap(), When::Latest { back: 0 });
        assert_eq!(parse("latest~2").unwrap(), When::Latest { back: 2 });
        assert_eq!(parse("v17").unwrap(), When::Sequence(17));
        for bad in [
            "",
            "later",
            "latest2",
            "v",
            "2026-13-01",
            "20261120",
            "2026-11-20 1",
            "2026-11-20Tx",
            "é",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
