//! `--curl`: what is printed does what the command would have done.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::fake::{End, Fake, Reply, Seen};
use crate::reading::BUNDLES;

/// What counts of a request: not the program's name, nor the key that is new every time.
fn meaning(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    seen.headers.retain(|name, _| ["accept", "content-type", "authorization"].contains(&name.as_str()));
    seen.headers.insert("keyed".into(), (seen.headers.contains_key("idempotency-key")).to_string());
    seen
}

/// Runs the command, then what it prints with `--curl`, and compares the last requests.
async fn same(fake: &Fake, line: &[&str]) {
    fake.run(line).await;
    let by_berth = fake.seen().pop().expect("the command asked nothing");
    let before = fake.lines().len();
    let printed = fake.run(&[line, &["--curl"]].concat()).await;
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    assert_eq!(fake.lines().len(), before, "--curl sent something");
    let ran = fake.shell(&printed.out).await;
    let by_curl = fake.seen().pop().unwrap();
    assert_eq!(meaning(&by_curl), meaning(&by_berth), "{}\n{}", printed.out, ran.err);
}

#[tokio::test]
async fn curl_asks_what_the_command_asks() {
    let fake = Fake::start();
    for line in [
        &["get", "bundles", "-A", "-l", "app in (a, b)"][..],
        &["get", "configmap", "it's"],
        &["status", "web"],
        &["logs", "web", "--tail", "3"],
        &["start", "web", "--no-wait"],
        &["install", "r/web:1", "--env", "TEXT=it's $HOME \"quoted\" \\ and\u{e9}", "--no-wait"],
        &["delete", "bundle", "web"],
        &["operations"],
        &["version"],
    ] {
        same(&fake, line).await;
    }
}

#[tokio::test]
async fn curl_asks_what_the_commands_for_schedules_change_sets_and_the_machine_ask() {
    let fake = Fake::start();
    for line in [
        &["get", "schedules", "-A"][..],
        &["get", "schedule", "cleanup", "-o", "json"],
        &["delete", "schedule", "nightly", "--no-wait"],
        &["changeset", "new", "s", "--description", "it's for the summer"],
        &["changeset", "list", "-A"],
        &["changeset", "show", "s"],
        &["changeset", "add", "s", "db", "--rename", "pg"],
        &["changeset", "add", "s", "db", "--delete"],
        &["changeset", "plan", "s"],
        &["changeset", "apply", "s"],
        &["changeset", "rebase", "s", "--prefer", "ours"],
        &["changeset", "discard", "s"],
        &["top"],
        &["top", "-w"],
        &["diagnostics"],
        &["diagnostics", "--no-loopback", "--repair"],
        &["system", "cleanup", "--dry-run"],
    ] {
        same(&fake, line).await;
    }
}

