//! Good data for bad: from a remote for this machine's store, from here for the remote.
//!
//! Nothing is removed: what is damaged here is moved to `damaged/`, and only once what takes its place is on the disk. A
//! file of a remote is written over only where the one here was just proved.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::error::{Error, StoreError, with_causes};
use crate::format::state;
use crate::remote::mirror::Mirror;
use crate::remote::names::{Held, Listing};
use crate::report::Monitor;
use crate::store::file::TEMPORARY;
use crate::store::{Presence, Store, archive, collect, state_path};

/// Where what is damaged goes.
const ASIDE: &str = "damaged";

/// A copy that good data may come from, and what is in it.
pub struct Donor {
    /// The copy.
    pub mirror: Mirror,
    /// Its files.
    pub listing: Listing,
}

impl Donor {
    /// Looks what a copy has; `None` if there is no store.
    pub fn of(mirror: Mirror) -> Result<Option<Self>, Error> {
        let listing = mirror.list()?;
        let is_store = !listing.states().is_empty();
        Ok(is_store.then_some(Self { mirror, listing }))
    }
}

/// A file that was made good, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Its path in the store.
    pub file: String,
    /// Where it came from.
    pub from: String,
}

/// Brings a whole store from a copy to where there is none. Its state comes last.
pub fn bring_back(store: &Store, donor: &Donor, monitor: &dyn Monitor) -> Result<u64, Error> {
    if store.presence()? != Presence::Empty {
        let name = store.name();
        return Err(Error::Refused(format!(
            "{name} is not empty: nothing was brought back there"
        )));
    }
    let there = donor.mirror.store(None);
    let state = there.current()?;
    let versions = there.versions(&state)?;
    let files = collect::files_of(&there, &state, &versions)?;
    store.create()?;
    let len = |file: &String| donor.listing.files.get(file).map_or(0, Held::len);
    monitor.step("bringing the store back", Some(files.iter().map(len).sum()));
    for file in &files {
        let held = donor.listing.files.get(file).ok_or_else(|| {
            StoreError::damaged(format!("{}/{file}", donor.mirror.name()), "it is missing")
        })?;
        install(store, donor, file, held)?;
        monitor.advance(held.len());
    }
    let path = state_path(state.number);
    let held = Held::Whole { len: 0 };
    install(store, donor, &path, &held)?;
    Ok(state.number)
}

/// Writes a copy's file under a temporary name, syncs it and gives it its name.
fn install(store: &Store, donor: &Donor, file: &str, held: &Held) -> Result<(), Error> {
    let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    // In a directory whose leftovers the next run removes.
    let temporary = format!("state/{TEMPORARY}repair");
    let disk = store.disk();
    let failed = |error| StoreError::io("write", file, error);
    let _ = disk.remove(&temporary);
    let mut out = disk.create(&temporary, false).map_err(failed)?;
    donor
        .mirror
        .fetch(file, held, &mut |bytes| out.write(bytes).map_err(failed))?;
    out.sync().map_err(failed)?;
    drop(out);
    if is_state(file) {
        let content = store.read_all(&temporary)?;
        state::decode(&content).map_err(|error| StoreError::format(file, &error))?;
    }
    disk.publish(&temporary, file, false).map_err(failed)?;
    store.sync_dir(dir)?;
    Ok(())
}

fn is_state(file: &str) -> bool {
    file.starts_with("state/")
}

/// Makes good the files of a store that are damaged or missing, as far as copies have them. The caller holds the writers'
/// lock.
pub fn mend(
    store: &Store,
    files: &BTreeSet<String>,
    donors: &[Donor],
    dry_run: bool,
    now: Timestamp,
) -> Result<Vec<Mended>, Error> {
    let mut mended = Vec::new();
    for file in files {
        if !archive::is_archive(file) {
            mended.extend(mend_one(store, file, donors, dry_run, now)?);
            continue;
        }
        // It is judged by its digest file, which is short: that one first.
        let digest = archive::digest_name(file);
        mended.extend(mend_one(store, &digest, donors, dry_run, now)?);
        if dry_run || archive::check_file(store, file).is_err() {
            mended.extend(mend_one(store, file, donors, dry_run, now)?);
        }
    }
    Ok(mended)
}

