//! Passkeys: made by a browser's authenticator, shown beside the password, taken away.

use berth_tests::browser::Browser as RealBrowser;
use webauthn_authenticator_rs::WebauthnAuthenticator;
use webauthn_authenticator_rs::softpasskey::SoftPasskey;
use webauthn_rs::prelude::Url;

use super::access::{PASSWORD, USERS, text};
use super::connections::Listening;
use super::*;

const HOST: &str = "berth.local:6443";

/// A browser that has the machine open by its name, with an authenticator of its own.
struct Browser(WebauthnAuthenticator<SoftPasskey>);

impl Browser {
    fn new() -> Self {
        Self(WebauthnAuthenticator::new(SoftPasskey::new(true)))
    }

    fn origin() -> Url {
        Url::parse(&format!("https://{HOST}")).unwrap()
    }

    /// What it makes for a challenge.
    fn create(&mut self, challenge: &Value) -> Value {
        let options = serde_json::from_value(challenge["options"].clone()).unwrap();
        serde_json::to_value(self.0.do_registration(Self::origin(), options).unwrap()).unwrap()
    }

    /// What it shows for a challenge, on a page that it has from there.
    fn get(&mut self, challenge: &Value, origin: &str) -> Value {
        let options = serde_json::from_value(challenge["options"].clone()).unwrap();
        serde_json::to_value(self.0.do_authentication(Url::parse(origin).unwrap(), options).unwrap()).unwrap()
    }

    fn login(&mut self, challenge: &Value) -> Value {
        let credential = self.get(challenge, Self::origin().as_str());
        let proof = json!({ "challenge": challenge["challenge"], "credential": credential });
        json!({ "user": "alice", "password": PASSWORD, "passkey": proof })
    }
}

impl World {
    /// As a browser asks, which says by what name it has the machine.
    async fn browsing(&self, token: Option<&str>, host: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(Method::POST).uri(path).header("host", host);
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let peer = Peer::Network("192.0.2.9:1".parse().unwrap());
        Answer::of(self.send_from(peer, request.body(Body::from(body.to_string())).unwrap()).await).await
    }

    async fn challenged(&self, token: &str) -> Value {
        self.browsing(Some(token), HOST, &format!("{USERS}/alice/passkeys"), json!({})).await.ok()
    }

    async fn confirm(&self, token: &str, challenge: &Value, name: &str, credential: &Value) -> Answer {
        let body = json!({ "challenge": challenge["challenge"], "name": name, "credential": credential });
        self.browsing(Some(token), HOST, &format!("{USERS}/alice/passkeys/confirm"), body).await
    }

    /// A user with a passkey, his token and his recovery codes.
    async fn with_passkey(&self, browser: &mut Browser) -> (String, Value) {
        let token = self.logged_in("alice", "viewer", None).await;
        let challenge = self.challenged(&token).await;
        let credential = browser.create(&challenge);
        let given = self.confirm(&token, &challenge, "laptop", &credential).await.ok();
        (token, given["recoveryCodes"].clone())
    }

    async fn challenged_at_the_door(&self) -> Value {
        let who = json!({ "user": "alice", "password": PASSWORD });
        self.browsing(None, HOST, "/auth/passkey", who).await.ok()
    }

    async fn enter(&self, body: Value) -> Answer {
        self.browsing(None, HOST, "/auth/login", body).await
    }
}

fn causes(answer: &Answer) -> Vec<(&str, &str)> {
    let all = answer.body["details"]["causes"].as_array().unwrap();
    all.iter().map(|cause| (text(cause, "field"), text(cause, "reason"))).collect()
}

const WRONG: [(&str, &str); 1] = [("passkey", "FieldValueInvalid")];

