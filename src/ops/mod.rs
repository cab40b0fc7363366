//! The verbs: gather facts, plan, perform, report. No verb imports another; [`parts`], [`paths`],
//! [`live`] and [`rebuilt`] are what several use.

pub mod backup;
pub mod compare;
pub mod delete;
pub mod diff;
pub mod ebs;
pub mod import;
pub mod lines;
pub mod live;
pub mod look;
pub mod parts;
pub mod paths;
pub mod read;
pub mod rebuilt;
pub mod repair;
pub mod restore;
pub mod sync;
pub mod thin_remote;
pub mod verify;
