//! `list`: stores and versions, for people and for programs.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::args::List;
use super::document;
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::Output;
use super::remotes::{self, Remotes};
use super::rows::VersionRow as Row;
use super::{Context, stores};
use crate::catalog::version::describe;
use crate::catalog::{Version, VersionKind};
use crate::config::general::General;
use crate::error::Error;
use crate::format::state::Pin;
use crate::format::verified::Verified;
use crate::remote::mirror::Mirror;
use crate::store::Store;
use crate::time::rfc3339;

#[derive(Serialize)]
struct AllStores {
    stores: Vec<OneStore>,
}

#[derive(Serialize)]
struct OneStore {
    name: String,
    path: String,
    versions: Vec<Row>,
}

#[derive(Serialize)]
struct StoreAnswer {
    versions: Vec<Row>,
    verified: Option<VerifiedRow>,
    pins: Vec<PinRow>,
}

/// A version that is not to be deleted.
#[derive(Serialize)]
struct PinRow {
    seq: u64,
    note: String,
}

/// What was verified last.
#[derive(Serialize)]
struct VerifiedRow {
    timestamp: String,
    deep: bool,
    percent: f64,
    only: Option<u64>,
    newest: u64,
    sound: bool,
}

impl From<&Verified> for VerifiedRow {
    fn from(verified: &Verified) -> Self {
        Self {
            timestamp: rfc3339(verified.time),
            deep: verified.deep,
            percent: verified.percent,
            only: verified.only,
            newest: verified.newest,
            sound: verified.is_sound,
        }
    }
}

pub fn run(context: &Context, args: &List) -> Result<Exit, Error> {
    let remotes = Remotes::existing(context)?;
    let dst = args.dst.as_deref().unwrap_or_default();
    if let Some(mirror) = remotes.chosen(dst, args.remote.as_deref())? {
        return match remotes::open_store(&mirror, None, args.state) {
            Ok(store) => one(context, &store),
            Err(Error::Refused(_)) if args.state.is_none() => in_remote(context, &mirror),
            Err(error) => Err(error),
        };
    }
    let general = stores::existing_config(context)?;
    match &args.dst {
        Some(dst) => one(
            context,
            &stores::as_of(stores::open(&general, dst)?, args.state)?,
        ),
        None => all(context, &general),
    }
}

/// The stores in a directory of a remote.
fn in_remote(context: &Context, mirror: &Mirror) -> Result<Exit, Error> {
    let names = remotes::stores_in(mirror)?;
    if names.is_empty() {
        let name = mirror.name();
        return Err(Error::Refused(format!("There is no store at {name}")));
    }
    let mut exit = Exit::Done;
    let mut found = Vec::new();
    for name in names {
        let copy = mirror.below(&name);
        match versions(&copy.store(None)) {
            Ok(versions) => found.push((name, copy.name().to_owned(), versions)),
            Err(error) => {
                Output::error_of(&name, &error);
                exit = exit.or(Exit::of(&error));
            }
        }
    }
    show_all(context, &found)?;
    Ok(exit)
}

fn one(context: &Context, store: &Store) -> Result<Exit, Error> {
    let versions = versions(store)?;
    let verified = store.verified();
    let pins = store.current()?.pins;
    if context.output.json {
        document::answer(&StoreAnswer {
            versions: versions.iter().map(Row::from).collect(),
            verified: verified.as_ref().map(VerifiedRow::from),
            pins: pins
                .into_iter()
                .map(|Pin { seq, note }| PinRow { seq, note })
                .collect(),
        });
    } else {
        let zone = TimeZone::system();
        let mut text = table(&versions, &zone);
        for pin in &pins {
            text.push_str(&match &pin.note[..] {
                "" => format!("v{} is pinned\n", pin.seq),
                note => format!("v{} is pinned: {note}\n", pin.seq),
            });
        }
        text.push_str(
            &verified.map_or_else(String::new, |verified| verified_line(&verified, &zone)),
        );
        Output::answer(&text)?;
    }
    Ok(Exit::Done)
}

/// A store that cannot be read does not hide the others; the worst result counts.
fn all(context: &Context, general: &General) -> Result<Exit, Error> {
    stores::require_root(general)?;
    let mut exit = Exit::Done;
    let mut found = Vec::new();
    let (names, unread) = stores::find(&general.root_path);
    for error in unread {
        Output::error(&error);
        exit = exit.or(Exit::of(&error));
    }
    for name in names {
        match stores::open(general, &name).and_then(|store| versions(&store)) {
            Ok(versions) => {
                let path = general.root_path.join(&name).display().to_string();
                found.push((name, path, versions));
            }
            Err(error) => {
                Output::error_of(&name, &error);
                exit = exit.or(Exit::of(&error));
            }
        }
    }
    show_all(context, &found)?;
    Ok(exit)
}

/// Stores: names, places, versions.
fn show_all(context: &Context, found: &[(String, String, Vec<Version>)]) -> Result<(), Error> {
    if context.output.json {
        let stores = found.iter().map(|(name, path, versions)| OneStore {
            name: name.clone(),
            path: path.clone(),
            versions: versions.iter().map(Row::from).collect(),
        });
        document::answer(&AllStores {
            stores: stores.collect(),
        });
    } else {
        for (name, _, versions) in found {
            Output::answer(&summary(name, versions))?;
        }
    }
    Ok(())
}

fn versions(store: &Store) -> Result<Vec<Version>, Error> {
    let _guard = store.lock_reader()?;
    Ok(store.versions(&store.current()?)?)
}

fn verified_line(verified: &Verified, zone: &TimeZone) -> String {
    let time = verified.time.to_zoned(zone.clone());
    let how = if verified.deep {
        "every version rebuilt"
    } else {
        "every file read"
    };
    let what = match (verified.only, verified.percent < 100.0) {
        (Some(seq), _) => format!("only v{seq}"),
        (None, true) => format!("{} % of the files read", verified.percent),
        (None, false) => format!("{how}, up to v{}", verified.newest),
    };
    let result = if verified.is_sound {
        "sound"
    } else {
        "damaged"
    };
    format!(
        "verified {} ({what}): {result}\n",
        time.strftime("%Y-%m-%d %H:%M:%S %:z")
    )
}

fn summary(name: &str, versions: &[Version]) -> String {
    match versions.last() {
        Some(last) => format!(
            "{name}: {} versions, the newest {}\n",
            versions.len(),
            describe(last)
        ),
        None => format!("{name}: no versions\n"),
    }
}

/// Oldest first; increments stand indented under their full.
fn table(versions: &[Version], zone: &TimeZone) -> String {
    if versions.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "{:<7} {:<26} {:<9} {:<6} {:>11} {:>11} {:>11} {:>9}\n",
        "version", "time", "kind", "stored", "size", "added", "holds", "members"
    );
    for version in versions {
        let indent = if version.kind == VersionKind::Increment {
            " "
        } else {
            ""
        };
        let name = format!("{indent}v{}", version.seq);
        let time = version
            .time
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S %:z");
        let [size, added, holds] = [
            version.size_bytes,
            version.added_bytes,
            version.stored_bytes(),
        ]
        .map(output_bytes);
        let partial = if version.is_partial() {
            "  partial"
        } else {
            ""
        };
        let (kind, stored, members) = (version.kind.word(), version.stored_word(), version.members);
        out.push_str(&format!("{name:<7} {time:<26} {kind:<9} {stored:<6} {size:>11} {added:>11} {holds:>11} {members:>9}{partial}\n"));
    }
    out
}
