//! The supervisor: a store of wishes, an API to write them, and reconcilers that make them so.

pub mod api;
pub mod audit;
pub mod auth;
pub mod bundle;
#[cfg(test)]
mod chance;
pub mod config;
pub mod daemon;
pub mod image;
pub mod log;
pub mod metrics;
pub mod network;
pub mod operation;
pub mod reconcile;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod setup;
mod spdy;
pub mod store;
pub mod update;
pub mod volume;
