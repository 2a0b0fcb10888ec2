//! What a revision is started with: the plan for the launcher and the properties of its unit, both
//! rendered as plain values before anything is written.

use berth_model::allocation::{self, IDS_PER_CONTAINER};
use berth_model::plan::{
    IdRange, InterfaceAddress, Network, PLAN_VERSION, Plan, Process, Root, Security, SystemCalls, Volume,
};
use berth_model::quantity;
use berth_model::reference::template;
use berth_model::resource::bundle::security::BASE_CAPABILITIES;
use berth_model::resource::bundle::{
    BundleSpec, DEFAULT_CPU, DEFAULT_IO_WEIGHT, DEFAULT_MEMORY, DEFAULT_PIDS, EnvVar, RestartPolicy,
};
use berth_model::resource::revision::{ResolvedImage, Revision, layer_directory};
use berth_model::resource::volume::device_path;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::view::{container_id, uid_of, unit_name};

/// `PATH` of an image that sets none; the value that container runtimes agree on.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A unit as the domain wants it; `daemon.rs` spells it in systemd's property names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitRequest {
    /// Container id.
    pub id: String,
    /// `berth.<id>.service`.
    pub name: String,
    /// For people.
    pub description: String,
    /// Kubernetes-shaped namespace.
    pub namespace: String,
    /// Bundle.
    pub bundle: String,
    /// Revision's number.
    pub revision: u64,
    /// Digest of the image.
    pub digest: String,
    /// Signal that asks it to stop, a number of signal(7).
    pub stop_signal: i32,
    /// When systemd starts it again.
    pub restart: RestartPolicy,
    /// Limits.
    pub limits: Limits,
    /// Devices that it may use: those of its volumes and of its writable layer, and those that were asked for.
    pub devices: Vec<PathBuf>,
}

/// The open device of a volume, and where the service finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// On the machine.
    pub path: PathBuf,
    /// In the container.
    pub mount_path: PathBuf,
}

/// Limits in systemd's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time per second, in microseconds.
    pub cpu_usec: u64,
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// 1 to 10000.
    pub io_weight: u64,
}

/// A revision cannot be rendered: its record is not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A quantity does not parse.
    #[error("reading the limit `{field}` of the revision")]
    Limit {
        /// Which.
        field: &'static str,
        /// Why.
        #[source]
        source: quantity::QuantityError,
    },
    /// The address does not parse.
    #[error("the revision's address `{0}` is no address in a namespace's network")]
    Address(String),
    /// The stop signal is unknown.
    #[error("the image's stop signal `{0}` is not one of this system's signals")]
    Signal(String),
}

/// The unit of a revision that mounts these devices.
pub fn request(revision: &Revision, devices: &[Device]) -> Result<UnitRequest, RenderError> {
    let id = container_id(revision);
    let spec = &revision.spec;
    let (volumes, asked) = (devices.iter().map(|device| device.path.clone()), spec.bundle_spec.security.devices.iter());
    Ok(UnitRequest {
        name: unit_name(&id),
        description: format!("Berth bundle {} (revision {}, {})", spec.bundle, spec.number, spec.image.reference),
        namespace: revision.metadata.namespace.clone().unwrap_or_default(),
        bundle: spec.bundle.clone(),
        revision: spec.number,
        digest: spec.image.digest.clone(),
        stop_signal: stop_signal(&spec.image.stop_signal)?,
        restart: spec.bundle_spec.restart,
        limits: limits(&spec.bundle_spec)?,
        devices: volumes.chain(scratch(revision)).chain(asked.map(PathBuf::from)).collect(),
        id,
    })
}

fn limits(spec: &BundleSpec) -> Result<Limits, RenderError> {
    let wanted = &spec.resources;
    let cpu = quantity::cpu_millis(wanted.cpu.as_deref().unwrap_or(DEFAULT_CPU))
        .map_err(|source| RenderError::Limit { field: "cpu", source })?;
    let memory = quantity::bytes(wanted.memory.as_deref().unwrap_or(DEFAULT_MEMORY))
        .map_err(|source| RenderError::Limit { field: "memory", source })?;
    Ok(Limits {
        cpu_usec: cpu * 1000,
        memory,
        pids: wanted.pids.unwrap_or(DEFAULT_PIDS),
        io_weight: wanted.io_weight.unwrap_or(DEFAULT_IO_WEIGHT),
    })
}