fn mend_one(
    store: &Store,
    file: &str,
    donors: &[Donor],
    dry_run: bool,
    now: Timestamp,
) -> Result<Option<Mended>, Error> {
    for donor in donors {
        let Some(held) = donor.listing.files.get(file) else {
            continue;
        };
        let from = donor.mirror.name().to_owned();
        if dry_run {
            if donor.mirror.fetch(file, held, &mut |_| Ok(())).is_ok() {
                let file = file.to_owned();
                return Ok(Some(Mended { file, from }));
            }
            continue;
        }
        match replace(store, donor, file, held, now) {
            Ok(()) => {
                let file = file.to_owned();
                return Ok(Some(Mended { file, from }));
            }
            // Damaged there too, or the remote fails: perhaps another one has it.
            Err(Error::Remote(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The damaged file makes room once the good one is on the disk.
fn replace(
    store: &Store,
    donor: &Donor,
    file: &str,
    held: &Held,
    now: Timestamp,
) -> Result<(), Error> {
    let disk = store.disk();
    let failed = |error| StoreError::io("move aside", file, error);
    let good = format!("{ASIDE}/good");
    disk.create_dir(ASIDE).map_err(failed)?;
    let _ = disk.remove(&good);
    let mut out = disk.create(&good, false).map_err(failed)?;
    donor.mirror.fetch(file, held, &mut |bytes| {
        out.write(bytes)
            .map_err(|error| StoreError::io("write", file, error))
    })?;
    out.sync().map_err(failed)?;
    drop(out);
    if is_state(file) {
        let content = store.read_all(&good)?;
        state::decode(&content).map_err(|error| StoreError::format(file, &error))?;
    }
    if disk.open(file).is_ok() {
        let stamp = now.strftime("%Y%m%dT%H%M%S");
        let aside = format!("{ASIDE}/{}.{stamp}", file.replace('/', "-"));
        disk.publish(file, &aside, true).map_err(failed)?;
    }
    disk.publish(&good, file, false).map_err(failed)?;
    store.sync_dir(ASIDE)?;
    store.sync_dir(file.rsplit_once('/').map_or("", |(dir, _)| dir))?;
    Ok(())
}

/// Writes files that are damaged in a copy anew, from a store whose own are proved good first.
pub fn mend_there(
    store: &Store,
    mirror: &Mirror,
    files: &BTreeSet<String>,
    dry_run: bool,
) -> Result<Vec<Mended>, Error> {
    let mut mended = Vec::new();
    for file in files {
        let is_good = if is_state(file) {
            let number = file.trim_start_matches("state/").parse().unwrap_or(0);
            store.state(number).is_ok()
        } else {
            archive::check_file(store, file).is_ok()
        };
        if !is_good {
            continue;
        }
        if !dry_run {
            upload_again(store, mirror, file)?;
        }
        mended.push(Mended {
            file: file.clone(),
            from: store.name().to_owned(),
        });
    }
    Ok(mended)
}

/// Writes a file of a copy as if nothing of it were there; of an archive only what differs.
fn upload_again(store: &Store, mirror: &Mirror, file: &str) -> Result<(), Error> {
    if archive::is_archive(file) {
        mirror.upload(store, &archive::digest_name(file), &Listing::default())?;
        if archive::check_file(&mirror.store(Some(store)), file).is_ok() {
            return Ok(());
        }
    }
    mirror.upload(store, file, &Listing::default())?;
    Ok(())
}

/// Why the current state of a store cannot be read, if it cannot, and its file.
pub fn damaged_state(store: &Store) -> Result<Option<(String, String)>, Error> {
    let Some(&number) = store.state_numbers()?.last() else {
        return Ok(None);
    };
    match store.state(number).map(drop) {
        Ok(()) => Ok(None),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
            Ok(Some((state_path(number), with_causes(&error))))
        }
        Err(error) => Err(error.into()),
    }
}
