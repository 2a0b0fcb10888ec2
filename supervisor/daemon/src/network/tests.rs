//! Rendering against golden files, and the kernel's own opinion of it.

use std::path::PathBuf;

use berth_host::nft;
use berth_model::allocation::{Held, Pool, allocate};
use berth_model::network::{Facts, MAX_RULES, Plan};
use berth_model::resource::bundle::{BundleSpec, Egress, Expose, Port, Protocol};
use berth_model::resource::revision::{RevisionSpec, RevisionState, RevisionStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct World {
    facts: Facts,
    held: Vec<Held>,
}

impl World {
    fn bundle(&mut self, namespace: &str, name: &str, spec: BundleSpec) -> &mut Self {
        let meta = |name: &str| ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            ..ObjectMeta::default()
        };
        let allocation = allocate(&self.held, Pool::default(), namespace, name, [1, 2, 3, 4, 5]).unwrap();
        let (owner, bundle) = (namespace.to_owned(), name.to_owned());
        self.held.push(Held { namespace: owner, bundle, in_use: true, allocation: allocation.clone() });
        self.facts.revisions.push(Revision {
            metadata: meta(&format!("{name}-r1")),
            spec: RevisionSpec {
                bundle: name.into(),
                number: 1,
                generation: 1,
                operation: String::new(),
                bundle_spec: spec.clone(),
                image: Default::default(),
                allocation,
                provided: String::new(),
                references: Vec::new(),
                environment: Vec::new(),
                restores: None,
            },
            status: Some(RevisionStatus { state: RevisionState::Active, ..RevisionStatus::default() }),
        });
        self.facts.bundles.push(Bundle { metadata: meta(name), spec, status: None });
        self
    }

    fn policy(&mut self, name: &str, spec: Value) -> &mut Self {
        let policy = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        self.facts.policies.push(serde_json::from_value(policy).unwrap());
        self
    }

    fn plan(&self) -> Plan {
        Plan::of(&self.facts)
    }
}

fn spec(port: u16, depends_on: &[&str]) -> BundleSpec {
    let ports = vec![Port { name: "main".into(), container_port: port, ..Port::default() }];
    let depends_on = depends_on.iter().map(ToString::to_string).collect();
    BundleSpec { start: true, ports, depends_on, ..BundleSpec::default() }
}

/// A published web server with a database that a policy guards, and a bundle of another namespace.
fn world() -> World {
    let mut world = World::default();
    let mut web = spec(80, &["db"]);
    web.ports[0].expose = Expose::Lan;
    web.ports[0].host_port = Some(8080);
    web.ports.push(Port { name: "talk".into(), container_port: 5000, protocol: Protocol::Udp, ..Port::default() });
    world.bundle("default", "web", web);
    world.bundle("default", "db", BundleSpec { egress: Egress::None, ..spec(5432, &[]) });
    world.bundle("team", "probe", BundleSpec { egress: Egress::All, ..spec(7, &[]) });
    let from = json!([{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]);
    let ports = json!([{"port": "main"}, {"port": 8000, "endPort": 8010}, {"protocol": "UDP"}]);
    world.policy(
        "guard",
        json!({
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": from, "ports": ports}, {"ports": [{"port": 9}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}, {}],
        }),
    );
    world.facts.settings.open_namespaces = vec!["team".into()];
    world
}

fn golden(name: &str, rendered: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&path, format!("{rendered}\n")).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let differing = rendered.lines().zip(expected.lines()).enumerate().find(|(_, (new, old))| new != old);
    assert!(
        rendered == expected.trim_end(),
        "{name} differs first at {differing:?}; if that is meant, set BERTH_BLESS"
    );
}

