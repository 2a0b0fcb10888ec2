//! apply, delete and image import.

use std::io::Read;

use serde_json::json;

use crate::fake::{End, Fake, Reply};
use crate::reading::config_map;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: fresh}
data:
  script: |
    #!/bin/sh
    echo yes
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {mode: \"0755\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: same}
";

fn scripted() -> Fake {
    let fake = Fake::start();
    fake.on(&format!("POST {MAPS}"), Reply::Json(201, config_map("fresh", 20)));
    fake.json(&format!("GET {MAPS}/other"), config_map("other", 5));
    fake.json(&format!("PATCH {MAPS}/other"), config_map("other", 21));
    fake.json(&format!("GET {MAPS}/same"), config_map("same", 6));
    fake.json(&format!("PATCH {MAPS}/same"), config_map("same", 6));
    fake
}

#[tokio::test]
async fn apply_says_what_became_of_each_object() {
    let fake = scripted();
    let ran = fake.run_with(&["apply", "-f", "-"], MANIFEST.as_bytes()).await;
    assert_eq!(
        ran.out, "configmap/fresh created\nconfigmap/other configured\nconfigmap/same unchanged\n",
        "{}",
        ran.err
    );
    assert_eq!(ran.code, 0);
    let created = &fake.asked(&format!("POST {MAPS}"))[0];
    assert_eq!(created.json()["data"]["script"], "#!/bin/sh\necho yes\n");
    let patched = &fake.asked(&format!("PATCH {MAPS}/other"))[0];
    assert_eq!(patched.json()["data"]["mode"], "0755");
    assert_eq!(patched.query, "fieldValidation=Strict");
}

#[tokio::test]
async fn a_directory_is_applied_in_the_order_of_its_files() {
    let fake = scripted();
    let (first, rest) = MANIFEST.split_once("---\n").unwrap();
    std::fs::write(fake.dir.path().join("b.yaml"), rest).unwrap();
    let first: serde_json::Value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fresh"},
                                          "data": {"length": first.len().to_string()}});
    std::fs::write(fake.dir.path().join("a.json"), first.to_string()).unwrap();
    std::fs::write(fake.dir.path().join("notes.txt"), "no manifest").unwrap();
    let ran = fake.run(&["apply", "-f", fake.dir.path().to_str().unwrap(), "-o", "name"]).await;
    assert_eq!(ran.out, "configmap/fresh\nconfigmap/other\nconfigmap/same\n", "{}", ran.err);
}

