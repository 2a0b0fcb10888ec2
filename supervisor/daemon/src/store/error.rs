//! What can go wrong: the request ([`Refusal`]) or the store ([`Fault`]).

use std::path::PathBuf;
use std::sync::Arc;

use berth_model::field::FieldError;
use berth_model::quota::Excess;

/// Either kind of failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request cannot be met; the next one may be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is broken or closed.
    #[error(transparent)]
    Broken(#[from] Fault),
}

/// Why a request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// Plural with group, e.g. `bundles.berth.dev`.
        kind: String,
        /// Empty for kinds without.
        namespace: String,
        /// Name.
        name: String,
    },
    /// There is one already.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// Plural with group.
        kind: String,
        /// Empty for kinds without.
        namespace: String,
        /// Name.
        name: String,
    },
    /// It is not what the writer takes it for.
    #[error("{kind} \"{name}\" has changed ({why}); read it again and repeat the change")]
    Conflict {
        /// Plural with group.
        kind: String,
        /// Empty for kinds without.
        namespace: String,
        /// Name.
        name: String,
        /// What is different.
        why: String,
    },
    /// The namespace is not there.
    #[error("namespace \"{0}\" not found; create it first")]
    NoNamespace(String),
    /// The namespace is being deleted.
    #[error("namespace \"{0}\" is being deleted; wait until it is gone, or use another one")]
    NamespaceTerminating(String),
    /// The bundles of the namespace would use more than they may together.
    #[error(
        "bundles.berth.dev \"{name}\" is forbidden: exceeded quota: {namespace}, requested: {}, used: {}, limited: {}; \
         ask for less, remove what is not needed, or raise spec.quota of namespace {namespace}",
        amounts(excess, |one| &one.requested), amounts(excess, |one| &one.used), amounts(excess, |one| &one.limited)
    )]
    QuotaExceeded {
        /// The bundle.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Of what too much.
        excess: Vec<Excess>,
    },
    /// This object cannot be deleted.
    #[error("{kind} \"{name}\" cannot be deleted; {instead}")]
    Protected {
        /// Singular.
        kind: &'static str,
        /// Name.
        name: String,
        /// What to do.
        instead: &'static str,
    },
    /// A rule of the store is broken.
    #[error("{kind} \"{name}\" is invalid: {error}")]
    Invalid {
        /// Plural with group.
        kind: String,
        /// Name.
        name: String,
        /// Which field, and what to do.
        error: FieldError,
    },
    /// These changes are forgotten.
    #[error("version {asked} is too old, changes are kept from {oldest} on; list again")]
    Gone {
        /// The version asked for.
        asked: u64,
        /// The oldest that can be asked for.
        oldest: u64,
    },
    /// This version has not been yet.
    #[error("version {asked} is too large, the newest is {newest}; list again")]
    Ahead {
        /// The version asked for.
        asked: u64,
        /// The newest there is.
        newest: u64,
    },
}

/// `memory=1Gi,pids=512`, as Kubernetes tells it.
fn amounts(excess: &[Excess], of: impl Fn(&Excess) -> &String) -> String {
    excess.iter().map(|one| format!("{}={}", one.measure, of(one))).collect::<Vec<_>>().join(",")
}

/// What is wrong with the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be opened or made.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The file belongs to another program.
    #[error("{} is not a store of Berth; move it away", .0.display())]
    Foreign(PathBuf),
    /// A newer Berth has written it.
    #[error(
        "{} has schema {found}, this berthd knows {known} at most; install the berthd that wrote \
         it or a newer one, or restore the store from before the upgrade", path.display()
    )]
    NewerSchema {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest this build knows.
        known: i64,
    },
    /// The store cannot be copied before its schema changes, or put back after it.
    #[error("cannot keep the way back from a new schema at {}", path.display())]
    Copy {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the store to schema {to}")]
    Migrate {
        /// The step that failed.
        to: i64,
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A statement failed.
    #[error("cannot {doing}")]
    Sql {
        /// What the statement was for.
        doing: &'static str,
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// An object in the store cannot be read as what it should be.
    #[error("object {what} in the store cannot be decoded")]
    Decode {
        /// Kind, namespace and name.
        what: String,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// An object to be stored cannot be written as JSON.
    #[error("a {kind} cannot be encoded")]
    Encode {
        /// Its kind.
        kind: &'static str,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// The store holds a kind this build does not know.
    #[error("the store holds objects of the unknown kind `{0}`; install the berthd that wrote them")]
    UnknownKind(String),
    /// The writer's thread cannot be started.
    #[error("cannot start the store's writer")]
    Spawn(#[source] Arc<std::io::Error>),
    /// A closure panicked; what it did is undone.
    #[error("a transaction panicked and was undone")]
    Panicked,
    /// Another closure of the same transaction took the transaction down.
    #[error("the transaction was given up by the database; repeat the request")]
    Lost,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Fault {
    /// The disk is full: what was asked for has not been done, and can be once there is room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Sql { source, .. } = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// Names what a statement was for.
    pub(super) fn sql(doing: &'static str) -> impl Fn(rusqlite::Error) -> Fault {
        move |source| Fault::Sql { doing, source: Arc::new(source) }
    }

    /// The same, as it is returned from a transaction.
    pub(super) fn of(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
        move |source| StoreError::Broken(Fault::Sql { doing, source: Arc::new(source) })
    }
}
