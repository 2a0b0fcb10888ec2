//! What bundles take from ConfigMaps and Secrets, for real: the objects from the store; Secrets are
//! opened on the way to a container, and only then.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_model::kinds::{BUNDLE, CONFIG_MAP, Registration, SECRET};
use berth_model::meta;
use berth_model::projection::{Held, Source, SourceKind, resolve, wanted};
use berth_model::provided::Provided;
use berth_model::reference::offers;
use berth_model::resource::bundle::{BundleSpec, EnvVar};
use futures_util::future::BoxFuture;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use crate::bundle::references::of_namespace;
use crate::bundle::seams::{Cause, Provider, Survey, Unprovided};
use crate::secret::{Sealer, redact_object};
use crate::store::{Store, StoreError};

/// The store and its keys.
pub(super) struct Objects {
    store: Store,
    sealer: Sealer,
}

/// Variables of the namespace, and objects.
type Stored = (Vec<EnvVar>, Vec<(Source, Value)>);

/// An object is not of the shape in which it was taken in.
#[derive(Debug, thiserror::Error)]
#[error("{0} {1} cannot be read")]
struct Malformed(SourceKind, String);

impl Objects {
    pub(super) fn new(store: Store, sealer: Sealer) -> Self {
        Self { store, sealer }
    }

    /// What comes from the namespace, and all objects that are named and are there, as they are stored.
    async fn stored(&self, namespace: &str, spec: &BundleSpec) -> Result<Stored, StoreError> {
        let (namespace, spec) = (namespace.to_owned(), spec.clone());
        let read = self.store.read(move |tx| {
            let inherited = of_namespace(tx, &namespace, &spec)?;
            let mut found = Vec::new();
            for source in wanted(&spec, &inherited) {
                let found_one = tx.get_value(kind_of(source.0), &namespace, &source.1)?;
                if let Some(object) = found_one.filter(|object| !is_leaving(source.0, object)) {
                    found.push((source, object));
                }
            }
            Ok((inherited, found))
        });
        read.await
    }

    async fn look(&self, namespace: &str, spec: &BundleSpec) -> Result<Survey, Cause> {
        let mut held = Held::new();
        let (inherited, stored) = self.stored(namespace, spec).await?;
        for (source, object) in stored {
            let shown = match source.0 {
                SourceKind::ConfigMap | SourceKind::Bundle => object,
                SourceKind::Secret => redact_object(SECRET.sealed, object),
            };
            let values = values(&source, &shown)?;
            held.insert(source, values);
        }
        Ok(match resolve(spec, &inherited, &held) {
            Ok(provided) if provided.is_empty() => Ok(String::new()),
            Ok(provided) => Ok(fingerprint(&serde_json::to_vec(&provided)?)),
            Err(missing) => Err(missing),
        })
    }

    async fn fetch(&self, namespace: &str, spec: &BundleSpec) -> Result<Provided, Unprovided> {
        let (inherited, stored) = self.stored(namespace, spec).await.map_err(failed)?;
        let mut held = Held::new();
        for (source, object) in stored {
            let open = match source.0 {
                SourceKind::ConfigMap | SourceKind::Bundle => object,
                SourceKind::Secret => self.sealer.reveal_object(SECRET.sealed, &object).map_err(failed)?,
            };
            let values = values(&source, &open).map_err(failed)?;
            held.insert(source, values);
        }
        resolve(spec, &inherited, &held).map_err(Unprovided::Missing)
    }
}

fn values(source: &Source, object: &Value) -> Result<BTreeMap<String, Vec<u8>>, Malformed> {
    let (kind, name) = source;
    if *kind == SourceKind::Bundle {
        let spec = BundleSpec::deserialize(&object["spec"]);
        return spec.map(|spec| offers(name, &spec)).map_err(|_| Malformed(*kind, name.clone()));
    }
    let mut values = BTreeMap::new();
    for (map, encoded) in [("data", *kind == SourceKind::Secret), ("binaryData", true)] {
        for (key, value) in object.get(map).and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let bytes = if encoded { STANDARD.decode(text).ok() } else { Some(text.as_bytes().to_vec()) };
            values.insert(key.clone(), bytes.ok_or_else(|| Malformed(*kind, name.clone()))?);
        }
    }
    Ok(values)
}

