//! btw-backup ("back to when"): every tree, database and disk image, restorable to any moment, with or without this
//! tool.
//!
//! The library never prints, prompts, exits or reads environment variables; only [`cli`] does. The layers, from the top:
//! [`cli`] and [`config`] (words for people), [`ops`] (the verbs), [`tree`], [`process`], [`dump`], [`store`], [`remote`] and [`notify`] (effects), [`plan`],
//! [`catalog`], [`mod@format`] and [`delta`] (pure decisions and formats), and below them [`error`], [`time`], [`digest`] and
//! [`report`]. Imports point down only; `ARCHITECTURE.md` has the map and the formats byte for byte.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod delta;
pub mod digest;
pub mod dump;
pub mod error;
pub mod format;
pub mod notify;
pub mod ops;
pub mod plan;
pub mod process;
pub mod remote;
pub mod report;
pub mod store;
pub mod time;
pub mod tree;
