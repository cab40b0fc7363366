//! POSIX access control lists: the kernel's binary form as the numeric text that tar stores.
//!
//! Binary: version 2 (u32), then entries of tag (u16), permissions (u16) and id (u32), little-endian; Linux,
//! `include/uapi/linux/posix_acl_xattr.h`. Text: `user::rwx,user:1000:r--,…` as in the pax keyword `SCHILY.acl.access`.

/// The attribute in which the kernel keeps a file's list.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute in which it keeps what new files in a directory get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;

/// The text of a list; `None` if the bytes are not one.
pub fn to_text(binary: &[u8]) -> Option<String> {
    let (version, entries) = binary.split_at_checked(4)?;
    if u32::from_le_bytes(version.try_into().ok()?) != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return None;
    }
    let lines: Option<Vec<String>> = entries.chunks_exact(ENTRY_BYTES).map(entry_text).collect();
    Some(lines?.join(","))
}

fn entry_text(entry: &[u8]) -> Option<String> {
    let word = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
    let id = u32::from_le_bytes(entry[4..8].try_into().ok()?);
    let bit = |mask: u16, letter: char| if word(2) & mask == 0 { '-' } else { letter };
    let (name, named) = match word(0) {
        0x01 => ("user", false),
        0x02 => ("user", true),
        0x04 => ("group", false),
        0x08 => ("group", true),
        0x10 => ("mask", false),
        0x20 => ("other", false),
        _ => return None,
    };
    let id = if named { id.to_string() } else { String::new() };
    Some(format!(
        "{name}:{id}:{}{}{}",
        bit(4, 'r'),
        bit(2, 'w'),
        bit(1, 'x')
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a10_lists_become_numeric_text() {
        let entry = |tag: u16, perm: u16, id: u32| {
            [
                &tag.to_le_bytes()[..],
                &perm.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let list = [
            2_u32.to_le_bytes().to_vec(),
            entry(1, 6, u32::MAX),
            entry(2, 4, 1000),
            entry(4, 0, u32::MAX),
            entry(16, 5, 0),
            entry(32, 7, 0),
        ];
        assert_eq!(
            super::to_text(&list.concat()).unwrap(),
            "user::rw-,user:1000:r--,group::---,mask::r-x,other::rwx"
        );
        assert_eq!(super::to_text(&[1, 0, 0, 0]), None);
        assert_eq!(super::to_text(&list.concat()[..9]), None);
    }
}
