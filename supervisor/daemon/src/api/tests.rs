//! The API as its clients meet it: a real store in a temporary directory behind the real router.

mod access;
mod actions;
mod apply;
mod certificates;
mod changesets;
mod commands;
mod connections;
mod crowds;
mod device_login;
mod documents;
mod enrolment;
mod forwards;
mod hostile;
mod invitations;
mod kubectl;
mod limits;
mod lists;
mod network;
mod objects;
mod openapi;
mod operations;
mod passkeys;
mod quotas;
mod references;
mod relations;
mod replays;
mod reviews;
mod rights;
mod rollback;
mod schemathesis;
mod second_factor;
mod secrets;
mod standing;
mod system;
mod table;
mod transport;
mod views;
mod volumes;
mod watches;

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use berth_model::cleanup::{Item, ItemKind, Plan, Report};
use berth_model::pressure::{Disk, Level};

use super::*;
use crate::auth::attempts::Attempts;
use crate::auth::ca::Authority;
use crate::auth::passkey::Challenges;
use crate::auth::{Authenticator, Peer};
use crate::secret::MasterKey;
use commands::FakeCommands;

const TOKEN: &str = "berth_owner_0123456789012345678901234567890123456789abc";
const OVERLAP: &str = "the addresses of bundles overlap others";
const NOW: &str = "2026-03-01T12:00:00Z";
const BUNDLES: &str = "/apis/berth.dev/v1/namespaces/default/bundles";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A daemon's API with everything it needs, and nothing behind its seams.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    sealer: Sealer,
    router: Router,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
    images: Arc<FakeImages>,
    logs: Arc<FakeLogs>,
    commands: Arc<FakeCommands>,
    claim: Arc<crate::auth::claim::Claim>,
    /// What the machine's clock says.
    now: Arc<Mutex<Timestamp>>,
}

/// What came back.
struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Value,
}

#[derive(Default)]
struct FakeImages {
    imported: Mutex<Vec<(String, usize)>>,
    /// What cannot be had.
    lost: Mutex<Option<String>>,
}

#[derive(Default)]
struct FakeLogs {
    asked: Mutex<Vec<LogRequest>>,
}

impl ImagesPort for FakeImages {
    fn import(&self, reference: String, archive: ByteStream) -> BoxFuture<'_, Result<Value, PortError>> {
        async move {
            let sizes = archive.map_ok(|piece: Bytes| piece.len()).try_collect::<Vec<_>>().await;
            let size = sizes.map_err(|error| PortError::Request(error.to_string()))?.iter().sum();
            self.imported.lock().unwrap().push((reference.clone(), size));
            Ok(json!({ "kind": "Image", "metadata": { "name": reference } }))
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, PortError>> {
        let names =
            self.imported.lock().unwrap().iter().map(|(name, _)| json!({ "metadata": { "name": name } })).collect();
        std::future::ready(Ok(names)).boxed()
    }

    fn check(&self, pinned: String) -> BoxFuture<'_, Result<(), PortError>> {
        let lost = self.lost.lock().unwrap().as_ref() == Some(&pinned);
        let answer = if lost { Err(PortError::Unavailable("nobody answers".into())) } else { Ok(()) };
        std::future::ready(answer).boxed()
    }

    fn prune(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Value>, PortError>> {
        let mut imported = self.imported.lock().unwrap();
        let names = imported.iter().map(|(name, _)| json!({ "metadata": { "name": name } })).collect();
        if !dry_run {
            imported.clear();
        }
        std::future::ready(Ok(names)).boxed()
    }

    fn remove(&self, reference: String) -> BoxFuture<'_, Result<(), PortError>> {
        let mut imported = self.imported.lock().unwrap();
        let before = imported.len();
        imported.retain(|(name, _)| *name != reference);
        let gone = imported.len() < before;
        let answer = if gone { Ok(()) } else { Err(PortError::Absent(format!("there is no image {reference}"))) };
        std::future::ready(answer).boxed()
    }
}

impl CleanupPort for FakeImages {
    fn run(&self, dry_run: bool) -> BoxFuture<'_, Result<Report, PortError>> {
        let mut imported = self.imported.lock().unwrap();
        let item = |(name, size): &(String, usize)| Item {
            kind: ItemKind::Image,
            namespace: String::new(),
            name: name.clone(),
            id: format!("sha256:{name}"),
            why: "unused for 8 d".to_owned(),
            size: *size as u64,
        };
        let plan = Plan { items: imported.iter().map(item).collect() };
        let freed = (!dry_run).then_some(4096);
        if !dry_run {
            imported.clear();
        }
        let disk = Disk { total: 1000, free: 150 };
        std::future::ready(Ok(Report::new(plan, freed, disk, Level::Warning))).boxed()
    }
}

