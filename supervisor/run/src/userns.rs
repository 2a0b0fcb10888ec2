//! A user namespace that exists only to describe a mapping of ids to the mount API.
//!
//! It is not the container's own: that one is made later by the runtime with the same numbers, and
//! for an id-mapped mount only the numbers count.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use berth_model::plan::IdRange;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::{report, sys};

/// What went wrong while the mapping was made.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// No process could be made to hold it.
    #[error("starting the process that holds the user namespace")]
    Holder(#[source] io::Error),
    /// The kernel refused the namespace (`user.max_user_namespaces`?).
    #[error("making a user namespace")]
    Unshare(#[source] io::Error),
    /// The range was refused.
    #[error("mapping {size} ids from {base} on")]
    Map {
        /// First id on the host.
        base: u32,
        /// How many.
        size: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace could not be opened.
    #[error("opening the user namespace")]
    Open(#[source] io::Error),
    /// The holder could not be ended.
    #[error("ending the process that held the user namespace")]
    Release(#[source] nix::Error),
}

/// A descriptor of a new user namespace in which `ids.base` on the host is 0 inside.
pub fn mapping(ids: IdRange) -> Result<OwnedFd, UserNamespaceError> {
    let (ready, tell) = report::pipe().map_err(UserNamespaceError::Holder)?;
    let holder = sys::fork_child(|| hold(&tell)).map_err(UserNamespaceError::Holder)?;
    drop(tell);
    let namespace = map_and_open(holder, ready, ids);
    nix::sys::signal::kill(holder, Signal::SIGKILL).map_err(UserNamespaceError::Release)?;
    waitpid(holder, None).map_err(UserNamespaceError::Release)?;
    namespace
}

/// The child: enters a new user namespace, says how that went, and waits to be killed.
fn hold(tell: &OwnedFd) -> i32 {
    let outcome =
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| nix::sched::unshare(CloneFlags::CLONE_NEWUSER));
    let code = outcome.err().map_or(0, |errno| errno as i32);
    if nix::unistd::write(tell, &code.to_ne_bytes()).is_err() || code != 0 {
        return 1;
    }
    loop {
        nix::unistd::pause();
    }
}

fn map_and_open(holder: Pid, ready: OwnedFd, ids: IdRange) -> Result<OwnedFd, UserNamespaceError> {
    let mut code = [0; 4];
    File::from(ready).read_exact(&mut code).map_err(UserNamespaceError::Holder)?;
    match i32::from_ne_bytes(code) {
        0 => {}
        errno => {
            return Err(UserNamespaceError::Unshare(io::Error::from_raw_os_error(errno)));
        }
    }
    let line = format!("0 {} {}", ids.base, ids.size);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{holder}/{file}"), &line).map_err(|source| UserNamespaceError::Map {
            base: ids.base,
            size: ids.size,
            source,
        })?;
    }
    File::open(format!("/proc/{holder}/ns/user")).map(OwnedFd::from).map_err(UserNamespaceError::Open)
}
