//! Debian's own `kubectl` in the machine, by the verbs that people use on a service and its configuration.

mod sent;

use berth_model::kinds::KINDS;
use berth_tests::channel::Running;
use berth_tests::machine::Machine;

use super::{REGISTRY, disturbed, eventually, shared};

/// kubectl with a configuration that trusts Berth's authority and shows the owner's token, and a namespace of its own.
pub(super) struct Kubectl<'m> {
    machine: &'m Machine,
    namespace: &'static str,
}

impl<'m> Kubectl<'m> {
    pub(super) fn configured(machine: &'m Machine, namespace: &'static str) -> Self {
        let config = format!(
            "apiVersion: v1
kind: Config
current-context: berth
clusters:
- name: berth
  cluster: {{server: 'https://localhost:6443', certificate-authority: /var/lib/berth/ca.crt}}
users:
- name: owner
  user: {{tokenFile: /var/lib/berth/token}}
contexts:
- name: berth
  context: {{cluster: berth, user: owner, namespace: {namespace}}}
"
        );
        machine.put(&format!("/run/{namespace}.config"), config.as_bytes(), 0o600).unwrap();
        Self { machine, namespace }
    }

    /// The same with its namespace made.
    fn new(machine: &'m Machine, namespace: &'static str) -> Self {
        let kubectl = Self::configured(machine, namespace);
        kubectl.with("create", &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
        kubectl
    }

    fn line(&self, line: &str) -> String {
        format!("kubectl --kubeconfig /run/{}.config {line}", self.namespace)
    }

    /// One command; fails the test if it fails.
    pub(super) fn run(&self, line: &str) -> String {
        self.machine.ok(&self.line(line)).unwrap()
    }

    /// The same with a manifest on standard input.
    pub(super) fn with(&self, line: &str, manifest: &str) -> String {
        self.run(&format!("{line} -f - <<'END'\n{manifest}END\n"))
    }

    /// What it says of a manifest that is refused.
    fn refused(&self, line: &str, manifest: &str) -> String {
        let out = self.machine.sh(&self.line(&format!("{line} -f - <<'END'\n{manifest}END\n"))).unwrap();
        assert_eq!(out.code(), 1, "{}", out.text());
        out.errors()
    }

    /// Takes everything away.
    fn end(self) {
        self.run(&format!("delete --timeout=10m namespace/{}", self.namespace));
        self.machine.ok(&format!("rm /run/{}.config", self.namespace)).unwrap();
    }
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
#[ignore = "long tier"]
fn a_stock_kubectl_lists_every_kind_and_explains_its_fields() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::new(machine, "kubectl-lists");
    let listed = kubectl.run("api-resources -o name");
    let mut listed: Vec<&str> = listed.lines().collect();
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| kind.key()).collect();
    listed.sort_unstable();
    wanted.sort();
    assert_eq!(listed, wanted);
    for kind in KINDS {
        let told = kubectl.run(&format!("explain {} --api-version={}", kind.plural, kind.api_version()));
        let about = format!("KIND:       {}\n", kind.kind);
        assert!(told.contains(&about) && told.contains("DESCRIPTION:") && told.contains("FIELDS:"), "{told}");
    }
    let told = kubectl.run("explain bd.spec.ports.protocol");
    assert!(told.contains("FIELD: protocol <string>") && told.contains("TCP or UDP."), "{told}");
    let told = kubectl.run("explain bundle --recursive");
    assert!(told.contains("containerPort\t<integer> -required-"), "{told}");
    kubectl.end();
}

