//! From steps and jobs to commands.

use std::ffi::OsString;

use jiff::Timestamp;

use super::super::stores;
use super::BACKUPS;
use super::jobs::{Job, Jobs};
use crate::config::dump::DumpSource;
use crate::config::general::{General, VerifyConfig};
use crate::config::job::{Hooks, Step, What};
use crate::error::{Error, with_causes};
use crate::format::verified::Verified;

/// A command, or why there is none.
pub enum Todo {
    /// What is typed behind the program's name.
    Run(Vec<OsString>),
    /// Why nothing is to be done.
    Skip(String),
    /// Why nothing can be done, though it should.
    Cannot(String),
}

/// One thing that a run does.
pub struct Task {
    /// `fs etc`, `verify db/shop`, `sync`.
    pub name: String,
    pub step: Step,
    /// The job's name.
    pub job: Option<String>,
    /// The source, for hooks.
    pub source: OsString,
    /// The store.
    pub dst: Option<String>,
    pub hooks: Hooks,
    /// An error says what is wrong with the job.
    pub todo: Result<Todo, String>,
}

/// What a run is to do.
pub struct Work<'a> {
    steps: Vec<Step>,
    jobs: Vec<&'a Job>,
    wrong: Vec<(&'a str, &'a str)>,
    /// Jobs were named: they are done whether it is time or not.
    is_named: bool,
    is_everything: bool,
}

impl<'a> Work<'a> {
    /// From the words that were typed.
    pub fn of(general: &General, jobs: &'a Jobs, words: &[String]) -> Result<Self, Error> {
        let steps: Vec<Step> = words
            .iter()
            .filter_map(|word| Step::from_word(word))
            .collect();
        let is_job = |word: &&String| Step::from_word(word).is_none();
        let named: Vec<&String> = words.iter().filter(is_job).collect();
        for name in &named {
            let is_known = jobs
                .jobs
                .iter()
                .any(|job| job.name == **name || job.dst == **name)
                || jobs.wrong.iter().any(|(wrong, _)| wrong == *name);
            if !is_known {
                return Err(unknown(name, jobs));
            }
        }
        let is_meant = |name: &String| named.is_empty() || named.contains(&name);
        Ok(Self {
            is_everything: words.is_empty(),
            is_named: !named.is_empty(),
            steps: if steps.is_empty() {
                general.steps.clone()
            } else {
                steps
            },
            jobs: jobs
                .jobs
                .iter()
                .filter(|job| is_meant(&job.name) || is_meant(&job.dst))
                .collect(),
            wrong: jobs
                .wrong
                .iter()
                .filter(|(name, _)| is_meant(name))
                .map(|(name, why)| (&**name, &**why))
                .collect(),
        })
    }

    /// Whether all steps and all jobs are meant.
    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// What is to be done, in order.
    pub fn tasks(&self, general: &General, now: Timestamp) -> Vec<Task> {
        let is_backup = self.steps.iter().any(|step| BACKUPS.contains(step));
        let wrong = self
            .wrong
            .iter()
            .filter(|_| is_backup)
            .map(|(name, why)| Task {
                name: format!("job {name}"),
                step: Step::Fs,
                job: Some((*name).to_owned()),
                source: OsString::new(),
                dst: None,
                hooks: Hooks::default(),
                todo: Err((*why).to_owned()),
            });
        let mut tasks: Vec<Task> = wrong.collect();
        for step in &self.steps {
            match step {
                Step::Fs | Step::Db | Step::Cmd => tasks.extend(self.backups(*step, now)),
                Step::Ebs => tasks.extend(self.ebs(general)),
                Step::Prune => tasks.extend(self.prunes()),
                Step::Sync => tasks.extend(self.sync(general)),
                Step::Verify => tasks.extend(self.verifications(general, now)),
            }
        }
        tasks
    }

    fn backups(&self, step: Step, now: Timestamp) -> impl Iterator<Item = Task> {
        // Those of which nothing is known belong to the step that says so.
        let is_of = move |job: &&&Job| match &job.what {
            Ok(what) => what.step() == step,
            Err(_) => step == Step::Fs,
        };
        let later = self.steps.contains(&Step::Sync);
        self.jobs.iter().filter(is_of).map(move |job| {
            let todo = match &job.what {
                // Somebody else may see to it.
                Err(why) if job.seen.is_some() => Ok(Todo::Skip(why.clone())),
                Err(why) => Ok(Todo::Cannot(why.clone())),
                Ok(_) if !job.is_enabled => Ok(Todo::Skip("not enabled".into())),
                Ok(_) if !self.is_named && !is_due(job, now) => {
                    Ok(Todo::Skip("not due yet".into()))
                }
                Ok(what) => Ok(Todo::Run(backup(job, what, later))),
            };
            Task {
                source: match &job.what {
                    Ok(What::Tree(path)) => path.clone().into(),
                    Ok(What::Database(dump) | What::Command(dump, _)) => dump.source_name().into(),
                    Err(_) => OsString::new(),
                },
                hooks: job.hooks.clone(),
                ..Task::of_job(step, job, todo)
            }
        })
    }

