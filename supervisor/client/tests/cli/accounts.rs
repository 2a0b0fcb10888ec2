//! Logging in and out, users, roles, keys.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};

const USERS: &str = "/apis/berth.dev/v1/users";
const BINDINGS: &str = "/apis/berth.dev/v1/rolebindings";

fn tokens(number: u32, seconds: u32) -> Value {
    json!({
        "session": "alice.x", "user": "alice", "expiresIn": seconds,
        "accessToken": format!("berth_access_{number}"), "refreshToken": format!("berth_refresh_{number}"),
    })
}

async fn log_in(fake: &Fake, seconds: u32) {
    fake.json("POST /auth/login", tokens(1, seconds));
    let ca = fake.dir.path().join("ca.crt").display().to_string();
    let line = ["login", "--ca", &ca, "--name", "box", "--user", "alice", "--password-file", "-"];
    let ran = fake.run_at_home(&line, b"correct horse battery\n").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "alice is logged in: berth --context box status\n"), "{}", ran.err);
}

#[tokio::test]
async fn whoever_logged_in_asks_with_his_token_and_kubectl_does_too() {
    let fake = Fake::start_tls().await;
    log_in(&fake, 900).await;
    let said = fake.asked("POST /auth/login")[0].json();
    assert_eq!(said, json!({"user": "alice", "password": "correct horse battery"}));
    fake.json("GET /version", json!({"berthVersion": "9.9.9"}));
    let ran = fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(fake.asked("GET /version")[0].header("authorization"), "Bearer berth_access_1");
    let config = std::fs::read_to_string(fake.dir.path().join(".kube/config")).unwrap();
    assert!(config.contains("--exec-credential") && config.contains(&fake.address), "{config}");
    assert!(!config.contains("berth_access_1") && !config.contains("berth_refresh_1"), "{config}");
    let ran = fake.run_at_home(&["token", "--context", "box", "--exec-credential"], b"").await;
    let credential: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&credential["kind"], &credential["status"]["token"]),
        (&json!("ExecCredential"), &json!("berth_access_1"))
    );
    let folder = fake.dir.path().join(".config/berth/sessions");
    for file in ["box.json", "box.token", "box.crt"] {
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_token_that_ends_soon_is_refreshed_once_by_however_many_commands() {
    let fake = Fake::start_tls().await;
    log_in(&fake, 30).await;
    fake.json("POST /auth/refresh", tokens(2, 900)).json("GET /version", json!({"berthVersion": "9.9.9"}));
    let version = || fake.run_at_home(&["--context", "box", "version"], b"");
    let (one, two, three) = tokio::join!(version(), version(), version());
    assert_eq!((one.code, two.code, three.code), (0, 0, 0), "{}{}{}", one.err, two.err, three.err);
    let refreshed = fake.asked("POST /auth/refresh");
    assert_eq!(refreshed.len(), 1, "a refresh token is good once");
    assert_eq!(refreshed[0].json(), json!({"refreshToken": "berth_refresh_1"}));
    assert_eq!(refreshed[0].header("authorization"), "");
    for asked in fake.asked("GET /version") {
        assert_eq!(asked.header("authorization"), "Bearer berth_access_2");
    }
}

#[tokio::test]
async fn whoever_logs_out_is_forgotten_here_also_when_the_server_did_before() {
    for refused in [false, true] {
        let fake = Fake::start_tls().await;
        log_in(&fake, 900).await;
        match refused {
            true => fake.refuse("POST /auth/logout", 401, "Unauthorized", "who are you?"),
            false => fake.json("POST /auth/logout", json!({"kind": "Status"})),
        };
        let ran = fake.run_at_home(&["logout", "--context", "box"], b"").await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.starts_with("logged out of box"), "{}", ran.out);
        let ran = fake.run_at_home(&["--context", "box", "status"], b"").await;
        assert_eq!(ran.code, 4);
        let expected = "error [Unauthorized]: nobody is logged in at box\n  try: berth login --server https://HOST:6443 --name box\n";
        assert_eq!(ran.err, expected);
    }
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_can_answer_and_no_password_is_printed() {
    let fake = Fake::start_tls().await;
    let ran = fake.run_at_home(&["login"], b"").await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("give --user and --password-file"), "{}", ran.err);
    let ran = fake.run_at_home(&["user", "password", "alice", "--password-file", "-", "--curl"], b"secret").await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(!ran.err.contains("secret"), "{}", ran.err);
    let local = Fake::start();
    let ran = local.run_at_home(&["login", "--user", "a"], b"").await;
    assert!(ran.err.contains("root needs no login"), "{}", ran.err);
}

