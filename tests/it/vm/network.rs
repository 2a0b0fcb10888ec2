//! Who reaches whom: tried from inside the containers' networks, over every pair and port.
//!
//! Two namespaces hold four bundles each, of the same names. Every bundle listens on three ports and declares two. The
//! guest's Python (xfsprogs brings it) tries connections and sends frames from within a container's network namespace.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use berth_tests::machine::Machine;
use berth_tests::pace;
use serde_json::Value;

use super::{Place, eventually, first_shared, own};

const NAMESPACES: [&str; 2] = ["net-a", "net-b"];
/// Bundles and what they depend on in their own namespace.
const BUNDLES: [(&str, &str); 4] = [("web", "api"), ("api", "db"), ("db", ""), ("job", "db")];
/// Declared; they listen on 9001, too.
const DECLARED: [u16; 2] = [80, 9000];
const UNDECLARED: u16 = 9001;

static WORLD: LazyLock<Mutex<()>> = LazyLock::new(|| {
    let (_lock, machine) = first_shared();
    for (name, text) in [
        ("probe.py", include_str!("network/probe.py")),
        ("talk.py", include_str!("network/talk.py")),
        ("frames.py", include_str!("network/frames.py")),
    ] {
        machine.put(&format!("/run/{name}"), text.as_bytes(), 0o644).unwrap();
    }
    for namespace in NAMESPACES {
        apply(machine, &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"));
        for (name, depends_on) in BUNDLES {
            install(machine, namespace, name, depends_on);
        }
    }
    Mutex::default()
});

/// A shared machine with all bundles in it, for one test at a time: policies are everybody's.
fn world() -> (MutexGuard<'static, ()>, Place, &'static Machine) {
    let mine = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let (lock, machine) = first_shared();
    (mine, lock, machine)
}

fn apply(machine: &Machine, manifest: &str) {
    machine.put("/run/manifest.yaml", manifest.as_bytes(), 0o600).unwrap();
    machine.ok("berth apply -f /run/manifest.yaml").unwrap();
}

fn install(machine: &Machine, namespace: &str, name: &str, depends_on: &str) {
    let serve = "busybox nc -ll -p 9000 -e cat & busybox httpd -f -p 9001 & exec busybox httpd -f -p 80";
    let bundle = format!(
        "{{apiVersion: berth.dev/v1, kind: Bundle, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{
           image: '127.0.0.1:5000/testbox:latest', command: [/usr/bin/sh, -c, '{serve}'], egress: lan,
           ports: [{{name: http, containerPort: 80}}, {{name: echo, containerPort: 9000}}],
           resources: {{memory: 32Mi}}, dependsOn: [{depends_on}]}}}}"
    );
    machine.put("/run/bundle.yaml", bundle.as_bytes(), 0o600).unwrap();
    machine.ok(&format!("berth -n {namespace} install --timeout 10m -f /run/bundle.yaml")).unwrap();
}

fn main_pid(machine: &Machine, bundle: &str) -> String {
    let unit = format!("berth.{}.r1.service", bundle.replace('/', "."));
    machine.ok(&format!("systemctl show -P MainPID {unit}")).unwrap()
}

/// All bundles of this world with their addresses: own and of the revision that serves, IPv4 first.
fn addresses(machine: &Machine) -> Vec<(String, Vec<String>, Vec<String>)> {
    let status: Value = serde_json::from_str(&machine.ok("berth network status -o json").unwrap()).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let networks = status["networks"].as_array().unwrap().iter();
    let ours = networks.filter(|network| NAMESPACES.contains(&network["namespace"].as_str().unwrap()));
    let bundles = ours.flat_map(|network| {
        let name =
            |bundle: &Value| format!("{}/{}", network["namespace"].as_str().unwrap(), bundle["name"].as_str().unwrap());
        let bundles = network["bundles"].as_array().unwrap().iter();
        bundles.map(|one| (name(one), texts(&one["service"]), texts(&one["serving"]))).collect::<Vec<_>>()
    });
    bundles.collect()
}

