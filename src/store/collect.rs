//! Removing what no state names any more, and what interrupted runs left.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use super::file::TEMPORARY;
use super::manifests::ManifestReader;
use super::tree::TreeReader;
use super::{Area, READERS, Store, archive, staging};
use crate::catalog::Version;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::format::state::State;

/// Removes temporary files of earlier runs. The caller holds the writers' lock.
pub fn remove_temporaries(store: &Store) -> Result<(), StoreError> {
    for area in Area::ALL {
        for name in store
            .list(area)?
            .into_iter()
            .filter(|name| name.starts_with(TEMPORARY))
        {
            let path = format!("{}/{name}", area.dir());
            match store.disk().remove(&path) {
                // A verification that runs beside has given it its name.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.map_err(|error| StoreError::io("remove", &path, error))?,
            }
        }
    }
    Ok(())
}

/// Removes archives that no version names: what a run left that failed after it had put one together. They are as large as
/// versions, so this is done before the next one is made. `versions` are all of the current state's.
pub fn remove_orphans(
    store: &Store,
    current: &State,
    versions: &[Version],
) -> Result<(), StoreError> {
    if !current.retained.is_empty() {
        // What retained states name is looked up after the run.
        return Ok(());
    }
    let named: HashSet<&str> = versions.iter().filter_map(Version::archive).collect();
    let archives = store
        .list_top()?
        .into_iter()
        .filter(|name| archive::is_archive(name));
    for orphan in archives.filter(|name| !named.contains(archive::of_file(name))) {
        store.remove(&orphan)?;
    }
    Ok(())
}

/// Removes states that are neither current nor retained, then files that no remaining state names, then the staging
/// record. `versions` are all of the current state's. The caller holds the writers' lock; if anybody is reading, everything
/// is left for a later run and `false` is returned. What an interrupted backup has staged goes too, unless it is to stay.
pub fn collect(
    store: &Store,
    current: &State,
    versions: &[Version],
    now: Timestamp,
    unfinished: Unfinished,
) -> Result<bool, StoreError> {
    let readers = store
        .disk()
        .lock(READERS, true, false)
        .map_err(|error| StoreError::io("lock", READERS, error))?;
    if readers.is_none() {
        return Ok(false);
    }
    let kept: Vec<u64> = current
        .retained
        .iter()
        .filter(|retained| retained.until > now)
        .map(|retained| retained.number)
        .collect();
    let mut others = Vec::new();
    let mut removed = false;
    for number in store.state_numbers()? {
        if number == current.number {
            continue;
        }
        if kept.contains(&number) {
            others.push(store.state(number)?);
        } else {
            store.remove(&super::state_path(number))?;
            removed = true;
        }
    }
    if removed {
        // Before anything that only they name goes: a state that comes back after a crash must find its files.
        store.sync_dir(Area::State.dir())?;
    }
    let mut named = Named::default();
    name_state(store, current, versions, &mut named)?;
    for state in &others {
        name_state(store, state, &store.versions(state)?, &mut named)?;
    }
    let is_kept = |name: &Digest| {
        unfinished == Unfinished::Stays && !named.files.contains(&(Area::Objects, *name))
    };
    staging::clear(store, is_kept)?;
    if unfinished == Unfinished::Stays {
        let kept = staging::objects(store)?;
        named.files.extend(kept.map(|name| (Area::Objects, name)));
    }
    for path in unnamed(store, &named)? {
        store.remove(&path)?;
    }
    Ok(true)
}

/// What becomes of what an interrupted backup has staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The next backup takes it over.
    Stays,
    /// It was taken over, or is given up.
    Goes,
}

/// What versions need.
#[derive(Default)]
struct Named {
    files: HashSet<(Area, Digest)>,
    archives: HashSet<String>,
}

/// What a version needs by itself, not counting what the newer versions need that its delta builds on: paths of files. The
/// second is what could not be looked into, so that not everything is known.
pub fn needed(
    store: &Store,
    version: &Version,
) -> Result<(Vec<String>, Option<StoreError>), StoreError> {
    let mut named = Named::default();
    let result = name_version(store, version, &mut named).and_then(|()| {
        let catalog = TreeReader::open(store, Area::Catalogs, &version.catalog);
        catalog.visit(&mut |page| {
            let pack = page.pack.map(|pack| (Area::Catalogs, pack));
            named.files.extend(pack);
        })
    });
    let unknown = match result {
        Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => Some(error),
        result => result.map(|()| None)?,
    };
    let files = named.files.iter().map(|(area, name)| area.path(*name));
    Ok((files.chain(named.archives).collect(), unknown))
}

/// The paths of all files that a state with these versions names, the state itself not among them.
pub fn files_of(
    store: &Store,
    state: &State,
    versions: &[Version],
) -> Result<BTreeSet<String>, StoreError> {
    let mut named = Named::default();
    name_state(store, state, versions, &mut named)?;
    let files = named.files.iter().map(|(area, name)| area.path(*name));
    let archives = named.archives.iter();
    let archives = archives.flat_map(|name| [name.clone(), archive::digest_name(name)]);
    Ok(files.chain(archives).collect())
}

