//! The OCI specification of a container, rendered from its plan and from nothing else.
//!
//! What is left out matters as much as what is there. No `linux.resources`: every limit is a
//! property of the unit, and a runtime that sets limits would enable controllers all the way up.
//! No paths of namespaces: the container makes its own, so that its network namespace belongs to
//! its user namespace (fresh `/sys`, low ports, ping). No id-mapped mounts: all of that is done
//! before, and what is bound here is mapped already. No system call filter: the runtime would compile
//! one at every start, and launcher and `exec` load theirs themselves (see [`crate::seccomp`]); which,
//! an annotation says if it is not the usual one.

use std::path::Path;

use berth_model::plan::{Plan, SystemCalls};
use berth_model::provided::Directory;
use libcontainer::oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

use crate::devices;
use crate::paths::ContainerDir;
use crate::projections;
use crate::user::Identity;
use crate::volumes;

/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files and directories of `/proc` and `/sys` that say too much about the host.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Parts of `/proc` through which the host could be changed.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Below these the container sees mounts of its own and not the image.
pub const MOUNTED: [&str; 5] = ["/proc", "/dev", "/sys", "/tmp", "/run"];

/// Annotation under which `stopped` finds the host end of the network when the plan is gone.
pub const HOST_LINK: &str = "dev.berth.host-link";

/// Annotation under which the first process and later `exec` find the system call filters, as JSON of
/// [`SystemCalls`]; absent, they are the usual ones.
const SYSTEM_CALLS: &str = "dev.berth.system-calls";

/// `config.json` of a container that runs as `identity` in the control group `cgroup`.
///
/// `cgroup` is absolute below the root of the hierarchy.
pub fn render(plan: &Plan, provided: &[Directory], identity: &Identity, cgroup: &str, dir: &ContainerDir) -> Value {
    let map = json!([{ "containerID": 0, "hostID": plan.ids.base, "size": plan.ids.size }]);
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process(plan, identity),
        "root": { "path": dir.rootfs(), "readonly": plan.root.read_only },
        "hostname": plan.hostname,
        "mounts": mounts(plan, provided, dir),
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "user" },
                { "type": "network" },
                { "type": "pid" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
                { "type": "cgroup" },
            ],
            "uidMappings": map,
            "gidMappings": map,
            "sysctl": sysctl(plan),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    });
    let annotations = annotations(plan);
    if !annotations.is_empty() {
        spec["annotations"] = Value::Object(annotations);
    }
    spec
}

fn annotations(plan: &Plan) -> Map<String, Value> {
    let link = plan.network.as_ref().map(|network| (HOST_LINK.to_owned(), json!(network.host_link)));
    let calls = Some(&plan.security.system_calls).filter(|calls| !calls.is_default());
    let calls = calls.map(|calls| (SYSTEM_CALLS.to_owned(), json!(json!(calls).to_string())));
    link.into_iter().chain(calls).collect()
}

/// Which system calls the processes of a container may make.
///
/// # Errors
/// The specification says so in a way that this build does not know.
pub fn system_calls(spec: &Spec) -> Result<SystemCalls, serde_json::Error> {
    let said = spec.annotations().as_ref().and_then(|all| all.get(SYSTEM_CALLS));
    said.map_or(Ok(SystemCalls::default()), |said| serde_json::from_str(said))
}

fn process(plan: &Plan, identity: &Identity) -> Value {
    json!({
        "terminal": false,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "umask": 0o022,
            "additionalGids": identity.groups,
        },
        "args": plan.process.args,
        "env": environment(&plan.process.env, identity),
        "cwd": if plan.process.cwd.is_empty() { "/" } else { &plan.process.cwd },
        "capabilities": capabilities(&plan.security.capabilities, identity.uid),
        "noNewPrivileges": true,
    })
}

/// The environment with `PATH` and `HOME`, if it has none.
pub fn environment(given: &[String], identity: &Identity) -> Vec<String> {
    let mut environment = given.to_vec();
    for default in [DEFAULT_PATH.to_owned(), format!("HOME={}", identity.home)] {
        let name = default.split_inclusive('=').next().unwrap_or_default();
        if !environment.iter().any(|entry| entry.starts_with(name)) {
            environment.push(default);
        }
    }
    environment
}

/// The listed capabilities and no other. Root keeps them across exec by being root; for any other
/// user they have to be ambient, and so inheritable.
fn capabilities(listed: &[String], uid: u32) -> Value {
    let kept_by_exec: &[String] = if uid == 0 { &[] } else { listed };
    json!({
        "bounding": listed,
        "effective": listed,
        "permitted": listed,
        "inheritable": kept_by_exec,
        "ambient": kept_by_exec,
    })
}

/// Ping without CAP_NET_RAW for every group of the container; the kernel refuses a range that
/// goes beyond the ids that are mapped.
fn sysctl(plan: &Plan) -> Value {
    let last = plan.ids.size.saturating_sub(1);
    json!({ "net.ipv4.ping_group_range": format!("0 {last}") })
}

