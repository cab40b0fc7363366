//! The scan of a raw stream: cut into blocks by content, each either known already or packed.
//!
//! A block that differs is often the old one with a few rows changed. Such blocks are laid beside the old stream, of which
//! long stretches are taken over: a change costs what changed, and the old stream's delta is known without a search.

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};

use super::batches::{Batches, Block, Cutting};
use super::content::KnownBlocks;
use super::scanned::Scanned;
use super::{Options, Previous};
use crate::catalog::{Content, Cut, Kind, Member};
use crate::delta::align::Aligner;
use crate::delta::{Piece, Script};
use crate::digest::Digest;
use crate::dump::{Dump, END_BYTES, Started, Summary};
use crate::error::{Error, StoreError};
use crate::report::Monitor;
use crate::store::Store;
use crate::store::catalogs::CatalogReader;
use crate::store::packer::Lane;
use crate::store::pieces::{Origin, Pieces};
use crate::store::staging::Staged;

/// What one thread lays beside the old stream at a time.
const PART_BYTES: usize = 1 << 20;
/// So much of the old stream before the expected place is looked at, and so much behind what is expected.
const BEFORE_BYTES: u64 = 64 << 10;
const BEHIND_BYTES: u64 = 1 << 20;

/// Reads a dump to its end. Nothing of it counts unless it was complete.
pub fn scan(
    store: &Store,
    options: &Options,
    dump: &dyn Dump,
    previous: Option<&Previous>,
    staged: &Staged,
    monitor: &dyn Monitor,
) -> Result<Scanned, Error> {
    let mut scan = StreamScan {
        cutting: Cutting::of(options.knobs),
        known: KnownBlocks::new(store, previous, staged),
        old: OldBlocks::of(store, previous)?,
        previous,
        expected: 0,
        cuts: Vec::new(),
        placed: Pieces::default(),
        monitor,
        out: Scanned::begin(store, options, previous)?,
    };
    let Started { output, verdict } = dump.start()?;
    let batches = Batches::of(output, scan.cutting)?;
    let end = scan.run(&batches)?;
    scan.out.said = verdict.finish(&Summary {
        bytes: scan.out.pieces.len(),
        end: &end,
    })?;
    Ok(scan.end(dump.name(), options)?)
}

/// The previous version's blocks in order.
#[derive(Default)]
struct OldBlocks {
    cuts: Vec<Cut>,
    /// Where each begins.
    starts: Vec<u64>,
    /// The one that is expected next.
    next: usize,
}

impl OldBlocks {
    fn of(store: &Store, previous: Option<&Previous>) -> Result<Self, StoreError> {
        let Some(previous) = previous else {
            return Ok(Self::default());
        };
        let mut members = CatalogReader::open(store, &previous.version.catalog)?;
        let Some((0, member)) = members.next_member()? else {
            return Err(StoreError::damaged("catalogs", "a stream without content"));
        };
        let starts = member.placed_blocks(0).map(|block| block.offset).collect();
        Ok(Self {
            cuts: member.content.cuts.unwrap_or_default(),
            starts,
            next: 0,
        })
    }

    /// Where the next block begins if it is this one.
    fn expected(&self, digest: &Digest) -> Option<u64> {
        let cut = self.cuts.get(self.next)?;
        (cut.digest == *digest).then(|| self.starts[self.next])
    }

    /// A block was found there.
    fn found(&mut self, start: u64) {
        self.next = self.starts.partition_point(|known| *known <= start);
    }
}

struct StreamScan<'a> {
    cutting: Cutting,
    known: KnownBlocks<'a>,
    old: OldBlocks,
    previous: Option<&'a Previous>,
    /// Where in the old stream the next bytes are expected.
    expected: u64,
    cuts: Vec<Cut>,
    /// The new stream as it is to be stored: see [`Scanned::placed`].
    placed: Pieces,
    monitor: &'a dyn Monitor,
    out: Scanned,
}