fn kind_of(kind: SourceKind) -> &'static Registration {
    match kind {
        SourceKind::ConfigMap => &CONFIG_MAP,
        SourceKind::Secret => &SECRET,
        SourceKind::Bundle => &BUNDLE,
    }
}

/// A bundle that is being removed leads nowhere any more. Values of the others last until they are gone.
fn is_leaving(kind: SourceKind, object: &Value) -> bool {
    kind == SourceKind::Bundle && meta::is_deleting(object)
}

/// Of Secrets it is made from keyed digests, so that no guess can be checked against it.
fn fingerprint(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn failed(cause: impl Into<Cause>) -> Unprovided {
    Unprovided::Failed(cause.into())
}

impl Provider for Objects {
    fn survey<'a>(&'a self, namespace: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Survey, Cause>> {
        Box::pin(self.look(namespace, spec))
    }

    fn provide<'a>(&'a self, namespace: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Provided, Unprovided>> {
        Box::pin(self.fetch(namespace, spec))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_model::resource::Namespace;
    use berth_model::resource::operation::Actor;
    use ring::rand::SystemRandom;
    use serde_json::json;

    use super::*;
    use crate::secret::MasterKey;

    struct World {
        objects: Objects,
        dir: tempfile::TempDir,
    }

    #[allow(clippy::disallowed_methods, reason = "the clock of a test")]
    fn clock() -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("berth.db"), Arc::new(clock)).unwrap();
            let sealer = Sealer::open(dir.path(), MasterKey::from_bytes(&[7; 32]), Arc::new(SystemRandom::new()));
            Self { objects: Objects::new(store, sealer), dir }
        }

        /// Keeps an object as the API does: sealed where its kind says so.
        async fn put(&self, kind: SourceKind, values: Value, label: &str) {
            let kind = kind_of(kind);
            let body =
                json!({"metadata": {"namespace": "default", "name": "it", "labels": {"l": label}}, "data": values});
            let sealer = self.objects.sealer.clone();
            let actor = Actor { identity: "test".into(), source: "api".into() };
            let write = self.objects.store.write(&actor, move |tx| match tx.get_value(kind, "default", "it")? {
                Some(stored) => {
                    let mut body = body;
                    body["metadata"]["uid"] = stored["metadata"]["uid"].clone();
                    sealer.seal_object(kind.sealed, &mut body, Some(&stored)).unwrap();
                    tx.update_value(kind, body).map(drop)
                }
                None => {
                    let seal = |object: &mut Value| {
                        sealer.seal_object(kind.sealed, object, None).unwrap();
                        Ok::<_, StoreError>(())
                    };
                    tx.create_finished(kind, body, seal).map(drop)
                }
            });
            write.await.unwrap();
        }

        async fn survey(&self) -> Survey {
            self.objects.survey("default", &spec()).await.unwrap()
        }
    }

    fn spec() -> BundleSpec {
        let spec = json!({"image": "r/web", "envFrom": [{"configMapRef": {"name": "it"}}], "env": [
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "it", "key": "password"}}}]});
        serde_json::from_value(spec).unwrap()
    }

    fn password(text: &str) -> Value {
        json!({ "password": STANDARD.encode(text) })
    }

    #[tokio::test]
    async fn values_are_opened_for_the_container_and_a_change_is_seen_without_them() {
        let world = World::new();
        assert_eq!(world.survey().await.unwrap_err().len(), 2);
        world.put(SourceKind::ConfigMap, json!({"MODE": "fast"}), "a").await;
        world.put(SourceKind::Secret, password("one"), "a").await;
        let provided = world.objects.provide("default", &spec()).await.unwrap();
        let pairs: Vec<String> = provided.env.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
        assert_eq!(pairs, ["MODE=fast", "PASSWORD=one"]);

        let first = world.survey().await.unwrap();
        world.put(SourceKind::Secret, password("one"), "another label").await;
        assert_eq!(world.survey().await.unwrap(), first);
        world.put(SourceKind::Secret, password("two"), "a").await;
        let second = world.survey().await.unwrap();
        assert!(second != first && second.len() == 32, "{second}");
        world.put(SourceKind::ConfigMap, json!({"MODE": "slow"}), "a").await;
        assert_ne!(world.survey().await.unwrap(), second);
    }

    #[tokio::test]
    async fn what_the_namespace_says_is_given_too_and_a_change_of_it_is_seen() {
        let world = World::new();
        let plain: BundleSpec =
            serde_json::from_value(json!({"image": "r/web", "env": [{"name": "MODE", "value": "own"}]})).unwrap();
        let survey = async || world.objects.survey("default", &plain).await.unwrap();
        assert_eq!(survey().await, Ok(String::new()));
        let say = async |env: Value| {
            let write = world.objects.store.write(&Actor::default(), move |tx| {
                let mut namespace = tx.get::<Namespace>("", "default")?.unwrap();
                namespace.spec.env = serde_json::from_value(env).unwrap();
                tx.update(&namespace).map(drop)
            });
            write.await.unwrap();
        };
        say(json!([{"name": "MODE", "value": "theirs"}])).await;
        assert_eq!(survey().await, Ok(String::new()), "nothing would be another");
        say(json!([{"name": "TZ", "value": "UTC"}, {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "it", "key": "password"}}}])).await;
        assert_eq!(survey().await.unwrap_err()[0].to_string(), "Secret it is not there");
        world.put(SourceKind::Secret, password("one"), "a").await;
        let first = survey().await.unwrap();
        let provided = world.objects.provide("default", &plain).await.unwrap();
        let pairs: Vec<String> = provided.env.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
        assert_eq!(pairs, ["TZ=UTC", "KEY=one", "MODE=own"]);
        say(json!([{"name": "TZ", "value": "CET"}])).await;
        assert_ne!(survey().await.unwrap(), first);
    }

    #[tokio::test]
    async fn with_locked_secrets_a_change_is_still_seen_and_nothing_is_provided() {
        let world = World::new();
        world.put(SourceKind::ConfigMap, json!({"MODE": "fast"}), "a").await;
        world.put(SourceKind::Secret, password("one"), "a").await;
        let present = world.survey().await.unwrap();
        let wrong = MasterKey::from_bytes(&[8; 32]);
        let locked = Sealer::open(world.dir.path(), wrong, Arc::new(SystemRandom::new()));
        let objects = Objects::new(world.objects.store.clone(), locked);
        assert_eq!(objects.survey("default", &spec()).await.unwrap().unwrap(), present);
        let error = objects.provide("default", &spec()).await.unwrap_err();
        assert!(matches!(&error, Unprovided::Failed(cause) if cause.to_string() == "secrets are locked"), "{error}");
    }

    #[tokio::test]
    async fn a_reference_leads_to_what_another_bundle_declares_until_that_is_removed() {
        let world = World::new();
        let actor = Actor { identity: "test".into(), source: "api".into() };
        let ports = json!([{"name": "sql", "containerPort": 5432}]);
        let db = json!({"metadata": {"namespace": "default", "name": "db"}, "spec": {"image": "r/db", "ports": ports}});
        world.objects.store.write(&actor, move |tx| tx.create_value(&BUNDLE, db)).await.unwrap();
        let env = json!([{"name": "URL", "value": "${{db.HOST}}:${{db.PORT}}"}]);
        let spec: BundleSpec = serde_json::from_value(json!({"image": "r/web", "env": env})).unwrap();
        let provided = world.objects.provide("default", &spec).await.unwrap();
        assert_eq!(provided.env[0].value, "db:5432");
        assert_eq!(world.objects.survey("default", &spec).await.unwrap().unwrap().len(), 32);
        let how = crate::store::Deletion::default();
        world.objects.store.write(&actor, move |tx| tx.delete_value(&BUNDLE, "default", "db", &how)).await.unwrap();
        let missing = world.objects.survey("default", &spec).await.unwrap().unwrap_err();
        assert_eq!(missing[0].to_string(), "Bundle db is not there");
    }

    #[tokio::test]
    async fn a_bundle_that_asks_for_nothing_is_not_looked_up() {
        let plain: BundleSpec = serde_json::from_value(json!({"image": "r/web"})).unwrap();
        assert_eq!(World::new().objects.survey("default", &plain).await.unwrap().unwrap(), "");
    }
}
