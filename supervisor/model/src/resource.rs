//! The kinds Berth serves, one file each.

pub mod bundle;
pub mod operation;
pub mod revision;
