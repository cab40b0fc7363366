//! Where a store's files lie in a remote.
//!
//! Under the store's directory they have the names that they have in the store, with the same bytes: what is fetched from
//! there by any tool is a store. What is longer than [`FILE_MAX_BYTES`], and every archive, lies there in pieces, with
//! names in whose order `cat` puts it together: `NAME.part-00000-DIGEST`, DIGEST being the BLAKE3 of the piece. So every
//! file of a remote but states and README.txt says by its name what must be in it.

use std::collections::BTreeMap;

use super::{Entry, FILE_MAX_BYTES};
use crate::digest::Digest;
use crate::store::archive::is_archive;
use crate::store::file::TEMPORARY;

/// A path in the directory `dir` of a remote.
pub fn join(dir: &str, path: &str) -> String {
    match dir {
        "" => path.to_owned(),
        dir => format!("{dir}/{path}"),
    }
}

const PART: &str = ".part-";
/// An archive of 3 TB.
const PARTS_MAX: u64 = 99_999;

/// Whether a file of a store lies in a remote in pieces.
pub fn is_cut(path: &str, len: u64) -> bool {
    is_archive(path) && !path.ends_with(".sha256") || len > FILE_MAX_BYTES as u64
}

/// The length of all pieces but the last.
pub const PIECE_BYTES: u64 = FILE_MAX_BYTES as u64;

/// How many pieces a file has, at least one.
pub fn pieces(len: u64) -> u64 {
    len.div_ceil(PIECE_BYTES).max(1)
}

/// The name of a piece; `None` if a file has too many.
pub fn piece(path: &str, number: u64, digest: Digest) -> Option<String> {
    (number <= PARTS_MAX).then(|| format!("{path}{PART}{number:05}-{digest}"))
}

/// The file that a piece is of, by its name.
pub fn file_of_piece(path: &str) -> Option<&str> {
    parse_piece(path).map(|(file, _, _)| file)
}

/// File, number and digest that a piece's name tells.
fn parse_piece(name: &str) -> Option<(&str, u64, Digest)> {
    let (path, rest) = name.rsplit_once(PART)?;
    let (number, digest) = rest.split_once('-')?;
    if number.len() != 5 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((path, number.parse().ok()?, digest.parse().ok()?))
}

/// The digest that a file of a remote must have by its name.
pub fn digest_of(path: &str) -> Option<Digest> {
    if let Some((_, _, digest)) = parse_piece(path) {
        return Some(digest);
    }
    let (dir, name) = path.rsplit_once('/')?;
    (dir != "state").then(|| name.parse().ok()).flatten()
}

/// A file of a store as it lies in a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// In one.
    Whole {
        /// Its length in bytes.
        len: u64,
    },
    /// In pieces, in order, none missing as far as names tell: paths and lengths.
    Cut(Vec<(String, u64)>),
}

impl Held {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Whole { len } => *len,
            Self::Cut(pieces) => pieces.iter().map(|(_, len)| len).sum(),
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a listing says of a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Files of the store, by path.
    pub files: BTreeMap<String, Held>,
    /// What an upload that was cut off may have left.
    pub unfinished: Vec<String>,
    /// Every file of the remote that belongs to the store, by path, with its length.
    pub entries: BTreeMap<String, u64>,
}

impl Listing {
    /// Understands what lies in the directory `dir` of a remote; paths are relative to that afterwards.
    pub fn of(dir: &str, entries: Vec<Entry>) -> Self {
        let mut listing = Self::default();
        let mut cut: BTreeMap<String, BTreeMap<u64, (String, u64)>> = BTreeMap::new();
        for Entry { path, len } in entries {
            let Some(path) = path
                .strip_prefix(dir)
                .map(|path| path.trim_start_matches('/'))
            else {
                continue;
            };
            let name = path.rsplit('/').next().unwrap_or_default();
            if name.starts_with(TEMPORARY) {
                listing.unfinished.push(path.to_owned());
                continue;
            }
            listing.entries.insert(path.to_owned(), len);
            if let Some((file, number, _)) = parse_piece(path) {
                let pieces = cut.entry(file.to_owned()).or_default();
                pieces.insert(number, (path.to_owned(), len));
            } else {
                listing.files.insert(path.to_owned(), Held::Whole { len });
            }
        }
        for (file, pieces) in cut {
            let is_complete = pieces.keys().copied().eq(0..pieces.len() as u64);
            // What somebody put together there does not count beside the pieces, which say what is in them.
            let is_short = matches!(listing.files.get(&file), Some(Held::Whole { len }) if !is_cut(&file, *len));
            if is_complete && !is_short {
                listing
                    .files
                    .insert(file, Held::Cut(pieces.into_values().collect()));
            }
        }
        listing
    }

    /// The numbers of the states that are there, ascending.
    pub fn states(&self) -> Vec<u64> {
        let names = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix("state/"));
        names.filter_map(|name| name.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, Listing, digest_of, piece};
    use crate::digest::Digest;
    use crate::remote::Entry;

    #[test]
    fn pieces_are_found_and_gaps_seen() {
        let digest = Digest::of(b"x");
        let entry = |path: String, len| Entry {
            path: format!("d/{path}"),
            len,
        };
        let part = |file, number| piece(file, number, digest).unwrap();
        let entries = vec![
            entry("state/0000000007".into(), 5),
            entry(format!("objects/{digest}"), 9),
            entry(part("a.tar.zst", 1), 3),
            entry(part("a.tar.zst", 0), 4),
            entry(part("b.tar.zst", 1), 3),
            entry("objects/tmp-1".into(), 3),
        ];
        let listing = Listing::of("d", entries);
        assert_eq!(listing.states(), [7]);
        let whole = &listing.files[&format!("objects/{digest}")];
        assert_eq!(whole, &Held::Whole { len: 9 });
        let cut = vec![(part("a.tar.zst", 0), 4), (part("a.tar.zst", 1), 3)];
        assert_eq!(listing.files["a.tar.zst"], Held::Cut(cut));
        assert!(!listing.files.contains_key("b.tar.zst"));
        assert_eq!(listing.unfinished, ["objects/tmp-1"]);
        assert_eq!(digest_of(&part("a.tar.zst", 1)), Some(digest));
        assert_eq!(digest_of(&format!("objects/{digest}")), Some(digest));
        assert_eq!(digest_of("state/0000000007"), None);
    }
}