#[test]
fn pools_overlap_what_other_links_reach_and_not_what_is_ours() {
    let route = |link: &str, network: &str| Route { link: link.into(), network: network.parse().unwrap() };
    let pool = Pool::default();
    let found = |routes: &[Route]| overlaps(&[pool], routes.iter().cloned()).unwrap();
    let fine = [
        route("berth0", "10.213.0.1/24"),
        route("bv0-2", "10.213.0.2/32"),
        route("eth0", "10.0.2.15/24"),
        route("eth0", "10.214.0.0/16"),
        route("eth0", "fd00::1/64"),
    ];
    assert_eq!(found(&fine), Vec::<String>::new());
    let said = |other: &str| format!("the addresses of bundles, 10.213.0.0/16, overlap {other}: one hides the other");
    // An address with its route is told once; a wide route hides as much as a narrow one.
    let wrong = [
        route("lan0", "10.213.77.1/24"),
        route("lan0", "10.213.77.0/24"),
        route("tun0", "10.0.0.0/8"),
        route("", "10.213.0.0/20"),
    ];
    let reached = [
        "10.0.0.0/8, which is reached by link tun0",
        "10.213.0.0/20, which is reached by several links",
        "10.213.77.0/24, which is reached by link lan0",
    ];
    assert_eq!(found(&wrong), reached.map(said));
    assert_eq!(found(&[route("berths", "10.213.0.1/24")]).len(), 1);
}

#[test]
fn both_tables_are_rendered_as_in_the_golden_files() {
    let [rules, links] = rules::tables(&world().plan());
    golden("rules.json", &rules.to_json().unwrap());
    golden("links.json", &links.to_json().unwrap());
}

#[test]
fn a_bridge_has_the_machines_addresses_and_knows_its_neighbours() {
    let segments = segments(&world().plan());
    let shown: Vec<String> = segments[0].addresses.iter().map(|(one, prefix)| format!("{one}/{prefix}")).collect();
    assert_eq!(shown, ["10.213.0.1/24", "10.213.128.1/24", "fd01:203:405::1/64", "fd01:203:405:80::1/64"]);
    let web: IpAddr = "10.213.0.2".parse().unwrap();
    assert_eq!((segments[0].neighbours.len(), segments[0].neighbours[&web]), (4, [2, 0xbe, 10, 213, 0, 2]));
    assert_eq!((segments[1].bridge.as_str(), segments[1].neighbours.len()), ("berth1", 2));
}

#[test]
fn without_bundles_both_tables_still_shut_what_they_are_there_to_shut() {
    let [rules, links] = rules::tables(&Plan::default());
    for text in [rules.to_json().unwrap(), links.to_json().unwrap()] {
        assert!(text.contains("nothing else"), "{text}");
    }
}

/// Puts the thread of this test into a network namespace of its own; false, and said, where it may not.
fn apart() -> bool {
    let entered = unshare(CloneFlags::CLONE_NEWNET);
    if let Err(error) = entered {
        eprintln!("skipped: needs to be root for a network namespace ({error})");
    }
    entered.is_ok()
}

#[tokio::test]
async fn netns_the_kernel_takes_both_tables_empty_and_full() {
    if !apart() {
        return;
    }
    nft::apply_together(&rules::tables(&Plan::default())).await.unwrap();
    nft::apply_together(&rules::tables(&world().plan())).await.unwrap();
    let family = nft::types::NfFamily::Bridge;
    assert!(nft::read(family, rules::TABLE).await.unwrap().is_some());
    nft::apply_together(&rules::tables(&Plan::default())).await.unwrap();
}

#[tokio::test]
async fn netns_the_kernel_takes_as_many_rules_as_policies_may_have() {
    if !apart() {
        return;
    }
    let mut world = world();
    let rules: Vec<Value> = (0..MAX_RULES)
        .map(|n| json!({"from": [{"ipBlock": {"cidr": format!("192.0.{}.{}/32", n / 250, n % 250)}}], "ports": [{"port": n + 1}]}))
        .collect();
    for number in 0..20 {
        world.policy(&format!("p{number}"), json!({"podSelector": {}, "ingress": rules}));
    }
    let plan = world.plan();
    assert_eq!(plan.problems.len(), 1, "{:?}", plan.problems);
    let began = std::time::Instant::now();
    nft::apply_together(&rules::tables(&plan)).await.unwrap();
    println!("10,000 rules: {} ms", began.elapsed().as_millis());
}
