//! `fs`: one backup of a directory or file.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::args::Fs;
use super::backing::Job;
use super::exit::Exit;
use super::output::Output;
use super::owner::{self};
use super::{Context, home, stores};
use crate::catalog::StoreType;
use crate::config::general::General;
use crate::config::source::SourceConfig;
use crate::config::workdir::{Workdir, normal};
use crate::error::{Error, printable, with_causes};
use crate::ops::backup::preview::{Fate, preview};
use crate::ops::backup::{Detection, Source, Tree};
use crate::store::Store;
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
    let job = Job {
        dst: &args.dst,
        writing: &args.writing,
        work: &work,
        source_name: source.as_os_str().as_bytes().to_vec(),
        store_type: config.store_type,
        keeping: config.keeping.clone(),
        allow_empty: args.allow_empty,
    };
    let is_new = |pattern: &&String| !config.selection.read_special.contains(pattern);
    if let Some(pattern) = args.read_special.iter().find(is_new) {
        context.output.info(&format!(
            "--read-special={pattern} holds for this run; READ_SPECIAL in {} for all",
            work.path.join("config.toml").display()
        ));
    }
    let seen = work.seen_dir();
    job.run(context, &general, &mut |_| {
        let left_out = [&*general.root_path, &path, &seen];
        Ok(Source::Tree(Box::new(tree(
            args,
            &left_out,
            config.clone(),
            source.clone(),
        ))))
    })
}

/// The configuration; the first one is made here, so that a backup needs none.
pub fn general(context: &Context) -> Result<General, Error> {
    if let Some(general) = General::read(&context.config_dir)? {
        return Ok(general);
    }
    let general = General::create(&context.config_dir, &usual_root()?)?;
    context.output.info(&format!(
        "backups go to {} (ROOT_PATH in {})",
        general.root_path.display(),
        context.config_dir.join("config.toml").display()
    ));
    Ok(general)
}

/// Where stores go if nobody says anything else.
pub fn usual_root() -> Result<PathBuf, Error> {
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let data = data.map_or_else(|| home().map(|home| home.join(".local/share")), Ok)?;
    Ok(data.join("btw-backup"))
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
    let tree = tree(args, &left_out, config, source);
    let store = if path.exists() {
        Some(stores::open(general, &args.dst)?)
    } else {
        None
    };
    let _guard = store.as_ref().map(Store::lock_reader).transpose()?;
    let preview = preview(
        store.as_ref(),
        &tree,
        Timestamp::now(),
        &mut |path, fate| {
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
        },
    )?;
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

/// The source with what is left out of it.
fn tree(args: &Fs, left_out: &[&Path], config: SourceConfig, path: PathBuf) -> Tree {
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
    Tree {
        path,
        selection: Selection {
            leave_out,
            read_special: [&config.selection.read_special[..], &args.read_special].concat(),
            ..config.selection
        },
        detection,
    }
}

/// Bytes for people.
pub fn output_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
