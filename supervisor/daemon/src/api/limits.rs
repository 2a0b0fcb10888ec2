//! How much anybody may ask: requests a second, of one subject and of all together, and streams that stay open. Whoever
//! is not known is told apart by his address. Local root and questions about health are not limited: whoever mends a
//! machine that is asked too much comes by these.
//!
//! What is allowed stands in Settings, and holds at once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::body::Body;
use axum::response::Response;
use berth_model::policy::{Subject, Verb};
use berth_model::resource::settings::ApiLimits;
use berth_model::status::{Failure, Reason};
use futures_util::StreamExt;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use super::reply::Error;
use crate::auth::Peer;
use crate::auth::attempts::neighbourhood;

type Keyed = RateLimiter<String, HashMapStateStore<String>, DefaultClock, NoOpMiddleware>;

/// After so many requests, those are forgotten who have asked nothing of late.
const FORGETS_EVERY: u64 = 10_000;
/// When to try again to open a stream.
const STREAM_AGAIN: i32 = 10;

/// Counts.
#[derive(Default)]
pub struct Limiter {
    rates: RwLock<Arc<Rates>>,
    asked: AtomicU64,
    streams: Arc<Mutex<HashMap<String, u32>>>,
}

struct Rates {
    set: ApiLimits,
    all: DefaultDirectRateLimiter,
    each: Keyed,
}

impl Default for Rates {
    fn default() -> Self {
        Self::of(ApiLimits::default())
    }
}

impl Rates {
    fn of(set: ApiLimits) -> Self {
        let quota = |rate: u32| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        Self {
            all: RateLimiter::direct(quota(set.requests_per_second)),
            each: RateLimiter::hashmap(quota(set.requests_per_second_per_subject)),
            set,
        }
    }
}

/// Whoever counts as one; none if he is not limited.
pub(super) fn counted_as(subject: &Subject, peer: Peer) -> Option<String> {
    match (subject, peer) {
        (Subject::LocalRoot, _) => None,
        (Subject::Anonymous, peer) => stranger(peer),
        (known, _) => Some(known.identity().to_owned()),
    }
}

/// Somebody of whom no more is known than where he is.
pub(super) fn stranger(peer: Peer) -> Option<String> {
    match peer {
        Peer::Network(address) => Some(neighbourhood(address.ip()).to_string()),
        Peer::Socket { .. } => None,
    }
}

/// Whether a route answers whoever watches over the machine.
pub(super) fn is_about_health(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Whether what is asked for stays open.
pub(super) fn is_stream(verb: Verb, subresource: &str, follows: bool) -> bool {
    matches!(verb, Verb::Watch | Verb::Exec) || (subresource == "log" && follows)
}

impl Limiter {
    /// Counts a request against what is allowed.
    ///
    /// # Errors
    /// There were too many; says when to ask again.
    pub(super) fn admit(&self, set: ApiLimits, who: &str) -> Result<(), Error> {
        let rates = self.rates(set);
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGETS_EVERY) {
            rates.each.retain_recent();
        }
        let own = rates.each.check_key(&who.to_owned());
        own.map_err(|until| {
            let rate = set.requests_per_second_per_subject;
            let limit = "spec.api.limits.requestsPerSecondPerSubject of Settings berth";
            too_many(format!("{who} asks more than {rate} times a second ({limit})"), seconds(&until))
        })?;
        // Whoever asks too much by himself has not come so far: he takes nothing away from others.
        rates.all.check().map_err(|until| {
            let (rate, limit) = (set.requests_per_second, "spec.api.limits.requestsPerSecond of Settings berth");
            too_many(format!("all together ask more than {rate} times a second ({limit})"), seconds(&until))
        })
    }

    /// Counts a stream as open for as long as what is answered is kept.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn open(&self, set: ApiLimits, who: &str, stop: &CancellationToken) -> Result<Arc<OpenStream>, Error> {
        let most = set.streams_per_subject;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(who.to_owned()).or_default();
        if *open >= most {
            let message = format!(
                "{who} has {open} watches, followed logs and sessions open, as many as \
                 spec.api.limits.streamsPerSubject of Settings berth allows; end some"
            );
            return Err(too_many(message, STREAM_AGAIN));
        }
        *open += 1;
        let ending = stop.child_token();
        Ok(Arc::new(OpenStream { streams: self.streams.clone(), who: who.to_owned(), ending }))
    }

    /// What counts by what is allowed now; begun anew when that has changed.
    fn rates(&self, set: ApiLimits) -> Arc<Rates> {
        let counting = self.rates.read().unwrap_or_else(PoisonError::into_inner).clone();
        if counting.set == set {
            return counting;
        }
        let mut rates = self.rates.write().unwrap_or_else(PoisonError::into_inner);
        if rates.set != set {
            *rates = Arc::new(Rates::of(set));
        }
        rates.clone()
    }
}

/// A stream that somebody has open.
pub(super) struct OpenStream {
    streams: Arc<Mutex<HashMap<String, u32>>>,
    who: String,
    /// Says that it is to end, and that it has.
    pub(super) ending: CancellationToken,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.ending.cancel();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let left = streams.get(&self.who).map_or(0, |open| open.saturating_sub(1));
        match left {
            0 => drop(streams.remove(&self.who)),
            left => drop(streams.insert(std::mem::take(&mut self.who), left)),
        }
    }
}

/// The same answer, which is open until its body has ended.
pub(super) fn held(response: Response, stream: Arc<OpenStream>) -> Response {
    response.map(|body| {
        let pieces = body.into_data_stream().map(move |piece| {
            let _open = &stream;
            piece
        });
        Body::from_stream(pieces)
    })
}

fn seconds<P: governor::clock::Reference>(until: &NotUntil<P>) -> i32
where
    DefaultClock: Clock<Instant = P>,
{
    let wait = until.wait_time_from(DefaultClock::default().now());
    i32::try_from(wait.as_secs()).unwrap_or(i32::MAX).saturating_add(1)
}

fn too_many(message: String, seconds: i32) -> Error {
    let failure = Failure::new(Reason::TooManyRequests, format!("{message}; try again in {seconds} s"));
    Failure { retry_after_seconds: Some(seconds), ..failure }.into()
}
