//! `fs`: one backup of a directory or file.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::args::Fs;
use super::exit::Exit;
use super::output::Output;
use super::owner::{self};
use super::progress::Progress;
use super::{Context, home, prune, stores};
use crate::catalog::StoreType;
use crate::catalog::version::describe;
use crate::config::general::General;
use crate::config::source::SourceConfig;
use crate::config::workdir::{Seen, Workdir, normal};
use crate::error::{Error, printable, with_causes};
use crate::ops::backup::preview::{Fate, preview};
use crate::ops::backup::{self, Detection, Expected, Options, Outcome, Report};
use crate::store::codec::Knobs;
use crate::store::{Store, collect};
use crate::tree::select::Selection;

pub fn run(context: &Context, args: &Fs) -> Result<Exit, Error> {
    let source = normal(&args.src)?;
    let metadata = std::fs::metadata(&source)
        .map_err(|error| Error::file("find the source", &source, error))?;
    if !metadata.is_dir() && !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(Error::Refused(format!(
            "{} is neither a directory nor a regular file nor a block device",
            source.display()
        )));
    }
    let general = general(context)?;
    let path = general.store_path(&args.dst)?;
    stores::require_root(&general)?;
    refuse_overlap(&general, &source, &metadata)?;
    if args.dry_run {
        return dry_run(context, args, &general, source, &path);
    }
    let work = work_dir(context, args, &source)?;
    owner::refuse_foreign_workdir(&work)?;
    let config = work.config()?;
    let (retention, grace) = (config.retention.clone(), config.grace);
    let ownership = owner::of_store(context, Some(&work), args.user.as_deref(), &args.dst)?;
    if expected(args, &work)?.is_some() && !path.exists() {
        return Err(backup::vanished(&args.dst));
    }
    let opened = stores::open_to_write(&general, &args.dst, &ownership, args.wait)?;
    let store = &opened.store;
    // After the wait for the lock: the clock, and what the run before has left behind.
    let options = options(
        args,
        &[&general.root_path, &path, &work.seen_dir()],
        config,
        source,
        expected(args, &work)?,
    );
    backup::refuse_other(store, &options)?;
    opened.bring_over()?;
    let result = {
        let progress = Progress::new(context.output);
        backup::backup(store, &options, &progress)
    };
    let report = result.inspect_err(|error| {
        backup::log_failure(store, &options, error);
        // Room for others at once; what cannot be removed now goes with the next run.
        let _ = collect::remove_temporaries(store);
    })?;
    let mut exit = tell(context.output, &args.dst, &report);
    // Where there is no room for it, the backup is done all the same.
    let _ = store.keep_reserve();
    let mut state = report.state;
    // Nothing is thinned out while damage is known.
    if let Some(policy) = retention.filter(|_| report.damage.is_empty()) {
        let pruned = prune::after_backup(context, store, &policy, grace);
        let pruned = also(pruned, "old versions could not be thinned out", &mut exit);
        if let Some((pruned, told)) = pruned.flatten() {
            (state, exit) = (pruned, exit.or(told));
        }
    }
    let seen = Seen {
        store: state.store,
        state: state.number,
        owner: ownership.wanted,
    };
    also(
        work.remember(&args.dst, seen),
        "its bookkeeping failed",
        &mut exit,
    );
    tell_of_s3(context.output, &general);
    Ok(exit)
}

/// Says that a setting of the Python tool does nothing yet.
fn tell_of_s3(output: Output, general: &General) {
    if let Some(prefix) = &general.s3_uri_prefix {
        output.info(&format!(
            "S3_URI_PREFIX is set, but nothing was copied to {prefix}: this release makes no copies off-site"
        ));
    }
}

/// What follows a backup and cannot undo it: faults here are warnings.
fn also<T>(result: Result<T, Error>, fault: &str, exit: &mut Exit) -> Option<T> {
    result
        .inspect_err(|error| {
            *exit = exit.or(Exit::Warnings);
            Output::warning(&format!(
                "The backup is done, but {fault}: {}",
                with_causes(error)
            ));
        })
        .ok()
}

/// The configuration; the first one is made here, so that a backup needs none.
pub fn general(context: &Context) -> Result<General, Error> {
    if let Some(general) = General::read(&context.config_dir)? {
        return Ok(general);
    }
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let root_path = match data {
        Some(dir) => dir,
        None => home()?.join(".local/share"),
    };
    let general = General::create(&context.config_dir, &root_path.join("btw-backup"))?;
    context.output.info(&format!(
        "backups go to {} (ROOT_PATH in {})",
        general.root_path.display(),
        context.config_dir.join("config.toml").display()
    ));
    Ok(general)
}

/// A source must not lie in a store; the root may lie within the source, and is left out then.
fn refuse_overlap(
    general: &General,
    source: &Path,
    metadata: &std::fs::Metadata,
) -> Result<(), Error> {
    let real = source
        .canonicalize()
        .map_err(|error| Error::file("find the source", source, error))?;
    if let Some(inside) = real.ancestors().find(|dir| stores::is_store(dir)) {
        return Err(Error::Refused(format!(
            "{} lies in the store {}",
            source.display(),
            inside.display()
        )));
    }
    let root = std::fs::metadata(&general.root_path)
        .map_err(|error| Error::file("find", &general.root_path, error))?;
    if (root.dev(), root.ino()) == (metadata.dev(), metadata.ino()) {
        return Err(Error::Refused(format!(
            "{} is ROOT_PATH itself, where the backups are",
            source.display()
        )));
    }
    Ok(())
}

