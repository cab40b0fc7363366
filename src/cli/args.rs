//! What can be typed.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use super::backing::Writing;
use super::config::Config;
use super::deletion_args::{Delete, Gc, Pin, Plot, Prune, Undelete, Unpin};
use super::dump_args::{CMD_HELP, Cmd, DB_HELP, Db};
use super::ebs::Ebs;
pub use super::look_args::{At, Cat, Compare, Diff, Export, Find, History, Ls, Reading};
use super::manual::{Completions, ManPages};
use super::notify::Notify;
use super::repair::Repair;
use super::run::Run;
use super::schedule::Schedule;
use super::status::Status;
use super::sync::Sync;
use super::sync_state::SyncStateArgs;
use crate::catalog::StoreType;

/// Back to when: every tree, database and disk image, restorable to any moment, with or without this tool
#[derive(Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Args {
    /// Say nothing but errors and warnings
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: which files are read, and why
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Answer with one JSON document, for programs; its form: btw-backup schema
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the configuration is [default: ~/.btw-backup]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BTW_BACKUP_CONFIG_DIR",
        hide_env_values = true
    )]
    pub config_dir: Option<PathBuf>,
    /// How many threads compress, hash and compare [default: one per core]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

fn store_type() -> impl TypedValueParser<Value = StoreType> {
    let words = [StoreType::Rdiff, StoreType::Tar].map(StoreType::word);
    PossibleValuesParser::new(words).map(|word| StoreType::from_word(&word).expect("one of these"))
}

const EXAMPLES: &str = "\
Examples:
  btw-backup fs --init /home/ada home       back up /home/ada into the store 'home'
  btw-backup fs /home/ada home              again: costs what changed
  btw-backup db shop db/shop                back up the PostgreSQL database 'shop'
  btw-backup list home                      what there is
  btw-backup restore home /tmp/home         the newest version
  btw-backup restore --at '2026-11-20 10:00' home /tmp/then
  btw-backup find home plan.txt             when it was, in which versions
  btw-backup verify --deep                  prove that all of it restores

Exit codes: 0 done, or nothing to do; 3 done with warnings; 4 locked; 1 failed; 5 damage in the store;
2 wrong usage or configuration.";

