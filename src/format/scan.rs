//! The scan cache: what the last run saw of each file besides what the catalog says. Rebuildable.
//!
//! `btws`, format version u8, then the header and one stamp per member of the version's catalog in order, all in bincode's
//! standard configuration, then the BLAKE3 of everything before; the whole as one zstd frame. A cache that does not check is
//! treated as absent.

use bincode::{Decode, Encode};
use jiff::Timestamp;

use crate::digest::Digest;

const MAGIC: &[u8; 5] = b"btws\x01";
const DIGEST_BYTES: usize = 32;

/// What identifies an unchanged file besides size and mtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// Change time, seconds and nanoseconds. A member that must be read again has [`Stamp::NONE`].
    pub ctime: (i64, u32),
    /// The file's number on its device.
    pub inode: u64,
    /// The device.
    pub device: u64,
}

impl Stamp {
    /// Fits no file.
    pub const NONE: Self = Self {
        ctime: (i64::MIN, u32::MAX),
        inode: 0,
        device: 0,
    };
}

/// The cache of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanCache {
    /// The version whose catalog the stamps follow.
    pub seq: u64,
    /// That catalog's digest.
    pub catalog: Digest,
    /// When the scan began.
    pub scan_start: Timestamp,
    /// When the last scan began that read every file.
    pub read_all: Timestamp,
    /// One per member, in catalog order.
    pub stamps: Vec<Stamp>,
}

#[derive(Encode, Decode)]
struct Header {
    seq: u64,
    catalog: [u8; 32],
    scan_start: i128,
    read_all: i128,
    stamps: Vec<Stamp>,
}

/// The bytes of a cache file.
pub fn encode(cache: &ScanCache) -> Vec<u8> {
    let header = Header {
        seq: cache.seq,
        catalog: cache.catalog.0,
        scan_start: cache.scan_start.as_nanosecond(),
        read_all: cache.read_all.as_nanosecond(),
        stamps: cache.stamps.clone(),
    };
    let mut raw = MAGIC.to_vec();
    raw.extend(
        bincode::encode_to_vec(header, bincode::config::standard())
            .expect("a Vec takes everything"),
    );
    let digest = Digest::of(&raw);
    raw.extend_from_slice(&digest.0);
    zstd::bulk::compress(&raw, 1).expect("compressing in memory cannot fail")
}

/// Reads a cache file; `None` if it is anything else than what [`encode`] wrote. Memory is bounded by `max_bytes`.
pub fn decode(bytes: &[u8], max_bytes: usize) -> Option<ScanCache> {
    let raw = zstd::bulk::decompress(bytes, max_bytes).ok()?;
    let (body, digest) = raw.split_at_checked(raw.len().checked_sub(DIGEST_BYTES)?)?;
    if Digest::of(body).0 != digest {
        return None;
    }
    let config = bincode::config::standard();
    let (header, used): (Header, usize) =
        bincode::decode_from_slice(body.strip_prefix(MAGIC)?, config).ok()?;
    (used + MAGIC.len() == body.len()).then_some(())?;
    Some(ScanCache {
        seq: header.seq,
        catalog: Digest(header.catalog),
        scan_start: Timestamp::from_nanosecond(header.scan_start).ok()?,
        read_all: Timestamp::from_nanosecond(header.read_all).ok()?,
        stamps: header.stamps,
    })
}

#[cfg(test)]
mod tests {
    use super::{ScanCache, Stamp, decode, encode};
    use crate::digest::Digest;
    use jiff::Timestamp;

    #[test]
    fn caches_round_trip_and_damage_is_seen() {
        let cache = ScanCache {
            seq: 3,
            catalog: Digest::of(b"c"),
            scan_start: Timestamp::UNIX_EPOCH,
            read_all: Timestamp::MAX,
            stamps: vec![
                Stamp::NONE,
                Stamp {
                    ctime: (1, 2),
                    inode: 3,
                    device: 4,
                },
            ],
        };
        let good = encode(&cache);
        assert_eq!(decode(&good, 1 << 20), Some(cache.clone()));
        assert_eq!(decode(&good, 10), None, "bounded");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let decoded = decode(&bad, 1 << 20);
            // zstd ignores some bits of its header; what is decoded then is the same.
            assert!(
                decoded.is_none() || decoded.as_ref() == Some(&cache),
                "byte {at}"
            );
            assert!(decode(&good[..at], 1 << 20).is_none());
        }
    }
}
