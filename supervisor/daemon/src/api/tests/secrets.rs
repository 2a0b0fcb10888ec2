use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

pub(super) const CANARY: &str = "canary-7f3a9b";

async fn secret(world: &World) -> Value {
    let body = json!({
        "metadata": {
            "name": "db",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{\"password\": \"{CANARY}\"}}")},
        },
        "stringData": {"password": CANARY, "user": "berth"},
    });
    world.post(SECRETS, body).await.created()
}

async fn revealed(world: &World) -> Value {
    let mut object = world.get(&format!("{SECRETS}/db?reveal=true")).await.ok();
    for value in object["data"].as_object_mut().unwrap().values_mut() {
        *value = String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap().into();
    }
    object["data"].clone()
}

pub(super) fn shows(value: &Value) -> bool {
    let text = value.to_string();
    text.contains(CANARY) || text.contains(&STANDARD.encode(CANARY))
}

#[tokio::test]
async fn nothing_of_a_value_is_on_the_disk() {
    let world = World::new();
    secret(&world).await;
    world.merge(&format!("{SECRETS}/db"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    world.delete(&format!("{SECRETS}/db")).await.ok();
    world.store.close().await;
    for needle in [CANARY.as_bytes(), STANDARD.encode(CANARY).as_bytes()] {
        assert!(!on_disk(world.dir.path(), needle));
    }
    assert!(on_disk(world.dir.path(), b"\"db\""), "the search would not find what is there");
}

#[tokio::test]
async fn an_answer_shows_digests_wherever_a_secret_is_answered() {
    let world = World::new();
    let created = secret(&world).await;
    let path = format!("{SECRETS}/db");
    let digest = String::from_utf8(STANDARD.decode(created["data"]["password"].as_str().unwrap()).unwrap()).unwrap();
    assert!(digest.starts_with("berth-digest:"), "{digest}");
    let whole = format!("{SECRETS}?includeObject=Object");
    let patched = world.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let answers =
        [created, world.get(&path).await.ok(), world.get(SECRETS).await.ok(), world.table(&whole).await, patched];
    for answer in &answers {
        assert!(!shows(answer), "{answer}");
    }
    let watch = world.send(owned(Method::GET, &format!("{SECRETS}?watch=true"), &[], Body::empty())).await;
    let event = watch.into_body().into_data_stream().next().await.unwrap().unwrap();
    assert!(!shows(&serde_json::from_slice(&event).unwrap()));
}

#[tokio::test]
async fn values_are_revealed_to_who_may() {
    let world = World::new();
    secret(&world).await;
    assert_eq!(revealed(&world).await, json!({"password": CANARY, "user": "berth"}));
    let list = world.get(&format!("{SECRETS}?reveal=true")).await.ok();
    assert!(shows(&list));
}

#[tokio::test]
async fn what_was_read_can_be_written_back_without_touching_a_value() {
    let world = World::new();
    secret(&world).await;
    let mut object = world.get(&format!("{SECRETS}/db")).await.ok();
    object["metadata"]["labels"] = json!({"tier": "data"});
    object["data"]["user"] = STANDARD.encode("admin").into();
    world.put(&format!("{SECRETS}/db"), object).await.ok();
    assert_eq!(revealed(&world).await, json!({"password": CANARY, "user": "admin"}));
}

#[tokio::test]
async fn a_replacement_keeps_what_it_leaves_out_and_removes_what_is_null() {
    let world = World::new();
    secret(&world).await;
    let body = json!({"metadata": {"name": "db"}, "data": {"user": null}, "stringData": {"port": "5432"}});
    world.put(&format!("{SECRETS}/db"), body).await.ok();
    assert_eq!(revealed(&world).await, json!({"password": CANARY, "port": "5432"}));
    world.merge(&format!("{SECRETS}/db"), json!({"data": {"port": null}})).await.ok();
    assert_eq!(revealed(&world).await, json!({"password": CANARY}));
}

#[tokio::test]
async fn the_same_value_again_makes_no_version() {
    let world = World::new();
    let created = secret(&world).await;
    let again = world.merge(&format!("{SECRETS}/db"), json!({"stringData": {"password": CANARY}})).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_digest_that_is_not_the_present_one_is_a_conflict() {
    let world = World::new();
    let before = secret(&world).await;
    world.merge(&format!("{SECRETS}/db"), json!({"stringData": {"password": "new"}})).await.ok();
    let answer = world.merge(&format!("{SECRETS}/db"), json!({"data": before["data"]})).await;
    assert_eq!((answer.failed().0, answer.failed().1), (409, "Conflict"));
    assert!(answer.failed().2.starts_with("data.password is the digest"), "{}", answer.failed().2);
}

#[tokio::test]
async fn a_value_that_is_not_base64_is_refused_without_repeating_it() {
    let world = World::new();
    let body = json!({"metadata": {"name": "db"}, "data": {"password": format!("{CANARY} !")}});
    let answer = world.post(SECRETS, body).await;
    assert_eq!(answer.code, 422);
    assert!(!shows(&answer.body), "{}", answer.body);
}

#[tokio::test]
async fn the_values_of_a_namespace_go_for_good_when_it_goes() {
    let world = World::new();
    let sealer = world.sealer.clone();
    let keys = world.dir.path().join("keys/namespaces");
    world.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.created();
    secret(&world).await;
    let body = json!({"metadata": {"name": "db"}, "stringData": {"password": CANARY}});
    world.post("/api/v1/namespaces/team/secrets", body).await.created();
    sealer.forget_gone(&world.store).await.unwrap();
    assert!(keys.join("team.key").exists());
    world.delete("/api/v1/namespaces/team").await.ok();
    assert_eq!(world.get("/api/v1/namespaces/team").await.code, 404);
    sealer.forget_gone(&world.store).await.unwrap();
    assert!(!keys.join("team.key").exists());
    assert_eq!(revealed(&world).await["password"], CANARY);
}

/// Everything that is logged, down to the last detail.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_token_nor_value_is_ever_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    secret(&world).await;
    revealed(&world).await;
    world.get("/nowhere").await;
    let broken = format!("{{\"stringData\": {{\"password\": \"{CANARY}\"");
    assert_eq!(world.ask(Method::POST, SECRETS, &[], broken).await.code, 400);
    world.get(&format!("{BUNDLES}/broken/log")).await;
    world.store.close().await;
    assert_eq!(world.get(&format!("{SECRETS}/db")).await.code, 500);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("a request failed"), "nothing was logged at all: {text}");
    for never in [TOKEN.to_owned(), CANARY.to_owned(), STANDARD.encode(CANARY)] {
        assert!(!text.contains(&never), "{never} is in {text}");
    }
}

#[tokio::test]
async fn the_last_applied_annotation_is_not_kept() {
    let world = World::new();
    assert_eq!(secret(&world).await["metadata"].get("annotations"), None);
}

#[tokio::test]
async fn without_the_master_key_secrets_are_refused_and_the_rest_goes_on() {
    let world = World::with(MasterKey::from_credentials(None), WatchPace::default());
    let body = json!({"metadata": {"name": "db"}, "stringData": {"password": CANARY}});
    let answer = world.post(SECRETS, body).await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (503, "ServiceUnavailable"));
    assert!(message.contains("systemctl restart berth-setup berthd"), "{message}");
    world.config_map("web", json!({})).await;
    let ready = world.get("/readyz").await;
    assert_eq!(ready.code, 503);
    assert!(ready.body.as_str().unwrap().contains("[-] secrets: no master key"), "{}", ready.body);
}

