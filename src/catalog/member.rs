//! One member of a version: a file, directory or other thing of the source.

use std::cmp::Ordering;

use crate::digest::{BLOCK_BYTES, Digest};

/// A tar stream is made of records of this many bytes.
pub const RECORD_BYTES: u64 = 512;
const BLOCK: u64 = BLOCK_BYTES as u64;
const CONTENT_CONTEXT: &str = "btw-backup 2026-11-20 file content";
const STREAM_CONTEXT: &str = "btw-backup 2026-11-21 stream content";

/// A block of a member in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedBlock {
    /// Where it begins in the member's content.
    pub at: u64,
    /// Where it begins in the stream.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// Its BLAKE3.
    pub digest: Digest,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link; `link` is its target.
    Symlink,
    /// Another name of an earlier member; `link` is that member's path.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Something that stands in the source but is not in the stream; `link` says why.
    Absent,
}

/// A member as the catalog records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path below the source without a leading `./`; empty for the source directory itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The owner's name; empty if it has none.
    pub user: Vec<u8>,
    /// The group's name; empty if it has none.
    pub group: Vec<u8>,
    /// Modification time: seconds since 1970 (rounded down) and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link; reason of an absence.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes as the kernel gives them, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What a regular file holds; nothing for the others.
    pub content: Content,
    /// Length of the tar header with its pax records.
    pub header_bytes: u32,
    /// It was changed or cut while it was read: its content is what could be read, padded with zeros.
    pub torn: bool,
}

impl Member {
    /// How many bytes of the stream it takes: header and body, padded.
    pub fn stream_bytes(&self) -> u64 {
        if self.kind == Kind::Absent {
            return 0;
        }
        if self.content.is_stream() {
            return self.content.size;
        }
        u64::from(self.header_bytes) + self.body_bytes().next_multiple_of(RECORD_BYTES)
    }

    /// Its blocks when the member begins at `offset` of the stream.
    pub fn placed_blocks(&self, offset: u64) -> impl Iterator<Item = PlacedBlock> + '_ {
        let mut next = offset + u64::from(self.header_bytes) + self.content.map_bytes();
        self.content.data().map(move |(at, len, digest)| {
            let offset = next;
            next += len;
            PlacedBlock {
                at,
                offset,
                len,
                digest,
            }
        })
    }

    /// Whether everything that stands in a tar header is the same: then the headers are. Cheaper than making both.
    pub fn has_header_of(&self, other: &Self) -> bool {
        let identity = |member: &Self| (member.kind, member.mode, member.uid, member.gid);
        let content = |member: &Self| {
            (
                member.content.size,
                member.content.is_sparse(),
                member.body_bytes(),
            )
        };
        identity(self) == identity(other)
            && (self.mtime, self.device) == (other.mtime, other.device)
            && content(self) == content(other)
            && self.path == other.path
            && self.link == other.link
            && (&self.user, &self.group) == (&other.user, &other.group)
            && self.xattrs == other.xattrs
    }

    /// How many bytes its body has before padding: sparse map and data.
    pub fn body_bytes(&self) -> u64 {
        self.content.map_bytes() + self.content.data_bytes()
    }
}

/// Neighbouring blocks of a file that hold data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Number of the first block; a block's file offset is its number x 64 KiB.
    pub first: u64,
    /// Each block's BLAKE3.
    pub digests: Vec<Digest>,
}

/// A block of a raw stream, cut where the content says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its length.
    pub len: u32,
    /// Its BLAKE3.
    pub digest: Digest,
}

/// The content of a regular file, by digest.
///
/// A file of at most one block has no runs and its digest is plain BLAKE3. A longer one has a run for every stretch of
/// blocks that are not all zeros; blocks between are holes. The canonical map: whether the file system has a hole
/// there does not matter.
///
/// A raw stream has neither: its blocks, one after the other, are cut by content, so that an insertion moves none behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The file's apparent length.
    pub size: u64,
    /// BLAKE3 of the bytes up to one block, [`Content::digest_of_runs`] beyond; of a raw stream
    /// [`Content::digest_of_cuts`].
    pub digest: Digest,
    /// Ascending, not touching.
    pub runs: Vec<Run>,
    /// Set for a raw stream: all its blocks.
    pub cuts: Option<Vec<Cut>>,
}

