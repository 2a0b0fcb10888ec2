//! The machinery behind Berth's tests: guests under QEMU, and what goes into them.
//!
//! From the outside in: a [`machine::Machine`] is one QEMU process and the folder with its disks; [`channel`] runs
//! commands in it, through the agent of `src/bin/agent.rs`; [`qmp`] steers QEMU itself. What a machine boots is built
//! by [`guest`] (the Debian root disk), [`payload`] (the package under test) and [`images`] (container images), each
//! kept in the user's cache folder under a hash of everything it was made from, see [`cache`]. [`postgres`] is a service that holds data. [`browser`]
//! is a real one, for what only browsers do. [`saved`] keeps the
//! memory of a booted machine, so that suites start from it and not from a boot.
//!
//! This crate alone starts programs by name: see [`spawn`].

pub mod accel;
pub mod bench;
pub mod board;
pub mod browser;
pub mod cache;
pub mod channel;
pub mod guest;
pub mod handmade;
pub mod http;
pub mod image;
pub mod images;
pub mod leftovers;
pub mod machine;
pub mod pace;
pub mod payload;
pub mod postgres;
pub mod python;
pub mod qemu;
pub mod qmp;
pub mod saved;
pub mod spawn;
pub mod tools;
pub mod tree;
pub mod wire;
