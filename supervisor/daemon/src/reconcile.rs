//! The driver of reconcilers: which key is looked at when.
//!
//! A reconciler looks at one key and brings the machine nearer to what the store says of it. The
//! driver calls it when something about the key changed (the store or systemd said so), when the
//! reconciler itself asked to look again, and now and then without a reason. One run per key at a
//! time, keys in parallel. A failed or panicked run is tried again after 1 s, doubling to 5 min, and
//! delays nobody else. After a run its key rests for twice the time that the run took, so that what
//! changes again and again costs a third of a thread at most. So do looks without a reason, which are
//! made one after another: however many keys there are, who has a reason does not wait for those.
//!
//! ```text
//!             signal, timer, resync
//!   Idle ------------------------------> Running --- signal ---> Running, dirty
//!    ^  ^                                 |                        |
//!    |  +------ done, nothing new --------+                        |
//!    +--------- done, due after the rest --------------------------+
//! ```

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::metrics::{Metrics, ReconcileResult};

/// First wait after a failed run.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after failed runs.
const BACKOFF_LAST: Duration = Duration::from_secs(300);
/// How many times as long as a run took its key rests after it.
const REST: u32 = 2;
/// The longest rest.
const REST_LAST: Duration = Duration::from_secs(1);
/// How long a look without a reason keeps the next one waiting at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at one key at a time.
pub trait Reconciler: Send + Sync + 'static {
    /// What is looked at.
    type Key: Clone + Eq + Hash + Send + Sync + Debug + Display + 'static;
    /// Why it could not be.
    type Error: Error + Send + Sync + 'static;

    /// Every key there is.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<Self::Key>, Self::Error>>;

    /// Looks at one key; the answer is when to look again without being told.
    fn reconcile<'a>(&'a self, key: &'a Self::Key) -> BoxFuture<'a, Result<Outcome, Self::Error>>;
}

/// When to look again without being told, if ever.
pub type Outcome = Option<Duration>;

/// What is known of a key.
#[derive(Default)]
struct Entry {
    running: bool,
    dirty: bool,
    failures: u32,
    due: Option<Instant>,
    rests_until: Option<Instant>,
}

/// Looks at all keys without a reason, one after another.
struct Round<K> {
    left: VecDeque<K>,
    /// The one at work.
    at: Option<K>,
    /// When the next one begins.
    next: Instant,
}

impl<K> Round<K> {
    fn over() -> Self {
        Self { left: VecDeque::new(), at: None, next: Instant::now() }
    }

    fn due(&self) -> Option<Instant> {
        (!self.left.is_empty()).then_some(self.next)
    }
}

/// Calls one reconciler.
pub struct Driver<R: Reconciler> {
    domain: &'static str,
    reconciler: Arc<R>,
    resync: Duration,
    metrics: Metrics,
    entries: HashMap<R::Key, Entry>,
    round: Round<R::Key>,
    runs: JoinSet<Result<Outcome, R::Error>>,
    at_work: HashMap<Id, (R::Key, Instant)>,
}

impl<R: Reconciler> Driver<R> {
    /// A driver that looks at everything when it begins, and then in rounds of which one begins every `resync`, if the
    /// one before is over.
    pub fn new(domain: &'static str, reconciler: Arc<R>, resync: Duration, metrics: Metrics) -> Self {
        Self {
            domain,
            reconciler,
            resync,
            metrics,
            entries: HashMap::new(),
            round: Round::over(),
            runs: JoinSet::new(),
            at_work: HashMap::new(),
        }
    }