impl Default for Content {
    fn default() -> Self {
        Self::small(&[])
    }
}

impl Content {
    /// The content of a file of at most one block.
    pub fn small(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
            runs: Vec::new(),
            cuts: None,
        }
    }

    /// The content of a raw stream.
    pub fn stream(cuts: Vec<Cut>) -> Self {
        Self {
            size: cuts.iter().map(|cut| u64::from(cut.len)).sum(),
            digest: Self::digest_of_cuts(&cuts),
            runs: Vec::new(),
            cuts: Some(cuts),
        }
    }

    /// Whether it is a raw stream.
    pub fn is_stream(&self) -> bool {
        self.cuts.is_some()
    }

    /// A keyed digest over a raw stream's blocks: length (u32 little-endian) and digest of each.
    pub fn digest_of_cuts(cuts: &[Cut]) -> Digest {
        let lengths: Vec<[u8; 4]> = cuts.iter().map(|cut| cut.len.to_le_bytes()).collect();
        let parts = lengths.iter().zip(cuts);
        let parts = parts.flat_map(|(len, cut)| [&len[..], &cut.digest.0[..]]);
        Digest::of_parts(STREAM_CONTEXT, parts)
    }

    /// The content of a file of more than one block.
    pub fn large(size: u64, runs: Vec<Run>) -> Self {
        Self {
            size,
            digest: Self::digest_of_runs(size, &runs),
            runs,
            cuts: None,
        }
    }

    /// A keyed digest over size and runs: per run its first block, number of blocks (both u64 little-endian) and
    /// digests. A tree of digests, so that blocks can be hashed in any order and by any number of threads.
    pub fn digest_of_runs(size: u64, runs: &[Run]) -> Digest {
        let mut bytes = size.to_le_bytes().to_vec();
        for run in runs {
            bytes.extend_from_slice(&run.first.to_le_bytes());
            bytes.extend_from_slice(&(run.digests.len() as u64).to_le_bytes());
            run.digests
                .iter()
                .for_each(|digest| bytes.extend_from_slice(&digest.0));
        }
        Digest::of_parts(CONTENT_CONTEXT, [&bytes[..]])
    }

    /// Whether it is a file that is cut into blocks.
    pub fn is_large(&self) -> bool {
        self.size > BLOCK && !self.is_stream()
    }

    /// The blocks that hold data, in order: where each begins in the content, length, digest.
    pub fn data(&self) -> impl Iterator<Item = (u64, u64, Digest)> + '_ {
        let cuts = self.cuts.iter().flatten().scan(0, |at, cut| {
            let start = *at;
            *at += u64::from(cut.len);
            Some((start, cut.len.into(), cut.digest))
        });
        let aligned = self.blocks();
        cuts.chain(
            aligned.map(|(number, digest)| (number * BLOCK, self.block_bytes(number), digest)),
        )
    }

    /// The length of the block with this number: 64 KiB but for the last.
    pub fn block_bytes(&self, number: u64) -> u64 {
        BLOCK.min(self.size - number * BLOCK)
    }

    /// A file's blocks that hold data, in order: number, digest.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, Digest)> + '_ {
        let is_single = !self.is_large() && !self.is_stream() && self.size > 0;
        let single = is_single.then_some((0, self.digest));
        let numbered = |run: &'_ Run| (run.first..).zip(run.digests.clone());
        single
            .into_iter()
            .chain(self.runs.iter().flat_map(numbered))
    }

    /// The digest of the block with this number, if it holds data.
    pub fn block(&self, number: u64) -> Option<Digest> {
        if !self.is_large() {
            return (number == 0 && self.size > 0).then_some(self.digest);
        }
        let run = &self.runs[self
            .runs
            .partition_point(|run| run.first <= number)
            .checked_sub(1)?];
        run.digests
            .get(usize::try_from(number - run.first).ok()?)
            .copied()
    }

    /// How many bytes of data the body holds.
    pub fn data_bytes(&self) -> u64 {
        if !self.is_large() {
            return self.size;
        }
        self.extents().iter().map(|(_, len)| len).sum()
    }

    /// The stretches of data: file offset and length in bytes. A file without holes has one.
    pub fn extents(&self) -> Vec<(u64, u64)> {
        if !self.is_large() {
            return vec![(0, self.size)];
        }
        let extent = |run: &Run| {
            let start = run.first * BLOCK;
            (
                start,
                (run.digests.len() as u64 * BLOCK).min(self.size - start),
            )
        };
        self.runs.iter().map(extent).collect()
    }

    /// Whether the member is written as a sparse one.
    pub fn is_sparse(&self) -> bool {
        self.is_large() && self.extents() != [(0, self.size)]
    }

    /// The map at the beginning of a sparse member's body, padded: GNU tar's sparse format 1.0. Numbers in decimal, a
    /// line each: number of entries, then offset and length of each; a hole at the end is closed by an empty entry.
    pub fn sparse_map(&self) -> Option<Vec<u8>> {
        if !self.is_sparse() {
            return None;
        }
        let mut extents = self.extents();
        if extents
            .last()
            .is_none_or(|(start, len)| start + len < self.size)
        {
            extents.push((self.size, 0));
        }
        let lines = extents
            .iter()
            .map(|(start, len)| format!("{start}\n{len}\n"));
        let mut map = format!("{}\n{}", extents.len(), lines.collect::<String>()).into_bytes();
        map.resize(map.len().next_multiple_of(512), 0);
        Some(map)
    }

    /// The length of [`sparse_map`](Self::sparse_map), 0 without one.
    pub fn map_bytes(&self) -> u64 {
        self.sparse_map().map_or(0, |map| map.len() as u64)
    }
}

