//! `config`: what is configured, whether that is right, and a first file.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::Exit;
use super::output::Output;
use super::remotes::Remotes;
use super::run::Jobs;
use super::{Context, document, fs, owner, stores};
use crate::config::general::{self, General};
use crate::config::inventory::{self, Known, SourceName};
use crate::config::job::{Hooks, What};
use crate::config::settings::{Setting, Settings};
use crate::error::{Error, with_causes};
use crate::notify::Way;

#[derive(clap::Args)]
pub struct Config {
    #[command(subcommand)]
    what: ToDo,
}

#[derive(clap::Subcommand)]
enum ToDo {
    /// Show every setting that is in effect, and where it comes from
    Show,
    /// Say all that is wrong, with lines and columns
    Check,
    /// Write a first config.toml
    Init(Init),
}

#[derive(clap::Args)]
struct Init {
    /// The directory for all stores [default: ~/.local/share/btw-backup]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub fn run(context: &Context, args: &Config) -> Result<Exit, Error> {
    match &args.what {
        ToDo::Show => show(context),
        ToDo::Check => check(context),
        ToDo::Init(args) => init(context, args),
    }
}

fn init(context: &Context, args: &Init) -> Result<Exit, Error> {
    let path = general::path(&context.config_dir);
    for path in [&path, &path.with_extension("py")] {
        if path.exists() {
            return Err(Error::Refused(format!(
                "{} is there already; btw-backup config show says what it means",
                path.display()
            )));
        }
    }
    let root = match &args.root {
        Some(root) => {
            std::path::absolute(root).map_err(|error| Error::file("find", root, error))?
        }
        None => fs::usual_root()?,
    };
    General::create(&context.config_dir, &root)?;
    context.output.info(&format!(
        "written: {}; stores go to {}",
        path.display(),
        root.display()
    ));
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct FileRow {
    file: String,
    source: Option<String>,
    settings: Vec<SettingRow>,
}

#[derive(Serialize)]
struct SettingRow {
    table: String,
    key: String,
    value: String,
    origin: String,
}

fn show(context: &Context) -> Result<Exit, Error> {
    let mut files = vec![(Settings::general(&context.config_dir)?, None)];
    for known in inventory::all(&context.config_dir)? {
        files.push((settings_of(context, &known)?, Some(words(&known.source))));
    }
    let rows: Vec<FileRow> = files
        .into_iter()
        .map(|(settings, source)| row(settings, source))
        .collect();
    if !context.output.json {
        Output::answer(&rows.iter().map(lines).collect::<Vec<_>>().join("\n"))?;
    }
    document::answer(&serde_json::json!({ "files": rows }));
    Ok(Exit::Done)
}

fn settings_of(context: &Context, known: &Known) -> Result<Settings, Error> {
    match &known.source {
        SourceName::Tree(_) => Settings::tree(&known.work.path),
        SourceName::Dump(dump) => Settings::dump(&context.config_dir, dump),
    }
}

fn words(source: &SourceName) -> String {
    match source {
        SourceName::Tree(path) => path.display().to_string(),
        SourceName::Dump(dump) => dump.source_name(),
    }
}

fn row(settings: Settings, source: Option<String>) -> FileRow {
    let one = |setting: Setting| SettingRow {
        origin: setting
            .line
            .map_or_else(|| "default".to_owned(), |line| format!("line {line}")),
        table: setting.table,
        key: setting.key,
        value: setting.value,
    };
    FileRow {
        file: settings.path.display().to_string(),
        source,
        settings: settings.settings.into_iter().map(one).collect(),
    }
}

fn lines(row: &FileRow) -> String {
    let mut text = match &row.source {
        Some(source) => format!("# {}: how {source} is backed up\n", row.file),
        None => format!("# {}\n", row.file),
    };
    let mut table = "";
    for setting in &row.settings {
        if setting.table != table {
            table = &setting.table;
            text.push_str(&format!("[{table}]\n"));
        }
        let line = format!("{} = {}", setting.key, setting.value);
        text.push_str(&format!("{line:<60} # {}\n", setting.origin));
    }
    text
}

/// What is wrong, and what is strange.
#[derive(Default)]
struct Findings {
    wrong: Vec<String>,
    strange: Vec<String>,
}

impl Findings {
    fn error(&mut self, error: &Error) {
        self.wrong.push(with_causes(error));
    }
}

fn check(context: &Context) -> Result<Exit, Error> {
    let mut found = Findings::default();
    if let Err(error) = owner::refuse_foreign_config(context) {
        found.error(&error);
    }
    let general = match stores::existing_config(context) {
        Ok(general) => {
            check_general(context, &general, &mut found);
            Some(general)
        }
        Err(error) => {
            found.error(&error);
            None
        }
    };
    for known in inventory::all(&context.config_dir)? {
        check_source(context, &known, &mut found);
    }
    for text in &found.strange {
        Output::warning(text);
    }
    for text in &found.wrong {
        Output::error(&Error::Usage(text.clone()));
    }
    if found.wrong.is_empty() {
        let count = general.map_or(0, |general| general.jobs.len());
        let text = format!(
            "{} is right ({count} jobs in it)",
            context.config_dir.display()
        );
        context.output.info(&text);
    }
    Ok(match (found.wrong.is_empty(), found.strange.is_empty()) {
        (false, _) => Exit::Usage,
        (true, false) => Exit::Warnings,
        (true, true) => Exit::Done,
    })
}

fn check_source(context: &Context, known: &Known, found: &mut Findings) {
    if let Err(error) = owner::refuse_foreign_workdir(&known.work) {
        found.error(&error);
    }
    match known.work.keeping() {
        Ok(_) => {}
        Err(error) => found.error(&error),
    }
    if let Err(error) = settings_of(context, known) {
        found.error(&error);
    }
    for (_, seen) in &known.stores {
        if let Err(error) = seen {
            found.error(error);
        }
    }
}

fn check_general(context: &Context, general: &General, found: &mut Findings) {
    if let Err(error) = stores::require_root(general) {
        found.error(&error);
    }
    let wrong = [
        general
            .jobs
            .values()
            .filter_map(|job| job.as_ref().err())
            .collect::<Vec<_>>(),
        general
            .notifiers
            .values()
            .filter_map(|notifier| notifier.as_ref().err())
            .collect(),
        general
            .ebs
            .iter()
            .filter_map(|ebs| ebs.as_ref().err())
            .collect(),
    ];
    found.wrong.extend(wrong.into_iter().flatten().cloned());
    let remotes = Remotes::of(general);
    for name in remotes.names() {
        if let Err(error) = remotes.config(name) {
            found.error(&error);
        }
    }
    check_jobs(context, general, found);
    check_notifiers(context, general, found);
    check_taken(general, &remotes, found);
}

fn check_jobs(context: &Context, general: &General, found: &mut Findings) {
    let jobs = match Jobs::all(context, general) {
        Ok(jobs) => jobs.jobs,
        Err(error) => return found.error(&error),
    };
    let mut dsts = BTreeSet::new();
    for job in jobs.iter().filter(|job| job.is_enabled) {
        let name = &job.name;
        if let Err(error) = general.store_path(&job.dst) {
            found.wrong.push(format!("{name}: {}", with_causes(&error)));
        }
        if !dsts.insert(&job.dst) {
            found.wrong.push(format!(
                "{name}: another job has the store {}, too",
                job.dst
            ));
        }
        match &job.what {
            Ok(What::Tree(path)) if !path.exists() && job.hooks.before.is_empty() => {
                found
                    .strange
                    .push(format!("{name}: there is no {}", path.display()));
            }
            Ok(What::Command(_, argv)) => check_program(name, &argv[0], found),
            Ok(_) => {}
            Err(_) if job.seen.is_some() => {}
            Err(why) => found.strange.push(format!("{name}: {why}")),
        }
        if let Some(Err(error)) = job.user.as_deref().map(owner::parse) {
            found.wrong.push(format!("{name}: {}", with_causes(&error)));
        }
        check_hooks(name, &job.hooks, found);
    }
    check_hooks("[hooks]", &general.hooks, found);
}

fn check_hooks(name: &str, hooks: &Hooks, found: &mut Findings) {
    for argv in [&hooks.before, &hooks.failed, &hooks.after]
        .into_iter()
        .flatten()
    {
        check_program(name, &argv[0], found);
    }
}

fn check_program(name: &str, program: &str, found: &mut Findings) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    let is_there = if program.contains('/') {
        Path::new(program).is_file()
    } else {
        places.any(|path| path.is_file())
    };
    if !is_there {
        found
            .strange
            .push(format!("{name}: there is no program {program}"));
    }
}

