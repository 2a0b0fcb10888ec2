//! What was good once, or looks as if it were: shown again, it opens nothing and changes nothing. A clock that is set back
//! revives nothing, and locks nobody out.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use rusqlite::types::Value as Cell;
use tracing_subscriber::fmt::MakeWriter;

use super::access::PASSWORD;
use super::connections::Listening;
use super::*;

const USERS: &str = "/apis/berth.dev/v1/users";
const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/robot";

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {value}")).to_owned()
}

/// All that is in the database but the records of what was refused.
fn state(world: &World) -> Vec<String> {
    let database = rusqlite::Connection::open(world.dir.path().join("berth.db")).unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('audit', 'checkpoint')";
    let mut ready = database.prepare(names).unwrap();
    let tables: Vec<String> = ready.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut all = Vec::new();
    for table in tables {
        let mut rows = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let width = rows.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get::<_, Cell>(at)).collect::<Result<Vec<_>, _>>();
        all.extend(rows.query_map([], row).unwrap().map(|row| format!("{table} {:?}", row.unwrap())));
    }
    all
}

impl World {
    fn set_clock(&self, minutes: i64) {
        *self.now.lock().unwrap() = NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes);
    }

    async fn key(&self, user: &str, name: &str, seconds: Option<u32>) -> String {
        let body = json!({ "name": name, "expiresIn": seconds });
        text(&self.post(&format!("{USERS}/{user}/apikeys"), body).await.created(), "/key")
    }

    async fn robot(&self) {
        let path = ACCOUNT.rsplit_once('/').unwrap().0;
        self.post(path, json!({ "metadata": { "name": "robot" } })).await.created();
    }

    async fn robots_token(&self, audience: &str) -> String {
        let spec = json!({ "audiences": [audience], "expirationSeconds": 600 });
        let made = self.post(&format!("{ACCOUNT}/token"), json!({ "spec": spec })).await.created();
        text(&made, "/status/token")
    }

    async fn code_of(&self, token: &str) -> u16 {
        // Whoever is known may ask what he may do.
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        self.bearing(token, Method::POST, path, json!({})).await.code
    }
}

fn jwt(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn what_was_good_once_or_is_forged_is_nobodys_and_changes_nothing() {
    let world = World::new();
    world.user("alice").await;
    let (ended, lasting) = (world.login("alice").await, world.login("alice").await);
    let deleted = world.key("alice", "gone", None).await;
    world.delete("/apis/berth.dev/v1/apikeys/alice.gone").await.ok();
    world.bearing(&text(&ended, "/accessToken"), Method::POST, "/auth/logout", json!({})).await.ok();
    world.robot().await;
    let earlier = world.robots_token("berth").await;
    world.delete(ACCOUNT).await.ok();
    world.robot().await;
    let (good, elsewhere) = (world.robots_token("berth").await, world.robots_token("vault").await);
    assert_eq!((world.code_of(&good).await, world.code_of(&text(&lasting, "/accessToken")).await), (201, 201));
    let signature = good.rsplit('.').next().unwrap();
    let (header, mut changed) = (json!({ "typ": "JWT", "alg": "HS256" }), claims(&good));
    let plain = claims(&good);
    changed["exp"] = json!(i64::MAX);
    let own = jsonwebtoken::EncodingKey::from_secret(&[0; 32]);
    let foreign = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &plain, &own).unwrap();
    let state_before = state(&world);
    for (what, token) in [
        ("access token after logout", text(&ended, "/accessToken")),
        ("refresh token as access token", text(&lasting, "/refreshToken")),
        ("deleted key", deleted),
        ("token of a service account that was deleted and made again", earlier),
        ("token for somebody else", elsewhere),
        ("no signature asked for", jwt(&json!({ "typ": "JWT", "alg": "none" }), &plain, "")),
        ("no signature asked for, with one", jwt(&json!({ "typ": "JWT", "alg": "none" }), &plain, signature)),
        ("another algorithm", jwt(&json!({ "typ": "JWT", "alg": "HS512" }), &plain, signature)),
        ("changed claim", jwt(&header, &changed, signature)),
        ("another's signature", foreign),
        ("all but the last letter", good[..good.len() - 1].to_owned()),
        ("all but the last letter of the owner's", TOKEN[..TOKEN.len() - 1].to_owned()),
    ] {
        let answer = world.bearing(&token, Method::GET, CONFIG_MAPS, Value::Null).await;
        let wrong = "the token is not valid here; log in (`berth login`), or ask for another";
        assert_eq!(answer.failed(), (401, "Unauthorized", wrong), "{what}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"berth\"", "{what}");
    }
    for (what, token) in [
        ("refresh token after logout", text(&ended, "/refreshToken")),
        ("access token as refresh token", text(&lasting, "/accessToken")),
        ("token of a service account as refresh token", good.clone()),
    ] {
        let answer = world.stranger("/auth/refresh", json!({ "refreshToken": token })).await;
        assert_eq!((answer.failed().0, answer.failed().1), (401, "Unauthorized"), "{what}");
    }
    assert_eq!(state(&world), state_before);
    assert_eq!(world.code_of(&good).await, 201);
}

