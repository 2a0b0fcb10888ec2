//! Python programs of others, as their users install them: each set of packages in an environment of its own.

use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, Key};
use crate::spawn::{self, SpawnError};

/// The packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// Files.
    #[error("keeping an environment of Python's")]
    Files(#[from] CacheError),
    /// A program.
    #[error("installing packages for Python")]
    Host(#[from] SpawnError),
}

/// The interpreter of an environment with these packages, like `kubernetes==33.1.0`.
pub fn with(packages: &[&str]) -> Result<PathBuf, PythonError> {
    let mut key = Key::new("python 1");
    packages.iter().for_each(|package| key.add(package.as_bytes()));
    let folder = cache::entry("python", &key.finish(), 4, |folder| make(folder, packages))?;
    Ok(folder.join("bin/python3"))
}

fn make(folder: &Path, packages: &[&str]) -> Result<(), PythonError> {
    spawn::output(spawn::command("python3").args(["-m", "venv"]).arg(folder))?;
    let mut install = spawn::command(folder.join("bin/python3"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    spawn::output(&mut install)?;
    Ok(())
}
