//! Everything that can be known before the first byte is written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::{Order, Why};
use crate::config::{Disk as Wanted, Unlock};
use crate::disks;
use crate::mode::FOLDER;
use crate::seam::Disk;

/// Two slots with their hashes, a boot partition, and data that is of use: 3 × 512 MiB, 2 × 16 MiB, 2 GiB, and the
/// table's own room.
const SMALLEST: u64 = (3 * 512 + 2 * 16 + 2048 + 16) << 20;
const TPM: &str = "/sys/class/tpm/tpm0/tpm_version_major";
const DEFINITIONS: &str = "/usr/lib/berth/install";

/// What will be done.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The disk that is written.
    pub disk: Disk,
    /// The id of its data partition, which tells what it was installed from.
    pub id: String,
    /// It has been installed from this very configuration: nothing is written, it is only to be started.
    pub again: bool,
    /// Whether the TPM is to open its data.
    pub tpm: bool,
    /// What its partitions are made from.
    pub definitions: PathBuf,
}

/// Looks at the machine and the configuration. Nothing is changed.
///
/// # Errors
/// [`Why::Refused`] if they do not go together; else looking failed.
pub async fn check(order: &Order) -> Result<Plan, Why> {
    let Some(wanted) = &order.config.disk else {
        return Err(Why::refused(
            "the configuration names no disk to install on",
            "add a table [disk]; see docs/berth-toml.md",
        ));
    };
    if !geteuid().is_root() {
        return Err(Why::refused("only root can install", "run it as root"));
    }
    if !Path::new(FOLDER).join("live").exists() || !Path::new(DEFINITIONS).exists() {
        let remedy = "start the machine from Berth's image with the configuration beside it, or with `berth.install` on the kernel's command line";
        return Err(Why::refused("this system was not started to install from", remedy));
    }
    let disks = disks::list().await?;
    let id = id(&order.text);
    let disk = choose(&disks, wanted, &id)?.clone();
    let tpm = tpm(order.config.encryption.as_ref().and_then(|how| how.unlock))?;
    Ok(Plan { again: disk.installed.as_deref() == Some(id.as_str()), disk, id, tpm, definitions: DEFINITIONS.into() })
}

/// Whether a TPM opens the data: as wanted, else where there is one.
fn tpm(wanted: Option<Unlock>) -> Result<bool, Why> {
    let there = std::fs::read_to_string(TPM).is_ok_and(|version| version.trim() == "2");
    match wanted {
        Some(Unlock::Tpm) if !there => Err(Why::refused(
            "encryption.unlock is \"tpm\", and this machine has no TPM 2.0",
            "turn it on in the firmware's settings, or set encryption.unlock = \"recovery-code\"",
        )),
        Some(Unlock::RecoveryCode) => Ok(false),
        _ => Ok(there),
    }
}

/// The id that a machine's data partition has when it was installed by this configuration: a UUID made of its hash.
pub fn id(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let mut bytes: [u8; 16] = std::array::from_fn(|at| hash.as_ref()[at]);
    // RFC 9562: version 8, which is of one's own making, and the variant.
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The one disk that is meant.
///
/// # Errors
/// There is none, more than one, or it is not to be written.
pub fn choose<'a>(disks: &'a [Disk], wanted: &Wanted, id: &str) -> Result<&'a Disk, Why> {
    let found: Vec<&Disk> = disks.iter().filter(|disk| matches(disk, wanted)).collect();
    let there = || match disks.is_empty() {
        true => "this machine has no disk".to_owned(),
        false => format!("there are {}", disks.iter().map(told).collect::<Vec<_>>().join("; ")),
    };
    match found[..] {
        [] => Err(Why::refused("no disk is as [disk] says", format!("nothing was written; {}", there()))),
        [disk] => free(disk, wanted.erase, id),
        _ => {
            let names: Vec<String> = found.iter().map(|disk| told(disk)).collect();
            let remedy = "nothing was written; say more in [disk], e.g. the serial";
            Err(Why::refused(format!("several disks are as [disk] says: {}", names.join("; ")), remedy))
        }
    }
}

fn free<'a>(disk: &'a Disk, erase: bool, id: &str) -> Result<&'a Disk, Why> {
    let refused = |what: String, remedy: &str| Err(Why::refused(what, format!("nothing was written; {remedy}")));
    if disk.boots_this {
        return refused(format!("{} is what this system runs from", told(disk)), "name another disk");
    }
    if disk.bytes < SMALLEST {
        let what = format!("{} is too small: {} MiB are needed", told(disk), SMALLEST >> 20);
        return refused(what, "name a larger disk");
    }
    let ours = disk.unfinished || disk.installed.as_deref() == Some(id);
    match &disk.content {
        Some(content) if !erase && !ours => refused(
            format!("{} is not blank: {content}", told(disk)),
            "set disk.erase = true if nothing on it is needed",
        ),
        _ => Ok(disk),
    }
}

