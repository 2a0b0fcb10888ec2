//! A bundle that is made to be thrown away: with an image that needs no registry, a volume, a network, names and a log.
//!
//! ```text
//! tidy up ─> take the image in ─> install ─> volume ─> network ─> names ─> log ─> tidy up
//! ```
//!
//! Everything goes the way of a request to the API as local root would send it, so what is tried is what people use.
//! Nobody wishes for a trial: what the settings hold of it, it releases itself.
//! All of it lies in one namespace of its own: what an examination that was cut short has left is recognised by that,
//! and removed when the supervisor starts and before the next one.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use berth_model::diagnostics::{Area, Finding, Outcome};
use berth_model::session::Begin;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tower::ServiceExt;
use tracing::warn;
use uuid::Uuid;

use super::super::commands::SOCKET;
use super::{image, milliseconds};
use crate::auth::Peer;
use crate::bundle::view::container_of;
use crate::session::Session;
use crate::store::Store;

/// The namespace that is made.
const NAMESPACE: &str = "berth-diagnostics";
/// Marks it as made here: one of that name without it is somebody's, with somebody's data.
const MARK: &str = "berth.dev/throw-away";
const BUNDLE: &str = "loopback";
const VOLUME: &str = "loopback-data";
const IMAGE: &str = "localhost/berth-probe:1";
const FILE: &str = "/data/word";
const PORT: u16 = 7;
/// How long installing may take, and removing.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long one connection or command may take.
const MOMENT: Duration = Duration::from_secs(20);
/// Bytes of what a command says.
const TOLD: usize = 1024;

/// Tries the machine.
pub(super) struct Loopback {
    store: Store,
    socket: PathBuf,
    router: OnceLock<Router>,
}

/// Why a step did not succeed; for people.
type Said<T> = Result<T, String>;

/// What a step needs of those before it.
struct Trial<'a> {
    of: &'a Loopback,
    word: String,
    findings: Vec<Finding>,
}

impl Loopback {
    pub(super) fn new(store: Store, runtime: &Path) -> Self {
        Self { store, socket: runtime.join(SOCKET), router: OnceLock::new() }
    }

    /// The API through which everything is asked. Only the first counts.
    pub(super) fn set(&self, router: Router) {
        if self.router.set(router).is_err() {
            warn!("the examination has its way into the API already");
        }
    }

    /// A finding for each step; an error if the trial could not even be begun.
    pub(super) async fn run(&self) -> Result<Vec<Finding>, String> {
        if let Err(why) = self.removed().await {
            return Err(format!("what an earlier trial has left cannot be removed: {why}"));
        }
        let mut trial = Trial { of: self, word: Uuid::new_v4().simple().to_string(), findings: Vec::new() };
        trial.steps().await;
        trial.step("tidy up", "What was made for the trial is still there.", self.removed()).await;
        Ok(trial.findings)
    }

    /// Removes what a trial that was cut short has left.
    pub(super) async fn tidy_up(&self) {
        if let Err(why) = self.removed().await {
            warn!("what a trial of the machine has left cannot be removed: {why}");
        }
    }

