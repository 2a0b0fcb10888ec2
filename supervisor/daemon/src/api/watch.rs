//! Watching: what changes, told as it happens.
//!
//! ```text
//!              +- no version, or 0 ---> state as ADDED (then a bookmark, if asked for) -+
//! request -----+                                                                        +-> Feed
//!              +- a version ----------> must not be compacted, else 410 ----------------+
//!
//! Feed: store.changes(since) ─> selected, redacted, shaped ─> bounded queue ─> body
//!       ends: timeoutSeconds | client gone | daemon stops (503) | compacted (410) | read too slowly (410)
//! ```
//!
//! One task per watch fills a short queue. One place in the queue is kept free for the last event,
//! so that a client that reads too slowly still learns why it was cut off.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use berth_model::event::{WatchType, bookmark, seen};
use berth_model::kinds::Registration;
use berth_model::selector::Selector;
use berth_model::status::Reason;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use super::Api;
use super::read::{Version, page, scope, selector, visible};
use super::reply::{Error, Reply, Shape};
use super::request::Ask;
use crate::store::{Change, PageRequest, StoreError};
use tokio_util::sync::CancellationToken;

/// How long a watch lasts if it does not say.
const LONGEST: u64 = 3600;
/// Events that may wait for a client.
const QUEUE: usize = 64;
/// Changes read at a time.
const BATCH: usize = 200;

/// How patient watches are.
#[derive(Clone, Copy, Debug)]
pub struct WatchPace {
    /// Between two bookmarks.
    pub bookmark: Duration,
    /// How long a client may leave a full queue unread.
    pub patience: Duration,
}

impl Default for WatchPace {
    fn default() -> Self {
        Self { bookmark: Duration::from_secs(60), patience: Duration::from_secs(30) }
    }
}

/// What a watch shows, and how.
struct View {
    api: Arc<Api>,
    kind: &'static Registration,
    namespace: Option<String>,
    selector: Selector,
    shape: Shape,
    reveal: bool,
}

/// Why a watch ends.
enum End {
    /// As it should: its time is over, or nobody listens.
    Quiet,
    /// The client should know.
    Because(Error),
}

impl<E: Into<Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Because(error.into())
    }
}

/// Fills the queue of one watch.
struct Feed {
    view: View,
    /// The newest version the client knows of.
    since: u64,
    queue: Sender<Bytes>,
    bookmarks: bool,
    until: Instant,
    /// Whoever watches may not any more.
    ending: CancellationToken,
}

/// `GET` of a collection with `watch=true`.
pub(super) async fn watch(ask: Ask, kind: &'static Registration) -> Reply {
    let view = View {
        api: ask.api.clone(),
        kind,
        namespace: scope(&ask),
        selector: selector(&ask, kind)?,
        shape: ask.shape(),
        reveal: ask.flag("reveal")?,
    };
    let bookmarks = ask.flag("allowWatchBookmarks")?;
    let seconds = ask.number("timeoutSeconds")?.unwrap_or(LONGEST).clamp(1, LONGEST);
    let (first, since) = beginning(&ask, &view, bookmarks).await?;
    let (queue, events) = channel(QUEUE);
    let last = queue.clone().reserve_owned().await;
    let last = last.map_err(|_| Error::new(Reason::InternalError, "the watch could not begin; repeat it"))?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let feed = Feed { view, since, queue, bookmarks, until, ending: ask.ending() };
    tokio::spawn(feed.run(first, last));
    Ok(response(events))
}

/// What there is to tell at first, and the version from which the watch goes on.
async fn beginning(ask: &Ask, view: &View, bookmarks: bool) -> Result<(Vec<Bytes>, u64), Error> {
    let initial = ask.flag("sendInitialEvents")?;
    let version = ask.number("resourceVersion")?.filter(|version| *version > 0);
    if let (Some(version), false) = (version, initial) {
        // Tells whether it can be told, before anything is answered.
        ask.api.store.changes(version, 0).await?;
        return Ok((Vec::new(), version));
    }
    let wanted =
        PageRequest { namespace: view.namespace.clone(), selector: view.selector.clone(), ..PageRequest::default() };
    let kind = view.kind;
    let page = page(&ask.api, kind, wanted).await?;
    Version::of(ask)?.check(page.version)?;
    let line = |object| view.line(WatchType::Added, object);
    let mut lines = page.items.into_iter().map(line).collect::<Result<Vec<_>, _>>()?;
    if initial && bookmarks {
        lines.push(encoded(&bookmark(kind, page.version, true)));
    }
    Ok((lines, page.version))
}