#[tokio::test]
async fn a_wrong_master_key_refuses_reads_of_values_and_shows_the_rest() {
    let world = World::new();
    secret(&world).await;
    let wrong =
        Sealer::open(&world.dir.path().join("keys"), MasterKey::from_bytes(&[8; 32]), Arc::new(SystemRandom::new()));
    assert!(wrong.locked().is_some());
    let api = Api {
        store: world.store.clone(),
        sealer: wrong,
        authenticator: Authenticator::open(world.dir.path(), world.store.clone()).unwrap(),
        authority: authority(world.dir.path()),
        attempts: Attempts::default(),
        challenges: Challenges::default(),
        rights: Rights::default(),
        settings: CurrentSettings::default(),
        limiter: Limiter::default(),
        claim: Arc::default(),
        notary: Arc::new(crate::audit::Notary::open(world.dir.path()).unwrap()),
        refusals: Refusals::default(),
        metrics: world.metrics.clone(),
        readiness: world.readiness.clone(),
        images: world.images.clone(),
        cleanup: world.images.clone(),
        system: Arc::new(super::system::FakeSystem),
        logs: world.logs.clone(),
        overlaps: tokio::sync::watch::Sender::default().subscribe(),
        commands: world.commands.clone(),
        clock: Arc::new(|| NOW.parse().unwrap()),
        stop: world.stop.clone(),
        pace: WatchPace::default(),
    };
    let world = World { router: router(api), ..world };
    assert!(world.get(&format!("{SECRETS}/db")).await.ok()["data"]["password"].is_string());
    let answer = world.get(&format!("{SECRETS}/db?reveal=true")).await;
    assert_eq!(answer.failed().0, 503);
    assert!(answer.failed().2.contains("restore the keys/master.cred"), "{}", answer.failed().2);
    assert_eq!(world.merge(&format!("{SECRETS}/db"), json!({"stringData": {"a": "b"}})).await.code, 503);
}
