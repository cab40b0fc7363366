//! `prune --remote`: which states stay in a remote.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::deletion_args::Prune;
use super::document;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::remotes::Remotes;
use super::{Context, stores};
use crate::config::remote::Keep;
use crate::config::sync_state::SyncState;
use crate::error::Error;
use crate::ops::thin_remote::{self, Known, Plan};
use crate::remote::Place;
use crate::remote::mirror::Mirror;
use crate::store::Store;
use crate::time::rfc3339;

/// A state that was replaced less than this long ago stays: somebody may be restoring from it.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

#[derive(Serialize)]
struct Row {
    state: u64,
    timestamp: String,
    stays: bool,
    reasons: Vec<String>,
    versions: Vec<u64>,
}

#[derive(Serialize)]
struct Answer {
    states: Vec<Row>,
    files: u64,
    bytes: u64,
    lost_versions: Vec<u64>,
    removed: bool,
}

/// Thins out the states of the copy that `--remote` names.
pub fn run(context: &Context, args: &Prune, name: &str) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let remotes = Remotes::of(&general);
    let dst = &args.changing.dst;
    if Place::is_url(dst) {
        return Err(Error::Usage(
            "name the store by DST, the remote by --remote".into(),
        ));
    }
    general.store_path(dst)?;
    let mirror = remotes.mirror(name, dst)?;
    let keep = if args.retention.is_empty() {
        remotes.config(name)?.keep().map_err(Error::Usage)?
    } else {
        let rules = args.retention.policy().map_err(Error::Usage)?;
        Some(Keep::ByRules(rules))
    };
    let policy = keep.as_ref().and_then(Keep::policy);
    let copy = remotes.copy(name, dst)?;
    let sync_state = SyncState::new(&context.config_dir);
    let _lock = sync_state.lock(&copy, args.changing.wait)?;
    let grace = if args.now {
        SignedDuration::ZERO
    } else {
        GRACE
    };
    // The store may be gone from this machine: then there is no log.
    let local = stores::open(&general, &copy.dst).ok();
    let journal = sync_state.read()?.unwrap_or_default();
    let known = Known {
        done: journal.done.get(&copy).copied(),
        current: local
            .as_ref()
            .and_then(|store| store.state_numbers().ok()?.pop()),
    };
    let plan = thin_remote::plan(&mirror, policy, known, (grace, Timestamp::now()))?;
    if context.output.json {
        document::answer(&answer(&plan, !args.dry_run));
    } else if args.dry_run || context.output.verbose {
        show(&plan)?;
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    perform(local.as_ref(), &mirror, &plan)?;
    if !context.output.json {
        context.output.info(&summary(&mirror, &plan));
    }
    Ok(Exit::Done)
}

/// Applies the policy of a remote after a sync.
pub fn after_sync(
    context: &Context,
    store: &Store,
    mirror: &Mirror,
    keep: &Keep,
    state: u64,
) -> Result<(), Error> {
    let known = Known {
        done: Some(state),
        current: None,
    };
    let plan = thin_remote::plan(mirror, keep.policy(), known, (GRACE, Timestamp::now()))?;
    if !plan.doomed.is_empty() {
        perform(Some(store), mirror, &plan)?;
        context.output.info(&summary(mirror, &plan));
    }
    Ok(())
}

/// What is to go is written to the store's log before it goes.
fn perform(store: Option<&Store>, mirror: &Mirror, plan: &Plan) -> Result<(), Error> {
    if let Some(store) = store.filter(|_| !plan.doomed.is_empty()) {
        let goes = plan.verdicts.iter().filter(|verdict| !verdict.stays);
        let states: Vec<String> = goes.map(|verdict| verdict.number.to_string()).collect();
        let (name, files) = (mirror.name(), plan.doomed.len());
        let text = format!(
            "prune --remote {name}: states {} and {files} files go",
            states.join(" ")
        );
        store.log(Timestamp::now(), &text)?;
    }
    thin_remote::perform(mirror, plan)
}

fn summary(mirror: &Mirror, plan: &Plan) -> String {
    let goes = plan
        .verdicts
        .iter()
        .filter(|verdict| !verdict.stays)
        .count();
    let stays = plan.verdicts.len() - goes;
    let (files, bytes) = (plan.doomed.len(), output_bytes(plan.bytes()));
    format!(
        "{}: {goes} states removed, {stays} stay; {files} files, {bytes}",
        mirror.name()
    )
}

fn show(plan: &Plan) -> Result<(), Error> {
    let mut text = String::new();
    for verdict in &plan.verdicts {
        let word = if verdict.stays { "stays" } else { "goes " };
        text.push_str(&format!(
            "{word}  state {} {}: {}\n",
            verdict.number,
            verdict.time.strftime("%Y-%m-%d %H:%M:%S UTC"),
            verdict.reasons.join(", ")
        ));
    }
    let lost = plan.lost_versions();
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().map(|seq| format!("v{seq}")).collect();
        text.push_str(&format!(
            "No state would have {} any more\n",
            names.join(", ")
        ));
    }
    text.push_str(&format!(
        "{} files, {} would go\n",
        plan.doomed.len(),
        output_bytes(plan.bytes())
    ));
    Output::answer(&text)
}

fn answer(plan: &Plan, removed: bool) -> Answer {
    let states = plan.verdicts.iter().map(|verdict| Row {
        state: verdict.number,
        timestamp: rfc3339(verdict.time),
        stays: verdict.stays,
        reasons: verdict.reasons.clone(),
        versions: verdict.versions.clone(),
    });
    Answer {
        states: states.collect(),
        files: plan.doomed.len() as u64,
        bytes: plan.bytes(),
        lost_versions: plan.lost_versions().into_iter().collect(),
        removed,
    }
}