#[tokio::test]
async fn a_user_is_made_with_role_and_password_and_kept_out_again() {
    let fake = Fake::start();
    fake.on(&format!("POST {USERS}"), Reply::Json(201, json!({"kind": "User", "metadata": {"name": "bob"}})));
    fake.on(&format!("POST {BINDINGS}"), Reply::Json(201, json!({"kind": "RoleBinding", "metadata": {"name": "x"}})));
    fake.json(&format!("POST {USERS}/bob/password"), json!({"kind": "Status"}));
    let line = ["user", "create", "bob", "--role", "operator", "--in", "team", "--password-file", "-"];
    let ran = fake.run_with(&line, b"correct horse battery").await;
    let out = "user/bob created\nbob is operator in the namespace team\nuser/bob has a new password\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, out), "{}", ran.err);
    let binding = fake.asked(&format!("POST {BINDINGS}"))[0].json();
    assert_eq!(binding["metadata"]["name"], "operator.user.bob.in.team");
    let subjects = json!([{"kind": "User", "name": "bob"}]);
    assert_eq!(binding["spec"], json!({"role": "operator", "namespace": "team", "subjects": subjects}));
    let ran = fake.run(&["role", "grant", "viewer", "bob"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bob is viewer\n"), "{}", ran.err);
    assert_eq!(fake.asked(&format!("POST {BINDINGS}"))[1].json()["spec"]["namespace"], Value::Null);
    fake.json(&format!("PATCH {USERS}/bob"), json!({"kind": "User", "metadata": {"name": "bob"}}));
    let ran = fake.run(&["user", "disable", "bob"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "user/bob disabled\n"));
    assert_eq!(fake.asked(&format!("PATCH {USERS}/bob"))[0].json(), json!({"spec": {"disabled": true}}));
    fake.json(&format!("DELETE {BINDINGS}/operator.user.bob.in.team"), json!({"kind": "Status"}));
    let ran = fake.run(&["role", "revoke", "operator", "bob", "--in", "team"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "rolebinding/operator.user.bob.in.team deleted\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_key_is_printed_alone_so_that_it_can_be_kept() {
    let fake = Fake::start();
    let made = json!({"key": "berth_key_x", "apiKey": {"metadata": {"name": "bob.ci"}}});
    fake.on(&format!("POST {USERS}/bob/apikeys"), Reply::Json(201, made));
    let line = ["apikey", "create", "bob", "--name", "ci", "--role", "viewer", "--expires-in", "24h"];
    let ran = fake.run(&line).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "berth_key_x\n"), "{}", ran.err);
    assert!(ran.err.contains("apikey/bob.ci created"), "{}", ran.err);
    let wanted = fake.asked(&format!("POST {USERS}/bob/apikeys"))[0].json();
    assert_eq!(wanted, json!({"name": "ci", "role": "viewer", "expiresIn": 86400}));
}

#[tokio::test]
async fn a_link_invites_alone_on_standard_output_and_is_taken_with_a_password_of_ones_own() {
    const INVITATIONS: &str = "/apis/berth.dev/v1/invitations";
    let fake = Fake::start_tls().await;
    let ca = fake.dir.path().join("ca.crt").display().to_string();
    let made = json!({"secret": "berth_invitation_x", "invitation": {"metadata": {"name": "nina"}}});
    fake.on(&format!("POST {INVITATIONS}"), Reply::Json(201, made));
    let ran = fake.run_at_home(&["invite", "nina", "--role", "viewer", "--in", "team", "--ca", &ca], b"").await;
    let link = format!("{}/invitation#berth_invitation_x\n", fake.address);
    assert_eq!((ran.code, ran.out.as_str()), (0, link.as_str()), "{}", ran.err);
    assert!(ran.err.contains("nina is invited for 7 days"), "{}", ran.err);
    let wanted = fake.asked(&format!("POST {INVITATIONS}"))[0].json();
    assert_eq!(wanted, json!({"user": "nina", "role": "viewer", "namespace": "team"}));

    fake.on("POST /auth/invitation", Reply::Json(201, json!({"user": "nina"})));
    let password = fake.dir.path().join("password");
    std::fs::write(&password, "correct horse battery\n").unwrap();
    let password = password.display().to_string();
    let line = ["accept", "--ca", &ca, "--link-file", "-", "--password-file", &password];
    let ran = fake.run_at_home(&line, link.as_bytes()).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "the account nina is made\n"), "{}", ran.err);
    let said = fake.asked("POST /auth/invitation")[0].json();
    assert_eq!(said, json!({"secret": "berth_invitation_x", "password": "correct horse battery"}));

    fake.json(&format!("DELETE {INVITATIONS}/nina"), json!({"kind": "Status"}));
    let ran = fake.run_at_home(&["invitation", "revoke", "nina", "--ca", &ca], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "invitation/nina taken back\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_machine_without_a_password_shows_a_code_and_asks_until_somebody_has_decided() {
    let begun = json!({"device_code": "berth_device_x", "user_code": "ABCD-EFGH", "interval": 0, "expires_in": 600,
        "verification_uri": "https://box:6443/device"});
    let told = |word: &str| Reply::Json(400, json!({"error": word, "error_description": "somebody said no"}));
    let fake = Fake::start_tls().await;
    let ca = fake.dir.path().join("ca.crt").display().to_string();
    let line = ["login", "--device", "--ca", &ca, "--name", "box"];
    let came = json!({"session": "alice.x", "user": "alice", "expires_in": 900, "token_type": "Bearer",
        "access_token": "berth_access_1", "refresh_token": "berth_refresh_1"});
    fake.json("POST /auth/device", begun.clone()).on("POST /auth/device/token", told("authorization_pending"));
    fake.on("POST /auth/device/token", Reply::Break).json("POST /auth/device/token", came);
    let ran = fake.run_at_home(&line, b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "alice is logged in: berth --context box status\n"), "{}", ran.err);
    assert!(ran.err.contains("code: ABCD-EFGH") && ran.err.contains("berth device approve ABCD-EFGH"), "{}", ran.err);
    assert!(!ran.err.contains("berth_device_x"), "{}", ran.err);
    let asked = fake.asked("POST /auth/device/token").pop().unwrap();
    let form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=berth_device_x";
    assert_eq!(std::str::from_utf8(&asked.body).unwrap(), form);
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    fake.json("GET /version", json!({"berthVersion": "9.9.9"}));
    fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert_eq!(fake.asked("GET /version")[0].header("authorization"), "Bearer berth_access_1");

    let fake = Fake::start_tls().await;
    let ca = fake.dir.path().join("ca.crt").display().to_string();
    fake.json("POST /auth/device", begun).on("POST /auth/device/token", told("access_denied"));
    let ran = fake.run_at_home(&["login", "--device", "--ca", &ca, "--name", "box"], b"").await;
    assert!(ran.code == 4 && ran.err.contains("somebody said no"), "{} {}", ran.code, ran.err);
}

