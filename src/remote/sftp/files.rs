//! Files over an open connection.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::BytesMut;
use futures::StreamExt;
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::{Error, Sftp as Client};
use tokio::io::AsyncSeekExt;

use crate::error::RemoteFault;
use crate::remote::{Put, READ_MAX_BYTES};

/// What is asked for at once, if the server gives as much.
const READ_BYTES: u32 = 256 << 10;
/// Names in one directory tree: an endless listing ends.
const ENTRIES_MAX: usize = 5_000_000;

/// The class of an error.
pub(super) fn fault_of(error: &Error) -> RemoteFault {
    match error {
        Error::SftpError(kind, _) => match kind {
            SftpErrorKind::NoSuchFile => RemoteFault::Missing,
            SftpErrorKind::PermDenied => RemoteFault::Denied,
            _ => RemoteFault::Other,
        },
        Error::IOError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            RemoteFault::Other
        }
        Error::InvalidResponse(_) => RemoteFault::Other,
        // The connection is gone, or says what makes no sense.
        _ => RemoteFault::Temporary,
    }
}

/// All files of a directory and below whose full paths begin with `prefix`.
pub(super) async fn list(
    client: &Client,
    dir: String,
    prefix: &str,
) -> Result<Vec<(String, u64)>, Error> {
    let mut pending = VecDeque::from([dir]);
    let mut found = Vec::new();
    while let Some(dir) = pending.pop_front() {
        let opened = match client.fs().open_dir(&dir).await {
            Err(error) if fault_of(&error) == RemoteFault::Missing => continue,
            result => result?,
        };
        let mut entries = Box::pin(opened.read_dir());
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let Some(name) = entry.filename().to_str().filter(|name| !is_dots(name)) else {
                continue;
            };
            let path = format!("{}/{name}", dir.trim_end_matches('/'));
            match entry.file_type() {
                Some(kind) if kind.is_dir() && may_hold(&path, prefix) => pending.push_back(path),
                Some(kind) if kind.is_file() && path.starts_with(prefix) => {
                    found.push((path, entry.metadata().len().unwrap_or(0)));
                }
                _ => {}
            }
            if found.len() + pending.len() > ENTRIES_MAX {
                return Err(Error::InvalidResponse(&"the listing does not end"));
            }
        }
    }
    Ok(found)
}

/// Whether what begins so may lie in a directory.
fn may_hold(dir: &str, prefix: &str) -> bool {
    dir.starts_with(prefix) || prefix.starts_with(&format!("{dir}/"))
}

fn is_dots(name: &str) -> bool {
    name == "." || name == ".." || name.contains('/')
}

/// A file's bytes.
pub(super) async fn read(
    client: &Client,
    path: &str,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, Error> {
    let mut file = client.open(path).await?;
    let range = match range {
        Some(range) => range,
        None => 0..file.metadata().await?.len().unwrap_or(0),
    };
    if range.end.saturating_sub(range.start) > READ_MAX_BYTES {
        return Err(Error::InvalidResponse(
            &"the file is longer than any that is expected",
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    let mut at = range.start;
    while at < range.end {
        // Sought each time: after a short answer the library's own place is wrong.
        file.seek(std::io::SeekFrom::Start(at)).await?;
        let wanted = u32::try_from(range.end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let Some(piece) = file.read(wanted, BytesMut::new()).await? else {
            let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(end.into());
        };
        at += piece.len() as u64;
        bytes.extend_from_slice(&piece);
    }
    file.close().await?;
    Ok(bytes)
}

/// Makes the directories that a path lies in.
async fn make_parents(client: &Client, path: &str) {
    let mut fs = client.fs();
    for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
        // One that is there, or may not be made: what follows says so.
        let _ = fs.create_dir(&path[..at]).await;
    }
}

/// Writes a file under a name that nobody reads, and syncs it.
pub(super) async fn write_aside(client: &Client, aside: &str, content: &[u8]) -> Result<(), Error> {
    let mut options = client.options();
    options.write(true).create_new(true);
    let mut file = match options.open(aside).await {
        Err(error) if fault_of(&error) == RemoteFault::Missing => {
            make_parents(client, aside).await;
            options.open(aside).await?
        }
        result => result?,
    };
    file.write_all(content).await?;
    if client.support_fsync() {
        file.sync_all().await?;
    }
    file.close().await
}

/// Gives a written file its name; `false` if it is taken.
pub(super) async fn publish(
    client: &Client,
    aside: &str,
    path: &str,
    put: Put,
) -> Result<bool, Error> {
    let mut fs = client.fs();
    if put == Put::Replace {
        if !client.support_posix_rename() {
            let _ = fs.remove_file(path).await;
        }
        fs.rename(aside, path).await?;
        return Ok(true);
    }
    let is_there = fs.symlink_metadata(path).await.is_ok();
    if is_there || !client.support_hardlink() {
        let result = if is_there {
            Ok(())
        } else {
            fs.rename(aside, path).await
        };
        let _ = fs.remove_file(aside).await;
        return result.map(|()| !is_there);
    }
    // A link never replaces a file, a rename here would.
    let linked = fs.hard_link(aside, path).await;
    let _ = fs.remove_file(aside).await;
    match linked {
        Err(_) if fs.symlink_metadata(path).await.is_ok() => Ok(false),
        result => result.map(|()| true),
    }
}
