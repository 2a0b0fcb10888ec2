//! Authenticator apps: set up, needed, used once, taken away.

use base64::Engine;
use totp_rs::{Algorithm, TOTP};

use super::access::{KEYS, PASSWORD, USERS, text};
use super::*;

/// The app of a user: what its secret makes of the time.
fn app(secret: &str) -> TOTP {
    let secret = totp_rs::Secret::Encoded(secret.to_owned()).to_bytes().unwrap();
    TOTP::new(Algorithm::SHA1, 6, 1, 30, secret, None, "alice".into()).unwrap()
}

/// The code that an app shows so many seconds from now.
fn shown(app: &TOTP, seconds: i64) -> String {
    let now = NOW.parse::<Timestamp>().unwrap().as_second();
    app.generate(u64::try_from(now + seconds).unwrap())
}

fn path(user: &str, below: &str) -> String {
    format!("{USERS}/{user}/totp{below}")
}

impl World {
    /// A user who has an app: his token, the app and his recovery codes. The code of now has been used.
    async fn with_app(&self, user: &str, role: &str) -> (String, TOTP, Vec<String>) {
        let token = self.logged_in(user, role, None).await;
        let made = self.bearing(&token, Method::POST, &path(user, ""), Value::Null).await.ok();
        let app = app(text(&made, "secret"));
        let body = json!({ "code": shown(&app, 0) });
        let given = self.bearing(&token, Method::POST, &path(user, "/confirm"), body).await.ok();
        let codes = given["recoveryCodes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned());
        (token, app, codes.collect())
    }

    async fn login_with(&self, user: &str, code: &str) -> Answer {
        self.stranger("/auth/login", json!({ "user": user, "password": PASSWORD, "code": code })).await
    }
}

/// Reason and rule of the cause that is about the code.
fn about_the_code(answer: &Answer) -> (u16, &str) {
    let cause = &answer.body["details"]["causes"][0];
    assert_eq!(cause["field"], "code", "{}", answer.body);
    (answer.failed().0, cause["reason"].as_str().unwrap())
}

const NEEDED: (u16, &str) = (401, "FieldValueRequired");
const WRONG: (u16, &str) = (401, "FieldValueInvalid");

#[tokio::test]
async fn a_user_sets_up_an_app_and_needs_its_code_from_then_on() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let made = world.bearing(&token, Method::POST, &path("alice", ""), Value::Null).await;
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.ok();
    let secret = text(&made, "secret");
    assert!(text(&made, "uri").starts_with("otpauth://totp/Berth%20") && text(&made, "uri").contains(secret));
    // Until it is confirmed, nothing has changed.
    world.login("alice").await;
    let confirm = async |code: &str| {
        world.bearing(&token, Method::POST, &path("alice", "/confirm"), json!({ "code": code })).await
    };
    let app = app(secret);
    assert_eq!(confirm(&shown(&app, 300)).await.failed().0, 422);
    let given = confirm(&shown(&app, 0)).await.ok();
    assert_eq!(given["recoveryCodes"].as_array().unwrap().len(), 10);

    let answer = world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await;
    assert_eq!(about_the_code(&answer), NEEDED);
    let change = json!({ "user": "alice", "password": PASSWORD, "newPassword": "staple of the battery" });
    assert_eq!(about_the_code(&world.stranger("/auth/password", change).await), NEEDED);
    // Without the right password nobody learns that he has one.
    let answer = world.stranger("/auth/login", json!({ "user": "alice", "password": "not his password" })).await;
    assert_eq!((answer.code, &answer.body["details"]), (401, &Value::Null));

    let tokens = world.login_with("alice", &shown(&app, 30)).await.ok();
    let me = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = world.bearing(text(&tokens, "accessToken"), Method::POST, me, json!({})).await.created();
    assert_eq!(me["status"]["userInfo"]["extra"]["berth.dev/second-factor"], json!(["totp"]));
    let user = world.get(&format!("{USERS}/alice")).await.ok();
    assert_eq!((text(&user["status"], "totpSet"), &user["status"]["recoveryCodes"]), (NOW, &json!(10)));
    assert_eq!(world.table(USERS).await["rows"][0]["cells"][3], "True");
    let again = world.bearing(&token, Method::POST, &path("alice", ""), Value::Null).await;
    assert_eq!(again.failed().1, "Conflict");
}

#[tokio::test]
async fn a_code_is_good_once_and_so_is_a_recovery_code() {
    let world = World::new();
    let (_, app, codes) = world.with_app("alice", "viewer").await;
    assert_eq!(about_the_code(&world.login_with("alice", &shown(&app, 0)).await), WRONG);
    world.login_with("alice", &shown(&app, 30)).await.ok();
    assert_eq!(about_the_code(&world.login_with("alice", &shown(&app, 30)).await), WRONG);
    world.login_with("alice", &codes[0].to_lowercase()).await.ok();
    assert_eq!(about_the_code(&world.login_with("alice", &codes[0]).await), WRONG);
    world.login_with("alice", &codes[9].replace('-', "")).await.ok();
    assert_eq!(world.get(&format!("{USERS}/alice")).await.ok()["status"]["recoveryCodes"], 8);
    // Nor is somebody else's good.
    let (_, _, others) = world.with_app("bob", "viewer").await;
    assert_eq!(about_the_code(&world.login_with("alice", &others[0]).await), WRONG);
}

