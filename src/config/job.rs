//! `[job.NAME]` in `config.toml`: what `run` backs up.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use super::dump::DumpSource;
use super::workdir::normal_dst;
use crate::time::parse_span;

/// What a night's work is made of, in the words of `STEPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Trees, images and devices.
    Fs,
    /// PostgreSQL.
    Db,
    /// Commands.
    Cmd,
    /// Snapshots of volumes.
    Ebs,
    /// Thinning out by `RETENTION`.
    Prune,
    /// Copies to remotes.
    Sync,
    /// Proof.
    Verify,
}

impl Step {
    /// All of them, in the order that is the default.
    pub const ALL: [Self; 7] = [
        Self::Fs,
        Self::Db,
        Self::Cmd,
        Self::Ebs,
        Self::Prune,
        Self::Sync,
        Self::Verify,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fs => "fs",
            Self::Db => "db",
            Self::Cmd => "cmd",
            Self::Ebs => "ebs",
            Self::Prune => "prune",
            Self::Sync => "sync",
            Self::Verify => "verify",
        }
    }

    /// The one that a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.word() == word)
    }
}

/// The steps as they are written in `STEPS`.
pub(super) fn steps(words: &[String]) -> Result<Vec<Step>, String> {
    let known = || Step::ALL.map(Step::word).join(", ");
    let steps = words.iter().map(|word| {
        Step::from_word(word)
            .ok_or_else(|| format!("STEPS: there is no step '{word}'; there are {}", known()))
    });
    let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
    let twice = (1..steps.len()).find(|index| steps[..*index].contains(&steps[*index]));
    match twice {
        Some(index) => Err(format!("STEPS: '{}' is named twice", steps[index].word())),
        None => Ok(steps),
    }
}

/// A program and its arguments. No shell sees it.
pub type Argv = Vec<String>;

/// Programs around a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before it; if one fails nothing is backed up.
    pub before: Vec<Argv>,
    /// After it in any case, also if a program before it failed: what was made must be taken away.
    pub after: Vec<Argv>,
    /// When something failed, before those of `after`.
    pub failed: Vec<Argv>,
    /// One that takes longer is ended.
    pub timeout: Duration,
}

const HOOK_TIMEOUT: Duration = Duration::from_hours(1);

impl Default for Hooks {
    fn default() -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
            failed: Vec::new(),
            timeout: HOOK_TIMEOUT,
        }
    }
}

