//! The verbs, with types. Every call is one request; what to do about an answer is the caller's.

use berth_model::kinds::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ClientError;
use crate::request::{Body, Request};
use crate::resource::{ResourceType, Scope};
use crate::transport::Transport;

/// Group and version of Berth's own kinds.
const BERTH: [&str; 3] = ["apis", "berth.dev", "v1"];
/// So often is an action sent when its answer breaks off; its key keeps it from being done twice.
const ACTION_TRIES: u32 = 3;

/// Speaks to one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

/// A list as the server had it at one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List<T> {
    /// The `resourceVersion` to watch from.
    pub version: String,
    /// What was there.
    pub items: Vec<T>,
}

impl Client {
    /// A client that asks by `transport`.
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// For requests that are no verb of a kind.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// One object. Kinds without namespaces ignore `namespace`.
    ///
    /// # Errors
    /// [`ClientError::is_not_found`] if there is none; else see [`ClientError`], as everywhere here.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<K, ClientError> {
        self.transport.json(&ResourceType::of::<K>().object(Method::GET, namespace, name)).await
    }

    /// All objects of a scope.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list<K: Kind>(&self, scope: &Scope) -> Result<List<K>, ClientError> {
        let list: Value = self.transport.json(&ResourceType::of::<K>().list(scope)).await?;
        self.typed(list)
    }

    /// Creates an object; the answer is what was stored.
    ///
    /// # Errors
    /// [`ClientError::is_already_exists`] if there is one; else see [`ClientError`].
    pub async fn create<K: Kind>(&self, namespace: &str, object: &K) -> Result<K, ClientError> {
        let request = ResourceType::of::<K>().collection(Method::POST, Some(namespace));
        self.transport.json(&request.body(Body::Json(self.value(object)?))).await
    }

    /// Replaces an object; a stale `resourceVersion` is a conflict.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update<K: Kind>(&self, namespace: &str, name: &str, object: &K) -> Result<K, ClientError> {
        let request = ResourceType::of::<K>().object(Method::PUT, namespace, name);
        self.transport.json(&request.body(Body::Json(self.value(object)?))).await
    }

    /// Changes some fields of an object.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn merge_patch<K: Kind>(&self, namespace: &str, name: &str, patch: &Value) -> Result<K, ClientError> {
        let request = ResourceType::of::<K>().object(Method::PATCH, namespace, name);
        self.transport.json(&request.body(Body::MergePatch(patch.clone()))).await
    }

    /// Deletes an object; with finalizers it goes later.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<K: Kind>(&self, namespace: &str, name: &str) -> Result<(), ClientError> {
        self.delete_dynamic(&ResourceType::of::<K>(), namespace, name).await.map(drop)
    }

    /// One object of a kind known only at run time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_dynamic(&self, kind: &ResourceType, namespace: &str, name: &str) -> Result<Value, ClientError> {
        self.transport.json(&kind.object(Method::GET, namespace, name)).await
    }

    /// All objects of a scope, each with its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list_dynamic(&self, kind: &ResourceType, scope: &Scope) -> Result<List<Value>, ClientError> {
        let list: Value = self.transport.json(&kind.list(scope)).await?;
        let mut list: List<Value> = self.typed(list)?;
        for item in &mut list.items {
            item["apiVersion"] = kind.api_version().into();
            item["kind"] = kind.kind.clone().into();
        }
        Ok(list)
    }

    /// Creates an object. An unknown field is refused, not dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_dynamic(
        &self,
        kind: &ResourceType,
        namespace: &str,
        object: Value,
        key: String,
    ) -> Result<Value, ClientError> {
        self.transport.json(&create_request(kind, namespace, object, key)).await
    }

    /// Changes some fields of an object. An unknown field is refused, not dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn merge_patch_dynamic(
        &self,
        kind: &ResourceType,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, ClientError> {
        self.transport.json(&patch_request(kind, namespace, name, patch)).await
    }

    /// Deletes an object. The answer is the object if it goes later, else a `Status`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_dynamic(&self, kind: &ResourceType, namespace: &str, name: &str) -> Result<Value, ClientError> {
        self.transport.json(&kind.object(Method::DELETE, namespace, name)).await
    }

    /// Asks for an action on a bundle; the answer is its Operation. Sent again if the answer breaks
    /// off, because the key makes that safe.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn action(&self, namespace: &str, bundle: &str, action: &str, key: String) -> Result<Value, ClientError> {
        self.insist(&action_request(namespace, bundle, action, key)).await
    }

    /// As [`Client::action`], with something to say about it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn action_with(
        &self,
        namespace: &str,
        bundle: &str,
        action: &str,
        body: Value,
        key: String,
    ) -> Result<Value, ClientError> {
        let request = action_request(namespace, bundle, action, key);
        self.insist(&if body.is_null() { request } else { request.body(Body::Json(body)) }).await
    }

    async fn insist(&self, request: &Request) -> Result<Value, ClientError> {
        for _ in 1..ACTION_TRIES {
            match self.transport.json(request).await {
                Err(ClientError::Interrupted { .. }) => {}
                answer => return answer,
            }
        }
        self.transport.json(request).await
    }

    /// Asks for an action on a volume; the answer is its Operation. Sent again as [`Client::action`] is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn volume_action(
        &self,
        namespace: &str,
        volume: &str,
        action: &str,
        body: Value,
        key: String,
    ) -> Result<Value, ClientError> {
        let path = ["namespaces", namespace, "volumes", volume, "actions", action];
        let request = berth(&path, Method::POST).once(key);
        self.insist(&if body.is_null() { request } else { request.body(Body::Json(body)) }).await
    }

    /// Asks for an action on an operation; the answer is that one, or the new one of a `retry`. Not sent again if the
    /// answer breaks off: whether it was done, the list of operations tells.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn operation_action(
        &self,
        namespace: &str,
        name: &str,
        action: &str,
        body: Value,
    ) -> Result<Value, ClientError> {
        let request = berth(&["namespaces", namespace, "operations", name, "actions", action], Method::POST);
        self.transport.json(&if body.is_null() { request } else { request.body(Body::Json(body)) }).await
    }

    /// Asks for an action on a change set; the answer is the set, its plan, or the Operation that applied it. Only
    /// `apply` is sent again if the answer breaks off: an edit would be staged twice.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_set_action(
        &self,
        namespace: &str,
        name: &str,
        action: &str,
        body: Value,
        key: String,
    ) -> Result<Value, ClientError> {
        let path = ["namespaces", namespace, "changesets", name, "actions", action];
        let request = berth(&path, Method::POST).body(Body::Json(body));
        match action {
            "apply" => self.insist(&request.once(key)).await,
            _ => self.transport.json(&request).await,
        }
    }

    /// Finds a type this client does not know by asking the server for the kinds of a group and version.
    ///
    /// # Errors
    /// See [`ClientError`]; a group that is not there is no error.
    pub async fn discover(
        &self,
        api_version: &str,
        wanted: impl Fn(&APIResource) -> bool,
    ) -> Result<Option<ResourceType>, ClientError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let path = if group.is_empty() { vec!["api", version] } else { vec!["apis", group, version] };
        let list: APIResourceList = match self.transport.json(&Request::get(&path)).await {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let found = list.resources.into_iter().find(|one| !one.name.contains('/') && wanted(one));
        Ok(found.map(|one| discovered(group, version, one)))
    }

    fn value<K: Serialize>(&self, object: &K) -> Result<Value, ClientError> {
        serde_json::to_value(object).map_err(|source| self.malformed(source))
    }

    fn typed<T: DeserializeOwned>(&self, mut list: Value) -> Result<List<T>, ClientError> {
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let items = serde_json::from_value(list["items"].take()).map_err(|source| self.malformed(source))?;
        Ok(List { version, items })
    }

    fn malformed(&self, source: serde_json::Error) -> ClientError {
        ClientError::Malformed { server: self.transport.shown().to_owned(), source }
    }
}