/// What answers, as `net-a/web net-a/api 80 service4`: every pair and port, by both kinds of address of both families.
fn answered(machine: &Machine) -> BTreeSet<String> {
    let bundles = addresses(machine);
    assert_eq!(bundles.len(), NAMESPACES.len() * BUNDLES.len());
    let mut script = String::new();
    for (from, _, _) in &bundles {
        let pid = main_pid(machine, from);
        writeln!(script, "nsenter -t {pid} -n python3 /run/probe.py <<'END'").unwrap();
        for (to, service, serving) in &bundles {
            let ways =
                [("service4", &service[0]), ("own4", &serving[0]), ("service6", &service[1]), ("own6", &serving[1])];
            for (port, (way, address)) in
                DECLARED.into_iter().chain([UNDECLARED]).flat_map(|port| ways.map(|way| (port, way)))
            {
                writeln!(script, "{from} {to} {port} {way} {address} {port}").unwrap();
            }
        }
        script.push_str("END\n");
    }
    // In a file, as it is too long for a command.
    machine.put("/run/pairs.sh", script.as_bytes(), 0o600).unwrap();
    machine.ok("sh /run/pairs.sh").unwrap().lines().map(str::to_owned).collect()
}

/// What should answer: a bundle itself, and declared ports of declared dependencies.
fn declared() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for namespace in NAMESPACES {
        for (name, depends_on) in BUNDLES {
            let from = format!("{namespace}/{name}");
            all.extend(ways(&from, &from, &[80, 9000, UNDECLARED]));
            if !depends_on.is_empty() {
                all.extend(ways(&from, &format!("{namespace}/{depends_on}"), &DECLARED));
            }
        }
    }
    all
}

/// The busybox servers listen on IPv4 and IPv6 alike.
fn ways(from: &str, to: &str, ports: &[u16]) -> Vec<String> {
    let ways = ["service4", "own4", "service6", "own6"];
    ports.iter().flat_map(|port| ways.map(|way| format!("{from} {to} {port} {way}"))).collect()
}

#[track_caller]
fn assert_same(seen: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let (more, less): (Vec<_>, Vec<_>) = (seen.difference(expected).collect(), expected.difference(seen).collect());
    assert!(more.is_empty() && less.is_empty(), "answered although it should not: {more:?}; not answered: {less:?}");
}

/// Swaps in the background: each waits until the kernel has another table.
fn swaps(count: usize) -> String {
    format!(
        "for i in $(seq {count}); do before=$(nft -j list tables); \
         echo \"{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: of-nobody, namespace: net-a}}, \
         spec: {{podSelector: {{matchLabels: {{nobody: is-it}}}}, ingress: [{{ports: [{{port: $((i + 1000))}}]}}]}}}}\" \
         | berth apply -f - >/dev/null || exit 1; \
         until [ \"$(nft -j list tables)\" != \"$before\" ]; do sleep 0.1; done; done; echo swapped $i times"
    )
}

#[test]
fn exactly_the_declared_ports_answer_before_during_and_after_swaps_and_connections_live_on() {
    let (_mine, _lock, machine) = world();
    let expected = declared();
    assert_same(&answered(machine), &expected);

    let bundles = addresses(machine);
    let api = &bundles.iter().find(|(name, _, _)| name == "net-a/api").unwrap().1[0];
    let talk = format!("nsenter -t {} -n python3 /run/talk.py {api} 9000", main_pid(machine, "net-a/web"));
    let talk = machine.start(&talk).unwrap();
    let hears = || {
        talk.stdin().write(b"\n").unwrap();
        talk.until(pace::boots(4.0), |line| line.starts_with("heard")).unwrap();
    };
    hears();

    let count = if super::is_long() { 50 } else { 5 };
    let swapping = machine.start(&swaps(count)).unwrap();
    assert_same(&answered(machine), &expected);
    hears();
    let out = swapping.finish(pace::boots(40.0)).unwrap();
    assert!(out.text().contains(&format!("swapped {count} times")), "{} {}", out.text(), out.errors());
    assert_same(&answered(machine), &expected);
    hears();
    machine.ok("berth -n net-a delete networkpolicy of-nobody").unwrap();
}

