//! `repair`: good data for bad, from wherever it is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::backing::Writing;
use super::donors::{donors, refuse_others};
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::progress::Progress;
use super::remotes::Remotes;
use super::stores::Opened;
use super::{Context, args, document, fs, owner, stores, verify as verifying};
use crate::config::general::General;
use crate::config::workdir::Workdir;
use crate::error::Error;
use crate::ops::repair::{self, Donor, Mended};
use crate::ops::verify::{self, Report};
use crate::store::Store;

#[derive(clap::Args)]
pub struct Repair {
    /// Only with this remote [default: all that have a copy]
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Wait while another run uses the store
    #[arg(long)]
    pub wait: bool,
    /// Whose the store is, if it is not root's and root changes it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The store, a path below `ROOT_PATH`; one that is gone is brought back
    pub dst: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    store: &'a str,
    sound: bool,
    /// What is damaged here and nowhere whole.
    lost: Vec<&'a str>,
}

/// So many times what was found only after something else was mended is looked at, too.
const ROUNDS: usize = 6;

pub fn run(context: &Context, args: &Repair) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    stores::require_root(&general)?;
    let remotes = Remotes::of(&general);
    let (mut donors, mut exit) = donors(&remotes, (args.remote.as_ref(), &args.dst))?;
    // That with the latest state first.
    let number = |donor: &Donor| donor.state.as_ref().map(|state| state.number);
    donors.sort_by_key(|donor| std::cmp::Reverse(number(donor)));
    let is_here = general.store_path(&args.dst)?.is_dir();
    if !is_here && donors.is_empty() {
        return Err(Error::Refused(format!(
            "{} is not here, and no remote has a copy of it",
            args.dst
        )));
    }
    let ownership = owner::of_store(context, None, args.user.as_deref(), &args.dst)?;
    if !is_here && args.dry_run {
        let from = donors[0].mirror.name();
        Output::answer(&format!("{} would be brought back from {from}\n", args.dst))?;
        return Ok(exit);
    }
    let opened = stores::open_to_repair(&general, &args.dst, &ownership, args.wait)?;
    let store = &opened.store;
    exit = exit.or(refuse_others(store, &mut donors)?);
    if store.state_numbers()?.is_empty() {
        bring_back(context, store, &donors, args)?;
    }
    mend_state(context, store, &donors, args)?;
    let report = mend_here(context, store, &donors, args)?;
    for donor in &donors {
        exit = exit.or(mend_there(context, store, donor, args)?);
    }
    let report = by_source(context, &general, opened, report, args)?;
    tell_of_lost(&args.dst, &report)?;
    document::answer(&Answer {
        store: &args.dst,
        sound: report.is_sound(),
        lost: report.faults.iter().map(|fault| &*fault.detail).collect(),
    });
    Ok(if report.is_sound() {
        exit
    } else {
        exit.or(Exit::Damage)
    })
}

fn bring_back(
    context: &Context,
    store: &Store,
    donors: &[Donor],
    args: &Repair,
) -> Result<(), Error> {
    let dst = &args.dst;
    let Some(first) = donors.first() else {
        return Err(Error::Refused(format!(
            "{dst} has no state here, and no remote has a copy of it"
        )));
    };
    let from = first.mirror.name();
    if args.dry_run {
        return Err(Error::Refused(format!(
            "{dst} has no state here; without --dry-run it is brought back from {from}"
        )));
    }
    let now = Timestamp::now();
    let number = {
        let progress = Progress::new(context.output);
        repair::bring_back(store, donors, now, &progress)?
    };
    let Some(number) = number else {
        return Err(Error::Refused(format!(
            "{dst} has no state here, and none of the remotes has one that can be read"
        )));
    };
    let text = format!("brought back from {from}: state {number}");
    context.output.info(&format!("{dst}: {text}"));
    let _ = store.log(now, &format!("repair: {text}"));
    Ok(())
}

fn mend_state(
    context: &Context,
    store: &Store,
    donors: &[Donor],
    args: &Repair,
) -> Result<(), Error> {
    let Some((file, why)) = repair::damaged_state(store)? else {
        return Ok(());
    };
    let mended = repair::mend(
        store,
        &BTreeSet::from([file.clone()]),
        donors,
        args.dry_run,
        Timestamp::now(),
    )?;
    if mended.is_empty() {
        return Err(Error::Refused(format!(
            "{}: {file} is damaged ({why}), and no remote has it. What remotes have of older states can be restored from there: btw-backup list --remote NAME {}",
            args.dst, args.dst
        )));
    }
    tell(context, args, &mended)?;
    if args.dry_run {
        return Err(Error::Refused(format!(
            "{}: without {file} nothing else can be found out",
            args.dst
        )));
    }
    Ok(())
}

fn look(context: &Context, store: &Store) -> Result<Report, Error> {
    let state = store.current()?;
    let versions = store.versions(&state)?;
    let options = verify::Options {
        only: None,
        deep: false,
        sample: None,
    };
    verify::verify(
        store,
        &state,
        &versions,
        &options,
        &Progress::new(context.output),
    )
}

fn files(report: &Report) -> BTreeSet<String> {
    report
        .faults
        .iter()
        .map(|fault| fault.file.clone())
        .collect()
}

