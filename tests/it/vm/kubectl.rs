//! Debian's own `kubectl` in the machine, by the verbs that people use on a service and its configuration.

use berth_model::kinds::KINDS;
use berth_tests::machine::Machine;

use super::{REGISTRY, eventually, shared};

/// A configuration that trusts Berth's authority and shows the owner's token, with a namespace that is made for it.
const SETUP: &str = "cat >/run/kubectl.config <<'END'
apiVersion: v1
kind: Config
current-context: berth
clusters:
- name: berth
  cluster: {server: 'https://localhost:6443', certificate-authority: /var/lib/berth/ca.crt}
users:
- name: owner
  user: {tokenFile: /var/lib/berth/token}
contexts:
- name: berth
  context: {cluster: berth, user: owner, namespace: kubectl}
END
kubectl --kubeconfig /run/kubectl.config create -f - <<'END'
apiVersion: v1
kind: Namespace
metadata: {name: kubectl}
END
";

/// One command; fails the test if it fails.
fn kubectl(machine: &Machine, line: &str) -> String {
    machine.ok(&format!("kubectl --kubeconfig /run/kubectl.config {line}")).unwrap()
}

/// The same with a manifest on standard input.
fn with(machine: &Machine, line: &str, manifest: &str) -> String {
    kubectl(machine, &format!("{line} -f - <<'END'\n{manifest}END\n"))
}

fn manifest(greeting: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata:
  name: greeting
data:
  GREETING: {greeting}
---
apiVersion: berth.dev/v1
kind: Bundle
metadata:
  name: shell
spec:
  image: 127.0.0.1:{REGISTRY}/testbox:latest
  command: [/usr/bin/sleep, \"1000000\"]
  envFrom:
  - configMapRef:
      name: greeting
"
    )
}

#[test]
fn a_stock_kubectl_lists_every_kind_and_explains_its_fields() {
    let (_lock, machine) = shared();
    machine.ok(SETUP).unwrap();
    let listed = kubectl(machine, "api-resources -o name");
    let mut listed: Vec<&str> = listed.lines().collect();
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| kind.key()).collect();
    listed.sort_unstable();
    wanted.sort();
    assert_eq!(listed, wanted);
    for kind in KINDS {
        let told = kubectl(machine, &format!("explain {}", kind.key()));
        let about = format!("KIND:       {}\n", kind.kind);
        assert!(told.contains(&about) && told.contains("DESCRIPTION:") && told.contains("FIELDS:"), "{told}");
    }
    let told = kubectl(machine, "explain bd.spec.ports.protocol");
    assert!(told.contains("FIELD: protocol <string>") && told.contains("TCP or UDP."), "{told}");
    let told = kubectl(machine, "explain bundle --recursive");
    assert!(told.contains("containerPort\t<integer> -required-"), "{told}");
    kubectl(machine, "delete --timeout=10m namespace/kubectl");
    machine.ok("rm /run/kubectl.config").unwrap();
}

#[test]
fn a_stock_kubectl_creates_changes_explains_compares_and_deletes_a_service_with_its_configuration() {
    let (_lock, machine) = shared();
    machine.ok(SETUP).unwrap();
    let created = with(machine, "create", &manifest("hello"));
    assert_eq!(created, "configmap/greeting created\nbundle.berth.dev/shell created");
    kubectl(machine, "wait --for=condition=Ready --timeout=10m bundle/shell");
    assert_eq!(kubectl(machine, "get all -o name"), "bundle.berth.dev/shell");

    let explained = kubectl(machine, "explain bundle.spec.envFrom");
    assert!(explained.contains("Whole ConfigMaps and Secrets as variables"), "{explained}");

    let changed = manifest("good-day");
    // It ends with 1 where something differs.
    let compared = kubectl(machine, &format!("diff -f - <<'END' || [ $? = 1 ]\n{changed}END\n"));
    assert!(compared.contains("-  GREETING: hello") && compared.contains("+  GREETING: good-day"), "{compared}");
    let applied = with(machine, "apply", &changed);
    assert_eq!(applied, "configmap/greeting configured\nbundle.berth.dev/shell configured");
    eventually(&"good-day".to_owned(), || {
        machine.ok("berth exec -n kubectl shell -- sh -c 'echo $GREETING' || true").unwrap()
    });
    assert!(with(machine, "apply", &changed).ends_with("bundle.berth.dev/shell unchanged"));

    kubectl(machine, "label bundle/shell configmap/greeting tier=front");
    assert_eq!(
        kubectl(machine, "get bundle,configmap -l tier=front -o name"),
        "bundle.berth.dev/shell\nconfigmap/greeting"
    );
    let refused = machine.sh(&format!(
        "kubectl --kubeconfig /run/kubectl.config apply -f - <<'END'\n{}END\n",
        changed.replace("  image:", "  imgae: web\n  image:")
    ));
    let refused = refused.unwrap();
    assert!(refused.code() == 1 && refused.errors().contains("spec.imgae"), "{}", refused.errors());

    kubectl(machine, "delete --timeout=10m bundle/shell configmap/greeting namespace/kubectl");
    assert_eq!(kubectl(machine, "get bundles --all-namespaces -l tier=front -o name"), "");
    machine.ok("rm /run/kubectl.config").unwrap();
}

