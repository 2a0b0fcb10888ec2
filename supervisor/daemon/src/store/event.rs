//! Events: what happened to an object, told once and counted from then on.

use berth_model::kinds::{EVENT, Kind};
use berth_model::meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::DEFAULT_NAMESPACE;
use super::error::StoreError;
use super::shape::{encode, time};
use super::tx::Tx;

/// How an event is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

impl Tx<'_> {
    /// Records that something happened to an object. The same again is counted, and lives on
    /// for the kind's whole life. If the object's namespace is gone, nobody is left to be told.
    ///
    /// `reason` is one word of a closed vocabulary, `message` one sentence.
    ///
    /// # Errors
    /// [`super::Fault`] if the database cannot be written.
    pub fn emit_event<K: Kind>(
        &mut self,
        regarding: &K,
        kind: EventType,
        reason: &str,
        message: &str,
    ) -> Result<(), StoreError> {
        let object = encode(regarding)?;
        let place = match meta::namespace(&object) {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        if self.get::<berth_model::resource::Namespace>("", place)?.is_none() {
            return Ok(());
        }
        let told = [meta::uid(&object), kind.name(), reason, message];
        let name = format!("{}.{}", meta::name(&object), fingerprint(&told));
        match self.get_value(&EVENT, place, &name)? {
            Some(event) => self.count_again(event),
            None => {
                let event = self.first(&object, kind, reason, message, place, &name);
                self.create_value(&EVENT, event).map(drop)
            }
        }
    }

    fn count_again(&mut self, mut event: Value) -> Result<(), StoreError> {
        event["count"] = (event["count"].as_i64().unwrap_or(0) + 1).into();
        event["lastTimestamp"] = time(self.now());
        self.update_value(&EVENT, event).map(drop)
    }

    fn first(
        &self,
        object: &Value,
        kind: EventType,
        reason: &str,
        message: &str,
        namespace: &str,
        name: &str,
    ) -> Value {
        let now = time(self.now());
        json!({
            "metadata": ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            "involvedObject": {
                "apiVersion": object["apiVersion"],
                "kind": object["kind"],
                "name": meta::name(object),
                "namespace": meta::namespace(object),
                "uid": meta::uid(object),
                "resourceVersion": meta::text(object, "resourceVersion"),
            },
            "type": kind.name(),
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": { "component": "berthd" },
            "reportingComponent": "berthd",
            "reportingInstance": "",
        })
    }
}

/// Sixteen hexadecimal digits that stand for these texts.
fn fingerprint(texts: &[&str]) -> String {
    let hash = digest(&SHA256, texts.join("\0").as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
