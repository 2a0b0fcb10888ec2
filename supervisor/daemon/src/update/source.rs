//! Where a version is fetched from: a web server, or a folder of the machine.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use berth_host::disk_image;
use berth_model::condition::Reason;
use berth_model::quantity::about_bytes;
use berth_model::release::Part;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use ring::digest::{Context, SHA256};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::operation::StepError;

/// Room that is left on the data disk, in bytes: others write as well.
const RESERVE: u64 = 64 << 20;

/// Told how many percent of a file have come, and that in words.
pub(super) type Tell<'a> = &'a (dyn Fn(u64, String) + Send + Sync);

pub(super) enum Source {
    Web { url: String, http: reqwest::Client },
    Folder(PathBuf),
}

impl Source {
    /// A URL of channels, or a folder with one version; none if nothing is said.
    pub(super) fn of(place: &str, channel: &str, http: &reqwest::Client) -> Option<Source> {
        match place {
            "" => None,
            folder if folder.starts_with('/') => Some(Self::Folder(folder.into())),
            url => Some(Self::Web { url: format!("{}/{channel}", url.trim_end_matches('/')), http: http.clone() }),
        }
    }

    /// The same, as [`Self::told`] has it.
    pub(super) fn found(told: &str, http: &reqwest::Client) -> Source {
        match told.starts_with('/') {
            true => Self::Folder(told.into()),
            false => Self::Web { url: told.to_owned(), http: http.clone() },
        }
    }

    /// For people, and for [`Self::found`].
    pub(super) fn told(&self) -> String {
        match self {
            Self::Web { url, .. } => url.clone(),
            Self::Folder(path) => path.display().to_string(),
        }
    }

    /// A file of at most so many bytes.
    pub(super) async fn document(&self, name: &str, longest: usize) -> Result<Vec<u8>, StepError> {
        match self {
            Self::Folder(folder) => {
                short(&folder.join(name), longest).map_err(|error| self.failed(name).caused_by(error))
            }
            Self::Web { .. } => {
                let answer = self.get(name, 0).await?;
                let (mut bytes, mut stream) = (Vec::new(), answer.bytes_stream());
                while let Some(more) = stream.next().await {
                    bytes.extend(more.map_err(|error| self.failed(name).caused_by(error.without_url()))?);
                    if bytes.len() > longest {
                        return Err(self.too_long(name, longest));
                    }
                }
                Ok(bytes)
            }
        }
    }

    /// Brings a file into `folder`, from where it broke off the last time, and holds it against its sum.
    pub(super) async fn fetch(&self, part: &Part, folder: &Path, tell: Tell<'_>) -> Result<(), StepError> {
        let (path, partial) = (folder.join(&part.name), folder.join(format!("{}.part", part.name)));
        if path.exists() {
            return Ok(());
        }
        match self {
            Self::Folder(from) => copied(from.join(&part.name), partial.clone())
                .await
                .map_err(|error| self.failed(&part.name).caused_by(error))?,
            Self::Web { .. } => self.transfer(&part.name, &partial, tell).await?,
        }
        let sum = summed(partial.clone()).await.map_err(|error| self.failed(&part.name).caused_by(error))?;
        if sum != part.sha256 {
            kept(std::fs::remove_file(&partial))?;
            let message = format!("{} of {} is not what its sum says", part.name, self.told());
            return Err(StepError::new(Reason::WorkloadFailed, message).coded("BadSum"));
        }
        kept(std::fs::rename(&partial, &path))?;
        kept(berth_host::fs::sync_parent(&path).map_err(io::Error::other))
    }

