//! `sync-state`: what is to be copied to remotes, as far as is known.

use serde::Serialize;

use super::exit::Exit;
use super::output::Output;
use super::remotes::Remotes;
use super::sync::{is_done, newest_number};
use super::{Context, document, stores};
use crate::config::general::General;
use crate::config::sync_state::SyncState;
use crate::error::Error;
use crate::format::journal::{Copy, Journal};

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct SyncStateArgs {
    /// Show what is to be copied
    #[arg(long)]
    pub list: bool,
    /// Forget what was copied, so that the next sync asks the remotes; refused while something is to be copied
    #[arg(long)]
    pub reset: bool,
}

/// `sync-state`.
pub fn run(context: &Context, args: &SyncStateArgs) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    // Stores on a disk that is not mounted have nothing to be copied: they must not only seem so.
    stores::require_root(&general)?;
    let state = SyncState::new(&context.config_dir);
    let journal = state.read()?;
    let (waiting, exit) = waiting(&general, journal.as_ref())?;
    if args.reset {
        let is_pending = journal.is_some_and(|journal| !journal.pending.is_empty());
        if !waiting.is_empty() || is_pending || exit != Exit::Done {
            return Err(Error::Refused(
                "cannot reset: some stores must be copied; btw-backup sync-state --list names them"
                    .into(),
            ));
        }
        state.reset()?;
        context.output.info("The state was reset");
        return Ok(Exit::Done);
    }
    document::answer(&serde_json::json!({ "waiting": waiting }));
    let lines: String = waiting.into_iter().map(line).collect();
    Output::answer(&lines)?;
    if journal.is_some_and(|journal| journal.is_torn) {
        context
            .output
            .remark("The journal has lines that cannot be read; they count for nothing, and sync asks the remotes");
    }
    Ok(exit)
}

/// A store whose copy is not up to date.
#[derive(Serialize)]
struct Waiting {
    dst: String,
    remote: String,
    here: Option<u64>,
    there: Option<u64>,
}

fn line(waiting: Waiting) -> String {
    let Waiting {
        dst,
        remote,
        here,
        there,
    } = waiting;
    let here = here.map_or_else(
        || "the store is not here".to_owned(),
        |here| format!("here is state {here}"),
    );
    let there = there.map_or_else(
        || "nothing is known to be there".to_owned(),
        |there| format!("there is state {there}"),
    );
    format!("Must sync: {dst} to {remote} ({here}, {there})\n")
}

/// Stores whose copies are not up to date, as far as is known; what cannot be looked at is said.
fn waiting(general: &General, journal: Option<&Journal>) -> Result<(Vec<Waiting>, Exit), Error> {
    let remotes = Remotes::of(general);
    let nothing = Journal::default();
    let journal = journal.unwrap_or(&nothing);
    let (mut waiting, mut exit) = (Vec::new(), Exit::Done);
    let mut say = |name: &str, error: &Error| {
        Output::error_of(name, error);
        exit = exit.or(Exit::of(error));
    };
    let (names, unread) = stores::find(&general.root_path);
    for error in &unread {
        say("ROOT_PATH", error);
    }
    let mut numbers = Vec::new();
    for dst in &names {
        match stores::open(general, dst).and_then(|store| newest_number(&store)) {
            Ok(number) => numbers.push((dst, number)),
            Err(error) => say(dst, &error),
        }
    }
    for name in remotes.names() {
        let config = match remotes.config(name) {
            Ok(config) => config,
            Err(error) => {
                say(name, &error);
                continue;
            }
        };
        for (dst, here) in &numbers {
            let copy = remotes.copy(name, dst)?;
            if config.takes(dst).map_err(Error::Usage)? && !is_done(journal, &copy, *here) {
                waiting.push(Waiting {
                    dst: (*dst).clone(),
                    remote: name.to_owned(),
                    here: Some(*here),
                    there: journal.done.get(&copy).copied(),
                });
            }
        }
        // What was to be copied and is not here any more.
        let place = remotes.copy(name, "")?.remote;
        let is_lost = |copy: &&Copy| copy.remote == place && !names.contains(&copy.dst);
        let lost = journal.pending.keys().filter(is_lost);
        waiting.extend(lost.map(|copy| Waiting {
            dst: copy.dst.clone(),
            remote: name.to_owned(),
            here: None,
            there: journal.done.get(copy).copied(),
        }));
    }
    Ok((waiting, exit))
}
