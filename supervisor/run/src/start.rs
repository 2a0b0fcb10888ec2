//! `berth-run start <id>`: the ExecStart of every unit.
//!
//! ```text
//! plan ─ signals ─ cgroup ─ root (id mapping, layers, writable layer, overlay)
//!      ─ user ─ volumes ─ files from ConfigMaps and Secrets ─ config.json
//!      ─ container created (waits) ─ network ─ program runs ─ READY
//! ```
//!
//! Everything is made inside the unit, in its mount namespace and control group, so that whatever
//! fails and however this process ends, systemd's clearing up of the unit takes all of it along.
//! Afterwards this process is gone and the container's first process is the unit's main process.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_model::plan::{PLAN_VERSION, Plan};
use berth_model::provided::Directory;
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use sd_notify::NotifyState;

use crate::confined::{self, Found};
use crate::devices::{self, DeviceError};
use crate::launcher::{LaunchError, Launcher};
use crate::network::{self, NetworkError};
use crate::paths::{ContainerDir, ContainerId, Paths};
use crate::projections::{self, ProjectionError};
use crate::report::FAILED;
use crate::rootfs::{self, RootError};
use crate::user::{self, Identity, UserError};
use crate::userns::{self, UserNamespaceError};
use crate::volumes::{self, VolumeError};
use crate::{files, spec, sys};

