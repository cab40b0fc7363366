//! The store and the engine through their API, on a simulated disk.

mod crash;
mod history;
mod proof;
mod sim;
mod world;
