//! The disks of this machine, as `lsblk` tells of them, and which of them a configuration means.

use std::fs;
use std::path::{Path, PathBuf};

use berth_host::cmd::{CmdError, Command};
use serde::Deserialize;

use crate::config::Bus;
use crate::seam::Disk;

const LSBLK: &str = "/usr/bin/lsblk";
/// Without `NAME` there is no tree.
const COLUMNS: &str = "NAME,PATH,SERIAL,MODEL,TRAN,SIZE,RM,RO,TYPE,FSTYPE,LABEL,PARTLABEL,PARTUUID,PTTYPE,MOUNTPOINTS";
const BY_ID: &str = "/dev/disk/by-id";
/// The partition that systemd-boot was started from: four bytes of attributes, then UTF-16.
const BOOTED: &str = "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// What the data partition is called, and the volume in it once it may hold data.
pub const DATA: &str = "berth-data";

/// What disks there are cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// `lsblk` failed.
    #[error("listing the disks")]
    List(#[from] CmdError),
    /// It told something else.
    #[error("reading the list of disks")]
    Read(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Block>,
}

/// A block device with what is on it.
#[derive(Clone, Debug, Deserialize)]
pub struct Block {
    /// e.g. `/dev/vda1`.
    pub path: PathBuf,
    serial: Option<String>,
    model: Option<String>,
    tran: Option<String>,
    size: u64,
    #[serde(default)]
    rm: bool,
    #[serde(default)]
    ro: bool,
    #[serde(rename = "type")]
    kind: String,
    fstype: Option<String>,
    /// Of the filesystem, or of what is encrypted.
    pub label: Option<String>,
    /// Of the partition.
    pub partlabel: Option<String>,
    /// Of the partition.
    pub partuuid: Option<String>,
    pttype: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    /// What is on it.
    #[serde(default)]
    pub children: Vec<Block>,
}

impl Block {
    fn mounts(&self) -> impl Iterator<Item = &str> {
        self.mountpoints.iter().flatten().map(String::as_str)
    }

    /// Whether this or anything on it is so.
    fn any(&self, is: &impl Fn(&Block) -> bool) -> bool {
        is(self) || self.children.iter().any(|child| child.any(is))
    }

    /// Whether it has been booted from: by what the boot loader told, else by what /usr is on.
    fn boots_this(&self, booted: Option<&str>) -> bool {
        match booted {
            Some(id) => self.children.iter().any(|part| part.partuuid.as_deref() == Some(id)),
            None => {
                self.any(&|block| block.path == Path::new("/dev/mapper/usr") || block.mounts().any(|at| at == "/usr"))
            }
        }
    }

    fn is_used(&self) -> bool {
        self.any(&|block| block.mounts().next().is_some())
    }

    /// The partition for data, and whether it may hold some.
    pub fn data(&self) -> Option<(&Block, bool)> {
        let part = self.children.iter().find(|part| part.partlabel.as_deref() == Some(DATA))?;
        Some((part, part.label.as_deref() == Some(DATA)))
    }

    fn content(&self) -> Option<String> {
        if self.fstype.is_none() && self.pttype.is_none() && self.children.is_empty() {
            return None;
        }
        let mut held: Vec<&str> = Vec::new();
        for block in std::iter::once(self).chain(&self.children) {
            held.extend(block.fstype.as_deref().filter(|kind| !held.contains(kind)));
        }
        let parts = match self.children.len() {
            0 => self.pttype.as_ref().map(|_| "no partition".to_owned()),
            1 => Some("1 partition".to_owned()),
            many => Some(format!("{many} partitions")),
        };
        let words: Vec<String> = parts.into_iter().chain(held.into_iter().map(str::to_owned)).collect();
        let berth = self.data().map(|_| "of Berth: ").unwrap_or_default();
        Some(format!("{berth}{}", words.join(", ")))
    }

    /// An installation of ours that did not come to its end, on which nobody has anything.
    fn unfinished(&self) -> bool {
        let ours =
            |part: &Block| part.partlabel.as_deref().is_some_and(|name| name.starts_with("berth_") || name == DATA);
        self.children.iter().any(ours) && !self.data().is_some_and(|(_, finished)| finished) && !self.is_used()
    }

    /// Older kernels and `lsblk`s do not name every bus, but the kernel's names for disks do.
    fn bus(&self) -> Option<Bus> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match self.tran.as_deref() {
            Some("nvme") => Some(Bus::Nvme),
            Some("sata" | "ata") => Some(Bus::Sata),
            Some("usb") => Some(Bus::Usb),
            Some("virtio") => Some(Bus::Virtio),
            Some("mmc") => Some(Bus::Mmc),
            Some("sas" | "spi") => Some(Bus::Scsi),
            _ if name.starts_with("vd") => Some(Bus::Virtio),
            _ if name.starts_with("mmc") => Some(Bus::Mmc),
            _ if name.starts_with("sd") => Some(Bus::Scsi),
            _ => None,
        }
    }

    fn seen(&self, booted: Option<&str>, links: &[(PathBuf, PathBuf)]) -> Disk {
        let said =
            |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let finished = self.data().filter(|(_, finished)| *finished);
        Disk {
            ids: links.iter().filter(|(_, disk)| *disk == self.path).map(|(link, _)| link.clone()).collect(),
            serial: said(&self.serial),
            model: said(&self.model),
            bus: self.bus(),
            bytes: self.size,
            removable: self.rm,
            boots_this: self.boots_this(booted),
            content: self.content(),
            unfinished: self.unfinished(),
            installed: finished.and_then(|(part, _)| part.partuuid.clone()),
            path: self.path.clone(),
        }
    }
}

