//! The verbs: gather facts, plan, perform, report. No verb imports another.

pub mod backup;
pub mod diff;
pub mod import;
pub mod look;
pub mod paths;
pub mod read;
pub mod restore;
pub mod verify;