fn mounts(plan: &Plan, provided: &[Directory], dir: &ContainerDir) -> Vec<Value> {
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        bind(Path::new("/tmp"), &dir.scratch().join("tmp"), &[]),
    ];
    if plan.root.read_only {
        mounts.push(mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755", "size=16m"]));
    }
    let devices = plan.security.devices.iter().enumerate();
    mounts.extend(devices.map(|(number, path)| device(path, &devices::node(dir, number))));
    let volumes = plan.volumes.iter().enumerate();
    mounts.extend(volumes.map(|(number, volume)| bind(&volume.mount_path, &volumes::data(dir, number), &[])));
    let places = provided.iter().enumerate().map(|(index, directory)| (directory, projections::place(dir, index)));
    mounts.extend(places.map(|(directory, place)| bind(Path::new(&directory.path), &place, &["noexec", "ro"])));
    mounts
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

fn device(destination: &Path, node: &Path) -> Value {
    json!({ "destination": destination, "type": "bind", "source": node, "options": ["bind", "nosuid", "noexec"] })
}

fn bind(destination: &Path, source: &Path, more: &[&str]) -> Value {
    let options = [&["bind", "nosuid", "nodev"], more].concat();
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

#[cfg(test)]
mod tests {
    use berth_model::plan::Volume;

    use super::*;
    use crate::paths::Paths;
    use crate::testing;

    const CGROUP: &str = "/berth.slice/berth-default.slice/berth.default.web.r7.service/payload";

    fn rendered(plan: &Plan, identity: &Identity) -> Value {
        let dir = Paths::default().container(&plan.id.parse().unwrap());
        let files = Directory { path: "/etc/app".into(), owner: None, files: Vec::new() };
        let provided = if plan.provided { vec![files] } else { Vec::new() };
        render(plan, &provided, identity, CGROUP, &dir)
    }

    fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![], home: "/root".to_owned() }
    }

    fn www_data() -> Identity {
        Identity { uid: 33, gid: 33, groups: vec![4], home: "/var/www".to_owned() }
    }

    #[test]
    fn a_container_that_starts_as_root() {
        testing::golden("spec-root.json", &rendered(&testing::plan(), &root()));
    }

    #[test]
    fn a_container_of_a_user_with_a_read_only_root_and_no_network() {
        let mut plan = testing::plan();
        plan.network = None;
        plan.root.read_only = true;
        plan.provided = true;
        plan.process.cwd = String::new();
        testing::golden("spec-user.json", &rendered(&plan, &www_data()));
    }

    #[test]
    fn a_volume_lies_over_all_else_at_its_place() {
        let mut plan = testing::plan();
        plan.volumes = vec![Volume { device: "/dev/mapper/berth-00".into(), mount_path: "/var/lib/postgresql".into() }];
        let mounts = rendered(&plan, &root())["mounts"].take();
        let expected = json!({
            "destination": "/var/lib/postgresql",
            "type": "bind",
            "source": "/run/berth/container/default.web.r7/volumes/0/data",
            "options": ["bind", "nosuid", "nodev"],
        });
        assert_eq!(mounts.as_array().unwrap().last(), Some(&expected));
    }

    #[test]
    fn a_device_lies_where_the_machine_has_it_and_can_be_used_there() {
        let mut plan = testing::plan();
        plan.security.devices = vec!["/dev/ttyUSB0".into()];
        let mounts = rendered(&plan, &root())["mounts"].take();
        let expected = json!({
            "destination": "/dev/ttyUSB0",
            "type": "bind",
            "source": "/run/berth/container/default.web.r7/devices/0",
            "options": ["bind", "nosuid", "noexec"],
        });
        assert!(mounts.as_array().unwrap().contains(&expected), "{mounts}");
    }

    #[test]
    fn the_runtime_understands_what_is_rendered() {
        let spec: Spec = serde_json::from_value(rendered(&testing::plan(), &root())).unwrap();
        assert!(spec.linux().as_ref().unwrap().resources().is_none());
    }

    #[test]
    fn first_process_and_exec_find_the_same_filters() {
        for calls in [SystemCalls::RuntimeDefault, SystemCalls::Baseline, SystemCalls::Narrowed(vec![6, u64::MAX])] {
            let mut plan = testing::plan();
            plan.security.system_calls = calls.clone();
            let spec: Spec = serde_json::from_value(rendered(&plan, &root())).unwrap();
            assert_eq!(system_calls(&spec).unwrap(), calls);
        }
        let mut unknown = rendered(&testing::plan(), &root());
        unknown["annotations"][SYSTEM_CALLS] = json!("\"unconfined\"");
        assert!(system_calls(&serde_json::from_value(unknown).unwrap()).is_err());
    }

    #[test]
    fn an_image_may_set_path_and_home_itself() {
        let given = vec!["PATH=/opt".to_owned(), "HOME=/x".to_owned()];
        assert_eq!(environment(&given, &root()), given);
        assert_eq!(
            environment(&["PATHS=/opt".to_owned()], &www_data()),
            vec!["PATHS=/opt".to_owned(), DEFAULT_PATH.to_owned(), "HOME=/var/www".to_owned()]
        );
    }
}
