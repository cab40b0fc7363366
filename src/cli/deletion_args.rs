//! What can be typed to thin out, delete and pin versions.

use std::path::PathBuf;

use crate::config::retention::Retention;

/// A store in which versions go, come back or are pinned.
#[derive(clap::Args)]
pub struct Changing {
    /// Wait while another run uses the store
    #[arg(long)]
    pub wait: bool,
    /// Whose the store is, if it is not root's and root changes it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The store, a path below `ROOT_PATH`
    pub dst: String,
}

#[derive(clap::Args)]
pub struct Prune {
    #[command(flatten)]
    pub retention: Retention,
    /// Only say what would go, and why the rest stays
    #[arg(long)]
    pub dry_run: bool,
    /// Free the space at once: what goes cannot be brought back
    #[arg(long)]
    pub now: bool,
    /// Not here but in this remote: which states stay there; without rules all that have a version of their own
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    #[command(flatten)]
    pub changing: Changing,
}

#[derive(clap::Args)]
pub struct Delete {
    /// Only say what would go, and how much that frees
    #[arg(long)]
    pub dry_run: bool,
    /// Free the space at once: what goes cannot be brought back
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub changing: Changing,
    /// v3, v3-v7, latest, latest~2
    #[arg(required = true)]
    pub versions: Vec<String>,
}

#[derive(clap::Args)]
pub struct Undelete {
    /// Only say what can come back, and until when
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub changing: Changing,
    /// Which versions, as with delete [default: all that can]
    pub versions: Vec<String>,
}

#[derive(clap::Args)]
pub struct Gc {
    /// Free what can still be brought back, too
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub changing: Changing,
}

#[derive(clap::Args)]
pub struct Pin {
    /// Why, to be shown with it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub changing: Changing,
    /// v3, v3-v7, latest, latest~2
    #[arg(required = true)]
    pub versions: Vec<String>,
}

#[derive(clap::Args)]
pub struct Unpin {
    #[command(flatten)]
    pub changing: Changing,
    /// v3, v3-v7, latest, latest~2
    #[arg(required = true)]
    pub versions: Vec<String>,
}

#[derive(clap::Args)]
pub struct Plot {
    /// The file to draw, .svg or .png [default: in the terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// No store: how would the rules behave over this time
    #[arg(long, value_name = "SPAN", conflicts_with = "dst")]
    pub simulate: Option<String>,
    /// With --simulate: so much between backups
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    pub every: String,
    #[command(flatten)]
    pub retention: Retention,
    /// Whose the store is, if it is not root's and root reads it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The store, a path below `ROOT_PATH`
    pub dst: Option<String>,
}
