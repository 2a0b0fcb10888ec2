//! The store: every object, every change of one, in one SQLite file.
//!
//! **Writing.** One thread owns the writing connection. A write is a closure that is sent to it and
//! gets a [`Tx`]; what the closure did is kept whole or not at all. Closures that are waiting
//! together share one transaction, each behind a savepoint of its own, so that one `fsync` serves
//! them all; nobody is answered before that transaction is on the disk.
//!
//! **Versions.** Each changed object takes the next number of one counter that is kept in the
//! database and never falls, whatever is deleted. Object, number and entry in the change log are
//! one transaction. A write that changes nothing takes no number and leaves no entry.
//!
//! **Reading.** A read is a closure on one of a few read-only connections, on a thread that may
//! block, and sees one snapshot. [`Store::revision`] tells of new versions, [`Store::changes`]
//! what they were (the newest from memory, as they were written: [`recent`]); versions before the last [`Store::compact`] are answered with
//! [`Refusal::Gone`].
//!
//! **Removing.** An object with finalizers is marked and stays until the last is taken off.
//! Removing an object takes along, in the same transaction, what it alone owns ([`collect`]).
//! A namespace goes when its content has gone.
//!
//! The store knows no keys: what must not be readable is sealed before it comes here.

mod audit;
mod changes;
mod collect;
mod copies;
mod credentials;
mod device_logins;
mod error;
mod event;
mod keys;
mod ownership;
mod quota;
mod read;
mod readers;
mod recent;
mod schema;
mod shape;
mod steady;
mod tx;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_model::resource::operation::Actor;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::watch;

pub use audit::{Checkpoint, Link, hex};
pub use berth_model::kinds::DEFAULT_NAMESPACE;
pub use changes::Change;
pub use collect::{Deletion, Expired, Propagation};
pub use credentials::{Credential, Purpose, Verifier};
pub use device_logins::{DEVICE_LOGIN_LIFE, DeviceDecision, DeviceHashes, DeviceLogin};
pub use error::{Fault, Refusal, StoreError};
pub use event::EventType;
pub use read::{Page, PageRequest, ReadTx};
pub use tx::{Tx, Written};

use readers::Readers;
use recent::Recent;
use steady::Steady;
use writer::Writer;

/// Where transactions get their time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    recent: Recent,
    newest: watch::Receiver<u64>,
    steady: Arc<Steady>,
}

impl Store {
    /// Opens the database at `path`, makes it if there is none, brings its schema up to date, and
    /// starts the writer. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Fault::NewerSchema`] if a newer Berth has written it; [`Fault::Open`] and
    /// [`Fault::Migrate`] if it cannot be read or written.
    pub fn open(path: &Path, clock: Clock) -> Result<Store, StoreError> {
        Self::start(path, clock, |_| Ok(()))
    }

    /// Removes, an hour from now, what is kept of the database at `path` from before its last change of schema: whoever
    /// has been up for so long is not left again within a trial.
    pub async fn forget_copies(path: PathBuf) {
        copies::forget_after(copies::KEPT, path).await;
    }

    /// [`Store::open`], with a hand on the writing connection before it is used.
    fn start(
        path: &Path,
        clock: Clock,
        prepare: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
    ) -> Result<Store, StoreError> {
        let mut connection = schema::open_writer(path)?;
        prepare(&mut connection).map_err(Fault::sql("prepare the writing connection"))?;
        schema::bring_up(&mut connection, path, clock())?;
        let recent = Recent::new(read::version(&connection)?);
        let steady = Arc::new(Steady::open(&connection, clock.clone())?);
        let (writer, newest) = Writer::start(connection, clock, steady.clone(), recent.clone())?;
        Ok(Store { writer, readers: Readers::new(path), recent, newest, steady })
    }

    /// Runs `f` on one snapshot.
    ///
    /// # Errors
    /// What `f` answers; [`Fault`] if the database cannot be read.
    pub fn read<T, F>(&self, f: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = self.readers.clone();
        async move { readers.read(f).await }
    }

    /// Runs `f` on behalf of `actor`; all it did is on the disk when this returns `Ok`, and
    /// nothing of it was done when it returns `Err` (an error is thus also the way to a dry run).
    /// If the caller stops waiting, the write still happens.
    ///
    /// # Errors
    /// What `f` answers; [`Fault`] if the database cannot be written, or the store is closed.
    pub fn write<T, E, F>(&self, actor: &Actor, f: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (writer, actor) = (self.writer.clone(), actor.clone());
        async move { writer.write(actor, f).await }
    }

    /// The newest version; changes after every commit that changed an object.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.newest.clone()
    }

    /// At most `limit` changes after version `since`, oldest first.
    ///
    /// # Errors
    /// [`Refusal::Gone`] if some of them are forgotten; [`Refusal::Ahead`] if `since` is yet to come.
    pub async fn changes(&self, since: u64, limit: usize) -> Result<Vec<Arc<Change>>, StoreError> {
        if let Some(recent) = self.recent.after(since, limit) {
            return Ok(recent);
        }
        let older = self.read(move |tx| tx.changes(since, limit)).await?;
        Ok(older.into_iter().map(Arc::new).collect())
    }

    /// Forgets the changes up to and including version `keep_since`; objects stay.
    ///
    /// # Errors
    /// [`Fault`] if the database cannot be written.
    pub async fn compact(&self, keep_since: u64) -> Result<(), StoreError> {
        self.write(&house_keeping(), move |tx| tx.compact(keep_since)).await
    }

    /// The time by which credentials end: the machine's, which here goes on when it is set back.
    pub fn steady_now(&self) -> Timestamp {
        self.steady.now()
    }

    /// Writes that wait for the writer.
    pub fn queue_depth(&self) -> usize {
        self.writer.queue_depth()
    }

    /// Finishes the writes that wait, then closes the database. Later calls, by any clone, are
    /// answered with [`Fault::Closed`].
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Who changes objects when nobody asked for it.
pub fn house_keeping() -> Actor {
    Actor { identity: "berthd".into(), source: "schedule".into() }
}
