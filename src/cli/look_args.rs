//! What can be typed to look into versions.

use std::ffi::OsString;
use std::path::PathBuf;

/// Which version.
#[derive(clap::Args)]
pub struct At {
    /// Which version: latest, latest~2, v17, 2026-11-20, '2026-11-20 10:00', 10:00, yesterday, -2 (days back), 3d (that
    /// long ago), 2026-11-20T10:00:00Z. The newest that is not later is taken
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    pub at: String,
}

/// The last version that counts.
#[derive(clap::Args)]
pub struct UpTo {
    /// Look only at versions up to this one, written as with ls
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    pub at: String,
}

/// A store that is read.
#[derive(clap::Args)]
pub struct Reading {
    /// Whose the store is, if it is not root's and root reads it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The store's copy in this remote
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// As this older state says, which a remote or a grace period still has
    #[arg(long, value_name = "NUMBER")]
    pub state: Option<u64>,
    /// The store, a path below `ROOT_PATH`, or the URL of its copy: s3://, sftp://, file://
    pub dst: String,
}

#[derive(clap::Args)]
pub struct Ls {
    #[command(flatten)]
    pub at: At,
    /// Show mode, owner, size and time too
    #[arg(short)]
    pub long: bool,
    /// Show everything below
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub reading: Reading,
    /// A path below the source [default: the source itself]
    pub path: Option<OsString>,
}

#[derive(clap::Args)]
pub struct Cat {
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub reading: Reading,
    /// A file, as a path below the source; not needed where the source is one file
    pub path: Option<OsString>,
}

#[derive(clap::Args)]
pub struct Find {
    #[command(flatten)]
    pub at: UpTo,
    #[command(flatten)]
    pub reading: Reading,
    /// A name, or a pattern as in EXCLUDE: *.odt anywhere, /docs/* from the source on
    pub pattern: String,
}

#[derive(clap::Args)]
pub struct History {
    #[command(flatten)]
    pub at: UpTo,
    #[command(flatten)]
    pub reading: Reading,
    /// A path below the source
    pub path: Option<OsString>,
}

#[derive(clap::Args)]
pub struct Diff {
    /// The earlier version [default: the one before the later]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The later version
    #[arg(
        long,
        visible_alias = "at",
        value_name = "WHEN",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    pub to: String,
    /// Only count
    #[arg(long, conflicts_with = "patch")]
    pub stat: bool,
    /// Show the lines that differ in small text files
    #[arg(short, long)]
    pub patch: bool,
    #[command(flatten)]
    pub reading: Reading,
    /// Only what is at or below this path
    pub path: Option<OsString>,
}

#[derive(clap::Args)]
pub struct Compare {
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub reading: Reading,
    /// The source: the directory or file that was backed up
    pub src: PathBuf,
}

#[derive(clap::Args)]
pub struct Export {
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub reading: Reading,
    /// The archive to make, or - for the standard output
    pub file: PathBuf,
}