#[tokio::test]
async fn whoever_lets_a_machine_in_sees_first_where_it_is() {
    let fake = Fake::start();
    let me = json!({"status": {"userInfo": {"username": "user:bob"}}});
    let reviews = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    for _ in 0..3 {
        fake.on(reviews, Reply::Json(201, me.clone()));
    }
    let shown = json!({"address": "198.51.100.7", "program": "lamp/2", "begunAt": "2026-03-01T12:00:00Z",
        "expiresAt": "2026-03-01T12:10:00Z"});
    let line = |below: &str| format!("POST {USERS}/bob/devicelogins{below}");
    fake.json(&line(""), shown.clone()).json(&line(""), shown.clone());
    fake.json(&line("/approve"), shown.clone()).json(&line("/deny"), shown);
    let ran = fake.run(&["device", "approve", "ABCD-EFGH"]).await;
    assert!(
        ran.code == 2 && ran.err.contains("198.51.100.7 with lamp/2") && ran.err.contains("say --yes"),
        "{}",
        ran.err
    );
    assert!(fake.asked(&line("/approve")).is_empty());
    let ran = fake.run(&["device", "approve", "ABCD-EFGH", "--yes"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "it comes in as bob\n"), "{}", ran.err);
    assert_eq!(fake.asked(&line("/approve"))[0].json(), json!({"userCode": "ABCD-EFGH"}));
    let ran = fake.run(&["device", "deny", "ABCD-EFGH"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "the login from 198.51.100.7 is refused\n"), "{}", ran.err);
}