/// What becomes of the store's files when other versions are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The length of those that nothing names any more.
    pub gone_bytes: u64,
    /// The length of those that were not named before.
    pub new_bytes: u64,
}

/// What becomes of the files when the second versions and catalog packs are named instead of the first ones.
pub fn difference(
    store: &Store,
    before: (&[Version], &[Digest]),
    after: (&[Version], &[Digest]),
) -> Result<Difference, StoreError> {
    let named = |(versions, packs): (&[Version], &[Digest])| {
        let mut named = Named::default();
        for version in versions {
            // Of what is damaged as much is counted as is known.
            if let Err(error) = name_version(store, version, &mut named) {
                error.into_fault()?;
            }
        }
        let packs = packs.iter().map(|pack| (Area::Catalogs, *pack));
        named.files.extend(packs);
        let files = named.files.iter().map(|(area, name)| area.path(*name));
        Ok::<HashSet<String>, StoreError>(files.chain(named.archives).collect())
    };
    let (before, after) = (named(before)?, named(after)?);
    // A file that is missing, which is damage, frees nothing.
    let length = |path: &String| store.disk().open(path).map_or(0, |file| file.len());
    Ok(Difference {
        gone_bytes: before.difference(&after).map(length).sum(),
        new_bytes: after.difference(&before).map(length).sum(),
    })
}

/// The files of content, pages and deltas that a state does not name.
pub fn leftovers(store: &Store, state: &State) -> Result<Vec<String>, StoreError> {
    let mut named = Named::default();
    name_state(store, state, &store.versions(state)?, &mut named)?;
    unnamed(store, &named)
}

/// The files that these versions name and that are not there, and what cannot even be looked into. A quick look at
/// names, not at content.
pub fn missing(store: &Store, versions: &[Version]) -> Result<Vec<String>, StoreError> {
    let mut named = Named::default();
    let mut missing = Vec::new();
    for version in versions {
        match name_version(store, version, &mut named) {
            Err(StoreError::Damaged { file, detail }) => missing.push(format!("{file}: {detail}")),
            result => result?,
        }
    }
    let mut there = HashSet::new();
    for area in [Area::Objects, Area::Manifests, Area::Catalogs, Area::Deltas] {
        there.extend(
            store
                .list(area)?
                .iter()
                .filter_map(|name| Some((area, name.parse().ok()?))),
        );
    }
    missing.extend(
        named
            .files
            .difference(&there)
            .map(|(area, name)| format!("{}: it is missing", area.path(*name))),
    );
    let top = store.list_top()?;
    let gone = named.archives.iter().filter(|name| !top.contains(name));
    missing.extend(gone.map(|name| format!("{name}: it is missing")));
    missing.sort();
    missing.dedup();
    Ok(missing)
}

fn unnamed(store: &Store, named: &Named) -> Result<Vec<String>, StoreError> {
    let mut left = Vec::new();
    for area in [
        Area::Objects,
        Area::Manifests,
        Area::Catalogs,
        Area::Deltas,
        Area::Versions,
    ] {
        let is_named = |name: &String| {
            name.parse()
                .is_ok_and(|digest| named.files.contains(&(area, digest)))
        };
        let unnamed = store.list(area)?.into_iter().filter(|name| !is_named(name));
        left.extend(unnamed.map(|name| format!("{}/{name}", area.dir())));
    }
    let is_named = |name: &String| named.archives.contains(archive::of_file(name));
    let archives = store
        .list_top()?
        .into_iter()
        .filter(|name| archive::is_archive(name));
    left.extend(archives.filter(|name| !is_named(name)));
    Ok(left)
}

/// Adds all files that a state with these versions names.
fn name_state(
    store: &Store,
    state: &State,
    versions: &[Version],
    named: &mut Named,
) -> Result<(), StoreError> {
    named.files.extend(
        state
            .archived
            .iter()
            .map(|file| (Area::Versions, file.name)),
    );
    named
        .files
        .extend(state.kept_packs.iter().map(|pack| (Area::Catalogs, *pack)));
    versions
        .iter()
        .try_for_each(|version| name_version(store, version, named))
}

/// Adds all files that a version needs but for those of newer versions.
fn name_version(store: &Store, version: &Version, named: &mut Named) -> Result<(), StoreError> {
    named
        .files
        .extend(version.pack.iter().map(|pack| (Area::Catalogs, *pack)));
    named
        .files
        .extend(version.delta.iter().map(|file| (Area::Deltas, file.name)));
    if let Some(whole) = &version.whole {
        // The next version is made beside this one's catalog: all of it is needed, also what older packs hold.
        let catalog = TreeReader::open(store, Area::Catalogs, &version.catalog);
        catalog.visit(&mut |page| {
            named
                .files
                .extend(page.pack.map(|pack| (Area::Catalogs, pack)));
        })?;
        let manifest = ManifestReader::open(store, &whole.manifest);
        manifest.pages(&mut |page| {
            named
                .files
                .extend(page.pack.map(|pack| (Area::Manifests, pack)));
        })?;
        if let Some(archive) = &whole.archive {
            named.archives.insert(archive.clone());
            return Ok(());
        }
        manifest.objects(&mut |object| {
            named.files.insert((Area::Objects, object));
        })?;
    }
    Ok(())
}
