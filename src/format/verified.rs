//! When a store was verified last: `cache/verified`, text. It is lost without harm.
//!
//! `verified TIME quick|deep PERCENT all|vSEQ NEWEST sound|damaged`, then a line `fault FILE` for each file that was not what
//! it must be.

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
    /// Files that were missing or not what their names say: the next backup does not build on them.
    pub faults: Vec<String>,
}

impl Verified {
    /// The text of the file.
    pub fn encode(&self) -> String {
        let faults = self.faults.iter().map(|file| format!("fault {file}\n"));
        format!("{self}\n{}", faults.collect::<String>())
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
        Ok(Self {
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
            faults: vec!["objects/a".into(), "state/b".into()],
        };
        assert_eq!(verified.encode().parse(), Ok(verified));
        assert_eq!("verified today deep\n".parse::<Verified>(), Err(()));
    }
}