#[tokio::test]
async fn whether_something_is_allowed_is_said_in_a_word_and_by_the_exit_code() {
    let fake = Fake::start();
    let reviews = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    fake.on(reviews, Reply::Json(201, json!({"status": {"allowed": true}})));
    fake.on(reviews, Reply::Json(201, json!({"status": {"allowed": false, "reason": "user:bob may not"}})));
    let ran = fake.run(&["can-i", "create", "bundles/exec"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "yes\n"), "{}", ran.err);
    let asked = &fake.asked(reviews)[0].json()["spec"]["resourceAttributes"];
    assert_eq!(
        (&asked["resource"], &asked["subresource"], &asked["namespace"]),
        (&json!("bundles"), &json!("exec"), &json!("default"))
    );
    let ran = fake.run(&["can-i", "get", "/metrics"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (4, "no\n", "error [Forbidden]: user:bob may not\n"));
    let me = json!({"status": {"userInfo": {"username": "user:bob", "extra": {"berth.dev/granted": ["role viewer"]}}}});
    fake.on("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", Reply::Json(201, me));
    assert_eq!(fake.run(&["whoami"]).await.out, "user:bob\n  role viewer\n");
}

#[tokio::test]
async fn whether_the_record_is_whole_is_said_with_what_is_wrong_and_by_the_exit_code() {
    let fake = Fake::start();
    let line = "GET /apis/berth.dev/v1/auditrecords/verification";
    let whole =
        json!({"records": 12, "first": 1, "last": 12, "checkpoints": 2, "problems": [], "key": "ssh-ed25519 AAAA"});
    let changed =
        json!({"records": 12, "first": 1, "last": 12, "checkpoints": 2, "problems": ["record 3 was changed"]});
    fake.on(line, Reply::Json(200, whole)).on(line, Reply::Json(200, changed));
    let ran = fake.run(&["audit", "verify"]).await;
    let said = "12 records (1 to 12) and 2 checkpoints are whole\nsigned by ssh-ed25519 AAAA\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, said), "{}", ran.err);
    let ran = fake.run(&["audit", "verify"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not whole\n  record 3 was changed\n  try: keep a copy"), "{}", ran.err);
    fake.list("GET /apis/berth.dev/v1/auditrecords", 1, vec![]);
    fake.run(&["audit", "list", "--by", "user:bob", "--denied"]).await;
    let query = &fake.asked("GET /apis/berth.dev/v1/auditrecords")[0].query;
    assert!(query.contains("spec.identity%3Duser%3Abob%2Cspec.result%3DDenied"), "{query}");
}

/// What the report looks at; all is well but what cannot be.
fn sound() -> Fake {
    let fake = Fake::start();
    let finding = |name: &str, found: &str| json!({"area": "berth", "name": name, "result": "ok", "message": found});
    let findings = json!([finding("master key", "it opens the keys"), finding("certificate", "good until May")]);
    let diagnosis = json!({"apiVersion": "berth.dev/v1", "kind": "Diagnosis", "findings": findings});
    fake.on("POST /apis/berth.dev/v1/system/diagnostics", Reply::Json(200, diagnosis));
    fake.json("GET /version", json!({"berthVersion": "9.9.9"}));
    fake
}

fn state<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    (check["state"].as_str().unwrap(), check["found"].as_str().unwrap())
}

#[tokio::test]
async fn a_report_says_how_each_thing_stands_and_what_to_do_and_claims_nothing_that_is_not_there() {
    let fake = sound();
    let key = json!({"metadata": {"name": "alice.ci", "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {}});
    fake.list("GET /apis/berth.dev/v1/volumes", 1, vec![]);
    fake.list("GET /apis/berth.dev/v1/apikeys", 1, vec![key]);
    fake.refuse("GET /apis/berth.dev/v1/users", 403, "Forbidden", "user:vera may not list users");
    let ran = fake.run(&["audit", "report", "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(state(&report, "TLS"), ("good", "good until May"));
    assert_eq!(state(&report, "encryption of secrets"), ("good", "it opens the keys"));
    assert_eq!(state(&report, "unused API keys"), ("finding", "not used for 90 days: alice.ci"));
    assert_eq!(state(&report, "backups"), ("finding", "no backups yet: not there"));
    let (users, why) = state(&report, "second factors");
    assert!(users == "unknown" && why.contains("may not list users"), "{why}");
    assert!(ran.err.contains("2 findings, 2 not known"), "{}", ran.err);
}

#[tokio::test]
async fn a_machine_is_claimed_with_its_code() {
    let fake = Fake::start();
    fake.on("POST /auth/claim", Reply::Json(201, json!({"kind": "Status"})));
    let line = ["claim", "--code", "ABCD-EFGH-JKLM", "--user", "olivia", "--password-file", "-"];
    let ran = fake.run_with(&line, b"correct horse battery\n").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "olivia owns the machine\n"), "{}", ran.err);
    let said = json!({"code": "ABCD-EFGH-JKLM", "user": "olivia", "password": "correct horse battery"});
    assert_eq!(fake.asked("POST /auth/claim")[0].json(), said);
}
