//! What the walk has to say.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::meta::Meta;
use super::select::LeftOut;
use crate::error::SourceError;

/// Something found in the source.
#[derive(Clone)]
pub struct Found {
    /// Its path below the source; empty for the source directory itself.
    pub path: Vec<u8>,
    /// What the file system says of it.
    pub meta: Meta,
    /// The directory that it is in; for a directory that directory itself.
    pub dir: Arc<OwnedFd>,
    /// Its name in there; `.` for a directory.
    pub name: CString,
    /// A block device that is read as an image.
    pub is_image: bool,
}

/// What the walk has to say at each step.
pub enum Step {
    /// A member.
    Found(Box<Found>),
    /// Something that is left out on purpose, and why.
    LeftOut(Vec<u8>, LeftOut),
    /// A path at which something could not be looked at.
    Problem(Vec<u8>, SourceError),
}
