//! PostgreSQL: `pg_dump` of one database, `pg_dumpall --globals-only` of a server's roles and tablespaces.
//!
//! Plain SQL: its text cuts and compares well, every later `psql` reads it, and two dumps of an unchanged database are
//! the same, which those of the custom format, with the time in its header, are not.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use super::process::{Process, Running, User};
use super::{Dump, Started, Summary, Verdict};
use crate::error::Error;

/// Options that would make something else than one stream of the same text: another file, format or verbosity, or a
/// question. By their long names; the programs take abbreviations too.
const REFUSED: [&str; 14] = [
    "file",
    "format",
    "jobs",
    "compress",
    "dbname",
    "database",
    "password",
    "verbose",
    "version",
    "help",
    "restrict-key",
    // What tells the server's version would not know of them: CONNINFO.
    "host",
    "port",
    "username",
];

/// What is dumped of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// One database.
    Database(String),
    /// Roles and tablespaces.
    Globals,
}

/// How to reach the server; what is not said comes from libpq's environment.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// libpq's `keyword=value` form.
    pub conninfo: Option<String>,
    /// A section of the service file.
    pub service: Option<String>,
}

/// A dump of a PostgreSQL server.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// What of it.
    pub what: What,
    /// How to reach it.
    pub connection: Connection,
    /// The directory of the programs, if it is said.
    pub bin: Option<PathBuf>,
    /// Where programs are looked for otherwise.
    pub path: Vec<PathBuf>,
    /// As whom the programs run.
    pub user: Option<User>,
    /// More arguments.
    pub args: Vec<String>,
    /// Makes two dumps the same: see [`Program::has_restrict_key`].
    pub restrict_key: Option<String>,
    /// The file name of the content.
    pub file_name: String,
    /// A shorter dump does not count.
    pub min_bytes: u64,
}

/// The version of a program or server: the part that rules compatibility, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Release {
    major: (u32, u32),
    minor: u32,
}

impl Release {
    /// Of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `... 9.6.24`, `... 18beta1`.
    fn of(answer: &str) -> Option<Self> {
        let text = answer.split(") ").nth(1)?.split(' ').next()?;
        let mut numbers = text
            .split('.')
            .map(|part| {
                part.chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>()
            })
            .map(|digits| digits.parse::<u32>().unwrap_or(0));
        let first = numbers.next().filter(|first| *first > 0)?;
        let second = numbers.next().unwrap_or(0);
        Some(if first < 10 {
            Self {
                major: (first, second),
                minor: numbers.next().unwrap_or(0),
            }
        } else {
            Self {
                major: (first, 0),
                minor: second,
            }
        })
    }

    /// Of `server_version_num`: 150018, 90624.
    fn of_number(answer: &str) -> Option<Self> {
        let number: u32 = answer.parse().ok()?;
        Some(if number < 100_000 {
            Self {
                major: (number / 10_000, number / 100 % 100),
                minor: number % 100,
            }
        } else {
            Self {
                major: (number / 10_000, 0),
                minor: number % 10_000,
            }
        })
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.major {
            (major @ 0..10, second) => write!(f, "{major}.{second}.{}", self.minor),
            (major, _) => write!(f, "{major}.{}", self.minor),
        }
    }
}

/// The program that dumps, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program(Release);

impl Program {
    /// Whether it marks plain dumps with `\restrict KEY`, a key that is made up each time unless it is given (since
    /// CVE-2025-8714; without it a dump can have the client that restores it run commands).
    pub fn has_restrict_key(self) -> bool {
        let since = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];
        let major = self.0.major.0;
        let known = since.iter().find(|(known, _)| *known == major);
        known.map_or(major > 17, |(_, minor)| self.0.minor >= *minor)
    }
}

/// The key in a dump's first bytes. It stands before anything that comes from the database.
pub fn restrict_key(beginning: &[u8]) -> Option<String> {
    let lines = beginning.split_inclusive(|byte| *byte == b'\n');
    let mut lines = lines.take_while(|line| {
        let heads = [&b"--"[..], b"\n", b"\\restrict "];
        heads.iter().any(|head| line.starts_with(head))
    });
    let key = lines.find_map(|line| line.strip_prefix(b"\\restrict ")?.strip_suffix(b"\n"))?;
    let is_key = !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric);
    String::from_utf8(key.to_vec()).ok().filter(|_| is_key)
}

impl Postgres {
    /// Whether all settings can be used.
    pub fn check(&self) -> Result<(), String> {
        self.args.iter().try_for_each(|arg| check_arg(arg))?;
        match &self.connection.conninfo {
            Some(conninfo) => check_conninfo(conninfo),
            None => Ok(()),
        }
    }

