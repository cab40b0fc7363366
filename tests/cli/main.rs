//! The program as people use it: typed commands, real files, other people's tools as judges.

mod commands;
mod concurrency;
mod kill;
mod tools;
mod trees;
