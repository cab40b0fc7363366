//! What a scan finds, of a tree or of a dump.

use super::{Options, Previous};
use crate::error::StoreError;
use crate::format::scan::ScanCache;
use crate::store::Store;
use crate::store::catalogs::CatalogWriter;
use crate::store::packer::Packer;
use crate::store::pieces::Pieces;
use crate::tree::select::LeftOut;

/// What the scan found.
pub struct Scanned {
    /// The new stream.
    pub pieces: Pieces,
    /// The same as it is to be stored, if some of what is known of the old stream is stored anew nevertheless.
    pub placed: Option<Pieces>,
    /// Still holds what was not yet written.
    pub packer: Packer,
    /// The new catalog, complete but for its last page.
    pub catalog: CatalogWriter,
    /// Stamps of a tree's members; version and catalog digest are filled in later.
    pub cache: Option<ScanCache>,
    /// How many members the stream has.
    pub members: u64,
    /// The sum of the files' lengths.
    pub size_bytes: u64,
    /// The source is one file.
    pub is_file: bool,
    /// Members that are absent or torn.
    pub problems: Vec<String>,
    /// What was left out without being asked for, and other remarks.
    pub notes: Vec<String>,
    /// What the program that was dumped said.
    pub said: Vec<String>,
    /// What is not in the stream, or not all of it.
    pub not_kept: NotKept,
}

/// How many things of the source are not in a version.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NotKept {
    /// Left out as the configuration says.
    pub excluded: u64,
    /// Sockets, which no tar can hold.
    pub sockets: u64,
    /// Members with inode flags (immutable, append-only, no-dump), which no tar can hold.
    pub flagged: u64,
}

impl NotKept {
    /// Counts something that is left out. Of what is not counted, because it is rare, `false` is returned.
    pub fn count(&mut self, why: &LeftOut) -> bool {
        match why {
            LeftOut::Socket => self.sockets += 1,
            why if why.is_asked_for() => self.excluded += 1,
            _ => return false,
        }
        true
    }
}

impl Scanned {
    /// What is known before anything was read.
    pub fn begin(
        store: &Store,
        options: &Options,
        previous: Option<&Previous>,
    ) -> Result<Self, StoreError> {
        let like = previous.map(|previous| &previous.version.catalog);
        Ok(Self {
            pieces: Pieces::default(),
            placed: None,
            packer: Packer::start(store, options.knobs)?,
            catalog: CatalogWriter::create(store, like)?,
            cache: None,
            members: 0,
            size_bytes: 0,
            is_file: false,
            problems: Vec::new(),
            notes: Vec::new(),
            said: Vec::new(),
            not_kept: NotKept::default(),
        })
    }

    /// Ends a scan that found nothing new; what it may have written is left to the collector.
    pub fn finish_unchanged(self) -> Result<(Option<ScanCache>, Vec<String>), StoreError> {
        self.packer.finish()?;
        Ok((self.cache, self.notes))
    }
}