    /// Looks whether the program is there, the server can be reached, and the program is not older than it.
    pub fn probe(&self) -> Result<Program, Error> {
        let (version, server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| self.server());
            (self.version(), server.join().expect("it does not panic"))
        });
        let (version, server) = (version?, server?);
        match server.filter(|server| server.major > version.major) {
            Some(server) => Err(Error::Dump(format!(
                "{} is of version {version}, the server of version {server}: install a {0} as new as the server, or name its directory with BIN",
                self.program()
            ))),
            None => Ok(Program(version)),
        }
    }

    fn version(&self) -> Result<Release, Error> {
        let answer = self
            .process(self.program(), vec!["--version".into()])
            .answer()?;
        Release::of(&answer).ok_or_else(|| {
            Error::Dump(format!(
                "{} says that its version is '{answer}'; is it PostgreSQL's?",
                self.program()
            ))
        })
    }

    /// The server's version, if there is a program to ask for it. Else the dump's own refusal, before its first byte, will do.
    fn server(&self) -> Result<Option<Release>, Error> {
        let mut args: Vec<OsString> = [
            "--no-psqlrc",
            "--no-password",
            "--tuples-only",
            "--no-align",
            "--command=SHOW server_version_num",
        ]
        .map(OsString::from)
        .to_vec();
        let database = match &self.what {
            // What pg_dumpall connects to first.
            What::Globals => "dbname=postgres".to_owned(),
            What::Database(name) => format!("dbname={}", quoted(name)),
        };
        args.push(format!("--dbname={}", self.conninfo(Some(database))).into());
        let process = self.process("psql", args);
        match process.find() {
            Some(_) => match process.answer() {
                Ok(answer) => Ok(Release::of_number(&answer)),
                Err(error) => Err(Error::Dump(format!(
                    "Cannot ask the server for its version: {error}"
                ))),
            },
            None => Ok(None),
        }
    }

    fn program(&self) -> &'static str {
        match self.what {
            What::Database(_) => "pg_dump",
            What::Globals => "pg_dumpall",
        }
    }

    fn process(&self, program: &str, args: Vec<OsString>) -> Process {
        let program = match &self.bin {
            Some(bin) => bin.join(program).into_os_string(),
            None => program.into(),
        };
        Process {
            program,
            args,
            user: self.user.clone(),
            dir: Some("/".into()),
            path: self.path.clone(),
        }
    }

    /// A database's name cannot be passed bare: one with `=` in it would be taken for more than a name.
    fn conninfo(&self, database: Option<String>) -> String {
        let service = self.connection.service.as_ref();
        let service = service.map(|service| format!("service={}", quoted(service)));
        let parts = [database, service, self.connection.conninfo.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What ends a complete dump.
    fn trailer(&self) -> &'static str {
        match self.what {
            What::Database(_) => "\n-- PostgreSQL database dump complete\n",
            What::Globals => "\n-- PostgreSQL database cluster dump complete\n",
        }
    }
}

impl Dump for Postgres {
    fn name(&self) -> &str {
        &self.file_name
    }

    fn start(&self) -> Result<Started, Error> {
        let mut args: Vec<OsString> = vec!["--no-password".into()];
        if let Some(key) = &self.restrict_key {
            args.push(format!("--restrict-key={key}").into());
        }
        let database = match &self.what {
            What::Database(name) => Some(format!("dbname={}", quoted(name))),
            What::Globals => {
                args.push("--globals-only".into());
                None
            }
        };
        let conninfo = self.conninfo(database);
        if !conninfo.is_empty() {
            args.push(format!("--dbname={conninfo}").into());
        }
        // Behind ours: one that lacks its value must not take one of these for it.
        args.extend(self.args.iter().map(OsString::from));
        let (output, running) = self.process(self.program(), args).start()?;
        Ok(Started {
            output: Box::new(output) as Box<dyn Read + Send>,
            verdict: Box::new(Proof {
                running,
                dump: self.clone(),
            }),
        })
    }
}

struct Proof {
    running: Running,
    dump: Postgres,
}

impl Verdict for Proof {
    fn finish(self: Box<Self>, summary: &Summary<'_>) -> Result<Vec<String>, Error> {
        let said = self.running.wait()?;
        let trailer = self.dump.trailer().as_bytes();
        if !summary.end.windows(trailer.len()).any(|end| end == trailer) {
            return Err(Error::Dump(format!(
                "the output of {} is not complete: its last lines are missing, though it reported success",
                self.dump.program()
            )));
        }
        super::long_enough(self.dump.program(), summary.bytes, self.dump.min_bytes)?;
        Ok(said)
    }
}

/// A value in libpq's `keyword=value` form.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn check_arg(arg: &str) -> Result<(), String> {
    let Some(long) = arg.strip_prefix("--").filter(|long| !long.is_empty()) else {
        return Err(format!(
            "ARGS: '{arg}': write options by their long names, as in \"--exclude-table-data=log\""
        ));
    };
    let name = long.split('=').next().unwrap_or(long);
    match REFUSED.iter().find(|refused| refused.starts_with(name)) {
        Some(refused) => Err(format!(
            "ARGS: '{arg}': --{refused} cannot be used here: a dump is one stream of plain SQL, made without questions, and how to connect is said in CONNINFO"
        )),
        None => Ok(()),
    }
}

