//! `berth-installer mode`, in the ramdisk: whether this start is one of an appliance or of an installation.
//!
//! ```text
//! credential ─┐
//! volume BERTH or CIDATA ─┼> berth.toml ─┐
//! boot partition ─┘                      ├> decide ─> /run/berth-mode/{berth.toml,live,unattended,seed/}
//! kernel's command line, disks ──────────┘
//! ```
//!
//! A machine that is set up never becomes an installation because a file lies somewhere; a file that cannot be read, on one
//! that is not, has nothing written anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use berth_host::cmd::Command;
use berth_host::fs::{FsError, atomic_write, ensure_dir};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Fault};
use crate::disks::{self, Block};
use crate::seed::Laid;
use crate::volume::{Access, Volume, VolumeError};
use crate::{apply, seed, words};

/// What later parts of the start read.
pub const FOLDER: &str = "/run/berth-mode";
/// What a configuration is called, wherever it lies.
pub const FILE: &str = "berth.toml";
/// What a medium keeps on its boot partition of the installation that was made from it.
pub const INSTALLED: &str = "berth-installed.json";
/// Volumes that are looked into, by their labels.
const LABELS: [&str; 2] = ["BERTH", "CIDATA"];
const COMMAND_LINE: &str = "/proc/cmdline";
/// A configuration is text that people write.
const LONGEST: u64 = 1 << 20;
const MODPROBE: &str = "/usr/sbin/modprobe";

/// Where a configuration was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Origin {
    /// A system credential.
    Credential,
    /// A file on this volume.
    Volume {
        /// The block device.
        device: PathBuf,
    },
    /// A web server, as the kernel's command line says.
    Url {
        /// Its address.
        url: String,
    },
}

impl Origin {
    /// In words.
    pub fn told(&self) -> String {
        match self {
            Self::Credential => "a credential".to_owned(),
            Self::Volume { device } => format!("{FILE} on {}", device.display()),
            Self::Url { url } => url.clone(),
        }
    }
}

/// A configuration with the files that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was.
    pub origin: Origin,
    /// As it was written.
    pub text: String,
    /// As the configuration names them, and what is in them.
    pub files: Vec<Laid>,
}

/// What the kernel's command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `berth.install`: an installation, unless the machine is set up.
    pub install: bool,
    /// `berth.config=` and `berth.config-sha256=`: where the configuration is, and what it must hash to.
    pub url: Option<(String, String)>,
}

impl Asked {
    /// Reads a command line.
    pub fn of(line: &str) -> Self {
        let value = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name).map(str::to_owned));
        let url = value("berth.config=").zip(Some(value("berth.config-sha256=").unwrap_or_default()));
        Self { install: line.split_whitespace().any(|word| word == "berth.install"), url }
    }

    /// Of this start.
    pub fn now() -> Self {
        Self::of(&fs::read_to_string(COMMAND_LINE).unwrap_or_default())
    }
}

/// What this start is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// The machine that was booted runs services.
    Appliance {
        /// It is not set up yet, and is to be set up so.
        seed: Option<Box<Config>>,
    },
    /// Nothing is written but what an installation writes.
    Installation,
}

/// What decides.
pub struct View {
    /// By whoever starts the machine.
    pub asked: Asked,
    /// The disk that was booted has data of a machine on it.
    pub set_up: bool,
    /// What was found, if anything was.
    pub config: Option<Result<Config, Vec<Fault>>>,
    /// Something was installed from this medium before.
    pub installed: bool,
}

/// What this start is to be, and why if that may surprise.
pub fn decide(view: View) -> (Mode, Option<String>) {
    // Words that a virtual machine is given stay with it when its disk has become a machine.
    if view.asked.install && !view.set_up {
        return (Mode::Installation, None);
    }
    match view.config {
        None if view.installed && !view.set_up => (Mode::Installation, None),
        None => (Mode::Appliance { seed: None }, None),
        Some(_) if view.set_up => {
            let why = "this machine is set up already; a configuration is applied once, before its first start";
            (Mode::Appliance { seed: None }, Some(why.to_owned()))
        }
        Some(Err(faults)) => {
            let why = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            (Mode::Installation, Some(why))
        }
        Some(Ok(config)) if config.disk.is_some() => (Mode::Installation, None),
        Some(Ok(config)) => (Mode::Appliance { seed: Some(Box::new(config)) }, None),
    }
}

/// Looks, decides, and leaves what was decided in [`FOLDER`].
pub async fn run() -> Result<(), FsError> {
    let blocks = disks::blocks().await.unwrap_or_else(|error| {
        words::warn(&error);
        Vec::new()
    });
    let found = find(&blocks).await;
    let config = found.as_ref().map(|found| Config::parse(&found.text, FILE));
    let set_up = disks::booted_of(&blocks).and_then(Block::data).is_some_and(|(_, finished)| finished);
    let installed = installed(&blocks);
    let asked = Asked::now();
    let (mode, why) = decide(View { asked: asked.clone(), set_up, config, installed: installed.is_some() });
    if let Some(found) = &found {
        println!("Berth: configured by {}", found.origin.told());
    }
    if let Some(why) = why {
        println!("Berth: {why}");
    }
    let folder = Path::new(FOLDER);
    keep(folder, &mode, found.as_ref())?;
    if found.is_some() || installed.is_some() || asked.url.is_some() {
        atomic_write(&folder.join("unattended"), b"", 0o600)?;
    }
    match installed {
        Some(text) => atomic_write(&folder.join(INSTALLED), text.as_bytes(), 0o600),
        None => Ok(()),
    }
}

