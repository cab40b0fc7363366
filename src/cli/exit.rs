//! Exit codes as a type.

use std::process::ExitCode;

use crate::error::{Error, StoreError};

/// How a command ended. Of several the worst counts, in the order damage, failed, locked, warnings, done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Done, but something is missing or needs attention.
    Warnings,
    /// Another run holds the store.
    Locked,
    /// Not done.
    Failed,
    /// The store is damaged.
    Damage,
    /// The command line or the configuration is wrong.
    Usage,
    /// Stopped by this signal.
    Stopped(u8),
    /// What a Nagios plugin ends with: 0 to 3.
    Plugin(u8),
}

impl Exit {
    /// How a command ended that ends with this error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Store(StoreError::Locked(_) | StoreError::Running(_)) => Self::Locked,
            Error::Store(StoreError::Damaged { .. }) => Self::Damage,
            Error::Store(_)
            | Error::Remote(_)
            | Error::Refused(_)
            | Error::Dump(_)
            | Error::Program(_)
            | Error::File { .. } => Self::Failed,
            Error::Config { .. } | Error::Usage(_) => Self::Usage,
        }
    }

    /// Done, with warnings if there are any.
    pub fn done(problems: &[String]) -> Self {
        if problems.is_empty() {
            Self::Done
        } else {
            Self::Warnings
        }
    }

    /// The worse of two.
    pub fn or(self, other: Self) -> Self {
        let order = [
            Self::Done,
            Self::Warnings,
            Self::Locked,
            Self::Usage,
            Self::Failed,
            Self::Damage,
        ];
        let rank = |exit: Self| {
            let place = order.iter().position(|other| *other == exit);
            place.unwrap_or(order.len())
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }

    /// The one that a program of ours ended with, as a number.
    pub fn from_code(code: u8) -> Self {
        let all = [
            Self::Done,
            Self::Warnings,
            Self::Locked,
            Self::Usage,
            Self::Damage,
        ];
        let known = all.into_iter().find(|exit| exit.code() == code);
        known.unwrap_or(Self::Failed)
    }

    /// What it comes to, in a word or two.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "FAILED",
            Self::Usage => "CANNOT BE UNDERSTOOD",
            Self::Warnings => "warnings",
            Self::Locked => "in use by another run",
            Self::Damage => "DAMAGE",
            Self::Stopped(_) => "stopped",
            Self::Plugin(_) => "a plugin's answer",
        }
    }

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Stopped(signal) => 128 + signal,
            Self::Plugin(code) => code,
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::Locked => 4,
            Self::Damage => 5,
        }
    }
}

impl serde::Serialize for Exit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.code())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;
    use crate::error::{Error, StoreError};
    use std::io;

    #[test]
    fn k2_every_class_of_error_has_its_code() {
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases = [
            (Error::Store(StoreError::Locked("s".into())), 4),
            (Error::Store(StoreError::damaged("f", "d")), 5),
            (
                Error::Store(StoreError::io(
                    "read",
                    "f",
                    io::Error::from(io::ErrorKind::NotFound),
                )),
                5,
            ),
            (
                Error::Store(StoreError::io(
                    "write",
                    "f",
                    io::Error::from(io::ErrorKind::StorageFull),
                )),
                1,
            ),
            (Error::Store(StoreError::io("write", "f", io())), 1),
            (Error::Store(StoreError::Proof("p".into())), 1),
            (Error::Refused("r".into()), 1),
            (Error::file("open", "/f", io()), 1),
            (
                Error::Config {
                    path: "/c".into(),
                    detail: "d".into(),
                },
                2,
            ),
            (Error::Program("p".into()), 1),
            (Error::Usage("u".into()), 2),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of(&error).code(), code, "{error}");
        }
        let worst = [Exit::Damage, Exit::Done, Exit::Warnings]
            .into_iter()
            .fold(Exit::Done, Exit::or);
        assert_eq!(worst, Exit::Damage);
        assert_eq!(
            (Exit::done(&[]).code(), Exit::done(&["w".into()]).code()),
            (0, 3)
        );
    }
}