/// The order of members: depth first, siblings by raw bytes. That is the order of paths when `/` sorts before every
/// other byte. A NUL, which no path has, sorts even before: see [`region_key`].
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| match byte {
        0 => 0_u16,
        b'/' => 1,
        other => u16::from(*other) + 2,
    };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// The key of a part of a member's block digests: sorts after the member and before everything else.
pub fn region_key(path: &[u8], region: u64) -> Vec<u8> {
    [path, &[0], &region.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::{Content, Run, path_order, region_key};
    use crate::digest::Digest;
    use std::cmp::Ordering;

    #[test]
    fn paths_sort_depth_first() {
        let mut paths: Vec<&[u8]> = vec![
            b"a.b", b"a/b", b"", b"a", b"a/b/c", b"a-b", b"a\x01", b"a/\xff",
        ];
        paths.sort_by(|a, b| path_order(a, b));
        assert_eq!(
            paths,
            [
                &b""[..],
                b"a",
                b"a/b",
                b"a/b/c",
                b"a/\xff",
                b"a\x01",
                b"a-b",
                b"a.b"
            ]
        );
        assert_eq!(path_order(&region_key(b"a", 5), b"a/"), Ordering::Less);
        assert_eq!(
            path_order(&region_key(b"a", 5), &region_key(b"a", 300)),
            Ordering::Less
        );
        assert_eq!(path_order(b"a", &region_key(b"a", 0)), Ordering::Less);
    }

    #[test]
    fn a5_sparse_maps_follow_the_data() {
        let digest = Digest::of(b"");
        let content = Content::large(
            5 * 65536,
            vec![
                Run {
                    first: 1,
                    digests: vec![digest],
                },
                Run {
                    first: 3,
                    digests: vec![digest],
                },
            ],
        );
        let map = content.sparse_map().unwrap();
        assert!(
            map.starts_with(b"3\n65536\n65536\n196608\n65536\n327680\n0\n\0") && map.len() == 512
        );
        assert_eq!(content.data_bytes(), 2 * 65536);
        let full = Content::large(
            65537,
            vec![Run {
                first: 0,
                digests: vec![digest; 2],
            }],
        );
        assert_eq!(
            (full.sparse_map(), full.data_bytes(), full.block_bytes(1)),
            (None, 65537, 1)
        );
        assert_eq!(
            Content::large(70000, Vec::new()).sparse_map().unwrap()[..10],
            *b"1\n70000\n0\n"
        );
        assert_eq!(
            content
                .blocks()
                .map(|(number, _)| number)
                .collect::<Vec<_>>(),
            [1, 3]
        );
        assert_eq!(
            (content.block(1), content.block(2), content.block(4)),
            (Some(digest), None, None)
        );
    }
}
