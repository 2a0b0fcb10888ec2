//! A type of resource, as far as a client has to know it: where it lies and what it is called.
//! Known kinds come from the model's registry; others are asked of the server.

use berth_model::kinds::{self, Kind, Registration};
use reqwest::Method;

use crate::request::Request;

/// Where resources of one kind lie, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceType {
    /// API group, empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// As in manifests, e.g. `Bundle`.
    pub kind: String,
    /// As in paths, e.g. `bundles`.
    pub plural: String,
    /// As in messages, e.g. `bundle`.
    pub singular: String,
    /// Lives in a namespace.
    pub namespaced: bool,
}

/// Which resources of a kind a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `None` means all namespaces. Ignored for kinds without namespaces.
    pub namespace: Option<String>,
    /// Only those with these labels.
    pub labels: Option<String>,
    /// Only those with these fields, e.g. `metadata.name=web`.
    pub fields: Option<String>,
}

impl Scope {
    /// Everything in one namespace.
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::default() }
    }

    /// One object of a namespace.
    pub fn object(namespace: &str, name: &str) -> Self {
        Self { fields: Some(format!("metadata.name={name}")), ..Self::namespace(namespace) }
    }
}

impl ResourceType {
    /// The type behind a Rust type.
    pub fn of<K: Kind>() -> Self {
        K::registration().into()
    }

    /// A known type as a person names it: kind, plural, singular or short name, in any case.
    pub fn by_word(word: &str) -> Option<Self> {
        kinds::by_word(word).map(Self::from)
    }

    /// A known type as a manifest names it.
    pub fn by_kind(api_version: &str, kind: &str) -> Option<Self> {
        kinds::by_kind(api_version, kind).map(Self::from)
    }

    /// All the model knows of it, if it does.
    pub fn registration(&self) -> Option<&'static Registration> {
        kinds::by_plural(&self.group, &self.version, &self.plural)
    }

    /// As manifests write it, e.g. `berth.dev/v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As answers name one object, e.g. `bundle/web`.
    pub fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.singular)
    }

    /// Path segments of the collection.
    pub fn path<'a>(&'a self, namespace: Option<&'a str>) -> Vec<&'a str> {
        let mut path = match self.group.as_str() {
            "" => vec!["api", &self.version],
            group => vec!["apis", group, &self.version],
        };
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.extend(["namespaces", namespace]);
        }
        path.push(&self.plural);
        path
    }

    /// A request about the collection.
    pub fn collection(&self, method: Method, namespace: Option<&str>) -> Request {
        Request::new(method, &self.path(namespace))
    }

    /// A request about one object.
    pub fn object(&self, method: Method, namespace: &str, name: &str) -> Request {
        self.collection(method, Some(namespace)).below(name)
    }

    /// Lists what the scope selects.
    pub fn list(&self, scope: &Scope) -> Request {
        self.collection(Method::GET, scope.namespace.as_deref())
            .query_if("labelSelector", scope.labels.as_ref())
            .query_if("fieldSelector", scope.fields.as_ref())
    }
}

impl From<&Registration> for ResourceType {
    fn from(known: &Registration) -> Self {
        Self {
            group: known.group.to_owned(),
            version: known.version.to_owned(),
            kind: known.kind.to_owned(),
            plural: known.plural.to_owned(),
            singular: known.singular.to_owned(),
            namespaced: known.namespaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::resource::Bundle;

    use super::*;

    fn address(request: &Request) -> String {
        request.path.join("/")
    }

    #[test]
    fn objects_lie_where_kubernetes_puts_them() {
        let bundle = ResourceType::of::<Bundle>();
        let request = bundle.object(Method::GET, "default", "web");
        assert_eq!(address(&request), "apis/berth.dev/v1/namespaces/default/bundles/web");
        let namespace = ResourceType::by_word("ns").unwrap();
        assert_eq!(address(&namespace.object(Method::GET, "default", "other")), "api/v1/namespaces/other");
    }

    #[test]
    fn a_list_over_all_namespaces_names_none() {
        let kind = ResourceType::by_word("ConfigMaps").unwrap();
        let scope = Scope { labels: Some("app=web".into()), ..Scope::default() };
        let request = kind.list(&scope);
        assert_eq!(address(&request), "api/v1/configmaps");
        assert_eq!(request.query, [("labelSelector".to_owned(), "app=web".to_owned())]);
    }
}