#[test]
fn a_bundle_reaches_no_port_of_the_machine_and_the_machine_reaches_the_bundle() {
    let (_mine, _lock, machine) = world();
    let listening = machine.ok("ss -Hltn | awk '{print $4}' | grep -o '[0-9]*$' | sort -un").unwrap();
    assert!(
        listening.lines().any(|port| port == "6443") && listening.lines().any(|port| port == "5000"),
        "{listening}"
    );
    let own = machine.ok("ip -o addr show scope global | awk '{print $4}' | cut -d/ -f1").unwrap();
    let mut script = format!("nsenter -t {} -n python3 /run/probe.py <<'END'\n", main_pid(machine, "net-a/web"));
    for address in own.lines() {
        for port in listening.lines() {
            writeln!(script, "{address} {port} {address} {port}").unwrap();
        }
    }
    let answered = machine.ok(&(script + "END\n")).unwrap();
    let others: Vec<&str> = answered.lines().filter(|line| !line.ends_with(" 53")).collect();
    assert_eq!(others, Vec::<&str>::new(), "only the name server should have answered");
    let servers = answered.lines().filter(|line| line.ends_with(" 53")).count();
    assert_eq!(servers, 2, "the name server of its own bridge, in both families: {answered}");

    let (_, service, _) = &addresses(machine)[0];
    machine.ok(&format!("curl --silent --output /dev/null --max-time 60 http://{}/", service[0])).unwrap();
}

#[test]
fn frames_in_the_name_of_another_arrive_nowhere() {
    let (_mine, _lock, machine) = world();
    let bundles = addresses(machine);
    let find = |name: &str| bundles.iter().find(|(own, _, _)| own == name).unwrap().2.clone();
    let (own, other) = (find("net-a/web"), find("net-a/db"));
    let bridge = format!("berth{}", own[0].split('.').nth(2).unwrap());
    let line = format!(
        "python3 /run/frames.py {bridge} {} {} {} {} {} {} $(cat /sys/class/net/{bridge}/address)",
        main_pid(machine, "net-a/web"),
        main_pid(machine, "net-a/db"),
        own[0],
        other[0],
        own[1],
        other[1]
    );
    let seen = machine.ok(&line).unwrap();
    // What goes to everybody in its own name reaches the machine, and nobody else.
    assert_eq!(seen, "on the bridge: own address\non the bridge: to everybody\non the bridge: the end");
    // Whom the machine takes for whom has not changed either.
    let known = machine.ok(&format!("ip neigh show dev {bridge} nud permanent | grep -c PERMANENT")).unwrap();
    assert_eq!(known, "8");
}

#[test]
#[ignore = "long tier"]
fn a_policy_replaces_what_was_declared_and_its_verdict_is_told_with_the_rule() {
    let (_mine, _lock, machine) = world();
    apply(
        machine,
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: guard, namespace: net-a}, spec: {
           podSelector: {matchLabels: {app.kubernetes.io/name: db}}, ingress: [
             {from: [{podSelector: {matchLabels: {app.kubernetes.io/name: web}}}], ports: [{port: 9001}]},
             {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: net-b}},
                      podSelector: {matchLabels: {app.kubernetes.io/name: job}}}], ports: [{port: echo}]}]}}",
    );
    let mut expected: BTreeSet<String> = declared();
    expected.retain(|line| line.starts_with("net-a/db ") || !line.contains(" net-a/db "));
    expected.extend(ways("net-a/web", "net-a/db", &[9001]));
    expected.extend(ways("net-b/job", "net-a/db", &[9000]));
    eventually(&expected, || answered(machine));

    let told = machine.ok("berth policy debug net-b/job net-a/db 9000").unwrap();
    assert!(
        told.starts_with("allowed  9000/tcp") && told.contains("net-a/guard allows it (spec.ingress[1])"),
        "{told}"
    );
    let told = machine.ok("berth -n net-a policy debug api db").unwrap();
    assert_eq!(told.matches("denied").count(), 2, "{told}");
    assert!(told.contains("no ingress rule of NetworkPolicy net-a/guard allows it"), "{told}");

    machine.ok("berth -n net-a delete networkpolicy guard").unwrap();
    eventually(&declared(), || answered(machine));
    let told = machine.ok("berth -n net-a policy debug web db 80").unwrap();
    assert!(told.starts_with("denied") && told.contains("spec.dependsOn"), "{told}");
}

