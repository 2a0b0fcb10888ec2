//! Revision: one immutable state of a bundle, with all that was resolved and allocated for it.

use serde::{Deserialize, Serialize};

use super::bundle::BundleSpec;

crate::resource::object! {
    /// One immutable state of a bundle.
    Revision, "revisions", RevisionSpec, RevisionStatus
}

/// Written once, never changed. Named `<bundle>-r<number>`, owned by its bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// The bundle's name.
    pub bundle: String,
    /// 1, 2, 3, ... within the bundle.
    pub number: u64,
    /// The bundle's generation it was made from.
    pub generation: i64,
    /// The operation that made it.
    pub operation: String,
    /// The bundle's spec at that time.
    pub bundle_spec: BundleSpec,
    /// What the tag meant at that time.
    pub image: ResolvedImage,
    /// Its own address.
    pub allocation: Allocation,
    /// Tells what it took from ConfigMaps and Secrets from what they hold later, without the values;
    /// empty if it took nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provided: String,
}

/// An image pinned by digest, with what a start needs of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedImage {
    /// `registry/repository@sha256:...`.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Unpacked layers (diff ids), the topmost first.
    pub layers: Vec<String>,
    /// Image configuration: entrypoint, then default arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User, empty for root.
    pub user: String,
    /// Working directory, empty for `/`.
    pub working_dir: String,
    /// Signal that asks it to stop, e.g. `SIGQUIT`; empty for `SIGTERM`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// The directory of an unpacked layer, by its diff id.
pub fn layer_directory(diff_id: &str) -> String {
    diff_id.replacen(':', "-", 1)
}

/// What was set aside for one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// IPv4 address inside the namespace's network.
    pub address: String,
    /// IPv6 address there; empty in records from before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address6: String,
    /// The bundle's own address, the same for all its revisions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service6: String,
    /// First host id of the range.
    pub id_base: u32,
    /// Name of the host end of the veth pair.
    pub host_link: String,
}

/// Only the bookkeeping of its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// What became of it.
    pub state: RevisionState,
}

impl RevisionState {
    /// It may have a unit, and holds its address and ids.
    pub fn holds_allocation(self) -> bool {
        matches!(self, Self::Candidate | Self::Active | Self::Retiring)
    }
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevisionState {
    /// Being brought up, or prepared and left stopped.
    #[default]
    Candidate,
    /// The one that serves.
    Active,
    /// Served until now, still running while its successor takes over.
    Retiring,
    /// Served once.
    Superseded,
    /// Never became ready.
    Failed,
}