#[tokio::test]
async fn a_token_in_the_url_is_no_token() {
    let world = World::new();
    let before = state(&world);
    for name in ["access_token", "token", "bearer", "authorization"] {
        let request = Request::builder().uri(format!("{CONFIG_MAPS}?{name}={TOKEN}")).body(Body::empty()).unwrap();
        assert_eq!(Answer::of(world.send(request).await).await.failed().0, 401, "{name}");
    }
    assert_eq!(state(&world), before);
    assert!(!on_disk(world.dir.path(), format!("token={TOKEN}").as_bytes()), "the URL was kept with the token in it");
}

#[tokio::test]
async fn a_clock_that_is_set_back_revives_nothing_that_has_expired() {
    let world = World::new();
    world.user("alice").await;
    world.robot().await;
    let session = world.login("alice").await;
    let (key, robots) = (world.key("alice", "short", Some(600)).await, world.robots_token("berth").await);
    let tokens = [text(&session, "/accessToken"), key, robots];
    for token in &tokens {
        assert_eq!(world.code_of(token).await, 201);
    }
    world.set_clock(16);
    for minutes in [16, 0, -44] {
        world.set_clock(minutes);
        for token in &tokens {
            assert_eq!(world.code_of(token).await, 401, "at {minutes} minutes");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_locks_nobody_out() {
    let world = World::new();
    world.user("alice").await;
    let session = world.login("alice").await;
    world.set_clock(-60);
    // What was good is good, and what is made now is good as long as ever.
    assert_eq!(world.code_of(&text(&session, "/accessToken")).await, 201);
    let anew = world.stranger("/auth/refresh", json!({ "refreshToken": session["refreshToken"] })).await.ok();
    assert_eq!(world.code_of(&text(&anew, "/accessToken")).await, 201);
    let wrong = async || world.stranger("/auth/login", json!({ "user": "alice", "password": "not his" })).await;
    for _ in 0..5 {
        assert_eq!(wrong().await.code, 401);
    }
    world.set_clock(-120);
    let answer = wrong().await;
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!(answer.code == 429 && wait <= 901, "{} {wait}", answer.code);
    // Years ahead by mistake: what was good then is over, and who logs in afterwards is in.
    world.set_clock(10 * 365 * 24 * 60);
    assert_eq!(world.code_of(&text(&anew, "/accessToken")).await, 401);
    world.set_clock(0);
    let late = world.login("alice").await;
    assert_eq!(world.code_of(&text(&late, "/accessToken")).await, 201);
    let next = world.stranger("/auth/refresh", json!({ "refreshToken": late["refreshToken"] })).await.ok();
    assert_eq!(world.code_of(&text(&next, "/accessToken")).await, 201);
}

/// All that is logged, by whatever is below as well.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_ever_logged_whatever_the_level_nor_kept_in_the_clear() {
    let listening = Listening::new().await;
    let world = &listening.world;
    world.robot().await;
    let logged = Logged::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(logged.clone()).finish();
    drop(tracing::subscriber::set_global_default(subscriber));
    let client = listening.client("localhost");
    let say = async |path: &str, bearer: &str, body: Value| -> Value {
        let request = client.post(listening.url("localhost", path)).body(body.to_string());
        let request = if bearer.is_empty() { request } else { request.bearer_auth(bearer) };
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    say(USERS, TOKEN, json!({ "metadata": { "name": "alice" } })).await;
    say(&format!("{USERS}/alice/password"), TOKEN, json!({ "password": PASSWORD })).await;
    let first = say("/auth/login", "", json!({ "user": "alice", "password": PASSWORD })).await;
    let second = say("/auth/refresh", "", json!({ "refreshToken": first["refreshToken"] })).await;
    let again = say("/auth/refresh", "", json!({ "refreshToken": first["refreshToken"] })).await;
    assert_eq!(again["code"], 401);
    let key = say(&format!("{USERS}/alice/apikeys"), TOKEN, json!({ "name": "ci" })).await;
    let robots = say(&format!("{ACCOUNT}/token"), TOKEN, json!({})).await;
    let secrets = [
        TOKEN.to_owned(),
        PASSWORD.to_owned(),
        text(&first, "/accessToken"),
        text(&first, "/refreshToken"),
        text(&second, "/accessToken"),
        text(&second, "/refreshToken"),
        text(&key, "/key"),
        text(&robots, "/status/token"),
    ];
    for secret in &secrets {
        say("/auth/login", secret, json!({ "user": "alice", "password": secret, "other": secret })).await;
        say(CONFIG_MAPS, secret, json!({ "kind": secret })).await;
    }
    let logged = String::from_utf8_lossy(&logged.0.lock().unwrap()).into_owned();
    assert!(logged.contains("used twice") && logged.len() > 1000, "nothing was logged");
    for secret in &secrets {
        let line = logged.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None);
        // The owner's token has a file of its own.
        assert!(secret == TOKEN || !on_disk(world.dir.path(), secret.as_bytes()), "{secret} was kept in the clear");
    }
}
