//! Accounts: who logs in, what he may do, and what nobody can do to others.

use super::*;

pub(super) const USERS: &str = "/apis/berth.dev/v1/users";
const ROLES: &str = "/apis/berth.dev/v1/roles";
pub(super) const BINDINGS: &str = "/apis/berth.dev/v1/rolebindings";
const SESSIONS: &str = "/apis/berth.dev/v1/sessions";
pub(super) const KEYS: &str = "/apis/berth.dev/v1/apikeys";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
pub(super) const PASSWORD: &str = "correct horse battery";
const PEER: Peer =
    Peer::Network(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), 1));

impl World {
    /// A request of whoever bears a token.
    pub(super) async fn bearing(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        Answer::of(self.send_from(PEER, request.body(body).unwrap()).await).await
    }

    /// A request of somebody who says nothing of himself.
    pub(super) async fn stranger(&self, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(Method::POST).uri(path).header("user-agent", "tests/1");
        Answer::of(self.send_from(PEER, request.body(Body::from(body.to_string())).unwrap()).await).await
    }

    pub(super) async fn user(&self, name: &str) {
        self.post(USERS, json!({ "metadata": { "name": name } })).await.created();
        self.post(&format!("{USERS}/{name}/password"), json!({ "password": PASSWORD })).await.ok();
    }

    pub(super) async fn grant(&self, role: &str, namespace: Option<&str>, user: &str) {
        let name = format!("{user}-{role}");
        let spec = json!({ "role": role, "namespace": namespace, "subjects": [{ "kind": "User", "name": user }] });
        self.post(BINDINGS, json!({ "metadata": { "name": name }, "spec": spec })).await.created();
    }

    pub(super) async fn login(&self, user: &str) -> Value {
        self.stranger("/auth/login", json!({ "user": user, "password": PASSWORD })).await.ok()
    }

    /// A user with a role who is logged in: his access token.
    pub(super) async fn logged_in(&self, user: &str, role: &str, namespace: Option<&str>) -> String {
        self.user(user).await;
        self.grant(role, namespace, user).await;
        self.login(user).await["accessToken"].as_str().unwrap().to_owned()
    }
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[tokio::test]
async fn a_user_logs_in_does_what_his_role_allows_and_logs_out() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let me = world
        .bearing(&token, Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))
        .await
        .created();
    assert_eq!(me["status"]["userInfo"]["username"], "user:alice");
    assert_eq!(me["status"]["userInfo"]["extra"]["berth.dev/granted"], json!(["role viewer"]));
    world.bearing(&token, Method::GET, BUNDLES, Value::Null).await.ok();
    let answer = world.bearing(&token, Method::POST, CONFIG_MAPS, json!({ "metadata": { "name": "x" } })).await;
    assert_eq!(answer.failed().0, 403);
    assert!(answer.failed().2.ends_with("ask for a role that allows it, as operator does"), "{}", answer.failed().2);
    world.bearing(&token, Method::POST, "/auth/logout", json!({})).await.ok();
    let answer = world.bearing(&token, Method::GET, BUNDLES, Value::Null).await;
    assert_eq!(
        (answer.failed().0, answer.failed().2),
        (401, "the token is not valid here; log in (`berth login`), or ask for another")
    );
    assert_eq!(names(&world.get(SESSIONS).await.ok()), Vec::<&str>::new());
}

#[tokio::test]
async fn a_session_is_seen_by_whoever_may_and_ends_when_it_is_deleted() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let session = world.get(SESSIONS).await.ok()["items"][0].clone();
    assert_eq!((text(&session["spec"], "user"), text(&session["status"], "address")), ("alice", "192.0.2.9"));
    assert_eq!(text(&session["status"], "program"), "tests/1");
    let name = text(&session["metadata"], "name");
    assert!(name.starts_with("alice."), "{name}");
    assert_eq!(world.bearing(&token, Method::GET, SESSIONS, Value::Null).await.failed().0, 403);
    world.bearing(&token, Method::DELETE, &format!("{SESSIONS}/{name}"), Value::Null).await.ok();
    assert_eq!(world.bearing(&token, Method::GET, BUNDLES, Value::Null).await.code, 401);
}

