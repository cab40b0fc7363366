//! What can be typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::catalog::StoreType;

/// Back to when: every tree and disk image, restorable to any moment, with or without this tool
#[derive(Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Args {
    /// Say nothing but errors and warnings
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: which files are read, and why
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
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
  btw-backup list home                      what there is
  btw-backup restore home /tmp/home         the newest version
  btw-backup restore --at '2026-11-20 10:00' home /tmp/then

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
    /// Restore a version
    #[command(
        after_help = "Examples:\n  btw-backup restore home /tmp/home\n  btw-backup restore --at 2026-11-20 home /tmp/then\n  btw-backup restore --at latest~2 home /tmp/before"
    )]
    Restore(Restore),
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
    /// Go on with whatever is at DST now: a store of another source, an older copy, or nothing
    #[arg(long)]
    pub adopt: bool,
    /// Wait while another run uses the store
    #[arg(long)]
    pub wait: bool,
    /// Whose the store is: everything in it is given to this user, also in later runs
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
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
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// The store, a path below `ROOT_PATH`; without it all stores are shown
    pub dst: Option<String>,
}

#[derive(clap::Args)]
pub struct Restore {
    /// Which version: latest, latest~2, v17, 2026-11-20, '2026-11-20 10:00', 10:00, yesterday, -2 (days back), 3d (that
    /// long ago), 2026-11-20T10:00:00Z. The newest that is not later is taken
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    pub at: String,
    /// Restore what can be though something is damaged, and name what is missing
    #[arg(long)]
    pub partial: bool,
    /// Whose the store is, if it is not root's and root restores
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The store, a path below `ROOT_PATH`
    pub dst: String,
    /// A directory that does not exist or is empty
    pub target: PathBuf,
}
