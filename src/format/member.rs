//! Leaves of a catalog: records of members and of their blocks.
//!
//! `btwc`, format version u8, then records in bincode's standard configuration (variable-length little-endian integers,
//! lengths before sequences) until the end. A member's block digests follow it in records of one region (256 blocks,
//! 16 MiB of the file) each; regions that are all hole have none. A raw stream's blocks follow it in a record each. A page
//! may begin between them.

use bincode::{Decode, Encode};

use super::FormatError;
use crate::catalog::member::{Content, Cut, Kind, Member, Run, region_key};
use crate::digest::Digest;

const MAGIC: &[u8; 4] = b"btwc";
const VERSION: u8 = 1;
const HEADER: [u8; 5] = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], VERSION];
/// Blocks in one record.
const REGION_BLOCKS: u64 = 256;
/// No record may claim more memory than this.
const LIMIT: usize = 64 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
> = bincode::config::standard().with_limit::<LIMIT>();

/// One record of a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A member, without its blocks.
    Member(MemberRecord),
    /// Block digests of the last member.
    Blocks(BlocksRecord),
    /// The next block of the last member, which is a raw stream.
    Cut(CutRecord),
}

/// A member on disk; the fields are those of [`Member`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemberRecord {
    path: Vec<u8>,
    kind: u8,
    flags: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    user: Vec<u8>,
    group: Vec<u8>,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    link: Vec<u8>,
    device: (u32, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    size: u64,
    header_bytes: u32,
    digest: [u8; 32],
}

impl MemberRecord {
    /// The member's path.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

/// The data blocks of one region.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlocksRecord {
    region: u64,
    /// Number of the first block within the region, and the digests from there on.
    runs: Vec<(u8, Vec<[u8; 32]>)>,
}

/// A block of a raw stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CutRecord {
    len: u32,
    digest: [u8; 32],
}

const KINDS: [Kind; 8] = [
    Kind::Regular,
    Kind::Directory,
    Kind::Symlink,
    Kind::HardLink,
    Kind::CharDevice,
    Kind::BlockDevice,
    Kind::Fifo,
    Kind::Absent,
];
const FLAG_TORN: u8 = 1;
const FLAG_STREAM: u8 = 2;
/// So many records of each kind make a page on average. Those of blocks are larger.
const PAGE_MEMBERS: u16 = 128;
const PAGE_REGIONS: u16 = 8;
const PAGE_CUTS: u16 = 128;

/// A record with the key by which pages are searched.
pub struct Keyed {
    /// The member's path, or [`region_key`].
    pub key: Vec<u8>,
    /// Its bytes in a leaf.
    pub bytes: Vec<u8>,
    /// Whether it begins a member.
    pub is_member: bool,
    /// Whether it begins a page. Chosen by a digest, so that an insertion moves no later boundary.
    pub begins_page: bool,
}

fn chance(digest: Digest, of: u16) -> bool {
    u16::from_le_bytes([digest.0[0], digest.0[1]]).is_multiple_of(of)
}

/// The beginning of every leaf.
pub fn header() -> Vec<u8> {
    HEADER.to_vec()
}

/// The records of a member, in order.
pub fn encode(member: &Member) -> Vec<Keyed> {
    let keyed = |key: Vec<u8>, record: &Record| Keyed {
        bytes: bincode::encode_to_vec(record, CONFIG).expect("a Vec takes everything"),
        is_member: matches!(record, Record::Member(_)),
        begins_page: match record {
            Record::Member(_) => chance(Digest::of(&key), PAGE_MEMBERS),
            Record::Blocks(_) => chance(Digest::of(&key), PAGE_REGIONS),
            Record::Cut(cut) => chance(Digest(cut.digest), PAGE_CUTS),
        },
        key,
    };
    let mut records = vec![keyed(
        member.path.clone(),
        &Record::Member(to_record(member)),
    )];
    for blocks in regions(&member.content) {
        records.push(keyed(
            region_key(&member.path, blocks.region),
            &Record::Blocks(blocks),
        ));
    }
    for cut in member.content.cuts.iter().flatten() {
        let record = CutRecord {
            len: cut.len,
            digest: cut.digest.0,
        };
        // The same for all: a number would change with each insertion.
        records.push(keyed(region_key(&member.path, 0), &Record::Cut(record)));
    }
    records
}

fn to_record(member: &Member) -> MemberRecord {
    let kind = KINDS
        .iter()
        .position(|kind| *kind == member.kind)
        .expect("every kind is listed");
    MemberRecord {
        path: member.path.clone(),
        kind: u8::try_from(kind).expect("few kinds"),
        flags: if member.torn { FLAG_TORN } else { 0 }
            | if member.content.is_stream() {
                FLAG_STREAM
            } else {
                0
            },
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        user: member.user.clone(),
        group: member.group.clone(),
        mtime_seconds: member.mtime.0,
        mtime_nanoseconds: member.mtime.1,
        link: member.link.clone(),
        device: member.device,
        xattrs: member.xattrs.clone(),
        size: member.content.size,
        header_bytes: member.header_bytes,
        digest: member.content.digest.0,
    }
}

