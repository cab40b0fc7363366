//! `verify`: proof that what is stored is what was stored.

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Reading, Verify};
use super::document;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::progress::Progress;
use super::remotes::{self, Remotes};
use super::rows::{VersionName, ranges};
use super::{Context, owner, stores};
use crate::catalog::version::describe;
use crate::error::{Error, printable};
use crate::ops::verify::{self, Broken, Fault, Report};
use crate::remote::Place;
use crate::store::Store;

/// So many damaged files are named where they were not looked at.
const NAMED_FILES: usize = 3;
/// So many members of a version are named.
const NAMED_MEMBERS: usize = 20;

#[derive(Serialize)]
struct Answer {
    stores: Vec<StoreRow>,
}

#[derive(Serialize)]
struct StoreRow {
    name: String,
    sound: bool,
    files: u64,
    bytes: u64,
    rebuilt_bytes: u64,
    versions: u64,
    faults: Vec<FaultRow>,
    broken: Vec<BrokenRow>,
}

#[derive(Serialize)]
struct FaultRow {
    file: String,
    detail: String,
    versions: Vec<u64>,
}

#[derive(Serialize)]
struct BrokenRow {
    version: VersionName,
    unreadable: Option<String>,
    members: Vec<String>,
}

pub fn run(context: &Context, args: &Verify) -> Result<Exit, Error> {
    let (names, mut exit) = if let Some(dst) = &args.dst {
        (vec![dst.clone()], Exit::Done)
    } else if let Some(remote) = &args.remote {
        let mirror = Remotes::existing(context)?.mirror(remote, "")?;
        let names = remotes::stores_in(&mirror)?;
        if names.is_empty() {
            let name = mirror.name();
            return Err(Error::Refused(format!("There is no store at {name}")));
        }
        (names, Exit::Done)
    } else {
        let general = stores::existing_config(context)?;
        stores::require_root(&general)?;
        let (names, unread) = stores::find(&general.root_path);
        unread.iter().for_each(Output::error);
        let exits = unread.iter().map(Exit::of);
        (names, exits.fold(Exit::Done, Exit::or))
    };
    let mut rows = Vec::new();
    for name in names {
        match one(context, args, &name) {
            Ok((report, is_known)) => {
                if !report.is_sound() || is_known {
                    exit = exit.or(Exit::Damage);
                }
                if context.output.json {
                    rows.push(row(&name, &report));
                }
                say(context, &name, &report, args.deep)?;
            }
            // One that cannot be read does not hide the others.
            Err(error) => {
                Output::error_of(&name, &error);
                exit = exit.or(Exit::of(&error));
            }
        }
    }
    if context.output.json {
        document::answer(&Answer { stores: rows });
    }
    Ok(exit)
}

/// What was found; and whether damage is known that this did not look at.
fn one(context: &Context, args: &Verify, name: &str) -> Result<(Report, bool), Error> {
    let reading = Reading {
        user: args.user.clone(),
        remote: args.remote.clone(),
        state: args.state,
        dst: name.to_owned(),
    };
    let read = stores::open_to_read(context, &reading)?;
    let store = &read.store;
    let only = args.at.as_deref().map(|text| read.index(context, text));
    let now = Timestamp::now();
    let seed = u64::try_from(now.as_nanosecond() & 0xffff_ffff).unwrap_or(0);
    let options = verify::Options {
        only: only.transpose()?,
        deep: args.deep,
        sample: args.sample.map(|percent| (percent, seed)),
    };
    let mut report = verify::verify(
        store,
        &read.state,
        &read.versions,
        &options,
        &Progress::new(context.output),
    )?;
    if args.remote.is_some() || Place::is_url(name) || args.state.is_some() {
        return Ok((report, false));
    }
    let record = report.record(&options, now, store.verified());
    // A store that cannot be written to can be verified all the same.
    if let Err(error) = store.record_verified(&record) {
        context.output.remark(&format!(
            "It is not recorded that {name} was verified: {error}"
        ));
    } else {
        let _ = store.log(now, &format!("verify: {record}"));
    }
    // Not recorded: it is no damage of a file, and what was seen may be forgotten with `fs --adopt`.
    let newest = read.versions.last().map(|version| version.seq);
    let old = rolled_back(context, store, name)?;
    report.faults.extend(old.map(|detail| Fault {
        file: "state".to_owned(),
        detail: format!("state: {detail}"),
        versions: newest.into_iter().collect(),
    }));
    // Whoever asks for one version wants to hear of that.
    let is_known = args.at.is_none() && !record.is_sound && report.is_sound();
    if is_known {
        let files: Vec<&str> = record
            .faults
            .iter()
            .take(NAMED_FILES)
            .map(String::as_str)
            .collect();
        Output::warning(&format!(
            "{name}: what was found damaged before was not read now; btw-backup verify {name} reads all: {}",
            files.join(", ")
        ));
    }
    Ok((report, is_known))
}