fn work_dir(context: &Context, args: &Fs, source: &Path) -> Result<Workdir, Error> {
    if let Some(work) = Workdir::find(&context.config_dir, source)? {
        return Ok(work);
    }
    if !args.init {
        return Err(no_working_directory(source));
    }
    let work = Workdir::create(
        &context.config_dir,
        source,
        &args.dst.replace('/', "-"),
        StoreType::Rdiff,
    )?;
    context
        .output
        .info(&format!("created {}", work.path.display()));
    Ok(work)
}

fn no_working_directory(source: &Path) -> Error {
    Error::Refused(format!(
        "no working directory for: {}; make it with fs-init, or pass --init",
        source.display()
    ))
}

/// Says what a backup would read and leave out.
fn dry_run(
    context: &Context,
    args: &Fs,
    general: &General,
    source: PathBuf,
    path: &Path,
) -> Result<Exit, Error> {
    let (config, seen) = match Workdir::find(&context.config_dir, &source)? {
        Some(work) => {
            owner::refuse_foreign_workdir(&work)?;
            (work.config()?, Some(work.seen_dir()))
        }
        None if args.init => (SourceConfig::new(StoreType::Rdiff), None),
        None => return Err(no_working_directory(&source)),
    };
    let left_out: Vec<&Path> = [Some(&*general.root_path), Some(path), seen.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let options = options(args, &left_out, config, source, None);
    let store = if path.exists() {
        Some(stores::open(general, &args.dst)?)
    } else {
        None
    };
    let _guard = store.as_ref().map(Store::lock_reader).transpose()?;
    let preview = preview(store.as_ref(), &options, &mut |path, fate| {
        let path = printable(if path.is_empty() { b"." } else { path });
        match fate {
            Fate::Read(bytes, why) => context.output.info(&format!(
                "would read: {path} ({}): {why}",
                output_bytes(*bytes)
            )),
            Fate::LeftOut(why) => context
                .output
                .info(&format!("would leave out: {path}: {why}")),
            Fate::Problem(error) => Output::warning(&with_causes(error)),
        }
    })?;
    context.output.info(&format!(
        "would read {} of {} files; {} members need not be read",
        output_bytes(preview.read_bytes),
        preview.read,
        preview.others
    ));
    context.output.info_not_kept(&preview.not_kept);
    Ok(if preview.problems == 0 {
        Exit::Done
    } else {
        Exit::Warnings
    })
}

fn expected(args: &Fs, work: &Workdir) -> Result<Option<Expected>, Error> {
    let seen = if args.adopt {
        None
    } else {
        work.seen(&args.dst)?
    };
    Ok(seen.map(|seen| Expected {
        store: seen.store,
        state: seen.state,
    }))
}

fn options(
    args: &Fs,
    left_out: &[&Path],
    config: SourceConfig,
    source: PathBuf,
    expected: Option<Expected>,
) -> Options {
    let metadata = left_out
        .iter()
        .filter_map(|dir| std::fs::metadata(dir).ok());
    let leave_out: HashSet<(u64, u64)> = metadata
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect();
    let detection = if config.compare_bytes {
        Detection::Bytes
    } else {
        Detection::Stat {
            read_all_span: config.read_all_span,
        }
    };
    Options {
        source_name: source.as_os_str().as_bytes().to_vec(),
        source,
        host: host(),
        selection: Selection {
            leave_out,
            read_special: args.read_special.clone(),
            ..config.selection
        },
        detection,
        store_type: config.store_type,
        chain: config.chain,
        allow_empty: args.allow_empty,
        adopt: args.adopt,
        expected,
        now: Timestamp::now(),
        knobs: Knobs::REAL,
    }
}

/// The name of this machine.
pub fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn tell(output: Output, dst: &str, report: &Report) -> Exit {
    match &report.outcome {
        Outcome::Committed(version) => {
            let partial = if version.is_partial() {
                ", partial"
            } else {
                ""
            };
            let new = if version.seq == 1 {
                " (a new store)"
            } else {
                ""
            };
            let (size, added) = (
                output_bytes(version.size_bytes),
                output_bytes(version.added_bytes),
            );
            output.info(&format!(
                "{dst}: {} committed: {}{partial}, {} members, {size}, {added} added to the store{new}",
                describe(version),
                version.kind.word(),
                version.members
            ));
        }
        Outcome::Unchanged(version, skipped) => {
            output.info(&format!(
                "{dst}: no change in the data to be backed up since {}: {skipped}",
                describe(version)
            ));
        }
    }
    report.notes.iter().for_each(|note| output.info(note));
    output.info_not_kept(&report.not_kept);
    report
        .problems
        .iter()
        .for_each(|problem| Output::warning(problem));
    for damage in &report.damage {
        Output::warning(&format!(
            "the store {dst} is damaged: {damage}; versions that need it cannot be restored, the newest does not"
        ));
    }
    let exit = Exit::done(&report.problems);
    if report.damage.is_empty() {
        exit
    } else {
        exit.or(Exit::Damage)
    }
}

/// Bytes for people.
pub fn output_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
