//! Bootstrap tokens, devices, and a machine that lets in nobody without a client certificate.

use super::access::recorded;
use super::certificates::{CERTIFICATES, asked, both, got, request};
use super::connections::Listening;
use super::*;

const USERS: &str = "/apis/berth.dev/v1/users";
pub(super) const DEVICES: &str = "/apis/berth.dev/v1/namespaces/default/devices";
const SETTINGS: &str = "/apis/berth.dev/v1/settings/berth";

impl World {
    /// A bootstrap token for one of the whole machine's objects.
    pub(super) async fn bootstrap(&self, of: &str) -> String {
        let made = self.post(&format!("/apis/berth.dev/v1/{of}/bootstraptokens"), json!({})).await.created();
        made["token"].as_str().unwrap().to_owned()
    }

    /// A device in the default namespace: its certificate with its key.
    pub(super) async fn device(&self, name: &str, role: Option<&str>) -> String {
        self.post(DEVICES, json!({ "metadata": { "name": name }, "spec": { "role": role } })).await.created();
        let (key, request) = request();
        both(&key, &self.post(&format!("{DEVICES}/{name}/certificates"), request).await.created())
    }
}

/// A certificate, by whoever has nothing but a token.
async fn enrol(listening: &Listening, token: &str) -> (u16, Value, String) {
    let (key, request) = request();
    let asked = listening.client("localhost").post(listening.url("localhost", CERTIFICATES)).bearer_auth(token);
    let answer = asked.body(request.to_string()).send().await.unwrap();
    let code = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let pem = if code == 201 { both(&key, &body) } else { String::new() };
    (code, body, pem)
}

#[tokio::test]
async fn a_bootstrap_token_enrols_whom_it_was_made_for_once() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let made =
        world.bearing(&token, Method::POST, &format!("{USERS}/alice/bootstraptokens"), json!({})).await.created();
    assert_eq!((&made["subject"], &made["expiresAt"]), (&json!("user:alice"), &json!("2026-03-01T12:05:00Z")));
    let authority = reqwest::Certificate::from_pem(listening.authority.as_bytes());
    assert!(authority.is_ok() && made["fingerprint"].as_str().unwrap().len() == 64);
    let bootstrap = made["token"].as_str().unwrap();
    assert!(!on_disk(world.dir.path(), bootstrap.as_bytes()), "the token is on the disk");
    // At the same time, by two: one of them has it.
    let (one, other) = tokio::join!(enrol(&listening, bootstrap), enrol(&listening, bootstrap));
    let (won, lost) = if one.0 == 201 { (one, other) } else { (other, one) };
    assert_eq!((won.0, &won.1["subject"], lost.0), (201, &json!("user:alice"), 401), "{} {}", won.1, lost.1);
    assert!(lost.1["message"].as_str().unwrap().contains("it is good once"), "{}", lost.1);
    assert_eq!(got(&listening, &listening.holder(&won.2), BUNDLES).await.0, 200);
    let recorded = recorded(world).await;
    let name = won.1["name"].as_str().unwrap();
    assert!(recorded.contains(&"user:alice create users/bootstraptokens alice Done".to_owned()), "{recorded:#?}");
    assert!(recorded.iter().any(|deed| deed.ends_with("create certificates - Denied")), "{recorded:#?}");
    assert!(recorded.contains(&format!("bootstrap:user:alice create certificates {name} Done")), "{recorded:#?}");
}

