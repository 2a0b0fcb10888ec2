//! Small volumes that people write files on: the boot partition of a medium, a stick, the disc of a virtual machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::mode::FOLDER;

/// What computers write on such volumes.
const KINDS: [&str; 2] = ["vfat", "iso9660"];

/// What does not work out with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It could not be mounted.
    #[error("mounting {}", device.display())]
    Mount {
        /// The block device.
        device: PathBuf,
        /// What the kernel said of the last kind of filesystem that was tried.
        #[source]
        source: io::Error,
    },
    /// A file of it.
    #[error("{doing} {}", path.display())]
    File {
        /// What was to be done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// What is meant to be done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only that.
    Read,
    /// Files are made or removed.
    Write,
}

/// A volume, mounted until this is dropped unless it was before.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    ours: bool,
}

impl Volume {
    /// Mounts it where nobody else looks.
    ///
    /// # Errors
    /// [`VolumeError::Mount`] if it holds no such filesystem, or its disk cannot be written.
    pub fn mount(device: &Path, access: Access) -> Result<Self, VolumeError> {
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let at = Path::new(FOLDER).join(format!("volume-{name}"));
        fs::create_dir_all(&at).map_err(VolumeError::file("making", &at))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let flags = if access == Access::Read { flags | MsFlags::MS_RDONLY } else { flags };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for kind in KINDS {
            match mount(Some(device), &at, Some(kind), flags, None::<&str>) {
                Ok(()) => return Ok(Self { path: at, ours: true }),
                Err(errno) => last = errno.into(),
            }
        }
        Err(VolumeError::Mount { device: device.to_owned(), source: last })
    }

    /// One that is mounted there, and stays so.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), ours: false }
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A text of it, if it is there and not longer than that many bytes.
    ///
    /// # Errors
    /// It is there and cannot be read, or is longer.
    pub fn read(&self, name: impl AsRef<Path>, longest: u64) -> Result<Option<String>, VolumeError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Err(_) => Ok(None),
            Ok(found) if found.len() > longest => {
                Err(VolumeError::file("reading", &path)(io::ErrorKind::FileTooLarge.into()))
            }
            Ok(_) => fs::read_to_string(&path).map(Some).map_err(VolumeError::file("reading", &path)),
        }
    }

    /// Writes a file beside its name first, as power may go at any time.
    ///
    /// # Errors
    /// It is full, or cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), VolumeError> {
        let (path, part) = (self.file(name), self.file(&format!("{name}.new")));
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(VolumeError::file("writing", &path))
    }

    /// Overwrites a file with nothing of use, and removes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn wipe(&self, name: &str) -> Result<(), VolumeError> {
        let path = self.file(name);
        let wipe = || -> io::Result<()> {
            let mut file = File::options().write(true).open(&path)?;
            let length = file.metadata()?.len();
            file.write_all(&vec![0; usize::try_from(length).unwrap_or_default()])?;
            file.sync_all()?;
            fs::remove_file(&path)?;
            File::open(&self.path)?.sync_all()
        };
        wipe().map_err(VolumeError::file("wiping", &path))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // What cannot be taken away now goes with the mount namespace, or with the machine.
        let gone = umount2(&self.path, MntFlags::MNT_DETACH).is_ok() && fs::remove_dir(&self.path).is_ok();
        if !gone {
            eprintln!("{} stays mounted", self.path.display());
        }
    }
}
