//! Logins without a password: who lets them in, how often programs ask, and that each is good once.

use std::time::Duration;

use super::access::{PASSWORD, USERS, recorded, text};
use super::*;

const FROM: &str = "198.51.100.7";

/// A login that a program has begun.
struct Begun {
    device: String,
    code: String,
}

impl World {
    async fn form(&self, path: &str, from: &str, form: &str) -> Answer {
        let peer = Peer::Network(format!("{from}:40000").parse().unwrap());
        let request = Request::builder().method(Method::POST).uri(path).header("user-agent", "lamp/2");
        let request = request.header("content-type", "application/x-www-form-urlencoded").header("host", "box:6443");
        Answer::of(self.send_from(peer, request.body(Body::from(form.to_owned())).unwrap()).await).await
    }

    async fn begins_from(&self, from: &str) -> Answer {
        self.form("/auth/device", from, "client_id=lamp").await
    }

    async fn begins(&self) -> Begun {
        let begun = self.begins_from(FROM).await;
        assert_eq!(begun.header("cache-control"), "no-store");
        let begun = begun.ok();
        Begun { device: text(&begun, "device_code").to_owned(), code: text(&begun, "user_code").to_owned() }
    }

    /// The program asks, so many seconds after it asked last.
    async fn polls(&self, begun: &Begun, after: u64) -> Answer {
        *self.now.lock().unwrap() += Duration::from_secs(after);
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={}&client_id=lamp",
            begun.device
        );
        self.form("/auth/device/token", FROM, &form).await
    }

    async fn says(&self, token: &str, name: &str, what: &str, code: &str) -> Answer {
        let path = format!("{USERS}/{name}/devicelogins{what}");
        self.bearing(token, Method::POST, &path, json!({ "userCode": code })).await
    }
}

