//! Bundles: from a wish to a running unit.
//!
//! The domain has two halves that meet in the store. The *reconciler* ([`Bundles`]) looks at one
//! bundle: it fetches a [`view::View`], lets [`decide`] say what to do and [`status`] say how it
//! fares (both pure), and writes the answer: at most one new Operation, and the status; [`health`] has the serving
//! revision looked at meanwhile. The *steps*
//! ([`steps::Steps`]) are what such an Operation is made of. Neither calls the other.
//!
//! A revision walks through these states:
//!
//! ```text
//!  Candidate -- ready, promoted --> Active -- its successor is promoted --> Retiring --> Superseded
//!      |
//!      +-- did not become ready --> Failed
//! ```

pub mod decide;
mod fetch;
mod health;
pub(crate) mod references;
pub mod seams;
pub mod status;
pub mod steps;
#[cfg(test)]
mod tests;
mod turn;
pub mod unit;
pub mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use berth_model::resource::bundle::{Bundle, BundleStatus};
use berth_model::resource::operation::{Actor, Operation, OperationKind};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc::Sender;

use crate::operation::order;
use crate::reconcile::{Outcome, Reconciler};
use crate::store::{Clock, ReadTx, Store, StoreError, Tx};
use decide::Wish;
use health::Lookouts;
use seams::{Cause, Machine, Observed, Provider, UnitState};
use view::View;

/// Which bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BundleKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A bundle could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The store.
    #[error("reading or writing the records of a bundle")]
    Store(#[from] StoreError),
    /// ConfigMaps and Secrets.
    #[error("looking at what the bundle takes from ConfigMaps and Secrets")]
    Survey(#[source] Cause),
    /// systemd or the files beside it.
    #[error("looking at unit {id}")]
    Observe {
        /// Container id.
        id: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// Brings bundles to what the store says of them.
pub struct Bundles {
    store: Store,
    machine: Arc<dyn Machine>,
    provider: Arc<dyn Provider>,
    clock: Clock,
    lookouts: Lookouts,
}

impl Bundles {
    /// The reconciler; `wake` is where it hears of bundles that are to be looked at again.
    pub fn new(
        store: Store,
        machine: Arc<dyn Machine>,
        provider: Arc<dyn Provider>,
        clock: Clock,
        wake: Sender<BundleKey>,
    ) -> Self {
        let lookouts = Lookouts::new(machine.clone(), wake);
        Self { store, machine, provider, clock, lookouts }
    }

    /// Before anybody can ask: what the records call ready and systemd does not run, as after a start of the machine, is
    /// no longer called ready. All that there is to say about it is the reconciler's, in its own time.
    ///
    /// # Errors
    /// The store, or systemd.
    pub async fn doubt(&self) -> Result<(), BundleError> {
        let mut gone = Vec::new();
        for bundle in self.store.read(|tx| tx.list::<Bundle>(None)).await? {
            if let Some(id) = status::claimed(&bundle)
                && self.observe(&id).await?.state != UnitState::Active
            {
                gone.push(bundle);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let now = (self.clock)();
        let written = self.store.write(&berthd(), move |tx| {
            for mut bundle in gone {
                status::not_running(&mut bundle, now);
                tx.write_status(&bundle)?;
            }
            Ok::<_, StoreError>(())
        });
        Ok(written.await?)
    }

    async fn observe(&self, id: &str) -> Result<Observed, BundleError> {
        self.machine.observe(id).await.map_err(|source| BundleError::Observe { id: id.to_owned(), source })
    }

    async fn look(&self, key: &BundleKey) -> Result<Outcome, BundleError> {
        let Some(mut view) = self.view(key).await? else {
            self.lookouts.attend(key, None);
            return Ok(None);
        };
        self.attend(key, &mut view);
        let wish = decide::decide(&view);
        let status = status::status(&view, &wish);
        let again = pause(&wish, view.now);
        self.apply(view, wish, status).await?;
        Ok(again)
    }

    async fn view(&self, key: &BundleKey) -> Result<Option<View>, BundleError> {
        fetch::view(&self.store, &*self.machine, &*self.provider, key, (self.clock)()).await
    }

    /// Has the serving revision looked after, and notes how its health stands.
    fn attend(&self, key: &BundleKey, view: &mut View) {
        let Some(active) = view.active().cloned() else {
            self.lookouts.attend(key, None);
            return;
        };
        if let Some(seen) = view.observed.get_mut(&active.spec.number) {
            seen.health = self.lookouts.attend(key, Some((&active, seen)));
        }
    }

    async fn apply(&self, view: View, wish: Wish, status: BundleStatus) -> Result<(), BundleError> {
        let kind = match wish {
            Wish::Now(kind) => Some(kind),
            _ => None,
        };
        if kind.is_none() && view.bundle.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let written = self.store.write(&berthd(), move |tx| write(tx, &view, kind, status)).await;
        written.map_err(BundleError::from)
    }
}

impl Reconciler for Bundles {
    type Key = BundleKey;
    type Error = BundleError;

    fn keys(&self) -> BoxFuture<'_, Result<Vec<BundleKey>, BundleError>> {
        Box::pin(async {
            let bundles = self.store.read(|tx| tx.list::<Bundle>(None)).await?;
            Ok(bundles.into_iter().map(|bundle| key_of(&bundle)).collect())
        })
    }

    fn reconcile<'a>(&'a self, key: &'a BundleKey) -> BoxFuture<'a, Result<Outcome, BundleError>> {
        Box::pin(self.look(key))
    }
}

pub(crate) fn key_of(bundle: &Bundle) -> BundleKey {
    BundleKey {
        namespace: bundle.metadata.namespace.clone().unwrap_or_default(),
        name: bundle.metadata.name.clone().unwrap_or_default(),
    }
}

fn pause(wish: &Wish, now: Timestamp) -> Option<Duration> {
    match wish {
        Wish::At(_, when) => Some(Duration::try_from(when.duration_since(now)).unwrap_or_default()),
        _ => None,
    }
}

/// Who writes here.
pub(crate) fn berthd() -> Actor {
    Actor { identity: "berthd".into(), source: "reconciler".into() }
}

/// One transaction: the status, the events that tell of its change, and the operation, unless the
/// bundle was changed or somebody else began one meanwhile. A step may have noted something in the status since it was
/// read, as how a candidate ended: that is not written over, and makes another look.
fn write(tx: &mut Tx<'_>, view: &View, kind: Option<OperationKind>, status: BundleStatus) -> Result<(), StoreError> {
    let key = key_of(&view.bundle);
    let Some(mut bundle) = tx.get::<Bundle>(&key.namespace, &key.name)? else { return Ok(()) };
    let seen = &view.bundle;
    let as_seen = bundle.metadata.uid == seen.metadata.uid && bundle.metadata.generation == seen.metadata.generation;
    if !as_seen || bundle.status != seen.status {
        return Ok(());
    }
    fetch::tell(tx, &bundle, &status)?;
    bundle.status = Some(status);
    tx.write_status(&bundle)?;
    if let Some(kind) = kind {
        fetch::begin(tx, &bundle, kind)?;
    }
    Ok(())
}

/// The operations on this very bundle, not on an earlier one of its name; the oldest first.
pub(crate) fn operations_of(tx: &ReadTx<'_>, bundle: &Bundle) -> Result<Vec<Operation>, StoreError> {
    let BundleKey { namespace, name } = key_of(bundle);
    let mut all: Vec<Operation> = tx.list_about(&namespace, &name)?;
    all.retain(|op| Some(&op.spec.target.uid) == bundle.metadata.uid.as_ref());
    all.sort_by_key(order);
    Ok(all)
}