#[tokio::test]
async fn a_bootstrap_token_ends_by_its_time_with_its_user_and_is_not_spent_by_a_request_that_is_wrong() {
    let world = World::new();
    world.user("alice").await;
    let enrol = async |token: &str, body| world.bearing(token, Method::POST, CERTIFICATES, body).await;
    let token = world.bootstrap("users/alice").await;
    assert_eq!(enrol(&token, json!({ "request": "x" })).await.failed().0, 422);
    enrol(&token, request().1).await.created();
    let token = world.bootstrap("users/alice").await;
    let raw = rusqlite::Connection::open(world.dir.path().join("berth.db")).unwrap();
    let noon: Timestamp = NOW.parse().unwrap();
    raw.execute("UPDATE credential SET expires_at = ?1 WHERE purpose = 'bootstrap'", [noon.as_second()]).unwrap();
    assert_eq!(enrol(&token, request().1).await.failed().0, 401);
    let token = world.bootstrap("users/alice").await;
    world.merge(&format!("{USERS}/alice"), json!({ "spec": { "disabled": true } })).await.ok();
    assert_eq!(enrol(&token, request().1).await.failed().0, 401);
    world.delete(&format!("{USERS}/alice")).await.ok();
    assert_eq!(enrol(&token, request().1).await.failed().0, 401);
}

#[tokio::test]
async fn nobody_makes_a_bootstrap_token_for_somebody_who_holds_more() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let viewer = world.logged_in("vera", "viewer", None).await;
    world.logged_in("olivia", "owner", None).await;
    let ask = async |token: &str, path: &str| {
        world.bearing(token, Method::POST, &format!("/apis/berth.dev/v1/{path}/bootstraptokens"), json!({})).await
    };
    assert_eq!(ask(&admin, "users/olivia").await.failed().0, 403);
    assert_eq!(ask(&viewer, "users/adam").await.failed().0, 403);
    assert_eq!(ask(&admin, "users/vera").await.code, 201);
    world.device("mighty", Some("owner")).await;
    world.device("lamp", Some("viewer")).await;
    assert_eq!(ask(&admin, "namespaces/default/devices/mighty").await.failed().0, 403);
    assert_eq!(ask(&admin, "namespaces/default/devices/lamp").await.code, 201);
    let spec = json!({ "metadata": { "name": "new" }, "spec": { "role": "owner" } });
    assert_eq!(world.bearing(&admin, Method::POST, DEVICES, spec).await.failed().0, 403);
    let up = json!({ "spec": { "role": "owner" } });
    assert_eq!(world.bearing(&admin, Method::PATCH, &format!("{DEVICES}/lamp"), up).await.code, 415);
    assert_eq!(world.bearing(&viewer, Method::GET, DEVICES, Value::Null).await.failed().0, 403);
}