#[tokio::test]
async fn tokens_are_refreshed_and_one_that_is_used_twice_ends_the_session() {
    let world = World::new();
    world.user("alice").await;
    let first = world.login("alice").await;
    let second = world.stranger("/auth/refresh", json!({ "refreshToken": first["refreshToken"] })).await.ok();
    assert_eq!(second["session"], first["session"]);
    let read = async |tokens: &Value| {
        let path = format!("{SESSIONS}/{}", text(tokens, "session"));
        world.bearing(text(tokens, "accessToken"), Method::GET, &path, Value::Null).await.code
    };
    assert_eq!((read(&first).await, read(&second).await), (401, 200));
    let again = world.stranger("/auth/refresh", json!({ "refreshToken": first["refreshToken"] })).await;
    assert_eq!(again.failed().0, 401);
    assert!(again.failed().2.contains("its session is ended"), "{}", again.failed().2);
    assert_eq!(read(&second).await, 401);
    let last = world.stranger("/auth/refresh", json!({ "refreshToken": second["refreshToken"] })).await;
    assert_eq!(last.failed().0, 401);
    for token in ["", "berth_refresh_x", text(&second, "accessToken")] {
        assert_eq!(world.stranger("/auth/refresh", json!({ "refreshToken": token })).await.code, 401, "{token}");
    }
}

#[tokio::test]
async fn neither_name_nor_password_is_told_to_be_the_wrong_one_and_after_five_somebody_waits() {
    let world = World::new();
    world.user("alice").await;
    let wrong = async |user: &str, password: &str| {
        world.stranger("/auth/login", json!({ "user": user, "password": password })).await
    };
    let (name, word) = (wrong("nobody", PASSWORD).await, wrong("alice", "not his password").await);
    assert_eq!((name.failed(), name.code), (word.failed(), 401));
    for _ in 0..3 {
        assert_eq!(wrong("alice", "guess guess guess").await.code, 401);
    }
    let answer = wrong("alice", PASSWORD).await;
    assert_eq!((answer.failed().0, answer.failed().1, answer.header("retry-after")), (429, "TooManyRequests", "901"));
    let answer =
        world.stranger("/auth/password", json!({ "user": "alice", "password": PASSWORD, "newPassword": "x" })).await;
    assert_eq!(answer.code, 429);
}

#[tokio::test]
async fn a_disabled_or_deleted_user_is_out_at_once_with_all_that_he_has() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let key = world.post(&format!("{USERS}/alice/apikeys"), json!({ "name": "ci" })).await.created();
    let key = text(&key, "key").to_owned();
    let code = async |token: &str| world.bearing(token, Method::GET, BUNDLES, Value::Null).await.code;
    assert_eq!((code(&token).await, code(&key).await), (200, 200));
    world.merge(&format!("{USERS}/alice"), json!({ "spec": { "disabled": true } })).await.ok();
    assert_eq!((code(&token).await, code(&key).await), (401, 401));
    assert_eq!(world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await.code, 401);
    world.merge(&format!("{USERS}/alice"), json!({ "spec": { "disabled": null } })).await.ok();
    assert_eq!((code(&token).await, code(&key).await), (200, 200));
    world.delete(&format!("{USERS}/alice")).await.ok();
    assert_eq!((code(&token).await, code(&key).await), (401, 401));
    assert_eq!(names(&world.get(KEYS).await.ok()), Vec::<&str>::new());
    // Somebody else of that name has nothing of it.
    world.user("alice").await;
    assert_eq!((code(&token).await, code(&key).await), (401, 401));
}

#[tokio::test]
async fn a_role_that_is_taken_back_is_taken_back_at_once_and_holds_in_its_namespace_alone() {
    let world = World::new();
    let token = world.logged_in("alice", "operator", Some("default")).await;
    let code = async |path: &str| world.bearing(&token, Method::GET, path, Value::Null).await.code;
    assert_eq!(code(BUNDLES).await, 200);
    assert_eq!(code("/api/v1/namespaces/other/configmaps").await, 403);
    assert_eq!(code("/apis/berth.dev/v1/bundles").await, 403);
    assert_eq!((code("/api/v1/namespaces/default").await, code("/api/v1/namespaces").await), (200, 403));
    world.delete(&format!("{BINDINGS}/alice-operator")).await.ok();
    assert_eq!(code(BUNDLES).await, 403);
}

