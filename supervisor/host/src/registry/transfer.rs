//! One blob on its way from a registry to the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::Descriptor;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};
use tracing::warn;

use super::{Arrived, Patience, RegistryError, Session, parse_digest};
use crate::blob::{BlobError, BlobStore, Digest, Hasher};
use crate::fs::{remove_file, sync_parent};
use crate::layer::archive::shown;

/// As many more bytes count as headway.
const HEADWAY: u64 = 1 << 20;

/// Tries that are left, with growing waits between them.
pub struct Tries {
    patience: Patience,
    left: u32,
    next_wait: Duration,
}

impl Tries {
    pub fn new(patience: Patience) -> Self {
        Self { left: patience.tries.saturating_sub(1), next_wait: patience.first_wait, patience }
    }

    /// Waits for the next try, no less than the registry asks for; false when there is none, or it asks for more than
    /// anybody here waits.
    pub async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let asked = asked.unwrap_or_default();
        if self.left == 0 || asked > self.patience.longest_asked {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(self.next_wait.max(asked)).await;
        self.next_wait = (self.next_wait * 2).min(self.patience.longest_wait);
        true
    }
}

/// What has come of a blob so far.
struct Incoming {
    digest: Digest,
    size: u64,
    file: BufWriter<File>,
    hasher: Hasher,
    /// It came over more than one connection.
    resumed: bool,
}

/// A file that is removed unless it is completed, also when nobody waits for it any more.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    fn complete(mut self, to: &Path) -> Result<(), RegistryError> {
        if let Some(path) = self.0.take() {
            std::fs::rename(path, to).map_err(RegistryError::Write)?;
        }
        sync_parent(to).map_err(|error| RegistryError::Keep(error.into()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = remove_file(path) {
            warn!(error = &error as &dyn std::error::Error, "removing an unfinished blob");
        }
    }
}

impl Session {
    /// Downloads a blob into the store; one that is there is left alone. An interrupted transfer
    /// goes on where it stopped.
    ///
    /// # Errors
    /// The registry fails for good, or sends something else. Nothing is left of the blob then.
    pub async fn download(
        &self,
        descriptor: &Descriptor,
        into: &BlobStore,
        arrived: Arrived<'_>,
    ) -> Result<(), RegistryError> {
        let digest = parse_digest(descriptor.digest().as_ref())?;
        if into.contains(&digest) {
            arrived(&digest, descriptor.size());
            return Ok(());
        }
        let unfinished = Unfinished(Some(into.partial_path(&digest)));
        let file = File::create(into.partial_path(&digest)).await.map_err(RegistryError::Write)?;
        let hasher = Hasher::like(&digest).map_err(RegistryError::Keep)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        let incoming = Incoming { digest: digest.clone(), size: descriptor.size(), file, hasher, resumed: false };
        self.receive(incoming, arrived).await?;
        unfinished.complete(&into.path(&digest))
    }

    /// Until everything is there, synced and right.
    async fn receive(&self, mut incoming: Incoming, arrived: Arrived<'_>) -> Result<(), RegistryError> {
        let mut tries = Tries::new(self.client.patience);
        let mut headway = 0;
        loop {
            let error = match self.receive_some(&mut incoming, arrived).await {
                Ok(()) => match incoming.check() {
                    Ok(()) => return incoming.sync().await,
                    // Two halves that do not belong together: once more, in one piece.
                    Err(BlobError::Mismatch { .. }) if incoming.resumed => {
                        incoming.restart().await?;
                        incoming.resumed = false;
                        continue;
                    }
                    Err(source) => {
                        return Err(RegistryError::WrongBlob { registry: self.registry.clone(), source });
                    }
                },
                Err(error) => error,
            };
            if incoming.hasher.seen() > headway + HEADWAY {
                headway = incoming.hasher.seen();
                tries = Tries::new(self.client.patience);
            }
            if !error.is_transient() || !tries.wait(error.retry_after()).await {
                return Err(error);
            }
        }
    }

    /// Over one connection.
    async fn receive_some(&self, incoming: &mut Incoming, arrived: Arrived<'_>) -> Result<(), RegistryError> {
        let from = incoming.hasher.seen();
        let url = self.url("blobs", incoming.digest.as_ref());
        let mut response = match self.get(&url, Self::range(from)).await {
            Err(RegistryError::Status { status: 416, .. }) if from > 0 => {
                incoming.restart().await?;
                self.get(&url, Self::range(0)).await?
            }
            other => other?,
        };
        if continues(&response, from) {
            incoming.resumed |= from > 0;
        } else {
            incoming.restart().await?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                response = self.get(&url, Self::range(0)).await?;
            }
        }
        if response.status() == StatusCode::OK && response.content_length().is_some_and(|size| size != incoming.size) {
            let got = response.content_length().unwrap_or_default();
            return Err(self.wrong_size(incoming, got));
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    if incoming.hasher.seen() + bytes.len() as u64 > incoming.size {
                        return Err(self.wrong_size(incoming, incoming.hasher.seen() + bytes.len() as u64));
                    }
                    incoming.hasher.update(&bytes);
                    incoming.file.write_all(&bytes).await.map_err(RegistryError::Write)?;
                    arrived(&incoming.digest, incoming.hasher.seen());
                }
                Ok(None) if incoming.hasher.seen() == incoming.size => return Ok(()),
                Ok(None) => return Err(self.interrupted(incoming, None)),
                Err(error) => return Err(self.interrupted(incoming, Some(error))),
            }
        }
    }

    fn wrong_size(&self, incoming: &Incoming, got: u64) -> RegistryError {
        let digest = incoming.digest.to_string();
        RegistryError::WrongBlob {
            registry: self.registry.clone(),
            source: BlobError::Size { digest, expected: incoming.size, got },
        }
    }

    fn interrupted(&self, incoming: &Incoming, source: Option<reqwest::Error>) -> RegistryError {
        RegistryError::Interrupted {
            registry: self.registry.clone(),
            digest: incoming.digest.to_string(),
            got: incoming.hasher.seen(),
            expected: incoming.size,
            source,
        }
    }
}

impl Incoming {
    fn check(&self) -> Result<(), BlobError> {
        self.hasher.clone().check(&self.digest, self.size)
    }

    async fn sync(mut self) -> Result<(), RegistryError> {
        self.file.flush().await.map_err(RegistryError::Write)?;
        self.file.get_ref().sync_all().await.map_err(RegistryError::Write)
    }

    async fn restart(&mut self) -> Result<(), RegistryError> {
        self.hasher = Hasher::like(&self.digest).map_err(RegistryError::Keep)?;
        self.file.flush().await.map_err(RegistryError::Write)?;
        let file = self.file.get_mut();
        file.set_len(0).await.map_err(RegistryError::Write)?;
        file.rewind().await.map(drop).map_err(RegistryError::Write)
    }
}

/// The response goes on at `from`, as asked.
fn continues(response: &Response, from: u64) -> bool {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return from == 0;
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    start == Some(from)
}

/// The value of an `Authorization` header.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<ComplaintItem>,
}

#[derive(Deserialize)]
struct ComplaintItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own explanation, escaped.
pub fn own_words(body: &[u8]) -> String {
    let complaint: Complaint = serde_json::from_slice(body).unwrap_or_default();
    complaint.errors.first().map_or_else(String::new, |item| format!(": {}", shown(item.message.as_bytes())))
}

/// The registry gives this code as a reason.
pub fn has_code(body: &[u8], code: &str) -> bool {
    let complaint: Complaint = serde_json::from_slice(body).unwrap_or_default();
    complaint.errors.iter().any(|item| item.code == code)
}