#[test]
#[ignore = "long tier"]
fn an_open_namespace_needs_no_declarations_from_the_moment_the_settings_say_so() {
    let (_mine, _lock, machine) = world();
    let set = |names: &str| {
        let settings = format!(
            "{{apiVersion: berth.dev/v1, kind: Settings, metadata: {{name: berth}}, \
             spec: {{network: {{openNamespaces: [{names}]}}}}}}"
        );
        apply(machine, &settings);
    };
    let mains = || BUNDLES.map(|(name, _)| main_pid(machine, &format!("net-b/{name}")));
    let before = mains();
    set("net-b");
    let mut expected = declared();
    for (from, to) in BUNDLES.iter().flat_map(|(from, _)| BUNDLES.map(|(to, _)| (from, to))) {
        expected.extend(ways(&format!("net-b/{from}"), &format!("net-b/{to}"), &[80, 9000, UNDECLARED]));
    }
    eventually(&expected, || answered(machine));
    let told = machine.ok("berth -n net-b policy debug web db 9001").unwrap();
    assert!(told.starts_with("allowed") && told.contains("namespace net-b is open"), "{told}");
    let told = machine.ok("berth -n net-b dns lookup web --from db").unwrap();
    assert!(told.contains("web.net-b.berth.internal"), "{told}");

    set("");
    eventually(&declared(), || answered(machine));
    assert_eq!(mains(), before, "a service was started again");
    let said = super::refused(machine, "delete settings berth");
    assert!(said.contains("it is always there"), "{said}");
}

#[test]
#[ignore = "long tier"]
fn a_pool_that_overlaps_the_lan_takes_nobody_new_and_those_who_run_go_on() {
    let (_alone, machine) = super::disturbed();
    super::install(machine, "resident", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    let page = super::page(machine, 8081);
    machine.ok("ip link add lan0 type dummy && ip addr add 10.213.77.1/24 dev lan0 && ip link set lan0 up").unwrap();
    let overlap = "10.213.0.0/16, overlap 10.213.77.0/24, which is reached by link lan0";
    let said = super::refused(machine, "install 127.0.0.1:5000/nginx:1 --name newcomer --timeout 5m");
    assert!(said.contains("AddressPoolOverlap") && said.contains(overlap) && said.contains("berthd.toml"), "{said}");
    eventually(&true, || machine.sh("berth network status").unwrap().errors().contains(overlap));
    // The log and the status tell of it at each look, an event once.
    let events = "berth get events -A -o json | jq -r '[.items[] | select(.reason == \"AddressPoolOverlap\" and \
                  .involvedObject.kind == \"Settings\")] | \"\\(length) \\(.[0].message)\"'";
    eventually(&true, || {
        machine.ok(events).unwrap().starts_with("1 ") && machine.ok(events).unwrap().contains(overlap)
    });
    assert_eq!(super::page(machine, 8081), page);
    machine.ok("berth restart resident --timeout 10m").unwrap();
    assert_eq!(super::page(machine, 8081), page);
    super::uninstall(machine, "newcomer resident");

    let said = machine.sh("/usr/lib/berth/berthd --network-pool 10.213.0.0/24 setup").unwrap().errors();
    assert!(said.contains("is not as large as it has to be"), "{said}");
    let set = "printf '[network]\\npool = \"172.20.0.0/16\"\\n' >/etc/berth/berthd.toml";
    machine.ok(&format!("mkdir -p /etc/berth && {set} && systemctl restart berthd")).unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
    super::install(machine, "resident", "127.0.0.1:5000/nginx:1 --publish 8081:80");
    assert_eq!(super::page(machine, 8081), page);
    let address = super::bundle(machine, "resident")["status"]["address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("172.20."), "{address}");
    super::uninstall(machine, "resident");
    machine.ok("ip link del lan0; rm /etc/berth/berthd.toml; systemctl restart berthd").unwrap();
    eventually(&true, || machine.sh("berth get bundles").unwrap().success());
}

#[test]
#[ignore = "long tier"]
fn a_policy_of_ten_thousand_rules_is_refused_with_the_bound_and_changes_nothing() {
    let (_mine, _lock, machine) = world();
    let rules: Vec<String> = (0..10_000).map(|n| format!("{{ports: [{{port: {}}}]}}", n + 1)).collect();
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: vast, namespace: net-a}}, \
         spec: {{podSelector: {{}}, ingress: [{}]}}}}",
        rules.join(", ")
    );
    machine.put("/run/vast.yaml", policy.as_bytes(), 0o600).unwrap();
    let said = super::refused(machine, "apply -f /run/vast.yaml");
    assert!(said.contains("has 10000 rules") && said.contains("at most 500"), "{said}");
    let policies = machine.ok("berth -n net-a get networkpolicies -o json | jq '.items | length'").unwrap();
    assert_eq!(policies, "0");
    assert_same(&answered(machine), &declared());
}