#[tokio::test]
async fn wrong_codes_are_counted_like_wrong_passwords_and_a_missing_one_is_not() {
    let world = World::new();
    let (token, app, _) = world.with_app("alice", "viewer").await;
    for _ in 0..7 {
        let answer = world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await;
        assert_eq!(about_the_code(&answer), NEEDED);
    }
    for _ in 0..3 {
        assert_eq!(about_the_code(&world.login_with("alice", "000000").await), WRONG);
    }
    // Whoever is logged in has no guesses beside these.
    for _ in 0..2 {
        let answer = world.bearing(&token, Method::POST, &path("alice", "/disable"), json!({ "code": "000000" })).await;
        assert_eq!(about_the_code(&answer), WRONG);
    }
    assert_eq!(world.login_with("alice", &shown(&app, 30)).await.failed().0, 429);
    let answer = world.bearing(&token, Method::POST, &path("alice", "/disable"), json!({})).await;
    assert_eq!(answer.failed().0, 429);
}

#[tokio::test]
async fn nobody_sets_it_up_for_others_and_no_key_does() {
    let world = World::new();
    let owner = world.logged_in("olivia", "owner", None).await;
    let token = world.logged_in("alice", "viewer", None).await;
    let key = world.post(&format!("{USERS}/alice/apikeys"), json!({})).await.created();
    for token in [TOKEN, &owner, text(&key, "key")] {
        for below in ["", "/confirm"] {
            let answer = world.bearing(token, Method::POST, &path("alice", below), json!({ "code": "1" })).await;
            assert_eq!((answer.failed().0, answer.failed().2.contains("for himself alone")), (403, true));
        }
    }
    let early = world.bearing(&token, Method::POST, &path("alice", "/confirm"), json!({ "code": "000000" })).await;
    assert_eq!(early.failed().1, "Conflict");
    assert_eq!(names(&world.get(KEYS).await.ok()).len(), 1);
}

#[tokio::test]
async fn it_is_taken_away_with_a_code_or_by_somebody_who_holds_as_much() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let (olivia, app, codes) = world.with_app("olivia", "owner").await;
    world.with_app("alice", "viewer").await;
    let disable = async |token: &str, user: &str, body: Value| {
        world.bearing(token, Method::POST, &path(user, "/disable"), body).await
    };
    let refused = disable(&admin, "olivia", json!({})).await;
    assert!(refused.failed().0 == 403 && refused.failed().2.contains("cannot give, change or take it"));
    // To be logged in is not enough, nor is it to be owner.
    assert_eq!(about_the_code(&disable(&olivia, "olivia", json!({})).await), NEEDED);
    assert_eq!(about_the_code(&disable(&olivia, "olivia", json!({ "code": shown(&app, 0) })).await), WRONG);
    disable(&olivia, "olivia", json!({ "code": shown(&app, 30) })).await.ok();
    world.login("olivia").await;
    assert_eq!(disable(&olivia, "olivia", json!({ "code": codes[0] })).await.failed().1, "Conflict");

    disable(&admin, "alice", json!({})).await.ok();
    world.login("alice").await;
    let user = world.get(&format!("{USERS}/alice")).await.ok();
    assert_eq!((&user["status"]["totpSet"], &user["status"]["recoveryCodes"]), (&Value::Null, &Value::Null));
    let deeds = world.get("/apis/berth.dev/v1/auditrecords?fieldSelector=spec.resource=users/totp/disable").await.ok();
    let results: Vec<&str> =
        deeds["items"].as_array().unwrap().iter().map(|deed| text(&deed["spec"], "result")).collect();
    assert_eq!(results, ["Denied", "Denied", "Done", "Done"], "{deeds}");
}

#[tokio::test]
async fn nothing_on_the_disk_makes_a_code_and_what_it_is_sealed_by_outlives_namespaces() {
    let world = World::new();
    let (_, app, codes) = world.with_app("alice", "viewer").await;
    let (secret, encoded) = (app.get_secret_base32(), base64::engine::general_purpose::STANDARD.encode(&app.secret));
    let needles = [secret.as_bytes(), &app.secret, encoded.as_bytes()];
    assert!(!needles.into_iter().any(|needle| on_disk(world.dir.path(), needle)));
    for needle in [codes[0].as_bytes(), codes[0].replace('-', "").as_bytes()] {
        assert!(!on_disk(world.dir.path(), needle));
    }
    let whole = world.get(USERS).await.ok().to_string();
    assert!(!whole.contains(&secret) && !whole.contains(&codes[0]));
    // The key by which it is sealed outlives those of namespaces.
    world.sealer.forget_gone(&world.store).await.unwrap();
    world.login_with("alice", &shown(&app, 30)).await.ok();
}