#[tokio::test]
async fn of_several_objects_each_failure_is_told_and_the_rest_is_applied() {
    let fake = Fake::start();
    fake.on(&format!("POST {MAPS}"), Reply::Json(201, config_map("fresh", 20)));
    fake.json(&format!("GET {MAPS}/other"), config_map("other", 5));
    fake.refuse(&format!("PATCH {MAPS}/other"), 409, "Conflict", "somebody changed it");
    let ran = fake.run_with(&["apply", "-f", "-"], MANIFEST.as_bytes()).await;
    assert_eq!((ran.code, ran.out.as_str()), (5, "configmap/fresh created\nconfigmap/same created\n"));
    assert_eq!(ran.err, "configmap/other: error [409 Conflict]: somebody changed it\nerror [Failed]: 1 of 3 failed\n");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_says_where() {
    let fake = Fake::start();
    let ran = fake.run_with(&["apply", "-f", "-"], b"apiVersion: v1\nkind: [\nmetadata: {}\n").await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("error [Manifest]: cannot read standard input: "), "{}", ran.err);
    let ran = fake.run(&["apply", "-f", "/nowhere/web.yaml"]).await;
    assert_eq!(ran.err, "error [Local]: cannot read /nowhere/web.yaml: No such file or directory (os error 2)\n");
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn delete_takes_effect_at_once_or_waits_until_it_has() {
    let fake = Fake::start();
    fake.json(&format!("DELETE {MAPS}/one"), json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    let ran = fake.run(&["delete", "configmap", "one"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "configmap/one deleted\n"));

    let mut going = config_map("two", 8);
    going["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z".into();
    fake.json(&format!("DELETE {MAPS}/two"), going.clone());
    fake.list(&format!("GET {MAPS}"), 8, vec![going.clone()]);
    fake.events(MAPS, &[("DELETED", going)], End::Open);
    let ran = fake.run(&["delete", "configmap/two", "--no-wait"]).await;
    assert_eq!(ran.out, "configmap/two is being deleted\n");
    let ran = fake.run(&["delete", "configmap/two"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "configmap/two deleted\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_manifest_is_deleted_from_its_end() {
    let fake = Fake::start();
    for name in ["fresh", "same"] {
        fake.json(&format!("DELETE {MAPS}/{name}"), json!({"kind": "Status", "status": "Success"}));
    }
    let ran = fake.run_with(&["delete", "-f", "-", "--ignore-not-found"], MANIFEST.as_bytes()).await;
    assert_eq!(ran.out, "configmap/same deleted\nconfigmap/other not found\nconfigmap/fresh deleted\n", "{}", ran.err);
    assert_eq!(ran.code, 0);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() {
    let fake = Fake::start();
    let ran = fake.run(&["delete", "configmap", "none"]).await;
    assert_eq!(ran.code, 3);
    let ran = fake.run(&["delete", "configmaps"]).await;
    assert_eq!((ran.code, ran.err.lines().next()), (2, Some("error [Usage]: say which configmap to delete")));
}

const IMPORT: &str = "POST /apis/berth.dev/v1/images/import";

fn names_in(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let names = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        std::io::copy(&mut entry.by_ref(), &mut std::io::sink()).unwrap();
        entry.path().unwrap().display().to_string()
    });
    names.filter(|name| !name.ends_with('/')).collect()
}

#[tokio::test]
async fn an_image_is_imported_from_a_directory_a_file_and_standard_input() {
    let fake = Fake::start();
    fake.on(IMPORT, Reply::Json(201, json!({"spec": {"names": ["localhost/web:1"], "digest": "sha256:ab"}})));
    let layout = fake.dir.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let ran = fake.run(&["image", "import", layout.to_str().unwrap(), "--name", "localhost/web:1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "image localhost/web:1 imported sha256:ab\n"), "{}", ran.err);
    let packed = fake.asked(IMPORT)[0].clone();
    assert_eq!(
        (packed.query.as_str(), packed.header("content-type")),
        ("name=localhost%2Fweb%3A1", "application/x-tar")
    );
    assert_eq!(names_in(&packed.body), ["oci-layout"]);

    let file = fake.dir.path().join("web.tar");
    std::fs::write(&file, &packed.body).unwrap();
    fake.run(&["image", "import", file.to_str().unwrap(), "--name", "localhost/web:1"]).await;
    fake.run_with(&["image", "import", "-", "--name", "localhost/web:1"], &packed.body).await;
    for seen in fake.asked(IMPORT) {
        assert_eq!(seen.body, packed.body);
    }
}

#[tokio::test]
async fn a_refused_image_is_told_in_the_servers_words() {
    let fake = Fake::start();
    fake.refuse(IMPORT, 400, "BadRequest", "the archive holds no index.json; export it as an OCI layout");
    let ran = fake.run_with(&["image", "import", "-", "--name", "localhost/web:1"], b"nonsense").await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "error [400 BadRequest]: the archive holds no index.json; export it as an OCI layout\n");
}

#[tokio::test]
async fn unused_images_are_listed_by_a_dry_run_and_removed_without_and_one_is_removed_by_name() {
    let fake = Fake::start();
    let images = json!({"items": [{"spec": {"names": ["r.example/web:1"], "digest": "sha256:ab", "size": 1024}}]});
    let prune = "POST /apis/berth.dev/v1/images/prune";
    fake.on(prune, Reply::Json(200, images));
    let ran = fake.run(&["image", "prune", "--dry-run"]).await;
    assert!(ran.out.contains("r.example/web:1") && ran.out.ends_with("would be removed: 1\n"), "{}", ran.out);
    let ran = fake.run(&["image", "prune"]).await;
    assert!(ran.out.ends_with("\nremoved: 1\n"), "{}", ran.out);
    let asked = fake.asked(prune);
    assert_eq!((asked[0].query.as_str(), asked[1].query.as_str()), ("dryRun=All", ""));

    let images = "DELETE /apis/berth.dev/v1/images";
    fake.on(images, Reply::Json(200, json!({"status": "Success"})));
    let ran = fake.run(&["image", "remove", "r.example/web:1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "image r.example/web:1 removed\n"), "{}", ran.err);
    assert_eq!(fake.asked(images)[0].query, "name=r.example%2Fweb%3A1");
    let fake = Fake::start();
    fake.refuse(images, 409, "Conflict", "the image r.example/web:1 is in use");
    assert_eq!(fake.run(&["image", "remove", "r.example/web:1"]).await.code, 5);
}