#[tokio::test]
async fn a_user_makes_a_passkey_and_needs_it_or_a_recovery_code_from_then_on() {
    let (world, mut browser) = (World::new(), Browser::new());
    let (token, codes) = world.with_passkey(&mut browser).await;
    assert_eq!(codes.as_array().unwrap().len(), 10);
    let user = world.get(&format!("{USERS}/alice")).await.ok();
    assert_eq!(user["status"]["passkeys"], json!([{ "name": "laptop", "host": "berth.local", "added": NOW }]));
    assert_eq!(world.table(USERS).await["rows"][0]["cells"][3], "True");

    let answer = world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await;
    assert_eq!(
        (answer.code, causes(&answer)),
        (401, vec![("code", "FieldValueRequired"), ("passkey", "FieldValueRequired")])
    );
    let challenge = world.challenged_at_the_door().await;
    let tokens = world.enter(browser.login(&challenge)).await.ok();
    let me = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = world.bearing(text(&tokens, "accessToken"), Method::POST, me, json!({})).await.created();
    assert_eq!(me["status"]["userInfo"]["extra"]["berth.dev/second-factor"], json!(["passkey"]));
    let user = world.get(&format!("{USERS}/alice")).await.ok();
    assert_eq!(user["status"]["passkeys"][0]["lastUsed"], NOW);

    let code = json!({ "user": "alice", "password": PASSWORD, "code": codes[0] });
    world.stranger("/auth/login", code.clone()).await.ok();
    assert_eq!(world.stranger("/auth/login", code).await.code, 401);
    // Beside the first, another one needs no codes of its own.
    let challenge = world.challenged(&token).await;
    let excluded = &challenge["options"]["publicKey"]["excludeCredentials"];
    assert_eq!(excluded.as_array().map(Vec::len), Some(1), "{challenge}");
    let credential = Browser::new().create(&challenge);
    let given = world.confirm(&token, &challenge, "phone", &credential).await.ok();
    assert_eq!(given["recoveryCodes"], json!([]));
}

