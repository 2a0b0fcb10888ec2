//! What Debian's kubectl really sends, as its `-v=9` tells: kept as a file, whose requests the API's own tests send again.

use std::path::PathBuf;

use berth_tests::tree;
use serde_json::{Value, json};

use super::*;

/// The verbs of the API's table that can be answered without a running service, each as its user writes it. What is
/// after `<<` is standard input.
const LINES: &[&str] = &[
    "create namespace sent",
    "api-resources",
    "api-versions",
    "version",
    "cluster-info",
    "explain bundle.spec.image",
    "create configmap settings --from-literal=colour=green",
    "create secret generic door --from-literal=key=sesame",
    "create -f - << {apiVersion: berth.dev/v1, kind: Bundle, metadata: {name: box}, spec: {image: 'registry.example/web:1', start: false}}",
    "get configmaps",
    "get configmap/settings -o yaml",
    "get bundles -A -o wide",
    "get all",
    "get configmaps -l app=web --field-selector metadata.name=settings --chunk-size=1",
    "describe bundle box",
    "describe configmap settings",
    "diff -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {a: one}}",
    "apply -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {a: one}}",
    "apply -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {a: two}}",
    "apply --server-side --force-conflicts -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: served}, data: {a: two}}",
    "apply --server-side -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: served}, data: {a: three}}",
    "diff --server-side --force-conflicts -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: served}, data: {a: four}}",
    "apply -f - << {apiVersion: berth.dev/v1, kind: Bundle, metadata: {name: box}, spec: {image: 'registry.example/web:2', start: false}}",
    "replace -f - << {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {b: one}}",
    "patch configmap settings -p '{\"data\": {\"size\": \"large\"}}'",
    "patch bundle box --type=merge -p '{\"spec\": {\"image\": \"registry.example/web:3\"}}'",
    "patch configmap settings --type=json -p '[{\"op\": \"remove\", \"path\": \"/data/size\"}]'",
    "edit configmap settings",
    "label configmap settings tier=front",
    "annotate bundle box note=short",
    "wait --for=jsonpath='{.data.colour}'=blue configmap/settings --timeout=5m",
    "wait --for=delete configmap/absent --timeout=5m",
    "events",
    "top node",
    "top pod",
    "auth whoami",
    "auth can-i create bundles.berth.dev",
    "auth can-i --list",
    "cordon absent",
    "logs absent",
    "exec absent -- ls",
    "delete secret door --grace-period=0 --force",
    "delete configmaps --all --cascade=orphan",
    "delete bundle box --wait=false",
    "delete namespace sent --wait=false",
];

/// What is another each time.
const EPHEMERAL: [&str; 5] = ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"];

fn kept() -> PathBuf {
    tree::top().join("supervisor/daemon/tests/golden/kubectl-sent.jsonl")
}

#[test]
#[ignore = "long tier"]
fn a_stock_kubectl_sends_what_the_api_is_tested_with() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::configured(machine, "sent");
    let mut seen = Vec::new();
    for line in LINES {
        let (line, input) = line.split_once(" << ").unwrap_or((line, ""));
        let whole = kubectl.line(&format!("--cache-dir /run/sent.cache -v=9 {line}"));
        let said =
            machine.sh(&format!("export KUBE_EDITOR='sed -i s/green/blue/'; {whole} <<'END'\n---\n{input}\nEND\n"));
        seen.extend(requests(line, &said.unwrap().errors()));
    }
    machine.ok("rm -r /run/sent.cache /run/sent.config").unwrap();
    let seen: String = seen.iter().map(|request| format!("{request}\n")).collect();
    if std::env::var_os("BERTH_RECORD").is_some() {
        std::fs::write(kept(), &seen).unwrap();
    }
    let known = std::fs::read_to_string(kept()).unwrap();
    let (mut seen, mut known): (Vec<&str>, Vec<&str>) = (seen.lines().collect(), known.lines().collect());
    // Some are sent side by side.
    seen.sort_unstable();
    known.sort_unstable();
    assert_eq!(
        seen, known,
        "kubectl sends something else: BERTH_RECORD=1 keeps that; then see that the API answers it"
    );
}

