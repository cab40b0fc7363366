//! Directory ⇄ deterministic tar stream, always by directory handles and never through a symbolic link.
//!
//! [`walk`] finds members, [`source`] reads them, [`header`] writes their tar headers, [`unpack`] makes them again.

pub mod acl;
pub mod header;
pub mod source;
pub mod unpack;
pub mod walk;
