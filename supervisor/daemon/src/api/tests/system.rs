use berth_model::diagnostics::{Area, Diagnosis, Finding, Outcome};
use berth_model::machine::{Facts, Machine};
use berth_model::release::{Entry, SystemStatus};
use berth_model::usage::{BundleUsage, MachineUsage, Usage};

use super::*;

/// A machine on which one bundle runs.
pub(super) struct FakeSystem;

impl SystemPort for FakeSystem {
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>> {
        let web = BundleUsage { namespace: "default".into(), name: "web".into(), tasks: Some(2), ..Default::default() };
        std::future::ready(Ok(Usage::new(5, MachineUsage { cores: 2, ..MachineUsage::default() }, vec![web]))).boxed()
    }

    fn machine(&self, rates: bool) -> BoxFuture<'_, Result<Machine, PortError>> {
        let look = |taken_us: u64| {
            let machine = MachineUsage { cores: 2, memory: 4 << 20, ..MachineUsage::default() };
            let web = BundleUsage { namespace: "default".into(), name: "web".into(), ..Default::default() };
            let web = BundleUsage { cpu_us: Some(taken_us / 10), memory: Some(1 << 20), ..web };
            Usage::new(taken_us, machine, vec![web])
        };
        let facts = Facts { hostname: "harbour".into(), ..Facts::default() };
        let (made, now) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let before = rates.then(|| look(1_000_000));
        std::future::ready(Ok(Machine { facts, made, now, usage: look(2_000_000), before })).boxed()
    }

    fn diagnose(&self, request: DiagnoseRequest) -> BoxFuture<'_, Result<Diagnosis, PortError>> {
        let found =
            Finding::new(Area::Leftovers, "links", Outcome::Problem, "bv0-9").means("A place is taken.", "Repair.");
        let repaired = if request.repair { vec!["removed bv0-9".to_owned()] } else { Vec::new() };
        let not_probed = request.loopback.then(|| "the API is not up yet".to_owned());
        std::future::ready(Ok(Diagnosis::new(vec![Finding { repaired, ..found }], not_probed))).boxed()
    }

    fn versions(&self) -> BoxFuture<'_, Result<SystemStatus, PortError>> {
        let entry = Entry { version: "1.0.0".into(), tries_left: None };
        let status = SystemStatus { version: "1.0.0".into(), versions: vec![entry], reached: false, last_start: None };
        std::future::ready(Ok(status)).boxed()
    }

    fn give_up(&self) -> BoxFuture<'_, Result<Option<String>, PortError>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn power(&self, _: Power) -> BoxFuture<'_, Result<(), PortError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn support_bundle(&self, output: bool) -> BoxFuture<'_, Result<Vec<u8>, PortError>> {
        std::future::ready(Ok(if output { b"with output".to_vec() } else { b"without".to_vec() })).boxed()
    }
}

#[tokio::test]
async fn the_machine_is_a_node_and_what_it_and_its_bundles_use_are_metrics() {
    let world = World::new();
    let node = world.get("/api/v1/nodes/berth").await.ok();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "harbour");
    let listed = world.get("/apis/metrics.k8s.io/v1beta1/nodes").await.ok();
    assert_eq!(
        (&listed["kind"], &listed["items"][0]["metadata"]["name"]),
        (&json!("NodeMetricsList"), &json!("berth"))
    );
    let pods = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    let web = world.get(&format!("{pods}/web")).await.ok();
    assert_eq!(web["containers"][0]["usage"], json!({"cpu": "100000000n", "memory": "1024Ki"}));
    assert_eq!(world.get(&format!("{pods}/absent")).await.failed().0, 404);
    let none = world.get("/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods").await.ok();
    assert_eq!(none["items"], json!([]));
    let chosen = world.get("/api/v1/nodes?fieldSelector=metadata.name%3Dabsent").await.ok();
    assert_eq!(chosen["items"], json!([]));
    assert_eq!(world.get("/api/v1/nodes?watch=true").await.failed().0, 405);
}

