//! The one thread that writes.
//!
//! It takes all closures that wait, runs each behind a savepoint inside one transaction, commits,
//! tells the newest version, and only then answers.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use berth_model::resource::operation::Actor;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{Fault, StoreError};
use super::recent::{News, Recent};
use super::steady::Steady;
use super::tx::Tx;
use super::{Clock, read};

/// Closures that may wait before callers have to.
const QUEUE: usize = 1024;
/// Closures that share one transaction at most.
const BATCH: usize = 64;

/// Tells a caller how it went, once that is known.
type Settle = Box<dyn FnOnce(Result<(), Fault>) + Send>;
/// Does the work of one closure inside the open transaction, or hears why there is none.
type Job = Box<dyn FnOnce(Result<Open<'_>, Fault>) -> Settle + Send>;

/// The open transaction.
struct Open<'a> {
    connection: &'a Connection,
    now: Timestamp,
    steady: Timestamp,
    /// What it has changed so far.
    news: &'a mut News,
}

enum Message {
    Write(Job),
    Close(oneshot::Sender<()>),
}

/// Handle to the thread.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the thread with its connection.
    pub(super) fn start(
        connection: Connection,
        clock: Clock,
        steady: Arc<Steady>,
        recent: Recent,
    ) -> Result<(Writer, watch::Receiver<u64>), StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (newest, told) = watch::channel(read::version(&connection)?);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || Thread { connection, clock, steady, recent, newest }.run(jobs))
            .map_err(|error| Fault::Spawn(Arc::new(error)))?;
        Ok((Writer { queue }, told))
    }

    pub(super) async fn write<T, E>(
        &self,
        actor: Actor,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = move |open: Result<Open<'_>, Fault>| -> Settle {
            let result = match open {
                Ok(open) => {
                    let mut tx = Tx::new(open.connection, (open.now, open.steady), actor);
                    let result = isolated(open.connection, || f(&mut tx));
                    if result.is_ok() {
                        open.news.extend(tx.into_news());
                    }
                    result
                }
                Err(fault) => Err(E::from(fault.into())),
            };
            Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(fault) => result.and(Err(E::from(fault.into()))),
                };
                // The caller may have stopped waiting.
                drop(reply.send(result));
            })
        };
        let closed = || E::from(Fault::Closed.into());
        self.queue.send(Message::Write(Box::new(job))).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means that the thread is gone already.
            drop(closed.await);
        }
    }
}

/// Runs a closure behind a savepoint: kept if it answers `Ok`, undone if `Err` or a panic.
fn isolated<T, E: From<StoreError>>(connection: &Connection, f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let run = |statement, doing| -> Result<(), E> {
        let ran = connection.prepare_cached(statement).and_then(|mut ready| ready.execute([]));
        ran.map(drop).map_err(|error| E::from(Fault::of(doing)(error)))
    };
    run("SAVEPOINT closure", "set a savepoint")?;
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => run("RELEASE closure", "release a savepoint").map(|()| value),
        failed => {
            // The database may have given up the whole transaction; the thread will see.
            if !connection.is_autocommit() {
                run("ROLLBACK TO closure", "undo a transaction")?;
                run("RELEASE closure", "release a savepoint")?;
            }
            failed.unwrap_or_else(|panic| Err(E::from(told(panic.as_ref()).into())))
        }
    }
}

fn told(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of unknown kind"), "a transaction panicked");
    Fault::Panicked
}

struct Thread {
    connection: Connection,
    clock: Clock,
    steady: Arc<Steady>,
    recent: Recent,
    newest: watch::Sender<u64>,
}

impl Thread {
    fn run(self, mut jobs: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut closing = None;
        while closing.is_none() && jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
            if let ControlFlow::Break(done) = self.batch(batch.drain(..)) {
                closing = Some(done);
            }
        }
        jobs.close();
        drop(jobs);
        if let Err((_, error)) = self.connection.close() {
            tracing::error!("the store did not close well: {error}");
        }
        if let Some(Err(())) = closing.map(|done| done.send(())) {
            tracing::debug!("nobody waits for the store to close any more");
        }
    }

    /// Runs messages until there are none, or one says that it is time to close.
    fn batch(&self, messages: impl Iterator<Item = Message>) -> ControlFlow<oneshot::Sender<()>> {
        let mut messages = messages.peekable();
        while messages.peek().is_some() {
            let mut settles = Vec::new();
            let (outcome, close) = self.transaction(&mut messages, &mut settles);
            if let Err(error) = &outcome {
                tracing::error!("a transaction of the store failed: {}", crate::log::chain(error));
            }
            for settle in settles {
                settle(outcome.clone());
            }
            if let Some(done) = close {
                return ControlFlow::Break(done);
            }
        }
        ControlFlow::Continue(())
    }

    fn transaction(
        &self,
        messages: &mut dyn Iterator<Item = Message>,
        settles: &mut Vec<Settle>,
    ) -> (Result<(), Fault>, Option<oneshot::Sender<()>>) {
        let mut begun = self.execute("BEGIN IMMEDIATE", "begin a transaction");
        let mut close = None;
        let mut news = News::default();
        for message in messages {
            match (message, &begun) {
                (Message::Close(done), _) => {
                    close = Some(done);
                    break;
                }
                (Message::Write(job), Err(fault)) => settles.push(job(Err(fault.clone()))),
                (Message::Write(job), Ok(())) => {
                    let now = (self.clock)();
                    let steady = self.steady.at(now);
                    let open = Open { connection: &self.connection, now, steady, news: &mut news };
                    settles.push(job(Ok(open)));
                    if self.connection.is_autocommit() {
                        begun = Err(Fault::Lost);
                        break;
                    }
                }
            }
        }
        (begun.and_then(|()| self.commit(news)), close)
    }

    fn commit(&self, news: News) -> Result<(), Fault> {
        let committed = self.execute("COMMIT", "commit a transaction");
        if committed.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK", "roll a failed transaction back")?;
        }
        committed?;
        let version = read::version(&self.connection).map_err(|_| Fault::Lost)?;
        self.recent.add(news, version);
        self.newest.send_if_modified(|known| std::mem::replace(known, version) != version);
        Ok(())
    }

    fn execute(&self, statement: &str, doing: &'static str) -> Result<(), Fault> {
        let ran = self.connection.prepare_cached(statement).and_then(|mut ready| ready.execute([]));
        ran.map(drop).map_err(Fault::sql(doing))
    }
}