    /// Asks for a bundle to be restarted; answers the name of the operation.
    pub(super) async fn restart(&self, namespace: &str, name: &str) -> Said<String> {
        let path = format!("/apis/berth.dev/v1/namespaces/{namespace}/bundles/{name}/actions/restart");
        let operation = self.post(&path, json!({ "reason": "a repair" })).await?;
        Ok(operation["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }

    /// Removes everything there may be of a trial; fine if there is nothing.
    async fn removed(&self) -> Said<()> {
        let namespace = format!("/api/v1/namespaces/{NAMESPACE}");
        if let Some(found) = self.find(&namespace).await? {
            if found["metadata"]["labels"].get(MARK).is_none() {
                return Err(format!("namespace {NAMESPACE} was not made by a trial: what is in it stays as it is"));
            }
            if self.find(&bundle("")).await?.is_some() {
                self.post(&bundle("/actions/uninstall"), json!({})).await?;
                self.until_gone(&bundle("")).await?;
            }
            if self.find(&volume("")).await?.is_some() {
                self.post(&volume("/actions/erase"), json!({})).await?;
                self.until_gone(&volume("")).await?;
            }
            self.ask(Method::DELETE, &namespace, Bytes::new()).await?;
            self.until_gone(&namespace).await?;
        }
        let images = self.get("/apis/berth.dev/v1/images").await?;
        let names =
            images["items"].as_array().into_iter().flatten().flat_map(|image| image["spec"]["names"].as_array());
        if names.flatten().any(|name| name == IMAGE) {
            self.ask(Method::DELETE, &format!("/apis/berth.dev/v1/images?name={IMAGE}"), Bytes::new()).await?;
        }
        Ok(())
    }

    async fn until_gone(&self, path: &str) -> Said<()> {
        let gone = async |found: Option<Value>| Ok(found.is_none().then_some(()));
        self.until(path, "is still there", gone).await
    }

    /// Looks at an object at every change of the store until `enough` has an answer.
    async fn until<T>(
        &self,
        path: &str,
        not_yet: &str,
        enough: impl AsyncFn(Option<Value>) -> Said<Option<T>>,
    ) -> Said<T> {
        let mut newest = self.store.revision();
        let looks = async {
            loop {
                newest.mark_unchanged();
                self.release_held().await?;
                if let Some(answer) = enough(self.find(path).await?).await? {
                    return Ok(answer);
                }
                newest.changed().await.map_err(|_| "the supervisor is stopping".to_owned())?;
            }
        };
        let late = || format!("{path} {not_yet} after {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| Err(late()))
    }

    /// Lets go what a setting holds of the trial, and only that.
    async fn release_held(&self) -> Said<()> {
        let operations = format!("/apis/berth.dev/v1/namespaces/{NAMESPACE}/operations");
        let all = self.find(&operations).await?.unwrap_or_default();
        let is_held = |one: &&Value| one["status"]["state"] == "Held";
        for held in all["items"].as_array().into_iter().flatten().filter(is_held) {
            let name = held["metadata"]["name"].as_str().unwrap_or_default();
            self.post(&format!("{operations}/{name}/actions/release"), json!({ "reason": "a trial" })).await?;
        }
        Ok(())
    }

    async fn find(&self, path: &str) -> Said<Option<Value>> {
        match self.send(Method::GET, path, Bytes::new()).await? {
            (404, _) => Ok(None),
            answer => accepted(path, answer).map(Some),
        }
    }

    async fn get(&self, path: &str) -> Said<Value> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> Said<Value> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Said<Value> {
        accepted(path, self.send(method, path, body).await?)
    }

    /// One request as local root; the code, and the answer as JSON or else as text.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Said<(u16, Value)> {
        let router = self.router.get().ok_or("the API is not up yet")?.clone();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.extension(Peer::Socket { uid: 0 }).body(Body::from(body));
        let request = request.map_err(|error| format!("{path}: {error}"))?;
        let Ok(response) = router.oneshot(request).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.map_err(|error| format!("reading the answer of {path}: {error}"))?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((head.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
    }
}

fn accepted(path: &str, (code, answer): (u16, Value)) -> Said<Value> {
    match code {
        200..300 => Ok(answer),
        code => Err(answer["message"].as_str().map_or_else(|| format!("{path} was answered {code}"), str::to_owned)),
    }
}

fn bundle(rest: &str) -> String {
    format!("/apis/berth.dev/v1/namespaces/{NAMESPACE}/bundles/{BUNDLE}{rest}")
}

fn volume(rest: &str) -> String {
    format!("/apis/berth.dev/v1/namespaces/{NAMESPACE}/volumes/{VOLUME}{rest}")
}

impl Trial<'_> {
    /// Each step in turn; the first that everything after it needs and that fails ends them.
    async fn steps(&mut self) -> Option<()> {
        let (of, word) = (self.of, self.word.clone());
        self.step("image", "No image can be taken in.", of.import()).await?;
        self.step("installation", "No service can be installed.", of.install(&word)).await?;
        let made = self.step("readiness", "Services do not become ready.", of.ready()).await?;
        let (unit, address) = made;
        let volume = "Services cannot keep data in volumes, or no command can be run in them.";
        self.step("volume", volume, of.says(&unit, &["read", FILE], &word)).await;
        self.step("network", "Services cannot be reached.", visit(&address, &word)).await;
        // Its short name is in its own file of hosts, with its own address: this one is the name server's to tell.
        let name = format!("{BUNDLE}.{NAMESPACE}");
        self.step("names", "Services cannot look up names.", of.says(&unit, &["look-up", &name], &address)).await;
        self.step("log", "What services write is lost.", of.logged(&word)).await;
        Some(())
    }

    /// Does one step and notes how it went.
    async fn step<T>(&mut self, name: &str, meaning: &str, work: impl Future<Output = Said<T>>) -> Option<T> {
        let began = Instant::now();
        let done = work.await;
        let finding = match &done {
            Ok(_) => Finding::new(Area::Loopback, name, Outcome::Ok, "done"),
            Err(why) => Finding::new(Area::Loopback, name, Outcome::Problem, why)
                .means(meaning, "See the findings before this one, and `journalctl -u berthd`."),
        };
        self.findings.push(Finding { took_ms: milliseconds(began), ..finding });
        done.ok()
    }
}

impl Loopback {
    async fn import(&self) -> Said<()> {
        let path = format!("/apis/berth.dev/v1/images/import?name={IMAGE}");
        let archive = image::archive().map_err(|error| format!("making the image: {error}"))?;
        self.ask(Method::POST, &path, archive.into()).await.map(drop)
    }

    async fn install(&self, word: &str) -> Said<()> {
        let namespace = json!({ "metadata": { "name": NAMESPACE, "labels": { MARK: "true" } } });
        self.post("/api/v1/namespaces", namespace).await?;
        let all = format!("/apis/berth.dev/v1/namespaces/{NAMESPACE}/bundles");
        self.post(&all, wish(word)).await.map(drop)
    }

    /// Waits until it serves; its unit and its address.
    async fn ready(&self) -> Said<(String, String)> {
        self.until(&bundle(""), "is not ready", async |found| {
            let status = found.ok_or("somebody has removed it")?["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
            match (ready["status"].as_str(), status["phase"].as_str()) {
                (Some("True"), _) => {
                    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
                    Ok(Some((text("unit"), text("address"))))
                }
                (_, Some("Failed")) => Err(format!("{}: {}", text(&ready["reason"]), text(&ready["message"]))),
                _ => Ok(None),
            }
        })
        .await
    }

    /// Runs the program inside once more, and expects a line of what it says to be this.
    async fn says(&self, unit: &str, arguments: &[&str], wanted: &str) -> Said<()> {
        let id = container_of(unit).ok_or_else(|| format!("{unit} is no unit of a service"))?.to_owned();
        let command = [image::PATH].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let begin = Begin { id, command, ..Begin::default() };
        let run = async {
            let session = Session::begin(&self.socket, begin).await.map_err(|error| crate::log::chain(&error))?;
            session.finish(TOLD).await.map_err(|error| crate::log::chain(&error))
        };
        let (code, said) = in_a_moment(run).await?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        match code == 0 && said.lines().any(|line| line == wanted) {
            true => Ok(()),
            false => {
                Err(format!("inside, {:?} said {said:?} (exit code {code}) instead of {wanted:?}", arguments.join(" ")))
            }
        }
    }

    async fn logged(&self, word: &str) -> Said<()> {
        let log = self.get(&bundle("/log?tailLines=20")).await?;
        let line = format!("berth-probe {word} is up");
        match log.as_str().is_some_and(|log| log.lines().any(|one| one == line)) {
            true => Ok(()),
            false => Err(format!("the log does not hold {line:?} but {}", text(&log))),
        }
    }
}

/// The bundle.
fn wish(word: &str) -> Value {
    let spec = json!({
        "image": IMAGE,
        "args": ["serve", FILE, word, PORT.to_string()],
        "ports": [{ "name": "word", "containerPort": PORT }],
        "volumes": [{ "name": "data", "mountPath": "/data", "size": "32Mi" }],
    });
    json!({ "metadata": { "name": BUNDLE }, "spec": spec })
}

/// Connects from the machine, and expects the word.
async fn visit(address: &str, word: &str) -> Said<()> {
    let look = async {
        let mut stream = TcpStream::connect((address, PORT)).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map(|_| said)
    };
    let said = in_a_moment(async { look.await.map_err(|error| format!("{address}:{PORT}: {error}")) }).await?;
    match said == word {
        true => Ok(()),
        false => Err(format!("{address}:{PORT} answered {said:?} instead of {word:?}")),
    }
}

async fn in_a_moment<T>(work: impl Future<Output = Said<T>>) -> Said<T> {
    let late = || format!("no answer within {} s", MOMENT.as_secs());
    tokio::time::timeout(MOMENT, work).await.unwrap_or_else(|_| Err(late()))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use berth_model::resource::Bundle;
    use berth_model::resource::volume::volume_name;

    use super::*;

    #[test]
    fn the_bundle_is_one_that_people_could_ask_for() {
        let mut object = wish("word");
        object["metadata"]["namespace"] = NAMESPACE.into();
        let bundle: Bundle = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(berth_model::resource::bundle::validate(&object, None), []);
        assert_eq!(volume_name(BUNDLE, &bundle.spec.volumes[0].name), VOLUME);
        assert_eq!((bundle.spec.ports[0].container_port, bundle.spec.volumes[0].mount_path.as_str()), (PORT, "/data"));
    }

    #[tokio::test]
    async fn before_the_api_is_up_there_is_no_trial_and_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = std::sync::Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let store = Store::open(&dir.path().join("berth.db"), clock).unwrap();
        let why = Loopback::new(store, dir.path()).run().await.unwrap_err();
        assert_eq!(why, "what an earlier trial has left cannot be removed: the API is not up yet");
    }

    #[tokio::test]
    async fn a_namespace_of_that_name_that_somebody_made_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = std::sync::Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let loopback = Loopback::new(Store::open(&dir.path().join("berth.db"), clock).unwrap(), dir.path());
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let answer = {
            let asked = asked.clone();
            async move |request: Request<Body>| {
                asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
                axum::Json(json!({"metadata": {"name": NAMESPACE, "labels": {"team": "tests"}}}))
            }
        };
        loopback.set(Router::new().fallback(answer));
        let why = loopback.run().await.unwrap_err();
        assert!(why.ends_with("was not made by a trial: what is in it stays as it is"), "{why}");
        assert_eq!(*asked.lock().unwrap(), ["GET /api/v1/namespaces/berth-diagnostics"]);
    }

    #[tokio::test]
    async fn what_a_setting_holds_of_a_trial_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = std::sync::Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let loopback = Loopback::new(Store::open(&dir.path().join("berth.db"), clock).unwrap(), dir.path());
        let released = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let all = json!({"items": [
            {"metadata": {"name": "loopback-install-1"}, "status": {"state": "Held"}},
            {"metadata": {"name": "loopback-start-2"}, "status": {"state": "Pending"}},
        ]});
        let answer = {
            let released = released.clone();
            async move |request: Request<Body>| {
                let mut released = released.lock().unwrap();
                match (request.method().as_str(), request.uri().path()) {
                    ("POST", path) => released.push(path.to_owned()),
                    (_, path) if path.ends_with("/operations") => return axum::Json(all),
                    _ => {}
                }
                let ready = json!([{"type": "Ready", "status": if released.is_empty() { "False" } else { "True" }}]);
                axum::Json(json!({"status": {"unit": "u", "address": "a", "conditions": ready}}))
            }
        };
        loopback.set(Router::new().fallback(answer));
        assert_eq!(loopback.ready().await, Ok(("u".to_owned(), "a".to_owned())));
        let operations = "/apis/berth.dev/v1/namespaces/berth-diagnostics/operations";
        let path = format!("{operations}/loopback-install-1/actions/release");
        assert_eq!(*released.lock().unwrap(), [path]);
    }

    #[tokio::test]
    async fn what_answers_with_another_word_is_not_what_was_visited() {
        let said = in_a_moment::<()>(async { Err("no".to_owned()) }).await;
        assert_eq!(said, Err("no".to_owned()));
        assert_eq!(accepted("/x", (200, json!({"a": 1}))), Ok(json!({"a": 1})));
        assert_eq!(accepted("/x", (422, json!({"message": "bad"}))), Err("bad".to_owned()));
        assert_eq!(accepted("/x", (500, json!("?"))), Err("/x was answered 500".to_owned()));
    }
}
