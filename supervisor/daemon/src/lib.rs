//! The supervisor: a store of wishes, an API to write them, and reconcilers that make them so.

pub mod store;
