//! secret and configmap.

use serde_json::json;

use crate::fake::{Fake, Reply};
use crate::reading::config_map;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn secret() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": {"password": "ZGlnZXN0"}})
}

#[tokio::test]
async fn a_secret_is_made_of_files_standard_input_and_chance_and_no_value_is_shown() {
    let fake = Fake::start();
    fake.on(&format!("POST {SECRETS}"), Reply::Json(201, secret()));
    let file = fake.dir.path().join("token");
    std::fs::write(&file, [0xff, 0x00]).unwrap();
    let line = ["secret", "create", "db", "--from-file", "user=-", "--from-file", file.to_str().unwrap(), "--generate"];
    let ran = fake.run_with(&[&line[..], &["password=20"]].concat(), b"berth").await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "secret/db created\n", ""));
    let body = fake.asked(&format!("POST {SECRETS}"))[0].json();
    assert_eq!((&body["kind"], &body["metadata"]["name"]), (&json!("Secret"), &json!("db")));
    assert_eq!((&body["data"]["user"], &body["data"]["token"]), (&json!("YmVydGg="), &json!("/wA=")));
    // 20 characters as base64.
    assert_eq!(body["data"]["password"].as_str().unwrap().len(), 28);
}

#[tokio::test]
async fn setting_one_value_leaves_the_others_to_the_server() {
    let fake = Fake::start();
    fake.json(&format!("PATCH {SECRETS}/db"), secret());
    let ran = fake.run_with(&["secret", "set", "db", "--from-file", "password=-"], b"new").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "secret/db set\n"), "{}", ran.err);
    assert_eq!(fake.asked(&format!("PATCH {SECRETS}/db"))[0].json(), json!({"data": {"password": "bmV3"}}));
    let ran = fake.run(&["secret", "set", "db"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[tokio::test]
async fn a_key_given_twice_and_two_values_of_standard_input_are_wrong_usage() {
    let fake = Fake::start();
    let twice = ["secret", "create", "db", "--from-literal", "a=1", "--generate", "a"];
    assert!(fake.run(&twice).await.err.contains("a is given twice"));
    let input = ["secret", "create", "db", "--from-file", "a=-", "--from-file", "b=-"];
    assert!(fake.run(&input).await.err.contains("standard input can be one value only"));
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn configuration_that_is_no_text_is_kept_as_bytes() {
    let fake = Fake::start();
    fake.on(&format!("POST {MAPS}"), Reply::Json(201, config_map("app", 2)));
    let line = ["configmap", "create", "app", "--from-literal", "MODE=fast", "--from-file", "logo=-"];
    let ran = fake.run_with(&line, &[0x89, 0xff]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "configmap/app created\n"), "{}", ran.err);
    let body = fake.asked(&format!("POST {MAPS}"))[0].json();
    assert_eq!((&body["data"], &body["binaryData"]), (&json!({"MODE": "fast"}), &json!({"logo": "if8="})));
}

#[tokio::test]
async fn install_takes_objects_as_variables_and_as_files() {
    let fake = Fake::start();
    let bundles = "/apis/berth.dev/v1/namespaces/default/bundles";
    let bundle = json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": "web"}, "spec": {"image": "r/web"}});
    fake.on(&format!("POST {bundles}"), Reply::Json(201, bundle));
    let line = ["install", "r/web", "--no-wait", "--env-from", "configmap/app", "--mount", "secret/db:/run/secrets"];
    let ran = fake.run(&line).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let spec = &fake.asked(&format!("POST {bundles}"))[0].json()["spec"];
    assert_eq!(spec["envFrom"], json!([{"configMapRef": {"name": "app"}}]));
    assert_eq!(spec["volumeMounts"], json!([{"mountPath": "/run/secrets", "secret": {"name": "db"}}]));
}