#[tokio::test]
async fn what_is_used_is_told_and_what_is_not_counted_is_left_out() {
    let world = World::new();
    let told = world.get("/apis/berth.dev/v1/system/usage").await.ok();
    assert_eq!(
        (&told["apiVersion"], &told["kind"], &told["takenUs"]),
        (&json!("berth.dev/v1"), &json!("Usage"), &json!(5))
    );
    assert_eq!(told["machine"]["cores"], 2);
    let web = json!({"namespace": "default", "name": "web", "ready": false, "restarts": 0, "tasks": 2});
    assert_eq!(told["bundles"], json!([web]));
}

#[tokio::test]
async fn an_examination_looks_and_repairs_or_tries_a_bundle_only_if_asked_to() {
    let world = World::new();
    let path = "/apis/berth.dev/v1/system/diagnostics";
    let plain = world.post(path, json!({})).await.ok();
    assert_eq!((&plain["kind"], &plain["findings"][0]["result"]), (&json!("Diagnosis"), &json!("problem")));
    assert_eq!((&plain["findings"][0]["repaired"], &plain["notProbed"]), (&Value::Null, &Value::Null));
    let all = world.post(&format!("{path}?loopback=true&repair=true"), json!({})).await.ok();
    assert_eq!(all["findings"][0]["repaired"], json!(["removed bv0-9"]));
    assert_eq!(all["notProbed"], "the API is not up yet");
    let wrong = world.post(&format!("{path}?repair=perhaps"), json!({})).await;
    assert_eq!(wrong.failed().0, 400);
}

#[tokio::test]
async fn an_archive_for_helpers_holds_what_services_wrote_only_if_asked_for() {
    let world = World::new();
    let path = "/apis/berth.dev/v1/system/support-bundle";
    let plain = world.get(path).await;
    assert_eq!((plain.header("content-type"), &plain.body), ("application/zstd", &json!("without")));
    assert_eq!(world.get(&format!("{path}?serviceLogs=true")).await.ok(), json!("with output"));
}

#[tokio::test]
async fn a_machine_is_healthy_when_all_that_should_serves() {
    let world = World::new();
    let path = "/apis/berth.dev/v1/system/health";
    let told = world.get(path).await.ok();
    assert_eq!(
        (&told["kind"], &told["healthy"], &told["timeoutSeconds"]),
        (&json!("MachineHealth"), &json!(true), &json!(120))
    );
    world.bundle("web").await;
    let told = world.get(path).await.ok();
    let waiting = json!([{"what": "default/web", "why": "nothing is known of it yet"}]);
    assert_eq!((&told["healthy"], &told["waitingFor"]), (&json!(false), &waiting));
}

#[tokio::test]
async fn an_update_of_the_system_is_an_operation_and_the_same_wish_sent_twice_is_one() {
    let world = World::new();
    let path = "/apis/berth.dev/v1/system/update";
    let wish = json!({"source": "https://updates.example", "restart": true});
    let ask = || world.ask(Method::POST, path, &[("idempotency-key", "k")], wish.to_string());
    let asked = ask().await;
    assert_eq!(asked.code, 202, "{}", asked.body);
    let first = asked.body;
    assert_eq!(ask().await.body["metadata"]["uid"], first["metadata"]["uid"]);
    let spec = &first["spec"];
    let target = json!({"kind": "System", "namespace": "default", "name": "berth"});
    assert_eq!((&spec["kind"], &spec["target"]), (&json!("UpdateSystem"), &target));
    assert_eq!(spec["system"], json!({"source": "https://updates.example", "restart": true}));
    assert_eq!(first["metadata"]["namespace"], "default");
    assert_eq!(world.post(path, json!({"nosuch": 1})).await.failed().0, 400);
    let (code, _, message) = {
        let answer = world.post("/apis/berth.dev/v1/system/rollback", json!({})).await;
        let (code, reason, message) = answer.failed();
        (code, reason.to_owned(), message.to_owned())
    };
    assert!(code == 409 && message.contains("no other version that was found good"), "{code} {message}");
    let status = world.get("/apis/berth.dev/v1/system/status").await.ok();
    assert_eq!(
        (&status["kind"], &status["version"], &status["versions"]),
        (&json!("SystemStatus"), &json!("1.0.0"), &json!([{"version": "1.0.0"}]))
    );
}