fn matches(disk: &Disk, wanted: &Wanted) -> bool {
    let known: HashSet<&Path> = disk.ids.iter().map(PathBuf::as_path).chain([disk.path.as_path()]).collect();
    wanted.id.as_ref().is_none_or(|id| known.contains(Path::new(id.as_str())))
        && wanted.serial.as_ref().is_none_or(|serial| disk.serial.as_ref() == Some(serial))
        && wanted.bus.is_none_or(|bus| disk.bus == Some(bus))
        && wanted.min_size.is_none_or(|least| disk.bytes >= least.bytes())
        && wanted.max_size.is_none_or(|most| disk.bytes <= most.bytes())
}

/// A disk in words.
fn told(disk: &Disk) -> String {
    let mut text = format!("{} ({} MiB", disk.path.display(), disk.bytes >> 20);
    for more in [&disk.model, &disk.serial].into_iter().flatten() {
        text.push_str(&format!(", {more}"));
    }
    text + ")"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bus;

    const GIB: u64 = 1 << 30;

    fn disk(name: &str, serial: &str) -> Disk {
        Disk {
            path: format!("/dev/{name}").into(),
            ids: vec![format!("/dev/disk/by-id/virtio-{serial}").into()],
            serial: Some(serial.to_owned()),
            model: None,
            bus: Some(Bus::Virtio),
            bytes: 8 * GIB,
            removable: false,
            boots_this: false,
            content: None,
            unfinished: false,
            installed: None,
        }
    }

    fn two() -> Vec<Disk> {
        vec![disk("vdb", "one"), disk("vdc", "other")]
    }

    fn wanted(text: &str) -> Wanted {
        toml::from_str(text).unwrap()
    }

    fn chosen(disks: &[Disk], text: &str) -> Result<String, String> {
        let found = choose(disks, &wanted(text), "id").map(|disk| disk.path.display().to_string());
        found.map_err(|why| why.to_string())
    }

    #[test]
    fn the_one_disk_that_is_as_all_says_is_taken() {
        assert_eq!(chosen(&two(), "serial = \"other\"").unwrap(), "/dev/vdc");
        assert_eq!(chosen(&two(), "id = \"/dev/disk/by-id/virtio-one\"\nbus = \"virtio\"").unwrap(), "/dev/vdb");
        let larger = [disk("vdb", "one"), Disk { bytes: 20 * GIB, ..disk("vdc", "other") }];
        assert_eq!(chosen(&larger, "min-size = \"10Gi\"").unwrap(), "/dev/vdc");
        assert_eq!(chosen(&larger, "max-size = \"10Gi\"").unwrap(), "/dev/vdb");
    }

    #[test]
    fn no_disk_and_several_are_refused_with_those_that_there_are() {
        let none = chosen(&two(), "serial = \"third\"").unwrap_err();
        assert!(none.contains("no disk"), "{none}");
        let both = chosen(&two(), "bus = \"virtio\"").unwrap_err();
        assert!(both.contains("/dev/vdb") && both.contains("/dev/vdc"), "{both}");
        let remedy = match choose(&two(), &wanted("serial = \"third\""), "id") {
            Err(Why::Refused { remedy, .. }) => remedy,
            other => panic!("{other:?}"),
        };
        assert!(
            remedy.contains("nothing was written") && remedy.contains("one") && remedy.contains("other"),
            "{remedy}"
        );
    }

    #[test]
    fn a_disk_that_holds_something_is_written_only_when_that_is_said_or_it_is_ours_and_unfinished() {
        let full = |unfinished| Disk { content: Some("1 partition, ext4".into()), unfinished, ..disk("vdb", "one") };
        let refused = chosen(&[full(false)], "serial = \"one\"").unwrap_err();
        assert!(refused.contains("not blank: 1 partition, ext4"), "{refused}");
        assert!(chosen(&[full(false)], "serial = \"one\"\nerase = true").is_ok());
        assert!(chosen(&[full(true)], "serial = \"one\"").is_ok());
        let again = Disk { installed: Some("id".into()), ..full(false) };
        assert!(chosen(&[again], "serial = \"one\"").is_ok());
        let others = Disk { installed: Some("another".into()), ..full(false) };
        assert!(chosen(&[others], "serial = \"one\"").is_err());
    }

    #[test]
    fn the_medium_itself_and_a_disk_that_is_too_small_are_refused() {
        let medium = Disk { boots_this: true, ..disk("vda", "one") };
        assert!(chosen(&[medium], "serial = \"one\"\nerase = true").unwrap_err().contains("runs from"));
        let small = Disk { bytes: 3 * GIB, ..disk("vdb", "one") };
        assert!(chosen(&[small], "serial = \"one\"").unwrap_err().contains("too small"));
    }

    #[test]
    fn an_installation_is_known_by_its_configuration() {
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
        let id = id("a");
        assert_eq!((id.len(), &id[14..15]), (36, "8"));
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