    fn prunes(&self) -> impl Iterator<Item = Task> {
        self.enabled().filter_map(|job| {
            let todo = match job.keeping() {
                Ok(keeping) => {
                    // Without rules everything stays.
                    keeping?.retention?;
                    let mut args = words(&["prune"]);
                    args.extend(owned(job));
                    args.extend(words(&["--", &job.dst]));
                    Ok(Todo::Run(args))
                }
                Err(error) => Err(with_causes(&error)),
            };
            Some(Task::of_job(Step::Prune, job, todo))
        })
    }

    fn sync(&self, general: &General) -> Option<Task> {
        if general.remotes.is_empty() {
            return None;
        }
        let mut args = words(&["sync"]);
        if self.is_named {
            args.extend(words(&["--"]));
            args.extend(self.enabled().map(|job| job.dst.clone().into()));
        }
        Some(Task::of_all(Step::Sync, args))
    }

    fn ebs(&self, general: &General) -> Option<Task> {
        let is_meant = general.ebs.is_some() && !self.is_named;
        is_meant.then(|| Task::of_all(Step::Ebs, words(&["ebs", "backup"])))
    }

    fn verifications(&self, general: &General, now: Timestamp) -> Vec<Task> {
        // What is backed up for the first time in this run is read in part; a later one rebuilds it.
        let known: Vec<(&Job, Option<Verified>)> = self
            .enabled()
            .filter_map(|job| Some((job, stores::open(general, &job.dst).ok()?.verified())))
            .collect();
        let deep = deep(&known, general.verify, now);
        let tasks = self.enabled().filter_map(|job| {
            let mut args = words(&["verify"]);
            if deep.contains(&&*job.dst) {
                args.extend(words(&["--deep"]));
            } else if general.verify.sample > 0.0 {
                args.extend(words(&["--sample", &general.verify.sample.to_string()]));
            } else {
                return None;
            }
            args.extend(owned(job));
            args.extend(words(&["--", &job.dst]));
            Some(Task::of_job(Step::Verify, job, Ok(Todo::Run(args))))
        });
        tasks.collect()
    }

    fn enabled(&self) -> impl Iterator<Item = &'a Job> {
        self.jobs.iter().copied().filter(|job| job.is_enabled)
    }
}

impl Task {
    /// Whether it is about what a store has.
    pub fn needs_store(&self) -> bool {
        matches!(self.step, Step::Prune | Step::Verify)
    }

    /// One that is not about a single job.
    fn of_all(step: Step, args: Vec<OsString>) -> Self {
        Self {
            name: step.word().to_owned(),
            step,
            job: None,
            source: OsString::new(),
            dst: None,
            hooks: Hooks::default(),
            todo: Ok(Todo::Run(args)),
        }
    }

    fn of_job(step: Step, job: &Job, todo: Result<Todo, String>) -> Self {
        let name = match step {
            Step::Prune | Step::Verify => &job.dst,
            _ => &job.name,
        };
        Self {
            name: format!("{} {name}", step.word()),
            step,
            job: Some(job.name.clone()),
            source: OsString::new(),
            dst: Some(job.dst.clone()),
            hooks: Hooks::default(),
            todo,
        }
    }
}

fn unknown(name: &str, jobs: &Jobs) -> Error {
    let names: Vec<&str> = jobs.jobs.iter().map(|job| &*job.name).collect();
    let names = if names.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    };
    Error::Usage(format!(
        "There is no job and no step '{name}'; {names}; steps are {}",
        Step::ALL.map(Step::word).join(", ")
    ))
}

/// A run that begins a little earlier than the last one did must not wait for another day.
fn is_due(job: &Job, now: Timestamp) -> bool {
    let last = job.seen.and_then(|seen| seen.ran);
    match (job.every, last) {
        (Some(every), Some(last)) => now.duration_since(last) >= every * 9 / 10 || last > now,
        _ => true,
    }
}

