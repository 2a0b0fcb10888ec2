//! The store as those who call it see it.

mod changing;
mod credentials;
mod finding;
mod kill;
mod model;
mod opening;
mod property;
mod removing;
mod watching;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use berth_model::kinds::KINDS;
use berth_model::meta;
use berth_model::resource::Namespace;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tempfile::TempDir;

use super::*;

/// A store in a directory of its own, under a clock that stands still until it is set.
struct Fixture {
    directory: TempDir,
    seconds: Arc<AtomicI64>,
    store: Store,
}

/// Removes what is kept no longer, if nothing else is said; answers how many.
fn sweep(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let (now, mut over) = (tx.now(), Vec::new());
    for kind in KINDS {
        over.extend(tx.expired(kind, now)?);
    }
    let mut removed = 0;
    for one in &over {
        removed += usize::from(tx.expire(meta::uid(&one.object), now)?);
    }
    Ok(removed)
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(1_000_000));
        let store = Store::open(&directory.path().join("berth.db"), clock(&seconds)).unwrap();
        Self { directory, seconds, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("berth.db")
    }

    fn let_pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Store::open(&self.path(), clock(&self.seconds)).unwrap();
    }

    /// Runs a transaction as somebody.
    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.store.write(&somebody(), f).await
    }

    async fn create<K: Kind>(&self, object: K) -> Result<K, StoreError> {
        self.write(move |tx| tx.create(&object)).await
    }

    async fn update<K: Kind>(&self, object: K) -> Result<Written<K>, StoreError> {
        self.write(move |tx| tx.update(&object)).await
    }

    async fn delete<K: Kind>(&self, namespace: &'static str, name: &'static str) -> Result<Written<K>, StoreError> {
        self.write(move |tx| tx.delete(namespace, name, &Deletion::default())).await
    }

    async fn get<K: Kind>(&self, namespace: &'static str, name: &'static str) -> Option<K> {
        self.store.read(move |tx| tx.get(namespace, name)).await.unwrap()
    }

    /// `ADDED configmaps/a`, ... since a version.
    async fn told_since(&self, version: u64) -> Vec<String> {
        let changes = self.store.changes(version, 1000).await.unwrap();
        changes.iter().map(|change| format!("{:?} {}/{}", change.what, change.kind.plural, change.name)).collect()
    }

    fn newest(&self) -> u64 {
        *self.store.revision().borrow()
    }
}

use berth_model::kinds::Kind;

fn clock(seconds: &Arc<AtomicI64>) -> Clock {
    let seconds = Arc::clone(seconds);
    Arc::new(move || Timestamp::from_second(seconds.load(Ordering::SeqCst)).unwrap())
}

fn somebody() -> Actor {
    Actor { identity: "owner".into(), source: "cli".into() }
}

fn config(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some("default".into()), ..ObjectMeta::default() },
        data: Some([("key".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn namespace(name: &str) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

fn owned_by<K: Kind>(mut object: ConfigMap, owner: &K) -> ConfigMap {
    let reference = OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: owner.metadata().name.clone().unwrap(),
        uid: owner.metadata().uid.clone().unwrap(),
        ..OwnerReference::default()
    };
    object.metadata.owner_references.get_or_insert_default().push(reference);
    object
}

fn held(mut object: ConfigMap) -> ConfigMap {
    object.metadata.finalizers = Some(vec!["test.dev/hold".into()]);
    object
}

fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    match result {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