#[test]
fn a_stock_kubectl_creates_changes_explains_compares_and_deletes_a_service_with_its_configuration() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::new(machine, "kubectl-makes");
    let created = kubectl.with("create", &manifest("hello"));
    assert_eq!(created, "configmap/greeting created\nbundle.berth.dev/shell created");
    kubectl.run("wait --for=condition=Ready --timeout=10m bundle/shell");
    assert_eq!(kubectl.run("get all -o name"), "pod/shell\nstatefulset.apps/shell\nbundle.berth.dev/shell");

    let explained = kubectl.run("explain bundle.spec.envFrom");
    assert!(explained.contains("Whole ConfigMaps and Secrets as variables"), "{explained}");

    let changed = manifest("good-day");
    // It ends with 1 where something differs.
    let compared = kubectl.run(&format!("diff -f - <<'END' || [ $? = 1 ]\n{changed}END\n"));
    assert!(compared.contains("-  GREETING: hello") && compared.contains("+  GREETING: good-day"), "{compared}");
    let applied = kubectl.with("apply", &changed);
    assert_eq!(applied, "configmap/greeting configured\nbundle.berth.dev/shell configured");
    eventually(&"good-day".to_owned(), || {
        machine.ok("berth exec -n kubectl-makes shell -- sh -c 'echo $GREETING' || true").unwrap()
    });
    assert!(kubectl.with("apply", &changed).ends_with("bundle.berth.dev/shell unchanged"));

    kubectl.run("label bundle/shell configmap/greeting tier=front");
    assert_eq!(kubectl.run("get bundle,configmap -l tier=front -o name"), "bundle.berth.dev/shell\nconfigmap/greeting");
    let told = kubectl.refused("apply", &changed.replace("  image:", "  imgae: web\n  image:"));
    assert!(told.contains("spec.imgae"), "{told}");

    kubectl.run("delete --timeout=10m bundle/shell configmap/greeting");
    assert_eq!(kubectl.run("get bundles --all-namespaces -l tier=front -o name"), "");
    kubectl.end();
}

#[test]
#[ignore = "long tier"]
fn a_stock_kubectl_finds_a_service_as_what_it_knows_and_reads_measures_follows_and_enters_it() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::new(machine, "kubectl-pods");
    let manifest = format!(
        "apiVersion: berth.dev/v1
kind: Bundle
metadata: {{name: box}}
spec:
  image: 127.0.0.1:{REGISTRY}/testbox:latest
  command: [/usr/bin/sh, -c, 'echo began; while sleep 0.5; do echo alive; done']
  volumes: [{{name: data, mountPath: /data, size: 16Mi}}]
  ports: [{{name: web, containerPort: 80}}]
  health: {{exec: {{command: [/usr/bin/sh, -c, 'true']}}}}
"
    );
    kubectl.with("create", &manifest);
    let rolled_out = kubectl.run("rollout status --timeout=10m statefulset/box");
    assert!(rolled_out.contains("roll"), "{rolled_out}");
    kubectl.run("wait --for=condition=Ready --timeout=10m pod/box");
    let listed = kubectl.run("get pods,services,persistentvolumeclaims,statefulsets --no-headers");
    let said: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let starts = |with: &[&str]| said.iter().any(|line| line.starts_with(with));
    assert!(starts(&["pod/box", "1/1", "Running", "0"]), "{listed}");
    assert!(starts(&["service/box", "ClusterIP"]) && listed.contains("80/TCP"), "{listed}");
    assert!(starts(&["persistentvolumeclaim/box-data", "Bound"]), "{listed}");
    assert!(starts(&["statefulset.apps/box", "1/1"]), "{listed}");
    let described = kubectl.run("describe pod box");
    assert!(described.contains("box-data") && described.contains("StartCompleted"), "{described}");

    let node = kubectl.run("get nodes --no-headers");
    assert!(node.split_whitespace().take(2).eq(["berth", "Ready"]), "{node}");
    let described = kubectl.run("describe node berth");
    assert!(described.contains("Non-terminated Pods") && described.contains("box"), "{described}");
    for (line, row) in [("top node --no-headers", "berth"), ("top pod box --no-headers", "box")] {
        let used = kubectl.run(line);
        assert!(used.starts_with(row) && used.contains("Mi"), "{used}");
    }
    let refused = machine.sh(&kubectl.line("cordon berth")).unwrap();
    // It says so, and ends with 0 all the same.
    assert!(refused.errors().contains("unable to cordon") && refused.errors().contains("berth stop"), "{refused:?}");

    let said = kubectl.run("logs box");
    assert!(said.starts_with("began\nalive"), "{said}");
    assert_eq!(kubectl.run("logs box --tail=1"), "alive");
    assert_eq!(kubectl.run("logs -f box --limit-bytes=12"), "began\nalive");
    let attached = machine.ok(&format!("timeout 60 {} 2>&1 | grep -m 1 alive", kubectl.line("attach box"))).unwrap();
    assert_eq!(attached, "alive");
    assert_eq!(kubectl.run("exec box -- sh -c 'echo from inside; exit 0'"), "from inside");
    let ended = machine.sh(&kubectl.line("exec box -- sh -c 'exit 7'")).unwrap();
    assert_eq!(ended.code(), 7, "{}", ended.errors());

    machine.ok("echo by hand >/run/letter").unwrap();
    kubectl.run("cp /run/letter box:/data/letter");
    assert_eq!(kubectl.run("exec box -- busybox cat /data/letter"), "by hand");
    kubectl.run("cp box:/data/letter /run/answer");
    assert_eq!(machine.ok("cat /run/answer; rm /run/letter /run/answer").unwrap(), "by hand");

    let forwarded = format!(
        "{} >/run/forward & forward=$!; until grep -q Forwarding /run/forward; do sleep 0.2; done; \
         curl --silent --max-time 60 http://127.0.0.1:18080/; kill $forward; rm /run/forward",
        kubectl.line("port-forward pod/site 18080:80")
    );
    kubectl.with("create", &format!(
        "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {{name: site}}\nspec:\n  image: 127.0.0.1:{REGISTRY}/nginx:1\n  ports: [{{name: web, containerPort: 80}}]\n"
    ));
    kubectl.run("rollout status --timeout=10m statefulset/site");
    assert_eq!(machine.ok(&forwarded).unwrap().trim(), "nginx under Berth, image 1");

    let refused = machine.sh(&kubectl.line("delete pod box")).unwrap();
    assert!(refused.code() == 1 && refused.errors().contains("stop or restart the bundle"), "{}", refused.errors());
    kubectl.run("delete --timeout=10m bundle/box bundle/site");
    assert_eq!(kubectl.run("get pods -o name"), "");
    machine.ok("berth volume erase -n kubectl-pods box-data --yes --timeout 10m").unwrap();
    kubectl.end();
}

