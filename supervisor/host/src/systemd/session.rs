//! One connection to the system bus after the other, and what arrives on it.
//!
//! ```text
//!            open(): connect, Subscribe, AddMatch        bus goes away
//! (start) --------------------------------------> serving ------------> (wait, open again)
//!                                                  |    \
//!                        JobRemoved -> whoever waits     UnitNew, UnitRemoved,
//!                        for a job                       PropertiesChanged -> followers
//! ```
//!
//! One task, the keeper, owns the connection and drains every signal at once into places that
//! cannot fill up: an unread stream would stall the whole connection. A follower holds the set of
//! units that changed since it last looked, so a burst of signals costs one look.
//!
//! Any local user may send us a signal; only those of systemd's own connection are believed.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc, watch};
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, connection};

use super::escape::unit_of_path;
use super::{DESTINATION, MANAGER, PATH, SystemdError};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// What the bus is asked to send.
const RULES: [&str; 3] = [
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',\
     path_namespace='/org/freedesktop/systemd1/unit'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];
/// How long systemd may take to answer a call; jobs have no limit.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Signals that may wait while the first call of a connection is answered.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Something about the units that a follower follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection is new: anything may have changed, and every reference that was held through
    /// the one before is gone. List, and reference again.
    Everything,
    /// This unit appeared, changed or disappeared. Read its state.
    Unit(String),
}

/// How a job ended.
pub(super) struct JobEnd {
    pub(super) job: OwnedObjectPath,
    pub(super) result: String,
}

#[derive(Debug, Default)]
struct Pending {
    everything: bool,
    units: BTreeSet<String>,
}

impl Pending {
    fn take(&mut self) -> Option<Change> {
        if std::mem::take(&mut self.everything) {
            self.units.clear();
            return Some(Change::Everything);
        }
        self.units.pop_first().map(Change::Unit)
    }
}

#[derive(Debug)]
struct Follower {
    prefix: String,
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Follower {
    fn unit(&self, unit: &str) {
        if unit.starts_with(&self.prefix) {
            lock(&self.pending).units.insert(unit.to_owned());
            self.wake.notify_one();
        }
    }

    fn everything(&self) {
        lock(&self.pending).everything = true;
        self.wake.notify_one();
    }
}

/// The changes of all units whose names begin alike. The first is [`Change::Everything`].
#[derive(Debug)]
pub struct Changes {
    follower: Arc<Follower>,
}

impl Changes {
    /// The next change; changes of one unit between two calls are one. Waits while the bus is
    /// away. May be dropped halfway without losing anything.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = lock(&self.follower.pending).take() {
                return change;
            }
            self.follower.wake.notified().await;
        }
    }
}

