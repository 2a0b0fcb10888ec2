//! What Berth is about, as plain values: no IO, no clock, no randomness.

pub mod allocation;
pub mod plan;
pub mod resource;