    async fn transfer(&self, name: &str, partial: &Path, tell: Tell<'_>) -> Result<(), StepError> {
        let there = std::fs::metadata(partial).map_or(0, |found| found.len());
        let answer = self.get(name, there).await?;
        let resumes = answer.status() == StatusCode::PARTIAL_CONTENT;
        let mut come = if resumes { there } else { 0 };
        let whole = answer.content_length().map(|rest| rest + come);
        self.room(name, partial, whole.unwrap_or_default().saturating_sub(come))?;
        let mut file = kept(open(partial, resumes).await)?;
        let mut stream = answer.bytes_stream();
        while let Some(more) = stream.next().await {
            let more = match more {
                Ok(more) => more,
                Err(error) => {
                    // The next try goes on from here.
                    kept(file.flush().await)?;
                    return Err(self.failed(name).caused_by(error.without_url()));
                }
            };
            kept(file.write_all(&more).await)?;
            come += more.len() as u64;
            let of_it = whole.map(|whole| format!(" of {}", about_bytes(whole))).unwrap_or_default();
            let percent = whole.filter(|whole| *whole > 0).map_or(0, |whole| come * 100 / whole);
            tell(percent, format!("{name}: {}{of_it}", about_bytes(come)));
        }
        kept(file.flush().await)?;
        kept(file.sync_all().await)
    }

    /// Whether there is room for so many more bytes.
    fn room(&self, name: &str, partial: &Path, more: u64) -> Result<(), StepError> {
        let folder = partial.parent().unwrap_or(Path::new("/"));
        let room = disk_image::room(folder).map_err(|error| self.failed(name).caused_by(error))?;
        if room.free >= more + RESERVE {
            return Ok(());
        }
        let message = format!("{name} needs {} and the data disk has {}", about_bytes(more), about_bytes(room.free));
        let error = StepError::new(Reason::WorkloadFailed, message).coded("NoRoom");
        Err(error.suggest("make room, as by `berth system cleanup`, then ask again").permanent())
    }

    /// Asks for a file from a byte on; what answers otherwise than with it is an error.
    async fn get(&self, name: &str, from: u64) -> Result<Response, StepError> {
        let Self::Web { url, http } = self else { return Err(self.failed(name)) };
        let request = http.get(format!("{url}/{name}"));
        let request = if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request };
        let answer = request.send().await.map_err(|error| self.failed(name).caused_by(error.without_url()))?;
        let begins = format!("bytes {from}-");
        let goes_on =
            answer.headers().get(CONTENT_RANGE).is_some_and(|range| range.as_bytes().starts_with(begins.as_bytes()));
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::PARTIAL_CONTENT if goes_on => Ok(answer),
            // What is there is all there is, or more: from the beginning.
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Box::pin(self.get(name, 0)).await,
            status => Err(self.answered(name, status)),
        }
    }

    fn answered(&self, name: &str, status: StatusCode) -> StepError {
        let message = format!("{} answered {status} when asked for {name}", self.told());
        let error = StepError::new(Reason::WorkloadFailed, message).coded("NoRelease");
        let error = error.suggest("check spec.updates of the Settings berth");
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS { error.permanent() } else { error }
    }

    fn failed(&self, name: &str) -> StepError {
        StepError::new(Reason::WorkloadFailed, format!("fetching {name} from {}", self.told())).coded("NoRelease")
    }

    fn too_long(&self, name: &str, longest: usize) -> StepError {
        let message = format!("{name} of {} is longer than {longest} bytes", self.told());
        StepError::new(Reason::WorkloadFailed, message).coded("NoRelease").permanent()
    }
}

fn kept<T>(done: io::Result<T>) -> Result<T, StepError> {
    let error = |error| StepError::new(Reason::WorkloadFailed, "keeping what was fetched").caused_by(error);
    done.map_err(error)
}

async fn open(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path).await
}

fn short(path: &Path, longest: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(longest as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > longest {
        true => Err(io::Error::other(format!("it is longer than {longest} bytes"))),
        false => Ok(bytes),
    }
}

async fn copied(from: PathBuf, to: PathBuf) -> io::Result<()> {
    blocking(move || {
        std::fs::copy(from, &to)?;
        std::fs::File::open(&to)?.sync_all()
    })
    .await
}

/// A file's SHA-256 in hexadecimal digits.
async fn summed(path: PathBuf) -> io::Result<String> {
    blocking(move || sum(&path)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file's SHA-256 in lower-case hexadecimal digits.
///
/// # Errors
/// It cannot be read.
pub(crate) fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut context, mut block) = (std::fs::File::open(path)?, Context::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => context.update(&block[..read]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