/// What the keeper and the callers share.
#[derive(Debug)]
pub(super) struct Shared {
    connection: watch::Sender<Option<Connection>>,
    jobs: Mutex<Vec<mpsc::UnboundedSender<JobEnd>>>,
    followers: Mutex<Vec<Weak<Follower>>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared { connection: watch::Sender::new(None), jobs: Mutex::default(), followers: Mutex::default() })
    }

    /// Returns once a connection is drained and may be used.
    pub(super) async fn served(&self) -> Result<(), SystemdError> {
        let mut connection = self.connection.subscribe();
        match connection.wait_for(Option::is_some).await {
            Ok(_connection) => Ok(()),
            Err(_closed) => Err(SystemdError::Disconnected),
        }
    }

    pub(super) fn connection(&self) -> Result<Connection, SystemdError> {
        self.connection.borrow().clone().ok_or(SystemdError::Disconnected)
    }

    /// The ends of all jobs from now on; closed when the connection is lost.
    pub(super) fn job_ends(&self) -> mpsc::UnboundedReceiver<JobEnd> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.jobs).push(sender);
        receiver
    }

    pub(super) fn follow(&self, prefix: &str) -> Changes {
        let follower = Arc::new(Follower { prefix: prefix.to_owned(), pending: Mutex::default(), wake: Notify::new() });
        follower.everything();
        lock(&self.followers).push(Arc::downgrade(&follower));
        Changes { follower }
    }

    fn each_follower(&self, tell: impl Fn(&Follower)) {
        lock(&self.followers).retain(|follower| match follower.upgrade() {
            Some(follower) => {
                tell(&follower);
                true
            }
            None => false,
        });
    }

    fn job_ended(&self, job: &OwnedObjectPath, result: &str) {
        lock(&self.jobs).retain(|waiting| {
            let end = JobEnd { job: job.clone(), result: result.to_owned() };
            waiting.send(end).is_ok()
        });
    }

    fn lost(&self) {
        self.connection.send_replace(None);
        lock(&self.jobs).clear();
    }

    fn manager_signal(&self, member: &str, message: &Message) -> zbus::Result<()> {
        let body = message.body();
        match member {
            "JobRemoved" => {
                let (_, job, _, result): (u32, OwnedObjectPath, &str, &str) = body.deserialize()?;
                self.job_ended(&job, result);
            }
            "UnitNew" | "UnitRemoved" => {
                let (unit, _): (&str, OwnedObjectPath) = body.deserialize()?;
                self.each_follower(|follower| follower.unit(unit));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Connects and asks for signals; nothing is drained yet.
pub(super) async fn open() -> Result<Connection, SystemdError> {
    let connection =
        connection::Builder::system().method_timeout(CALL_LIMIT).build().await.map_err(SystemdError::Connect)?;
    for rule in RULES {
        connection
            .call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule)
            .await
            .map_err(SystemdError::Connect)?;
    }
    connection
        .call_method(Some(DESTINATION), PATH, Some(MANAGER), "Subscribe", &())
        .await
        .map_err(SystemdError::Connect)?;
    Ok(connection)
}

/// Serves one connection after the other, for ever.
pub(super) async fn keep(shared: Arc<Shared>, mut connection: Connection) {
    loop {
        serve(&shared, &connection).await;
        shared.lost();
        tracing::warn!("the system bus went away, connecting again");
        connection = reopen().await;
    }
}

async fn reopen() -> Connection {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        match open().await {
            Ok(connection) => return connection,
            Err(error) => tracing::debug!(%error, "the system bus is still away"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn serve(shared: &Shared, connection: &Connection) {
    let mut messages = MessageStream::from(connection);
    messages.set_max_queued(QUEUE);
    // Asked for only now that messages are kept: no change of owner can be missed.
    let mut systemd = owner(connection).await;
    shared.connection.send_replace(Some(connection.clone()));
    shared.each_follower(Follower::everything);
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else {
            continue;
        };
        let sender = header.sender().map(|name| name.as_str());
        let path = header.path().map(|path| path.as_str()).unwrap_or_default();
        if sender == Some(BUS) && member == "NameOwnerChanged" {
            systemd = new_owner(&message);
            if systemd.is_some() {
                shared.each_follower(Follower::everything);
            }
        } else if sender.is_none() || sender != systemd.as_deref() {
            continue;
        } else if interface == MANAGER {
            if let Err(error) = shared.manager_signal(member, &message) {
                tracing::warn!(%error, %member, "systemd sent a signal of another shape");
            }
        } else if let Some(unit) = unit_of_path(path) {
            shared.each_follower(|follower| follower.unit(&unit));
        }
    }
}

async fn owner(connection: &Connection) -> Option<String> {
    let reply = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &DESTINATION).await.ok()?;
    reply.body().deserialize().ok()
}

fn new_owner(changed: &Message) -> Option<String> {
    let (_, _, new): (String, String, String) = changed.body().deserialize().ok()?;
    (!new.is_empty()).then_some(new)
}

/// Nothing that runs under these locks leaves anything half done, so a panic elsewhere is no
/// reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> (Arc<Follower>, Changes) {
        let follower = Arc::new(Follower { prefix: "x.".to_owned(), pending: Mutex::default(), wake: Notify::new() });
        let changes = Changes { follower: Arc::clone(&follower) };
        (follower, changes)
    }

    #[tokio::test]
    async fn changes_of_one_unit_are_one_and_other_units_are_none() {
        let (follower, mut changes) = follower();
        for unit in ["x.b", "y.a", "x.a", "x.b"] {
            follower.unit(unit);
        }
        assert_eq!(changes.next().await, Change::Unit("x.a".to_owned()));
        assert_eq!(changes.next().await, Change::Unit("x.b".to_owned()));
        assert!(lock(&follower.pending).take().is_none());
    }

    #[tokio::test]
    async fn everything_includes_each_single_unit_before_it() {
        let (follower, mut changes) = follower();
        follower.unit("x.a");
        follower.everything();
        assert_eq!(changes.next().await, Change::Everything);
        assert!(lock(&follower.pending).take().is_none());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let (follower, mut changes) = follower();
        let waiting = tokio::spawn(async move { changes.next().await });
        tokio::task::yield_now().await;
        follower.unit("x.a");
        assert_eq!(waiting.await.unwrap(), Change::Unit("x.a".to_owned()));
    }
}