    /// Runs until `stop` is cancelled or nobody can signal any more.
    pub async fn run(mut self, mut signals: mpsc::Receiver<R::Key>, stop: CancellationToken) {
        let mut resync = tokio::time::interval_at(Instant::now() + self.resync, self.resync);
        self.wake_all().await;
        loop {
            let (next_due, round) = (self.next_due(), self.round.due());
            tokio::select! {
                () = stop.cancelled() => return,
                key = signals.recv() => match key {
                    Some(key) => self.wake(key),
                    None => return,
                },
                Some(done) = self.runs.join_next_with_id() => self.finished(done),
                _ = resync.tick() => self.begin_round().await,
                () = sleep_until(round) => self.go_round(),
                () = sleep_until(next_due) => self.wake_due(),
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        let due = |entry: &Entry| entry.due.is_some_and(|at| at <= now);
        let keys: Vec<_> = self.entries.iter().filter(|(_, e)| due(e)).map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.wake(key));
    }

    /// Every key there is; those that are gone are forgotten.
    async fn keys(&mut self) -> Vec<R::Key> {
        match self.reconciler.keys().await {
            Ok(keys) => {
                self.entries.retain(|key, entry| entry.running || keys.contains(key));
                keys
            }
            Err(error) => {
                warn!("listing what to reconcile failed: {}", crate::log::chain(&error));
                Vec::new()
            }
        }
    }

    async fn wake_all(&mut self) {
        self.keys().await.into_iter().for_each(|key| self.wake(key));
    }

    async fn begin_round(&mut self) {
        if self.round.left.is_empty() {
            self.round.left = self.keys().await.into();
        }
    }

    fn go_round(&mut self) {
        self.round.next = Instant::now() + PATIENCE;
        self.round.at = self.round.left.pop_front();
        if let Some(key) = self.round.at.clone() {
            self.wake(key.clone());
            if !self.entries.get(&key).is_some_and(|entry| entry.running) {
                // It was looked at a moment ago.
                self.round.next = Instant::now();
            }
        }
    }

    fn wake(&mut self, key: R::Key) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.running {
            entry.dirty = true;
            return;
        }
        if let Some(rested) = entry.rests_until.filter(|until| *until > Instant::now()) {
            entry.due = Some(rested);
            return;
        }
        (entry.running, entry.due) = (true, None);
        let reconciler = Arc::clone(&self.reconciler);
        let run_key = key.clone();
        let handle = self.runs.spawn(async move { reconciler.reconcile(&run_key).await });
        self.at_work.insert(handle.id(), (key, Instant::now()));
    }

    fn finished(&mut self, done: Result<(Id, Result<Outcome, R::Error>), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((key, since)) = self.at_work.remove(&id) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.running = false;
        let took = since.elapsed();
        let rested = Instant::now() + REST_LAST.min(took * REST);
        entry.rests_until = Some(rested);
        if self.round.at.as_ref() == Some(&key) {
            (self.round.at, self.round.next) = (None, rested);
        }
        let result = settle(entry, &key, done.map(|(_, outcome)| outcome));
        self.metrics.reconcile(self.domain, result, took);
        if std::mem::take(&mut entry.dirty) {
            self.wake(key);
        }
    }
}

/// Books a run's result and says when the key is due again.
fn settle<K: Display, E: Error + 'static>(
    entry: &mut Entry,
    key: &K,
    done: Result<Result<Outcome, E>, JoinError>,
) -> ReconcileResult {
    match done {
        Ok(Ok(outcome)) => {
            entry.failures = 0;
            entry.due = outcome.map(|wait| Instant::now() + wait);
            if outcome.is_some() { ReconcileResult::Waiting } else { ReconcileResult::Done }
        }
        Ok(Err(error)) => {
            warn!(%key, "reconciling {key} failed: {}", crate::log::chain(&error));
            retry(entry);
            ReconcileResult::Failed
        }
        Err(panic) => {
            error!(%key, "reconciling {key} panicked: {}", crate::log::chain(&panic));
            retry(entry);
            ReconcileResult::Failed
        }
    }
}

fn retry(entry: &mut Entry) {
    entry.due = Some(Instant::now() + backoff(entry.failures));
    entry.failures = entry.failures.saturating_add(1);
}

