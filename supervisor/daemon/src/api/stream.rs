//! Streams: image archives in, a bundle's output out. What does the work is behind two seams,
//! which the wiring fills.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reply::{self, Error, Reply};
use super::request::Ask;

/// Bytes of an archive or of output, in pieces.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Why a stream could not be served.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The request is wrong; says what to do.
    #[error("{0}")]
    Request(String),
    /// There is no such thing.
    #[error("{0}")]
    Absent(String),
    /// Something else stands in the way; says what.
    #[error("{0}")]
    Conflict(String),
    /// Not now; says when.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("serving a stream")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The images on the machine.
pub trait ImagesPort: Send + Sync {
    /// Takes in an OCI layout as a tar archive under `reference`; answers the Image.
    fn import(&self, reference: String, archive: ByteStream) -> BoxFuture<'_, Result<Value, PortError>>;
    /// Every Image there is: objects with `metadata.name`, in the order in which they are shown.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, PortError>>;
    /// Fails unless the image `registry/repository@sha256:...` is here, or its registry has it.
    fn check(&self, pinned: String) -> BoxFuture<'_, Result<(), PortError>>;
    /// Removes what nothing needs, or only says what that is.
    fn prune(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Value>, PortError>>;
    /// Removes a name, and the image with its last name.
    fn remove(&self, reference: String) -> BoxFuture<'_, Result<(), PortError>>;
}

/// The output of bundles.
pub trait LogsPort: Send + Sync {
    /// Begins to read; the stream ends with the output, or never if it is followed.
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, PortError>>;
}

/// Which output of which bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the bundle.
    pub namespace: String,
    /// Name of the bundle.
    pub bundle: String,
    /// Go on with what comes.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was written since.
    pub since: Option<Timestamp>,
    /// Begin each line with its time, RFC 3339.
    pub timestamps: bool,
    /// What the invocation before the present one wrote.
    pub previous: bool,
}

/// `POST .../images/import?name=<reference>`, body: the archive, of any size.
pub(super) async fn import(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let Some(reference) = ask.query("name").map(str::to_owned) else {
        return Err(Error::bad_request("say what the image is to be called: ?name=<registry/repository:tag>"));
    };
    let body = ask.take_body().into_data_stream();
    let image = ask.api.images.import(reference, brisk(body.map_err(io::Error::other).boxed(), BRISK)).await?;
    Ok(reply::with_code(StatusCode::CREATED, reply::json(&image)))
}

/// At least so many bytes of an archive within so much time that is spent waiting for them.
const BRISK: (usize, Duration) = (64 * 1024, Duration::from_mins(1));

/// The same, until it comes so slowly that somebody only wants to hold the connection.
pub(super) fn brisk(body: ByteStream, least: (usize, Duration)) -> ByteStream {
    let piece = move |(mut body, mut waited, mut come): (ByteStream, Duration, usize)| async move {
        loop {
            let began = Instant::now();
            match tokio::time::timeout(least.1.saturating_sub(waited), body.next()).await {
                Ok(piece) => {
                    let piece = piece?;
                    come += piece.as_ref().map_or(0, Bytes::len);
                    return Some((piece, (body, waited + began.elapsed(), come)));
                }
                Err(_) if come >= least.0 => (waited, come) = (Duration::ZERO, 0),
                Err(_) => {
                    let end = futures_util::stream::empty().boxed();
                    return Some((Err(too_slow(least)), (end, Duration::ZERO, 0)));
                }
            }
        }
    };
    futures_util::stream::unfold((body, Duration::ZERO, 0), piece).boxed()
}

fn too_slow((bytes, time): (usize, Duration)) -> io::Error {
    let message =
        format!("less than {bytes} bytes came within {} s; send it again, over a faster link", time.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// `GET .../images`.
pub(super) async fn images(ask: Ask) -> Reply {
    let items = ask.api.images.list().await?;
    Ok(listed(&ask, &items))
}

/// `POST .../images/prune`: the images that were removed, or with `?dryRun=All` would be.
pub(super) async fn prune(ask: Ask) -> Reply {
    let items = ask.api.images.prune(ask.dry_run()?).await?;
    Ok(listed(&ask, &items))
}

/// `DELETE .../images?name=<reference>`.
pub(super) async fn remove(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let Some(reference) = ask.query("name").map(str::to_owned) else {
        return Err(Error::bad_request("say which image: ?name=<registry/repository:tag>"));
    };
    ask.api.images.remove(reference.clone()).await?;
    Ok(reply::json(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": { "name": reference },
    })))
}

fn listed(ask: &Ask, items: &[Value]) -> Response {
    let version = ask.api.store.revision().borrow().to_string();
    reply::json(&json!({
        "kind": "ImageList", "apiVersion": "berth.dev/v1", "metadata": { "resourceVersion": version }, "items": items,
    }))
}

/// `GET .../bundles/{name}/log`.
pub(super) async fn log(ask: Ask) -> Reply {
    let request = LogRequest {
        namespace: ask.namespace(),
        bundle: ask.name(),
        follow: ask.flag("follow")?,
        tail_lines: ask.number("tailLines")?,
        since: since(&ask)?,
        timestamps: ask.flag("timestamps")?,
        previous: ask.flag("previous")?,
    };
    ask.only_container()?;
    let limit = ask.number("limitBytes")?;
    let output = ask.api.logs.open(request).await?;
    let output = limited(output, limit.unwrap_or(u64::MAX));
    let stopped = ask.ending().cancelled_owned();
    let mut response = Response::new(Body::from_stream(output.take_until(stopped)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// No more bytes than that.
fn limited(output: ByteStream, most: u64) -> ByteStream {
    let cut = |left: &mut u64, piece: io::Result<Bytes>| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        let whole = !matches!(&piece, Ok(piece) if piece.is_empty());
        std::future::ready(whole.then_some(piece))
    };
    output.scan(most, cut).boxed()
}

fn since(ask: &Ask) -> Result<Option<Timestamp>, Error> {
    if let Some(text) = ask.query("sinceTime") {
        let wrong = |_| Error::bad_request(format!("sinceTime={text} is not a time like 2026-01-31T12:00:00Z"));
        return text.parse().map(Some).map_err(wrong);
    }
    let Some(seconds) = ask.number("sinceSeconds")? else { return Ok(None) };
    let seconds = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    // Longer ago than time goes back: everything.
    Ok((ask.api.clock)().checked_sub(seconds).ok())
}
