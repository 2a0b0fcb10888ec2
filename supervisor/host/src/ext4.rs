//! ext4 on a block device: made, checked, grown.

use std::path::Path;
use std::time::Duration;

use crate::cmd::{CmdError, Command, Ended};

const MKE2FS: &str = "/usr/sbin/mke2fs";
const E2FSCK: &str = "/usr/sbin/e2fsck";
const RESIZE2FS: &str = "/usr/sbin/resize2fs";
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
    /// It could not be grown.
    #[error("growing the ext4 filesystem")]
    Grow(#[source] CmdError),
}

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

/// Makes the filesystem as large as its device, mounted or not; fine when it is already.
///
/// # Errors
/// It needs a check first, or is damaged.
pub async fn grow(device: &Path) -> Result<(), Ext4Error> {
    Command::new(RESIZE2FS)
        .arg(device.display().to_string())
        .timeout(LONG)
        .run()
        .await
        .map(drop)
        .map_err(Ext4Error::Grow)
}