/// The stores that are to be rebuilt in this run: those that were not for longest, so few that each has its turn in time
/// with a run a day.
fn deep<'a>(
    known: &[(&'a Job, Option<Verified>)],
    config: VerifyConfig,
    now: Timestamp,
) -> Vec<&'a str> {
    let Some(every) = config.deep_every else {
        return Vec::new();
    };
    // Also one that found damage: it must not keep the others from their turn.
    let last = |verified: &Option<Verified>| {
        let verified = verified.as_ref()?;
        let is_whole = verified.deep && verified.only.is_none();
        verified.last_deep.max(is_whole.then_some(verified.time))
    };
    let mut due: Vec<(Option<Timestamp>, &str)> = known
        .iter()
        .map(|(job, verified)| (last(verified), &*job.dst))
        .filter(|(last, _)| last.is_none_or(|last| now.duration_since(last) >= every))
        .collect();
    due.sort();
    let days = usize::try_from(every.as_hours() / 24).unwrap_or(1).max(1);
    let share = known.len().div_ceil(days);
    due.into_iter().take(share).map(|(_, dst)| dst).collect()
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Whose the store is.
fn owned(job: &Job) -> Vec<OsString> {
    job.user
        .iter()
        .flat_map(|user| words(&["-u", user]))
        .collect()
}

/// The command for a backup. What is set up by the configuration needs no setting up by hand.
fn backup(job: &Job, what: &What, is_synced_later: bool) -> Vec<OsString> {
    let mut args = words(&[what.step().word()]);
    if is_synced_later {
        args.extend(words(&["--no-sync"]));
    }
    args.extend(owned(job));
    for pattern in &job.read_special {
        args.push(format!("--read-special={pattern}").into());
    }
    match what {
        What::Tree(path) => {
            args.extend(words(&["--init", "--"]));
            args.extend([path.clone().into(), job.dst.clone().into()]);
        }
        What::Database(DumpSource::Globals) => args.extend(words(&["--globals", "--", &job.dst])),
        What::Database(DumpSource::Database(name) | DumpSource::Command(name)) => {
            args.extend(words(&["--", name, &job.dst]));
        }
        What::Command(_, argv) => {
            args.extend(words(&[&job.name, &job.dst, "--"]));
            args.extend(argv.iter().map(OsString::from));
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::{Job, deep, is_due};
    use crate::config::general::VerifyConfig;
    use crate::config::job::Hooks;
    use crate::config::workdir::Seen;
    use crate::format::verified::Verified;
    use jiff::{SignedDuration, Timestamp};

    fn job(dst: &str) -> Job {
        Job {
            name: dst.into(),
            what: Err(String::new()),
            dst: dst.into(),
            every: None,
            max_age: None,
            user: None,
            read_special: Vec::new(),
            is_enabled: true,
            hooks: Hooks::default(),
            seen: None,
            work: None,
        }
    }

    #[test]
    fn a_job_is_due_although_runs_do_not_begin_on_the_second() {
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let hours = SignedDuration::from_hours;
        let due = |every: Option<i64>, ago: Option<i64>| {
            let seen = ago.map(|ago| Seen {
                ran: Some(now - hours(ago)),
                ..Seen::new(uuid::Uuid::nil(), 1, None)
            });
            let every = every.map(hours);
            is_due(
                &Job {
                    every,
                    seen,
                    ..job("a")
                },
                now,
            )
        };
        assert!(due(None, Some(0)) && due(Some(24), None));
        assert!(due(Some(24), Some(22)) && !due(Some(24), Some(21)));
        // The clock was wrong in the last run.
        assert!(due(Some(24), Some(-100)));
    }

    #[test]
    fn each_store_is_rebuilt_in_time_but_not_all_in_one_night() {
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let config = VerifyConfig {
            sample: 5.0,
            deep_every: Some(SignedDuration::from_hours(24 * 28)),
        };
        let jobs: Vec<Job> = (0..60)
            .map(|number| job(&format!("s{number:02}")))
            .collect();
        let mut last: Vec<Option<Timestamp>> = vec![None; jobs.len()];
        let mut most = 0;
        for night in 0..100 {
            let time = now + SignedDuration::from_hours(24 * night);
            let known: Vec<(&Job, Option<Verified>)> = jobs
                .iter()
                .zip(&last)
                .map(|(job, last)| (job, last.map(Verified::deep_at)))
                .collect();
            let chosen = deep(&known, config, time);
            assert!(chosen.len() <= 3);
            for dst in chosen {
                last[dst[1..].parse::<usize>().unwrap()] = Some(time);
            }
            if night >= 28 {
                let oldest = last
                    .iter()
                    .map(|last| time.duration_since(last.unwrap()).as_hours());
                most = most.max(oldest.max().unwrap());
            }
        }
        assert!(most <= 24 * 30, "{most} hours");
        let never = VerifyConfig {
            deep_every: None,
            ..config
        };
        assert!(deep(&[(&jobs[0], None)], never, now).is_empty());
    }
}