/// What the medium keeps of an installation from it.
fn installed(blocks: &[Block]) -> Option<String> {
    let device = boot_of(blocks)?;
    Volume::mount(&device, Access::Read).and_then(|volume| volume.read(INSTALLED, LONGEST)).ok()?
}

fn keep(folder: &Path, mode: &Mode, found: Option<&Found>) -> Result<(), FsError> {
    ensure_dir(folder, 0o700)?;
    match mode {
        Mode::Appliance { seed: None } => return Ok(()),
        Mode::Appliance { seed: Some(config) } => {
            let (text, files) = found.map_or(("", [].as_slice()), |found| (&found.text, &found.files));
            seed::lay(&folder.join("seed"), config, text, files)?;
        }
        Mode::Installation => {}
    }
    if let Some(Found { origin, text, files }) = found {
        atomic_write(&folder.join(FILE), text.as_bytes(), 0o600)?;
        atomic_write(&folder.join("origin.json"), serde_json::json!(origin).to_string().as_bytes(), 0o600)?;
        seed::write(folder, files)?;
    }
    if *mode == Mode::Installation {
        atomic_write(&folder.join("live"), b"", 0o600)?;
    }
    Ok(())
}

/// The first configuration there is: a credential, a volume, the boot partition.
async fn find(blocks: &[Block]) -> Option<Found> {
    if let Some(text) = credential() {
        return Some(Found { origin: Origin::Credential, text, files: Vec::new() });
    }
    for device in volumes(blocks) {
        match read(&device).await {
            Ok(Some((text, files))) => return Some(Found { origin: Origin::Volume { device }, text, files }),
            Ok(None) => {}
            Err(error) => words::warn(&error),
        }
    }
    None
}

fn credential() -> Option<String> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    fs::read_to_string(Path::new(&folder).join(FILE)).ok()
}

/// Volumes with one of [`LABELS`], then the boot partition.
fn volumes(blocks: &[Block]) -> Vec<PathBuf> {
    let all: Vec<&Block> = blocks.iter().flat_map(|disk| std::iter::once(disk).chain(&disk.children)).collect();
    let of = |label: &'static str| {
        all.iter().filter(move |one| one.label.as_deref().is_some_and(|have| have.eq_ignore_ascii_case(label)))
    };
    let mut found: Vec<PathBuf> = LABELS.into_iter().flat_map(of).map(|one| one.path.clone()).collect();
    found.extend(boot_of(blocks));
    found
}

/// The partition that the boot loader was started from.
fn boot_of(blocks: &[Block]) -> Option<PathBuf> {
    let booted = disks::booted()?;
    let mut parts = blocks.iter().flat_map(|disk| &disk.children);
    parts.find(|part| part.partuuid.as_deref() == Some(booted.as_str())).map(|part| part.path.clone())
}

/// The file on that volume, if it is there, with those that it names.
async fn read(device: &Path) -> Result<Option<(String, Vec<Laid>)>, VolumeError> {
    for module in ["vfat", "isofs"] {
        // Built in, or there already, or not needed: mounting tells.
        drop(Command::new(MODPROBE).args(["--quiet", module]).run().await);
    }
    let volume = Volume::mount(device, Access::Read)?;
    let Some(text) = volume.read(FILE, LONGEST)? else { return Ok(None) };
    let mut files = Vec::new();
    for name in Config::parse(&text, FILE).iter().flat_map(apply::named) {
        match volume.read(name, LONGEST)? {
            Some(text) => files.push((name.into(), text.into_bytes())),
            None => println!("Berth: {FILE} names {name}, which is not there"),
        }
    }
    Ok(Some((text, files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLANK: &str = "version = 1\n";
    const ONTO_A_DISK: &str = "version = 1\n[disk]\nserial = \"target\"\n";

    fn decided(line: &str, set_up: bool, installed: bool, text: Option<&str>) -> Mode {
        let config = text.map(|text| Config::parse(text, FILE));
        decide(View { asked: Asked::of(line), set_up, config, installed }).0
    }

    #[test]
    fn a_disk_that_is_named_makes_an_installation_and_none_an_appliance_that_is_set_up_so() {
        assert_eq!(decided("quiet", false, false, None), Mode::Appliance { seed: None });
        assert_eq!(decided("quiet", false, false, Some(ONTO_A_DISK)), Mode::Installation);
        assert!(matches!(decided("", false, false, Some(BLANK)), Mode::Appliance { seed: Some(_) }));
    }

    #[test]
    fn a_machine_that_is_set_up_stays_what_it_is_whatever_file_lies_somewhere() {
        for text in [BLANK, ONTO_A_DISK, "nonsense"] {
            assert_eq!(decided("quiet", true, false, Some(text)), Mode::Appliance { seed: None });
        }
        assert_eq!(decided("", true, true, None), Mode::Appliance { seed: None });
        assert_eq!(decided("berth.install", true, false, None), Mode::Appliance { seed: None });
        assert_eq!(decided("berth.install", false, false, None), Mode::Installation);
    }

    #[test]
    fn nothing_is_made_on_a_medium_whose_configuration_cannot_be_read() {
        assert_eq!(decided("", false, false, Some("version = 1\nnonsense")), Mode::Installation);
    }

    #[test]
    fn a_medium_that_something_was_installed_from_makes_no_machine_of_itself() {
        assert_eq!(decided("", false, true, None), Mode::Installation);
    }

    #[test]
    fn a_url_is_taken_with_its_sum() {
        let asked = Asked::of("ro berth.install berth.config=http://192.0.2.1/a.toml berth.config-sha256=ab12 quiet");
        assert!(asked.install);
        assert_eq!(asked.url, Some(("http://192.0.2.1/a.toml".to_owned(), "ab12".to_owned())));
        assert_eq!(Asked::of("berth.installer=no"), Asked::default());
    }
}
