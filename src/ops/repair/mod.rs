//! Good data for bad: from a remote for this machine's store, from here for the remote.
//!
//! Nothing is removed: what is damaged here is moved to `damaged/`, and only once what takes its place is on the disk and
//! proved. A file of a remote is written over only where the one here was just proved. Copies of other stores have no part
//! in it, whatever their files are called.

mod there;

pub use there::mend_there;

use std::collections::BTreeSet;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::digest::hex;
use crate::error::{Error, RemoteError, RemoteFault, StoreError, with_causes};
use crate::format::state::{self, State};
use crate::remote::mirror::Mirror;
use crate::remote::names::{Held, Listing};
use crate::report::Monitor;
use crate::store::{ASIDE, Area, Store, archive, collect, state_path};

/// Where what takes its place is proved.
const GOOD: &str = "damaged/good";

/// A copy that good data may come from, and what is in it.
pub struct Donor {
    /// The copy.
    pub mirror: Mirror,
    /// Its files.
    pub listing: Listing,
    /// Its newest state that can be read, if any can.
    pub state: Option<State>,
    identity: Option<Uuid>,
}

impl Donor {
    /// Looks what a copy has; `None` if there is no store.
    pub fn of(mirror: Mirror) -> Result<Option<Self>, Error> {
        let listing = mirror.list()?;
        let mut numbers = listing.states();
        if numbers.is_empty() {
            return Ok(None);
        }
        let (mut state, mut identity) = (None, None);
        while let (None, Some(number)) = (&state, numbers.pop()) {
            let text = mirror.state(number)?;
            state = state::decode(&text).ok();
            identity = identity.or_else(|| identity_of(&text));
        }
        Ok(Some(Self {
            identity: state.as_ref().map(|state| state.store).or(identity),
            mirror,
            listing,
            state,
        }))
    }

    /// Whether it is a copy of this store: by the store's identity, or, where no state here can be read, by what both have.
    pub fn is_of(&self, store: &Store) -> Result<bool, Error> {
        let mut numbers = store.state_numbers()?;
        while let Some(number) = numbers.pop() {
            let text = store.state_text(number).ok();
            let known = text.and_then(|text| identity_of(&text));
            if let (Some(here), Some(there)) = (known, self.identity) {
                return Ok(here == there);
            }
        }
        for area in [Area::Objects, Area::Catalogs] {
            let has = |name: &String| {
                let path = format!("{}/{name}", area.dir());
                self.listing.files.contains_key(&path)
            };
            if store.list(area)?.iter().any(has) {
                return Ok(true);
            }
        }
        // There is nothing here that could be another's.
        Ok(store.list(Area::Objects)?.is_empty() && store.list(Area::Catalogs)?.is_empty())
    }
}

/// The identity that a state tells, also a damaged one.
fn identity_of(state: &[u8]) -> Option<Uuid> {
    let text = String::from_utf8_lossy(state);
    let line = text.lines().find_map(|line| line.strip_prefix("store "))?;
    line.parse().ok()
}

/// A file that was made good, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Its path in the store.
    pub file: String,
    /// Where it came from.
    pub from: String,
}

