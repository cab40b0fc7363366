//! Pages: how long lists (catalogs, manifests) are kept so that what did not change is shared between versions.
//!
//! A list is cut into leaf pages; an inner page lists pages of the level below, up to a single root. Each page is a zstd
//! frame in a *pack*, an immutable file named by the BLAKE3 of its bytes. An inner page is text, one line per child:
//! `page LEVEL PACK OFFSET STORED RAW DIGEST ITEMS BYTES FIRST`, where PACK is `-` for the pack that holds the page itself.
//!
//! A leaf is identified by the BLAKE3 of its raw bytes, an inner page by a digest over its children's identities, not
//! their places: so the root's digest names the list's content wherever its pages lie.

use super::FormatError;
use super::text::{self, Words, escape};
use crate::catalog::PageRef;
use crate::digest::Digest;

/// A page is never larger than this, raw; a decoder refuses more.
pub const PAGE_MAX_BYTES: u32 = 64 << 20;
/// Levels above the leaves that a decoder accepts.
pub const LEVEL_MAX: u8 = 8;

const INNER_CONTEXT: &str = "btw-backup 2026-11-20 inner page";

/// The words of a page's line, without the leading `page`.
pub fn to_words(page: &PageRef) -> String {
    let pack = page
        .pack
        .map_or_else(|| "-".to_owned(), |pack| pack.to_string());
    let place = format!(
        "{pack} {} {} {}",
        page.offset, page.stored_bytes, page.raw_bytes
    );
    let content = format!(
        "{} {} {} {}",
        page.digest,
        page.items,
        page.stream_bytes,
        escape(&page.first)
    );
    format!("{} {place} {content}", page.level)
}

/// Takes the words of [`to_words`]; `own_pack` is what `-` stands for.
pub(super) fn take(
    words: &mut Words<'_>,
    own_pack: Option<Digest>,
) -> Result<PageRef, FormatError> {
    let level = words.value("LEVEL")?;
    let pack = match words.word("PACK")? {
        "-" => own_pack,
        name => Some(
            name.parse()
                .map_err(|_| words.error(format!("PACK cannot be '{name}'")))?,
        ),
    };
    let page = PageRef {
        level,
        pack,
        offset: words.value("OFFSET")?,
        stored_bytes: words.value("STORED")?,
        raw_bytes: words.value("RAW")?,
        digest: words.value("DIGEST")?,
        items: words.value("ITEMS")?,
        stream_bytes: words.value("BYTES")?,
        first: words.bytes("FIRST")?,
    };
    if page.level > LEVEL_MAX
        || page.raw_bytes > PAGE_MAX_BYTES
        || page.stored_bytes > PAGE_MAX_BYTES
    {
        return Err(words.error("a page is larger or deeper than this program allows"));
    }
    Ok(page)
}

/// The text of an inner page.
pub fn encode_inner(children: &[PageRef]) -> Vec<u8> {
    let lines: Vec<String> = children
        .iter()
        .map(|child| format!("page {}\n", to_words(child)))
        .collect();
    lines.concat().into_bytes()
}

/// Reads an inner page that lies in `pack`.
pub fn decode_inner(raw: &[u8], pack: Digest, level: u8) -> Result<Vec<PageRef>, FormatError> {
    let content = text::lines(raw)?;
    let mut children = Vec::new();
    for (index, line) in content.lines().enumerate() {
        let mut words = Words::of(line, index + 1);
        if words.word("page")? != "page" {
            return Err(words.error("only pages are expected here"));
        }
        let child = take(&mut words, Some(pack))?;
        if child.level.checked_add(1) != Some(level) {
            return Err(words.error("the page is on the wrong level"));
        }
        words.end()?;
        children.push(child);
    }
    Ok(children)
}

/// What identifies an inner page with these children.
pub fn inner_digest(level: u8, children: &[PageRef]) -> Digest {
    let mut bytes = vec![level];
    for child in children {
        bytes.extend_from_slice(&child.digest.0);
        bytes.extend_from_slice(&child.items.to_le_bytes());
        bytes.extend_from_slice(&child.stream_bytes.to_le_bytes());
        bytes.extend_from_slice(
            &u32::try_from(child.first.len())
                .expect("a key is a path")
                .to_le_bytes(),
        );
        bytes.extend_from_slice(&child.first);
    }
    Digest::of_parts(INNER_CONTEXT, [&bytes[..]])
}

#[cfg(test)]
mod tests {
    use super::{decode_inner, encode_inner};
    use crate::catalog::PageRef;
    use crate::digest::Digest;
    use proptest::prelude::{any, prop, proptest};

    fn page(first: &[u8]) -> PageRef {
        PageRef {
            level: 1,
            pack: None,
            offset: 7,
            stored_bytes: 8,
            raw_bytes: 9,
            digest: Digest::of(b"leaf"),
            items: 3,
            stream_bytes: 1 << 40,
            first: first.to_vec(),
        }
    }

    #[test]
    fn inner_pages_round_trip_and_own_pack_is_resolved() {
        let own = Digest::of(b"own");
        let children = [
            page(b"a b"),
            PageRef {
                pack: Some(Digest::of(b"other")),
                ..page(b"")
            },
        ];
        let decoded = decode_inner(&encode_inner(&children), own, 2).unwrap();
        assert_eq!(
            decoded,
            [
                PageRef {
                    pack: Some(own),
                    ..children[0].clone()
                },
                children[1].clone()
            ]
        );
        assert!(decode_inner(&encode_inner(&children), own, 1).is_err());
    }

    proptest! {
        #[test]
        fn a11_any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_inner(&bytes, Digest::of(b""), 1);
        }
    }
}
