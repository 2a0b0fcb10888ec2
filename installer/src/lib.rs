//! Makes a Berth of a machine: whether it can be one ([`facts`], [`findings`]), what it is to become ([`config`]), and how
//! it becomes that.
//!
//! ```text
//! ramdisk:       mode ─> appliance, with a seed beside its data, or installation
//! installation:  unattended, or tui with somebody at hand ─> install (check ─> system ─> data ─> start) ─> aftermath
//! first start:   apply, through the `berth` command
//! ```

pub mod aftermath;
pub mod apply;
pub mod config;
pub mod disks;
pub mod facts;
pub mod findings;
pub mod here;
pub mod http;
pub mod install;
pub mod mode;
pub mod seam;
pub mod seed;
pub mod tui;
pub mod unattended;
pub mod validate;
pub mod volume;
pub mod words;
