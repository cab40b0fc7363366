//! Copies elsewhere: against a real S3 server, a real sshd, and everything that goes wrong between here and there.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod conformance;
mod faults;
mod garage;
mod limits;
mod memory;
mod moto;
mod repair;
mod server;
mod sshd;
mod sync;
#[path = "../cli/tools.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod tools;
#[path = "../cli/trees.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod trees;
