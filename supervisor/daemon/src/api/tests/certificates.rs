//! Client certificates: how they are had, what they are good for, and how they end, over real TLS.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::access::recorded;
use super::connections::Listening;
use super::*;
use crate::auth::client_certificate::Presented;

pub(super) const CERTIFICATES: &str = "/apis/berth.dev/v1/certificates";
const USERS: &str = "/apis/berth.dev/v1/users";
const ME: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A key, and a request for it that says nothing of whose it is.
pub(super) fn request() -> (KeyPair, Value) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, json!({ "request": request, "description": "laptop" }))
}

/// Key and certificate in one, as clients read them.
pub(super) fn both(key: &KeyPair, issued: &Value) -> String {
    format!("{}{}", key.serialize_pem(), issued["certificate"].as_str().unwrap())
}

impl World {
    /// A certificate for whoever bears a token: with its key, and the name of its record.
    pub(super) async fn certified(&self, token: &str) -> (String, String) {
        let (key, request) = request();
        let issued = self.bearing(token, Method::POST, CERTIFICATES, request).await.created();
        (both(&key, &issued), issued["name"].as_str().unwrap().to_owned())
    }

    /// A request of whoever comes with a certificate, as the listener hands it on.
    pub(super) async fn presenting(&self, pem: &str, mut request: Request<Body>) -> Answer {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        request.extensions_mut().insert(Presented::of(Some(&[certificate])).unwrap());
        let peer = Peer::Network("192.0.2.9:1".parse().unwrap());
        Answer::of(self.send_from(peer, request).await).await
    }

    pub(super) async fn revoke(&self, name: &str) {
        self.merge(&format!("{CERTIFICATES}/{name}"), json!({ "spec": { "revoked": true } })).await.ok();
    }

    /// As if so much time had passed that all certificates have ended.
    fn expire_certificates(&self) {
        let raw = rusqlite::Connection::open(self.dir.path().join("berth.db")).unwrap();
        raw.execute("UPDATE credential SET expires_at = 1 WHERE purpose = 'certificate'", []).unwrap();
    }
}

