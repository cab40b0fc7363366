//! `schedule`: have `run` done every night, by systemd or by cron.

mod crontab;
mod units;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use jiff::civil::Time;

use super::exit::Exit;
use super::output::Output;
use super::{Context, document, stores};
use crate::config::general::General;
use crate::config::notify::NotifyConfig;
use crate::error::{Error, printable};
use crate::notify::Way;
use crate::process::{self, Ended, Limits};
use crate::remote::Place;

#[derive(clap::Args)]
pub struct Schedule {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Have `run` done every day
    Install(Install),
    /// Have it not done any more
    Remove(Remove),
    /// Show what is installed
    Show,
}

#[derive(clap::Args)]
struct Install {
    /// When, as the clock here says
    #[arg(long, value_name = "HH:MM", default_value = "03:00")]
    at: String,
    /// By a systemd timer [default where systemd runs]
    #[arg(long, conflicts_with = "cron")]
    systemd: bool,
    /// By a line in the crontab [default elsewhere]
    #[arg(long)]
    cron: bool,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct Remove {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Tools that take longer hang.
const TIMEOUT: Duration = Duration::from_mins(1);
/// It is there where systemd is at work.
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// What is to be run, and around what.
pub struct Plan {
    /// This program.
    program: PathBuf,
    /// Where the configuration is, if not where it is looked for anyway.
    config_dir: Option<PathBuf>,
    at: Time,
    /// What is written to.
    places: Vec<PathBuf>,
    /// Programs of the user's are run too, which may need anything.
    has_programs: bool,
    is_root: bool,
}

pub fn run(context: &Context, args: &Schedule) -> Result<Exit, Error> {
    match &args.what {
        What::Install(args) => install(context, args),
        What::Remove(args) => remove(context, args.dry_run),
        What::Show => show(context),
    }
}

fn install(context: &Context, args: &Install) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let plan = plan(context, &general, &args.at)?;
    let by_cron = args.cron || !args.systemd && !Path::new(SYSTEMD_RUNS).exists();
    if !args.dry_run {
        // Twice a night would be once too often.
        if by_cron {
            units::remove(context, false)?;
        } else {
            crontab::remove(context, false)?;
        }
    }
    let exit = if by_cron {
        crontab::install(context, &plan, args.dry_run)?
    } else {
        units::install(context, &plan, args.dry_run)?
    };
    if !args.dry_run && general.notifiers.is_empty() {
        context.output.info(
            "nobody is told when it fails: write [notify.NAME] into config.toml, or have status --nagios asked",
        );
    }
    Ok(exit)
}

fn remove(context: &Context, dry_run: bool) -> Result<Exit, Error> {
    let is_timer = units::remove(context, dry_run)?;
    let is_line = crontab::remove(context, dry_run)?;
    if !is_timer && !is_line {
        context.output.info("nothing is installed");
    }
    Ok(Exit::Done)
}

fn show(context: &Context) -> Result<Exit, Error> {
    let (timer, line) = (units::installed(context)?, crontab::installed()?);
    let mut text = String::new();
    for (path, content) in &timer {
        text.push_str(&format!("# {}\n{content}\n", path.display()));
    }
    if let Some(line) = &line {
        text.push_str(&format!("crontab: {line}\n"));
    }
    if let Some(next) = timer.first().and_then(|_| units::next()) {
        text.push_str(&format!("{next}\n"));
    }
    let files: Vec<String> = timer
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    document::answer(&serde_json::json!({ "units": files, "crontab": line }));
    if text.is_empty() {
        text.push_str("nothing is installed: btw-backup schedule install\n");
    }
    if !context.output.json {
        Output::answer(&text)?;
    }
    Ok(Exit::Done)
}

fn plan(context: &Context, general: &General, at: &str) -> Result<Plan, Error> {
    let time = Time::strptime("%H:%M", at)
        .map_err(|_| Error::Usage(format!("--at {at}: a time as 03:00 is expected")))?;
    let program =
        std::env::current_exe().map_err(|error| Error::file("find", "this program", error))?;
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|error| Error::file("find", path, error));
    let config_dir = absolute(&context.config_dir)?;
    for path in [&program, &config_dir, &general.root_path] {
        if path.as_os_str().as_bytes().iter().any(u8::is_ascii_control) || path.to_str().is_none() {
            return Err(Error::Refused(format!(
                "{}: neither a unit nor a crontab can name it",
                printable(path.as_os_str().as_bytes())
            )));
        }
    }
    // systemd and cron know the home directory of the user, whatever HOME is now.
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    let is_usual = user.is_some_and(|user| user.dir.join(".btw-backup") == config_dir);
    let jobs = general.jobs.values().flatten().map(|job| &job.hooks);
    let mut hooks = jobs.chain([&general.hooks]);
    let is_program = |notifier: &NotifyConfig| match &notifier.way {
        Way::Mail(mail) => mail.server.is_none(),
        Way::Command(_) => true,
        Way::Webhook(_) | Way::Ping(_) => false,
    };
    let has_commands = general
        .jobs
        .values()
        .flatten()
        .any(|job| matches!(job.what, crate::config::job::What::Command(..)));
    let directories =
        general
            .remotes
            .values()
            .flatten()
            .filter_map(|remote| match remote.place() {
                Ok(Place::Directory(path)) => Some(path),
                _ => None,
            });
    let mut places = vec![general.root_path.clone(), config_dir.clone()];
    places.extend(directories);
    let has_hooks = hooks.any(|hooks| {
        !(hooks.before.is_empty() && hooks.after.is_empty() && hooks.failed.is_empty())
    });
    Ok(Plan {
        has_programs: has_hooks
            || has_commands
            || general.ebs.is_some()
            || general.notifiers.values().flatten().any(is_program),
        program,
        places,
        config_dir: (!is_usual).then_some(config_dir),
        at: time,
        is_root: rustix::process::geteuid().is_root(),
    })
}

/// Whether an installed unit is not the one that this configuration needs.
pub fn is_stale(context: &Context, general: &General) -> bool {
    plan(context, general, "03:00").is_ok_and(|plan| units::is_stale(&plan))
}

/// Runs a tool to its end, with this as its input.
fn tool(name: &str, args: &[&str], input: &str) -> Result<Ended, Error> {
    let limits = Limits {
        timeout: Some(TIMEOUT),
        stop: &AtomicUsize::new(0),
    };
    let mut command = Command::new(name);
    command.args(args);
    process::run(&mut command, input.as_bytes(), &limits, &mut |_| {})
        .map_err(|error| Error::Program(format!("Cannot run {name}: {error}")))
}

/// The same; that it fails is an error.
fn must(name: &str, args: &[&str], input: &str) -> Result<Ended, Error> {
    let ended = tool(name, args, input)?;
    if ended.end.is_success() {
        return Ok(ended);
    }
    Err(Error::Program(format!(
        "{name} {}: it {}: {}",
        args.join(" "),
        ended.end.words(),
        ended.said.join(" ")
    )))
}