fn regions(content: &Content) -> Vec<BlocksRecord> {
    let mut records: Vec<BlocksRecord> = Vec::new();
    for run in &content.runs {
        let mut first = run.first;
        let mut digests = &run.digests[..];
        while !digests.is_empty() {
            let (region, within) = (first / REGION_BLOCKS, first % REGION_BLOCKS);
            let count = digests
                .len()
                .min(usize::try_from(REGION_BLOCKS - within).expect("at most 256"));
            if records.last().is_none_or(|record| record.region != region) {
                records.push(BlocksRecord {
                    region,
                    runs: Vec::new(),
                });
            }
            let start = u8::try_from(within).expect("below 256");
            let part = digests[..count].iter().map(|digest| digest.0).collect();
            records
                .last_mut()
                .expect("just pushed")
                .runs
                .push((start, part));
            first += count as u64;
            digests = &digests[count..];
        }
    }
    records
}

/// Reads a leaf.
pub fn decode(raw: &[u8]) -> Result<Vec<Record>, FormatError> {
    let Some(mut rest) = raw.strip_prefix(MAGIC).and_then(|rest| rest.split_first()) else {
        return Err(FormatError::content("not a catalog page"));
    };
    if *rest.0 != VERSION {
        return Err(FormatError::Newer {
            found: rest.0.to_string(),
            known: VERSION.into(),
        });
    }
    let mut records = Vec::new();
    while !rest.1.is_empty() {
        let decoded = bincode::decode_from_slice(rest.1, CONFIG);
        let (record, used): (Record, usize) =
            decoded.map_err(|error| FormatError::content(error.to_string()))?;
        records.push(record);
        rest.1 = &rest.1[used..];
    }
    Ok(records)
}

/// Begins a member from its record. Its blocks are added with [`add_blocks`] and checked with [`finish`].
pub fn begin(record: MemberRecord) -> Result<Member, FormatError> {
    let kind = *KINDS
        .get(usize::from(record.kind))
        .ok_or_else(|| FormatError::content("unknown kind of member"))?;
    let is_stream = record.flags & FLAG_STREAM != 0;
    let is_strange = (record.size != 0 || is_stream) && kind != Kind::Regular
        || is_stream && record.header_bytes != 0;
    let flags = record.flags & !FLAG_TORN & !FLAG_STREAM;
    if flags != 0 || record.mtime_nanoseconds > 999_999_999 || is_strange {
        return Err(FormatError::content("a member's record is out of range"));
    }
    Ok(Member {
        path: record.path,
        kind,
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        user: record.user,
        group: record.group,
        mtime: (record.mtime_seconds, record.mtime_nanoseconds),
        link: record.link,
        device: record.device,
        xattrs: record.xattrs,
        content: Content {
            size: record.size,
            digest: Digest(record.digest),
            runs: Vec::new(),
            cuts: is_stream.then(Vec::new),
        },
        header_bytes: record.header_bytes,
        torn: record.flags & FLAG_TORN != 0,
    })
}

/// Adds a region's blocks to a member that was begun.
pub fn add_blocks(member: &mut Member, blocks: BlocksRecord) -> Result<(), FormatError> {
    let bad = || FormatError::content("block digests out of order");
    let runs = &mut member.content.runs;
    for (within, digests) in blocks.runs {
        let first = blocks
            .region
            .checked_mul(REGION_BLOCKS)
            .and_then(|start| start.checked_add(within.into()))
            .ok_or_else(bad)?;
        first.checked_add(digests.len() as u64).ok_or_else(bad)?;
        let digests = digests.into_iter().map(Digest);
        let next = runs
            .last()
            .map_or(0, |run| run.first + run.digests.len() as u64);
        match runs.last_mut() {
            Some(last) if first == next => last.digests.extend(digests),
            _ if first < next => return Err(bad()),
            _ => runs.push(Run {
                first,
                digests: digests.collect(),
            }),
        }
    }
    Ok(())
}

/// Adds a block to a member that was begun and is a raw stream.
pub fn add_cut(member: &mut Member, cut: &CutRecord) -> Result<(), FormatError> {
    let bad = || FormatError::content("a block of no stream");
    let cuts = member.content.cuts.as_mut().ok_or_else(bad)?;
    if cut.len == 0 {
        return Err(FormatError::content("an empty block"));
    }
    cuts.push(Cut {
        len: cut.len,
        digest: Digest(cut.digest),
    });
    Ok(())
}