#[tokio::test]
async fn a_role_of_ones_own_allows_what_its_rules_say() {
    let world = World::new();
    let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["web"] }]);
    world.post(ROLES, json!({ "metadata": { "name": "reads-web" }, "spec": { "rules": rules } })).await.created();
    let token = world.logged_in("alice", "reads-web", None).await;
    world.config_map("web", json!({})).await;
    let code = async |path: &str| world.bearing(&token, Method::GET, path, Value::Null).await.code;
    assert_eq!((code(&format!("{CONFIG_MAPS}/web")).await, code(&format!("{CONFIG_MAPS}/db")).await), (200, 403));
    assert_eq!(code(CONFIG_MAPS).await, 403);
    let wrong =
        world.post(ROLES, json!({ "metadata": { "name": "odd" }, "spec": { "rules": [{ "verbs": ["read"] }] } })).await;
    assert_eq!(wrong.failed().0, 422);
    assert_eq!(wrong.body["details"]["causes"][0]["field"], "spec.rules[0].verbs[0]");
}

#[tokio::test]
async fn a_secret_is_shown_to_no_server_that_somebody_sets_who_may_not_read_it_himself() {
    let world = World::new();
    let path = "/apis/berth.dev/v1/settings/berth";
    let may = |also: Value| json!([{ "verbs": ["get", "update"], "apiGroups": ["berth.dev"], "resources": ["settings"] }, also]);
    let reads =
        json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets/reveal"], "resourceNames": ["git"] });
    let lists = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"] });
    let mut tokens = Vec::new();
    for (role, also) in [("reader", reads), ("lister", lists)] {
        let role_object = json!({ "metadata": { "name": role }, "spec": { "rules": may(also) } });
        world.post(ROLES, role_object).await.created();
        tokens.push(world.logged_in(&format!("{role}-user"), role, None).await);
    }
    let with = async |url: &str| {
        let mut settings = world.get(path).await.ok();
        let secret = json!({ "namespace": "default", "name": "git" });
        settings["spec"]["audit"]["mirror"]["git"] = json!({ "url": url, "secret": secret });
        settings
    };
    let mine = "https://mine.example/audit";
    let refused = world.bearing(&tokens[1], Method::PUT, path, with(mine).await).await;
    assert_eq!(refused.failed().0, 403);
    assert!(refused.failed().2.contains("the right to read Secret default/git"), "{}", refused.body);
    world.bearing(&tokens[0], Method::PUT, path, with("https://git.example/audit").await).await.ok();
    assert_eq!(world.bearing(&tokens[1], Method::PUT, path, with(mine).await).await.code, 403);
    // What stays as it is asks nobody.
    let mut other = with("https://git.example/audit").await;
    other["spec"]["network"]["multicastDns"] = json!(false);
    world.bearing(&tokens[1], Method::PUT, path, other).await.ok();
}

#[tokio::test]
async fn values_of_secrets_are_for_whoever_may_reveal() {
    let world = World::new();
    world
        .post(SECRETS, json!({ "metadata": { "name": "db" }, "stringData": { "password": "canary" } }))
        .await
        .created();
    let [operator, admin] =
        [world.logged_in("olga", "operator", None).await, world.logged_in("adam", "admin", None).await];
    for path in [format!("{SECRETS}/db?reveal=true"), format!("{SECRETS}?reveal=1"), format!("{SECRETS}?reveal=True")] {
        let refused = world.bearing(&operator, Method::GET, &path, Value::Null).await;
        assert!(!refused.body.to_string().contains("Y2FuYXJ5"), "{path}: {}", refused.body);
        assert_eq!(refused.code, 403, "{path}");
        let shown = world.bearing(&admin, Method::GET, &path, Value::Null).await.ok();
        assert!(shown.to_string().contains("Y2FuYXJ5"), "{path}");
    }
    world.bearing(&operator, Method::GET, &format!("{SECRETS}/db"), Value::Null).await.ok();
}

