//! `db` and `cmd`: one backup of a database, of a command's output.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::backing::{Job, Open, Writing};
use super::dump_args::{Cmd, Db};
use super::exit::Exit;
use super::{Context, fs, owner, signals, stores};
use crate::catalog::StoreType;
use crate::config::dump::{DumpConfig, DumpSource};
use crate::config::workdir::Workdir;
use crate::dump::postgres::{Connection, Postgres, What, restrict_key};
use crate::dump::{Command, Dump, Process, StandardInput, User, end_running};
use crate::error::{Error, printable};
use crate::ops::backup::Source;
use crate::store::stream::VersionStream;
use crate::store::{Presence, Store};

/// A dump's first lines.
const BEGINNING_BYTES: u64 = 4096;

pub fn db(context: &Context, args: &Db) -> Result<Exit, Error> {
    let (source, dst) = match (args.globals, &args.second) {
        (true, None) => (DumpSource::Globals, &args.first),
        (true, Some(_)) => {
            return Err(Error::Usage(
                "-g (--globals) cannot be used with a database name".into(),
            ));
        }
        (false, Some(dst)) if !args.first.is_empty() => {
            (DumpSource::Database(args.first.clone()), dst)
        }
        (false, _) => {
            return Err(Error::Usage(
                "either -g (--globals) or a database name must be specified, and the store".into(),
            ));
        }
    };
    let config = config(context, &source)?;
    let mut postgres = Postgres {
        what: match &source {
            DumpSource::Database(name) => What::Database(name.clone()),
            _ => What::Globals,
        },
        connection: Connection {
            conninfo: config.conninfo.clone(),
            service: config.service.clone(),
        },
        bin: config.bin.clone(),
        path: search_path(),
        user: user(&config)?,
        args: config.args.clone(),
        restrict_key: None,
        file_name: source.file_name(),
        min_bytes: config.min_bytes,
    };
    postgres.check().map_err(|detail| Error::Config {
        path: source.config_path(&context.config_dir, "toml"),
        detail,
    })?;
    // Before anything is touched.
    let probed = postgres.probe();
    let probed =
        probed.inspect_err(|error| log_failure(context, &args.writing, dst, &source, error));
    let has_key = probed?.has_restrict_key();
    run(
        context,
        &args.writing,
        dst,
        &source,
        &config,
        &mut |store| {
            if has_key {
                let key = known_key(store).unwrap_or_else(new_key);
                postgres.restrict_key = Some(key);
            }
            Ok(Source::Dump(Arc::new(postgres.clone())))
        },
    )
}

/// Notes in the store's log, if there is a store of this source, why no dump was begun.
fn log_failure(
    context: &Context,
    writing: &Writing,
    dst: &str,
    source: &DumpSource,
    error: &Error,
) {
    let log = || {
        let general = stores::existing_config(context)?;
        let work = Workdir::of_dump(&context.config_dir, source.clone());
        let user = writing.user.as_deref();
        let ownership = owner::of_store(context, Some(&work), user, dst)?;
        let store = stores::open_trusted(&general, dst, &ownership)?;
        if store.current()?.source == source.source_name().as_bytes() {
            store.log(Timestamp::now(), &format!("failed: {error}"))?;
        }
        Ok::<(), Error>(())
    };
    // That the backup fails is said in any case.
    let _ = log();
}

/// The key of the newest version, so that a dump of an unchanged database is the same. It is as secret as the store.
fn known_key(store: &Store) -> Option<String> {
    if store.presence().ok()? != Presence::Store {
        return None;
    }
    let versions = store.versions(&store.current().ok()?).ok()?;
    let newest = versions.len().checked_sub(1)?;
    let stream = VersionStream::open(store, &versions, newest).ok()?;
    // What is damaged is found and said later.
    let beginning = stream.read(0..stream.len().min(BEGINNING_BYTES)).ok()?;
    restrict_key(&beginning)
}

/// A new one, which nobody can guess.
fn new_key() -> String {
    [(); 2]
        .map(|()| uuid::Uuid::new_v4().simple().to_string())
        .concat()
}

pub fn cmd(context: &Context, args: &Cmd) -> Result<Exit, Error> {
    if args.name.is_empty() {
        return Err(Error::Usage("the name must not be empty".into()));
    }
    let source = DumpSource::Command(args.name.clone());
    let config = config(context, &source)?;
    let dump: Arc<dyn Dump> = match &args.command[..] {
        [only] if only == "-" => Arc::new(StandardInput::new(source.file_name(), config.min_bytes)),
        [program, arguments @ ..] => {
            let process = Process {
                program: program.clone(),
                args: arguments.to_vec(),
                user: user(&config)?,
                dir: None,
                path: search_path(),
            };
            if process.find().is_none() {
                let error = no_program(program);
                log_failure(context, &args.writing, &args.dst, &source, &error);
                return Err(error);
            }
            Arc::new(Command {
                process,
                file_name: source.file_name(),
                min_bytes: config.min_bytes,
            })
        }
        [] => return Err(Error::Usage("a command is needed behind --".into())),
    };
    run(
        context,
        &args.writing,
        &args.dst,
        &source,
        &config,
        &mut |_| Ok(Source::Dump(Arc::clone(&dump))),
    )
}

fn no_program(program: &OsString) -> Error {
    let name = printable(program.as_encoded_bytes());
    let fault = if Path::new(program).exists() {
        format!("{name} cannot be executed")
    } else {
        format!("There is no program {name} to run")
    };
    Error::Dump(format!(
        "{fault}. No shell is used; for a pipeline: -- bash -o pipefail -c 'one | other'"
    ))
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

fn config(context: &Context, source: &DumpSource) -> Result<DumpConfig, Error> {
    owner::refuse_foreign_workdir(&Workdir::of_dump(&context.config_dir, source.clone()))?;
    DumpConfig::read(&context.config_dir, source)
}

/// The user of `RUN_AS`.
fn user(config: &DumpConfig) -> Result<Option<User>, Error> {
    let Some(name) = &config.run_as else {
        return Ok(None);
    };
    let user = nix::unistd::User::from_name(name).ok().flatten();
    let user = user.ok_or_else(|| Error::Refused(format!("RUN_AS: there is no user '{name}'")))?;
    if user.uid == nix::unistd::geteuid() {
        return Ok(None);
    }
    Ok(Some(User {
        name: user.name,
        ids: (user.uid.as_raw(), user.gid.as_raw()),
        home: user.dir,
    }))
}

/// Whoever asks us to end means the program, too, with all that it has started.
fn end_with_us() -> Result<(), Error> {
    let mut signals = Signals::new(signals::that_end())
        .map_err(|error| Error::Refused(format!("Cannot catch signals: {error}")))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            end_running();
            // Ends this process, as without us.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

fn run(
    context: &Context,
    writing: &Writing,
    dst: &str,
    source: &DumpSource,
    config: &DumpConfig,
    open: Open<'_>,
) -> Result<Exit, Error> {
    let general = fs::general(context)?;
    stores::require_root(&general)?;
    end_with_us()?;
    let work = Workdir::of_dump(&context.config_dir, source.clone());
    let job = Job {
        dst,
        writing,
        work: &work,
        source_name: source.source_name().into_bytes(),
        store_type: StoreType::Rdiff,
        keeping: config.keeping.clone(),
        allow_empty: true,
    };
    job.run(context, &general, open)
}