#[tokio::test]
async fn curl_stages_what_the_command_stages() {
    let fake = Fake::start();
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {a: it's}\n";
    let file = fake.dir.path().join("conf.yaml");
    std::fs::write(&file, manifest).unwrap();
    same(&fake, &["changeset", "add", "s", "-f", file.to_str().unwrap()]).await;
}

#[tokio::test]
async fn curl_stages_the_fields_that_the_command_sets_on_what_is_there_and_only_reads_for_that() {
    let fake = Fake::start();
    let sets = "/apis/berth.dev/v1/namespaces/default/changesets";
    let set = json!({"apiVersion": "berth.dev/v1", "kind": "ChangeSet", "spec": {},
                     "metadata": {"name": "s", "namespace": "default", "resourceVersion": "7"}});
    let spec = json!({"image": "it's/web:1", "env": [{"name": "A", "value": "1"}]});
    let web = json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": "web"}, "spec": spec});
    fake.json(&format!("GET {sets}/s"), set);
    fake.json(&format!("GET {BUNDLES}/web"), web);
    let add = format!("POST {sets}/s/actions/add");
    let line = ["changeset", "add", "s", "web", "--set", "restart=always", "--env", "A=2"];
    fake.run(&line).await;
    let printed = fake.run(&[&line[..], &["--curl"]].concat()).await;
    assert_eq!((printed.code, printed.err.as_str(), printed.out.lines().count()), (0, "", 1));
    assert_eq!(fake.asked(&add).len(), 1, "--curl has staged something");
    let ran = fake.shell(&printed.out).await;
    let asked = fake.asked(&add);
    assert_eq!(asked.len(), 2, "{}\n{}", printed.out, ran.err);
    assert_eq!(meaning(&asked[1]), meaning(&asked[0]));
    assert_eq!(asked[1].json()["object"]["spec"]["restart"], "always");
}

#[tokio::test]
async fn curl_writes_the_archive_that_the_command_writes_for_its_owner_alone() {
    let fake = Fake::start();
    let path = fake.dir.path().join("it's an archive.tar.zst");
    let line = ["support-bundle", "--with-service-logs", path.to_str().unwrap(), "--curl"];
    let archive = || Reply::Stream(vec!["one ".into(), "two".into()], End::Properly);
    fake.on("GET /apis/berth.dev/v1/system/support-bundle", archive());
    let printed = fake.run(&line).await;
    assert_eq!((printed.code, fake.seen().len(), path.exists()), (0, 0, false), "{}", printed.err);
    let ran = fake.shell(&printed.out).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two", "{}{}", printed.out, ran.err);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fake.seen()[0].query, "serviceLogs=true");
}

#[tokio::test]
async fn a_setup_says_that_there_is_no_request_to_print() {
    let fake = Fake::start();
    let ran = fake.run(&["setup", "--server", "unix:///run/berth/api.sock", "--curl"]).await;
    assert_eq!((ran.code, fake.seen().len()), (2, 0));
    assert!(ran.err.contains("setup sends no request that could be printed"), "{}", ran.err);
}

#[tokio::test]
async fn curl_applies_what_the_command_applies() {
    let fake = Fake::start();
    let manifest =
        json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": "web"}, "spec": {"image": "i"}});
    let file = fake.dir.path().join("web.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let line = ["apply", "-f", file.to_str().unwrap()];
    fake.on(&format!("POST {BUNDLES}"), Reply::Json(201, manifest.clone()));
    same(&fake, &line).await;
    fake.json(&format!("GET {BUNDLES}/web"), manifest.clone());
    fake.json(&format!("PATCH {BUNDLES}/web"), manifest);
    same(&fake, &line).await;
}

#[tokio::test]
async fn curl_imports_what_the_command_imports() {
    let fake = Fake::start();
    let file = fake.dir.path().join("image.tar");
    std::fs::write(&file, b"not really an image").unwrap();
    same(&fake, &["image", "import", file.to_str().unwrap(), "--name", "localhost/web:1"]).await;
    let layout = fake.dir.path().join("a layout");
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("oci-layout"), "{}").unwrap();
    let line = ["image", "import", layout.to_str().unwrap(), "--name", "localhost/web:1", "--curl"];
    let printed = fake.run(&line).await;
    fake.shell(&printed.out).await;
    let sent = fake.seen().pop().unwrap();
    let mut archive = tar::Archive::new(&*sent.body);
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with("oci-layout")), "{names:?}");
}

#[tokio::test]
async fn the_token_is_read_by_curl_and_never_printed() {
    let fake = Fake::start_tls().await;
    let (token, ca) = (fake.dir.path().join("my token"), fake.dir.path().join("ca.crt"));
    std::fs::write(&token, "berth_secret\n").unwrap();
    let line = ["version", "--token-file", token.to_str().unwrap(), "--ca", ca.to_str().unwrap()];
    let printed = fake.run(&[&line[..], &["--curl"]].concat()).await;
    assert!(!printed.out.contains("berth_secret"), "{}", printed.out);
    same(&fake, &line).await;
    assert_eq!(fake.seen().pop().unwrap().header("authorization"), "Bearer berth_secret");
}