fn response(events: Receiver<Bytes>) -> Response {
    let body = futures_util::stream::unfold(events, async |mut events| {
        let line = events.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), events))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl View {
    /// One event as it is sent.
    fn line(&self, what: WatchType, object: Value) -> Result<Bytes, Error> {
        let object = visible(&self.api, self.kind, object, self.reveal)?;
        let object = self.shape.object(self.kind, object, (self.api.clock)());
        Ok(encoded(&what.with(object)))
    }

    /// What this watch sees of a change, if anything.
    fn event(&self, change: &Change) -> Result<Option<Bytes>, Error> {
        let elsewhere = self.namespace.as_ref().is_some_and(|only| *only != change.namespace);
        if change.kind != self.kind.stored() || elsewhere {
            return Ok(None);
        }
        let now = self.kind.shown(change.object.clone());
        let (before, after) = (self.saw(change), now.as_ref().is_some_and(|object| self.selector.matches(object)));
        let Some(what) = seen(change.what, before, after) else { return Ok(None) };
        // A view that ceases while its object stays is told of as it was last, at the version of its end.
        let gone = || {
            let mut last = self.kind.shown(change.previous.clone()?)?;
            last["metadata"]["resourceVersion"] = change.resource_version.to_string().into();
            Some(last)
        };
        now.or_else(gone).map(|object| self.line(what, object)).transpose()
    }

    /// Whether the object was in sight before a change.
    fn saw(&self, change: &Change) -> bool {
        let matches = |before: &Value| match self.kind.view {
            None => self.selector.matches(before),
            Some(_) => self.kind.shown(before.clone()).is_some_and(|shown| self.selector.matches(&shown)),
        };
        change.previous.as_ref().is_some_and(matches)
    }
}

fn encoded(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

impl Feed {
    async fn run(mut self, first: Vec<Bytes>, last: OwnedPermit<Bytes>) {
        let _open = self.view.api.metrics.watch_opened();
        if let Err(End::Because(error)) = self.feed(first).await {
            last.send(encoded(&WatchType::Error.with(error.status())));
        }
    }

    /// Tells until there is a reason to end.
    async fn feed(&mut self, first: Vec<Bytes>) -> Result<(), End> {
        for line in first {
            self.send(line).await?;
        }
        let api = self.view.api.clone();
        let mut newest = api.store.revision();
        let pace = api.pace.bookmark;
        let mut pause = interval_at(Instant::now() + pace, pace);
        loop {
            newest.borrow_and_update();
            self.catch_up().await?;
            tokio::select! {
                changed = newest.changed() => changed.map_err(|_| stopping())?,
                _ = pause.tick() => self.bookmark().await?,
                // It says that the daemon stops, too.
                () = self.ending.cancelled() => {
                    return Err(if api.stop.is_cancelled() { stopping() } else { taken_back() });
                }
                () = self.queue.closed() => return Err(End::Quiet),
                () = sleep_until(self.until) => {
                    self.bookmark().await?;
                    return Err(End::Quiet);
                }
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), End> {
        loop {
            let changes = self.view.api.store.changes(self.since, BATCH).await.map_err(|error: StoreError| error)?;
            if changes.is_empty() {
                return Ok(());
            }
            for change in changes {
                self.since = change.resource_version;
                if let Some(line) = self.view.event(&change)? {
                    self.send(line).await?;
                }
            }
        }
    }

    async fn bookmark(&self) -> Result<(), End> {
        match self.bookmarks {
            true => self.send(encoded(&bookmark(self.view.kind, self.since, false))).await,
            false => Ok(()),
        }
    }

    async fn send(&self, line: Bytes) -> Result<(), End> {
        let patience = self.view.api.pace.patience;
        match timeout(patience, self.queue.send(line)).await {
            Ok(sent) => sent.map_err(|_| End::Quiet),
            Err(_) => {
                let message = "events were read too slowly; list again, then watch from there";
                Err(Error::new(Reason::Expired, message).into())
            }
        }
    }
}

fn taken_back() -> End {
    Error::new(Reason::Forbidden, "this watch is ended: what allowed it was taken back").into()
}

fn stopping() -> End {
    Error::new(Reason::ServiceUnavailable, "berthd is stopping; watch again from the last version").into()
}
