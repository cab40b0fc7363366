//! Regular files in the scan: trusted unread, or read, compared and placed.

use super::content::{Before, Placer, Read, ReadError, SMALL_FILE_BYTES, read_small};
use super::old::Old;
use super::scan::Scan;
use super::trust::RACY;
use crate::catalog::{Content, Kind, Member};
use crate::error::printable;
use crate::format::scan::Stamp;
use crate::store::pieces::{Origin, Pieces};
use crate::tree::found::Found;
use crate::tree::source::SourceFile;

/// A small file that changes while it is read is read again so many times before it is marked.
const RETRIES: usize = 2;

impl Scan<'_> {
    /// Adds a regular file, read only if it may have changed.
    pub fn regular(
        &mut self,
        found: &Found,
        member: Member,
        old: Option<&Old>,
    ) -> Result<(), ReadError> {
        let before = old.filter(|old| old.member.kind == Kind::Regular);
        let why = self.trust.why_read(old, found);
        if let (None, Some(old)) = (why, before) {
            let size = old.member.content.size;
            let member = Member {
                content: old.member.content.clone(),
                ..member
            };
            let mut data = Pieces::default();
            let bytes = old.member.stream_bytes()
                - u64::from(old.member.header_bytes)
                - old.member.content.map_bytes();
            data.push(
                Origin::Old(
                    old.offset
                        + u64::from(old.member.header_bytes)
                        + old.member.content.map_bytes(),
                ),
                bytes,
            );
            self.add(member, found.meta.stamp(), Some(old), Some(&data))?;
            self.monitor.advance(size);
        } else {
            self.monitor.detail(&format!(
                "reading {}: {}",
                printable(&found.path),
                why.unwrap_or_default()
            ));
            self.read(found, member, before, old)?;
        }
        self.remember_link(found);
        Ok(())
    }

    fn read(
        &mut self,
        found: &Found,
        mut member: Member,
        before: Option<&Old>,
        old: Option<&Old>,
    ) -> Result<(), ReadError> {
        let mut file = SourceFile::open(found)?;
        let before_data = before.map(|old| Before::new(&old.member, old.offset));
        let small = file.size() <= SMALL_FILE_BYTES;
        let (data, torn);
        if small {
            let mut buffer = std::mem::take(&mut self.buffer);
            let (content, unsettled) = read_settled(&mut file, &mut buffer)?;
            self.monitor.advance(content.size);
            member = Member {
                content,
                ..self.as_opened(found, &file, member)?
            };
            torn = unsettled;
            let header_and_map = self.header_pieces(&mut member, old, torn)?;
            let mut placer = Placer {
                packer: &mut self.out.packer,
                known: &mut self.known,
                before: before_data.as_ref(),
            };
            data = placer.place_small(&member.content, &buffer)?;
            self.buffer = buffer;
            self.out.pieces.append(&header_and_map);
            self.out.pieces.append(&data);
        } else {
            let monitor = self.monitor;
            let mut placer = Placer {
                packer: &mut self.out.packer,
                known: &mut self.known,
                before: before_data.as_ref(),
            };
            let read: Read = placer.read_large(&file, &mut |bytes| monitor.advance(bytes))?;
            torn = read.torn || file.was_changed()?;
            let content = read.content;
            member = Member {
                content,
                ..self.as_opened(found, &file, member)?
            };
            let header_and_map = self.header_pieces(&mut member, old, torn)?;
            self.out.pieces.append(&header_and_map);
            self.out.pieces.append(&read.data);
        }
        let stamp = if torn || found.is_image {
            Stamp::NONE
        } else {
            file.meta.stamp()
        };
        if torn {
            self.out.problems.push(format!(
                "Changed while it was read: {}",
                printable(&found.path)
            ));
        }
        self.warn_of_rot(before, &member, stamp, found);
        Ok(self.record(&member, stamp)?)
    }

    /// The member as it was when it was read, if it is not any more what the walk found.
    fn as_opened(
        &mut self,
        found: &Found,
        file: &SourceFile,
        member: Member,
    ) -> Result<Member, ReadError> {
        if file.meta.stamp() == found.meta.stamp() {
            return Ok(member);
        }
        let opened = Found {
            meta: file.meta,
            ..found.clone()
        };
        Ok(self.described(&opened, Kind::Regular, None)?)
    }

    /// Content that changed while size, times and inode did not is what silent corruption looks like.
    fn warn_of_rot(&mut self, before: Option<&Old>, member: &Member, stamp: Stamp, found: &Found) {
        let rotten = before.is_some_and(|old| {
            stamp != Stamp::NONE
                && old.stamp == stamp
                && old.member.mtime == member.mtime
                && old.member.content.size == member.content.size
                && old.member.content.digest != member.content.digest
        });
        let settled = self.cache.scan_start.as_second() - member.mtime.0 > RACY.as_secs();
        if rotten && settled {
            self.out.notes.push(format!(
                "Content changed though size and times did not (damage on the source's disk?): {}",
                printable(&found.path)
            ));
        }
    }
}

/// Reads a small file, again if it changed meanwhile. Returns also whether it never stood still.
fn read_settled(file: &mut SourceFile, buffer: &mut Vec<u8>) -> std::io::Result<(Content, bool)> {
    for _ in 0..RETRIES {
        let (content, short) = read_small(file, buffer)?;
        if !short && !file.was_changed()? {
            return Ok((content, false));
        }
        let grown = file.look_again()? > SMALL_FILE_BYTES;
        if grown {
            return Ok((content, true));
        }
    }
    let (content, short) = read_small(file, buffer)?;
    Ok((content, short || file.was_changed()?))
}
