//! What is known of the images on this machine, as files.
//!
//! `images/<algorithm>-<hex>.json` says that an image is here: it is written when all of its layers
//! are, under the digest of its manifest. `names/<hash>.json` says what a tag stood for when it was
//! last asked about. Both are replaced as a whole or not at all. Manifest and configuration
//! themselves lie among the blobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_host::blob::{Digest, file_name, sha256};
use berth_host::fs::{atomic_write, ensure_dir, read_optional, remove_file};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ImageError;

/// An image that is here, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// Digest of its manifest.
    pub digest: String,
    /// Digest of its configuration.
    pub config: String,
    /// `registry/repository` of wherever it came from.
    pub repositories: BTreeSet<String>,
    /// Diff ids, the topmost first.
    pub layers: Vec<String>,
    /// Bytes of its layers as they were fetched.
    pub size: u64,
    /// Since when nothing has needed it; unknown while something does, or nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Timestamp>,
}

/// What a name stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRecord {
    /// `registry/repository:tag`, or with the digest of an index.
    pub name: String,
    /// Digest of the manifest.
    pub digest: String,
    /// It was imported under this name: no registry is asked about it.
    pub imported: bool,
}

/// The directory of both.
#[derive(Clone, Debug)]
pub struct Records {
    images: PathBuf,
    names: PathBuf,
    /// Held by whoever reads an image's record to write it changed.
    changing: Arc<Mutex<()>>,
}

impl Records {
    /// Opens it, made if it is not there.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let changing = Arc::default();
        let records = Self { images: root.join("images"), names: root.join("names"), changing };
        ensure_dir(&records.images, 0o700)?;
        ensure_dir(&records.names, 0o700)?;
        Ok(records)
    }

    /// An image that is here.
    pub fn image(&self, digest: &Digest) -> Result<Option<ImageRecord>, ImageError> {
        read(&self.image_path(digest))
    }

    /// All of them.
    pub fn images(&self) -> Result<Vec<ImageRecord>, ImageError> {
        read_all(&self.images)
    }

    /// Says that an image is here, and that something is about to need it. One that came from elsewhere before keeps
    /// these places, too.
    pub fn put_image(&self, digest: &Digest, mut record: ImageRecord) -> Result<ImageRecord, ImageError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.image(digest)?.map_or_else(BTreeSet::new, |known| known.repositories);
        record.repositories.extend(known);
        write(&self.image_path(digest), &record)?;
        Ok(record)
    }

    /// Notes since when an image that is here is unused, or that it is not. Writes only what is news.
    pub fn mark(&self, digest: &Digest, unused_since: Option<Timestamp>) -> Result<(), ImageError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.image(digest)? {
            Some(record) if record.unused_since != unused_since => {
                write(&self.image_path(digest), &ImageRecord { unused_since, ..record })
            }
            _ => Ok(()),
        }
    }

    /// Forgets one.
    pub fn remove_image(&self, digest: &Digest) -> Result<(), ImageError> {
        Ok(remove_file(&self.image_path(digest))?)
    }

    /// What a name stood for.
    pub fn name(&self, name: &str) -> Result<Option<NameRecord>, ImageError> {
        read(&self.name_path(name))
    }

    /// All names.
    pub fn names(&self) -> Result<Vec<NameRecord>, ImageError> {
        read_all(&self.names)
    }

    /// Says what a name stands for.
    pub fn put_name(&self, record: &NameRecord) -> Result<(), ImageError> {
        if self.name(&record.name)?.as_ref() == Some(record) {
            return Ok(());
        }
        write(&self.name_path(&record.name), record)
    }

    /// Forgets one.
    pub fn remove_name(&self, name: &str) -> Result<(), ImageError> {
        Ok(remove_file(&self.name_path(name))?)
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.images.join(file_name(digest) + ".json")
    }

    fn name_path(&self, name: &str) -> PathBuf {
        let hash = sha256(name.as_bytes());
        self.names.join(hash.trim_start_matches("sha256:").to_owned() + ".json")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    let name = path.display().to_string();
    serde_json::from_slice(&bytes).map(Some).map_err(|source| ImageError::Record { name, source })
}

fn read_all<T: DeserializeOwned>(directory: &Path) -> Result<Vec<T>, ImageError> {
    let mut names = berth_host::blob::names(directory).map_err(ImageError::Blobs)?;
    names.retain(|name| !name.starts_with('.') && name.ends_with(".json"));
    names.sort();
    names.iter().filter_map(|name| read(&directory.join(name)).transpose()).collect()
}

fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), ImageError> {
    let name = path.display().to_string();
    let bytes = serde_json::to_vec_pretty(record).map_err(|source| ImageError::Record { name, source })?;
    Ok(atomic_write(path, &bytes, 0o600)?)
}
