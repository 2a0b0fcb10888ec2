//! The real `kubectl`, if there is one, against the API over TLS.
//!
//! It reads what is served (discovery, OpenAPI) and what it writes is checked here, so nothing of this can be seen with
//! a client of our own. Needs 1.32 or newer, which is Debian 13's.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use super::connections::Listening;
use super::*;

/// What one command left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

/// A `kubectl` of its own: an empty home, and a configuration that trusts our authority.
struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
    _server: Listening,
}

impl Kubectl {
    /// `None`, and says so, where there is none.
    async fn new() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|path| path.is_file());
        let Some(program) = program else {
            eprintln!("skipped: there is no kubectl; install kubernetes-client of Debian 13");
            return None;
        };
        let (home, listening) = (tempfile::tempdir().unwrap(), Listening::new().await);
        std::fs::write(home.path().join("ca.pem"), &listening.authority).unwrap();
        let cluster = json!({
            "server": listening.url("localhost", ""), "certificate-authority": home.path().join("ca.pem"),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "berth",
            "clusters": [{ "name": "berth", "cluster": cluster }],
            "users": [{ "name": "owner", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "berth", "context": { "cluster": "berth", "user": "owner" } }],
        });
        std::fs::write(home.path().join("config"), config.to_string()).unwrap();
        let found = Self { program, home, _server: listening };
        let version: Value = serde_json::from_str(&found.run("version --client -o json", "").await.ok()).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse::<u32>().unwrap();
        if minor < 32 {
            eprintln!("skipped: kubectl 1.{minor} is older than Debian 13's; install its kubernetes-client");
            return None;
        }
        Some(found)
    }

    /// One command, words apart by blanks, with something on standard input.
    #[allow(clippy::disallowed_methods, reason = "the program is what these tests are about")]
    async fn run(&self, line: &str, input: &str) -> Ran {
        let mut command = tokio::process::Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.home.path());
        command.env("KUBECONFIG", self.home.path().join("config")).args(line.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut running = command.spawn().unwrap();
        running.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let ended = running.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
    }
}

const MANIFEST: &str = "\
apiVersion: berth.dev/v1
kind: Bundle
metadata:
  name: web
spec:
  image: registry.example/web:1
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  colour: green
";

#[tokio::test]
async fn kubectl_finds_every_kind_and_explains_its_fields() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let listed = kubectl.run("api-resources -o name", "").await.ok();
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| kind.key()).collect();
    let mut listed: Vec<&str> = listed.lines().collect();
    wanted.sort();
    listed.sort_unstable();
    assert_eq!(listed, wanted);
    for kind in KINDS {
        let told = kubectl.run(&format!("explain {}", kind.key()), "").await.ok();
        let about = format!("KIND:       {}\n", kind.kind);
        assert!(told.contains(&about) && told.contains("DESCRIPTION:") && told.contains("FIELDS:"), "{told}");
    }
    let told = kubectl.run("explain bd.spec.ports.protocol", "").await.ok();
    assert!(told.contains("FIELD: protocol <string>") && told.contains("TCP or UDP."), "{told}");
    let told = kubectl.run("explain bundle --recursive", "").await.ok();
    assert!(told.contains("containerPort\t<integer> -required-"), "{told}");
}

#[tokio::test]
async fn kubectl_creates_applies_compares_and_deletes_with_the_servers_validation() {
    let Some(kubectl) = Kubectl::new().await else { return };
    assert_eq!(
        kubectl.run("create -f -", MANIFEST).await.ok(),
        "bundle.berth.dev/web created\nconfigmap/settings created\n"
    );
    let changed = MANIFEST.replace("web:1", "web:2").replace("green", "blue");
    let compared = kubectl.run("diff -f -", &changed).await;
    assert_eq!(compared.code, 1, "{}{}", compared.out, compared.err);
    assert!(compared.out.contains("+  image: registry.example/web:2"), "{}", compared.out);
    let applied = "bundle.berth.dev/web configured\nconfigmap/settings configured\n";
    assert_eq!(kubectl.run("apply -f -", &changed).await.ok(), applied);
    assert_eq!(
        kubectl.run("apply -f -", &changed).await.ok(),
        "bundle.berth.dev/web unchanged\nconfigmap/settings unchanged\n"
    );
    let shown = kubectl.run("get bd/web cm/settings -o jsonpath={.items[*]['spec.image','data.colour']}", "").await;
    assert_eq!(shown.ok(), "registry.example/web:2 blue");
    kubectl.run("label bundle web tier=front", "").await.ok();
    assert_eq!(kubectl.run("get all -l tier=front -o name", "").await.ok(), "bundle.berth.dev/web\n");
    let wrong = kubectl.run("apply -f -", &changed.replace("  image:", "  imgae: web\n  image:")).await;
    assert!(wrong.code == 1 && wrong.err.contains("spec.imgae"), "{}", wrong.err);
    assert_eq!(kubectl.run("delete cm settings", "").await.ok(), "configmap \"settings\" deleted\n");
}

/// Requests of kubectl 1.32.5 in their order, as `-v=9` tells them, one JSON object a line; without hashes of documents
/// and versions of objects, which are others each time.
const TRACED: &str = include_str!("../../../tests/golden/kubectl-1.32.jsonl");

#[tokio::test]
async fn what_kubectl_was_seen_to_send_is_answered_as_it_was_then() {
    let world = World::new();
    for line in TRACED.lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| sent[field].as_str().unwrap_or("application/json");
        let headers = [("accept", text("accept")), ("content-type", text("contentType"))];
        let body = if sent["body"].is_null() { String::new() } else { sent["body"].to_string() };
        let answer = world.ask(text("method").parse().unwrap(), text("path"), &headers, body).await;
        assert_eq!(sent["code"], answer.code, "{line}: {}", answer.body);
    }
    assert_eq!(names(&world.get(BUNDLES).await.ok()), ["web"]);
    assert_eq!(names(&world.get(CONFIG_MAPS).await.ok()), [""; 0]);
}