impl StreamScan<'_> {
    /// Places all that comes, and returns the last bytes.
    fn run(&mut self, batches: &Batches) -> Result<Vec<u8>, Error> {
        let (mut end, mut is_complete) = (Vec::new(), false);
        for batch in batches.iter() {
            let unread = |error| Error::Dump(format!("Cannot read the dump: {error}"));
            let batch = batch.map_err(unread)?;
            is_complete = batch.is_last;
            let bytes = batch.bytes();
            self.place(bytes, &batch.blocks)?;
            self.monitor.advance(bytes.len() as u64);
            end.extend_from_slice(&bytes[bytes.len().saturating_sub(END_BYTES)..]);
            end.drain(..end.len().saturating_sub(END_BYTES));
            batches.give_back(batch);
        }
        if is_complete {
            return Ok(end);
        }
        // A thread that reads or cuts has died. What came before is no dump.
        Err(Error::Dump("Cannot read the dump to its end".into()))
    }

    fn place(&mut self, bytes: &[u8], blocks: &[Block]) -> Result<(), StoreError> {
        self.cuts.extend(blocks.iter().map(|block| Cut {
            len: u32::try_from(block.len()).expect("blocks are bounded"),
            digest: block.digest,
        }));
        // The first block that is not placed yet.
        let mut from = 0;
        for (at, block) in blocks.iter().enumerate() {
            let Some(origin) = self.find(block)? else {
                continue;
            };
            if from < at {
                self.place_unknown(bytes, &blocks[from..at], Some(origin))?;
            }
            self.take(origin, block);
            from = at + 1;
        }
        if from < blocks.len() {
            self.place_unknown(bytes, &blocks[from..], None)?;
        }
        Ok(())
    }

    fn find(&mut self, block: &Block) -> Result<Option<Origin>, StoreError> {
        match self.old.expected(&block.digest) {
            Some(start) => Ok(Some(Origin::Old(start))),
            None => self.known.find(&block.digest, block.len()),
        }
    }

    fn take(&mut self, origin: Origin, block: &Block) {
        if let Origin::Old(start) = origin {
            self.old.found(start);
            self.expected = start + block.len();
        }
        self.out.pieces.push(origin, block.len());
        self.placed.push(origin, block.len());
    }

    /// Places neighbouring blocks that nothing is known of. `next` is where the one behind them was found.
    fn place_unknown(
        &mut self,
        bytes: &[u8],
        blocks: &[Block],
        next: Option<Origin>,
    ) -> Result<(), StoreError> {
        let run = blocks[0].range.start..blocks[blocks.len() - 1].range.end;
        let script = self.beside_old(&bytes[run.clone()], next)?;
        let mut at = 0;
        for block in blocks {
            let parts: Vec<Piece<'_>> = script.slice(at..at + block.len()).collect();
            at += block.len();
            if self.is_coherent(&parts, block)? {
                self.place_parts(&parts)?;
            } else {
                self.place_anew(&bytes[block.range.clone()], &parts, block)?;
            }
        }
        Ok(())
    }

    /// Whether it is better to take over what a block has of the old stream than to store the block anew. Each change cuts
    /// it into more slices; many small ones take more room than what they name, and time.
    fn is_coherent(&self, parts: &[Piece<'_>], block: &Block) -> Result<bool, StoreError> {
        let (mut slices, mut is_known) = (0, false);
        for part in parts {
            match (part, self.previous) {
                (Piece::Copy { offset, len }, Some(previous)) => {
                    is_known = true;
                    let manifest = previous.stream.manifest();
                    manifest.slices(*offset..offset + len, &mut |_| slices += 1)?;
                }
                _ => slices += 1,
            }
        }
        Ok(is_known && slices * self.cutting.worth_keeping() <= block.len())
    }

    fn place_parts(&mut self, parts: &[Piece<'_>]) -> Result<(), StoreError> {
        for part in parts {
            let origin = match part {
                Piece::Copy { offset, len } => {
                    self.expected = offset + len;
                    Origin::Old(*offset)
                }
                Piece::Literal(bytes) => {
                    let packed = self.out.packer.add(Lane::Small, bytes, None)?;
                    Origin::New(packed.frame, packed.skip)
                }
            };
            self.out.pieces.push(origin, part.output_bytes());
            self.placed.push(origin, part.output_bytes());
        }
        Ok(())
    }

    /// Packs a whole block, which is known from now on. What it has of the old stream is still known: that makes the delta.
    fn place_anew(
        &mut self,
        bytes: &[u8],
        parts: &[Piece<'_>],
        block: &Block,
    ) -> Result<(), StoreError> {
        let known = Some((block.digest, block.len()));
        let packed = self.out.packer.add(Lane::Small, bytes, known)?;
        let origin = Origin::New(packed.frame, packed.skip);
        self.known.remember(block.digest, block.len(), origin);
        self.placed.push(origin, block.len());
        let mut skip = packed.skip;
        for part in parts {
            let origin = match part {
                Piece::Copy { offset, len } => {
                    self.expected = offset + len;
                    Origin::Old(*offset)
                }
                Piece::Literal(_) => Origin::New(packed.frame, skip),
            };
            self.out.pieces.push(origin, part.output_bytes());
            skip += u32::try_from(part.output_bytes()).expect("frames are bounded");
        }
        Ok(())
    }

    /// What makes a run of new bytes of the old stream, as far as long stretches of it stand near the expected place.
    fn beside_old(&self, run: &[u8], next: Option<Origin>) -> Result<Script, StoreError> {
        let mut script = Script::new();
        let Some(previous) = self.previous else {
            script.literal(run);
            return Ok(script);
        };
        // Up to where the block behind the run was, if that is ahead: then nothing else can be between.
        let reach = self.expected + run.len() as u64 + BEHIND_BYTES;
        let until = match next {
            Some(Origin::Old(start)) if start >= self.expected => start.min(reach),
            _ => reach,
        };
        let region = self.expected.saturating_sub(BEFORE_BYTES)..until.min(previous.stream.len());
        if region.is_empty() {
            script.literal(run);
            return Ok(script);
        }
        let old = previous.stream.read(region.clone())?;
        let aligner = Aligner::of(&old, region.start, self.cutting.worth_taking());
        let expected = self.expected;
        let parts: Vec<(usize, &[u8])> = run.chunks(PART_BYTES).enumerate().collect();
        let search = |(number, part): &(usize, &[u8])| {
            aligner.align(part, expected + (number * PART_BYTES) as u64)
        };
        let scripts: Vec<Script> = parts.par_iter().map(search).collect();
        for part in &scripts {
            part.pieces().for_each(|piece| script.push(piece));
        }
        Ok(script)
    }

    fn end(mut self, name: &str, options: &Options) -> Result<Scanned, StoreError> {
        let content = Content::stream(self.cuts);
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let name_of = |name: nix::Result<Option<String>>| name.ok().flatten().unwrap_or_default();
        let user = nix::unistd::User::from_uid(uid.as_raw().into());
        let group = nix::unistd::Group::from_gid(gid.as_raw().into());
        self.out.members = 1;
        self.out.size_bytes = content.size;
        self.out.is_file = true;
        self.out.placed = Some(self.placed);
        self.out.catalog.add(&Member {
            path: name.as_bytes().to_vec(),
            kind: Kind::Regular,
            mode: 0o600,
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            user: name_of(user.map(|user| user.map(|user| user.name))).into_bytes(),
            group: name_of(group.map(|group| group.map(|group| group.name))).into_bytes(),
            mtime: (options.now.as_second(), 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            content,
            header_bytes: 0,
            torn: false,
        })?;
        Ok(self.out)
    }
}
