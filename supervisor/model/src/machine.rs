//! The machine and what runs on it as they are measured, in Kubernetes' words: Node, NodeMetrics and PodMetrics.
//!
//! Nothing of this is stored: an object is made of a look at the machine when it is asked for.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::usage::{BundleUsage, Usage, per_second};

/// Name of the machine's only Node. Its host name may change, and is a label and an address of it.
pub const NODE: &str = "berth";

/// A look at the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What stays the same until its next start.
    pub facts: Facts,
    /// When Berth was set up here.
    pub made: Timestamp,
    /// When the look was taken.
    pub now: Timestamp,
    /// What is used now.
    pub usage: Usage,
    /// What was used a moment before; absent where no rates were asked for.
    pub before: Option<Usage>,
}

/// What the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its host name.
    pub hostname: String,
    /// Where it is reached, links of containers left out.
    pub addresses: Vec<IpAddr>,
    /// The id of `/etc/machine-id`.
    pub machine_id: String,
    /// The id of this boot.
    pub boot_id: String,
    /// `6.12.48-amd64`.
    pub kernel: String,
    /// `Debian GNU/Linux 13 (trixie)`.
    pub system: String,
    /// As Kubernetes has it, `amd64` or `arm64`.
    pub architecture: String,
    /// Berth's own version.
    pub version: String,
}

/// The machine as a Node.
pub fn nodes(machine: &Machine) -> Vec<Value> {
    let Machine { facts, usage, .. } = machine;
    let mut metadata = metadata(machine, "", NODE);
    metadata["uid"] = facts.machine_id.clone().into();
    metadata["labels"] = json!({
        "kubernetes.io/arch": facts.architecture,
        "kubernetes.io/hostname": facts.hostname,
        "kubernetes.io/os": "linux",
    });
    let capacity = json!({
        "cpu": usage.machine.cores.to_string(),
        "ephemeral-storage": usage.machine.disk.total.to_string(),
        "memory": kibibytes(usage.machine.memory),
    });
    let said = "the supervisor answers";
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "SupervisorReady", "message": said,
        "lastHeartbeatTime": second(machine.now), "lastTransitionTime": second(started(machine)),
    });
    vec![json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {},
        "status": {
            "addresses": addresses(facts),
            "allocatable": capacity,
            "capacity": capacity,
            "conditions": [ready],
            "nodeInfo": node_info(facts),
        },
    })]
}

/// What the machine uses, as NodeMetrics.
pub fn node_metrics(machine: &Machine) -> Vec<Value> {
    let now = &machine.usage.machine;
    let before = machine.before.as_ref().map(|before| before.machine.cpu_us);
    let told = |cpu| {
        let used = used(cpu, now.memory.saturating_sub(now.memory_available));
        measured(machine, "NodeMetrics", metadata(machine, "", NODE), json!({ "usage": used }))
    };
    rate(machine, before, Some(now.cpu_us)).map(told).into_iter().collect()
}

/// What each bundle uses, as PodMetrics, if both looks found it counted: a nought would be believed.
pub fn pod_metrics(machine: &Machine) -> Vec<Value> {
    machine.usage.bundles.iter().filter_map(|one| of_bundle(machine, one)).collect()
}

fn of_bundle(machine: &Machine, now: &BundleUsage) -> Option<Value> {
    let before = machine.before.as_ref()?.bundle(&now.namespace, &now.name)?.cpu_us;
    let used = used(rate(machine, before, now.cpu_us)?, now.memory?);
    let containers = json!({ "containers": [{ "name": now.name, "usage": used }] });
    Some(measured(machine, "PodMetrics", metadata(machine, &now.namespace, &now.name), containers))
}

fn measured(machine: &Machine, kind: &str, metadata: Value, mut more: Value) -> Value {
    more["apiVersion"] = "metrics.k8s.io/v1beta1".into();
    more["kind"] = kind.into();
    more["metadata"] = metadata;
    more["timestamp"] = second(machine.now);
    more["window"] = format!("{:.3}s", window(machine) as f64 / 1e6).into();
    more
}

/// Microseconds between the two looks.
fn window(machine: &Machine) -> u64 {
    machine.before.as_ref().map_or(0, |before| machine.usage.taken_us.saturating_sub(before.taken_us))
}