/// Answers of a page to a challenge, as its scripts would make them.
fn in_the_page(call: &str, parser: &str, challenge: &Value) -> String {
    let options = &challenge["options"]["publicKey"];
    format!(
        "navigator.credentials.{call}({{publicKey: PublicKeyCredential.{parser}({options})}}).then(made => made.toJSON())"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_trusts_the_machines_authority_makes_and_shows_a_passkey_for_its_name() {
    let listening = Listening::new().await;
    let authority = listening.world.dir.path().join("authority.pem");
    std::fs::write(&authority, &listening.authority).unwrap();
    let page = listening.url("harbour.local", "/livez");
    let host = format!("harbour.local:{}", listening.address.port());
    let refused = tokio::task::block_in_place(|| RealBrowser::start(None).unwrap().open(&page)).unwrap_err();
    assert_eq!(refused.to_string(), "the browser refused: net::ERR_CERT_AUTHORITY_INVALID");

    let world = &listening.world;
    let token = world.logged_in("alice", "viewer", None).await;
    let mut browser = tokio::task::block_in_place(|| RealBrowser::start(Some(&authority)).unwrap());
    tokio::task::block_in_place(|| browser.open(&page).and_then(|()| browser.add_authenticator()).unwrap());
    let challenge = world.browsing(Some(&token), &host, &format!("{USERS}/alice/passkeys"), json!({})).await.ok();
    let script = in_the_page("create", "parseCreationOptionsFromJSON", &challenge);
    let made = tokio::task::block_in_place(|| browser.evaluate(&script)).unwrap();
    let body = json!({ "challenge": challenge["challenge"], "name": "laptop", "credential": made });
    world.browsing(Some(&token), &host, &format!("{USERS}/alice/passkeys/confirm"), body).await.ok();

    let who = json!({ "user": "alice", "password": PASSWORD });
    assert_eq!(world.stranger("/auth/login", who.clone()).await.code, 401);
    let challenge = world.browsing(None, &host, "/auth/passkey", who).await.ok();
    let script = in_the_page("get", "parseRequestOptionsFromJSON", &challenge);
    let shown = tokio::task::block_in_place(|| browser.evaluate(&script)).unwrap();
    let proof = json!({ "challenge": challenge["challenge"], "credential": shown });
    let body = json!({ "user": "alice", "password": PASSWORD, "passkey": proof });
    let tokens = world.browsing(None, &host, "/auth/login", body).await.ok();
    assert_eq!(text(&tokens, "user"), "alice");
}

#[tokio::test]
async fn an_answer_counts_once_for_its_own_challenge_name_and_user() {
    let (world, mut browser) = (World::new(), Browser::new());
    world.with_passkey(&mut browser).await;
    let challenge = world.challenged_at_the_door().await;
    let first = browser.login(&challenge);
    world.enter(first.clone()).await.ok();
    assert_eq!(causes(&world.enter(first).await), WRONG, "an answer that was used");

    let (one, other) = (world.challenged_at_the_door().await, world.challenged_at_the_door().await);
    let mut swapped = browser.login(&one);
    swapped["passkey"]["challenge"] = other["challenge"].clone();
    assert_eq!(causes(&world.enter(swapped).await), WRONG, "an answer to another challenge");

    let challenge = world.challenged_at_the_door().await;
    let mut elsewhere = browser.login(&challenge);
    elsewhere["passkey"]["credential"] = browser.get(&challenge, "https://evil.berth.local:6443");
    assert_eq!(causes(&world.enter(elsewhere).await), WRONG, "an answer that another page was given");

    let challenge = world.challenged_at_the_door().await;
    world.user("bob").await;
    let mut others = browser.login(&challenge);
    others["user"] = json!("bob");
    assert_eq!(causes(&world.enter(others).await), WRONG, "an answer of somebody else");

    let late = world.challenged_at_the_door().await;
    let answer = browser.login(&late);
    *world.now.lock().unwrap() += jiff::SignedDuration::from_mins(5);
    assert_eq!(causes(&world.enter(answer).await), WRONG, "an answer that comes late");
}

#[tokio::test]
async fn nobody_is_challenged_without_the_password_and_who_is_wrong_too_often_waits() {
    let (world, mut browser) = (World::new(), Browser::new());
    world.with_passkey(&mut browser).await;
    for _ in 0..7 {
        world.challenged_at_the_door().await;
    }
    let guess = json!({ "user": "alice", "password": "not his password" });
    for _ in 0..5 {
        let answer = world.browsing(None, HOST, "/auth/passkey", guess.clone()).await;
        assert_eq!((answer.code, &answer.body["details"]), (401, &Value::Null));
    }
    assert_eq!(world.browsing(None, HOST, "/auth/passkey", guess).await.code, 429);
}

#[tokio::test]
async fn a_passkey_belongs_to_a_name_and_an_address_is_told_so() {
    let (world, mut browser) = (World::new(), Browser::new());
    let (token, _) = world.with_passkey(&mut browser).await;
    let answer = world.browsing(Some(&token), "192.0.2.1:6443", &format!("{USERS}/alice/passkeys"), json!({})).await;
    assert_eq!(answer.failed().0, 400);
    assert!(answer.failed().2.contains("open the machine by its name"), "{}", answer.failed().2);
    let who = json!({ "user": "alice", "password": PASSWORD });
    let answer = world.browsing(None, "harbour.example", "/auth/passkey", who).await;
    assert_eq!(answer.failed().0, 409);
    assert!(answer.failed().2.contains("alice has no passkey for harbour.example"), "{}", answer.failed().2);
}

#[tokio::test]
async fn what_is_no_passkey_is_refused_and_changes_nothing() {
    let (world, mut browser) = (World::new(), Browser::new());
    let token = world.logged_in("alice", "viewer", None).await;
    let challenge = world.challenged(&token).await;
    assert_eq!(world.confirm(&token, &challenge, " ", &json!({})).await.failed().0, 422);
    assert_eq!(world.confirm(&token, &challenge, "laptop", &json!({ "id": "x" })).await.failed().0, 422);
    // That was its one answer.
    let credential = browser.create(&challenge);
    assert_eq!(world.confirm(&token, &challenge, "laptop", &credential).await.failed().0, 409);
    let challenge = world.challenged(&token).await;
    let other = browser.create(&world.challenged(&token).await);
    assert_eq!(world.confirm(&token, &challenge, "laptop", &other).await.failed().0, 422);
    assert_eq!(world.get(&format!("{USERS}/alice")).await.ok()["status"]["passkeys"], Value::Null);
    world.login("alice").await;
    // A key or somebody else makes none for him.
    assert_eq!(world.post(&format!("{USERS}/alice/passkeys"), json!({})).await.failed().0, 403);
}

#[tokio::test]
async fn a_passkey_is_taken_away_by_its_user_or_by_who_may_do_more() {
    let (world, mut browser) = (World::new(), Browser::new());
    let (token, _) = world.with_passkey(&mut browser).await;
    let remove = format!("{USERS}/alice/passkeys/remove");
    let answer = world.bearing(&token, Method::POST, &remove, json!({ "name": "phone" })).await;
    assert_eq!((answer.failed().0, answer.failed().2), (404, "alice has no passkey called phone"));
    let waits = world.challenged_at_the_door().await;
    let answer = browser.login(&waits);
    world.bearing(&token, Method::POST, &remove, json!({ "name": "laptop" })).await.ok();
    assert_eq!(causes(&world.enter(answer).await), WRONG, "one that was taken away meanwhile");
    let user = world.get(&format!("{USERS}/alice")).await.ok();
    assert_eq!((&user["status"]["passkeys"], &user["status"]["recoveryCodes"]), (&Value::Null, &Value::Null));
    world.login("alice").await;

    let challenge = world.challenged(&token).await;
    let credential = browser.create(&challenge);
    world.confirm(&token, &challenge, "laptop", &credential).await.ok();
    let stranger = world.logged_in("bob", "viewer", None).await;
    assert_eq!(world.bearing(&stranger, Method::POST, &remove, json!({ "name": "laptop" })).await.code, 403);
    let admin = world.logged_in("carol", "admin", None).await;
    world.bearing(&admin, Method::POST, &remove, json!({ "name": "laptop" })).await.ok();
    world.login("alice").await;
}
