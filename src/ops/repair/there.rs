//! Good data from here for a copy.

use std::collections::BTreeSet;

use super::{Donor, Mended, is_state};
use crate::error::Error;
use crate::remote::mirror::Mirror;
use crate::remote::names::{Held, Listing};
use crate::store::{Store, archive, collect};

/// Writes files that are damaged in a copy anew, from a store whose own are proved good first. A state is written only
/// when everything that it names is there.
pub fn mend_there(
    store: &Store,
    donor: &Donor,
    files: &BTreeSet<String>,
    dry_run: bool,
) -> Result<Vec<Mended>, Error> {
    let mut mended = Vec::new();
    for file in files {
        let done = if is_state(file) {
            publish_again(store, donor, file, dry_run)?
        } else if archive::check_file(store, file).is_ok() {
            if !dry_run {
                upload_again(store, &donor.mirror, file)?;
            }
            true
        } else {
            false
        };
        mended.extend(done.then(|| Mended {
            file: file.clone(),
            from: store.name().to_owned(),
        }));
    }
    Ok(mended)
}

/// Makes a copy readable whose newest state is damaged: by the same state, or by a later one, with all that it names.
fn publish_again(store: &Store, donor: &Donor, file: &str, dry_run: bool) -> Result<bool, Error> {
    let number: u64 = file.trim_start_matches("state/").parse().unwrap_or(0);
    let state = match store.state(number) {
        Ok(state) => state,
        Err(_) => store.current()?,
    };
    if state.number < number {
        return Ok(false);
    }
    if dry_run {
        return Ok(true);
    }
    let versions = store.versions(&state)?;
    for path in collect::files_of(store, &state, &versions)? {
        let held = donor.listing.files.get(&path).map(Held::len);
        if held.is_none() || held != Some(store.len_of(&path)?) {
            donor.mirror.upload(store, &path, &donor.listing)?;
        }
    }
    if state.number == number {
        donor.mirror.upload(store, file, &Listing::default())?;
    } else {
        donor
            .mirror
            .publish(state.number, &store.state_text(state.number)?)?;
    }
    Ok(true)
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
