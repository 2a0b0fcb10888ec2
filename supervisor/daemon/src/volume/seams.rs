//! What the volume domain asks of the rest: implemented for real in `daemon/`, by fakes in the tests.

use std::error::Error;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::admission::Shortage;

/// Whatever went wrong beneath.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A volume's key; wiped when dropped.
pub type Key = Zeroizing<Vec<u8>>;

/// The keyring.
pub trait Keys: Send + Sync + 'static {
    /// The key of a volume that has data.
    fn get(&self, uid: &str) -> Result<Key, KeyFailure>;
    /// The key of a volume without data; on disk before this comes back, and the same when asked again.
    fn make(&self, uid: &str) -> Result<Key, KeyFailure>;
    /// Drops the key of a volume that never had data.
    fn drop_unused(&self, uid: &str) -> Result<(), KeyFailure>;
    /// Whether [`Keys::erase`] would destroy nothing else.
    fn may_erase(&self, uid: &str) -> Result<(), KeyFailure>;
    /// Destroys a key for good, in old copies too.
    fn erase<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), KeyFailure>>;
}

/// A key cannot be had.
#[derive(Debug)]
pub struct KeyFailure {
    /// It is this volume's key alone that is lost or changed.
    pub damaged: bool,
    /// Why, with what to do.
    pub source: Cause,
}

/// What is on record of one disk when the daemon starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its uid.
    pub uid: String,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A volume that was never finished: the operation that makes it goes on with its file.
    Unfinished,
    /// A volume that nobody runs on.
    Idle,
    /// A volume that a bundle is to run on: systemd may start it again meanwhile.
    Wanted,
    /// The writable layer of a revision that is to run, likewise.
    Scratch,
}

/// Files and devices of volumes; all go by the uid. One thing at a time is done to one volume, and is
/// brought to its end even if nobody waits for it any more.
pub trait Disks: Send + Sync + 'static {
    /// Allocates the file of a new volume with room for `size` bytes, under a temporary name.
    fn allocate<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Encrypts and formats that file, allocating it if it is gone, and gives it its name. Does nothing
    /// when the name is there.
    fn format<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Makes the device; the volume must have at least `size` bytes. How many it has. A device that is
    /// there already stays.
    fn open<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Result<u64, DiskError>>;
    /// Removes the device; fine when there is none.
    fn close<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Whether the key opens it; changes nothing.
    fn try_key<'a>(&'a self, uid: &'a str, key: Key) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Makes the file longer, and the device if there is one.
    fn grow_image<'a>(&'a self, uid: &'a str, size: u64, key: Key) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Lets the filesystem take all of its device, if there is one. How many bytes the volume has.
    fn grow_filesystem<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<u64, DiskError>>;
    /// Makes a disk without a name, with a key that nobody keeps: its device holds an empty filesystem. One whose device is
    /// there already stays as it is.
    fn scratch<'a>(&'a self, uid: &'a str, size: u64) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Removes device and file, finished or not; fine when they are gone.
    fn remove<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), DiskError>>;
    /// Removes what nobody goes on with or uses. What was done, a line each.
    fn tidy(&self, known: Vec<Known>) -> BoxFuture<'_, Result<Vec<String>, DiskError>>;
}

/// A disk is not there, or not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No room.
    #[error("there is not enough room on the data disk")]
    DoesNotFit(Shortage),
    /// The file is gone.
    #[error("its file is not there")]
    Missing,
    /// The file is shorter than it was.
    #[error("its file has {found} bytes and had {expected}")]
    Truncated {
        /// What there is.
        found: u64,
        /// What there should be.
        expected: u64,
    },
    /// No LUKS2 header.
    #[error("its file has no readable LUKS2 header")]
    NotEncrypted(#[source] Cause),
    /// A LUKS2 header that Berth never writes.
    #[error("its LUKS2 header is not one that Berth makes")]
    ForeignHeader(#[source] Cause),
    /// The key does not open it.
    #[error("its key does not open its file: the file is another volume's, or its header was changed")]
    WrongKey(#[source] Cause),
    /// No ext4, or one that cannot be mended without a person.
    #[error("what is in it is no ext4 filesystem, or one damaged beyond what is mended by itself")]
    Filesystem(#[source] Cause),
    /// Somebody uses it.
    #[error("it is in use")]
    Busy(#[source] Cause),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Cause),
}

impl DiskError {
    /// The volume itself is not what it should be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Missing
                | Self::Truncated { .. }
                | Self::NotEncrypted(_)
                | Self::ForeignHeader(_)
                | Self::WrongKey(_)
                | Self::Filesystem(_)
        )
    }
}