/// Passwords would be seen by everybody in the list of processes.
fn check_conninfo(conninfo: &str) -> Result<(), String> {
    if conninfo.contains("://") && conninfo.trim_start().starts_with("postgres") {
        return Err(
            "CONNINFO: write it as \"host=... port=... user=...\", not as an address".into(),
        );
    }
    let mut rest = conninfo.trim_start();
    while !rest.is_empty() {
        let (key, value) = rest
            .split_once('=')
            .ok_or_else(|| format!("CONNINFO: '{rest}' is not keyword=value"))?;
        if key.trim() == "dbname" {
            return Err(
                "CONNINFO: the database is named on the command line; leave dbname out".into(),
            );
        }
        if key.trim().contains("password") {
            return Err(
                "CONNINFO: a password there could be seen by others; put it into ~/.pgpass, or name a file with passfile=".into(),
            );
        }
        rest = after_value(value.trim_start())
            .ok_or_else(|| "CONNINFO: a quoted value does not end".to_owned())?
            .trim_start();
    }
    Ok(())
}

/// What follows a value, quoted or not.
fn after_value(text: &str) -> Option<&str> {
    let quoted = text.strip_prefix('\'');
    let mut chars = quoted.unwrap_or(text).char_indices();
    let body = quoted.unwrap_or(text);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '\'' if quoted.is_some() => return Some(&body[at + 1..]),
            c if quoted.is_none() && c.is_whitespace() => return Some(&body[at..]),
            _ => {}
        }
    }
    quoted.is_none().then_some("")
}

#[cfg(test)]
mod tests {
    use super::{Program, Release, check_arg, check_conninfo, quoted, restrict_key};

    #[test]
    fn k7_versions_are_understood() {
        let of = |text: &str| Release::of(text).unwrap();
        let debian = of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!((debian.major, debian.minor), ((15, 0), 18));
        assert_eq!(of("pg_dump (PostgreSQL) 9.6.24").major, (9, 6));
        assert_eq!(of("pg_dump (PostgreSQL) 18beta1").major, (18, 0));
        assert_eq!(Release::of_number("150018"), Some(debian));
        assert_eq!(Release::of_number("90624").unwrap().major, (9, 6));
        assert!(Release::of("pg_dump 3").is_none() && Release::of("x (y) z").is_none());
        assert_eq!(debian.to_string(), "15.18");
    }

    #[test]
    fn b2_the_key_is_known_where_it_is_made() {
        let has = |text: &str| Program(Release::of(text).unwrap()).has_restrict_key();
        for (version, expected) in [
            ("15.13", false),
            ("15.14", true),
            ("17.5", false),
            ("17.6", true),
            ("18beta1", true),
            ("12.22", false),
            ("9.6.24", false),
        ] {
            assert_eq!(
                has(&format!("pg_dump (PostgreSQL) {version}")),
                expected,
                "{version}"
            );
        }
        let dump =
            b"--\n-- PostgreSQL database dump\n--\n\n\\restrict aB9\n\nSET x;\n\\restrict other\n";
        assert_eq!(restrict_key(dump).as_deref(), Some("aB9"));
        assert_eq!(restrict_key(b"\\restrict a b\n"), None);
        assert_eq!(restrict_key(b"\\restrict cut"), None);
        // Planted in a comment.
        let planted = b"--\n\nCOMMENT ON SCHEMA a IS '\n\\restrict evil\n';\n";
        assert_eq!(restrict_key(planted), None);
    }

    #[test]
    fn g7_g8_names_are_quoted_and_passwords_refused() {
        assert_eq!(quoted(r"a'b\c d=e"), r"'a\'b\\c d=e'");
        for good in [
            "",
            "host=/run/x user = me",
            "options='-c x=password=1' port=5",
            r"application_name=a\ b",
        ] {
            assert_eq!(check_conninfo(good), Ok(()), "{good}");
        }
        for bad in [
            "password=x",
            "host=a password = 'x'",
            "user='a\\' b' sslpassword=x",
            "postgresql://u:p@h/d",
            "host=a dbname=other",
            "host='a",
            "host",
        ] {
            assert!(check_conninfo(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn k3_arguments_that_change_the_stream_are_refused() {
        for good in [
            "--exclude-table=x",
            "--no-owner",
            "--schema-only",
            "--create",
        ] {
            assert_eq!(check_arg(good), Ok(()), "{good}");
        }
        for bad in [
            "-Fc", "-f", "x", "--", "--file=x", "--form=c", "--jobs", "--verb", "--pass",
            "--host=x", "--d=x",
        ] {
            assert!(check_arg(bad).is_err(), "{bad}");
        }
    }
}
