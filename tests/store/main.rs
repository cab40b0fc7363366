//! The store and the engine through their API, on a simulated disk.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod crash;
mod damage;
mod deletion;
mod dumps;
mod history;
mod proof;
mod random;
mod sim;
mod world;
