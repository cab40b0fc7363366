//! The verbs: gather facts, plan, perform, report. No verb imports another.

pub mod backup;
pub mod import;
pub mod restore;
