//! `prune`: thin out old versions, and say why each stays or goes.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::delete::{Target, options, tell, warn};
use super::deletion_args::Prune;
use super::document;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::{Output, unwritten};
use super::progress::Progress;
use super::rows::VersionName;
use super::{Context, prune_remote};
use crate::catalog::Version;
use crate::catalog::version::describe;
use crate::error::Error;
use crate::format::state::State;
use crate::ops::delete::prune::verdicts;
use crate::ops::delete::{self, Options, Report, space};
use crate::plan::retention::{Policy, Verdict};
use crate::store::Store;

#[derive(Serialize)]
struct Row {
    version: VersionName,
    stays: bool,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    verdicts: Vec<Row>,
    deleted: bool,
    /// Of what nothing names any more.
    gone_bytes: u64,
    /// Of what joins the rest anew.
    new_bytes: u64,
}

pub fn run(context: &Context, args: &Prune) -> Result<Exit, Error> {
    if let Some(remote) = &args.remote {
        return prune_remote::run(context, args, remote);
    }
    let target = Target::open(context, &args.changing)?;
    let policy = if args.retention.is_empty() {
        let configured = target.keeping()?.and_then(|keeping| keeping.retention);
        configured.ok_or_else(|| {
            Error::Usage("nothing says what is to stay: name rules, as in --keep-daily 7 --keep-monthly 12, or set RETENTION".into())
        })?
    } else {
        args.retention.policy().map_err(Error::Usage)?
    };
    let options = options(target.grace(args.now)?, args.dry_run);
    let Thinned {
        versions,
        verdicts,
        report,
    } = thin(context, target.store(), &policy, &options)?;
    if let Some(report) = report.as_ref().filter(|_| !args.dry_run) {
        target.remember(&args.changing.dst, &report.state)?;
    }
    if context.output.json {
        document::answer(&answer(&versions, &verdicts, report.as_ref(), args.dry_run));
    } else if args.dry_run || context.output.verbose {
        show(&versions, &verdicts)?;
    }
    if args.dry_run && !context.output.json {
        Output::answer(&summary(&verdicts, report.as_ref()))?;
    }
    Ok(match report {
        Some(report) if context.output.json => warn(&report.problems),
        _ if context.output.json || args.dry_run => Exit::Done,
        None => {
            let count = versions.len();
            context
                .output
                .info(&format!("{}: all {count} versions stay", args.changing.dst));
            Exit::Done
        }
        Some(report) => tell(context, &args.changing.dst, &report, &options),
    })
}

/// What a policy meant for a store.
struct Thinned {
    versions: Vec<Version>,
    verdicts: Vec<Verdict>,
    /// `None` if everything stays.
    report: Option<Report>,
}

fn thin(
    context: &Context,
    store: &Store,
    policy: &Policy,
    options: &Options,
) -> Result<Thinned, Error> {
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let zone = TimeZone::system();
    let verdicts = verdicts(store, &state, &versions, policy, options.now, &zone)?;
    let goes = verdicts.iter().filter(|verdict| !verdict.stays);
    let doomed: BTreeSet<u64> = goes.map(|verdict| verdict.seq).collect();
    let progress = Progress::new(context.output);
    let delete = || delete::delete(store, &doomed, options, &progress);
    let report = (!doomed.is_empty()).then(|| space::with_reserve(store, options.now, delete));
    Ok(Thinned {
        versions,
        verdicts,
        report: report.transpose()?,
    })
}

/// Thins out a store after a backup.
pub fn after_backup(
    context: &Context,
    store: &Store,
    policy: &Policy,
    grace: SignedDuration,
) -> Result<Option<(State, Exit)>, Error> {
    let options = options(grace, false);
    let thinned = thin(context, store, policy, &options)?;
    Ok(thinned.report.map(|report| {
        let exit = tell(context, store.name(), &report, &options);
        (report.state, exit)
    }))
}

fn answer(
    versions: &[Version],
    verdicts: &[Verdict],
    report: Option<&Report>,
    dry_run: bool,
) -> Answer {
    let rows = versions.iter().zip(verdicts).map(|(version, verdict)| Row {
        version: VersionName::from(version),
        stays: verdict.stays,
        reasons: verdict.reasons.clone(),
    });
    Answer {
        verdicts: rows.collect(),
        deleted: !dry_run && report.is_some(),
        gone_bytes: report.map_or(0, |report| report.difference.gone_bytes),
        new_bytes: report.map_or(0, |report| report.difference.new_bytes),
    }
}

fn show(versions: &[Version], verdicts: &[Verdict]) -> Result<(), Error> {
    Output::answer_with(|out| {
        for (version, verdict) in versions.iter().zip(verdicts) {
            let word = if verdict.stays { "stays" } else { "goes " };
            let reasons = verdict.reasons.join(", ");
            writeln!(out, "{word}  {}: {reasons}", describe(version)).map_err(unwritten)?;
        }
        Ok(())
    })
}

/// What a dry run comes to.
fn summary(verdicts: &[Verdict], report: Option<&Report>) -> String {
    let goes = verdicts.iter().filter(|verdict| !verdict.stays).count();
    let (gone, new) = report.map_or((0, 0), |report| {
        (report.difference.gone_bytes, report.difference.new_bytes)
    });
    let (freed, needed) = (output_bytes(gone.saturating_sub(new)), output_bytes(new));
    let stays = verdicts.len() - goes;
    format!(
        "{goes} versions would go, {stays} stay; {freed} would be freed; until then it needs {needed}\n"
    )
}
