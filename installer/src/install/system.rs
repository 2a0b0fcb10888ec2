//! The disk's table and the version that runs, copied byte by byte; then what the firmware starts.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_host::cmd::Command;
use berth_host::fs::{FsError, atomic_write};

use super::{Plan, Tell, Why};
use crate::disks::{self, Block, DATA};
use crate::mode::FOLDER;
use crate::seam::{Disk, Phase, Progress};
use crate::volume::{Access, Volume};

const REPART: &str = "/usr/bin/systemd-repart";
const BOOTCTL: &str = "/usr/bin/bootctl";
/// Where systemd mounts the boot partition of what was booted.
const BOOT: &str = "/boot";
const ENTRIES: &str = "EFI/Linux";
/// A new partition is known by its name once udev has looked at it.
const APPEARING: Duration = Duration::from_secs(30);
/// A slow stick takes minutes for half a gigabyte.
const COPYING: Duration = Duration::from_secs(3600);
/// The kernel counts what a disk was given in these, whatever its own are: `Documentation/block/stat.rst`.
const SECTOR: u64 = 512;

/// Writes the table and the slots.
pub(super) async fn write(plan: &Plan, tell: Tell<'_>) -> Result<(), Why> {
    let definitions = definitions(plan)?;
    partition(plan, &definitions, tell).await
}

/// What the partitions are made from, with the id of the data partition.
fn definitions(plan: &Plan) -> Result<PathBuf, Why> {
    let folder = Path::new(FOLDER).join("install");
    let listed = |source| FsError::new("reading", &plan.definitions, source);
    fs::create_dir_all(&folder).map_err(|source| FsError::new("making", &folder, source))?;
    for entry in fs::read_dir(&plan.definitions).map_err(listed)? {
        let from = entry.map_err(listed)?.path();
        let mut text = fs::read_to_string(&from).map_err(|source| FsError::new("reading", &from, source))?;
        if text.contains(&format!("Label={DATA}\n")) {
            text.push_str(&format!("UUID={}\n", plan.id));
        }
        atomic_write(&folder.join(from.file_name().unwrap_or_default()), text.as_bytes(), 0o600)?;
    }
    Ok(folder)
}

/// systemd-repart makes the table and copies the slots; how far it is can be seen in what the disk was given.
async fn partition(plan: &Plan, definitions: &Path, tell: Tell<'_>) -> Result<(), Why> {
    let (already, total) = (written(plan), size_of_slots(plan)?);
    let command = Command::new(REPART)
        .args(["--dry-run=no", "--empty=force", "--seed=random", "--discard=no"])
        .arg(format!("--definitions={}", definitions.display()))
        .arg(plan.disk.path.display().to_string())
        .timeout(COPYING);
    let mut copying = std::pin::pin!(command.run());
    loop {
        tokio::select! {
            done = &mut copying => return Ok(done.map(drop)?),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let done = written(plan).saturating_sub(already).min(total);
                tell(&Progress::Part { phase: Phase::System, done, total });
            }
        }
    }
}

/// Bytes that the disk was given since the machine started.
fn written(plan: &Plan) -> u64 {
    let name = plan.disk.path.file_name().unwrap_or_default();
    let path = Path::new("/sys/class/block").join(name).join("stat");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok()).unwrap_or_default() * SECTOR
}

/// Bytes of the first slot and its hashes, as their definitions have them.
fn size_of_slots(plan: &Plan) -> Result<u64, Why> {
    let mut total = 0;
    let listed = |source| FsError::new("reading", &plan.definitions, source);
    for entry in fs::read_dir(&plan.definitions).map_err(listed)? {
        let text = fs::read_to_string(entry.map_err(listed)?.path()).map_err(listed)?;
        let size = text.lines().find_map(|line| line.strip_prefix("SizeMaxBytes=")?.strip_suffix('M'));
        if text.contains("CopyBlocks=") {
            total += size.and_then(|size| size.parse::<u64>().ok()).unwrap_or_default() << 20;
        }
    }
    Ok(total)
}