#[derive(Subcommand)]
pub enum Command {
    /// Set up the backup of a directory or file
    #[command(after_help = "Example:\n  btw-backup fs-init --type rdiff /home/ada home")]
    FsInit(FsInit),
    /// Back up a directory or file
    #[command(
        after_help = "Examples:\n  btw-backup fs --init /home/ada home\n  btw-backup fs /home/ada home\n  btw-backup fs /var/lib/vm/disk.img vm/disk"
    )]
    Fs(Fs),
    /// Back up a PostgreSQL database
    #[command(after_help = DB_HELP)]
    Db(Db),
    /// Back up the output of a command
    #[command(after_help = CMD_HELP)]
    Cmd(Cmd),
    /// Take over the backups of the Python tool or of rdiff-backup
    #[command(
        after_help = "Examples:\n  btw-backup import old/home home\n  btw-backup import /backup/rdiff/home home"
    )]
    Import(Import),
    /// Show stores and versions
    #[command(
        after_help = "Examples:\n  btw-backup list\n  btw-backup list home\n  btw-backup list --json home"
    )]
    List(List),
    /// Show what is in a version
    #[command(
        after_help = "Examples:\n  btw-backup ls home\n  btw-backup ls -l home docs/letters\n  btw-backup ls -R --at yesterday home docs"
    )]
    Ls(Ls),
    /// Write a file's content, as it was, to the standard output
    #[command(
        after_help = "Examples:\n  btw-backup cat home docs/plan.txt\n  btw-backup cat --at v3 home docs/plan.txt > plan-then.txt"
    )]
    Cat(Cat),
    /// Show in which versions files of some name were, and when they changed
    #[command(
        after_help = "Examples:\n  btw-backup find home plan.txt\n  btw-backup find home '*.odt'\n  btw-backup find home '/docs/**/plan*'"
    )]
    Find(Find),
    /// Show all that a path has been: when, size, digest
    #[command(after_help = "Example:\n  btw-backup history home docs/plan.txt")]
    History(History),
    /// Show what differs between two versions
    #[command(
        after_help = "Examples:\n  btw-backup diff home                      the newest against the one before\n  btw-backup diff home --from yesterday\n  btw-backup diff home --from v3 --to v5 -p  with the lines of small text files\n  btw-backup diff -p db/shop                 which lines of a dump changed, however long it is"
    )]
    Diff(Diff),
    /// Compare a version with the source as it is now; every file is read
    #[command(
        after_help = "Examples:\n  btw-backup compare home /home/ada\n  btw-backup compare --at v3 home /home/ada\n\n'silent': another content, though size and time are the same. Exit code 3 if anything differs."
    )]
    Compare(Compare),
    /// Write the tar archive of a version, or the dump
    #[command(
        after_help = "Examples:\n  btw-backup export home home.tar\n  btw-backup export --at v3 home - | tar -t"
    )]
    Export(Export),
    /// Prove that what is stored is what was stored
    #[command(
        after_help = "Examples:\n  btw-backup verify                  every file of every store\n  btw-backup verify --deep home      rebuild every version of one\n  btw-backup verify --sample 5 home  a part, another one each time"
    )]
    Verify(Verify),
    /// Restore a version
    #[command(
        after_help = "Examples:\n  btw-backup restore home /tmp/home\n  btw-backup restore --at 2026-11-20 home /tmp/then\n  btw-backup restore --at latest~2 home /tmp/before\n  btw-backup restore --path docs/letters home /tmp/letters"
    )]
    Restore(Restore),
    /// Thin out old versions by rules, from the command line or RETENTION in the configuration
    #[command(
        after_help = "Examples:\n  btw-backup prune --dry-run --keep-daily 7 --keep-monthly 12 home   which would go, and why the others stay\n  btw-backup prune --partitioned 1d,7d,28d home\n\nWhat any rule keeps stays; so do pinned versions, the newest and the newest complete one. Ages count from the newest version."
    )]
    Prune(Prune),
    /// Show the versions over time, and what rules would keep
    #[command(
        after_help = "Examples:\n  btw-backup plot home\n  btw-backup plot home -o home.svg --partitioned 1d,7d,28d\n  btw-backup plot --simulate 1y --every 1h --partitioned 1d,7d,28d"
    )]
    Plot(Plot),
    /// Delete versions, anywhere; the others stay what they are
    #[command(
        after_help = "Examples:\n  btw-backup delete home v3\n  btw-backup delete --dry-run home v3-v7 latest"
    )]
    Delete(Delete),
    /// Bring back what was deleted, while its grace period lasts
    #[command(
        after_help = "Examples:\n  btw-backup undelete --dry-run home     what can come back, and until when\n  btw-backup undelete home v3"
    )]
    Undelete(Undelete),
    /// Free the space of what was deleted
    #[command(
        after_help = "Examples:\n  btw-backup gc home\n  btw-backup gc --now home     also what could still be brought back"
    )]
    Gc(Gc),
    /// Put right what is damaged: good data from a remote for here, from here for a remote, from the source for both
    #[command(
        after_help = "Examples:\n  btw-backup repair --dry-run home    what is damaged, and where good data are\n  btw-backup repair home              also brings back a store that is gone\n\nWhat is damaged is moved to DST/damaged, never removed."
    )]
    Repair(Repair),
    /// Copy stores to remotes: what is not there yet
    #[command(
        after_help = "Examples:\n  btw-backup sync                     all that is not copied yet\n  btw-backup sync --remote offsite home\n  btw-backup sync --full --dry-run    ask the remotes what they lack"
    )]
    Sync(Sync),
    /// Show what is to be copied to remotes, or forget what was
    #[command(
        after_help = "Examples:\n  btw-backup sync-state --list\n  btw-backup sync-state --reset"
    )]
    SyncState(SyncStateArgs),
    /// Do all that is configured: back up, thin out, copy, verify
    #[command(
        after_help = "Examples:\n  btw-backup run                  the night's work\n  btw-backup run --dry-run        what that is\n  btw-backup run fs prune sync    these steps, in this order\n  btw-backup run etc db/shop      only these jobs\n\nWhat fs, fs-init and db have set up needs no configuration; more is said by [job.NAME], STEPS, [hooks],\n[verify] and [notify.NAME] in config.toml."
    )]
    Run(Run),
    /// Show whether all is well: what every store has, and how old it is
    #[command(
        after_help = "Examples:\n  btw-backup status\n  btw-backup status --max-age 26h --nagios\n  btw-backup status --metrics /var/lib/prometheus/node-exporter/btw-backup.prom\n\nExit codes: 0 all is well; 3 something needs attention; 1 something is not safe; 5 damage; with --nagios 0, 1, 2\nand 3 as plugins have it."
    )]
    Status(Status),
    /// Keep versions from being deleted
    #[command(after_help = "Example:\n  btw-backup pin home v3 --note 'before the move'")]
    Pin(Pin),
    /// Let pinned versions be deleted again
    #[command(after_help = "Example:\n  btw-backup unpin home v3")]
    Unpin(Unpin),
    /// Make snapshots of EBS volumes, and delete old ones
    #[command(
        after_help = "Examples:\n  btw-backup ebs status\n  btw-backup ebs dryrun\n  btw-backup ebs backup\n\nVolumes are named in config.toml: [ebs] keep = 5 and volumes = { \"vol-...\" = \"what it is\" }. All their snapshots\ncount, whoever made them. The AWS command-line tool is used, with its keys; profile and region may be set in [ebs]."
    )]
    Ebs(Ebs),
    /// Tell those who are told of failures that this is a test
    #[command(after_help = "Example:\n  btw-backup notify")]
    Notify(Notify),
    /// Have `run` done every night
    #[command(
        after_help = "Examples:\n  btw-backup schedule install --dry-run\n  btw-backup schedule install --at 02:30\n  btw-backup schedule show"
    )]
    Schedule(Schedule),
    /// Show, check or write the configuration
    #[command(
        after_help = "Examples:\n  btw-backup config init --root /backup\n  btw-backup config check\n  btw-backup config show"
    )]
    Config(Config),
    /// Write a script that completes what is typed in a shell
    #[command(after_help = "Example:\n  eval \"$(btw-backup completions bash)\"")]
    Completions(Completions),
    /// Write manual pages
    #[command(
        after_help = "Examples:\n  btw-backup man | man -l -\n  btw-backup man /usr/local/share/man/man1"
    )]
    Man(ManPages),
    /// Show what the answers of --json look like, as a JSON schema
    Schema,
}

