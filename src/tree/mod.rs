//! Directory ⇄ deterministic tar stream, always by directory handles and never through a symbolic link.
//!
//! [`walk`] finds members, [`select`] says which, [`meta`] and [`source`] read them, [`header`] writes their tar headers,
//! [`unpack`] makes them again beneath one new directory ([`beneath`]), [`stage`] and [`overlay`] in a tree that is in use. [`archive`] reads what other programs wrote.

pub mod acl;
pub mod ahead;
pub mod archive;
mod attributes;
pub mod beneath;
pub mod content;
pub mod faults;
pub mod found;
pub mod header;
pub mod make;
pub mod meta;
pub mod mount;
pub mod overlay;
pub mod owners;
pub mod select;
pub mod source;
pub mod stage;
pub mod tag;
pub mod unpack;
pub mod walk;