/// Brings a store back to where there is no state of one: as the first donor has it, with files of all of them. What is here
/// already and good stays, so that a run which was cut off is gone on with. The state comes last. Files that nobody has any
/// more are left out: verification names what needs them.
pub fn bring_back(
    store: &Store,
    donors: &[Donor],
    now: Timestamp,
    monitor: &dyn Monitor,
) -> Result<Option<u64>, Error> {
    let with_state = donors
        .iter()
        .find_map(|donor| Some((donor, donor.state.as_ref()?)));
    let Some((first, state)) = with_state else {
        return Ok(None);
    };
    let there = first.mirror.store(None).as_of(Some(state.number));
    let versions = there.versions(state)?;
    let files = collect::files_of(&there, state, &versions)?;
    store.create()?;
    let len = |file: &String| first.listing.files.get(file).map_or(0, Held::len);
    monitor.step("bringing the store back", Some(files.iter().map(len).sum()));
    // Digest files come with their archives.
    for file in files.iter().filter(|file| !file.ends_with(".sha256")) {
        let is_here = archive::check_file(store, file).is_ok();
        if !is_here {
            mend(store, &BTreeSet::from([file.clone()]), donors, false, now)?;
        }
        monitor.advance(len(file));
    }
    let path = BTreeSet::from([state_path(state.number)]);
    mend(store, &path, std::slice::from_ref(first), false, now)?;
    Ok(Some(state.number))
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
    let disk = store.disk();
    let failed = |error| StoreError::io("create", ASIDE, error);
    if !dry_run && !files.is_empty() {
        disk.create_dir(ASIDE).map_err(failed)?;
        store.sync_dir("")?;
    }
    let mut mended = Vec::new();
    for file in files {
        let mut unasked = None;
        for donor in donors {
            let here = Here {
                store,
                donor,
                dry_run,
                now,
            };
            let done = if archive::is_archive(file) {
                here.archive(file)
            } else {
                here.file(file)
                    .map(|done| done.then(|| file.clone()).into_iter().collect())
            };
            let done: Vec<String> = match done {
                Ok(done) => done,
                // Damaged there too, or the remote fails: perhaps another one has it.
                Err(Error::Remote(error)) => {
                    unasked = (error.fault == RemoteFault::Temporary)
                        .then_some(error)
                        .or(unasked);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let from = donor.mirror.name().to_owned();
            mended.extend(done.iter().map(|file| Mended {
                file: file.clone(),
                from: from.clone(),
            }));
            if !done.is_empty() {
                unasked = None;
                break;
            }
        }
        // Whether it has the file is not known: nothing is to be called lost.
        if let Some(error) = unasked {
            return Err(error.into());
        }
    }
    Ok(mended)
}

/// One donor for one store.
struct Here<'a> {
    store: &'a Store,
    donor: &'a Donor,
    dry_run: bool,
    now: Timestamp,
}

impl Here<'_> {
    /// Takes a file that says by itself what must be in it: by its name, or a state by its checksum.
    fn file(&self, file: &str) -> Result<bool, Error> {
        let Some(held) = self.donor.listing.files.get(file) else {
            return Ok(false);
        };
        if is_state(file) {
            let mut content = Vec::new();
            self.donor.mirror.fetch(file, held, &mut |bytes| {
                content.extend_from_slice(bytes);
                Ok(())
            })?;
            if state::decode(&content).is_err() {
                return Err(self.useless(file));
            }
        }
        self.fetch(file, held, &mut |_| ())?;
        self.put_in_place(file)?;
        Ok(true)
    }

    /// Takes an archive, its digest file, or both: whatever makes them agree, and what is good stays.
    fn archive(&self, file: &str) -> Result<Vec<String>, Error> {
        let digest_file = archive::digest_name(file);
        let files = &self.donor.listing.files;
        let line = |sha256: &[u8]| format!("{}  {file}\n", hex(sha256));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let said_here = self
            .store
            .read_all(&digest_file)
            .map(text)
            .unwrap_or_default();
        let mut said_there = Vec::new();
        if let Some(held) = files.get(&digest_file) {
            self.donor.mirror.fetch(&digest_file, held, &mut |bytes| {
                said_there.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        let said_there = text(said_there);
        let mut hasher = Sha256::new();
        let is_here = self
            .store
            .read_pieces(file, &mut |bytes| hasher.update(bytes))
            .is_ok();
        if is_here && line(&hasher.finalize()) == said_there {
            self.write(&digest_file, said_there.as_bytes())?;
            return Ok(vec![digest_file]);
        }
        let Some(held) = files.get(file) else {
            return Ok(Vec::new());
        };
        let mut hasher = Sha256::new();
        self.fetch(file, held, &mut |bytes| hasher.update(bytes))?;
        let is = line(&hasher.finalize());
        if is == said_here {
            self.put_in_place(file)?;
            return Ok(vec![file.to_owned()]);
        }
        if is != said_there {
            return Err(self.useless(file));
        }
        self.put_in_place(file)?;
        self.write(&digest_file, said_there.as_bytes())?;
        Ok(vec![file.to_owned(), digest_file])
    }

    fn useless(&self, file: &str) -> Error {
        Error::Remote(RemoteError {
            op: "use",
            path: file.to_owned(),
            remote: self.donor.mirror.name().to_owned(),
            detail: "it is damaged there".to_owned(),
            fault: RemoteFault::Other,
        })
    }

    /// Brings a file to where it waits for its place; in a dry run it is only proved.
    fn fetch(&self, file: &str, held: &Held, see: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let mirror = &self.donor.mirror;
        if self.dry_run {
            return mirror.fetch(file, held, &mut |bytes| {
                see(bytes);
                Ok(())
            });
        }
        let failed = |error| StoreError::io("write", file, error);
        let _ = self.store.disk().remove(GOOD);
        let mut out = self.store.disk().create(GOOD, false).map_err(failed)?;
        mirror.fetch(file, held, &mut |bytes| {
            see(bytes);
            out.write(bytes).map_err(failed)
        })?;
        Ok(out.sync().map_err(failed)?)
    }

    fn write(&self, file: &str, content: &[u8]) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        let failed = |error| StoreError::io("write", file, error);
        let _ = self.store.disk().remove(GOOD);
        let mut out = self.store.disk().create(GOOD, false).map_err(failed)?;
        out.write(content)
            .and_then(|()| out.sync())
            .map_err(failed)?;
        drop(out);
        self.put_in_place(file)
    }

    /// The damaged file makes room for the good one.
    fn put_in_place(&self, file: &str) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        let disk = self.store.disk();
        let failed = |error| StoreError::io("move aside", file, error);
        if disk.open(file).is_ok() {
            let stamp = self.now.strftime("%Y%m%dT%H%M%S");
            let name = file.replace('/', "-");
            let mut number = 0;
            // What was put there before stays, too.
            while let Err(error) =
                disk.publish(file, &format!("{ASIDE}/{name}.{stamp}.{number}"), false)
            {
                if error.kind() != std::io::ErrorKind::AlreadyExists {
                    return Err(failed(error).into());
                }
                number += 1;
            }
        }
        disk.publish(GOOD, file, false).map_err(failed)?;
        self.store.sync_dir(ASIDE)?;
        self.store
            .sync_dir(file.rsplit_once('/').map_or("", |(dir, _)| dir))?;
        Ok(())
    }
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