fn discovered(group: &str, version: &str, found: APIResource) -> ResourceType {
    let singular = Some(found.singular_name).filter(|name| !name.is_empty());
    ResourceType {
        group: group.to_owned(),
        version: version.to_owned(),
        singular: singular.unwrap_or_else(|| found.kind.to_lowercase()),
        kind: found.kind,
        plural: found.name,
        namespaced: found.namespaced,
    }
}

/// The request that creates an object.
pub fn create_request(kind: &ResourceType, namespace: &str, object: Value, key: String) -> Request {
    kind.collection(Method::POST, Some(namespace)).query("fieldValidation", "Strict").body(Body::Json(object)).once(key)
}

/// The request that changes some fields of an object.
pub fn patch_request(kind: &ResourceType, namespace: &str, name: &str, patch: Value) -> Request {
    kind.object(Method::PATCH, namespace, name).query("fieldValidation", "Strict").body(Body::MergePatch(patch))
}

/// The request for an action on a bundle.
pub fn action_request(namespace: &str, bundle: &str, action: &str, key: String) -> Request {
    berth(&["namespaces", namespace, "bundles", bundle, "actions", action], Method::POST).once(key)
}

/// A request below Berth's own group.
pub fn berth(path: &[&str], method: Method) -> Request {
    Request::new(method, &[&BERTH, path].concat())
}