/// The word that a program goes by.
fn word(answer: &Answer) -> (u16, &str) {
    (answer.code, answer.body["error"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_program_that_shows_a_code_comes_in_once_as_the_user_who_lets_it_in() {
    let world = World::new();
    let alice = world.logged_in("alice", "viewer", None).await;
    let shown = world.begins_from(FROM).await.ok();
    assert_eq!((&shown["expires_in"], &shown["interval"]), (&json!(600), &json!(5)));
    assert_eq!(text(&shown, "verification_uri"), "https://box:6443/device");
    let begun = Begun { device: text(&shown, "device_code").into(), code: text(&shown, "user_code").into() };
    assert_eq!((begun.code.len(), begun.code.find('-')), (9, Some(4)), "{}", begun.code);
    for secret in [&begun.device, &begun.code, &begun.code.replace('-', "")] {
        assert!(!on_disk(world.dir.path(), secret.as_bytes()), "{secret} is on the disk");
    }
    assert_eq!(word(&world.polls(&begun, 5).await), (400, "authorization_pending"));

    let typed = begun.code.to_lowercase().replace('-', " ");
    let seen = world.says(&alice, "alice", "", &typed).await.ok();
    assert_eq!((text(&seen, "address"), text(&seen, "program")), (FROM, "lamp/2"));
    assert_eq!((text(&seen, "begunAt"), text(&seen, "expiresAt")), (NOW, "2026-03-01T12:10:00Z"));
    assert_eq!(world.says(&alice, "alice", "/approve", &typed).await.ok(), seen);
    // It is decided, for good.
    for what in ["", "/approve", "/deny"] {
        let again = world.says(&alice, "alice", what, &begun.code).await;
        assert_eq!((again.failed().0, &again.body["details"]["causes"][0]["field"]), (422, &json!("userCode")));
    }

    let tokens = world.polls(&begun, 5).await;
    assert_eq!(tokens.header("cache-control"), "no-store");
    let tokens = tokens.ok();
    assert_eq!(
        (text(&tokens, "token_type"), text(&tokens, "user"), &tokens["expires_in"]),
        ("Bearer", "alice", &json!(900))
    );
    world.bearing(text(&tokens, "access_token"), Method::GET, BUNDLES, Value::Null).await.ok();
    let session = format!("/apis/berth.dev/v1/sessions/{}", text(&tokens, "session"));
    let session = world.get(&session).await.ok();
    assert_eq!((text(&session["status"], "address"), text(&session["status"], "program")), (FROM, "lamp/2"));
    // As young as the proof of whoever let it in, and no younger.
    assert_eq!(text(&session["status"], "authenticated"), NOW);
    world.stranger("/auth/refresh", json!({ "refreshToken": tokens["refresh_token"] })).await.ok();
    assert_eq!(word(&world.polls(&begun, 5).await), (400, "expired_token"));

    let deeds = recorded(&world).await;
    for deed in [
        "anonymous create /auth/device - Done",
        "user:alice create users/devicelogins/approve alice Done",
        "user:alice create /auth/device/token alice Done",
    ] {
        assert_eq!(deeds.iter().filter(|one| *one == deed).count(), 1, "{deed}: {deeds:#?}");
    }
}

#[tokio::test]
async fn who_asks_too_soon_waits_longer_each_time_even_for_what_is_decided() {
    let world = World::new();
    let alice = world.logged_in("alice", "viewer", None).await;
    let begun = world.begins().await;
    assert_eq!(word(&world.polls(&begun, 1).await).1, "authorization_pending");
    assert_eq!(word(&world.polls(&begun, 4).await).1, "slow_down");
    world.says(&alice, "alice", "/deny", &begun.code).await.ok();
    assert_eq!(word(&world.polls(&begun, 9).await).1, "slow_down");
    assert_eq!(word(&world.polls(&begun, 15).await), (400, "access_denied"));
    assert_eq!(word(&world.polls(&begun, 60).await).1, "expired_token");
}

#[tokio::test]
async fn after_ten_minutes_a_code_is_good_for_nothing_whoever_lets_it_in() {
    let world = World::new();
    let begun = world.begins().await;
    let let_in = world.begins().await;
    let alice = world.logged_in("alice", "viewer", None).await;
    world.says(&alice, "alice", "/approve", &let_in.code).await.ok();
    *world.now.lock().unwrap() = "2026-03-01T12:10:00Z".parse().unwrap();
    assert_eq!(world.says(&alice, "alice", "/approve", &begun.code).await.failed().0, 422);
    for login in [begun, let_in] {
        assert_eq!(word(&world.polls(&login, 0).await), (400, "expired_token"));
    }
}

#[tokio::test]
async fn what_somebody_let_in_ends_with_his_password_his_account_or_himself() {
    let world = World::new();
    for end in ["password", "disabled", "deleted"] {
        let name = format!("alice-{end}");
        let token = world.logged_in(&name, "viewer", None).await;
        let begun = world.begins().await;
        world.says(&token, &name, "/approve", &begun.code).await.ok();
        let him = format!("{USERS}/{name}");
        let answer = match end {
            "password" => world.post(&format!("{him}/password"), json!({ "password": "another horse battery" })).await,
            "disabled" => world.merge(&him, json!({ "spec": { "disabled": true } })).await,
            _ => world.delete(&him).await,
        };
        answer.ok();
        assert_eq!(word(&world.polls(&begun, 1).await), (400, "expired_token"), "{end}");
    }
}

#[tokio::test]
async fn only_a_user_lets_a_login_in_who_has_proven_of_late_who_he_is_and_as_himself() {
    let world = World::new();
    let alice = world.logged_in("alice", "owner", None).await;
    world.user("bob").await;
    let begun = world.begins().await;
    let key = world.post(&format!("{USERS}/alice/apikeys"), json!({ "name": "ci" })).await.created();
    for (token, name) in [(text(&key, "key"), "alice"), (alice.as_str(), "bob"), (TOKEN, "alice"), (TOKEN, "bob")] {
        for what in ["", "/approve", "/deny"] {
            let refused = world.says(token, name, what, &begun.code).await;
            assert!(refused.failed().0 == 403 && refused.failed().2.contains("as himself alone"), "{}", refused.body);
        }
    }
    // Whoever goes on in an old session has to log in anew.
    let old = world.login("alice").await;
    *world.now.lock().unwrap() += Duration::from_secs(14 * 60);
    let old = world.stranger("/auth/refresh", json!({ "refreshToken": old["refreshToken"] })).await.ok();
    *world.now.lock().unwrap() += Duration::from_secs(60);
    let begun = world.begins().await;
    let stale = world.says(text(&old, "accessToken"), "alice", "/approve", &begun.code).await;
    assert!(stale.failed().0 == 401 && stale.failed().2.contains("log in again"), "{}", stale.body);
    let fresh = world.login("alice").await;
    world.says(text(&fresh, "accessToken"), "alice", "/approve", &begun.code).await.ok();
}

#[tokio::test]
async fn whoever_guesses_codes_waits_and_who_is_right_does_not() {
    let world = World::new();
    let alice = world.logged_in("alice", "viewer", None).await;
    let begun = world.begins().await;
    for _ in 0..10 {
        world.says(&alice, "alice", "", &begun.code).await.ok();
    }
    for _ in 0..5 {
        assert_eq!(world.says(&alice, "alice", "/approve", "ABCD-EFGH").await.failed().0, 422);
    }
    assert_eq!(world.says(&alice, "alice", "/approve", &begun.code).await.failed().0, 429);
    // They count with wrong passwords.
    let login = world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await;
    assert_eq!(login.failed().0, 429);
}

#[tokio::test]
async fn so_many_wait_for_one_address_and_others_are_not_held_up() {
    let world = World::new();
    for _ in 0..5 {
        world.begins().await;
    }
    *world.now.lock().unwrap() += Duration::from_secs(10);
    let refused = world.begins_from(FROM).await;
    assert_eq!((refused.failed().0, refused.header("retry-after")), (429, "591"));
    world.begins_from("198.51.100.8").await.ok();
    *world.now.lock().unwrap() += Duration::from_secs(590);
    world.begins().await;
}

#[tokio::test]
async fn a_form_that_is_none_is_told_in_the_words_of_the_standard() {
    let world = World::new();
    let begun = world.begins().await;
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    for (form, told) in [
        (String::new(), "invalid_request"),
        (format!("grant_type={grant}"), "invalid_request"),
        (format!("{{\"grant_type\":\"{grant}\"}}"), "invalid_request"),
        (format!("grant_type=password&device_code={}", begun.device), "unsupported_grant_type"),
        (format!("grant_type={grant}&device_code=x"), "invalid_grant"),
        (format!("grant_type={grant}&device_code=berth_access_x"), "invalid_grant"),
        (format!("grant_type={grant}&device_code=berth_device_x"), "expired_token"),
        (format!("grant_type={grant}&device_code={}", begun.code), "invalid_grant"),
    ] {
        let answer = world.form("/auth/device/token", FROM, &form).await;
        assert_eq!(word(&answer), (400, told), "{form}");
        assert!(answer.body["error_description"].is_string(), "{}", answer.body);
    }
    // Nor is the program's code good for anything else.
    assert_eq!(world.bearing(&begun.device, Method::GET, BUNDLES, Value::Null).await.code, 401);
}

#[tokio::test]
async fn a_login_waits_through_a_restart() {
    let world = World::new();
    let alice = world.logged_in("alice", "viewer", None).await;
    let begun = world.begins().await;
    world.says(&alice, "alice", "/approve", &begun.code).await.ok();
    let clock = world.now.clone();
    let again = Store::open(&world.dir.path().join("berth.db"), Arc::new(move || *clock.lock().unwrap())).unwrap();
    let (_, hash) = crate::auth::secret::recognise(&begun.device).unwrap();
    let found = again.read(move |tx| tx.device_login(&hash)).await.unwrap();
    assert!(found.is_some_and(|login| login.decision.is_some()));
}