/// Images name it `SIGQUIT`, `QUIT` or `3`.
fn stop_signal(name: &str) -> Result<i32, RenderError> {
    use nix::sys::signal::Signal;
    if name.is_empty() {
        return Ok(Signal::SIGTERM as i32);
    }
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    let number = name.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    number.or_else(|| full.parse().ok()).map(|signal| signal as i32).ok_or_else(|| RenderError::Signal(name.into()))
}

/// The launcher's plan of a revision, without what it takes from ConfigMaps and Secrets and with the usual system call
/// filter; `layers` is where unpacked
/// layers lie.
pub fn plan(revision: &Revision, layers: &Path, devices: &[Device]) -> Result<Plan, RenderError> {
    let spec = &revision.spec;
    let wish = &spec.bundle_spec;
    let process = process(&spec.image, wish);
    Ok(Plan {
        version: PLAN_VERSION,
        id: container_id(revision),
        hostname: spec.bundle.clone(),
        root: Root {
            store: layers.to_owned(),
            layers: spec.image.layers.iter().map(|layer| layer_directory(layer)).collect(),
            writable_bytes: limits(wish)?.memory / 2,
            writable_device: scratch(revision),
            read_only: wish.security.read_only_root_filesystem,
        },
        ids: IdRange { base: spec.allocation.id_base, size: IDS_PER_CONTAINER },
        network: Some(network(revision)?),
        security: Security {
            capabilities: capabilities(&process.user, wish),
            devices: wish.security.devices.iter().map(PathBuf::from).collect(),
            system_calls: SystemCalls::default(),
        },
        volumes: devices.iter().map(volume).collect(),
        process,
        provided: false,
    })
}

/// The device of the writable layer, if it is on disk.
fn scratch(revision: &Revision) -> Option<PathBuf> {
    let on_disk = revision.spec.bundle_spec.resources.ephemeral_storage.is_some();
    on_disk.then(|| PathBuf::from(device_path(uid_of(revision))))
}

fn volume(device: &Device) -> Volume {
    Volume { device: device.path.clone(), mount_path: device.mount_path.clone() }
}

/// A container is alone on its network: even its neighbours are reached through the machine, which
/// lets pass what the rules allow.
fn network(revision: &Revision) -> Result<Network, RenderError> {
    let held = &revision.spec.allocation;
    let bad = || RenderError::Address(held.address.clone());
    let number = allocation::network_of(held).ok_or_else(bad)?;
    let addresses = [(&held.address, 32), (&held.address6, 128)].into_iter().filter(|(text, _)| !text.is_empty());
    let addresses = addresses.map(|(text, prefix)| match text.parse() {
        Ok(address) => Ok(InterfaceAddress { address, prefix }),
        Err(_) => Err(RenderError::Address(text.clone())),
    });
    let own = [allocation::gateway(held).map(IpAddr::V4), allocation::gateway6(held).map(IpAddr::V6)];
    let gateways: Vec<IpAddr> = own.into_iter().flatten().collect();
    Ok(Network {
        bridge: allocation::bridge_name(number),
        host_link: held.host_link.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
        nameservers: gateways.clone(),
        gateways,
    })
}

fn process(image: &ResolvedImage, wish: &BundleSpec) -> Process {
    let first = |own: &str, images: &str| if own.is_empty() { images.to_owned() } else { own.to_owned() };
    let cwd = first(wish.working_dir.as_deref().unwrap_or_default(), &image.working_dir);
    Process {
        args: arguments(image, wish),
        env: environment(image, wish),
        cwd: first(&cwd, "/"),
        user: first(wish.user.as_deref().unwrap_or_default(), &image.user),
    }
}

/// A bundle's `command` replaces the image's entrypoint *and* its default arguments; `args` replaces
/// the default arguments alone. (Kubernetes' rule.)
pub fn arguments(image: &ResolvedImage, wish: &BundleSpec) -> Vec<String> {
    match (wish.command.is_empty(), wish.args.is_empty()) {
        (true, true) => [image.entrypoint.as_slice(), image.cmd.as_slice()].concat(),
        (true, false) => [image.entrypoint.as_slice(), wish.args.as_slice()].concat(),
        (false, _) => [wish.command.as_slice(), wish.args.as_slice()].concat(),
    }
}

/// The image's variables, then the bundle's; a later one of the same name wins.
pub fn environment(image: &ResolvedImage, wish: &BundleSpec) -> Vec<String> {
    // What comes from elsewhere is provided beside the plan.
    let literal = |var: &&EnvVar| var.value_from.is_none() && template(var).is_none();
    let own = wish.env.iter().filter(literal).map(|var| format!("{}={}", var.name, var.value));
    let mut result: Vec<String> = Vec::new();
    for pair in [DEFAULT_PATH.to_owned()].into_iter().chain(image.env.iter().cloned()).chain(own) {
        let name = pair.split('=').next().unwrap_or_default();
        result.retain(|known| known.split('=').next() != Some(name));
        result.push(pair);
    }
    result
}