/// Exit code for a plan that cannot be followed: systemd shows it as `CONFIG`.
const BAD_PLAN: u8 = 78;
/// Where the unified hierarchy is.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Which step of a start failed. The message becomes the unit's status text.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no plan, or it cannot be read.
    #[error("reading the plan {} (berthd writes it before it starts the unit)", path.display())]
    ReadPlan {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The plan is not what this build understands.
    #[error("understanding the plan {}", path.display())]
    ParsePlan {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the plan.
    #[error(
        "the plan has version {found} and this berth-run reads version {PLAN_VERSION}: start the service again through berthd, which writes a new one"
    )]
    PlanVersion {
        /// What the plan says.
        found: u64,
    },
    /// The file is another container's plan.
    #[error("the plan of {expected} says that it is for {found}")]
    PlanId {
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// Signals could not be given their default actions.
    #[error("resetting signals")]
    Signals(#[source] nix::Error),
    /// The unit's control group.
    #[error("making the container's control group")]
    Cgroup(#[source] io::Error),
    /// This process is not in a control group of its own.
    #[error("this process is not in a unit's control group: berth-run start is for systemd to call")]
    NoUnit,
    /// What an earlier start left behind.
    #[error("clearing {} of an earlier start", path.display())]
    Clear {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The id mapping.
    #[error("preparing the id mapping")]
    UserNamespace(#[source] UserNamespaceError),
    /// The root file system.
    #[error("making the root")]
    Root(#[source] RootError),
    /// A volume.
    #[error("making the volumes")]
    Volume(#[source] VolumeError),
    /// The user.
    #[error("finding the user {user:?}")]
    User {
        /// As the plan has it.
        user: String,
        /// Why it cannot be.
        #[source]
        source: UserError,
    },
    /// What comes from ConfigMaps and Secrets.
    #[error("providing what the service takes from ConfigMaps and Secrets")]
    Provide(#[source] ProjectionError),
    /// Devices of the machine.
    #[error("giving devices to the service")]
    Device(#[source] DeviceError),
    /// The working directory cannot be looked at.
    #[error("looking for the working directory")]
    FindDirectory(#[source] io::Error),
    /// The working directory is not there.
    #[error("the image has no directory {0:?} to work in; give one of the image")]
    NoDirectory(String),
    /// `config.json`.
    #[error("writing the container's specification")]
    Spec(#[source] io::Error),
    /// The container.
    #[error("launching")]
    Launch(#[source] LaunchError),
    /// Its network.
    #[error("making the network")]
    Network(#[source] NetworkError),
    /// systemd was not told.
    #[error("telling systemd that the service runs")]
    Notify(#[source] io::Error),
}

impl StartError {
    /// What the process exits with: 126 and 127 as a shell has them, 78 for a bad plan, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Provide(ProjectionError::Read { .. } | ProjectionError::Parse { .. }) => BAD_PLAN,
            Self::ReadPlan { .. } | Self::ParsePlan { .. } | Self::PlanVersion { .. } | Self::PlanId { .. } => BAD_PLAN,
            Self::Launch(LaunchError::Program(failure)) => failure.code,
            _ => FAILED,
        }
    }
}

/// Starts the container `id` and hands its first process to systemd as the unit's main process.
///
/// An error goes to systemd as status text too, so that `systemctl status` names the step.
pub fn start(paths: &Paths, id: &ContainerId, launcher: &dyn Launcher) -> Result<(), StartError> {
    let pid = launch(paths, id, launcher)?;
    let main = NotifyState::MainPid(pid.as_raw().unsigned_abs());
    sd_notify::notify(&[main, NotifyState::Ready]).map_err(StartError::Notify)
}

fn launch(paths: &Paths, id: &ContainerId, launcher: &dyn Launcher) -> Result<Pid, StartError> {
    let (plan, directories) = read(paths, id)?;
    sys::reset_signals().map_err(StartError::Signals)?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let cgroup = make_cgroup()?;
    let dir = paths.container(id);
    prepare_directory(paths, &dir)?;

    let files = files::render(&plan);
    let map = userns::mapping(plan.ids).map_err(StartError::UserNamespace)?;
    rootfs::assemble(&plan.root, plan.ids, map.as_fd(), &dir, &files).map_err(StartError::Root)?;
    let identity = find_user(&plan, &dir)?;
    volumes::attach(&plan.volumes, plan.ids, &identity, map.as_fd(), &dir).map_err(StartError::Volume)?;
    projections::provide(&directories, plan.ids, map.as_fd(), &dir, &identity).map_err(StartError::Provide)?;
    devices::make(&plan.security.devices, &dir).map_err(StartError::Device)?;
    check_directory(&plan, &directories, &dir)?;
    write_spec(&plan, &directories, &identity, &cgroup, &dir)?;

    let waiting = launcher.create(id, &dir).map_err(StartError::Launch)?;
    let pid = waiting.pid();
    network::connect(plan.network.as_ref(), pid).map_err(StartError::Network)?;
    waiting.start().map_err(StartError::Launch)?;
    Ok(pid)
}

/// The plan with its variables complete, and the directories that go with it.
fn read(paths: &Paths, id: &ContainerId) -> Result<(Plan, Vec<Directory>), StartError> {
    let mut plan = read_plan(&paths.plan(id), id)?;
    let provided = projections::read(&plan, &paths.provided(id)).map_err(StartError::Provide)?;
    plan.process.env = projections::environment(&plan.process.env, &provided);
    Ok((plan, provided.directories))
}

fn read_plan(path: &Path, id: &ContainerId) -> Result<Plan, StartError> {
    let text = fs::read(path).map_err(|source| StartError::ReadPlan { path: path.to_owned(), source })?;
    parse_plan(&text, id, path)
}

/// Looks at the version before anything else: of another version not even the fields are known.
fn parse_plan(text: &[u8], id: &ContainerId, path: &Path) -> Result<Plan, StartError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u64,
    }
    let wrong = |source| StartError::ParsePlan { path: path.to_owned(), source };
    let Versioned { version } = serde_json::from_slice(text).map_err(wrong)?;
    if version != u64::from(PLAN_VERSION) {
        return Err(StartError::PlanVersion { found: version });
    }
    let plan: Plan = serde_json::from_slice(text).map_err(wrong)?;
    if plan.id != id.as_str() {
        return Err(StartError::PlanId { expected: id.to_string(), found: plan.id });
    }
    Ok(plan)
}

/// Makes `<unit>/payload` and gives its path below the root of the hierarchy.
///
/// It must be there before the runtime looks: a runtime that has to make it enables controllers in
/// every group from the root down, and then may not put a process into it.
fn make_cgroup() -> Result<String, StartError> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(StartError::Cgroup)?;
    let payload = payload_of(&own).ok_or(StartError::NoUnit)?;
    let directory = format!("{CGROUP_ROOT}{payload}");
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(StartError::Cgroup)?,
    }
    Ok(payload)
}

/// The payload group of the unit whose process wrote this `/proc/<pid>/cgroup`.
fn payload_of(own: &str) -> Option<String> {
    let unit = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    (unit.len() > 1).then(|| format!("{unit}/payload"))
}

/// An empty directory that the container's root, once it has an id of its own, can pass through.
fn prepare_directory(paths: &Paths, dir: &ContainerDir) -> Result<(), StartError> {
    clear(dir)?;
    for path in [&paths.run().join("container"), dir.path(), &dir.state_root()] {
        rootfs::make_directory(path, 0o711).map_err(StartError::Root)?;
    }
    Ok(())
}

/// Removes what an earlier start has left: the runtime's state, the specification, mount points.
/// Their mounts are gone with the unit that had them.
///
/// Mount points of volumes are never cleared of what is in them: should a volume be mounted there
/// against all expectation, this is an error, and its data stays.
pub fn clear(dir: &ContainerDir) -> Result<(), StartError> {
    let cleared = remove_empty(&dir.volumes()).and_then(|()| absent_is_fine(fs::remove_dir_all(dir.path())));
    cleared.map_err(|source| StartError::Clear { path: dir.path().to_owned(), source })
}

/// Removes a directory and the empty ones in it.
fn remove_empty(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        fs::remove_dir(entry?.path())?;
    }
    fs::remove_dir(directory)
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn find_user(plan: &Plan, dir: &ContainerDir) -> Result<Identity, StartError> {
    user::resolve_in(&dir.rootfs(), &plan.process.user, plan.ids.size)
        .map_err(|source| StartError::User { user: plan.process.user.clone(), source })
}

/// The runtime would only say that some system call failed.
fn check_directory(plan: &Plan, provided: &[Directory], dir: &ContainerDir) -> Result<(), StartError> {
    let cwd = plan.process.cwd.as_str();
    let volumes = plan.volumes.iter().map(|volume| volume.mount_path.as_path());
    let own = volumes.chain(provided.iter().map(|directory| Path::new(&directory.path)));
    let mounted_later = spec::MOUNTED.iter().map(Path::new).chain(own).any(|mount| Path::new(cwd).starts_with(mount));
    if cwd.is_empty() || mounted_later {
        return Ok(());
    }
    match confined::look(&dir.rootfs(), Path::new(cwd)).map_err(StartError::FindDirectory)? {
        Found::Directory => Ok(()),
        _ => Err(StartError::NoDirectory(cwd.to_owned())),
    }
}

fn write_spec(
    plan: &Plan,
    provided: &[Directory],
    identity: &Identity,
    cgroup: &str,
    dir: &ContainerDir,
) -> Result<(), StartError> {
    let rendered = spec::render(plan, provided, identity, cgroup, dir);
    let text = serde_json::to_vec(&rendered).map_err(|error| StartError::Spec(error.into()))?;
    // The environment may hold secrets.
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dir.config())
        .and_then(|mut file| file.write_all(&text))
        .map_err(StartError::Spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn id() -> ContainerId {
        "default.web.r7".parse().unwrap()
    }

    fn parsed(text: &str) -> Result<Plan, StartError> {
        parse_plan(text.as_bytes(), &id(), Path::new("plan.json"))
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let text = serde_json::to_string(&testing::plan()).unwrap();
        assert_eq!(parsed(&text).unwrap(), testing::plan());
    }

    #[test]
    fn a_plan_of_another_version_is_refused_before_its_fields_are_looked_at() {
        let error = parsed(r#"{"version": 2, "somethingNew": true}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the plan has version 2 and this berth-run reads version 1: start the service again \
             through berthd, which writes a new one"
        );
        assert_eq!(error.exit_code(), BAD_PLAN);
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let mut plan = serde_json::to_value(testing::plan()).unwrap();
        plan["somethingNew"] = true.into();
        let error = parsed(&plan.to_string()).unwrap_err();
        assert!(matches!(error, StartError::ParsePlan { source, .. }
            if source.to_string().contains("somethingNew")));
    }

    #[test]
    fn the_plan_of_another_container_is_refused() {
        let mut plan = testing::plan();
        plan.id = "default.other.r1".to_owned();
        let text = serde_json::to_string(&plan).unwrap();
        assert!(matches!(parsed(&text), Err(StartError::PlanId { .. })));
    }

    #[test]
    fn what_an_earlier_start_left_is_cleared_but_never_what_lies_in_a_volume() {
        let run = tempfile::tempdir().unwrap();
        let dir = Paths::new(run.path()).container(&id());
        clear(&dir).unwrap();
        fs::create_dir_all(dir.volume(0)).unwrap();
        fs::create_dir_all(dir.scratch().join("upper")).unwrap();
        fs::write(dir.volume(0).join("data"), "kept").unwrap();
        assert!(matches!(clear(&dir), Err(StartError::Clear { .. })));
        assert!(dir.volume(0).join("data").exists());
        fs::remove_file(dir.volume(0).join("data")).unwrap();
        clear(&dir).unwrap();
        assert!(!dir.path().exists());
    }

    #[test]
    fn the_payload_group_is_below_the_units_own() {
        assert_eq!(
            payload_of("0::/berth.slice/berth.default.web.r7.service\n").as_deref(),
            Some("/berth.slice/berth.default.web.r7.service/payload")
        );
        assert_eq!(payload_of("0::/\n"), None);
        assert_eq!(payload_of("5:devices:/x\n"), None);
    }
}