/// The id of the disk's boot partition.
pub(super) async fn id_of_boot(disk: &Disk) -> Result<String, Why> {
    Ok(block_of(disk, is_boot).await?.partuuid.unwrap_or_default())
}

fn is_boot(part: &Block) -> bool {
    part.partlabel.as_deref() == Some("esp")
}

/// The partition of the disk that is so.
pub(super) async fn part_of(disk: &Disk, is: impl Fn(&Block) -> bool) -> Result<PathBuf, Why> {
    Ok(block_of(disk, is).await?.path)
}

async fn block_of(wanted: &Disk, is: impl Fn(&Block) -> bool) -> Result<Block, Why> {
    let until = Instant::now() + APPEARING;
    loop {
        let disk = disks::blocks().await?.into_iter().find(|block| block.path == wanted.path);
        if let Some(part) = disk.and_then(|disk| disk.children.into_iter().find(|part| is(part))) {
            return Ok(part);
        }
        if Instant::now() > until {
            let what = format!("{} does not have the partitions that it was given", wanted.path.display());
            return Err(Why::refused(what, "start again; if it stays so, try another disk"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The boot loader, and the version that runs as the only one to choose from. Nothing starts the disk before this.
pub(super) async fn entries(disk: &Disk) -> Result<(), Why> {
    let boot = part_of(disk, is_boot).await?;
    let volume = Volume::mount(&boot, Access::Write)?;
    let folder = volume.file(ENTRIES);
    let listed = |source| FsError::new("reading", &folder, source);
    fs::create_dir_all(&folder).map_err(|source| FsError::new("making", &folder, source))?;
    // One that has been started since may have newer ones.
    let mut there = fs::read_dir(&folder).map_err(listed)?.flatten().map(|entry| entry.path());
    if !there.any(|path| path.extension().is_some_and(|kind| kind == "efi")) {
        let running = running()?;
        let name = running.file_name().unwrap_or_default().to_string_lossy().into_owned();
        copy(&running, &folder.join(uncounted(&name)))?;
    }
    let esp = format!("--esp-path={}", volume.file("").display());
    Command::new(BOOTCTL).args([esp.as_str(), "install"]).timeout(Duration::from_secs(120)).run().await?;
    copy(&Path::new(BOOT).join("loader/loader.conf"), &volume.file("loader/loader.conf"))
}

/// The entry that was booted, as systemd-boot has told; else the only one there is.
fn running() -> Result<PathBuf, Why> {
    let folder = Path::new(BOOT).join(ENTRIES);
    let listed = |source| FsError::new("reading", &folder, source);
    let files = fs::read_dir(&folder).map_err(listed)?.flatten().map(|entry| entry.path());
    let all: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "efi")).collect();
    let version = os_version();
    let ours = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        uncounted(&name) == format!("berth_{version}.efi")
    };
    let what = format!("{} holds no entry of the version {version} that runs", folder.display());
    all.iter().find(ours).cloned().ok_or_else(|| Why::refused(what, "start again from a medium that was not changed"))
}

/// The version of the image that runs.
fn os_version() -> String {
    let text = fs::read_to_string("/usr/lib/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// The name of an entry without the tries that are left: it is known to start.
fn uncounted(name: &str) -> String {
    let stem = name.strip_suffix(".efi").unwrap_or(name);
    format!("{}.efi", stem.split('+').next().unwrap_or(stem))
}

/// Under another name first, so that a part of it is never taken for the whole.
fn copy(from: &Path, to: &Path) -> Result<(), Why> {
    let part = to.with_extension("part");
    let copy = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()?;
        fs::rename(&part, to)?;
        File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    Ok(copy().map_err(|source| FsError::new("copying to", to, source))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_on_trial_is_installed_as_one_that_is_not() {
        assert_eq!(uncounted("berth_0.1.0+2-1.efi"), "berth_0.1.0.efi");
        assert_eq!(uncounted("berth_0.1.0.efi"), "berth_0.1.0.efi");
    }
}