/// A process that begins as another user than root drops nothing later, so it gets what was asked
/// for by name and no more.
fn capabilities(user: &str, wish: &BundleSpec) -> Vec<String> {
    let root = matches!(user.split(':').next(), None | Some("" | "0" | "root"));
    let base: &[&str] = if root { &BASE_CAPABILITIES } else { &[] };
    let mut all: Vec<String> = base.iter().map(ToString::to_string).collect();
    all.extend(wish.security.extra_capabilities.iter().cloned());
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::resource::bundle::SecurityContext;
    use berth_model::resource::revision::{Allocation, RevisionSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn image() -> ResolvedImage {
        ResolvedImage {
            reference: "registry/web@sha256:00".into(),
            digest: "sha256:00".into(),
            layers: vec!["sha256:bb".into(), "sha256:aa".into()],
            entrypoint: vec!["/bin/web".into()],
            cmd: vec!["--serve".into()],
            env: vec!["LANG=C".into(), "MODE=image".into()],
            stop_signal: "SIGQUIT".into(),
            ..ResolvedImage::default()
        }
    }

    fn revision(spec: BundleSpec) -> Revision {
        Revision {
            metadata: ObjectMeta { namespace: Some("default".into()), ..ObjectMeta::default() },
            spec: RevisionSpec {
                bundle: "web".into(),
                number: 3,
                generation: 1,
                operation: String::new(),
                bundle_spec: spec,
                image: image(),
                allocation: Allocation {
                    address: "10.213.4.2".into(),
                    address6: "fd01:203:405:4::2".into(),
                    service: "10.213.132.2".into(),
                    service6: "fd01:203:405:84::2".into(),
                    id_base: 524_288,
                    host_link: "bv4-2".into(),
                },
                provided: String::new(),
                references: Vec::new(),
                environment: Vec::new(),
                restores: None,
            },
            status: None,
        }
    }

    #[test]
    fn a_plan_is_written_as_in_the_golden_file() {
        let wish = BundleSpec {
            env: vec![EnvVar { name: "MODE".into(), value: "mine".into(), ..EnvVar::default() }],
            security: SecurityContext { extra_capabilities: vec!["CAP_NET_RAW".into()], ..SecurityContext::default() },
            ..BundleSpec::default()
        };
        let data = Device { path: "/dev/mapper/berth-00".into(), mount_path: "/data".into() };
        let plan = plan(&revision(wish), Path::new("/layers"), &[data]).unwrap();
        let golden = include_str!("../../tests/golden/plan.json");
        assert_eq!(serde_json::to_string_pretty(&plan).unwrap(), golden.trim_end());
    }

    #[test]
    fn a_process_that_is_not_root_gets_no_capability_it_did_not_ask_for() {
        let wish = BundleSpec { user: Some("1000:1000".into()), ..BundleSpec::default() };
        let plan = plan(&revision(wish), Path::new("/layers"), &[]).unwrap();
        assert_eq!(plan.security.capabilities, Vec::<String>::new());
    }

    #[test]
    fn a_command_replaces_entrypoint_and_arguments_and_arguments_alone_only_themselves() {
        let with = |command: &[&str], args: &[&str]| {
            let own = |words: &[&str]| words.iter().map(ToString::to_string).collect();
            let wish = BundleSpec { command: own(command), args: own(args), ..BundleSpec::default() };
            arguments(&image(), &wish).join(" ")
        };
        assert_eq!(with(&[], &[]), "/bin/web --serve");
        assert_eq!(with(&[], &["--help"]), "/bin/web --help");
        assert_eq!(with(&["/bin/sh"], &[]), "/bin/sh");
    }

    #[test]
    fn a_bundle_that_names_no_limits_gets_half_a_core_and_half_a_gibibyte() {
        let request = request(&revision(BundleSpec::default()), &[]).unwrap();
        let limits = Limits { cpu_usec: 500_000, memory: 512 << 20, pids: 512, io_weight: 100 };
        assert_eq!((request.limits, request.stop_signal), (limits, 3));
    }

    #[test]
    fn an_unknown_stop_signal_is_refused_by_name() {
        assert_eq!(stop_signal("9").unwrap(), 9);
        assert_eq!(
            stop_signal("SIGNONE").unwrap_err().to_string(),
            "the image's stop signal `SIGNONE` is not one of this system's signals"
        );
    }
}
