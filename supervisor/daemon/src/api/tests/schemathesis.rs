//! Schemathesis, which sends what the OpenAPI documents allow, and what they do not, over a real listener: whatever it
//! finds that is answered otherwise than they say, with a fault of the server, or not at all.

use std::path::Path;

use berth_tests::{python, spawn};

use super::connections::Listening;
use super::*;

/// What is a stream and ends when somebody ends it; `hooks.py` leaves watches out. All of them have tests of their own.
const STREAMS: &str = "/(log|exec|attach|portforward|import|support-bundle)$";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,response_headers_conformance,ignored_auth";

const HOOKS: &str = include_str!("../../../tests/schemathesis/hooks.py");

/// All documents as one.
async fn document(world: &World) -> Value {
    let mut whole = json!({});
    for (_, document) in openapi::documents(world).await {
        if whole == json!({}) {
            whole = document;
            continue;
        }
        for part in ["/paths", "/components/schemas"] {
            let more = document.pointer(part).unwrap().as_object().unwrap().clone();
            whole.pointer_mut(part).unwrap().as_object_mut().unwrap().extend(more);
        }
    }
    whole
}

async fn write(folder: &Path, listening: &Listening) {
    std::fs::write(folder.join("openapi.json"), document(&listening.world).await.to_string()).unwrap();
    std::fs::write(folder.join("ca.crt"), &listening.authority).unwrap();
    std::fs::write(folder.join("hooks.py"), HOOKS).unwrap();
}

/// Something of the kinds that people write most, under the names that `hooks.py` asks for.
async fn fill(world: &World) {
    for name in ["web", "db"] {
        world.bundle(name).await;
        world.config_map(name, json!({"a": "1"})).await;
        let metadata = json!({ "name": name });
        world.post(SECRETS, json!({ "metadata": metadata, "stringData": {"a": "1"} })).await.created();
        let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
        world.post(policies, json!({ "metadata": metadata, "spec": {"podSelector": {}} })).await.created();
        let sets = "/apis/berth.dev/v1/namespaces/default/changesets";
        world.post(sets, json!({ "metadata": metadata, "spec": {} })).await.created();
    }
}

/// For each role; a minute for all of them together.
fn seconds() -> &'static str {
    if std::env::var_os("BERTH_LONG").is_some() { "100" } else { "7" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_that_the_documents_do_not_say_and_no_fault_whatever_role_it_has() {
    // One after another: each is to have the machine for itself.
    for role in [None, Some("viewer"), Some("auditor"), Some("operator"), Some("admin"), Some("owner")] {
        println!("as {}", role.unwrap_or("nobody in particular"));
        explored(role).await;
    }
}

/// Somebody with a role, or none, asks for all there is, in a world of his own.
async fn explored(role: Option<&str>) {
    let listening = Listening::new().await;
    fill(&listening.world).await;
    listening.world.user("alice").await;
    if let Some(role) = role {
        listening.world.grant(role, None, "alice").await;
    }
    let token = listening.world.login("alice").await["accessToken"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &listening).await;
    let program = tokio::task::spawn_blocking(|| python::with(&["schemathesis==4.32.5"])).await.unwrap().unwrap();
    let mut command = spawn::command(program);
    command.args(["-m", "schemathesis.cli"]);
    command.current_dir(folder.path()).env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", folder.path());
    command.args(["--no-color", "run", "openapi.json", "--tls-verify", "ca.crt", "--url"]);
    command.arg(listening.url("localhost", ""));
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args(["--checks", CHECKS, "--exclude-path-regex", STREAMS, "--max-time", seconds()]);
    // Nothing is waited for that long here: what does not come by then never comes.
    command.args([
        "--request-timeout",
        "30",
        "--continue-on-failure",
        "--warnings",
        "off",
        "--phases",
        "coverage,fuzzing",
    ]);
    command.args(["--generation-database", "none", "--suppress-health-check", "all"]);
    let said = tokio::task::spawn_blocking(move || spawn::output(&mut command)).await.unwrap();
    let said = said.unwrap_or_else(|found| panic!("{found}"));
    println!("{}", String::from_utf8_lossy(&said));
}
