//! Spans as people and old configurations write them.

use jiff::SignedDuration;

use super::BadTime;

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
    use super::parse_span;

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
}
