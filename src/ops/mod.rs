//! The verbs: gather facts, plan, perform, report. No verb imports another; [`parts`], [`paths`] and [`live`] are what several use.

pub mod backup;
pub mod compare;
pub mod diff;
pub mod import;
pub mod live;
pub mod look;
pub mod parts;
pub mod paths;
pub mod read;
pub mod restore;
pub mod verify;