/// Billionths of a core.
fn rate(machine: &Machine, before: Option<u64>, now: Option<u64>) -> Option<u64> {
    per_second(before, now, window(machine)).map(|micro| micro.saturating_mul(1000))
}

fn used(cpu: u64, memory: u64) -> Value {
    json!({ "cpu": format!("{cpu}n"), "memory": kibibytes(memory) })
}

fn kibibytes(bytes: u64) -> String {
    format!("{}Ki", bytes / 1024)
}

fn metadata(machine: &Machine, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({ "name": name, "creationTimestamp": second(machine.made) });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn started(machine: &Machine) -> Timestamp {
    let since = jiff::SignedDuration::from_secs(i64::try_from(machine.usage.machine.uptime).unwrap_or_default());
    machine.now.checked_sub(since).unwrap_or(machine.now)
}

/// Kubernetes' times have whole seconds.
fn second(time: Timestamp) -> Value {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string().into()
}

fn addresses(facts: &Facts) -> Vec<Value> {
    let mut known: Vec<Value> =
        facts.addresses.iter().map(|one| json!({ "type": "InternalIP", "address": one })).collect();
    known.push(json!({ "type": "Hostname", "address": facts.hostname }));
    known
}

fn node_info(facts: &Facts) -> Value {
    json!({
        "architecture": facts.architecture,
        "bootID": facts.boot_id,
        "containerRuntimeVersion": format!("berth://{}", facts.version),
        "kernelVersion": facts.kernel,
        "kubeProxyVersion": "",
        "kubeletVersion": format!("v{}", facts.version),
        "machineID": facts.machine_id,
        "operatingSystem": "linux",
        "osImage": facts.system,
        "systemUUID": facts.machine_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::MachineUsage;

    fn look(taken_us: u64, cpu_us: u64, bundles: Vec<BundleUsage>) -> Usage {
        let machine = MachineUsage { cores: 2, cpu_us, memory: 4096, memory_available: 1024, ..Default::default() };
        Usage::new(taken_us, machine, bundles)
    }

    fn bundle(name: &str, cpu_us: Option<u64>) -> BundleUsage {
        BundleUsage {
            namespace: "default".into(),
            name: name.into(),
            cpu_us,
            memory: cpu_us.map(|_| 2048),
            ..Default::default()
        }
    }

    fn machine() -> Machine {
        let facts = Facts { hostname: "harbour".into(), addresses: vec![[192, 0, 2, 7].into()], ..Facts::default() };
        Machine {
            facts,
            made: "2026-01-01T00:00:00Z".parse().unwrap(),
            now: "2026-01-02T00:00:00.5Z".parse().unwrap(),
            before: Some(look(1_000_000, 5_000_000, vec![bundle("web", Some(100_000))])),
            usage: look(
                3_000_000,
                6_000_000,
                vec![bundle("web", Some(600_000)), bundle("idle", None), bundle("new", Some(9))],
            ),
        }
    }

    #[test]
    fn the_machine_is_a_node_that_has_what_it_has() {
        let [node] = &nodes(&machine())[..] else { panic!("one node") };
        assert_eq!(
            (&node["metadata"]["name"], &node["status"]["capacity"]["memory"]),
            (&json!("berth"), &json!("4Ki"))
        );
        let reached =
            json!([{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "harbour"}]);
        assert_eq!(node["status"]["addresses"], reached);
        assert_eq!(node["status"]["conditions"][0]["lastHeartbeatTime"], "2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_node_is_one_of_kubernetes_own() {
        use k8s_openapi::api::core::v1::Node;
        let [node] = &nodes(&machine())[..] else { panic!("one node") };
        let read: Node = serde_json::from_value(node.clone()).unwrap();
        assert_eq!(&serde_json::to_value(read).unwrap(), node);
    }

    #[test]
    fn rates_are_between_two_looks_and_what_one_of_them_did_not_find_is_not_told() {
        let [node] = &node_metrics(&machine())[..] else { panic!("one node") };
        assert_eq!(
            (&node["usage"], &node["window"]),
            (&json!({"cpu": "500000000n", "memory": "3Ki"}), &json!("2.000s"))
        );
        let [pod] = &pod_metrics(&machine())[..] else { panic!("one pod") };
        let used = json!([{"name": "web", "usage": {"cpu": "250000000n", "memory": "2Ki"}}]);
        assert_eq!((&pod["metadata"]["name"], &pod["containers"]), (&json!("web"), &used));
    }
}