#[test]
#[ignore = "long tier"]
fn names_are_told_with_the_supervisor_dead_too_and_rules_that_were_flushed_come_back() {
    let (mut machine, _alone) = own("names");
    apply(&machine, "{apiVersion: v1, kind: Namespace, metadata: {name: net-a}}");
    install(&machine, "net-a", "api", "db");
    install(&machine, "net-a", "db", "");
    machine.put("/run/resolver.py", include_str!("network/resolver.py").as_bytes(), 0o644).unwrap();
    machine.ok("echo nameserver 127.0.0.53 >/etc/resolv.conf; systemd-run --quiet python3 /run/resolver.py").unwrap();
    let db = addresses(&machine).into_iter().find(|(name, _, _)| name == "net-a/db").unwrap().1;

    // With the container's own busybox, files and network.
    let asks = |bundle: &str, question: &str| {
        let line = format!("nsenter -t {} -m -n /usr/bin/busybox nslookup {question}", main_pid(&machine, bundle));
        let out = machine.sh(&line).unwrap();
        out.text() + &out.errors()
    };
    eventually(&true, || asks("net-a/api", "db").contains(&db[0]));
    machine.ok("systemctl kill --signal=KILL berthd; systemctl stop berthd").unwrap();
    for name in ["db", "db.net-a", "db.net-a.berth.internal"] {
        let told = asks("net-a/api", name);
        assert!(told.contains(&db[0]) && told.contains(&db[1]), "{name}: {told}");
    }
    let told = asks("net-a/api", "-type=srv _echo._tcp.db");
    assert!(told.contains("0 0 9000 db.net-a.berth.internal"), "{told}");
    let told = asks("net-a/api", &db[0]);
    assert!(told.contains("db.net-a.berth.internal"), "{told}");
    let told = asks("net-a/api", "host.outside.example");
    assert!(told.contains("192.0.2.77"), "{told}");
    for (bundle, name) in
        [("net-a/db", "api"), ("net-a/db", "api.net-a.berth.internal"), ("net-a/api", "nosuch.example")]
    {
        let told = asks(bundle, name);
        assert!(told.contains("NXDOMAIN"), "{bundle} {name}: {told}");
    }

    machine.ok("systemctl start berthd").unwrap();
    let told = machine.ok("berth -n net-a dns lookup db --from api").unwrap();
    assert!(told.contains(&db[0]), "{told}");

    // What another program takes away comes back by itself.
    machine.ok("nft flush ruleset").unwrap();
    let tables = || machine.ok("nft list tables | sort").unwrap();
    eventually(&"table bridge berth\ntable inet berth".to_owned(), tables);
    machine.power_off().unwrap();
}

#[test]
#[ignore = "long tier"]
fn who_comes_to_an_address_meets_no_connection_of_whoever_had_it_before() {
    let (mut machine, _alone) = own("former");
    apply(&machine, "{apiVersion: v1, kind: Namespace, metadata: {name: net-a}}");
    machine.put("/run/talk.py", include_str!("network/talk.py").as_bytes(), 0o644).unwrap();
    install(&machine, "net-a", "web", "api");
    install(&machine, "net-a", "api", "");
    let own_address = |name: &str| -> String {
        let all = addresses(&machine);
        all.iter().find(|(own, _, _)| own == name).unwrap().2[0].clone()
    };
    // Connections that are half over are remembered for a minute otherwise, which may not be enough here.
    machine.ok("for file in /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_*; do echo 86400 >$file; done").unwrap();
    let first = own_address("net-a/api");
    let talk = format!("nsenter -t {} -n python3 /run/talk.py {first} 9000", main_pid(&machine, "net-a/web"));
    let talk = machine.start(&talk).unwrap();
    talk.stdin().write(b"\n").unwrap();
    talk.until(pace::boots(4.0), |line| line.starts_with("heard")).unwrap();
    let between = format!("src={} dst={first} .*dport=9000", own_address("net-a/web"));
    let tracked = || machine.ok(&format!("grep -c '{between}' /proc/net/nf_conntrack; true")).unwrap();
    assert_eq!(tracked(), "1");

    // Its process is stopped, so that it neither sends nor ends anything; then another bundle gets the address.
    machine.ok("pkill -STOP -f '[t]alk.py'").unwrap();
    machine.ok("berth -n net-a uninstall api --timeout 10m").unwrap();
    assert_eq!(tracked(), "1");
    install(&machine, "net-a", "other", "");
    assert_eq!(own_address("net-a/other"), first, "this test wants the address to be given again");
    assert_eq!(tracked(), "0");
    machine.power_off().unwrap();
}