#[test]
#[ignore = "long tier"]
fn a_stock_kubectl_applies_on_the_server_with_conflicts_force_and_who_owns_what() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::new(machine, "kubectl-applies");
    let settings = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {data}\n");
    let first = settings("{colour: green, size: small}");
    assert_eq!(kubectl.with("apply --server-side", &first), "configmap/settings serverside-applied");
    kubectl.run("patch configmap/settings --type=merge -p '{\"data\":{\"colour\":\"blue\"}}'");
    let told = kubectl.refused("apply --server-side", &first);
    assert!(told.contains("conflict with \"kubectl-patch\"") && told.contains(".data.colour"), "{told}");

    let compare = "diff --server-side --force-conflicts -f - <<'END' || [ $? = 1 ]";
    let compared = kubectl.run(&format!("{compare}\n{first}END\n"));
    assert!(compared.contains("-  colour: blue") && compared.contains("+  colour: green"), "{compared}");
    kubectl.with("apply --server-side --force-conflicts", &first);
    let shown = kubectl.run("get configmap/settings --show-managed-fields -o yaml");
    assert!(shown.contains("operation: Apply") && shown.contains("f:colour: {}"), "{shown}");
    assert!(!shown.contains("manager: kubectl-patch"), "{shown}");

    kubectl.with("apply --server-side", &settings("{colour: green}"));
    assert_eq!(kubectl.run("get configmap/settings -o jsonpath={.data}"), "{\"colour\":\"green\"}");

    // What was applied by the client before is the server's to prune afterwards.
    let moved = |data: &str| settings(data).replace("name: settings", "name: moved");
    kubectl.with("apply", &moved("{a: one, b: two}"));
    kubectl.with("apply --server-side", &moved("{a: one, b: two}"));
    kubectl.with("apply --server-side", &moved("{a: one}"));
    assert_eq!(kubectl.run("get configmap/moved -o jsonpath={.data}"), "{\"a\":\"one\"}");

    kubectl.end();
}

#[test]
#[ignore = "long tier"]
fn a_stock_kubectl_makes_objects_without_a_file_and_asks_what_it_may_do() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::new(machine, "kubectl-asks");
    kubectl.run("create configmap settings --from-literal=colour=green");
    assert_eq!(kubectl.run("get configmap/settings -o jsonpath={.data.colour}"), "green");
    kubectl.run("create secret generic db --from-literal=password=canary");
    kubectl.run("create namespace kubectl-more");
    assert_eq!(kubectl.run("auth can-i create bundles.berth.dev"), "yes");
    assert!(kubectl.run("auth can-i --list").contains("bundles.berth.dev/exec"));
    assert!(kubectl.run("auth whoami").contains("owner"));
    kubectl.run("delete --timeout=10m namespace/kubectl-more");
    kubectl.end();
}