/// Checks a member whose blocks are complete: they are within the file and have the file's digest.
pub fn finish(member: Member) -> Result<Member, FormatError> {
    let content = &member.content;
    let blocks = content.size.div_ceil(crate::digest::BLOCK_BYTES as u64);
    let fits = content
        .runs
        .last()
        .is_none_or(|run| run.first + run.digests.len() as u64 <= blocks);
    let consistent = if let Some(cuts) = &content.cuts {
        content.runs.is_empty()
            && cuts.iter().map(|cut| u64::from(cut.len)).sum::<u64>() == content.size
            && Content::digest_of_cuts(cuts) == content.digest
    } else if content.is_large() {
        fits && Content::digest_of_runs(content.size, &content.runs) == content.digest
    } else {
        content.runs.is_empty()
    };
    if consistent {
        Ok(member)
    } else {
        Err(FormatError::content(
            "a member's blocks do not have its digest",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Record, add_blocks, add_cut, begin, decode, encode, finish, header};
    use crate::catalog::member::{Content, Cut, Kind, Member, Run};
    use crate::digest::Digest;
    use crate::format::FormatError;
    use proptest::prelude::{any, prop, proptest};

    fn member(content: Content) -> Member {
        Member {
            path: b"d/\xff".to_vec(),
            kind: Kind::Regular,
            mode: 0o4755,
            uid: u32::MAX - 1,
            gid: 1,
            user: b"u".to_vec(),
            group: Vec::new(),
            mtime: (-5, 999_999_999),
            link: Vec::new(),
            device: (0, 0),
            xattrs: vec![(b"user.x".to_vec(), vec![0, 1])],
            content,
            header_bytes: 512,
            torn: true,
        }
    }

    fn read(raw: &[u8]) -> Result<Vec<Member>, FormatError> {
        let mut members: Vec<Member> = Vec::new();
        for record in decode(raw)? {
            match record {
                Record::Member(record) => members.push(begin(record)?),
                Record::Blocks(blocks) => add_blocks(members.last_mut().unwrap(), blocks)?,
                Record::Cut(cut) => add_cut(members.last_mut().unwrap(), &cut)?,
            }
        }
        members.into_iter().map(finish).collect()
    }

    fn leaf(member: &Member) -> Vec<u8> {
        encode(member)
            .into_iter()
            .fold(header(), |mut raw, record| {
                raw.extend(record.bytes);
                raw
            })
    }

    #[test]
    fn members_with_blocks_round_trip() {
        let digests = |n: u64| {
            (0..n)
                .map(|i| Digest::of(&i.to_le_bytes()))
                .collect::<Vec<_>>()
        };
        let runs = vec![
            Run {
                first: 0,
                digests: digests(300),
            },
            Run {
                first: 1000,
                digests: digests(600),
            },
        ];
        let large = member(Content::large(1600 * 65536, runs));
        for member in [
            member(Content::small(b"abc")),
            large,
            member(Content::large(1 << 40, Vec::new())),
        ] {
            assert_eq!(read(&leaf(&member)).unwrap(), [member]);
        }
    }

    #[test]
    fn raw_streams_round_trip_and_an_insertion_changes_the_first_page_only() {
        let cuts = |n: u32| {
            let cut = |i: u32| Cut {
                len: i + 1,
                digest: Digest::of(&i.to_le_bytes()),
            };
            (0..n).map(cut).collect::<Vec<_>>()
        };
        let stream = |cuts| Member {
            header_bytes: 0,
            ..member(Content::stream(cuts))
        };
        for n in [0, 1, 1000] {
            let stream = stream(cuts(n));
            assert_eq!(stream.stream_bytes(), stream.content.size);
            assert_eq!(read(&leaf(&stream)).unwrap(), [stream]);
        }
        let pages = |cuts| {
            let records = encode(&stream(cuts));
            let mut pages = vec![Vec::new()];
            for record in records {
                if record.begins_page {
                    pages.push(Vec::new());
                }
                pages.last_mut().unwrap().extend(record.bytes);
            }
            pages
        };
        let (before, mut inserted) = (cuts(1000), cuts(1000));
        inserted.insert(0, cuts(1)[0]);
        let (before, after) = (pages(before), pages(inserted));
        let shared = after.iter().filter(|page| before.contains(page)).count();
        assert!(before.len() > 4 && shared == before.len() - 1, "{shared}");
        // With a header it would be a file.
        let headed = leaf(&member(Content::stream(cuts(3))));
        assert!(read(&headed).is_err());
    }

    #[test]
    fn f1_wrong_blocks_and_newer_formats_are_refused() {
        let good = leaf(&member(Content::large(
            65537,
            vec![Run {
                first: 0,
                digests: vec![Digest::of(b"x"); 2],
            }],
        )));
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(read(&good).is_ok() && read(&flipped).is_err());
        let mut newer = good.clone();
        newer[4] = 2;
        assert_eq!(
            read(&newer),
            Err(FormatError::Newer {
                found: "2".into(),
                known: 1
            })
        );
    }

    proptest! {
        #[test]
        fn a11_any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[&header()[..], &bytes].concat());
        }
    }
}
