//! Leaves of a catalog: records of members and of their blocks.
//!
//! `btwc`, format version u8, then records in bincode's standard configuration (variable-length little-endian integers,
//! lengths before sequences) until the end. A member's block digests follow it in records of one region (256 blocks,
//! 16 MiB of the file) each; regions that are all hole have none. A page may begin between them.

use bincode::{Decode, Encode};

use super::FormatError;
use crate::catalog::member::{Content, Kind, Member, Run, region_key};
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

/// A record with the key by which pages are cut and searched.
pub struct Keyed {
    /// The member's path, or [`region_key`].
    pub key: Vec<u8>,
    /// Its bytes in a leaf.
    pub bytes: Vec<u8>,
    /// Whether it begins a member.
    pub is_member: bool,
}

/// The beginning of every leaf.
pub fn header() -> Vec<u8> {
    HEADER.to_vec()
}

/// The records of a member, in order.
pub fn encode(member: &Member) -> Vec<Keyed> {
    let keyed = |key: Vec<u8>, record: &Record| Keyed {
        key,
        bytes: bincode::encode_to_vec(record, CONFIG).expect("a Vec takes everything"),
        is_member: matches!(record, Record::Member(_)),
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
        flags: if member.torn { FLAG_TORN } else { 0 },
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
    let is_sized = record.size != 0 && kind != Kind::Regular;
    if record.flags & !FLAG_TORN != 0 || record.mtime_nanoseconds > 999_999_999 || is_sized {
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

/// Checks a member whose blocks are complete: they are within the file and have the file's digest.
pub fn finish(member: Member) -> Result<Member, FormatError> {
    let content = &member.content;
    let blocks = content.size.div_ceil(crate::digest::BLOCK_BYTES as u64);
    let fits = content
        .runs
        .last()
        .is_none_or(|run| run.first + run.digests.len() as u64 <= blocks);
    let consistent = if content.is_large() {
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
    use super::{Record, add_blocks, begin, decode, encode, finish, header};
    use crate::catalog::member::{Content, Kind, Member, Run};
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