/// Mends what copies have. A page that is read again may name further files.
fn mend_here(
    context: &Context,
    store: &Store,
    donors: &[Donor],
    args: &Repair,
) -> Result<Report, Error> {
    let mut report = look(context, store)?;
    if report.is_sound() {
        context
            .output
            .info(&format!("{}: nothing is damaged here", args.dst));
    }
    for _ in 0..ROUNDS {
        if report.is_sound() {
            break;
        }
        let mended = repair::mend(
            store,
            &files(&report),
            donors,
            args.dry_run,
            Timestamp::now(),
        )?;
        tell(context, args, &mended)?;
        if args.dry_run {
            // What would be taken is not lost.
            let is_left = |file: &str| !mended.iter().any(|mended| mended.file == file);
            report.faults.retain(|fault| is_left(&fault.file));
            let needs = |seq: u64| {
                report
                    .faults
                    .iter()
                    .any(|fault| fault.versions.contains(&seq))
            };
            report.broken.retain(|broken| needs(broken.version.seq));
            break;
        }
        if mended.is_empty() {
            break;
        }
        report = look(context, store)?;
    }
    if !args.dry_run {
        verifying::record(store, &report);
    }
    Ok(report)
}

fn mend_there(
    context: &Context,
    store: &Store,
    donor: &Donor,
    args: &Repair,
) -> Result<Exit, Error> {
    let mirror = &donor.mirror;
    let there = mirror.store(Some(store));
    let damaged = match repair::damaged_state(&there)? {
        Some((file, _)) => BTreeSet::from([file]),
        None => files(&look(context, &there)?),
    };
    if damaged.is_empty() {
        context
            .output
            .info(&format!("{}: nothing is damaged there", mirror.name()));
        return Ok(Exit::Done);
    }
    let mended = repair::mend_there(store, donor, &damaged, args.dry_run)?;
    for Mended { file, .. } in &mended {
        say(
            context,
            args,
            &format!(
                "{}: {file}: {}",
                mirror.name(),
                words(args, "written anew from here")
            ),
        )?;
    }
    let left: Vec<&String> = damaged
        .iter()
        .filter(|file| !mended.iter().any(|mended| mended.file == **file))
        .collect();
    for file in &left {
        Output::warning(&format!(
            "{}: {file} is damaged there, and here there is no good one",
            mirror.name()
        ));
    }
    Ok(if left.is_empty() {
        Exit::Done
    } else {
        Exit::Damage
    })
}

fn words(args: &Repair, done: &str) -> String {
    if args.dry_run {
        format!("would be {done}")
    } else {
        done.to_owned()
    }
}

fn say(context: &Context, args: &Repair, text: &str) -> Result<(), Error> {
    if args.dry_run {
        return Output::answer(&format!("{text}\n"));
    }
    context.output.info(text);
    Ok(())
}

fn tell(context: &Context, args: &Repair, mended: &[Mended]) -> Result<(), Error> {
    for Mended { file, from } in mended {
        let text = words(args, &format!("taken from {from}"));
        say(context, args, &format!("{}: {file}: {text}", args.dst))?;
    }
    Ok(())
}

/// What the newest version lacks and no copy has may still be in the source: a backup stores it anew.
fn by_source(
    context: &Context,
    general: &General,
    opened: Opened,
    report: Report,
    args: &Repair,
) -> Result<Report, Error> {
    let store = opened.store.clone();
    let state = store.current()?;
    let newest = report.versions.last().map(|version| version.seq);
    let is_broken = report
        .broken
        .iter()
        .any(|broken| Some(broken.version.seq) == newest);
    let source = state.source_path();
    let is_here = source.is_absolute() && source.exists() && state.host == super::backing::host();
    if !is_broken || !is_here || Workdir::find(&context.config_dir, source)?.is_none() {
        return Ok(report);
    }
    let text = words(args, &format!("stored anew from {}", source.display()));
    say(
        context,
        args,
        &format!("{}: what the newest version lacks: {text}", args.dst),
    )?;
    if args.dry_run {
        return Ok(report);
    }
    drop(opened);
    let backup = args::Fs {
        init: false,
        allow_empty: false,
        writing: Writing {
            adopt: false,
            wait: args.wait,
            no_sync: false,
            user: args.user.clone(),
        },
        dry_run: false,
        read_special: Vec::new(),
        src: source.to_path_buf(),
        dst: args.dst.clone(),
    };
    fs::run(context, &backup)?;
    look(context, &stores::open(general, &args.dst)?)
}

fn tell_of_lost(dst: &str, report: &Report) -> Result<(), Error> {
    if report.is_sound() {
        return Ok(());
    }
    let mut text = String::new();
    for fault in &report.faults {
        text.push_str(&format!(
            "{dst}: lost, unless another copy has it: {}\n",
            fault.detail
        ));
    }
    for broken in &report.broken {
        let members = broken.members.len();
        let bytes = output_bytes(broken.version.size_bytes);
        text.push_str(&format!(
            "{dst}: v{} ({bytes}) cannot be restored whole: {members} members are damaged; btw-backup restore --partial brings the rest\n",
            broken.version.seq
        ));
    }
    Output::answer(&text)
}