#[tokio::test]
async fn a_device_enrols_reads_itself_and_what_its_role_grants_and_ends_when_it_is_revoked_or_deleted() {
    let listening = Listening::new().await;
    let world = &listening.world;
    world.device("door", None).await;
    world.post(DEVICES, json!({ "metadata": { "name": "lamp" }, "spec": { "role": "viewer" } })).await.created();
    let token = world.bootstrap("namespaces/default/devices/lamp").await;
    let (code, issued, pem) = enrol(&listening, &token).await;
    assert_eq!((code, &issued["subject"], &issued["name"]), (201, &json!("device:default:lamp"), &json!("lamp")));
    let lamp = listening.holder(&pem);
    let code = async |client: &reqwest::Client, path: &str| got(&listening, client, path).await.0;
    let record = world.get(&format!("{DEVICES}/lamp")).await.ok();
    assert_eq!(record["status"]["expiresAt"], "2026-05-30T12:00:00Z");
    assert_eq!((code(&lamp, &format!("{DEVICES}/lamp")).await, code(&lamp, BUNDLES).await), (200, 200));
    for refused in [&format!("{DEVICES}/door"), DEVICES, "/api/v1/namespaces/other/configmaps", "/apis", USERS] {
        assert_eq!(code(&lamp, refused).await, 403, "{refused}");
    }
    let (key, renewal) = request();
    let (answered, renewed) = asked(&listening, &lamp, Method::POST, CERTIFICATES, renewal).await;
    assert_eq!((answered, &renewed["name"]), (201, &json!("lamp")), "{renewed}");
    let renewed = listening.holder(&both(&key, &renewed));
    world.merge(&format!("{DEVICES}/lamp"), json!({ "spec": { "role": null } })).await.ok();
    assert_eq!((code(&renewed, BUNDLES).await, code(&renewed, &format!("{DEVICES}/lamp")).await), (403, 200));
    world.merge(&format!("{DEVICES}/lamp"), json!({ "spec": { "revoked": true } })).await.ok();
    assert_eq!((code(&lamp, BUNDLES).await, code(&renewed, BUNDLES).await), (401, 401));
    let again = world.post(&format!("{DEVICES}/lamp/certificates"), request().1).await;
    assert_eq!(again.failed().0, 409);
    let door = listening.holder(&{
        let (key, request) = request();
        both(&key, &world.post(&format!("{DEVICES}/door/certificates"), request).await.created())
    });
    assert_eq!(code(&door, &format!("{DEVICES}/door")).await, 200);
    world.delete(&format!("{DEVICES}/door")).await.ok();
    let (code, why) = got(&listening, &door, &format!("{DEVICES}/door")).await;
    assert!(code == 401 && why.contains("not known here"), "{code} {why}");
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_else_gets_in_also_on_open_connections_and_root_is_left() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("olivia", "owner", None).await;
    let olivia = listening.holder(&world.certified(&token).await.0);
    let bootstrap = world.bootstrap("users/olivia").await;
    let stranger = listening.client("localhost");
    let code = async |path: &str, token: &str| {
        let asked = stranger.get(listening.url("localhost", path)).bearer_auth(token).send().await.unwrap();
        asked.status().as_u16()
    };
    assert_eq!(code(BUNDLES, &token).await, 200);
    let set = |required: bool| json!({ "spec": { "api": { "requireClientCertificate": required } } });
    let refused = world.merge(SETTINGS, set(true)).await;
    assert_eq!(refused.failed().0, 403);
    assert!(refused.failed().2.contains("you come without one; have one made (`berth ca NAME`)"), "{}", refused.body);
    let merge = async |client: &reqwest::Client, body: Value| {
        let asked = client.patch(listening.url("localhost", SETTINGS)).body(body.to_string());
        asked.header("content-type", "application/merge-patch+json").send().await.unwrap().status().as_u16()
    };
    assert_eq!(merge(&olivia, set(true)).await, 200);
    // The connection is open since before.
    assert_eq!((code(BUNDLES, &token).await, code(BUNDLES, TOKEN).await), (401, 401));
    assert_eq!((code("/livez", "berth_access_x").await, code("/readyz", &token).await), (401, 401));
    let livez = stranger.get(listening.url("localhost", "/livez")).send().await.unwrap();
    assert_eq!(livez.status(), 200);
    let login = stranger.post(listening.url("localhost", "/auth/login")).body("{}").send().await.unwrap();
    let why: Value = login.json().await.unwrap();
    assert!(why["code"] == 401 && why["message"].as_str().unwrap().contains("without a client certificate"), "{why}");
    assert_eq!(got(&listening, &olivia, BUNDLES).await.0, 200);
    let (enrolled, _, pem) = enrol(&listening, &bootstrap).await;
    assert_eq!((enrolled, got(&listening, &listening.holder(&pem), BUNDLES).await.0), (201, 200));
    let root = Request::builder().uri(BUNDLES).body(Body::empty()).unwrap();
    assert_eq!(world.send_from(Peer::Socket { uid: 0 }, root).await.status(), 200);
    let root =
        Request::builder().method(Method::PATCH).uri(SETTINGS).header("content-type", "application/merge-patch+json");
    let off = root.body(Body::from(set(false).to_string())).unwrap();
    assert_eq!(world.send_from(Peer::Socket { uid: 0 }, off).await.status(), 200);
    assert_eq!(code(BUNDLES, &token).await, 200);
}
