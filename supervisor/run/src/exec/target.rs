//! A running container as `exec` finds it, looked at from outside before anything is joined.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_model::plan::SystemCalls;
use libcontainer::container::{ContainerStatus, State};
use libcontainer::oci_spec::runtime::{LinuxCapabilities, Process, Spec};
use nix::unistd::Pid;

use crate::paths::{ContainerDir, ContainerId, Paths};
use crate::spec::system_calls;
use crate::sys;
use crate::user::Identity;

/// Why a container cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not running, or about to start or end.
    #[error("{id} is not running: start it, or look at `systemctl status berth.{id}.service`")]
    NotRunning {
        /// Which.
        id: ContainerId,
    },
    /// What the runtime or `start` has left is not readable.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The specification lacks a part that `start` always writes.
    #[error("the container's specification has no {0}")]
    Incomplete(&'static str),
    /// Its system call filter is not one that `start` has written.
    #[error("reading the container's system call filter")]
    SystemCalls {
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Something about its first process.
    #[error("{doing} of the container's first process")]
    Process {
        /// What was looked at.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What is needed to enter a container and to be confined as its first process is.
#[derive(Debug)]
pub struct Target {
    pid: Pid,
    pidfd: OwnedFd,
    cgroup: OwnedFd,
    process: Process,
    ids: u32,
    /// Resource limits of the first process.
    pub limits: Vec<(u32, libc::rlimit)>,
    /// Its OOM score adjustment, as the kernel prints it.
    pub oom_score: String,
    /// Its system call filters.
    pub system_calls: SystemCalls,
}

impl Target {
    /// Looks at container `id` while its first process is alive.
    pub fn open(paths: &Paths, id: &ContainerId) -> Result<Self, TargetError> {
        let gone = || TargetError::NotRunning { id: id.clone() };
        let dir = paths.container(id);
        let pid = first_process(&dir, id)?.ok_or_else(gone)?;
        let pidfd = sys::pidfd_open(pid).map_err(|_| gone())?;
        let spec = read_spec(&dir)?;
        let linux = spec.linux().as_ref().ok_or(TargetError::Incomplete("linux"))?;
        let cgroup = linux.cgroups_path().as_ref().ok_or(TargetError::Incomplete("control group"))?;
        // The number may be another process' by now; the pidfd is not, so that what holds now
        // holds for whoever is behind it.
        let at = |doing| move |source| TargetError::Process { doing, source };
        let present = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| gone())?;
        if present.trim_end() != format!("0::{}", cgroup.display()) {
            return Err(gone());
        }
        Ok(Self {
            pid,
            pidfd,
            cgroup: File::open(format!("/sys/fs/cgroup{}", cgroup.display()))
                .map_err(at("opening the control group"))?
                .into(),
            ids: linux
                .uid_mappings()
                .as_ref()
                .and_then(|maps| maps.first())
                .map(libcontainer::oci_spec::runtime::LinuxIdMapping::size)
                .ok_or(TargetError::Incomplete("id mapping"))?,
            process: spec.process().clone().ok_or(TargetError::Incomplete("process"))?,
            system_calls: system_calls(&spec).map_err(|source| TargetError::SystemCalls { source })?,
            limits: sys::limits_of(pid).map_err(at("reading the limits"))?,
            oom_score: fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).map_err(at("reading the OOM score"))?,
        })
    }

    /// The first process, however its number may be used later.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The directory of the payload's control group.
    pub fn cgroup(&self) -> BorrowedFd<'_> {
        self.cgroup.as_fd()
    }

    /// The container's root, as a path on the host.
    pub fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.pid).into()
    }

    /// How many ids the container has.
    pub fn ids(&self) -> u32 {
        self.ids
    }

    /// Directory in which commands begin.
    pub fn cwd(&self) -> &PathBuf {
        self.process.cwd()
    }

    /// Environment of the first process.
    pub fn env(&self) -> Vec<String> {
        self.process.env().clone().unwrap_or_default()
    }

    /// The user of the first process, as `start` has resolved it.
    pub fn own_identity(&self) -> Identity {
        let own = self.process.user();
        Identity {
            uid: own.uid(),
            gid: own.gid(),
            groups: own.additional_gids().clone().unwrap_or_default(),
            // The environment written by `start` has HOME already.
            home: "/".to_owned(),
        }
    }

    /// What a command of user `uid` may do: see [`capabilities_for`].
    pub fn capabilities(&self, uid: u32) -> LinuxCapabilities {
        let own = self.process.capabilities().clone().unwrap_or_default();
        capabilities_for(own, self.process.user().uid(), uid)
    }
}

/// Root and the container's own user have the container's capabilities. Anybody else has none, and
/// the container's as bounding set, which is what changing to that user inside would give.
fn capabilities_for(mut own: LinuxCapabilities, own_uid: u32, uid: u32) -> LinuxCapabilities {
    if uid == own_uid {
        return own;
    }
    let none = Some(HashSet::new());
    own.set_inheritable(none.clone());
    own.set_ambient(none.clone());
    if uid != 0 {
        own.set_effective(none.clone());
        own.set_permitted(none);
    }
    own
}

fn first_process(dir: &ContainerDir, id: &ContainerId) -> Result<Option<Pid>, TargetError> {
    let state = dir.state(id);
    if !state.exists() {
        return Ok(None);
    }
    let state = State::load(&state).map_err(|source| TargetError::Read { path: state, source: source.into() })?;
    // Until its program runs its network may not be there; a command is not let in before.
    let running = state.status == ContainerStatus::Running;
    Ok(state.pid.filter(|_| running).map(Pid::from_raw))
}

fn read_spec(dir: &ContainerDir) -> Result<Spec, TargetError> {
    Spec::load(dir.config()).map_err(|source| TargetError::Read { path: dir.config(), source: source.into() })
}

#[cfg(test)]
mod tests {
    use libcontainer::oci_spec::runtime::Capability;

    use super::*;

    fn own(ambient: bool) -> LinuxCapabilities {
        let some = Some(HashSet::from([Capability::Chown]));
        let mut own = LinuxCapabilities::default();
        own.set_bounding(some.clone());
        own.set_effective(some.clone());
        own.set_permitted(some.clone());
        let inherited = if ambient { some } else { Some(HashSet::new()) };
        own.set_inheritable(inherited.clone());
        own.set_ambient(inherited);
        own
    }

    #[test]
    fn the_containers_own_user_has_what_the_container_has() {
        assert_eq!(capabilities_for(own(false), 0, 0), own(false));
        assert_eq!(capabilities_for(own(true), 33, 33), own(true));
    }

    #[test]
    fn root_in_a_container_of_another_user_has_the_same_set_without_handing_it_on() {
        assert_eq!(capabilities_for(own(true), 33, 0), own(false));
    }

    #[test]
    fn any_other_user_has_none() {
        let none = Some(HashSet::new());
        let theirs = capabilities_for(own(false), 0, 33);
        assert_eq!(theirs.effective(), &none);
        assert_eq!(theirs.permitted(), &none);
        assert_eq!(theirs.ambient(), &none);
        assert_eq!(theirs.bounding(), own(false).bounding());
    }
}
