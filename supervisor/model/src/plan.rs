//! The plan: everything `berth-run` has to know to start one revision, as one JSON file.
//!
//! The daemon writes it to `/run/berth/plan/<id>.json` (root only, mode 0600; what comes from Secrets
//! lies apart, see [`crate::provided`]) before it starts the unit, and leaves it there for as long as the unit may
//! restart: a restart by systemd reads it again while no daemon is alive. An unknown field is an
//! error on the reading side, so that an old launcher never half-understands a newer plan.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version this build writes and reads.
pub const PLAN_VERSION: u32 = 1;

/// One container to start: what is in it, as whom it runs, how it reaches the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the writer.
    pub version: u32,
    /// `<namespace>.<bundle>.r<revision>`; the unit is `berth.<id>.service`.
    pub id: String,
    /// Host name inside the container.
    pub hostname: String,
    /// The read-only root.
    pub root: Root,
    /// Where the ids of the container begin on the host.
    pub ids: IdRange,
    /// Absent: a network namespace with nothing but loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Encrypted disks, opened before the unit starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What is run.
    pub process: Process,
    /// What it may do.
    pub security: Security,
    /// There is a [`crate::provided::Provided`] beside the plan, without which it must not start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provided: bool,
}

/// An overlay of unpacked layers under a fresh writable layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// Directory that holds the unpacked layers, ids unshifted.
    pub store: PathBuf,
    /// Layer directories below `store`, the topmost first.
    pub layers: Vec<String>,
    /// Size of the writable layer in bytes, where it lies in memory.
    pub writable_bytes: u64,
    /// Encrypted disk with an ext4 for the writable layer; absent: it lies in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_device: Option<PathBuf>,
    /// Mount the root read-only.
    pub read_only: bool,
}

/// A contiguous range of user and group ids on the host, mapped to 0.. inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdRange {
    /// First id on the host.
    pub base: u32,
    /// How many ids.
    pub size: u32,
}

/// An ext4 filesystem whose ids are unshifted on disk. What the container sees is its folder `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Block device on the host.
    pub device: PathBuf,
    /// Absolute path inside.
    pub mount_path: PathBuf,
}

/// One veth pair: its host end on a bridge, `eth0` inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Bridge on the host; it exists before the unit starts.
    pub bridge: String,
    /// Name of the host end, at most 15 bytes.
    pub host_link: String,
    /// Addresses of `eth0`.
    pub addresses: Vec<InterfaceAddress>,
    /// Default routes.
    pub gateways: Vec<IpAddr>,
    /// Written to `/etc/resolv.conf`; empty leaves the image's own file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
}

/// An address with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// The first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Program and arguments; a bare program name is looked up in `PATH` inside.
    pub args: Vec<String>,
    /// `NAME=value`, complete: nothing is inherited.
    pub env: Vec<String>,
    /// Absolute working directory inside.
    pub cwd: String,
    /// As in an image's configuration: `user`, `uid`, `user:group`, `uid:gid`, by name or number,
    /// resolved against the image's own passwd and group files; empty is root.
    pub user: String,
}

/// What the processes of a container may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    /// `CAP_...` names, effective, permitted and bounding.
    pub capabilities: Vec<String>,
    /// Character devices of the machine that the container has at the same places; absolute paths below `/dev`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<PathBuf>,
    /// Which system calls they may make.
    #[serde(default, skip_serializing_if = "SystemCalls::is_default")]
    pub system_calls: SystemCalls,
}

/// The system call filters of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SystemCalls {
    /// The reviewed list.
    #[default]
    RuntimeDefault,
    /// The part of it that ordinary services need.
    Baseline,
    /// The reviewed list, and a filter of an administrator's after it: what either refuses is refused. A `struct
    /// sock_filter` each, as the bytes of one number of this machine.
    Narrowed(Vec<u64>),
}

impl SystemCalls {
    /// Whether it is what a container has that says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What `berth-run stopped` leaves in `/run/berth/last/<id>.<invocation>.json` for a unit that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ending {
    /// As in [`Plan::id`].
    pub id: String,
    /// systemd's invocation id.
    pub invocation: String,
    /// Somebody asked systemd to stop the unit while its main process was alive.
    pub stop_asked: bool,
    /// systemd's `SERVICE_RESULT` (`success`, `exit-code`, `signal`, `oom-kill`, ...); absent until
    /// ExecStopPost has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// systemd's `EXIT_CODE` (`exited`, `killed`, `dumped`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<String>,
    /// systemd's `EXIT_STATUS`: a number, or a signal's name without `SIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<String>,
}
