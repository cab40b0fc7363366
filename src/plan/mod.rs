//! Decisions as pure functions: facts in, plan out.

pub mod chain;
pub mod retention;
