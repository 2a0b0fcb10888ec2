//! A few read-only connections, each used by one reader at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::{Fault, StoreError};
use super::read::ReadTx;
use super::schema;

/// Readers at a time.
const READERS: u32 = 4;

#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        let permits = Arc::new(Semaphore::new(READERS as usize));
        Self { path: Arc::new(path.into()), permits, idle: Arc::default() }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Fault::Closed)?;
        let readers = self.clone();
        let work = move || {
            let connection = readers.take()?;
            let result = snapshot(&connection, f);
            readers.put(connection);
            drop(permit);
            result
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Fault::Panicked.into()))
    }

    /// Waits for the readers there are, refuses new ones, and closes the connections.
    pub(super) async fn close(&self) {
        // Fails only if it is closed already.
        if let Ok(all) = self.permits.acquire_many(READERS).await {
            self.permits.close();
            drop(all);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Result<Connection, Fault> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn put(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

fn snapshot<T>(connection: &Connection, f: impl FnOnce(&ReadTx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let transaction = connection.unchecked_transaction().map_err(Fault::of("begin a snapshot"))?;
    let result = f(&ReadTx::new(&transaction));
    transaction.finish().map_err(Fault::of("end a snapshot"))?;
    result
}