/// The requests of a command, in their order, with what they were answered.
fn requests(of: &str, log: &str) -> Vec<Value> {
    let mut requests = Vec::<Value>::new();
    let mut body = Body::None;
    let mut answered_last = 0;
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        let told = line.split_once("] ").map_or("", |(_, told)| told);
        if let Some(said) = told.strip_prefix("\"Request Body\" body=") {
            body = match said {
                "<" => Body::of_lines(lines.by_ref().map_while(|line| line.strip_prefix('\t')).collect()),
                quoted => Body::of(&serde_json::from_str::<String>(quoted).unwrap_or_default()),
            };
        } else if let Some(command) = told.strip_prefix("curl -v -X") {
            let mut request = request(of, command);
            std::mem::replace(&mut body, Body::None).put_into(&mut request);
            requests.push(request);
        } else if let Some((code, url)) = answered(told) {
            let waiting = |request: &Value| request["url"] == url && request["code"].is_null();
            if let Some(at) = requests.iter().position(waiting) {
                requests[at]["code"] = code.into();
                answered_last = at;
            }
        } else if let Some(media_type) = told.trim_start().strip_prefix("Content-Type: ") {
            requests[answered_last]["type"] = media_type.into();
        }
    }
    for request in &mut requests {
        request.as_object_mut().unwrap().shift_remove("url");
    }
    // A connection that becomes a WebSocket is told of without an answer.
    requests.retain(|request| request["code"].is_u64());
    requests
}

/// What was sent with a request, as the log shows it.
enum Body {
    None,
    Json(Value),
    Protobuf(String),
}

impl Body {
    fn of(text: &str) -> Self {
        serde_json::from_str(text).map_or(Self::None, |body| Self::Json(lasting(body)))
    }

    /// JSON that ends with a line of its own, or bytes: `00000010  6b 38 73 00 ...  |k8s.|`.
    fn of_lines(lines: Vec<&str>) -> Self {
        let bytes =
            |line: &&str| Some(line.split_once("  ")?.1.split('|').next()?.split_whitespace().collect::<String>());
        match lines.first().is_some_and(|line| line.starts_with("00000000  ")) {
            true => Self::Protobuf(lines.iter().filter_map(bytes).collect()),
            false => Self::of(&lines.concat()),
        }
    }

    fn put_into(self, request: &mut Value) {
        match self {
            Self::None => {}
            Self::Json(body) => request["body"] = body,
            Self::Protobuf(bytes) => request["protobuf"] = bytes.into(),
        }
    }
}

/// `GET  -H "Accept: application/json" ... 'https://localhost:6443/api?timeout=32s'`
fn request(of: &str, command: &str) -> Value {
    let (method, rest) = command.split_once(' ').unwrap();
    let url = rest.rsplit('\'').nth(1).unwrap();
    let mut request = json!({ "of": of, "method": method, "path": path(url), "url": url, "code": null });
    for (header, field) in [("Accept", "accept"), ("Content-Type", "contentType")] {
        let said = rest.split(&format!("-H \"{header}: ")).nth(1).and_then(|said| said.split('"').next());
        if let Some(said) = said {
            request[field] = said.into();
        }
    }
    request
}

/// Path and query, without what is another each time.
fn path(url: &str) -> String {
    let after = url.trim_start_matches("https://").split_once('/').map_or("", |(_, path)| path);
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    let ephemeral = ["hash=", "resourceVersion=", "continue=", "timeoutSeconds="];
    let lasting = |part: &&str| !ephemeral.iter().any(|name| part.starts_with(name));
    let query: Vec<String> = query.split('&').filter(lasting).map(ordered).collect();
    let query = query.join("&");
    if query.is_empty() { format!("/{path}") } else { format!("/{path}?{query}") }
}

/// A selector of fields in the order of their names, as kubectl has them in any; without the uid.
fn ordered(part: &str) -> String {
    let Some(fields) = part.strip_prefix("fieldSelector=") else { return part.to_owned() };
    let without_uid = |field: &str| match field.split_once("uid%3D") {
        Some((before, _)) => format!("{before}uid%3Dnone"),
        None => field.to_owned(),
    };
    let mut fields: Vec<String> = fields.split("%2C").map(without_uid).collect();
    fields.sort_unstable();
    format!("fieldSelector={}", fields.join("%2C"))
}

fn lasting(mut body: Value) -> Value {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        EPHEMERAL.iter().for_each(|field| drop(metadata.shift_remove(*field)));
    }
    body
}

/// `GET https://localhost:6443/api?timeout=32s 200 OK in 5 milliseconds`
fn answered(told: &str) -> Option<(u64, &str)> {
    let mut words = told.split(' ');
    let method = words.next()?;
    let url = words.next().filter(|url| url.starts_with("https://") && method.chars().all(char::is_uppercase))?;
    Some((words.next()?.parse().ok()?, url))
}
