//! Everything that is tested from outside the crates, as one program.
//!
//! `house` reads the tree, `vm` needs a booted machine.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod house;
mod nix;
mod vm;
