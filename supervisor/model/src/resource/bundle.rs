//! Bundle: a service as an administrator wants it, and how it fares.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::ConditionType;
use crate::quantity;

crate::resource::object! {
    /// A service.
    Bundle, "bundles", BundleSpec, BundleStatus
}

/// Annotation of a bundle that a change set gave another name: the old one. It waits until the bundle
/// of that name is gone, so that both never hold one port.
pub const RENAMED_FROM: &str = "berth.dev/renamed-from";

/// What an administrator writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleSpec {
    /// `registry/repository[:tag][@sha256:...]`.
    pub image: String,
    /// `false`: prepared but left stopped.
    #[serde(default = "yes")]
    pub start: bool,
    /// Look for a newer image behind the same tag on the next reconcile.
    #[serde(default, skip_serializing_if = "is_false")]
    pub update: bool,
    /// Added to the image's own environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Whole ConfigMaps and Secrets as variables; one of `env` wins over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFrom>,
    /// Files from ConfigMaps and Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's default arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Replaces the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Replaces the image's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Ports the service listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Disks of its own, encrypted, that outlive it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeWish>,
    /// Limits; absent ones have defaults.
    #[serde(default)]
    pub resources: Resources,
    /// How it shows that it is healthy; absent, its TCP ports do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// When systemd starts it again.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Bundles of the same namespace whose declared ports it may reach, and whose names it may
    /// look up, beside those that its variables refer to. While one of them is on its way up, it waits a while before it
    /// starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What it may reach outside this machine.
    #[serde(default, skip_serializing_if = "Egress::is_default")]
    pub egress: Egress,
    /// What it may do beyond nothing.
    #[serde(default)]
    pub security: SecurityContext,
}

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, taken literally but for references like `${{db.HOST}}`.
    #[serde(default)]
    pub value: String,
    /// Where the value comes from instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// A port the service listens on, and who may reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// A DNS label, unique in the bundle.
    pub name: String,
    /// Where the service listens.
    pub container_port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who reaches it.
    #[serde(default)]
    pub expose: Expose,
    /// The machine's port for `expose: lan`; `containerPort` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

impl Port {
    /// The machine's port that leads here, if any does.
    pub fn published(&self) -> Option<u16> {
        match self.expose {
            Expose::None => None,
            Expose::Lan => Some(self.host_port.unwrap_or(self.container_port)),
        }
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Who may reach a port from outside the bundle's namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expose {
    /// Nobody.
    #[default]
    None,
    /// Whoever reaches the machine.
    Lan,
}

/// What a service may reach outside this machine. Other bundles are not outside, and the machine
/// itself is out of reach in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Public addresses: neither private networks nor link-local addresses, where clouds keep
    /// what they tell their machines.
    #[default]
    Internet,
    /// Private networks only.
    Lan,
    /// Nothing.
    None,
    /// Everything, link-local addresses included.
    All,
}

impl Egress {
    /// The word for it in a manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Lan => "lan",
            Self::None => "none",
            Self::All => "all",
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits, as unit properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Cores, e.g. `0.5` or `500m`; default `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Bytes, e.g. `2Gi`; default `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processes and threads; default 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// 1 to 10000; default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u64>,
    /// Bytes for what the container writes outside its volumes, e.g. `4Gi`: on disk, encrypted with a key that nobody
    /// keeps, new and empty at each start. Without it, half of the memory, in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<String>,
}

impl Resources {
    /// Bytes on disk for what the container writes outside its volumes; none if it does so in memory.
    pub fn ephemeral_bytes(&self) -> Option<u64> {
        let bytes = self.ephemeral_storage.as_deref().and_then(|size| quantity::bytes(size).ok());
        bytes.and_then(|bytes| bytes.checked_next_multiple_of(1 << 20))
    }
}

/// Cores of a bundle that names none.
pub const DEFAULT_CPU: &str = "0.5";
/// Memory of a bundle that names none.
pub const DEFAULT_MEMORY: &str = "512Mi";
/// Processes of a bundle that names no number.
pub const DEFAULT_PIDS: u64 = 512;
/// The kernel's own default.
pub const DEFAULT_IO_WEIGHT: u64 = 100;

/// When systemd starts the unit again by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// After a crash.
    #[default]
    OnFailure,
    /// After every end that nobody asked for.
    Always,
    /// Never.
    Never,
}

/// What the service may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// Lets `extraCapabilities` name those that no ordinary service needs: `CAP_IPC_LOCK`, `CAP_NET_ADMIN`, `CAP_NET_RAW`.
    /// It does nothing else, and is refused where it does nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_privileged: bool,
    /// `CAP_...` names added to the small default set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_capabilities: Vec<String>,
    /// Which system calls it may make; absent, those of `RuntimeDefault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,
    /// Mount the root read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only_root_filesystem: bool,
    /// Character devices of the machine, as paths below `/dev`, that the service finds at the same places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// How the service fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleStatus {
    /// The generation this status speaks of.
    pub observed_generation: i64,
    /// One word for a table.
    pub phase: Phase,
    /// In the order of the closed vocabulary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Number of the revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Its systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its address on the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `registry/repository@sha256:...` of what runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Restarts by systemd of the running unit.
    pub restarts: u64,
    /// How it ended the last time it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_termination: Option<Termination>,
    /// Its volumes, those included that it wants no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSummary>,
    /// What can be asked for now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub available_actions: Vec<String>,
    /// When a failed step is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// Fields of later versions are kept.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl BundleStatus {
    /// It serves.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|one| one.type_ == ConditionType::Ready.name() && one.status == "True")
    }
}

/// One word for a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has been done yet.
    #[default]
    Pending,
    /// An operation is at work.
    Progressing,
    /// It serves.
    Running,
    /// Stopped on request.
    Stopped,
    /// It does not serve although it should.
    Failed,
    /// It is being removed.
    Terminating,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// `Completed`, `Error`, `OOMKilled`, `StoppedByOperator`.
    pub reason: String,
    /// Exit code, absent after a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal's name, e.g. `KILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// systemd's invocation id of the run that ended: `journalctl _SYSTEMD_INVOCATION_ID=...` shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub invocation: String,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

mod devices;
pub mod health;
pub mod projection;
mod rollout;
mod rules;
pub mod security;
mod volumes;
pub use health::Health;
pub use projection::{EnvFrom, EnvSource, VolumeMount};
pub use rollout::{gone_back, rollout_part};
pub(crate) use rules::env_rules;
pub use rules::validate;
pub use security::{SeccompProfile, SeccompProfileType};
pub use volumes::{MIN_VOLUME, VolumeSummary, VolumeWish};
