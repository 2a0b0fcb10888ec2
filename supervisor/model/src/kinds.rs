//! The registry of kinds: everything generic about a kind, in one place.
//!
//! A kind is its types plus one [`Registration`]. Routes, discovery, tables, validation, storage
//! and rights are derived from the registration and know no kind by name. [`KINDS`] lists them;
//! [`Kind`] leads from a type to its registration, so that typed code cannot name a kind that is
//! not registered.
//!
//! A write passes through [`Registration::admit`], which is pure: missing parts are taken over
//! from the old object, unknown and wrong fields are found by path, defaults are filled in, rules
//! are checked. What it hands back is what the store may keep.
//!
//! Some kinds are not stored, so that clients find in Kubernetes' words what Berth keeps in its own: their objects are
//! views of others' ([`View`]), read and watched like all, or are read from the machine when they are asked for
//! ([`Reading`]). Reviews are questions: they are created, answered, and kept nowhere.

mod access;
mod admit;
mod berth;
mod core;
mod networking;
mod readings;
mod reviews;
mod table;
mod views;

pub use access::{
    API_KEY, AUDIT_RECORD, CERTIFICATE, DEVICE, INVITATION, ROLE, ROLE_BINDING, SERVICE_ACCOUNT, SESSION, USER,
};
pub use admit::{Admitted, Decoded, Request};
pub use berth::{
    BUNDLE, CHANGE_SET, DATA_FINALIZER, OPERATION, OPERATION_LIFE, REVISION, SCHEDULE, SETTINGS, TEARDOWN_FINALIZER,
    VOLUME,
};
pub use core::{CONFIG_MAP, DEFAULT_NAMESPACE, EVENT, EVENT_LIFE, LAST_APPLIED, NAMESPACE, SECRET};
pub use networking::NETWORK_POLICY;
pub use readings::{NODE, NODE_METRICS, POD_METRICS, Reading};
pub use reviews::{SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_REVIEW, SELF_SUBJECT_RULES_REVIEW, TOKEN_REVIEW};
pub use table::{Column, age};
pub use views::{PERSISTENT_VOLUME_CLAIM, POD, SERVICE, STATEFUL_SET, View};

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::FieldError;
use crate::patch::{self, Lists, Row};
use crate::policy::Verb;
use crate::resource;
use crate::schema;

/// A type whose objects are served and stored.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Everything generic about it.
    fn registration() -> &'static Registration;
}

/// Everything generic about one kind.
pub struct Registration {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// `Bundle`.
    pub kind: &'static str,
    /// `bundles`, as in URLs.
    pub plural: &'static str,
    /// `bundle`.
    pub singular: &'static str,
    /// `cm`.
    pub short_names: &'static [&'static str],
    /// `all` makes `kubectl get all` show it.
    pub categories: &'static [&'static str],
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Names are DNS labels; otherwise DNS subdomains.
    pub label_name: bool,
    /// What clients may do with it; everything else is answered with [`Registration::instead`].
    pub verbs: &'static [Verb],
    /// What to do instead of a verb that is not served.
    pub instead: &'static str,
    /// Headers of a table.
    pub columns: &'static [Column],
    /// One cell for each column; the time is needed for ages.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// JSON paths (dotted) that a field selector may name beside name and namespace.
    pub selectable: &'static [&'static str],
    /// `status` is written apart from the rest, and by Berth alone.
    pub status: bool,
    /// `spec` never changes once the object exists.
    pub immutable_spec: bool,
    /// A record Berth keeps about other objects: it may be made in a namespace that is being
    /// deleted, and does not keep that namespace from going (unless it has a finalizer).
    pub record: bool,
    /// How long after its last write an object is kept if nothing else is said; for good, if `None`.
    pub life: fn(&Value) -> Option<SignedDuration>,
    /// Finalizers put on every object at creation.
    pub finalizers: &'static [&'static str],
    /// Names of the top-level maps (key -> base64) whose values are sealed before they are stored.
    pub sealed: &'static [&'static str],
    /// Objects that are always there and cannot be deleted.
    pub permanent: &'static [Permanent],
    /// Of what its objects are views, if they are not stored themselves.
    pub view: Option<View>,
    /// How its objects are read from the machine, if they are.
    pub reading: Option<Reading>,
    /// Its objects are records in a chain of their own, and not in the store's table of objects.
    pub chained: bool,
    /// Its objects are questions, which are answered and kept nowhere.
    pub review: bool,
    /// Completes a body before it is decoded.
    complete: fn(&mut Value, &Request<'_>),
    /// Lists that are merged, beside those of the metadata: by strategic merge patches and server-side apply.
    lists: &'static [Row],
    /// What its type knows of itself.
    shape: Shape,
    /// Fills in what a client may leave out.
    default: fn(&mut Value),
    /// Rules beyond the type's shape; the old object is there when it is an update.
    validate: fn(&Value, Option<&Value>) -> Vec<FieldError>,
}

