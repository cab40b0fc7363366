//! What can be typed to back up databases and commands.

use std::ffi::OsString;

use super::backing::Writing;

pub const DB_HELP: &str = "\
Examples:
  btw-backup db shop db/shop                   the database 'shop' into the store 'db/shop'
  btw-backup db --globals db/globals           roles and tablespaces
  btw-backup restore db/shop - | psql -1 -v ON_ERROR_STOP=1 shop    into an empty database
  btw-backup diff -p db/shop                   which rows changed

How to connect is taken from libpq's environment (PGHOST, PGUSER, PGSERVICE, ...), from
~/.pgpass, and from CONNINFO or SERVICE in <config-dir>/db/DBNAME.toml (global.toml for
--globals). Other settings there: RUN_AS, ARGS, BIN, MIN_SIZE, RETENTION, GRACE,
MAX_INCREMENTAL_COUNT, MAX_INCREMENTAL_SPAN, FULLS_KEPT. None is needed.";

pub const CMD_HELP: &str = "\
Examples:
  btw-backup cmd wiki db/wiki -- mysqldump --single-transaction --skip-dump-date wiki
  btw-backup cmd notes db/notes -- sqlite3 -readonly -bail /srv/notes.db .dump
  btw-backup cmd log logs -- bash -o pipefail -c 'journalctl -o export | sort'
  btw-backup cmd cache db/cache -- redis-cli --rdb -
  zfs send tank@now | btw-backup cmd tank zfs/tank -

The command is run without a shell and has no terminal. It counts if it exits with 0 and
gives at least MIN_SIZE (<config-dir>/cmd/NAME.toml; 1 byte). Of what comes from the
standard input nobody knows whether it is complete: better let btw-backup run the command.";

const DB_USAGE: &str = "\
btw-backup db [OPTIONS] DBNAME DST
       btw-backup db [OPTIONS] --globals DST";

#[derive(clap::Args)]
#[command(override_usage = DB_USAGE)]
pub struct Db {
    /// Roles and tablespaces instead of a database
    #[arg(short, long, visible_alias = "global")]
    pub globals: bool,
    #[command(flatten)]
    pub writing: Writing,
    /// The database; with --globals the store
    #[arg(value_name = "DBNAME", allow_hyphen_values = true)]
    pub first: String,
    /// The store, a path below `ROOT_PATH`
    #[arg(value_name = "DST")]
    pub second: Option<String>,
}

#[derive(clap::Args)]
pub struct Cmd {
    #[command(flatten)]
    pub writing: Writing,
    /// A name for what is backed up
    pub name: String,
    /// The store, a path below `ROOT_PATH`
    pub dst: String,
    /// The program and its arguments, behind `--`; `-` alone reads the standard input
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["PROGRAM", "ARGS"])]
    pub command: Vec<OsString>,
}
