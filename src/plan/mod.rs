//! Decisions as pure functions: facts in, plan out.

pub mod chain;
pub mod health;
pub mod retention;
pub mod snapshots;
