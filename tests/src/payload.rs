//! The package under test: built by `image/debian/package.sh` from the programs beside this one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, Key, at};
use crate::spawn::{self, SpawnError};
use crate::tree;

/// The programs that go into it, built by `cargo build --workspace --all-targets`.
const PROGRAMS: [&str; 5] = ["berth", "berthd", "berth-run", "berth-dns", "berth-installer"];

/// The package could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Files.
    #[error("the package's files (is the workspace built?)")]
    Files(#[from] CacheError),
    /// The packing script.
    #[error("packing")]
    Pack(#[from] SpawnError),
}

/// A built package.
#[derive(Clone, Debug)]
pub struct Payload {
    /// A hash of its bytes, and so of everything in it.
    pub key: String,
    /// The `.deb` file.
    pub path: PathBuf,
}

/// Packs the programs as they are now.
pub fn build() -> Result<Payload, PayloadError> {
    let programs = at(Path::new("."), tree::programs())?;
    let source = tree::top();
    let mut inputs = Key::new("payload 1");
    for part in ["image/debian/package.sh", "image/debian/package", "units", "README.md", "Cargo.toml"] {
        inputs.add_path(&source.join(part))?;
    }
    for program in PROGRAMS {
        inputs.add_path(&programs.join(program))?;
    }
    let folder = cache::entry("payload", &inputs.finish(), 3, |folder| -> Result<(), PayloadError> {
        let mut script = spawn::command("sh");
        script.arg(source.join("image/debian/package.sh")).arg(&programs).arg(folder);
        Ok(spawn::run(&mut script)?)
    })?;
    let path = cache::children(&folder)?.into_iter().next().unwrap_or(folder);
    let mut key = Key::new("payload");
    key.add(&at(&path, fs::read(&path))?);
    Ok(Payload { key: key.finish(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_has_a_manual_page_for_every_command_and_completions_for_every_shell() {
        let package = build().unwrap();
        let listed = spawn::output(spawn::command("dpkg-deb").arg("--fsys-tarfile").arg(&package.path)).unwrap();
        let mut archive = tar::Archive::new(listed.as_slice());
        let files: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.size()))
            .collect();
        let name = |path: &str| if path.starts_with("./") { path.to_owned() } else { format!("./{path}") };
        let mut manual: Vec<String> =
            files.iter().map(|(path, _)| name(path)).filter(|path| path.ends_with(".1.gz")).collect();
        manual.sort();
        // The program's own tests see to it that these are all.
        let pages = tempfile::tempdir().unwrap();
        let program = tree::programs().unwrap().join("berth");
        spawn::run(spawn::command(program).arg("manual").arg(pages.path())).unwrap();
        let page = |path: &PathBuf| format!("./usr/share/man/man1/{}.gz", path.file_name().unwrap().display());
        let mut wanted: Vec<String> = cache::children(pages.path()).unwrap().iter().map(page).collect();
        wanted.sort();
        assert_eq!(manual, wanted);
        assert!(manual.len() > 30, "{manual:?}");
        let scripts = [
            "./usr/share/bash-completion/completions/berth",
            "./usr/share/zsh/vendor-completions/_berth",
            "./usr/share/fish/vendor_completions.d/berth.fish",
        ];
        for script in scripts {
            let size = files.iter().find(|(path, _)| name(path) == script).map(|(_, size)| *size);
            assert!(size.is_some_and(|size| size > 1000), "{script}: {size:?}");
        }
    }
}
