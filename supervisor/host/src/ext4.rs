//! ext4 on a block device: made, checked, grown.
//!
//! Growth is the kernel's own: the filesystem is mounted where nobody sees it, and told its new
//! size. That works whether or not somebody else has it mounted, in a mount namespace of its own
//! too, where `resize2fs` would find no mount point to do the same with.

mod resize;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cmd::{CmdError, Command, Ended};

const MKE2FS: &str = "/usr/sbin/mke2fs";
const E2FSCK: &str = "/usr/sbin/e2fsck";
/// A check of a large filesystem after a power cut reads all of its metadata.
const LONG: Duration = Duration::from_secs(30 * 60);
/// `e2fsck` sets this bit when it has mended something, and no other when all is well now.
const MENDED: i32 = 1;

/// What could not be done with a filesystem.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// It could not be made.
    #[error("making an ext4 filesystem")]
    Make(#[source] CmdError),
    /// It is damaged beyond what may be mended without asking, or no ext4 at all.
    #[error("checking the ext4 filesystem")]
    Check(#[source] CmdError),
    /// It could not be looked at.
    #[error("looking at the filesystem on {}", .0.display())]
    Look(PathBuf, #[source] io::Error),
    /// It is no ext4.
    #[error("there is no ext4 filesystem on {}", .0.display())]
    Foreign(PathBuf),
    /// It could not be grown.
    #[error("growing the ext4 filesystem on {}", .0.display())]
    Grow(PathBuf, #[source] io::Error),
}

/// Bytes of every block of a filesystem made here.
const BLOCK: u64 = 4096;

/// Makes a filesystem with blocks of 4096 bytes; what was on the device is lost.
///
/// # Errors
/// The device is too small, or in use.
pub async fn make(device: &Path) -> Result<(), Ext4Error> {
    // Smaller ones get smaller blocks by default, which a device with 4 KiB sectors cannot mount.
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"];
    let command = Command::new(MKE2FS).args(options).arg(device.display().to_string()).timeout(LONG);
    command.run().await.map(drop).map_err(Ext4Error::Make)
}

/// Replays the journal and mends what can be mended without a question.
///
/// # Errors
/// More is wrong, or it is no ext4. Nothing is formatted, ever.
pub async fn check(device: &Path) -> Result<(), Ext4Error> {
    match Command::new(E2FSCK).args(["-p"]).arg(device.display().to_string()).timeout(LONG).run().await {
        Err(CmdError::Failed { ended: Ended::Code(MENDED), .. }) => Ok(()),
        other => other.map(drop).map_err(Ext4Error::Check),
    }
}

/// Makes the filesystem as large as its device, mounted or not; fine when it is already. Blocks.
///
/// # Errors
/// There is no ext4, it is damaged, or it needs a check first.
pub fn grow(device: &Path) -> Result<(), Ext4Error> {
    let room = room(device)?;
    if length(device)? >= room {
        return Ok(());
    }
    resize::to(device, room / BLOCK).map_err(|source| Ext4Error::Grow(device.to_owned(), source))
}

/// Whole blocks of the device, in bytes.
fn room(device: &Path) -> Result<u64, Ext4Error> {
    let end = File::open(device).and_then(|mut device| device.seek(SeekFrom::End(0)));
    let end = end.map_err(|source| Ext4Error::Look(device.to_owned(), source))?;
    Ok(end - end % BLOCK)
}

/// How many bytes the filesystem takes of its device, from its superblock. Blocks.
///
/// # Errors
/// There is no ext4.
pub fn length(device: &Path) -> Result<u64, Ext4Error> {
    let mut block = [0; SUPERBLOCK];
    let read = File::open(device).and_then(|mut opened| {
        opened.seek(SeekFrom::Start(SUPERBLOCK_AT))?;
        opened.read_exact(&mut block)
    });
    read.map_err(|source| Ext4Error::Look(device.to_owned(), source))?;
    length_in(&block).ok_or_else(|| Ext4Error::Foreign(device.to_owned()))
}

/// Where the superblock lies, and how long it is.
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK: usize = 1024;
/// `s_magic`.
const MAGIC: u16 = 0xEF53;
/// `s_feature_incompat`: numbers of blocks have 64 bits.
const WIDE: u32 = 0x80;

fn length_in(superblock: &[u8; SUPERBLOCK]) -> Option<u64> {
    let word = |at: usize| superblock.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    if superblock.get(56..58)? != MAGIC.to_le_bytes() {
        return None;
    }
    let high = if word(96)? & WIDE == 0 { 0 } else { word(0x150)? };
    let blocks = u64::from(high) << 32 | u64::from(word(4)?);
    blocks.checked_mul(1024_u64.checked_shl(word(24)?)?)
}

/// Whether somebody has the device mounted, in whatever mount namespace. Blocks.
///
/// # Errors
/// The device is not there.
pub fn is_in_use(device: &Path) -> Result<bool, Ext4Error> {
    match OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(source) => Err(Ext4Error::Look(device.to_owned(), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_read_from_the_superblock() {
        let mut block = [0; SUPERBLOCK];
        assert_eq!(length_in(&block), None);
        block[56..58].copy_from_slice(&MAGIC.to_le_bytes());
        block[4..8].copy_from_slice(&262_144_u32.to_le_bytes());
        block[24] = 2;
        assert_eq!(length_in(&block), Some(1 << 30));
        block[96] = 0x80;
        block[0x150] = 1;
        assert_eq!(length_in(&block), Some((1 << 44) + (1 << 30)));
    }
}
