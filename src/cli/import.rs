//! `import`: take over the history that an ancestor kept.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::args::Import;
use super::exit::Exit;
use super::fs::{give_to, host};
use super::output::Output;
use super::progress::Progress;
use super::{Context, owner, stores};
use crate::catalog::StoreType;
use crate::catalog::version::describe;
use crate::config::source::SourceConfig;
use crate::error::Error;
use crate::ops::backup::{self, Detection, Options, Outcome};
use crate::ops::import::{OldVersion, Workplace, find};
use crate::store::codec::Knobs;
use crate::store::disk::{Disk, LocalDisk};
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
    let versions = find(&old)?;
    let ownership = owner::of_store(context, args.user.as_deref(), &args.dst)?;
    owner::refuse_foreign_store(&path, &ownership)?;
    let disk = LocalDisk::create(
        &general.root_path,
        args.dst.as_ref(),
        ownership.wanted.map(give_to),
    )
    .map_err(|error| Error::file("create the store", &path, error))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let store = Store::new(disk, &args.dst);
    backup::refuse_foreign(&store)?;
    let _guard = store.lock_writer(args.wait)?;
    let done_until = imported_until(&store)?;
    let workplace = Workplace::create(&general.root_path, &args.dst)?;
    let mut exit = Exit::Done;
    let mut count = 0;
    for version in versions
        .iter()
        .filter(|version| done_until.is_none_or(|until| version.time > until))
    {
        exit = exit.or(one(context, &store, &workplace, version)?);
        count += 1;
    }
    context.output.info(&format!(
        "{}: {count} old versions read; the next backup of their source goes on from here: btw-backup fs --init SRC {0}",
        args.dst
    ));
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
) -> Result<Exit, Error> {
    let (tree, lost) = workplace.unpack(version)?;
    let options = options(tree, version.time);
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
                "{}: as {}: {}",
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
fn options(source: PathBuf, now: Timestamp) -> Options {
    let config = SourceConfig::new(StoreType::Rdiff);
    Options {
        source,
        source_name: Vec::new(),
        host: host(),
        selection: crate::tree::select::Selection::default(),
        detection: Detection::Bytes,
        store_type: config.store_type,
        chain: config.chain,
        allow_empty: true,
        adopt: true,
        expected: None,
        now,
        knobs: Knobs::REAL,
    }
}