/// Remembers what a look at all files found, as far as the store can be written to.
pub fn record(store: &Store, report: &Report) {
    let options = verify::Options {
        only: None,
        deep: false,
        sample: None,
    };
    let record = report.record(&options, Timestamp::now(), store.verified());
    let _ = store.record_verified(&record);
}

/// What is wrong if this is not the store, or an older state of it, that this machine used last.
fn rolled_back(context: &Context, store: &Store, name: &str) -> Result<Option<String>, Error> {
    let work = owner::trusted_workdir(context, store.current()?.source_path())?;
    let seen = match work {
        Some(work) => work.seen(name)?,
        None => None,
    };
    let Some(seen) = seen else { return Ok(None) };
    // Read after what was seen: backups may go on.
    let state = store.current()?;
    Ok(if seen.store != state.store {
        Some("another store lies here than in the last run".to_owned())
    } else if seen.state > state.number {
        Some(format!(
            "the store is older than in the last run (state {} instead of {}): is it an old copy?",
            state.number, seen.state
        ))
    } else {
        None
    })
}

fn row(name: &str, report: &Report) -> StoreRow {
    let faults = report.faults.iter().map(|fault| FaultRow {
        file: fault.file.clone(),
        detail: fault.detail.clone(),
        versions: fault.versions.clone(),
    });
    let broken = report.broken.iter().map(|broken| BrokenRow {
        version: VersionName::from(&broken.version),
        unreadable: broken.unreadable.clone(),
        members: broken.members.iter().map(|path| printable(path)).collect(),
    });
    StoreRow {
        name: name.to_owned(),
        sound: report.is_sound(),
        files: report.files.len() as u64,
        bytes: report.bytes,
        rebuilt_bytes: report.rebuilt_bytes,
        versions: report.versions.len() as u64,
        faults: faults.collect(),
        broken: broken.collect(),
    }
}

fn say(context: &Context, name: &str, report: &Report, deep: bool) -> Result<(), Error> {
    let rebuilt = if deep {
        format!("; {} versions rebuilt", report.versions.len())
    } else {
        String::new()
    };
    let read = format!(
        "{} files, {}{rebuilt}",
        report.files.len(),
        output_bytes(report.bytes)
    );
    if report.is_sound() {
        let result = if report.files.is_empty() {
            "nothing read, the sample is too small".to_owned()
        } else {
            format!("sound ({read})")
        };
        context.output.info(&format!("{name}: {result}"));
        return Ok(());
    }
    let mut text = format!("{name}: damaged ({read})\n");
    for fault in &report.faults {
        text.push_str(&format!("  {}\n", fault.detail));
        if fault.versions.is_empty() {
            text.push_str("    no version needs it\n");
        }
    }
    report
        .broken
        .iter()
        .for_each(|broken| describe_broken(broken, &mut text));
    let is_broken = |seq: u64| report.broken.iter().any(|broken| broken.version.seq == seq);
    let good: Vec<u64> = report
        .versions
        .iter()
        .map(|version| version.seq)
        .filter(|seq| !is_broken(*seq))
        .collect();
    text.push_str(&if good.is_empty() {
        "  No version restores whole.\n".to_owned()
    } else {
        format!("  Versions that restore whole: {}\n", ranges(&good))
    });
    if report
        .broken
        .iter()
        .any(|broken| broken.unreadable.is_none())
    {
        text.push_str("  What is left of the others: btw-backup restore --partial\n");
    }
    text.push_str("  btw-backup repair puts right what a good copy is left of, here or in a remote. The next btw-backup fs stores anew what the newest version here lacks, if the source still has it. What stays lost goes with its versions: btw-backup delete.\n");
    if context.output.json {
        Output::fault(text.trim_end());
        return Ok(());
    }
    Output::answer(&text)
}

fn describe_broken(broken: &Broken, text: &mut String) {
    let name = describe(&broken.version);
    if let Some(why) = &broken.unreadable {
        text.push_str(&format!("  {name}: cannot be restored: {why}\n"));
        return;
    }
    if broken.members.is_empty() {
        text.push_str(&format!("  {name}: the end of its archive is damaged\n"));
        return;
    }
    text.push_str(&format!(
        "  {name}: {} members are damaged:\n",
        broken.members.len()
    ));
    for path in broken.members.iter().take(NAMED_MEMBERS) {
        text.push_str(&format!("    {}\n", printable(path)));
    }
    let more = broken.members.len().saturating_sub(NAMED_MEMBERS);
    if more > 0 {
        text.push_str(&format!("    and {more} more (--json names all)\n"));
    }
}
