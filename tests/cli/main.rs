//! The program as people use it: typed commands, real files, other people's tools as judges.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod archives;
mod commands;
mod concurrency;
mod configuration;
mod documents;
mod dump;
mod ebs;
mod errno;
mod fidelity;
mod hostile;
mod in_place;
mod kill;
mod legacy;
mod live;
mod look;
mod postgres;
mod race;
mod retention;
mod run;
mod selection;
mod status;
mod told;
mod tools;
mod trees;
