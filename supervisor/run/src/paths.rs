//! Where things lie under `/run/berth`, and the one check that keeps an id from being a path.

use std::fmt;
use std::path::{Path, PathBuf};

/// Ids longer than this would not fit into a unit name.
const LONGEST_ID: usize = 200;

/// Why a string is no container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no container id: <namespace>.<bundle>.r<revision> of lower-case letters, digits and dashes is")]
pub struct InvalidId(String);

/// `<namespace>.<bundle>.r<revision>`: safe as one file name and in a unit name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId(String);

impl std::str::FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let label = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if text.len() <= LONGEST_ID && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId(text.to_owned()))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The run-time directory, `/run/berth` on a machine and a scratch directory in tests.
#[derive(Clone, Debug)]
pub struct Paths {
    run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/run/berth")
    }
}

impl Paths {
    /// Everything below `run`.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self { run: run.into() }
    }

    /// The run-time directory itself.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The plan, written by the daemon.
    pub fn plan(&self, id: &ContainerId) -> PathBuf {
        self.run.join(format!("plan/{id}.json"))
    }

    /// What goes with the plan and may hold secrets, written by the daemon.
    pub fn provided(&self, id: &ContainerId) -> PathBuf {
        self.run.join(format!("provided/{id}.json"))
    }

    /// Directory of the markers of units that ended.
    pub fn last(&self) -> PathBuf {
        self.run.join("last")
    }

    /// What one running container has: mount points, `config.json`, the runtime's state.
    pub fn container(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir { path: self.run.join(format!("container/{id}")) }
    }
}

/// `/run/berth/container/<id>`. Mounts on it are seen by the unit alone; on the host the mount
/// points are empty directories.
#[derive(Clone, Debug)]
pub struct ContainerDir {
    path: PathBuf,
}

impl ContainerDir {
    /// The directory, which is also the runtime's bundle.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The merged root.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }

    /// The layer store, id-mapped.
    pub fn layers(&self) -> PathBuf {
        self.path.join(LAYERS)
    }

    /// The writable layer and the files made for this container.
    pub fn scratch(&self) -> PathBuf {
        self.path.join(SCRATCH)
    }

    /// Directory of the mount points of volumes.
    pub fn volumes(&self) -> PathBuf {
        self.path.join(VOLUMES)
    }

    /// Where the volume of that number is mounted.
    pub fn volume(&self, number: usize) -> PathBuf {
        self.volumes().join(number.to_string())
    }

    /// Nodes of the machine's devices.
    pub fn devices(&self) -> PathBuf {
        self.path.join("devices")
    }

    /// Files from ConfigMaps and Secrets.
    pub fn projections(&self) -> PathBuf {
        self.path.join("projections")
    }

    /// Where the runtime keeps its state.
    pub fn state_root(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The runtime's state of this container.
    pub fn state(&self, id: &ContainerId) -> PathBuf {
        self.state_root().join(id.as_str())
    }

    /// The specification that the runtime was given; root alone may read it.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }
}

/// Name of the merged root's mount point.
pub const ROOTFS: &str = "rootfs";
/// Name of the layer store's mount point.
pub const LAYERS: &str = "layers";
/// Name of the directory of the volumes' mount points.
pub const VOLUMES: &str = "volumes";
/// Name of the writable layer's mount point.
pub const SCRATCH: &str = "scratch";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_three_labels() {
        let id: ContainerId = "my-team.web.r12".parse().unwrap();
        assert_eq!(Paths::default().plan(&id), Path::new("/run/berth/plan/my-team.web.r12.json"));
    }

    #[test]
    fn nothing_that_could_leave_the_directory_is_an_id() {
        for text in ["", ".", "..", "a/b", "../a", "a..b", "-a", "A", "a b", "a\0"] {
            assert!(text.parse::<ContainerId>().is_err(), "{text:?}");
        }
        assert!("a".repeat(201).parse::<ContainerId>().is_err());
    }
}
