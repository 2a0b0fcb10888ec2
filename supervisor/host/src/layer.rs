//! Layers of images, unpacked once and shared by all that use them.
//!
//! A [`LayerStore`] is a directory with two others in it. `layers/<algorithm>-<hex>` is a complete
//! tree, named by the digest of the uncompressed tar stream it was made from, ready to be a lower
//! directory of an overlay: owners as in the image, whiteouts as character devices 0:0, opaque
//! directories marked by an attribute. `unpacking/` holds what is not complete.
//!
//! ```text
//! compressed stream -> decompress -> count, hash -> archive::Archive -> tree::Tree
//!                                                                         |
//!                 layers/<name>  <- rename <- syncfs <- digest is right <-+ unpacking/<name>
//! ```
//!
//! A tree comes into `layers/` and leaves it by one rename, so nobody ever sees part of one. What
//! a crash leaves in `unpacking/` is removed by [`LayerStore::sweep`]. Callers see to it that one
//! layer is not unpacked twice at once.
//!
//! Setuid programs of images lie here under the machine's own ids: the directory above is closed
//! to everybody but root.

pub mod archive;
pub mod merged;
mod name;
mod pax;
pub mod refusal;
mod sparse;
mod tree;

use std::fmt;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::blob::{BlobError, Digest, Hasher, digest_of_file_name, file_name, names};
use crate::disk_image;
use crate::fs::{FsError, ensure_dir, remove_dir_all, sync_parent};

use archive::{Archive, ArchiveError};
use refusal::Refusal;
use tree::Tree;

/// Marks a directory that hides all that lower layers have in it.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What may come out of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Entries of the archive, and directories made on the way to them.
    pub entries: u64,
    /// Bytes of the disk that stay free, whoever else writes to it meanwhile.
    pub spare: u64,
}

impl Default for Limits {
    /// 32 GiB in two million entries: more than any layer that was meant to be run.
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000, spare: 0 }
    }
}

/// What came out of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry that has no place in a layer.
    #[error("the layer's entry {entry} is refused: {why}")]
    Refused {
        /// Its path, escaped.
        entry: String,
        /// Why.
        why: Refusal,
    },
    /// The stream is not what the image's configuration says.
    #[error("the layer's content is {got} and not {expected}, as the image's configuration says")]
    DiffId {
        /// According to the configuration.
        expected: String,
        /// What the stream hashes to.
        got: String,
    },
    /// More bytes than allowed.
    #[error("the layer unpacks to more than {limit} bytes")]
    TooManyBytes {
        /// How many are.
        limit: u64,
    },
    /// More entries than allowed.
    #[error("the layer has more than {limit} entries")]
    TooManyEntries {
        /// How many are.
        limit: u64,
    },
    /// The disk is too full.
    #[error("after {written} bytes of the layer less than {spare} bytes are free on the disk")]
    NoRoom {
        /// How far it came.
        written: u64,
        /// What has to stay free.
        spare: u64,
    },
    /// The stream cannot be decompressed or read.
    #[error("decompressing the layer")]
    Stream(#[source] io::Error),
    /// The stream is not a tar archive.
    #[error("reading the layer's archive")]
    Archive(#[source] ArchiveError),
    /// The disk does not take an entry.
    #[error("{doing} of the layer's entry {entry}")]
    Write {
        /// What was being done.
        doing: &'static str,
        /// Its path, escaped.
        entry: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The store itself does not work.
    #[error("{doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file operation failed.
    #[error("keeping a layer")]
    Keep(#[from] FsError),
    /// A digest that cannot be checked, or a directory that cannot be listed.
    #[error("naming a layer")]
    Name(#[from] BlobError),
}

/// A directory of unpacked layers.
#[derive(Clone, Debug)]
pub struct LayerStore {
    layers: PathBuf,
    unpacking: PathBuf,
}

impl LayerStore {
    /// Opens `<root>/layers`; both directories are made if they are not there.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn open(root: &Path) -> Result<Self, LayerError> {
        let store = Self { layers: root.join("layers"), unpacking: root.join("unpacking") };
        ensure_dir(&store.layers, 0o700)?;
        ensure_dir(&store.unpacking, 0o700)?;
        Ok(store)
    }

    /// The directory that holds the complete layers.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.layers
    }

    /// Where a layer lies once it is complete.
    #[must_use]
    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.layers.join(file_name(diff_id))
    }

    /// It is there, complete.
    #[must_use]
    pub fn contains(&self, diff_id: &Digest) -> bool {
        self.path(diff_id).is_dir()
    }

    /// The complete layers.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, LayerError> {
        Ok(names(&self.layers)?.iter().filter_map(|name| digest_of_file_name(name)).collect())
    }

    /// A layer hides everything below it: its root is marked opaque.
    ///
    /// # Errors
    /// The layer is not there.
    pub fn is_opaque(&self, diff_id: &Digest) -> Result<bool, LayerError> {
        merged::is_opaque(&self.path(diff_id))
            .map_err(|source| LayerError::Store { doing: "reading a layer's root", source })
    }

    /// Unpacks a layer, gzip, zstd or neither by its first bytes. Blocks for as long as it takes.
    ///
    /// The bytes have passed the check of the blob's digest already, or pass it before the image
    /// is used: here the uncompressed stream is held against `diff_id`.
    ///
    /// # Errors
    /// The layer is refused, damaged or too large, or the disk is full. Nothing is left of it.
    pub fn unpack(&self, blob: impl Read, diff_id: &Digest, limits: &Limits) -> Result<Unpacked, LayerError> {
        let temporary = self.unpacking.join(file_name(diff_id));
        remove_dir_all(&temporary)?;
        let unpacked = self.unpack_into(&temporary, blob, diff_id, limits);
        if unpacked.is_err() {
            remove_dir_all(&temporary)?;
        }
        unpacked
    }

    fn unpack_into(
        &self,
        temporary: &Path,
        blob: impl Read,
        diff_id: &Digest,
        limits: &Limits,
    ) -> Result<Unpacked, LayerError> {
        ensure_dir(temporary, 0o755)?;
        let stream = Metered {
            inner: decompressed(blob)?,
            hasher: Hasher::like(diff_id)?,
            limits: *limits,
            disk: &self.unpacking,
            looked: 0,
        };
        let mut archive = Archive::new(stream);
        let mut tree = Tree::new(temporary)?;
        let mut entries = 0;
        while let Some(entry) = archive.next_entry().map_err(archive_error)? {
            entries += 1;
            tree.apply(&entry, &mut archive)?;
            if entries + tree.implied() > limits.entries {
                return Err(LayerError::TooManyEntries { limit: limits.entries });
            }
        }
        let bytes = check(archive.into_inner(), diff_id)?;
        tree.finish()?;
        let complete = self.path(diff_id);
        fs::rename(temporary, &complete)
            .map_err(|source| LayerError::Store { doing: "moving the new layer to its place", source })?;
        sync_parent(&complete)?;
        Ok(Unpacked { bytes, entries })
    }

    /// Removes a layer; fine when it is gone. Nobody may be using it.
    ///
    /// # Errors
    /// It stays, or part of it stays out of sight.
    pub fn remove(&self, diff_id: &Digest) -> Result<(), LayerError> {
        let doomed = self.unpacking.join(format!("removed-{}", file_name(diff_id)));
        remove_dir_all(&doomed)?;
        let complete = self.path(diff_id);
        match fs::rename(&complete, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(LayerError::Store { doing: "taking a layer out of its place", source }),
        }
        sync_parent(&complete)?;
        Ok(remove_dir_all(&doomed)?)
    }

    /// Removes what a crash left. Only for who has the store to himself.
    ///
    /// # Errors
    /// Something stays.
    pub fn sweep(&self) -> Result<usize, LayerError> {
        let left = names(&self.unpacking)?;
        for name in &left {
            remove_dir_all(&self.unpacking.join(name))?;
        }
        Ok(left.len())
    }
}

