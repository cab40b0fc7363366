//! The command line: words typed by people in, words for people out. The only place that prints.

mod args;
mod backing;
mod compare;
mod config;
mod delete;
mod deletion_args;
mod diff;
mod document;
mod donors;
mod draw;
mod dump;
mod dump_args;
mod ebs;
mod exit;
mod export;
mod fs;
mod fs_init;
mod import;
mod in_place;
mod list;
mod look;
mod look_args;
mod manual;
mod notify;
mod output;
mod owner;
mod plot;
mod progress;
mod prune;
mod prune_remote;
mod remotes;
mod repair;
mod restore;
mod rows;
mod run;
mod schedule;
mod scrub;
mod signals;
mod status;
mod stores;
mod sync;
mod sync_state;
mod verify;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::error::Error;
use args::{Args, Command};
use exit::Exit;
use output::Output;

/// What every command is given.
struct Context {
    config_dir: PathBuf,
    output: Output,
    /// How many threads were asked for.
    threads: Option<NonZeroUsize>,
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    // Nothing that this program creates is for others to read.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let typed = Args::command().get_matches();
    let args = Args::from_arg_matches(&typed).unwrap_or_else(|error| error.exit());
    if args.json {
        document::begin(&command_name(&typed));
    }
    let exit = ended(execute(args));
    let written = document::end(exit).map(|()| exit);
    exit.or(ended(written)).into()
}

/// The words of the command: `list`, `config show`.
fn command_name(typed: &ArgMatches) -> String {
    let mut words = Vec::new();
    let mut typed = typed.subcommand();
    while let Some((word, below)) = typed {
        words.push(word);
        typed = below.subcommand();
    }
    words.join(" ")
}

fn ended(result: Result<Exit, Error>) -> Exit {
    result.unwrap_or_else(|error| {
        Output::error(&error);
        Exit::of(&error)
    })
}

fn execute(args: Args) -> Result<Exit, Error> {
    let output = Output {
        quiet: args.quiet,
        verbose: args.verbose,
        json: args.json,
    };
    let config_dir = match args.config_dir {
        Some(dir) => dir,
        None => home()?.join(".btw-backup"),
    };
    let context = Context {
        config_dir,
        output,
        threads: args.threads,
    };
    // What works when nothing else does.
    if let Command::Status(args) = &args.command {
        return status::run(&context, args);
    }
    let threads = args.threads.map_or(0, NonZeroUsize::get);
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    built.map_err(|error| {
        Error::Refused(format!("Cannot start threads: {error}; are memory or processes limited? --threads 1 needs the least"))
    })?;
    owner::refuse_foreign_config(&context)?;
    match args.command {
        Command::FsInit(args) => fs_init::run(&context, &args),
        Command::Fs(args) => fs::run(&context, &args),
        Command::Db(args) => dump::db(&context, &args),
        Command::Cmd(args) => dump::cmd(&context, &args),
        Command::Import(args) => import::run(&context, &args),
        Command::List(args) => list::run(&context, &args),
        Command::Ls(args) => look::ls(&context, &args),
        Command::Cat(args) => look::cat(&context, &args),
        Command::Find(args) => look::find(&context, &args),
        Command::History(args) => look::history(&context, &args),
        Command::Diff(args) => diff::run(&context, &args),
        Command::Compare(args) => compare::run(&context, &args),
        Command::Export(args) => export::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Restore(args) => restore::run(&context, &args),
        Command::Prune(args) => prune::run(&context, &args),
        Command::Plot(args) => plot::run(&context, &args),
        Command::Delete(args) => delete::delete(&context, &args),
        Command::Undelete(args) => delete::undelete(&context, &args),
        Command::Gc(args) => delete::gc(&context, &args),
        Command::Repair(args) => repair::run(&context, &args),
        Command::Sync(args) => sync::run(&context, &args),
        Command::SyncState(args) => sync_state::run(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Ebs(args) => ebs::run(&context, &args),
        Command::Notify(args) => notify::run(&context, &args),
        Command::Schedule(args) => schedule::run(&context, &args),
        Command::Config(args) => config::run(&context, &args),
        Command::Completions(args) => manual::completions(&context, &args),
        Command::Man(args) => manual::man(&context, &args),
        Command::Schema => manual::schema(),
        Command::Pin(args) => delete::pin(&context, &args),
        Command::Unpin(args) => delete::unpin(&context, &args),
    }
}

fn home() -> Result<PathBuf, Error> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or_else(|| {
            Error::Usage("HOME is not set; name the configuration with --config-dir".into())
        })
}
