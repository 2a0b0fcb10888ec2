//! Everything that is tested from outside the crates, as one program.
//!
//! `house` reads the tree, `vm` needs a booted machine.

mod house;
mod vm;