/// 1 s, 2 s, 4 s, ... 5 min.
pub fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(BACKOFF_LAST)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    /// Panics at `poison`, fails at `bad` once, counts the rest.
    struct Scripted {
        seen: Mutex<Vec<String>>,
        told: mpsc::UnboundedSender<String>,
    }

    impl Reconciler for Scripted {
        type Key = String;
        type Error = Refused;
        fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, Refused>> {
            Box::pin(async { Ok(vec!["poison".into(), "bad".into(), "good".into()]) })
        }
        fn reconcile<'a>(&'a self, key: &'a String) -> BoxFuture<'a, Result<Outcome, Refused>> {
            Box::pin(async move {
                let times = {
                    let mut seen = self.seen.lock().unwrap();
                    seen.push(key.clone());
                    seen.iter().filter(|k| *k == key).count()
                };
                self.told.send(key.clone()).unwrap();
                assert_ne!(key, "poison");
                if key == "bad" && times < 2 {
                    return Err(Refused);
                }
                Ok(None)
            })
        }
    }

    #[tokio::test]
    async fn a_failing_key_is_tried_again_and_a_panicking_one_delays_nobody() {
        let (told, mut heard) = mpsc::unbounded_channel();
        let reconciler = Arc::new(Scripted { seen: Mutex::default(), told });
        let (_signals, receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let driver = Driver::new("test", reconciler.clone(), Duration::from_secs(3600), Metrics::new());
        let run = tokio::spawn(driver.run(receiver, stop.clone()));
        let mut bad = 0;
        let mut good = 0;
        while bad < 2 || good < 1 {
            match heard.recv().await.unwrap().as_str() {
                "bad" => bad += 1,
                "good" => good += 1,
                _ => {}
            }
        }
        stop.cancel();
        run.await.unwrap();
        assert_eq!(good, 1, "a good key is not run again for a bad one's sake");
    }

    #[tokio::test]
    async fn a_key_that_was_just_looked_at_is_looked_at_again_after_its_rest() {
        let (told, _heard) = mpsc::unbounded_channel();
        let reconciler = Arc::new(Scripted { seen: Mutex::default(), told });
        let mut driver = Driver::new("test", reconciler, Duration::from_secs(3600), Metrics::new());
        let rested = Instant::now() + Duration::from_secs(3600);
        driver.entries.insert("good".into(), Entry { rests_until: Some(rested), ..Entry::default() });
        driver.wake("good".into());
        assert_eq!((driver.entries["good"].running, driver.entries["good"].due), (false, Some(rested)));

        let entry = driver.entries.get_mut("good").unwrap();
        (entry.rests_until, entry.due) = (Some(Instant::now()), Some(Instant::now()));
        driver.wake_due();
        assert_eq!((driver.entries["good"].running, driver.entries["good"].due), (true, None));
    }

    /// Looks that end at once, but for those at `hangs`.
    struct Quick;

    impl Reconciler for Quick {
        type Key = String;
        type Error = Refused;
        fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, Refused>> {
            Box::pin(async { Ok(["a", "hangs", "b"].map(String::from).to_vec()) })
        }
        fn reconcile<'a>(&'a self, key: &'a String) -> BoxFuture<'a, Result<Outcome, Refused>> {
            match key.as_str() {
                "hangs" => Box::pin(std::future::pending()),
                _ => Box::pin(async { Ok(None) }),
            }
        }
    }

    fn at_work(driver: &Driver<Quick>) -> Vec<&str> {
        let mut keys: Vec<&str> = driver.at_work.values().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys
    }

    #[tokio::test]
    async fn all_are_looked_at_together_at_the_start_and_in_a_round_one_after_another_even_if_a_look_hangs() {
        let mut driver = Driver::new("test", Arc::new(Quick), Duration::from_secs(3600), Metrics::new());
        driver.wake_all().await;
        assert_eq!(at_work(&driver), ["a", "b", "hangs"]);

        let mut driver = Driver::new("test", Arc::new(Quick), Duration::from_secs(3600), Metrics::new());
        assert_eq!(driver.round.due(), None);
        driver.begin_round().await;
        driver.go_round();
        assert_eq!(at_work(&driver), ["a"]);
        assert!(driver.round.due().unwrap() > Instant::now(), "the next one waits for it");
        let done = driver.runs.join_next_with_id().await.unwrap();
        driver.finished(done);
        assert!(driver.round.due().unwrap() <= Instant::now() + REST_LAST, "but not longer than it rests");

        driver.go_round();
        driver.go_round();
        assert_eq!(at_work(&driver), ["b", "hangs"]);
        assert_eq!(driver.round.due(), None, "the round is over");
    }

    #[test]
    fn waiting_doubles_up_to_five_minutes() {
        let seconds: Vec<u64> = [0, 1, 2, 8, 9, 40].map(|n| backoff(n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
    }
}
