//! Storing again what is left of old objects, so that they can go.
//!
//! An object stays as long as a version that is held whole needs a byte of it. One of which a third is dead is worth less
//! than its room: what is alive is put into this run's frames. What is written again is at most twice what died before, so
//! all rewriting together costs no more than twice what the changes themselves did.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::previous::Previous;
use crate::catalog::{FrameRef, Slice, Version};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::manifests::ManifestReader;
use crate::store::packer::{Lane, Packer};
use crate::store::pieces::{Origin, Pieces};
use crate::store::{Area, Store};

/// An object goes when less than this share of it is alive.
const ALIVE_MIN_PERCENT: u64 = 67;
/// A run stores at most this much again, or as much as is new.
const RUN_BYTES: u64 = 64 << 20;

/// The new stream with what is left in such objects packed again; `None` if there are none. `others` are the older
/// versions that stay whole: what they need stays anyway.
pub fn rewritten(
    store: &Store,
    pieces: &Pieces,
    previous: &Previous,
    others: &[&Version],
    packer: &mut Packer,
) -> Result<Option<Pieces>, StoreError> {
    let mut alive = Alive::of(pieces, previous)?;
    alive.keep_dying(store)?;
    if alive.objects.is_empty() {
        return Ok(None);
    }
    for other in others.iter().filter_map(|version| version.whole.as_ref()) {
        ManifestReader::open(store, &other.manifest).objects(&mut |object| {
            alive.objects.remove(&object);
        })?;
    }
    let chosen = alive.cheapest(pieces.new_bytes().max(RUN_BYTES));
    if chosen.is_empty() {
        return Ok(None);
    }
    let mut out = Pieces::default();
    let mut frame: Option<(FrameRef, Arc<Vec<u8>>)> = None;
    for piece in pieces.iter() {
        let Origin::Old(mut at) = piece.origin else {
            out.push(piece.origin, piece.len);
            continue;
        };
        for slice in slices(previous, at..at + piece.len)? {
            let origin = if chosen.contains(&slice.frame.object) {
                let known = frame.take().filter(|(known, _)| *known == slice.frame);
                let (_, bytes) = match known {
                    Some(known) => frame.insert(known),
                    None => frame.insert((slice.frame, previous.stream.checked(&slice.frame)?)),
                };
                let skip = slice.skip as usize;
                let packed =
                    packer.add(Lane::Small, &bytes[skip..skip + slice.take as usize], None)?;
                Origin::New(packed.frame, packed.skip)
            } else {
                Origin::Old(at)
            };
            out.push(origin, slice.take.into());
            at += u64::from(slice.take);
        }
    }
    Ok(Some(out))
}

fn slices(previous: &Previous, range: Range<u64>) -> Result<Vec<Slice>, StoreError> {
    let mut slices = Vec::new();
    let manifest = previous.stream.manifest();
    manifest.slices(range, &mut |slice| slices.push(slice))?;
    Ok(slices)
}

/// How much of each old object the new stream needs.
struct Alive {
    objects: HashMap<Digest, Need>,
}

#[derive(Default)]
struct Need {
    /// Raw bytes.
    raw: u64,
    /// The share that they have of the stored bytes, roughly.
    stored: u64,
}

impl Alive {
    fn of(pieces: &Pieces, previous: &Previous) -> Result<Self, StoreError> {
        let mut objects: HashMap<Digest, Need> = HashMap::new();
        let mut add = |slice: Slice| {
            let need = objects.entry(slice.frame.object).or_default();
            let take = u64::from(slice.take);
            need.raw += take;
            need.stored += take * u64::from(slice.frame.stored_bytes)
                / u64::from(slice.frame.raw_bytes).max(1);
        };
        for piece in pieces.iter() {
            if let Origin::Old(at) = piece.origin {
                let manifest = previous.stream.manifest();
                manifest.slices(at..at + piece.len, &mut add)?;
            }
        }
        Ok(Self { objects })
    }

    /// Forgets the objects of which enough is alive.
    fn keep_dying(&mut self, store: &Store) -> Result<(), StoreError> {
        let mut dying = HashMap::new();
        for (object, need) in self.objects.drain() {
            let path = Area::Objects.path(object);
            let file = store.disk().open(&path);
            let file = file.map_err(|error| StoreError::io("open", path, error))?;
            if need.stored * 100 < file.len() * ALIVE_MIN_PERCENT {
                dying.insert(object, need);
            }
        }
        self.objects = dying;
        Ok(())
    }

    /// Those that free the most for what is written again, within a limit.
    fn cheapest(self, max_bytes: u64) -> HashSet<Digest> {
        let mut objects: Vec<(Digest, Need)> = self.objects.into_iter().collect();
        objects.sort_unstable_by_key(|(object, need)| (need.raw, *object));
        let mut sum = 0;
        let fits = objects.into_iter().take_while(|(_, need)| {
            sum += need.raw;
            sum <= max_bytes
        });
        fits.map(|(object, _)| object).collect()
    }
}