/// Code, and what is told, of a request over TLS.
pub(super) async fn asked(
    listening: &Listening,
    client: &reqwest::Client,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let mut request = client.request(method, listening.url("localhost", path));
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let code = answer.status().as_u16();
    (code, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

pub(super) async fn got(listening: &Listening, client: &reqwest::Client, path: &str) -> (u16, String) {
    let (code, body) = asked(listening, client, Method::GET, path, Value::Null).await;
    (code, body["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn whoever_comes_with_his_certificate_is_who_it_says_until_it_is_revoked_also_on_an_open_connection() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let (pem, name) = world.certified(&token).await;
    let alice = listening.holder(&pem);
    let (code, me) = asked(&listening, &alice, Method::POST, ME, json!({})).await;
    assert_eq!((code, &me["status"]["userInfo"]["username"]), (201, &json!("user:alice")));
    assert_eq!(got(&listening, &alice, BUNDLES).await.0, 200);
    assert_eq!(got(&listening, &alice, USERS).await.0, 403);
    let record = world.get(&format!("{CERTIFICATES}/{name}")).await.ok();
    assert_eq!(record["spec"], json!({ "user": "alice", "description": "laptop" }));
    assert_eq!(
        (&record["status"]["expiresAt"], &record["status"]["lastSeen"]),
        (&json!("2026-03-08T12:00:00Z"), &json!(NOW))
    );
    assert_eq!(record["status"]["serial"].as_str().unwrap().len(), 32);
    world.revoke(&name).await;
    for path in [BUNDLES, "/livez", ME] {
        let (code, why) = got(&listening, &alice, path).await;
        assert!(code == 401 && why.contains("was revoked"), "{path}: {code} {why}");
    }
    let back = world.merge(&format!("{CERTIFICATES}/{name}"), json!({ "spec": { "revoked": false } })).await;
    assert_eq!(back.failed().0, 422);
    world.delete(&format!("{CERTIFICATES}/{name}")).await.ok();
    let (code, why) = got(&listening, &alice, BUNDLES).await;
    assert!(code == 401 && why.contains("not known here"), "{code} {why}");
    let recorded = recorded(world).await;
    for deed in ["user:alice create certificates", "owner patch certificates", "owner delete certificates"] {
        assert!(recorded.contains(&format!("{deed} {name} Done")), "{deed}: {recorded:#?}");
    }
    for denied in ["user:alice list bundles - Denied", "unknown list bundles - Denied"] {
        assert!(recorded.contains(&denied.to_owned()), "known while there is a record of it: {recorded:#?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_has_the_record_of_the_one_before_and_ends_with_it() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let (pem, name) = world.certified(&token).await;
    let first = listening.holder(&pem);
    let (key, request) = request();
    let (code, issued) = asked(&listening, &first, Method::POST, CERTIFICATES, request).await;
    assert_eq!((code, &issued["name"]), (201, &json!(name)), "{issued}");
    assert_eq!(names(&world.get(CERTIFICATES).await.ok()), [name.as_str()]);
    let second = listening.holder(&both(&key, &issued));
    for client in [&first, &second] {
        assert_eq!(got(&listening, client, BUNDLES).await.0, 200);
    }
    world.revoke(&name).await;
    for client in [&first, &second] {
        assert_eq!(got(&listening, client, BUNDLES).await.0, 401);
    }
    let (_, request) = self::request();
    assert_eq!(asked(&listening, &second, Method::POST, CERTIFICATES, request).await.0, 401);
}

#[tokio::test]
async fn an_expired_certificate_is_told_so_and_is_not_renewed_by_itself() {
    let listening = Listening::new().await;
    let token = listening.world.logged_in("alice", "viewer", None).await;
    let (pem, _) = listening.world.certified(&token).await;
    listening.world.expire_certificates();
    let alice = listening.holder(&pem);
    let (code, why) = got(&listening, &alice, "/livez").await;
    assert!(code == 401 && why.contains("has expired"), "{code} {why}");
    let (_, request) = request();
    assert_eq!(asked(&listening, &alice, Method::POST, CERTIFICATES, request).await.0, 401);
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_of_the_server_ends_in_the_handshake() {
    let (listening, elsewhere) = (Listening::new().await, Listening::new().await);
    let token = elsewhere.world.logged_in("olivia", "owner", None).await;
    let (foreign, _) = elsewhere.world.certified(&token).await;
    let server = std::fs::read_to_string(listening.world.dir.path().join("keys/server.pem")).unwrap();
    for pem in [foreign, server] {
        let refused = listening.holder(&pem).get(listening.url("localhost", "/livez")).send().await;
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[tokio::test]
async fn a_certificate_does_what_its_users_roles_allow_now() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let alice = listening.holder(&world.certified(&token).await.0);
    assert_eq!(got(&listening, &alice, BUNDLES).await.0, 200);
    world.delete("/apis/berth.dev/v1/rolebindings/alice-viewer").await.ok();
    assert_eq!(got(&listening, &alice, BUNDLES).await.0, 403);
    world.merge(&format!("{USERS}/alice"), json!({ "spec": { "disabled": true } })).await.ok();
    let (code, why) = got(&listening, &alice, BUNDLES).await;
    assert!(code == 401 && why.contains("disabled"), "{code} {why}");
    world.delete(&format!("{USERS}/alice")).await.ok();
    assert_eq!(got(&listening, &alice, BUNDLES).await.0, 401);
    assert_eq!(names(&world.get(CERTIFICATES).await.ok()), Vec::<&str>::new());
}

#[tokio::test]
async fn with_a_certificate_and_a_token_it_is_whose_token_it_is_if_both_are_good() {
    let listening = Listening::new().await;
    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let (pem, name) = world.certified(&token).await;
    let other = world.logged_in("bob", "viewer", None).await;
    let alice = listening.holder(&pem);
    let me = async |token: &str| {
        let asked = alice.post(listening.url("localhost", ME)).bearer_auth(token).body("{}").send().await.unwrap();
        let code = asked.status().as_u16();
        (code, asked.json::<Value>().await.unwrap()["status"]["userInfo"]["username"].clone())
    };
    assert_eq!(me(&other).await, (201, json!("user:bob")));
    assert_eq!(me("berth_access_x").await.0, 401);
    world.revoke(&name).await;
    assert_eq!(me(&other).await.0, 401, "a revoked certificate is not overlooked for the sake of a token");
}

#[tokio::test]
async fn nobody_has_a_certificate_made_for_somebody_who_holds_more() {
    let world = World::new();
    let (viewer, admin) = (world.logged_in("vera", "viewer", None).await, world.logged_in("adam", "admin", None).await);
    world.logged_in("olivia", "owner", None).await;
    let ask = async |token: &str, user: &str| {
        world.bearing(token, Method::POST, &format!("{USERS}/{user}/certificates"), request().1).await
    };
    assert_eq!(ask(&viewer, "adam").await.failed().0, 403);
    let refused = ask(&admin, "olivia").await;
    assert!(refused.failed().0 == 403 && refused.failed().2.contains("does not hold"), "{}", refused.body);
    assert_eq!(ask(&admin, "vera").await.created()["subject"], "user:vera");
    assert_eq!(ask(&viewer, "vera").await.created()["subject"], "user:vera");
    assert_eq!(ask(&admin, "nobody").await.failed().1, "NotFound");
    let olivias = world.post(&format!("{USERS}/olivia/certificates"), request().1).await.created();
    let path = format!("{CERTIFICATES}/{}", olivias["name"].as_str().unwrap());
    for method in [Method::DELETE, Method::PATCH, Method::GET] {
        let body = if method == Method::PATCH { json!({ "spec": { "revoked": true } }) } else { Value::Null };
        let answer = world.bearing(&viewer, method, &path, body).await;
        assert_eq!(answer.failed().0, 403, "{}", answer.body);
    }
    assert_eq!(world.bearing(&admin, Method::DELETE, &path, Value::Null).await.failed().0, 403);
}

#[tokio::test]
async fn a_request_that_is_none_is_refused_with_its_field_and_nothing_is_recorded() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    for request in ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        let answer = world.bearing(&token, Method::POST, CERTIFICATES, json!({ "request": request })).await;
        assert_eq!((answer.failed().0, &answer.body["details"]["causes"][0]["field"]), (422, &json!("request")));
    }
    let answer = world.bearing(&token, Method::POST, CERTIFICATES, json!({ "user": "olivia" })).await;
    assert_eq!(answer.failed().0, 400, "whom it names is not to be said");
    let (_, mut long) = request();
    long["description"] = "x".repeat(257).into();
    assert_eq!(world.bearing(&token, Method::POST, CERTIFICATES, long).await.failed().0, 422);
    let nobody = world.post(CERTIFICATES, request().1).await;
    assert!(nobody.failed().0 == 400 && nobody.failed().2.contains("say for whom"), "{}", nobody.body);
    assert_eq!(names(&world.get(CERTIFICATES).await.ok()), Vec::<&str>::new());
}
