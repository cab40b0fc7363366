//! When a store was verified last: `cache/verified`, text. It is lost without harm.
//!
//! `verified TIME quick|deep PERCENT all|vSEQ NEWEST sound|damaged`, then a line `fault FILE` for each file that was not what
//! it must be. Before
//! them, `full TIME` and `deep TIME` say when all of the store was last read, or rebuilt, and was sound.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::time::rfc3339;

/// What was verified when.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// When it began.
    pub time: Timestamp,
    /// Versions were rebuilt.
    pub deep: bool,
    /// How much of the store was read, in percent.
    pub percent: f64,
    /// The only version that was verified, if it was one.
    pub only: Option<u64>,
    /// The newest version then.
    pub newest: u64,
    /// Nothing was wrong.
    pub is_sound: bool,
    /// When every file of the store was last read in one go and nothing was wrong.
    pub last_full: Option<Timestamp>,
    /// The same with every version rebuilt.
    pub last_deep: Option<Timestamp>,
    /// Files that were missing or not what their names say: the next backup does not build on them.
    pub faults: Vec<String>,
}

impl Verified {
    /// The text of the file.
    pub fn encode(&self) -> String {
        let lasts = [("full", self.last_full), ("deep", self.last_deep)].into_iter();
        let lasts = lasts.filter_map(|(word, time)| Some(format!("{word} {}\n", rfc3339(time?))));
        let faults = self.faults.iter().map(|file| format!("fault {file}\n"));
        format!(
            "{self}\n{}{}",
            lasts.collect::<String>(),
            faults.collect::<String>()
        )
    }
}

impl Verified {
    /// All was rebuilt and sound at this time.
    #[cfg(test)]
    pub fn deep_at(time: Timestamp) -> Self {
        Self {
            time,
            deep: true,
            percent: 100.0,
            only: None,
            newest: 1,
            is_sound: true,
            last_full: Some(time),
            last_deep: Some(time),
            faults: Vec::new(),
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.deep { "deep" } else { "quick" };
        let what = self.only.map_or("all".to_owned(), |seq| format!("v{seq}"));
        let result = if self.is_sound { "sound" } else { "damaged" };
        let (time, percent, newest) = (rfc3339(self.time), self.percent, self.newest);
        write!(
            f,
            "verified {time} {how} {percent} {what} {newest} {result}"
        )
    }
}

impl FromStr for Verified {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (line, rest) = text.split_once('\n').ok_or(())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["verified", time, how, percent, what, newest, result] = words[..] else {
            return Err(());
        };
        let choice = |word: &str, yes: &str, no: &str| match word {
            word if word == yes => Ok(true),
            word if word == no => Ok(false),
            _ => Err(()),
        };
        let only = match what {
            "all" => None,
            other => Some(other.strip_prefix('v').ok_or(())?.parse().map_err(|_| ())?),
        };
        let last = |word: &str| {
            let line = rest.lines().find_map(|line| line.strip_prefix(word));
            line.map(|time| time.trim().parse().map_err(|_| ()))
                .transpose()
        };
        Ok(Self {
            last_full: last("full ")?,
            last_deep: last("deep ")?,
            time: time.parse().map_err(|_| ())?,
            deep: choice(how, "deep", "quick")?,
            percent: percent.parse().map_err(|_| ())?,
            only,
            newest: newest.parse().map_err(|_| ())?,
            is_sound: choice(result, "sound", "damaged")?,
            faults: rest
                .lines()
                .filter_map(|line| line.strip_prefix("fault ").map(str::to_owned))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Verified;

    #[test]
    fn what_is_written_is_read_again() {
        let verified = Verified {
            time: "2026-11-21T10:00:00.000000001Z".parse().unwrap(),
            deep: true,
            percent: 12.5,
            only: Some(7),
            newest: 9,
            is_sound: false,
            last_full: Some("2026-11-20T10:00:00.000000000Z".parse().unwrap()),
            last_deep: None,
            faults: vec!["objects/a".into(), "state/b".into()],
        };
        assert_eq!(verified.encode().parse(), Ok(verified));
        assert_eq!("verified today deep\n".parse::<Verified>(), Err(()));
    }
}