/// Everything that holds blocks.
///
/// # Errors
/// [`DiskError`].
pub async fn blocks() -> Result<Vec<Block>, DiskError> {
    let output = Command::new(LSBLK).args(["--json", "--bytes", "--output", COLUMNS]).run().await?;
    Ok(serde_json::from_slice::<Listing>(&output.stdout)?.blockdevices)
}

/// The disks that something could be installed on or was.
///
/// # Errors
/// [`DiskError`].
pub async fn list() -> Result<Vec<Disk>, DiskError> {
    Ok(seen(&blocks().await?, booted().as_deref(), &links()))
}

/// The disk that this system was started from.
pub fn booted_of(blocks: &[Block]) -> Option<&Block> {
    let booted = booted();
    blocks.iter().find(|block| block.boots_this(booted.as_deref()))
}

fn seen(blocks: &[Block], booted: Option<&str>, links: &[(PathBuf, PathBuf)]) -> Vec<Disk> {
    let disks = blocks.iter().filter(|block| block.kind == "disk" && block.size > 0 && !block.ro);
    disks.filter(|block| !is_memory(&block.path)).map(|block| block.seen(booted, links)).collect()
}

fn is_memory(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["zram", "ram", "fd"].iter().any(|kind| name.starts_with(kind))
}

/// The id of the partition that the firmware started the boot loader from, in small letters.
pub fn booted() -> Option<String> {
    let bytes = fs::read(BOOTED).ok()?;
    let text: String = bytes.get(4..)?.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    Some(text.to_ascii_lowercase()).filter(|text| !text.is_empty())
}

/// Links that stay, with the devices that they lead to.
fn links() -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(BY_ID).into_iter().flatten().flatten();
    let mut links: Vec<_> =
        entries.filter_map(|entry| Some((entry.path(), fs::canonicalize(entry.path()).ok()?))).collect();
    links.sort();
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSBLK: &str = r#"{"blockdevices": [
      {"path": "/dev/zram0", "serial": null, "model": null, "tran": null, "size": 1000, "rm": false, "ro": false, "type": "disk",
       "fstype": null, "label": null, "partlabel": null, "partuuid": null, "pttype": null, "mountpoints": [null]},
      {"path": "/dev/sda", "serial": " S1 ", "model": "Stick ", "tran": "usb", "size": 4000, "rm": true, "ro": false, "type": "disk",
       "fstype": null, "label": null, "partlabel": null, "partuuid": null, "pttype": "gpt", "mountpoints": [null], "children": [
        {"path": "/dev/sda1", "serial": null, "model": null, "tran": null, "size": 100, "rm": true, "ro": false, "type": "part",
         "fstype": "vfat", "label": "ESP", "partlabel": "esp", "partuuid": "aa-1", "pttype": "gpt", "mountpoints": ["/boot"]}]},
      {"path": "/dev/nvme0n1", "serial": "N1", "model": "Disk", "tran": "nvme", "size": 9000, "rm": false, "ro": false, "type": "disk",
       "fstype": null, "label": null, "partlabel": null, "partuuid": null, "pttype": "gpt", "mountpoints": [null], "children": [
        {"path": "/dev/nvme0n1p2", "serial": null, "model": null, "tran": null, "size": 100, "rm": false, "ro": false, "type": "part",
         "fstype": "erofs", "label": null, "partlabel": "berth_1.0.0", "partuuid": "bb-1", "pttype": "gpt", "mountpoints": [null]},
        {"path": "/dev/nvme0n1p6", "serial": null, "model": null, "tran": null, "size": 100, "rm": false, "ro": false, "type": "part",
         "fstype": "crypto_LUKS", "label": "LABEL", "partlabel": "berth-data", "partuuid": "cc-1", "pttype": "gpt", "mountpoints": [null]}]},
      {"path": "/dev/sr0", "serial": null, "model": null, "tran": "sata", "size": 5, "rm": true, "ro": false, "type": "rom",
       "fstype": null, "label": null, "partlabel": null, "partuuid": null, "pttype": null, "mountpoints": [null]}
    ]}"#;

    fn disks(label: &str) -> Vec<Disk> {
        let listing: Listing = serde_json::from_str(&LSBLK.replace("LABEL", label)).unwrap();
        let links = [("/dev/disk/by-id/nvme-Disk_N1".into(), "/dev/nvme0n1".into())];
        seen(&listing.blockdevices, Some("aa-1"), &links)
    }

    #[test]
    fn disks_are_told_by_what_stays_and_by_what_is_on_them() {
        let disks = disks("berth-data");
        let [stick, disk] = &disks[..] else { panic!("{disks:?}") };
        assert_eq!(
            (stick.serial.as_deref(), stick.model.as_deref(), stick.bus),
            (Some("S1"), Some("Stick"), Some(Bus::Usb))
        );
        assert!(stick.boots_this && stick.removable && !disk.boots_this);
        assert_eq!(stick.content.as_deref(), Some("1 partition, vfat"));
        assert_eq!(disk.content.as_deref(), Some("of Berth: 2 partitions, erofs, crypto_LUKS"));
        assert_eq!(disk.ids, [PathBuf::from("/dev/disk/by-id/nvme-Disk_N1")]);
    }

    #[test]
    fn an_installation_that_was_cut_off_is_told_from_one_with_data() {
        let of = |label: &str| disks(label).pop().map(|disk| (disk.unfinished, disk.installed)).unwrap();
        assert_eq!(of("berth-data"), (false, Some("cc-1".to_owned())));
        assert_eq!(of("berth-data-unfinished"), (true, None));
        assert_eq!(of(""), (true, None));
    }
}