impl LogsPort for FakeLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, PortError>> {
        let answer = match request.bundle.as_str() {
            "absent" => Err(PortError::Absent("bundle absent is not there".into())),
            "broken" => Err(PortError::Failed("the journal is on fire".into())),
            _ => {
                let lines = futures_util::stream::iter(["one\n", "two\n"]).map(|line| Ok(Bytes::from(line)));
                let rest = futures_util::stream::pending();
                Ok(if request.follow { lines.chain(rest).boxed() } else { lines.boxed() })
            }
        };
        self.asked.lock().unwrap().push(request);
        std::future::ready(answer).boxed()
    }
}

impl World {
    fn new() -> Self {
        Self::with(MasterKey::from_bytes(&[7; 32]), WatchPace::default())
    }

    fn with(master: Result<MasterKey, crate::secret::SecretError>, pace: WatchPace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        let now = Arc::new(Mutex::new(NOW.parse::<Timestamp>().unwrap()));
        let (clock, told) = (now.clone(), now);
        let clock: Clock = Arc::new(move || *clock.lock().unwrap());
        let store = Store::open(&dir.path().join("berth.db"), clock.clone()).unwrap();
        let (metrics, readiness, stop) = (Metrics::new(), Readiness::default(), CancellationToken::new());
        let (images, logs) = (Arc::<FakeImages>::default(), Arc::<FakeLogs>::default());
        let (commands, claim) = (Arc::<FakeCommands>::default(), Arc::<crate::auth::claim::Claim>::default());
        let sealer = Sealer::open(&dir.path().join("keys"), master, Arc::new(SystemRandom::new()));
        let api = Api {
            store: store.clone(),
            sealer: sealer.clone(),
            authenticator: Authenticator::open(dir.path(), store.clone()).unwrap(),
            authority: authority(dir.path()),
            attempts: Attempts::default(),
            challenges: Challenges::default(),
            rights: Rights::default(),
            settings: CurrentSettings::default(),
            limiter: Limiter::default(),
            claim: claim.clone(),
            notary: Arc::new(crate::audit::Notary::open(dir.path()).unwrap()),
            refusals: Refusals::default(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            images: images.clone(),
            cleanup: images.clone(),
            system: Arc::new(system::FakeSystem),
            logs: logs.clone(),
            overlaps: tokio::sync::watch::Sender::new(vec![OVERLAP.to_owned()]).subscribe(),
            commands: commands.clone(),
            clock,
            stop: stop.clone(),
            pace,
        };
        let (router, now) = (router(api), told);
        Self { dir, store, sealer, router, metrics, readiness, stop, images, logs, commands, claim, now }
    }

    /// The owner, over the network.
    async fn send(&self, request: Request<Body>) -> Response {
        self.send_from(Peer::Network("192.0.2.1:40000".parse().unwrap()), request).await
    }

    async fn send_from(&self, peer: Peer, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(peer);
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        Answer::of(self.send(owned(method, path, headers, body.into())).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Body::empty()).await
    }

    async fn table(&self, path: &str) -> Value {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        self.ask(Method::GET, path, &[("accept", accept)], Body::empty()).await.ok()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], body.to_string()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, &[], body.to_string()).await
    }

    async fn merge(&self, path: &str, body: Value) -> Answer {
        let merge = [("content-type", "application/merge-patch+json")];
        self.ask(Method::PATCH, path, &merge, body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], Body::empty()).await
    }

    /// A ConfigMap in the default namespace.
    async fn config_map(&self, name: &str, data: Value) -> Value {
        self.post(CONFIG_MAPS, json!({ "metadata": { "name": name }, "data": data })).await.created()
    }

    async fn bundle(&self, name: &str) -> Value {
        let spec = json!({ "image": "registry.example/web:1" });
        self.post(BUNDLES, json!({ "metadata": { "name": name }, "spec": spec })).await.created()
    }
}

/// The authority of a world, which is older than all that happens in it.
fn authority(dir: &Path) -> Arc<Authority> {
    Arc::new(Authority::open_or_create(dir, "2020-01-01T00:00:00Z".parse().unwrap()).unwrap())
}

/// A request of the owner.
fn owned(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("authorization", format!("Bearer {TOKEN}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Self { code: head.status.as_u16(), headers: head.headers, body }
    }

    fn ok(self) -> Value {
        assert_eq!(self.code, 200, "{}", self.body);
        self.body
    }

    fn created(self) -> Value {
        assert_eq!(self.code, 201, "{}", self.body);
        self.body
    }

    /// Code, reason and message of a `Status` that tells of a failure.
    fn failed(&self) -> (u16, &str, &str) {
        assert_eq!((&self.body["kind"], &self.body["status"]), (&json!("Status"), &json!("Failure")), "{}", self.body);
        assert_eq!(self.body["code"], self.code);
        (self.code, self.body["reason"].as_str().unwrap(), self.body["message"].as_str().unwrap())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Names of the items of a list.
fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// Whether any file below a directory holds these bytes.
fn on_disk(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => on_disk(&path, needle),
        // A socket holds nothing.
        false => path.is_file() && std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle),
    })
}