#[test]
fn a_stock_kubectl_applies_on_the_server_with_conflicts_force_and_who_owns_what() {
    let (_lock, machine) = shared();
    machine.ok(SETUP).unwrap();
    let settings = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {data}\n");
    let first = settings("{colour: green, size: small}");
    assert_eq!(with(machine, "apply --server-side", &first), "configmap/settings serverside-applied");
    kubectl(machine, "patch configmap/settings --type=merge -p '{\"data\":{\"colour\":\"blue\"}}'");
    let refused =
        machine.sh(&format!("kubectl --kubeconfig /run/kubectl.config apply --server-side -f - <<'END'\n{first}END\n"));
    let refused = refused.unwrap();
    let told = refused.errors();
    assert!(
        refused.code() == 1 && told.contains("conflict with \"kubectl-patch\"") && told.contains(".data.colour"),
        "{told}"
    );

    let compare = "diff --server-side --force-conflicts -f - <<'END' || [ $? = 1 ]";
    let compared = kubectl(machine, &format!("{compare}\n{first}END\n"));
    assert!(compared.contains("-  colour: blue") && compared.contains("+  colour: green"), "{compared}");
    with(machine, "apply --server-side --force-conflicts", &first);
    let shown = kubectl(machine, "get configmap/settings --show-managed-fields -o yaml");
    assert!(shown.contains("operation: Apply") && shown.contains("f:colour: {}"), "{shown}");
    assert!(!shown.contains("manager: kubectl-patch"), "{shown}");

    with(machine, "apply --server-side", &settings("{colour: green}"));
    assert_eq!(kubectl(machine, "get configmap/settings -o jsonpath={.data}"), "{\"colour\":\"green\"}");

    // What was applied by the client before is the server's to prune afterwards.
    let moved = |data: &str| settings(data).replace("name: settings", "name: moved");
    with(machine, "apply", &moved("{a: one, b: two}"));
    with(machine, "apply --server-side", &moved("{a: one, b: two}"));
    with(machine, "apply --server-side", &moved("{a: one}"));
    assert_eq!(kubectl(machine, "get configmap/moved -o jsonpath={.data}"), "{\"a\":\"one\"}");

    kubectl(machine, "delete --timeout=10m namespace/kubectl");
    machine.ok("rm /run/kubectl.config").unwrap();
}

#[test]
fn a_stock_kubectl_makes_objects_without_a_file_and_asks_what_it_may_do() {
    let (_lock, machine) = shared();
    machine.ok(SETUP).unwrap();
    kubectl(machine, "create configmap settings --from-literal=colour=green");
    assert_eq!(kubectl(machine, "get configmap/settings -o jsonpath={.data.colour}"), "green");
    kubectl(machine, "create secret generic db --from-literal=password=canary");
    kubectl(machine, "create namespace kubectl-two");
    assert_eq!(kubectl(machine, "auth can-i create bundles.berth.dev"), "yes");
    assert!(kubectl(machine, "auth can-i --list").contains("bundles.berth.dev/exec"));
    assert!(kubectl(machine, "auth whoami").contains("owner"));
    kubectl(machine, "delete --timeout=10m namespace/kubectl namespace/kubectl-two");
    machine.ok("rm /run/kubectl.config").unwrap();
}
