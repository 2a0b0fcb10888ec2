//! Makes a Berth of a machine: whether it can be one ([`facts`], [`findings`]), and what it is to become ([`config`]).

pub mod config;
pub mod facts;
pub mod findings;
pub mod validate;
