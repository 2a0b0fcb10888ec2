//! A resource in an editor: sent back if it was changed, and never lost.

use serde_json::{Value, json};

use crate::fake::{Fake, Seen};

const GET: &str = "GET /apis/berth.dev/v1/namespaces/default/bundles/web";
const PUT: &str = "PUT /apis/berth.dev/v1/namespaces/default/bundles/web";

fn bundle(image: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Bundle",
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7", "managedFields": [{}]},
        "spec": {"image": image}, "status": {"phase": "Running"},
    })
}

fn sent(fake: &Fake) -> Vec<Value> {
    fake.asked(PUT).iter().map(Seen::json).collect()
}

#[tokio::test]
async fn what_was_changed_in_the_editor_is_sent_with_the_version_it_was_made_from() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1")).json(PUT, bundle("r/web:2"));
    let ran = fake.run_editing(&["edit", "bundle/web"], "sed -i s/web:1/web:2/ \"$1\"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bundle/web edited\n"), "{}", ran.err);
    let wanted = json!({
        "apiVersion": "berth.dev/v1", "kind": "Bundle",
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7"}, "spec": {"image": "r/web:2"},
    });
    assert_eq!(sent(&fake), [wanted]);
    assert_eq!(left(&fake), 0, "a text is left behind");
}

/// Texts in the folder of temporary files.
fn left(fake: &Fake) -> usize {
    let files = std::fs::read_dir(fake.dir.path()).unwrap().map(|file| file.unwrap().file_name());
    files.filter(|name| name.to_string_lossy().starts_with("berth-edit-")).count()
}

#[tokio::test]
async fn a_text_that_was_left_alone_or_emptied_changes_nothing() {
    for editor in ["true", "echo >\"$1\"", "sed -i \"s/^image/image/\" \"$1\""] {
        let fake = Fake::start();
        fake.json(GET, bundle("r/web:1"));
        let ran = fake.run_editing(&["edit", "bundle", "web"], editor).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, "bundle/web is as it was\n"), "{editor}");
        assert_eq!((sent(&fake).len(), left(&fake)), (0, 0));
    }
}

#[tokio::test]
async fn a_refused_text_is_opened_again_with_the_reason_and_kept_in_the_end() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1")).refuse(PUT, 422, "Invalid", "spec.image: no such form");
    // The second time, the reason stands above what was written the first time, and nothing is changed.
    let editor = "grep -q \"no such form\" \"$1\" || sed -i s/web:1/WEB/ \"$1\"";
    let ran = fake.run_editing(&["edit", "bundle/web"], editor).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("spec.image: no such form") && ran.err.contains("try: what you wrote is kept in"),
        "{}",
        ran.err
    );
    assert_eq!(sent(&fake).len(), 1);
    let kept = ran.err.split("kept in ").nth(1).unwrap().trim();
    assert!(std::fs::read_to_string(kept).unwrap().contains("image: r/WEB"));
}

#[tokio::test]
async fn a_text_that_is_no_yaml_can_be_mended() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1")).json(PUT, bundle("r/web:2"));
    let editor = "if grep -q \"^# error\" \"$1\"; then sed -i /oops/d \"$1\"; \
                  else sed -i s/web:1/web:2/ \"$1\"; echo \"oops: [\" >>\"$1\"; fi";
    let ran = fake.run_editing(&["edit", "bundle/web"], editor).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(sent(&fake).len(), 1);
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_not_overwritten_and_the_text_is_kept() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1")).refuse(PUT, 409, "Conflict", "it was changed meanwhile");
    let ran = fake.run_editing(&["edit", "bundle/web"], "sed -i s/web:1/web:2/ \"$1\"").await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("changed meanwhile") && ran.err.contains("kept in"), "{}", ran.err);
    assert_eq!(left(&fake), 1);
}

#[tokio::test]
async fn an_editor_that_fails_changes_nothing() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1"));
    let ran = fake.run_editing(&["edit", "bundle/web"], "sed -i s/web:1/web:2/ \"$1\"; exit 3").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("cannot edit with"), "{}", ran.err);
    assert_eq!(sent(&fake).len(), 0);
}

#[tokio::test]
async fn the_command_for_an_edit_holds_what_was_made_of_it_and_does_the_same() {
    let fake = Fake::start();
    fake.json(GET, bundle("r/web:1")).json(PUT, bundle("r/web:2"));
    let editor = "sed -i s/web:1/web:2/ \"$1\"";
    let printed = fake.run_editing(&["edit", "bundle/web", "--curl"], editor).await;
    assert_eq!((printed.code, sent(&fake).len(), left(&fake)), (0, 0, 0), "{}", printed.err);
    assert_eq!(fake.shell(&printed.out).await.code, 0);
    fake.run_editing(&["edit", "bundle/web"], editor).await;
    let [by_curl, by_berth] = &sent(&fake)[..] else { panic!("sent {} times", sent(&fake).len()) };
    assert_eq!(by_curl, by_berth);
}
