//! The machine's versions: slots that systemd-sysupdate writes, entries on the EFI system partition that systemd-boot
//! counts down.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use berth_host::fs as host_fs;
use berth_host::systemd::{JobResult, Outcome, Systemd};
use berth_model::health::BootReport;
use berth_model::release::{Entry, SystemStatus};
use futures_util::future::BoxFuture;
use semver::Version;

use crate::api::Power;
use crate::auth::is_reached;
use crate::update::seams::{Fault, Slots};
use crate::update::sum;

/// Writes what lies in `update` of the data.
const WRITER: &str = "berth-sysupdate.service";
/// Where systemd-boot looks for kernels, on the partition that systemd mounts when somebody looks.
const ENTRIES: &str = "/boot/EFI/Linux";
/// How systemd-sysupdate calls what it has not finished.
const UNFINISHED: &str = ".#sysupdate";

/// The versions of this machine.
pub(super) struct LinuxSlots {
    systemd: Systemd,
    entries: PathBuf,
    report: PathBuf,
}

impl LinuxSlots {
    pub(super) fn new(systemd: Systemd, data: &Path) -> Self {
        Self { systemd, entries: ENTRIES.into(), report: data.join("boot.json") }
    }

    /// What there is, for whoever asks.
    pub(super) fn status(&self) -> Result<SystemStatus, Fault> {
        let running = self.running()?;
        let versions = if running.is_some() { self.entries()? } else { Vec::new() };
        let version = running.map(|running| running.to_string()).unwrap_or_default();
        Ok(SystemStatus { version, versions, reached: is_reached()?, last_start: self.report()? })
    }

    /// Gives the version that runs up for the newest other one that was found good, which is what starts from now on;
    /// answers which, or none if there is none.
    pub(super) fn give_up(&self) -> Result<Option<String>, Fault> {
        let Some(running) = self.running()? else { return Ok(None) };
        let good = self.entries()?.into_iter().filter(|entry| entry.tries_left.is_none());
        let others = good.filter_map(|entry| Version::parse(&entry.version).ok()).filter(|other| *other != running);
        let Some(other) = others.max() else { return Ok(None) };
        let given_up = self.entries.join(format!("berth_{running}+0-1.efi"));
        for file in self.of(&running.to_string())? {
            fs::rename(file, &given_up)?;
        }
        self.sync()?;
        Ok(Some(other.to_string()))
    }

    /// Asks systemd, which stops all in order. What is asked for is recorded as a job; its end nobody here sees.
    pub(super) async fn power(&self, power: Power) -> Result<(), Fault> {
        let target = match power {
            Power::Reboot => "reboot.target",
            Power::Off => "poweroff.target",
        };
        Ok(self.systemd.enqueue(target).await?)
    }

    /// All that was written to the partition lies on its disk.
    fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(File::open(&self.entries)?)?)
    }

    /// The files of a version's entries.
    fn of(&self, version: &str) -> io::Result<Vec<PathBuf>> {
        let files = files(&self.entries)?.into_iter();
        Ok(files
            .filter(|(_, entry)| entry.as_ref().is_some_and(|one| one.version == version))
            .map(|(path, _)| path)
            .collect())
    }
}

/// What lies there, and which entries that are.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, Option<Entry>)>> {
    let named = |file: io::Result<fs::DirEntry>| {
        let path = file?.path();
        let entry = path.file_name().and_then(|name| Entry::parse(name.to_str()?));
        Ok((path, entry))
    };
    fs::read_dir(folder)?.map(named).collect()
}

/// What counts as installed for systemd-sysupdate and cannot be started: an entry without content, left of a power cut
/// between its name and its content reaching the disk, or one that was given up.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for (path, entry) in files(folder)? {
        let is_temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
        let is_given_up = entry.as_ref().is_some_and(|entry| entry.tries_left == Some(0));
        if is_temporary || is_given_up || entry.is_some() && fs::metadata(&path)?.len() == 0 {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

impl Slots for LinuxSlots {
    fn running(&self) -> Result<Option<Version>, Fault> {
        let release = fs::read_to_string("/etc/os-release")?;
        let field = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']))
        };
        match (field("IMAGE_ID"), field("IMAGE_VERSION")) {
            (Some("berth"), Some(version)) => Ok(Some(Version::parse(version)?)),
            _ => Ok(None),
        }
    }

    fn boot_id(&self) -> Result<String, Fault> {
        Ok(host_fs::boot_id()?)
    }

    fn entries(&self) -> Result<Vec<Entry>, Fault> {
        Ok(files(&self.entries)?.into_iter().filter_map(|(_, entry)| entry).collect())
    }

    fn write(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            remove_unfinished(&self.entries)?;
            // Left failed by an earlier try, it would be started all the same; only its record is cleared.
            self.systemd.reset_failed(WRITER).await?;
            match self.systemd.start(WRITER).await? {
                Outcome::Ended(JobResult::Done) => Ok(()),
                ended => Err(format!("{WRITER} did not do its work: {ended:?}").into()),
            }
        })
    }

    fn holds(&self, version: &str, sha256: &str) -> Result<bool, Fault> {
        self.sync()?;
        let sums = self.of(version)?.iter().map(|path| sum(path)).collect::<io::Result<Vec<String>>>()?;
        Ok(sums.iter().any(|sum| sum == sha256))
    }

    fn discard(&self, version: &str) -> Result<(), Fault> {
        self.of(version)?.iter().try_for_each(fs::remove_file)?;
        Ok(self.sync()?)
    }

    fn restart(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.power(Power::Reboot))
    }

    fn is_reached(&self) -> Result<bool, Fault> {
        Ok(is_reached()?)
    }

    fn report(&self) -> Result<Option<BootReport>, Fault> {
        let Some(bytes) = host_fs::read_optional(&self.report)? else { return Ok(None) };
        Ok(serde_json::from_slice(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_of_an_entry_and_what_was_given_up_is_removed_and_good_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "berth_1.0.0.efi",
            "berth_2.0.0+3-0.efi",
            ".#sysupdateberth_3.0.0+3-0.efi12ab",
            "other.efi",
            "berth_4.0.0+0-1.efi",
        ];
        for (name, content) in names.iter().zip(["whole", "", "half", "", "given up"]) {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let left = || {
            let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            left.sort();
            left
        };
        remove_unfinished(dir.path()).unwrap();
        assert_eq!(left(), ["berth_1.0.0.efi", "other.efi"]);
    }
}
