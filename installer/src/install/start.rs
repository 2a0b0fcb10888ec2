//! Has the firmware start the disk next, also while the medium is still there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_host::fs::FsError;

use super::{Why, system};
use crate::seam::Disk;

const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Of all variables that the UEFI specification names itself.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept over a restart, and there before and after the system starts.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// Sets `BootNext` to the entry that starts the disk's own boot partition. A machine whose firmware takes no entries
/// starts by its own order.
pub(super) async fn next(disk: &Disk) -> Result<(), Why> {
    let boot = system::id_of_boot(disk).await?;
    let Some(number) = entry(&boot) else { return Ok(()) };
    let path = variable("BootNext");
    let value = [ATTRIBUTES.as_slice(), &number.to_le_bytes()].concat();
    fs::write(&path, value).map_err(|source| FsError::new("writing", &path, source))?;
    Ok(())
}

fn variable(name: &str) -> PathBuf {
    Path::new(VARIABLES).join(format!("{name}-{GLOBAL}"))
}

/// The number of the entry whose device path has that partition.
fn entry(partition: &str) -> Option<u16> {
    let wanted = mixed_endian(partition)?;
    let names = fs::read_dir(VARIABLES).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u16> = names.filter_map(|name| number(&name)).collect();
    numbers.sort_unstable();
    // The one made last comes first in the firmware's order, but any that leads to this partition does.
    numbers.into_iter().find(|number| {
        let bytes: io::Result<Vec<u8>> = fs::read(variable(&format!("Boot{number:04X}")));
        bytes.is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
    })
}

fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?.strip_suffix(&format!("-{GLOBAL}"))?;
    u16::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4)
}

/// An id of a partition as device paths have it: its first three groups with the lowest byte first.
fn mixed_endian(id: &str) -> Option<[u8; 16]> {
    let hex: String = id.chars().filter(|letter| *letter != '-').collect();
    let bytes: Option<Vec<u8>> = (0..16).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    let mut bytes: [u8; 16] = bytes?.try_into().ok()?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_in_a_device_path_by_its_bytes_order_there() {
        let bytes = mixed_endian("01020304-0506-0708-090a-0b0c0d0e0f10").unwrap();
        assert_eq!(bytes, [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(mixed_endian("short"), None);
    }

    #[test]
    fn only_entries_are_taken_for_entries() {
        assert_eq!(number(&format!("Boot001A-{GLOBAL}")), Some(0x1a));
        for other in ["BootNext", "BootOrder", "Boot1", "PlatformLang"] {
            assert_eq!(number(&format!("{other}-{GLOBAL}")), None);
        }
    }
}
