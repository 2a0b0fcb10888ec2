//! `berth-run`: what systemd calls for every container, and nothing that stays.
//!
//! - [`start`] (ExecStart) makes a container out of a plan and hands its first process to systemd.
//! - [`stopped`] (ExecStop, ExecStopPost) records how a unit ended and clears up.
//! - [`exec`] runs one more command in a container, under the container's own confinement.
//!
//! The process has one thread throughout: it enters namespaces, changes its ids and is divided by
//! raw clones. So there is no asynchronous run-time here, and no D-Bus.
//!
//! From plan to process: [`files`] and [`spec`] (with [`seccomp`]) render, [`userns`] and
//! [`rootfs`] mount, [`user`] (by [`confined`]) resolves, [`projections`] writes what comes from
//! ConfigMaps and Secrets, [`devices`] makes nodes, [`launcher`] creates, [`network`] (over [`netlink`]) connects, [`program`]
//! finds what is run and [`init`] runs it. [`report`] is how a process inside tells the one outside
//! why it could not; [`sys`] holds the only unsafe code.

pub mod confined;
pub mod devices;
pub mod exec;
pub mod files;
pub mod init;
pub mod launcher;
pub mod netlink;
pub mod network;
pub mod paths;
pub mod program;
pub mod projections;
pub mod report;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod start;
pub mod stopped;
pub mod sys;
pub mod user;
pub mod userns;
pub mod volumes;

#[cfg(test)]
mod testing;
