//! `berth-run stopped [--asked] <id>`: ExecStop and ExecStopPost of every unit.
//!
//! They leave one marker per life of a unit, from which the daemon learns, however much later it
//! comes back, how the unit ended and whether somebody had asked for it:
//!
//! ```text
//! ExecStop      --asked   $MAINPID is set only while the main process lives: then a stop was asked for
//! ExecStopPost            SERVICE_RESULT, EXIT_CODE, EXIT_STATUS; then what is left over is cleared
//! ```
//!
//! Neither may take long (systemd counts it into the stop's time limit), needs the daemon, or may
//! lose a marker because clearing up failed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_model::plan::{Ending, Plan};
use libcontainer::oci_spec::runtime::Spec;

use crate::network::{self, NetworkError};
use crate::paths::{ContainerId, Paths};
use crate::spec::HOST_LINK;
use crate::start::{self, StartError};

/// So many markers of one container are kept, should it crash for days with no daemon to read them.
const KEPT: usize = 32;

/// What went wrong while the end of a unit was recorded or cleared up.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// Not called by systemd.
    #[error("INVOCATION_ID is missing or malformed: berth-run stopped is for systemd to call")]
    NoInvocation,
    /// The marker.
    #[error("writing the marker {}", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The runtime's state and the mount points.
    #[error("clearing up after the container")]
    Clear(#[source] StartError),
    /// The host end of its network.
    #[error("removing the container's link")]
    Link(#[source] NetworkError),
}

/// What systemd tells its stop commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `INVOCATION_ID`.
    pub invocation: Option<String>,
    /// `MAINPID`.
    pub main_pid: Option<String>,
    /// `SERVICE_RESULT`.
    pub result: Option<String>,
    /// `EXIT_CODE`.
    pub exit_code: Option<String>,
    /// `EXIT_STATUS`.
    pub exit_status: Option<String>,
}

impl Told {
    /// Takes what is not empty from `lookup`, usually the environment.
    pub fn from(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        Self {
            invocation: get("INVOCATION_ID"),
            main_pid: get("MAINPID"),
            result: get("SERVICE_RESULT"),
            exit_code: get("EXIT_CODE"),
            exit_status: get("EXIT_STATUS"),
        }
    }
}

/// ExecStop: records that a stop was asked for, if the main process is still alive.
pub fn asked(paths: &Paths, id: &ContainerId, told: &Told) -> Result<(), StoppedError> {
    let invocation = invocation(told)?;
    if told.main_pid.is_none() {
        return Ok(());
    }
    let ending = Ending {
        id: id.to_string(),
        invocation: invocation.to_owned(),
        stop_asked: true,
        result: None,
        exit_code: None,
        exit_status: None,
    };
    write_marker(paths, &ending)
}

/// ExecStopPost: records how the unit ended, then clears up.
pub fn ended(paths: &Paths, id: &ContainerId, told: &Told) -> Result<(), StoppedError> {
    let invocation = invocation(told)?;
    let marker = marker_path(paths, id.as_str(), invocation);
    let ending = Ending {
        id: id.to_string(),
        invocation: invocation.to_owned(),
        stop_asked: was_asked(&marker),
        result: told.result.clone(),
        exit_code: told.exit_code.clone(),
        exit_status: told.exit_status.clone(),
    };
    let written = write_marker(paths, &ending).and_then(|()| drop_old_markers(paths, id));
    let link = host_link(paths, id).map_or(Ok(()), |link| network::delete_link(&link));
    let cleared = start::clear(&paths.container(id));
    written?;
    link.map_err(StoppedError::Link)?;
    cleared.map_err(StoppedError::Clear)
}

/// It becomes part of a file name, so that it has to be what systemd makes: 32 hex digits.
fn invocation(told: &Told) -> Result<&str, StoppedError> {
    told.invocation
        .as_deref()
        .filter(|text| text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit()))
        .ok_or(StoppedError::NoInvocation)
}

fn marker_path(paths: &Paths, id: &str, invocation: &str) -> PathBuf {
    paths.last().join(format!("{id}.{invocation}.json"))
}

/// Whether ExecStop has left its mark; one that cannot be read counts as none.
fn was_asked(marker: &Path) -> bool {
    fs::read(marker)
        .ok()
        .and_then(|text| serde_json::from_slice::<Ending>(&text).ok())
        .is_some_and(|ending| ending.stop_asked)
}

/// Replaces the marker in one step. `/run` is memory: what a power cut would take, the next boot
/// does not want; but a reader must never see half of it.
fn write_marker(paths: &Paths, ending: &Ending) -> Result<(), StoppedError> {
    let path = marker_path(paths, &ending.id, &ending.invocation);
    let write = || -> io::Result<()> {
        fs::create_dir_all(paths.last())?;
        let text = serde_json::to_vec(ending)?;
        let new = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(paths.last())?.sync_all()
    };
    write().map_err(|source| StoppedError::Marker { path: path.clone(), source })
}

