//! The kinds Berth serves itself, one file each, and the frame they share.

pub mod api_key;
pub mod audit_record;
pub mod bundle;
pub mod certificate;
pub mod change_set;
pub mod device;
pub mod invitation;
pub mod namespace;
pub mod operation;
pub mod revision;
pub mod role;
pub mod role_binding;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod user;
pub mod volume;

pub use api_key::ApiKey;
pub use audit_record::AuditRecord;
pub use bundle::Bundle;
pub use certificate::Certificate;
pub use change_set::ChangeSet;
pub use device::Device;
pub use invitation::Invitation;
pub use namespace::Namespace;
pub use operation::Operation;
pub use revision::Revision;
pub use role::Role;
pub use role_binding::RoleBinding;
pub use schedule::Schedule;
pub use session::Session;
pub use settings::Settings;
pub use user::User;
pub use volume::Volume;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of Berth's own kinds.
pub const GROUP: &str = "berth.dev";
/// Version of Berth's own kinds.
pub const VERSION: &str = "v1";
/// `group/version` as objects carry it.
pub const API_VERSION: &str = "berth.dev/v1";

/// An object as it is read from the wire: kind and version may be absent, but never wrong.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Incoming<S, T> {
    /// Group and version, `berth.dev/v1`.
    api_version: Option<String>,
    /// What it is.
    kind: Option<String>,
    /// Name, namespace, version, labels, owners.
    #[serde(default)]
    metadata: ObjectMeta,
    /// What is wanted.
    spec: S,
    /// What is; absent until somebody has looked.
    status: Option<T>,
}

impl<S, T> Incoming<S, T> {
    fn check(&self, kind: &str) -> Result<(), String> {
        let wrong = |what: &str, found: &Option<String>, expected: &str| match found {
            Some(found) if found != expected => Some(format!("{what} is `{found}`, expected `{expected}`")),
            _ => None,
        };
        wrong("apiVersion", &self.api_version, API_VERSION)
            .or_else(|| wrong("kind", &self.kind, kind))
            .map_or(Ok(()), Err)
    }
}

/// An object as it is written to the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a, S, T> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a ObjectMeta,
    spec: &'a S,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a T>,
}

/// Makes a namespaced object of `berth.dev/v1` out of its spec and status, in the very shape of
/// the built-in kinds.
macro_rules! object {
    ($(#[doc = $doc:literal])* $name:ident, $plural:literal, $spec:ty, $status:ty) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            /// Name, namespace, version, labels, owners.
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            pub spec: $spec,
            /// What is; absent until somebody has looked.
            pub status: Option<$status>,
        }

        impl k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = crate::resource::API_VERSION;
            const GROUP: &'static str = crate::resource::GROUP;
            const KIND: &'static str = stringify!($name);
            const VERSION: &'static str = crate::resource::VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::NamespaceResourceScope;
        }

        impl k8s_openapi::Metadata for $name {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                concat!("dev.berth.v1.", stringify!($name)).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema =
                    <crate::resource::Incoming<$spec, $status> as schemars::JsonSchema>::json_schema(generator);
                schema.insert("description".into(), concat!($($doc),*).trim().into());
                schema
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let whole = crate::resource::Outgoing {
                    api_version: crate::resource::API_VERSION,
                    kind: stringify!($name),
                    metadata: &self.metadata,
                    spec: &self.spec,
                    status: self.status.as_ref(),
                };
                serde::Serialize::serialize(&whole, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let whole: crate::resource::Incoming<$spec, $status> =
                    serde::Deserialize::deserialize(deserializer)?;
                whole.check(stringify!($name)).map_err(serde::de::Error::custom)?;
                Ok(Self { metadata: whole.metadata, spec: whole.spec, status: whole.status })
            }
        }
    };
}
pub(crate) use object;
