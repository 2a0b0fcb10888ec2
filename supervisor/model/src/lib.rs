//! What Berth is about, as plain values: no IO, no clock, no randomness.

pub mod allocation;
pub mod changes;
pub mod cleanup;
pub mod condition;
pub mod connection;
pub mod event;
pub mod field;
pub mod id;
pub mod kinds;
pub mod managed;
pub mod meta;
pub mod network;
pub mod patch;
pub mod plan;
pub mod policy;
pub mod pressure;
pub mod projection;
pub mod provided;
pub mod quantity;
pub mod readiness;
pub mod reference;
pub mod resource;
pub mod selector;
pub mod session;
pub mod status;
pub mod usage;
