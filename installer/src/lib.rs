//! Makes a Berth of a machine: whether it can be one ([`facts`], [`findings`]), and what it is to become ([`config`]),
//! and the interface that asks for it ([`tui`]) before somebody's [`seam::Machine`] installs it.

pub mod config;
pub mod facts;
pub mod findings;
pub mod seam;
pub mod tui;
pub mod validate;