/// Removes the oldest markers of a container beyond [`KEPT`].
fn drop_old_markers(paths: &Paths, id: &ContainerId) -> Result<(), StoppedError> {
    let drop = || -> io::Result<()> {
        let prefix = format!("{id}.");
        let mut markers = Vec::new();
        for entry in fs::read_dir(paths.last())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                markers.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        markers.sort();
        let old = markers.len().saturating_sub(KEPT);
        markers.iter().take(old).try_for_each(|(_, path)| fs::remove_file(path))
    };
    drop().map_err(|source| StoppedError::Marker { path: paths.last(), source })
}

/// Name of the host end, from the plan or, if that is gone, from the container's specification.
fn host_link(paths: &Paths, id: &ContainerId) -> Option<String> {
    let from_plan = || {
        let text = fs::read(paths.plan(id)).ok()?;
        let plan: Plan = serde_json::from_slice(&text).ok()?;
        Some(plan.network?.host_link)
    };
    let from_spec = || {
        let spec = Spec::load(paths.container(id).config()).ok()?;
        spec.annotations().as_ref()?.get(HOST_LINK).cloned()
    };
    from_plan().or_else(from_spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVOCATION: &str = "0123456789abcdef0123456789abcdef";

    fn id() -> ContainerId {
        "default.web.r7".parse().unwrap()
    }

    fn told(pairs: &[(&str, &str)]) -> Told {
        Told::from(|name| match name {
            "INVOCATION_ID" => Some(INVOCATION.to_owned()),
            name => pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    fn marker(paths: &Paths) -> Option<Ending> {
        let text = fs::read(marker_path(paths, id().as_str(), INVOCATION)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    fn scratch() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        (directory, paths)
    }

    #[test]
    fn a_stop_that_was_asked_for_is_told_from_the_clean_exit_it_ends_in() {
        let (_keep, paths) = scratch();
        asked(&paths, &id(), &told(&[("MAINPID", "42")])).unwrap();
        let end = told(&[("SERVICE_RESULT", "success"), ("EXIT_CODE", "exited"), ("EXIT_STATUS", "0")]);
        ended(&paths, &id(), &end).unwrap();
        let ending = marker(&paths).unwrap();
        assert!(ending.stop_asked);
        assert_eq!(ending.result.as_deref(), Some("success"));
        assert_eq!(ending.exit_status.as_deref(), Some("0"));
    }

    #[test]
    fn a_program_that_ended_by_itself_was_not_asked_to() {
        let (_keep, paths) = scratch();
        asked(&paths, &id(), &told(&[("MAINPID", "")])).unwrap();
        assert_eq!(marker(&paths), None);
        let end = told(&[("SERVICE_RESULT", "oom-kill"), ("EXIT_CODE", "killed"), ("EXIT_STATUS", "KILL")]);
        ended(&paths, &id(), &end).unwrap();
        let ending = marker(&paths).unwrap();
        assert!(!ending.stop_asked);
        assert_eq!(ending.result.as_deref(), Some("oom-kill"));
        assert_eq!(ending.exit_code.as_deref(), Some("killed"));
    }

    #[test]
    fn a_broken_marker_is_replaced() {
        let (_keep, paths) = scratch();
        fs::create_dir_all(paths.last()).unwrap();
        fs::write(marker_path(&paths, id().as_str(), INVOCATION), "{").unwrap();
        ended(&paths, &id(), &told(&[("SERVICE_RESULT", "signal")])).unwrap();
        assert!(!marker(&paths).unwrap().stop_asked);
    }

    #[test]
    fn clearing_up_takes_the_containers_directory_and_needs_no_plan() {
        let (_keep, paths) = scratch();
        let state = paths.container(&id()).state(&id());
        fs::create_dir_all(&state).unwrap();
        ended(&paths, &id(), &told(&[])).unwrap();
        assert!(!paths.container(&id()).path().exists());
    }

    #[test]
    fn a_unit_that_crashes_for_ever_does_not_fill_the_memory_with_markers() {
        let (_keep, paths) = scratch();
        for life in 0..KEPT + 3 {
            let told =
                Told { invocation: Some(format!("{life:032x}")), result: Some("signal".to_owned()), ..Told::default() };
            ended(&paths, &id(), &told).unwrap();
        }
        let other: ContainerId = "default.web.r70".parse().unwrap();
        ended(&paths, &other, &told(&[])).unwrap();
        let count = fs::read_dir(paths.last()).unwrap().count();
        assert_eq!(count, KEPT + 1);
        let newest = format!("{:032x}", KEPT + 2);
        assert!(marker_path(&paths, id().as_str(), &newest).exists());
    }

    #[test]
    fn an_invocation_that_could_be_a_path_is_refused() {
        let (_keep, paths) = scratch();
        for text in ["", "../../etc/passwd", "0123", "0123456789abcdef0123456789abcdeg"] {
            let told = Told { invocation: Some(text.to_owned()), ..Told::default() };
            assert!(matches!(ended(&paths, &id(), &told), Err(StoppedError::NoInvocation)));
        }
    }
}