/// Where the output of what runs on is kept.
const OUTPUT: &str = "/run/kubectl-restart";

#[test]
#[ignore = "long tier"]
fn what_waits_goes_on_over_a_restart_of_the_supervisor_and_what_follows_ends_and_misses_nothing_when_asked_again() {
    let (_alone, machine) = disturbed();
    let kubectl = Kubectl::new(machine, "kubectl-restart");
    let bundle = format!(
        "apiVersion: berth.dev/v1
kind: Bundle
metadata: {{name: box}}
spec:
  image: 127.0.0.1:{REGISTRY}/testbox:latest
  command: [/usr/bin/sh, -c, 'number=0; while sleep 0.5; do number=$((number + 1)); echo line $number; done']
"
    );
    kubectl.with("create", &bundle);
    kubectl.run("create configmap step --from-literal=at=one");
    kubectl.run("wait --for=condition=Ready --timeout=10m bundle/box");
    let version = kubectl.run("get configmap step -o jsonpath={.metadata.resourceVersion}");
    machine.ok(&format!("mkdir {OUTPUT}")).unwrap();
    let begun = [
        ("waits", "wait --for=jsonpath={.data.at}=two --timeout=10m configmap/step"),
        ("watches", "get configmap step -w --no-headers -o custom-columns=AT:.data.at"),
        ("follows", "logs -f box"),
        ("ours", ""),
    ];
    let running: Vec<Running> = begun
        .iter()
        .map(|(name, line)| {
            let line = match *name {
                "ours" => "berth logs -f box -n kubectl-restart".to_owned(),
                _ => kubectl.line(line),
            };
            machine.start(&format!("{line} >{OUTPUT}/{name} 2>&1; echo ended $? >>{OUTPUT}/{name}")).unwrap()
        })
        .collect();
    let said = |name: &str| machine.ok(&format!("cat {OUTPUT}/{name}; true")).unwrap();
    // It lists before it watches, whenever it comes to that: only what it is told after that shows that it does.
    let told = [("watches", "one\none"), ("follows", "line 2"), ("ours", "line 2")];
    let mut changes = 0..;
    eventually(&[true; 3], || {
        let number = changes.next().unwrap_or(0);
        kubectl.run(&format!("annotate --overwrite configmap step changes={number}"));
        told.map(|(name, wanted)| said(name).contains(wanted))
    });

    machine.ok("systemctl restart berthd").unwrap();
    // Those end at once, of themselves and well: nobody sits before a stream that is dead.
    let last = |name: &str| said(name).lines().last().unwrap_or_default().to_owned();
    eventually(&["ended 0"; 2].map(str::to_owned), || ["watches", "follows"].map(last));
    eventually(&true, || {
        machine.sh(&kubectl.line("patch configmap step -p '{\"data\":{\"at\":\"two\"}}'")).unwrap().success()
    });
    eventually(&true, || said("waits").ends_with("condition met\nended 0"));
    let path = "/api/v1/namespaces/kubectl-restart/configmaps?watch=1&timeoutSeconds=5";
    let missed = kubectl.run(&format!("get --raw '{path}&resourceVersion={version}'"));
    assert!(missed.contains("MODIFIED") && missed.contains("\"two\""), "{missed}");

    let all = kubectl.run("logs box");
    let numbers: Vec<u32> = all.lines().map(|line| line.trim_start_matches("line ").parse().unwrap()).collect();
    assert!(numbers.iter().enumerate().all(|(index, number)| index as u32 + 1 == *number), "{all}");
    // Ours goes on by itself where it was.
    let newest = format!("line {}\n", numbers.len());
    eventually(&true, || said("ours").contains(&newest));
    let ours = said("ours");
    let shown: Vec<&str> = ours.lines().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=shown.len()).map(|number| format!("line {number}")).collect();
    assert_eq!(shown, expected, "each line once");
    drop(running);
    machine.ok(&format!("pkill -f '[l]ogs -f box -n kubectl-restart'; rm -r {OUTPUT}")).unwrap();
    kubectl.end();
}