const READABLE_BY_OTHERS: u32 = 0o044;

fn check_notifiers(context: &Context, general: &General, found: &mut Findings) {
    let path = general::path(&context.config_dir);
    let is_open = std::fs::metadata(&path).is_ok_and(|meta| meta.mode() & READABLE_BY_OTHERS != 0)
        && std::fs::metadata(&context.config_dir)
            .is_ok_and(|meta| meta.mode() & READABLE_BY_OTHERS != 0);
    for (name, notifier) in &general.notifiers {
        if notifier
            .as_ref()
            .is_ok_and(|notifier| notifier.on.is_empty())
        {
            found.strange.push(format!(
                "[notify.{name}]: it is never used, as its list 'on' is empty"
            ));
        }
        match notifier.as_ref().map(|notifier| &notifier.way) {
            Ok(Way::Webhook(_) | Way::Ping(_)) if is_open => found.strange.push(format!(
                "[notify.{name}]: others can read its URL, which is as good as a password: chmod 600 {}",
                path.display()
            )),
            Ok(Way::Mail(mail)) if mail.server.is_none() && !mail.sendmail.exists() => {
                let sendmail = mail.sendmail.display();
                found.wrong.push(format!("[notify.{name}]: there is no {sendmail}; set sendmail, or smtp = \"HOST:PORT\""));
            }
            Ok(Way::Command(argv)) => check_program(&format!("[notify.{name}]"), &argv[0], found),
            _ => {}
        }
    }
}

/// A remote that takes no store at all is most likely a slip of the pen.
fn check_taken(general: &General, remotes: &Remotes, found: &mut Findings) {
    let (names, _) = stores::find(&general.root_path);
    for name in remotes.names() {
        let Ok(config) = remotes.config(name) else {
            continue;
        };
        if !names.is_empty() && !names.iter().any(|dst| config.takes(dst).unwrap_or(true)) {
            found.strange.push(format!(
                "[remote.{name}]: its stores match none of {}",
                names.join(", ")
            ));
        }
    }
}
