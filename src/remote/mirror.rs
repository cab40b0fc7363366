//! One store's copy in a remote: what is there, and how its files get there and back.

use std::ops::Range;
use std::sync::Arc;

use super::disk::RemoteDisk;
use super::names::{self, Held, Listing};
use super::{Careful, Put, Remote, fault};
use crate::digest::{Digest, DigestWriter};
use crate::error::{Error, RemoteError, RemoteFault, StoreError};
use crate::format::state;
use crate::store::{Store, archive, state_path};

/// So much of a file is read back.
const SAMPLE_BYTES: u64 = 256 << 10;

/// A file of a remote that was just written, and what of a store it holds.
pub struct Sent {
    path: String,
    file: String,
    range: Range<u64>,
}

/// A store's directory in a remote.
#[derive(Clone)]
pub struct Mirror {
    remote: Arc<Careful>,
    dir: String,
    name: String,
}

impl Mirror {
    /// The copy in the directory `dir` of a remote; `name` is how the user calls it.
    pub fn new(remote: Arc<Careful>, dir: &str, name: &str) -> Self {
        Self {
            remote,
            dir: dir.to_owned(),
            name: name.to_owned(),
        }
    }

    /// How the user calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in a directory below.
    #[must_use]
    pub fn below(&self, dir: &str) -> Self {
        let name = format!("{}/{dir}", self.name.trim_end_matches('/'));
        Self::new(Arc::clone(&self.remote), &self.path(dir), &name)
    }

    /// The remote that it is in.
    pub fn remote(&self) -> &Careful {
        &self.remote
    }

    /// The copy as a store to look into. `local` is the same store on this machine, if it is here.
    pub fn store(&self, local: Option<&Store>) -> Store {
        let disk = RemoteDisk::open(Arc::clone(&self.remote), &self.dir, local.cloned());
        Store::new(Arc::new(disk), &self.name)
    }

    /// A path in the remote.
    pub fn path(&self, path: &str) -> String {
        names::join(&self.dir, path)
    }

    /// Everything that is there.
    pub fn list(&self) -> Result<Listing, RemoteError> {
        let prefix = self.path("");
        Ok(Listing::of(&self.dir, self.remote.list(&prefix)?))
    }

    /// The numbers of the states, by a listing of their own, ascending.
    pub fn states(&self) -> Result<Vec<u64>, RemoteError> {
        let prefix = self.path("state/");
        Ok(Listing::of(&self.dir, self.remote.list(&prefix)?).states())
    }

    /// The bytes of a state.
    pub fn state(&self, number: u64) -> Result<Vec<u8>, RemoteError> {
        self.remote.read(&self.path(&state_path(number)), None)
    }

    /// Sends a file of a store, which is proved to be what its name says first: what is damaged here does not spoil what is
    /// there. Pieces that are there already stay. Returns what was sent.
    pub fn upload(&self, store: &Store, path: &str, listing: &Listing) -> Result<Vec<Sent>, Error> {
        let len = store.len_of(path)?;
        if names::is_cut(path, len) {
            return self.upload_cut(store, path, len, listing);
        }
        let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        store.read_pieces(path, &mut |bytes| content.extend_from_slice(bytes))?;
        let digest = Digest::of(&content);
        if names::digest_of(path).is_some_and(|name| name != digest) {
            return Err(damaged_here(path).into());
        }
        self.remote
            .write(&self.path(path), &content, Put::Replace)?;
        Ok(vec![Sent {
            path: path.to_owned(),
            file: path.to_owned(),
            range: 0..len,
        }])
    }

    fn upload_cut(
        &self,
        store: &Store,
        path: &str,
        len: u64,
        listing: &Listing,
    ) -> Result<Vec<Sent>, Error> {
        archive::check_file(store, path)?;
        let mut sent = Vec::new();
        let file = store.disk().open(path);
        let file = file.map_err(|error| StoreError::io("open", path, error))?;
        for number in 0..names::pieces(len) {
            let from = number * names::PIECE_BYTES;
            let take = usize::try_from(names::PIECE_BYTES.min(len - from)).expect("bounded");
            let mut content = vec![0; take];
            file.read_at(from, &mut content)
                .map_err(|error| StoreError::io("read", path, error))?;
            let digest = Digest::of(&content);
            let piece = names::piece(path, number, digest).ok_or_else(|| {
                Error::Refused(format!("{path} is too long to be copied to a remote"))
            })?;
            if listing.entries.get(&piece) != Some(&(take as u64)) {
                self.remote
                    .write(&self.path(&piece), &content, Put::Replace)?;
                sent.push(Sent {
                    path: piece,
                    file: path.to_owned(),
                    range: from..from + take as u64,
                });
            }
        }
        Ok(sent)
    }

