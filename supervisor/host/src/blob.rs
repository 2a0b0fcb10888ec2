//! Blobs: bytes that are named by their digest.
//!
//! A [`BlobStore`] is one flat directory of files `<algorithm>-<hex>`. A file has its name only
//! once all of its bytes are on the disk and hash to it: it is written as `<name>.partial`, hashed
//! on the way, synced, renamed. [`BlobStore::sweep`] removes the partial files a crash left.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use oci_spec::image::{Digest, DigestAlgorithm};
use ring::digest::{Context, SHA256, SHA384, SHA512};

use crate::fs::{FsError, atomic_write, ensure_dir, remove_file};

/// Ends the name of a file that is not complete.
const PARTIAL: &str = ".partial";

/// Why a blob cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A digest of a kind that cannot be checked.
    #[error("digest {0} is of a kind this build cannot check; sha256 and sha512 are known")]
    Algorithm(String),
    /// Not a digest at all.
    #[error("`{0}` is not a digest")]
    Malformed(String),
    /// The bytes are not what the digest stands for.
    #[error("blob {expected} arrived as {got}")]
    Mismatch {
        /// What was asked for.
        expected: String,
        /// What the bytes hash to.
        got: String,
    },
    /// Longer or shorter than announced.
    #[error("blob {digest} has {got} bytes instead of {expected}")]
    Size {
        /// Which blob.
        digest: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// Read or written in part.
    #[error("reading blob {digest}")]
    Read {
        /// Which blob.
        digest: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The directory does not work.
    #[error("keeping a blob")]
    Keep(#[from] FsError),
    /// What is in the directory is not known.
    #[error("listing {}", .directory.display())]
    List {
        /// Which.
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Parses `algorithm:hex` of a kind that can be checked.
///
/// # Errors
/// [`BlobError::Malformed`] or [`BlobError::Algorithm`].
pub fn parse_digest(text: &str) -> Result<Digest, BlobError> {
    let digest = Digest::from_str(text).map_err(|_| BlobError::Malformed(text.to_owned()))?;
    Hasher::like(&digest)?;
    Ok(digest)
}

/// `<algorithm>-<hex>`: the name of what a digest stands for in a directory.
#[must_use]
pub fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.digest())
}

/// The digest that [`file_name`] was made from.
#[must_use]
pub fn digest_of_file_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    parse_digest(&format!("{algorithm}:{hex}")).ok()
}

/// Hashes a stream and compares.
#[derive(Clone)]
pub struct Hasher {
    context: Context,
    algorithm: DigestAlgorithm,
    seen: u64,
}

impl Hasher {
    /// With the algorithm of `digest`.
    ///
    /// # Errors
    /// [`BlobError::Algorithm`].
    pub fn like(digest: &Digest) -> Result<Self, BlobError> {
        let algorithm = match digest.algorithm() {
            DigestAlgorithm::Sha256 => &SHA256,
            DigestAlgorithm::Sha384 => &SHA384,
            DigestAlgorithm::Sha512 => &SHA512,
            _ => return Err(BlobError::Algorithm(digest.to_string())),
        };
        Ok(Self { context: Context::new(algorithm), algorithm: digest.algorithm().clone(), seen: 0 })
    }

    /// With SHA-256.
    #[must_use]
    pub fn sha256() -> Self {
        Self { context: Context::new(&SHA256), algorithm: DigestAlgorithm::Sha256, seen: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.seen += bytes.len() as u64;
    }

    /// How many bytes it has taken.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// `algorithm:hex` of what it has taken.
    #[must_use]
    pub fn finish(self) -> String {
        let hash = self.context.finish();
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{hex}", self.algorithm)
    }

    /// The bytes taken are those of `digest`, all `size` of them.
    ///
    /// # Errors
    /// [`BlobError::Size`] or [`BlobError::Mismatch`].
    pub fn check(self, digest: &Digest, size: u64) -> Result<(), BlobError> {
        if self.seen != size {
            return Err(BlobError::Size { digest: digest.to_string(), expected: size, got: self.seen });
        }
        let got = self.finish();
        if got == digest.as_ref() {
            return Ok(());
        }
        Err(BlobError::Mismatch { expected: digest.to_string(), got })
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// The bytes hash to `digest`.
///
/// # Errors
/// [`BlobError::Mismatch`] and [`BlobError::Algorithm`].
pub fn verify(bytes: &[u8], digest: &Digest) -> Result<(), BlobError> {
    let mut hasher = Hasher::like(digest)?;
    hasher.update(bytes);
    hasher.check(digest, bytes.len() as u64)
}

/// Reads a stream to its end and compares.
///
/// # Errors
/// It cannot be read, or is another blob. At most one byte more than `size` is read.
pub fn verify_stream(from: impl Read, digest: &Digest, size: u64) -> Result<(), BlobError> {
    let mut hasher = Hasher::like(digest)?;
    let mut from = from.take(size.saturating_add(1));
    let mut buffer = vec![0; 1 << 17];
    loop {
        let taken = from.read(&mut buffer).map_err(|source| BlobError::Read { digest: digest.to_string(), source })?;
        if taken == 0 {
            return hasher.check(digest, size);
        }
        hasher.update(&buffer[..taken]);
    }
}

/// The names in a directory that are text.
///
/// # Errors
/// It cannot be read.
pub fn names(directory: &Path) -> Result<Vec<String>, BlobError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    };
    list().map_err(|source| BlobError::List { directory: directory.to_owned(), source })
}

/// A directory of blobs.
#[derive(Clone, Debug)]
pub struct BlobStore {
    directory: PathBuf,
}

impl BlobStore {
    /// Opens it, made if it is not there; its parent must be.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self, BlobError> {
        ensure_dir(directory, 0o700)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Where a complete blob lies.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(file_name(digest))
    }

    /// Where a blob grows.
    #[must_use]
    pub fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(file_name(digest) + PARTIAL)
    }

    /// It is there, complete.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Keeps bytes that hash to `digest`.
    ///
    /// # Errors
    /// They do not, or the disk is full.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobError> {
        verify(bytes, digest)?;
        Ok(atomic_write(&self.path(digest), bytes, 0o600)?)
    }

    /// A small blob, checked once more; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is no longer what it was.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(bytes) = crate::fs::read_optional(&self.path(digest))? else {
            return Ok(None);
        };
        verify(&bytes, digest)?;
        Ok(Some(bytes))
    }

    /// Opens a blob to be read from its beginning.
    ///
    /// # Errors
    /// It is not there.
    pub fn reader(&self, digest: &Digest) -> Result<File, BlobError> {
        File::open(self.path(digest)).map_err(|source| BlobError::Read { digest: digest.to_string(), source })
    }

    /// The complete blobs.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        Ok(names(&self.directory)?.iter().filter_map(|name| digest_of_file_name(name)).collect())
    }

    /// Removes a blob, complete or not; fine when it is gone.
    ///
    /// # Errors
    /// It stays.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        remove_file(&self.partial_path(digest))?;
        Ok(remove_file(&self.path(digest))?)
    }

    /// Removes everything that is no complete blob. Only for who has the directory to himself.
    ///
    /// # Errors
    /// Something stays.
    pub fn sweep(&self) -> Result<usize, BlobError> {
        let mut removed = 0;
        for name in names(&self.directory)? {
            if digest_of_file_name(&name).is_none() {
                remove_file(&self.directory.join(&name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_under_their_digest_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&dir.path().join("blobs")).unwrap();
        let digest = parse_digest(&sha256(b"hello")).unwrap();
        let error = store.put(&digest, b"hullo").unwrap_err();
        assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
        assert!(!store.contains(&digest));
        store.put(&digest, b"hello").unwrap();
        assert_eq!(store.get(&digest).unwrap().as_deref(), Some(&b"hello"[..]));
        assert_eq!(store.list().unwrap(), [digest]);
    }

    #[test]
    fn a_blob_that_rotted_on_the_disk_is_not_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&dir.path().join("blobs")).unwrap();
        let digest = parse_digest(&sha256(b"hello")).unwrap();
        store.put(&digest, b"hello").unwrap();
        fs::write(store.path(&digest), b"hellO").unwrap();
        assert!(matches!(store.get(&digest), Err(BlobError::Mismatch { .. })));
    }

    #[test]
    fn what_a_crash_left_half_written_is_swept_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&dir.path().join("blobs")).unwrap();
        let digest = parse_digest(&sha256(b"hello")).unwrap();
        store.put(&digest, b"hello").unwrap();
        let other = parse_digest(&sha256(b"other")).unwrap();
        fs::write(store.partial_path(&other), b"oth").unwrap();
        assert_eq!(store.sweep().unwrap(), 1);
        assert_eq!(store.list().unwrap(), [digest]);
    }

    #[test]
    fn a_stream_longer_or_shorter_than_announced_is_refused_whatever_it_hashes_to() {
        let digest = parse_digest(&sha256(b"hello")).unwrap();
        for size in [4, 6] {
            let error = verify_stream(&b"hello"[..], &digest, size).unwrap_err();
            assert!(matches!(error, BlobError::Size { .. }), "{error}");
        }
        verify_stream(&b"hello"[..], &digest, 5).unwrap();
    }

    #[test]
    fn digests_that_cannot_be_checked_are_refused() {
        let wide = format!("sha512:{}", "0".repeat(128));
        assert!(parse_digest(&wide).is_ok());
        for bad in ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:00", "../../etc", ""] {
            assert!(parse_digest(bad).is_err(), "{bad}");
        }
    }
}