/// What a type knows of its objects.
struct Shape {
    /// Decodes and encodes again.
    decode: fn(&Value) -> Result<Decoded, FieldError>,
    /// The name of its schema.
    schema_name: fn() -> Cow<'static, str>,
    /// Adds its schema to others.
    register_schema: fn(&mut SchemaGenerator),
}

impl Shape {
    const fn of<K: Kind>() -> Self {
        Self { decode: admit::decode::<K>, schema_name: K::schema_name, register_schema: schema::register::<K> }
    }
}

/// An object that cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permanent {
    /// Its namespace, empty for none.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

/// Every kind, in the order of discovery.
pub static KINDS: &[&Registration] = &[
    &NAMESPACE,
    &CONFIG_MAP,
    &SECRET,
    &SERVICE_ACCOUNT,
    &EVENT,
    &POD,
    &SERVICE,
    &PERSISTENT_VOLUME_CLAIM,
    &NODE,
    &STATEFUL_SET,
    &NODE_METRICS,
    &POD_METRICS,
    &SELF_SUBJECT_REVIEW,
    &TOKEN_REVIEW,
    &SELF_SUBJECT_ACCESS_REVIEW,
    &SELF_SUBJECT_RULES_REVIEW,
    &NETWORK_POLICY,
    &BUNDLE,
    &REVISION,
    &VOLUME,
    &CHANGE_SET,
    &OPERATION,
    &SCHEDULE,
    &USER,
    &ROLE,
    &ROLE_BINDING,
    &API_KEY,
    &INVITATION,
    &SESSION,
    &CERTIFICATE,
    &DEVICE,
    &AUDIT_RECORD,
    &SETTINGS,
];

impl Registration {
    /// `v1` or `berth.dev/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `configmaps` or `bundles.berth.dev`: one word that is different for every kind.
    pub fn key(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `BundleList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// What to do instead of deleting an object that is always there; `None` for all others.
    pub fn is_permanent(&self, namespace: &str, name: &str) -> Option<&'static str> {
        let found = self.permanent.iter().find(|one| (one.namespace, one.name) == (namespace, name));
        found.map(|one| one.instead)
    }

    /// The name of the schema of its type.
    pub fn schema_name(&self) -> Cow<'static, str> {
        (self.shape.schema_name)()
    }

    /// Adds the schema of its type, and of all that is in it, to others.
    pub(crate) fn register_schema(&self, generator: &mut SchemaGenerator) {
        (self.shape.register_schema)(generator);
    }

    /// One of Kubernetes' own kinds, served here with its type and its habits.
    pub fn is_built_in(&self) -> bool {
        self.group != resource::GROUP
    }

    /// Media types of the patches it takes: as in Kubernetes, strategic ones are for its own kinds alone.
    pub fn patches(&self) -> &'static [&'static str] {
        match self.is_built_in() {
            true => &[patch::MERGE, patch::JSON, patch::STRATEGIC, patch::APPLY],
            false => &[patch::MERGE, patch::JSON, patch::APPLY],
        }
    }

    /// How its lists are merged.
    pub fn lists(&self) -> Lists {
        Lists(self.lists)
    }

    /// The kind that is stored: of a view, what it is a view of.
    pub fn stored(&'static self) -> &'static Registration {
        self.view.map_or(self, |view| view.of)
    }

    /// What of an object of the stored kind is an object of this one, if it has any.
    pub fn shown(&self, stored: Value) -> Option<Value> {
        match self.view {
            None => Some(stored),
            Some(view) => (view.show)(stored),
        }
    }

    /// Whether its own objects are in the store.
    pub fn is_stored(&self) -> bool {
        let elsewhere = self.reading.is_some() || self.chained || self.review;
        self.view.is_none() && !elsewhere
    }

    /// Whether clients may use a verb on it.
    pub fn serves(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.plural == other.plural
    }
}

impl Eq for Registration {}

impl std::fmt::Debug for Registration {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.key())
    }
}

/// Finds a kind as a URL names it.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Registration> {
    let found = |kind: &&&Registration| kind.group == group && kind.version == version && kind.plural == plural;
    KINDS.iter().find(found).copied()
}

/// Finds a kind as an object names it.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Registration> {
    KINDS.iter().find(|known| known.kind == kind && known.api_version() == api_version).copied()
}

/// Finds a kind by [`Registration::key`].
pub fn by_key(key: &str) -> Option<&'static Registration> {
    KINDS.iter().find(|known| known.key() == key).copied()
}

/// Finds a kind as a person names it: kind, plural, singular, short name or key, in any case.
pub fn by_word(word: &str) -> Option<&'static Registration> {
    let word = word.to_ascii_lowercase();
    let names = |kind: &Registration| {
        word == kind.plural || word == kind.singular || word == kind.key() || kind.short_names.contains(&word.as_str())
    };
    KINDS.iter().find(|kind| names(kind)).copied()
}

#[cfg(test)]
mod tests;
