//! What comes from ConfigMaps and Secrets: variables for the first process, and files in one file
//! system in memory, never swapped, gone with the unit.
//!
//! The files are made beside the root and mapped like it. Once they are written nothing can be
//! written there any more, neither from inside nor from outside, and `spec.rs` has the runtime bind
//! each directory in its place. Everything is read from its own file anew at every start, so that
//! systemd can start a unit again with no daemon alive.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use berth_model::plan::{IdRange, Plan};
use berth_model::provided::{Directory, Provided, ProvidedFile};
use nix::unistd::{Gid, Uid, fchown};

use crate::paths::ContainerDir;
use crate::rootfs::{self, RootError};
use crate::sys;
use crate::user::{self, Identity, UserError};

/// What every file and directory takes beside its content.
const PER_ENTRY: u64 = 8192;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// There is no file, or it cannot be read.
    #[error("reading {} (berthd writes it before it starts the unit)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is not what this build understands. What is wrong with it is not told: that would quote it.
    #[error("understanding {}: line {line}, column {column}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// The file system in memory.
    #[error("making room in memory for the files")]
    Room(#[source] RootError),
    /// The owner.
    #[error("finding the owner {owner:?} of the files in {path}")]
    Owner {
        /// As the bundle has it.
        owner: String,
        /// The directory.
        path: String,
        /// Why it cannot be.
        #[source]
        source: UserError,
    },
    /// One file.
    #[error("writing {name} of {path}")]
    Write {
        /// The file.
        name: String,
        /// The directory.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What goes with the plan, which says whether there is anything.
pub fn read(plan: &Plan, path: &Path) -> Result<Provided, ProjectionError> {
    if !plan.provided {
        return Ok(Provided::default());
    }
    let text = std::fs::read(path).map_err(|source| ProjectionError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| ProjectionError::Parse {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

/// The plan's variables with the provided ones, of which a later one wins.
pub fn environment(plan: &[String], provided: &Provided) -> Vec<String> {
    let mut all = plan.to_vec();
    for variable in &provided.env {
        let start = format!("{}=", variable.name);
        all.retain(|known| !known.starts_with(&start));
        all.push(format!("{start}{}", variable.value));
    }
    all
}

/// Where the directory with this index lies until it is bound.
pub fn place(dir: &ContainerDir, index: usize) -> PathBuf {
    dir.projections().join(index.to_string())
}

/// Makes every file; `own` is the service's user.
pub fn provide(
    directories: &[Directory],
    ids: IdRange,
    map: BorrowedFd<'_>,
    dir: &ContainerDir,
    own: &Identity,
) -> Result<(), ProjectionError> {
    if directories.is_empty() {
        return Ok(());
    }
    let owners: Vec<(u32, u32)> =
        directories.iter().map(|directory| owner(directory, ids, dir, own)).collect::<Result<_, _>>()?;
    let target = dir.projections();
    rootfs::make_directory(&target, 0o755).map_err(ProjectionError::Room)?;
    let mount =
        rootfs::memory(room(directories), sys::NOSUID_NODEV, "making room in memory").map_err(ProjectionError::Room)?;
    let attached = sys::mount_setattr(mount.as_fd(), sys::NOSUID_NODEV_NOEXEC, Some(map))
        .and_then(|()| sys::move_mount(mount.as_fd(), &target));
    attached.map_err(rootfs::at("attaching the files")).map_err(ProjectionError::Room)?;
    let written = rootfs::as_container_root(ids.base, || {
        Ok(directories
            .iter()
            .zip(owners)
            .enumerate()
            .try_for_each(|(index, (directory, owner))| write_all(directory, &place(dir, index), owner, ids)))
    });
    written.map_err(ProjectionError::Room)??;
    let sealed = sys::mount_setattr(mount.as_fd(), sys::NOSUID_NODEV_READ_ONLY, None);
    sealed.map_err(rootfs::at("making the files read-only")).map_err(ProjectionError::Room)
}

fn room(directories: &[Directory]) -> u64 {
    let files = directories.iter().flat_map(|directory| &directory.files);
    // A path of several parts needs as many directories at most.
    let taken: u64 =
        files.map(|file| file.content.0.len() as u64 + PER_ENTRY * file.path.split('/').count() as u64).sum();
    taken + PER_ENTRY * (1 + directories.len() as u64)
}

/// User and group of a directory's files, as seen inside.
fn owner(
    directory: &Directory,
    ids: IdRange,
    dir: &ContainerDir,
    own: &Identity,
) -> Result<(u32, u32), ProjectionError> {
    let Some(owner) = &directory.owner else { return Ok((own.uid, own.gid)) };
    let found = user::resolve_in(&dir.rootfs(), owner, ids.size);
    found.map(|found| (found.uid, found.gid)).map_err(|source| ProjectionError::Owner {
        owner: owner.clone(),
        path: directory.path.clone(),
        source,
    })
}

fn write_all(directory: &Directory, at: &Path, owner: (u32, u32), ids: IdRange) -> Result<(), ProjectionError> {
    let wrong =
        |name: &str, source| ProjectionError::Write { name: name.to_owned(), path: directory.path.clone(), source };
    make_directories(at).map_err(|source| wrong(".", source))?;
    for file in &directory.files {
        write(file, at, owner, ids).map_err(|source| wrong(&file.path, source))?;
    }
    Ok(())
}

fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn write(file: &ProvidedFile, below: &Path, (uid, gid): (u32, u32), ids: IdRange) -> io::Result<()> {
    let path = Path::new(&file.path);
    // The daemon has checked it; but this is where it would matter.
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = below.join(path);
    path.parent().map_or(Ok(()), make_directories)?;
    let mut out: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(&file.content.0)?;
    // The mount is mapped: what the container knows as 33 is asked for as its base and 33.
    fchown(&out, Some(Uid::from_raw(ids.base + uid)), Some(Gid::from_raw(ids.base + gid)))?;
    out.set_permissions(Permissions::from_mode(file.mode))
}

#[cfg(test)]
mod tests {
    use berth_model::provided::Variable;
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn provided(env: &[(&str, &str)]) -> Provided {
        let variable = |(name, value): &(&str, &str)| Variable { name: (*name).to_owned(), value: (*value).to_owned() };
        Provided { env: env.iter().map(variable).collect(), directories: Vec::new() }
    }

    #[test]
    fn a_provided_variable_takes_the_place_of_the_plans_and_the_last_one_wins() {
        let plan = ["A=image".to_owned(), "AB=kept".to_owned()];
        assert_eq!(environment(&plan, &provided(&[("A", "1"), ("C", "x=y"), ("A", "2")])), ["AB=kept", "C=x=y", "A=2"]);
    }

    #[test]
    fn a_file_that_is_damaged_is_told_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let plan = Plan { provided: true, ..testing::plan() };
        assert!(matches!(read(&plan, &path), Err(ProjectionError::Read { .. })));
        std::fs::write(&path, r#"{"env": [{"name": "A", "hunter2": 1}]}"#).unwrap();
        let error = read(&plan, &path).unwrap_err();
        assert!(
            error.to_string().ends_with("line 1, column 32") && std::error::Error::source(&error).is_none(),
            "{error}"
        );
        assert_eq!(read(&testing::plan(), &path).unwrap(), Provided::default());
    }

    #[test]
    fn a_file_lies_where_it_should_with_its_mode_and_never_outside() {
        let folder = tempfile::tempdir().unwrap();
        let own = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let file = |path: &str| -> ProvidedFile {
            serde_json::from_value(json!({"path": path, "mode": 0o440, "content": "eA=="})).unwrap()
        };
        let base = IdRange { base: 0, size: 1 };
        write(&file("a/b"), folder.path(), own, base).unwrap();
        let mode = std::fs::metadata(folder.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o440);
        for path in ["../c", "/etc/c", "a/../../c"] {
            assert!(write(&file(path), folder.path(), own, base).is_err(), "{path}");
        }
    }
}