#[tokio::test]
async fn a_key_is_shown_once_good_for_what_it_says_and_ends_when_it_is_deleted() {
    let world = World::new();
    let token = world.logged_in("alice", "operator", None).await;
    let wanted = json!({ "name": "ci", "role": "viewer", "namespace": "default", "expiresIn": 3600 });
    let made = world.bearing(&token, Method::POST, &format!("{USERS}/alice/apikeys"), wanted).await;
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.created();
    let key = text(&made, "key").to_owned();
    assert_eq!(text(&made["apiKey"]["spec"], "expiresAt"), "2026-03-01T13:00:00Z");
    let ask = async |method, path: &str| world.bearing(&key, method, path, Value::Null).await;
    assert_eq!(ask(Method::GET, BUNDLES).await.code, 200);
    assert_eq!(ask(Method::GET, "/apis/berth.dev/v1/bundles").await.code, 403);
    let refused = ask(Method::DELETE, &format!("{CONFIG_MAPS}/web")).await;
    assert!(refused.failed().2.contains("but not with this key"), "{}", refused.failed().2);
    assert_eq!(world.bearing(&key, Method::POST, &format!("{USERS}/alice/apikeys"), json!({})).await.code, 403);
    let shown = world.get(&format!("{KEYS}/alice.ci")).await.ok();
    assert_eq!(text(&shown["status"], "lastUsed"), NOW);
    assert!(!on_disk(world.dir.path(), key.as_bytes()), "the key is on the disk");
    world.bearing(&token, Method::DELETE, &format!("{KEYS}/alice.ci"), Value::Null).await.ok();
    assert_eq!(ask(Method::GET, BUNDLES).await.code, 401);
}