/// A member's path as a path below a root; `None` if it is none or climbs.
#[must_use]
pub fn relative_path(path: &[u8]) -> Option<PathBuf> {
    name::relative(path).ok().filter(|path| !path.as_os_str().is_empty())
}

/// The rest of the stream after the archive's end belongs to what the digest covers.
fn check<R: Read>(mut stream: Metered<'_, R>, diff_id: &Digest) -> Result<u64, LayerError> {
    io::copy(&mut stream, &mut io::sink()).map_err(read_error)?;
    let bytes = stream.hasher.seen();
    let got = stream.hasher.finish();
    if got == diff_id.as_ref() {
        return Ok(bytes);
    }
    Err(LayerError::DiffId { expected: diff_id.to_string(), got })
}

fn decompressed<'b>(blob: impl Read + 'b) -> Result<Box<dyn Read + 'b>, LayerError> {
    let mut blob = BufReader::with_capacity(1 << 17, blob);
    let start = io::BufRead::fill_buf(&mut blob).map_err(LayerError::Stream)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        // A frame, or one of the frames that are to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(blob).map_err(LayerError::Stream)?)
        }
        _ => Box::new(blob),
    })
}

/// Bytes after which the disk is looked at again.
const STRIDE: u64 = 4 << 20;

/// A stream that is hashed and ends in an error after so many bytes, or when the disk it is written to is too full.
struct Metered<'d, R> {
    inner: R,
    hasher: Hasher,
    limits: Limits,
    disk: &'d Path,
    /// Bytes that had passed when the disk was last looked at.
    looked: u64,
}

/// The error it ends in.
#[derive(Clone, Copy, Debug)]
enum LimitReached {
    Bytes { limit: u64 },
    Disk { written: u64, spare: u64 },
}

impl fmt::Display for LimitReached {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { limit } => write!(out, "more than {limit} bytes"),
            Self::Disk { spare, .. } => write!(out, "less than {spare} bytes are free"),
        }
    }
}

impl std::error::Error for LimitReached {}

impl<R> Metered<'_, R> {
    fn check_limits(&mut self) -> io::Result<()> {
        let (seen, Limits { bytes, spare, .. }) = (self.hasher.seen(), self.limits);
        if seen > bytes {
            return Err(io::Error::other(LimitReached::Bytes { limit: bytes }));
        }
        if spare > 0 && seen >= self.looked + STRIDE {
            self.looked = seen;
            if disk_image::room(self.disk).map_err(io::Error::other)?.free < spare {
                return Err(io::Error::other(LimitReached::Disk { written: seen, spare }));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.inner.read(into)?;
        self.hasher.update(&into[..taken]);
        self.check_limits()?;
        Ok(taken)
    }
}

/// An error of the stream, or the limit it ran into.
fn read_error(error: io::Error) -> LayerError {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(LimitReached::Bytes { limit }) => LayerError::TooManyBytes { limit: *limit },
        Some(LimitReached::Disk { written, spare }) => LayerError::NoRoom { written: *written, spare: *spare },
        None => LayerError::Stream(error),
    }
}

fn archive_error(error: ArchiveError) -> LayerError {
    match error {
        ArchiveError::Read(error) => read_error(error),
        other => LayerError::Archive(other),
    }
}

#[cfg(test)]
mod tests;
