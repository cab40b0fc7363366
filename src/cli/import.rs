//! `import`: take over the history that an ancestor kept.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use jiff::Timestamp;

use super::args::Import;
use super::backing::host;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::{Context, owner, stores};
use crate::catalog::StoreType;
use crate::catalog::version::describe;
use crate::config::source::SourceConfig;
use crate::error::{Error, printable};
use crate::ops::backup::{self, Detection, Options, Outcome, Source, Tree};
use crate::ops::import::{OldVersion, Workplace, find};
use crate::store::codec::Knobs;
use crate::store::{Presence, Store, collect};

pub fn run(context: &Context, args: &Import) -> Result<Exit, Error> {
    let general = super::fs::general(context)?;
    stores::require_root(&general)?;
    let old = general.root_path.join(&args.old);
    let path = general.store_path(&args.dst)?;
    if old == path {
        return Err(Error::Refused(
            "the old backups and the new store need different directories".into(),
        ));
    }
    let (versions, ignored) = find(&old)?;
    let ownership = owner::of_store(context, None, args.user.as_deref(), &args.dst)?;
    owner::refuse_foreign_store(&old, &ownership)?;
    // What is made again in there must not be changed by anybody, also not by the store's owner.
    owner::refuse_shared(&general.root_path)?;
    let opened = stores::open_to_write(&general, &args.dst, &ownership, args.wait)?;
    let store = &opened.store;
    let done_until = imported_until(store)?;
    opened.bring_over()?;
    let workplace = Workplace::create(&general.root_path, &args.dst)?;
    let mut exit = Exit::Done;
    for name in &ignored {
        Output::warning(&format!(
            "not taken over, as it is no backup by its name: {}",
            printable(name.as_bytes())
        ));
        exit = Exit::Warnings;
    }
    let mut count = 0;
    for version in versions
        .iter()
        .filter(|version| done_until.is_none_or(|until| version.time > until))
    {
        exit = exit.or(one(context, store, &workplace, version, args.store_type)?);
        count += 1;
    }
    let dst = &args.dst;
    context.output.info(&match done_until.filter(|_| count == 0) {
        Some(until) => format!("{dst}: nothing to do: no old version is later than the newest one there, {until}"),
        None => format!(
            "{dst}: {count} old versions read; the next backup of their source goes on from here: btw-backup fs --init SRC {dst}{}",
            if args.store_type == StoreType::Tar { " (with TYPE = \"tar\")" } else { "" }
        ),
    });
    Ok(exit)
}

/// Until when the history is there already; nothing but an earlier import may have made it.
fn imported_until(store: &Store) -> Result<Option<Timestamp>, Error> {
    if store.presence()? != Presence::Store {
        return Ok(None);
    }
    let state = store.current()?;
    if !state.source.is_empty() {
        return Err(Error::Refused(format!(
            "The store {} has versions of its own; name a new DST",
            store.name()
        )));
    }
    Ok(store.versions(&state)?.last().map(|newest| newest.time))
}

fn one(
    context: &Context,
    store: &Store,
    workplace: &Workplace,
    version: &OldVersion,
    store_type: StoreType,
) -> Result<Exit, Error> {
    let (tree, lost) = workplace.unpack(version)?;
    let options = options(tree, version.time, store_type);
    let result = {
        let progress = Progress::new(context.output);
        backup::backup(store, &options, &progress)
    };
    let report = result.inspect_err(|error| {
        backup::log_failure(store, &options, error);
        let _ = collect::remove_temporaries(store);
    })?;
    match &report.outcome {
        Outcome::Committed(version) => {
            context
                .output
                .info(&format!("{}: {} imported", store.name(), describe(version)));
        }
        Outcome::Unchanged(same, _) => {
            context.output.info(&format!(
                "{0}: {2} is the same as {1} and was not stored again",
                store.name(),
                describe(same),
                version.time
            ));
        }
    }
    for problem in report.problems.iter().chain(&lost) {
        Output::warning(problem);
    }
    Ok(Exit::done(&report.problems).or(Exit::done(&lost)))
}

/// A backup of the tree as it was made again, at the time that it had. Whose source it is, the first `fs` says.
fn options(source: PathBuf, now: Timestamp, store_type: StoreType) -> Options {
    let config = SourceConfig::new(store_type);
    Options {
        source: Source::Tree(Box::new(Tree {
            path: source,
            selection: crate::tree::select::Selection::default(),
            detection: Detection::Bytes,
        })),
        source_name: Vec::new(),
        host: host(),
        store_type: config.store_type,
        chain: config.keeping.chain,
        allow_empty: true,
        adopt: true,
        expected: None,
        now,
        knobs: Knobs::REAL,
    }
}