#[tokio::test]
async fn nobody_makes_himself_or_others_mightier_than_he_is() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    world.logged_in("olivia", "owner", None).await;
    world.user("eve").await;
    let binding = |role: &str, user: &str| {
        json!({ "metadata": { "name": format!("{user}-{role}-more") },
                "spec": { "role": role, "subjects": [{ "kind": "User", "name": user }] } })
    };
    let refused = async |method, path: &str, body| {
        let answer = world.bearing(&admin, method, path, body).await;
        assert_eq!(answer.failed().0, 403, "{path}: {}", answer.body);
        assert!(answer.failed().2.contains("cannot give, change or take it"), "{}", answer.failed().2);
    };
    for user in ["adam", "eve"] {
        refused(Method::POST, BINDINGS, binding("owner", user)).await;
    }
    world.bearing(&admin, Method::POST, BINDINGS, binding("operator", "eve")).await.created();
    refused(Method::DELETE, &format!("{BINDINGS}/olivia-owner"), Value::Null).await;
    refused(Method::DELETE, BINDINGS, Value::Null).await;
    refused(Method::DELETE, &format!("{USERS}/olivia"), Value::Null).await;
    refused(Method::POST, &format!("{USERS}/olivia/password"), json!({ "password": "another one, longer" })).await;
    refused(Method::POST, &format!("{USERS}/olivia/apikeys"), json!({})).await;
    let all = json!({ "metadata": { "name": "all" }, "spec": { "rules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }] } });
    refused(Method::POST, ROLES, all.clone()).await;
    // Neither by a binding that waits for its role, nor by a user who waits for his binding.
    world.post(ROLES, all).await.created();
    refused(Method::POST, BINDINGS, binding("all", "eve")).await;
    world.post(BINDINGS, binding("owner", "ghost")).await.created();
    refused(Method::POST, USERS, json!({ "metadata": { "name": "ghost" } })).await;
    let sessions = world.get(SESSIONS).await.ok();
    let of = |user: &str| names(&sessions).into_iter().find(|name| name.starts_with(user)).unwrap().to_owned();
    refused(Method::DELETE, &format!("{SESSIONS}/{}", of("olivia")), Value::Null).await;
    let less = json!({ "role": "viewer", "subjects": [] });
    let mut binding = world.get(&format!("{BINDINGS}/olivia-owner")).await.ok();
    binding["spec"] = less;
    refused(Method::PUT, &format!("{BINDINGS}/olivia-owner"), binding).await;
}

#[tokio::test]
async fn the_last_owner_stays() {
    let world = World::new();
    let token = world.logged_in("olivia", "owner", None).await;
    let refused = async |answer: Answer| {
        assert_eq!(answer.failed().0, 403, "{}", answer.body);
        assert!(answer.failed().2.contains("make another user one first"), "{}", answer.failed().2);
    };
    refused(world.delete(&format!("{USERS}/olivia")).await).await;
    refused(world.delete(&format!("{BINDINGS}/olivia-owner")).await).await;
    refused(world.delete(BINDINGS).await).await;
    refused(world.merge(&format!("{USERS}/olivia"), json!({ "spec": { "disabled": true } })).await).await;
    refused(world.merge(&format!("{BINDINGS}/olivia-owner"), json!({ "spec": { "role": "admin" } })).await).await;
    assert_eq!(world.bearing(&token, Method::GET, USERS, Value::Null).await.code, 200);
    world.user("oscar").await;
    world.grant("owner", None, "oscar").await;
    world.delete(&format!("{USERS}/olivia")).await.ok();
    refused(world.delete(&format!("{USERS}/oscar")).await).await;
}

#[tokio::test]
async fn built_in_roles_are_read_like_others_and_never_change() {
    let world = World::new();
    for _ in 0..2 {
        crate::auth::accounts::show_built_in_roles(&world.store).await.unwrap();
    }
    assert_eq!(names(&world.get(ROLES).await.ok()), ["admin", "auditor", "operator", "owner", "viewer"]);
    let answer = world.merge(&format!("{ROLES}/viewer"), json!({ "spec": { "rules": [] } })).await;
    assert_eq!(answer.failed().0, 422, "{}", answer.body);
    assert_eq!(world.delete(&format!("{ROLES}/viewer")).await.failed().0, 403);
    world.merge(&format!("{ROLES}/viewer"), json!({ "metadata": { "labels": { "a": "b" } } })).await.ok();
}

#[tokio::test]
async fn a_password_is_set_and_changed_and_ends_the_sessions_before_it() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let change = |password: &str, new: &str| json!({ "user": "alice", "password": password, "newPassword": new });
    let answer = world.stranger("/auth/password", change(PASSWORD, "alice")).await;
    assert_eq!((answer.failed().0, &answer.body["details"]["causes"][0]["field"]), (422, &json!("password")));
    world.stranger("/auth/password", change(PASSWORD, "staple of the battery")).await.ok();
    assert_eq!(world.bearing(&token, Method::GET, BUNDLES, Value::Null).await.code, 401);
    assert_eq!(world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await.code, 401);
    world.stranger("/auth/login", json!({ "user": "alice", "password": "staple of the battery" })).await.ok();
    assert!(!on_disk(world.dir.path(), b"staple of the battery"), "the password is on the disk");
    let answer = world.post(&format!("{USERS}/nobody/password"), json!({ "password": PASSWORD })).await;
    assert_eq!(answer.failed().1, "NotFound");
}

#[tokio::test]
async fn a_hash_is_taken_for_a_password_if_it_is_worth_as_much() {
    const WORD: &str = "a good long password";
    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM0NTY3OA$VllxRbglGupw+P3fe1P3krFqWwHmctSe1x5TimNoKdA";
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    let path = format!("{USERS}/alice/password");
    let both = json!({ "password": WORD, "passwordHash": HASH });
    let cheap = json!({ "passwordHash": HASH.replace("19456", "1024") });
    for (wrong, field) in [(both, "password"), (json!({}), "password"), (cheap, "passwordHash")] {
        let answer = world.post(&path, wrong).await;
        assert_eq!((answer.failed().0, &answer.body["details"]["causes"][0]["field"]), (422, &json!(field)));
    }
    assert_eq!(world.bearing(&token, Method::GET, BUNDLES, Value::Null).await.code, 200, "something was changed");
    world.post(&path, json!({ "passwordHash": HASH })).await.ok();
    assert_eq!(world.bearing(&token, Method::GET, BUNDLES, Value::Null).await.code, 401);
    world.stranger("/auth/login", json!({ "user": "alice", "password": WORD })).await.ok();
    assert_eq!(world.stranger("/auth/login", json!({ "user": "alice", "password": PASSWORD })).await.code, 401);
}

#[tokio::test]
async fn what_is_wrong_with_a_body_that_has_secrets_is_told_without_them() {
    let world = World::new();
    let answer = world.stranger("/auth/login", json!({ "user": 1, "password": "canary-1" })).await;
    assert_eq!(answer.failed().0, 400);
    let answer2 = world.stranger("/auth/login", json!({ "user": "a", "password": "b", "canary-1": "c" })).await;
    for answer in [answer, answer2] {
        assert!(answer.code == 400 && !answer.body.to_string().contains("canary"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_service_account_asks_with_its_token_until_either_ends() {
    let world = World::new();
    world.post(ACCOUNTS, json!({ "metadata": { "name": "deploy" } })).await.created();
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 600 } });
    let made = world.post(&format!("{ACCOUNTS}/deploy/token"), request.clone()).await.created();
    assert_eq!(made["status"]["expirationTimestamp"], "2026-03-01T12:10:00Z");
    let token = text(&made["status"], "token").to_owned();
    let code = async |path: &str| world.bearing(&token, Method::GET, path, Value::Null).await.code;
    assert_eq!(code(BUNDLES).await, 403);
    let subjects = json!([{ "kind": "ServiceAccount", "name": "deploy", "namespace": "default" }]);
    let spec = json!({ "role": "viewer", "namespace": "default", "subjects": subjects });
    world.post(BINDINGS, json!({ "metadata": { "name": "deploy" }, "spec": spec })).await.created();
    assert_eq!((code(BUNDLES).await, code("/api/v1/configmaps").await), (200, 403));
    let review = json!({ "spec": { "token": token } });
    let review = world.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.created();
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:deploy");
    world.delete(&format!("{ACCOUNTS}/deploy")).await.ok();
    assert_eq!(code(BUNDLES).await, 401);
    world.post(ACCOUNTS, json!({ "metadata": { "name": "deploy" } })).await.created();
    assert_eq!(code(BUNDLES).await, 401);
    let short = json!({ "spec": { "expirationSeconds": 10 } });
    let answer = world.post(&format!("{ACCOUNTS}/deploy/token"), short).await;
    assert_eq!(
        (answer.failed().0, answer.failed().2),
        (422, "spec.expirationSeconds: a token is good for 600 to 31536000 seconds")
    );
    assert_eq!(world.post(&format!("{ACCOUNTS}/nobody/token"), request).await.failed().1, "NotFound");
}

const AUDIT: &str = "/apis/berth.dev/v1/auditrecords";

/// Who did what, and what came of it, one line each.
pub(super) async fn recorded(world: &World) -> Vec<String> {
    let list = world.get(AUDIT).await.ok();
    let line = |record: &Value| {
        let part = |field: &str| record["spec"][field].as_str().unwrap_or("-").to_owned();
        ["identity", "verb", "resource", "name", "result"].map(part).join(" ")
    };
    list["items"].as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn every_deed_and_every_refusal_is_recorded_with_who_and_from_where_and_reads_are_not() {
    let world = World::new();
    let token = world.logged_in("alice", "viewer", None).await;
    world.config_map("web", json!({ "a": "canary" })).await;
    world.get(&format!("{CONFIG_MAPS}/web")).await.ok();
    world.post(&format!("{CONFIG_MAPS}?dryRun=All"), json!({ "metadata": { "name": "try" } })).await.created();
    for _ in 0..3 {
        assert_eq!(world.bearing(&token, Method::DELETE, &format!("{CONFIG_MAPS}/web"), Value::Null).await.code, 403);
    }
    world.post(SECRETS, json!({ "metadata": { "name": "db" }, "stringData": { "k": "v" } })).await.created();
    world.get(&format!("{SECRETS}/db")).await.ok();
    world.get(&format!("{SECRETS}/db?reveal=true")).await.ok();
    assert_eq!(world.stranger("/auth/login", json!({ "user": "alice", "password": "canary" })).await.code, 401);
    world.bearing(&token, Method::POST, "/auth/logout", json!({})).await.ok();
    assert_eq!(
        recorded(&world).await,
        [
            "owner create users alice Done",
            "owner create users/password alice Done",
            "owner create rolebindings alice-viewer Done",
            "user:alice create /auth/login alice Done",
            "owner create configmaps web Done",
            "user:alice delete configmaps web Denied",
            "owner create secrets db Done",
            "owner get secrets/reveal db Done",
            "anonymous create /auth/login alice Denied",
            "user:alice create /auth/logout - Done",
        ]
    );
    let all = world.get(AUDIT).await.ok().to_string();
    assert!(!all.contains("canary") && !all.contains("berth_access_"), "{all}");
    let denied = world.get(&format!("{AUDIT}/000000000006")).await.ok();
    assert_eq!((text(&denied["spec"], "address"), text(&denied["spec"], "time")), ("192.0.2.9", NOW));
    assert!(text(&denied["spec"], "message").starts_with("user:alice may not delete"), "{denied}");
}

#[tokio::test]
async fn records_are_listed_in_parts_chosen_exported_and_examined_and_nobody_changes_them() {
    let world = World::new();
    for number in 0..5 {
        world.config_map(&format!("m{number}"), json!({})).await;
    }
    let first = world.get(&format!("{AUDIT}?limit=2")).await.ok();
    assert_eq!(names(&first), ["000000000001", "000000000002"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = text(&first["metadata"], "continue");
    let rest = world.get(&format!("{AUDIT}?continue={token}")).await.ok();
    assert_eq!(names(&rest), ["000000000003", "000000000004", "000000000005"]);
    assert_eq!(names(&world.get(&format!("{AUDIT}?fieldSelector=spec.name=m3")).await.ok()), ["000000000004"]);
    let export = world.get(&format!("{AUDIT}/export")).await;
    let lines: Vec<Value> =
        export.body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["previous"]), (5, &lines[0]["hash"]));
    let verified = world.get(&format!("{AUDIT}/verification")).await.ok();
    assert_eq!((&verified["records"], &verified["problems"]), (&json!(5), &json!([])));
    let changed = world.merge(&format!("{AUDIT}/000000000001"), json!({ "spec": { "identity": "x" } })).await;
    assert_eq!(changed.failed().1, "MethodNotAllowed");
    assert_eq!(world.delete(AUDIT).await.failed().1, "MethodNotAllowed");
    let raw = rusqlite::Connection::open(world.dir.path().join("berth.db")).unwrap();
    raw.execute("UPDATE audit SET deed = replace(deed, 'm2', 'm9') WHERE sequence = 3", []).unwrap();
    let verified = world.get(&format!("{AUDIT}/verification")).await.ok();
    assert_eq!(verified["problems"], json!(["record 3 was changed: its hash is another"]));
}

#[tokio::test]
async fn nobody_stages_what_he_could_not_do() {
    let world = World::new();
    let rules = json!([{ "verbs": ["*"], "apiGroups": ["berth.dev"], "resources": ["changesets", "changesets/*"] }]);
    world.post(ROLES, json!({ "metadata": { "name": "stager" }, "spec": { "rules": rules } })).await.created();
    let token = world.logged_in("alice", "stager", None).await;
    let sets = "/apis/berth.dev/v1/namespaces/default/changesets";
    world.bearing(&token, Method::POST, sets, json!({ "metadata": { "name": "mine" } })).await.created();
    let edit = json!({ "verb": "create", "kind": "ConfigMap", "name": "web", "object": { "data": {} } });
    let answer = world.bearing(&token, Method::POST, &format!("{sets}/mine/actions/add"), edit).await;
    assert_eq!(answer.failed().0, 403, "{}", answer.body);
    assert!(
        answer.failed().2.starts_with("user:alice may not create resource \"configmaps\""),
        "{}",
        answer.failed().2
    );
}

#[tokio::test]
async fn whoever_reads_the_code_on_the_console_owns_the_machine_and_nobody_after_him() {
    let world = World::new();
    world.claim.set("ABCD-EFGH-JKLM");
    let claim = |code: &str, user: &str, password: &str| json!({ "code": code, "user": user, "password": password });
    let ask = async |body| world.stranger("/auth/claim", body).await;
    let wrong = ask(claim("AAAA-AAAA-AAAA", "olivia", PASSWORD)).await;
    assert!(wrong.failed().0 == 401 && wrong.failed().2.contains("the code is on its console"), "{}", wrong.body);
    assert_eq!(ask(claim("abcdefghjklm", "olivia", "short")).await.failed().0, 422);
    assert_eq!(ask(claim("abcdefghjklm", "No Name", PASSWORD)).await.failed().0, 422);
    assert_eq!(names(&world.get(USERS).await.ok()), Vec::<&str>::new());
    ask(claim("abcdefghjklm", "olivia", PASSWORD)).await.created();
    let token = world.login("olivia").await["accessToken"].as_str().unwrap().to_owned();
    world.bearing(&token, Method::GET, USERS, Value::Null).await.ok();
    let again = ask(claim("abcdefghjklm", "mallory", PASSWORD)).await;
    assert_eq!(again.failed().0, 401);
    // Also where the code is still known, as when somebody became owner by another way.
    world.claim.set("ABCD-EFGH-JKLM");
    let late = ask(claim("abcdefghjklm", "mallory", PASSWORD)).await;
    assert!(late.failed().0 == 403 && late.failed().2.contains("owns this machine already"), "{}", late.body);
    assert!(recorded(&world).await.contains(&"user:olivia create /auth/claim olivia Done".to_owned()));
}

#[tokio::test]
async fn a_code_is_not_guessed() {
    let world = World::new();
    world.claim.set("ABCD-EFGH-JKLM");
    let guess = json!({ "code": "AAAA-AAAA-AAAA", "user": "mallory", "password": PASSWORD });
    for _ in 0..5 {
        assert_eq!(world.stranger("/auth/claim", guess.clone()).await.code, 401);
    }
    assert_eq!(world.stranger("/auth/claim", guess).await.code, 429);
}

#[tokio::test]
async fn whoever_logged_in_long_ago_logs_in_again_before_he_does_what_is_dangerous() {
    let world = World::new();
    let token = world.logged_in("olivia", "owner", None).await;
    world.post(SECRETS, json!({ "metadata": { "name": "db" }, "stringData": { "k": "v" } })).await.created();
    let reveal = format!("{SECRETS}/db?reveal=true");
    world.bearing(&token, Method::GET, &reveal, Value::Null).await.ok();
    // As if a quarter of an hour had passed.
    let sessions = world.store.read(|tx| tx.list::<berth_model::resource::Session>(None)).await.unwrap();
    let mut session = sessions.into_iter().next().unwrap();
    session.status.as_mut().unwrap().authenticated = Some("2026-03-01T11:45:00Z".parse().unwrap());
    let age = move |tx: &mut crate::store::Tx<'_>| tx.update_status(&session).map(drop);
    let aged: Result<(), crate::store::StoreError> = world.store.write(&crate::store::house_keeping(), age).await;
    aged.unwrap();
    let refused = world.bearing(&token, Method::GET, &reveal, Value::Null).await;
    assert_eq!(refused.failed().0, 401);
    assert!(refused.failed().2.contains("log in again"), "{}", refused.failed().2);
    assert_eq!(world.bearing(&token, Method::DELETE, &format!("{BINDINGS}/x"), Value::Null).await.code, 401);
    world.bearing(&token, Method::GET, &format!("{SECRETS}/db"), Value::Null).await.ok();
    let again = world.login("olivia").await;
    world.bearing(text(&again, "accessToken"), Method::GET, &reveal, Value::Null).await.ok();
}