/// One program, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a command as a list of words, [\"umount\", \"/mnt\"], or a list of such; no shell is used"
)]
enum Commands {
    One(Argv),
    Several(Vec<Argv>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HookKeys {
    before: Option<Commands>,
    after: Option<Commands>,
    failed: Option<Commands>,
    hook_timeout: Option<String>,
}

impl HookKeys {
    pub(super) fn check(self) -> Result<Hooks, String> {
        let list = |key: &str, commands: Option<Commands>| {
            let list = match commands {
                None => Vec::new(),
                Some(Commands::One(argv)) if argv.is_empty() => Vec::new(),
                Some(Commands::One(argv)) => vec![argv],
                Some(Commands::Several(list)) => list,
            };
            let is_empty = |argv: &Argv| argv.first().is_none_or(String::is_empty);
            if list.iter().any(is_empty) {
                return Err(format!("{key}: a command without a program"));
            }
            Ok(list)
        };
        Ok(Hooks {
            before: list("before", self.before)?,
            after: list("after", self.after)?,
            failed: list("failed", self.failed)?,
            timeout: match &self.hook_timeout {
                None => HOOK_TIMEOUT,
                Some(text) => positive("hook_timeout", text)?.unsigned_abs(),
            },
        })
    }
}

/// What a job backs up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A tree, a file or a block device.
    Tree(PathBuf),
    /// A database, or what belongs to all of a server's.
    Database(DumpSource),
    /// A command's output.
    Command(DumpSource, Argv),
}

impl What {
    /// The step that does it.
    pub fn step(&self) -> Step {
        match self {
            Self::Tree(_) => Step::Fs,
            Self::Database(_) => Step::Db,
            Self::Command(..) => Step::Cmd,
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobConfig {
    /// What is backed up.
    pub what: What,
    /// The store, a path below `ROOT_PATH`.
    pub dst: String,
    /// Not more often than this; each time without it.
    pub every: Option<SignedDuration>,
    /// `status` finds the store too old after this long.
    pub max_age: Option<SignedDuration>,
    /// Whose the store is.
    pub user: Option<String>,
    /// Block devices in the tree that are read.
    pub read_special: Vec<String>,
    /// Otherwise it is only named.
    pub is_enabled: bool,
    /// Programs around it.
    pub hooks: Hooks,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    source: Option<PathBuf>,
    database: Option<String>,
    #[serde(default)]
    globals: bool,
    command: Option<Argv>,
    dst: Option<String>,
    every: Option<String>,
    max_age: Option<String>,
    user: Option<String>,
    #[serde(default)]
    read_special: Vec<String>,
    enabled: Option<bool>,
    // Not flattened: serde cannot both do that and refuse unknown keys.
    before: Option<Commands>,
    after: Option<Commands>,
    failed: Option<Commands>,
    hook_timeout: Option<String>,
}

impl JobConfig {
    /// Reads one. `part` is what stands in `[job.NAME]`.
    pub(super) fn of(
        name: &str,
        file: &super::file::File,
        part: super::file::Part<'_>,
    ) -> Result<Self, String> {
        let named = |detail: String| format!("[job.{name}]: {detail}");
        if Step::from_word(name).is_some() {
            return Err(named(format!(
                "'{name}' is the name of a step; give the job another one"
            )));
        }
        if name.is_empty() || name.starts_with('-') {
            return Err(named(
                "a job's name must not be empty or begin with -".into(),
            ));
        }
        let typed: Typed = file.part(part).map_err(named)?;
        let checked = typed.check(name);
        checked.map_err(|detail| file.placed(&["job", name], named(detail)))
    }
}

impl Typed {
    fn check(self, name: &str) -> Result<JobConfig, String> {
        let what = match (self.source, self.database, self.globals, self.command) {
            (Some(source), None, false, None) if source.is_absolute() => What::Tree(source),
            (Some(source), None, false, None) => {
                return Err(format!(
                    "source must be an absolute path, not '{}'",
                    source.display()
                ));
            }
            (None, Some(database), false, None) if !database.is_empty() => {
                What::Database(DumpSource::Database(database))
            }
            (None, None, true, None) => What::Database(DumpSource::Globals),
            (None, None, false, Some(argv))
                if argv.first().is_some_and(|program| !program.is_empty()) =>
            {
                What::Command(DumpSource::Command(name.to_owned()), argv)
            }
            _ => {
                return Err("exactly one of source = \"/PATH\", database = \"NAME\", globals = true and command = [\"PROGRAM\", ...] must be set".into());
            }
        };
        if !self.read_special.is_empty() && what.step() != Step::Fs {
            return Err("read_special is for trees".into());
        }
        let span = |key: &str, text: &Option<String>| {
            text.as_deref().map(|text| positive(key, text)).transpose()
        };
        if self.dst.as_ref().is_some_and(|dst| dst.starts_with('/')) {
            return Err("dst is a path below ROOT_PATH, and cannot be absolute".into());
        }
        Ok(JobConfig {
            what,
            every: span("every", &self.every)?,
            max_age: span("max_age", &self.max_age)?,
            dst: normal_dst(&self.dst.unwrap_or_else(|| name.to_owned())),
            user: self.user,
            read_special: self.read_special,
            is_enabled: self.enabled.unwrap_or(true),
            hooks: HookKeys {
                before: self.before,
                after: self.after,
                failed: self.failed,
                hook_timeout: self.hook_timeout,
            }
            .check()?,
        })
    }
}

const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 365 * 100);

/// A span of time above zero.
pub(super) fn positive(key: &str, text: &str) -> Result<SignedDuration, String> {
    let span = parse_span(text).map_err(|error| format!("{key}: {error}"))?;
    if span <= SignedDuration::ZERO || span > LONGEST {
        return Err(format!(
            "{key} = '{text}' must be above zero, and less than 100 years"
        ));
    }
    Ok(span)
}