#[derive(clap::Args)]
pub struct FsInit {
    /// How versions are kept: rdiff = the newest whole, older ones as reverse deltas; tar = each a tar.zst file
    #[arg(long = "type", value_name = "TYPE", value_parser = store_type())]
    pub store_type: StoreType,
    /// The directory or file to back up, an absolute path
    pub src: PathBuf,
    /// A name for the working directory
    pub name: String,
}

#[derive(clap::Args)]
pub struct Fs {
    /// Set the source up first if that was not done (name: DST with - for /)
    #[arg(long)]
    pub init: bool,
    /// Accept that the source has become empty
    #[arg(long)]
    pub allow_empty: bool,
    #[command(flatten)]
    pub writing: Writing,
    /// Only say what would be read and what is left out, and why; nothing is written
    #[arg(long)]
    pub dry_run: bool,
    /// Read the block devices in the source that this pattern matches as images (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    pub read_special: Vec<String>,
    /// The directory, file or block device to back up, an absolute path
    pub src: PathBuf,
    /// The store, a path below `ROOT_PATH`
    pub dst: String,
}

#[derive(clap::Args)]
pub struct Import {
    /// How the versions are to be kept, as with fs-init: rdiff, tar
    #[arg(long = "type", value_name = "TYPE", default_value = "rdiff", value_parser = store_type())]
    pub store_type: StoreType,
    /// Whose the store is: everything in it is given to this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Wait while another run uses the store
    #[arg(long)]
    pub wait: bool,
    /// The directory of the old backups, absolute or below `ROOT_PATH`
    pub old: PathBuf,
    /// The new store, a path below `ROOT_PATH`
    pub dst: String,
}

#[derive(clap::Args)]
pub struct List {
    /// What is in this remote
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// As this older state says, which a remote or a grace period still has
    #[arg(long, value_name = "NUMBER", requires = "dst")]
    pub state: Option<u64>,
    /// The store, a path below `ROOT_PATH`, or the URL of its copy; without it all stores are shown
    pub dst: Option<String>,
}

#[derive(clap::Args)]
pub struct Verify {
    /// Only this version [default: all]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// Rebuild every version and compare it with its catalog
    #[arg(long, conflicts_with = "sample")]
    pub deep: bool,
    /// Read only so many percent of the store, others each time
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<f64>,
    /// Whose the store is, if it is not root's and root reads it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Verify copies in this remote
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// As this older state says, which a remote or a grace period still has
    #[arg(long, value_name = "NUMBER", requires = "dst")]
    pub state: Option<u64>,
    /// The store, a path below `ROOT_PATH`, or the URL of its copy; without it all stores are verified
    pub dst: Option<String>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a number above 0 and up to 100 is expected".into()),
    }
}

#[derive(clap::Args)]
pub struct Restore {
    #[command(flatten)]
    pub at: At,
    /// Restore what can be though something is damaged, and name what is missing
    #[arg(long)]
    pub partial: bool,
    /// Only this path below the source, with everything in it (may be repeated); `TARGET/PATH` appears
    #[arg(long, value_name = "PATH")]
    pub path: Vec<OsString>,
    /// Not what this pattern matches, written as in EXCLUDE (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Only what is new or different since this version
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub changed_since: Option<String>,
    /// Give everything to the recorded numbers of user and group, not to the users of the recorded names
    #[arg(long, conflicts_with = "no_owner")]
    pub numeric_ids: bool,
    /// Leave everything to whoever restores
    #[arg(long)]
    pub no_owner: bool,
    /// Restore over a tree that is there: only what differs is written
    #[arg(long)]
    pub in_place: bool,
    /// With --in-place: remove what the version does not have and backups do not leave out
    #[arg(long, requires = "in_place", conflicts_with = "changed_since")]
    pub delete: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub reading: Reading,
    /// A directory that does not exist or is empty, with --in-place any; of a database, command or file a file, or -
    pub target: PathBuf,
}