    /// Reads back a part of what was sent, which `chance` chooses. An error says that something else is there.
    pub fn check_sent(&self, store: &Store, sent: &Sent, chance: u64) -> Result<(), Error> {
        let len = sent.range.end - sent.range.start;
        let take = len.min(SAMPLE_BYTES);
        let from = if len > take { chance % (len - take) } else { 0 };
        let there = self
            .remote
            .read(&self.path(&sent.path), Some(from..from + take))?;
        if there.len() as u64 != take {
            return Err(self.other_content(&sent.path).into());
        }
        let mut here = vec![0; there.len()];
        let file = store.disk().open(&sent.file);
        file.and_then(|file| file.read_at(sent.range.start + from, &mut here))
            .map_err(|error| StoreError::io("read", &sent.file, error))?;
        if here == there {
            return Ok(());
        }
        Err(self.other_content(&sent.path).into())
    }

    fn other_content(&self, path: &str) -> RemoteError {
        let detail = "it holds something else than what was sent there, though that was answered with success; do not trust this remote";
        fault(&self.name, "rely on", path, RemoteFault::Other, detail)
    }

    /// Makes a state the newest of the copy: from then on it counts. There must be none of that number.
    pub fn publish(&self, number: u64, content: &[u8]) -> Result<(), RemoteError> {
        let path = state_path(number);
        let full = self.path(&path);
        self.remote.write(&full, content, Put::New)?;
        let there = self.remote.read(&full, None)?;
        if there == content {
            return Ok(());
        }
        if state::decode(&there).is_ok() {
            let detail = "another machine has written it in the same moment";
            let exists = RemoteFault::Exists;
            return Err(fault(&self.name, "write", &path, exists, detail));
        }
        // A newest state that cannot be read would hide those before.
        self.remote.write(&full, content, Put::Replace)?;
        if self.remote.read(&full, None)? == content {
            return Ok(());
        }
        Err(self.other_content(&path))
    }

    /// Whether the remote itself sees to it that two machines do not both write a state: it is asked to write one again that
    /// is there, with the same bytes.
    pub fn is_exclusive(&self, number: u64, content: &[u8]) -> Result<bool, RemoteError> {
        let path = self.path(&state_path(number));
        match self.remote.write(&path, content, Put::New) {
            Ok(()) => Ok(false),
            Err(error) if error.fault == RemoteFault::Exists => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Hands out a file's bytes from its beginning to its end, by parts of bounded length. They are proved against its name
    /// afterwards: an error then says that all of them are worth nothing.
    pub fn fetch(
        &self,
        path: &str,
        held: &Held,
        see: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), Error> {
        let mut digest = DigestWriter::default();
        let whole = [(path.to_owned(), held.len())];
        let pieces = match held {
            Held::Whole { .. } => &whole[..],
            Held::Cut(pieces) => pieces,
        };
        for (piece, _) in pieces {
            let content = self.remote.read(&self.path(piece), None)?;
            let name = names::digest_of(piece);
            if name.is_some_and(|name| name != Digest::of(&content)) {
                return Err(self.damaged_there(piece).into());
            }
            digest.update(&content);
            see(&content)?;
        }
        if names::digest_of(path).is_some_and(|name| name != digest.digest()) {
            return Err(self.damaged_there(path).into());
        }
        Ok(())
    }

    fn damaged_there(&self, path: &str) -> RemoteError {
        let detail = "its content is not what its name says: it is damaged there";
        fault(&self.name, "use", path, RemoteFault::Other, detail)
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) -> Result<(), RemoteError> {
        self.remote.remove(&self.path(path))
    }
}

fn damaged_here(path: &str) -> StoreError {
    StoreError::damaged(
        path,
        "its content is not what its name says, so it is not sent, and the copy stays at its last state; btw-backup repair looks for a good one",
    )
}
