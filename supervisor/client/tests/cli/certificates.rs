//! Client certificates: made, kept, renewed in time, ended.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Signing};

const CERTIFICATES: &str = "/apis/berth.dev/v1/certificates";
const ALICES: &str = "POST /apis/berth.dev/v1/users/alice/certificates";

fn hours(number: i64) -> SignedDuration {
    SignedDuration::from_hours(number)
}

#[allow(clippy::disallowed_methods, reason = "the command goes by the clock, and so does what it is given")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A certificate for alice that began and ends so many hours from now.
pub fn signing(fake: &Fake, from: i64, until: i64) -> Reply {
    let authority = std::fs::read_to_string(fake.dir.path().join("ca.crt")).unwrap();
    let now = now();
    Reply::Sign(Signing {
        authority,
        subject: "user:alice",
        issued_at: now + hours(from),
        expires_at: now + hours(until),
    })
}

pub fn ca(fake: &Fake) -> String {
    fake.dir.path().join("ca.crt").display().to_string()
}

pub fn kept(fake: &Fake, file: &str) -> PathBuf {
    fake.dir.path().join(".config/berth/sessions").join(file)
}

pub fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn issue(fake: &Fake, from: i64, until: i64) {
    fake.on(ALICES, signing(fake, from, until));
    let ran = fake.run_at_home(&["ca", "alice", "--name", "box", "--ca", &ca(fake)], b"").await;
    let out = "user:alice has a certificate: berth --context box whoami\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, out), "{}", ran.err);
}

#[tokio::test]
async fn a_context_has_a_certificate_whose_key_was_never_sent_and_kubectl_is_handed_both() {
    let fake = Fake::start_tls().await;
    issue(&fake, 0, 168).await;
    let asked = fake.asked(ALICES)[0].json();
    assert!(asked["request"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{asked}");
    assert!(!asked.to_string().contains("PRIVATE KEY"), "{asked}");
    assert_eq!(mode(&kept(&fake, "box.pem")), 0o600);
    let config = std::fs::read_to_string(fake.dir.path().join(".kube/config")).unwrap();
    assert!(config.contains("--exec-credential") && config.contains(&fake.address), "{config}");
    assert!(!config.contains("client-key"), "{config}");
    fake.json("GET /version", json!({"berthVersion": "9.9.9"}));
    let ran = fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert_eq!((ran.code, fake.asked("GET /version")[0].header("authorization")), (0, ""), "{}", ran.err);
    let ran = fake.run_at_home(&["token", "--context", "box", "--exec-credential"], b"").await;
    let credential: Value = serde_json::from_str(&ran.out).unwrap();
    let part = |field: &str| credential["status"][field].as_str().unwrap().to_owned();
    assert!(part("clientKeyData").starts_with("-----BEGIN PRIVATE KEY-----"), "{credential}");
    assert!(part("clientCertificateData").starts_with("-----BEGIN CERTIFICATE-----"), "{credential}");
    assert!(credential["status"]["token"].is_null(), "{credential}");
    let ran = fake.run_at_home(&["token", "--context", "box"], b"").await;
    assert!(ran.code == 2 && ran.err.contains("has no token, but a certificate"), "{}", ran.err);
}

#[tokio::test]
async fn a_certificate_of_which_a_third_is_left_is_renewed_once_by_however_many_commands() {
    let fake = Fake::start_tls().await;
    issue(&fake, -120, 48).await;
    let before = std::fs::read(kept(&fake, "box.pem")).unwrap();
    fake.on(&format!("POST {CERTIFICATES}"), signing(&fake, 0, 168)).json("GET /version", json!({"berthVersion": "9"}));
    let version = || fake.run_at_home(&["--context", "box", "version"], b"");
    let (one, two) = tokio::join!(version(), version());
    assert_eq!((one.code, two.code), (0, 0), "{}{}", one.err, two.err);
    assert_eq!(fake.asked(&format!("POST {CERTIFICATES}")).len(), 1);
    assert_ne!(std::fs::read(kept(&fake, "box.pem")).unwrap(), before);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_renewed_is_used_while_it_lasts_and_that_is_said() {
    let fake = Fake::start_tls().await;
    issue(&fake, -120, 48).await;
    fake.refuse(&format!("POST {CERTIFICATES}"), 503, "ServiceUnavailable", "later")
        .json("GET /version", json!({"berthVersion": "9"}));
    let ran = fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert!(ran.code == 0 && ran.err.contains("was not renewed: later"), "{}", ran.err);
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_told_with_what_to_do_and_nobody_is_asked() {
    let fake = Fake::start_tls().await;
    issue(&fake, -200, -32).await;
    let ran = fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert_eq!(ran.code, 4);
    assert!(
        ran.err.contains("the certificate of box ended") && ran.err.contains("try: have another one made"),
        "{}",
        ran.err
    );
    assert_eq!(fake.lines(), [ALICES]);
}

#[tokio::test]
async fn a_certificate_in_a_file_is_for_its_owner_alone_and_takes_the_place_of_none() {
    let fake = Fake::start_tls().await;
    fake.on(ALICES, signing(&fake, 0, 168)).json("GET /version", json!({"berthVersion": "9.9.9"}));
    let file = fake.dir.path().join("alice.pem");
    let shown = file.display().to_string();
    let line = ["ca", "alice", "--out", &shown, "--ca", &ca(&fake)];
    let ran = fake.run_at_home(&line, b"").await;
    assert_eq!((ran.code, mode(&file)), (0, 0o600), "{}", ran.err);
    let again = fake.run_at_home(&line, b"").await;
    assert_eq!((again.code, fake.asked(ALICES).len()), (1, 1), "{}", again.err);
    let ran = fake.run_at_home(&["--certificate", &shown, "--ca", &ca(&fake), "version"], b"").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = fake.run_at_home(&["ca", "alice", "--curl"], b"").await;
    assert!(ran.code == 2 && ran.err.contains("this makes a key"), "{}", ran.err);
}

#[tokio::test]
async fn certificates_are_revoked_by_their_names_and_by_logging_out() {
    let fake = Fake::start_tls().await;
    issue(&fake, 0, 168).await;
    let path = format!("{CERTIFICATES}/alice.x7k2p");
    fake.json(&format!("PATCH {path}"), json!({"kind": "Certificate", "metadata": {"name": "alice.x7k2p"}}));
    let ran = fake.run_at_home(&["ca", "revoke", "alice.x7k2p", "--ca", &ca(&fake)], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "certificate/alice.x7k2p revoked\n"), "{}", ran.err);
    assert_eq!(fake.asked(&format!("PATCH {path}"))[0].json(), json!({"spec": {"revoked": true}}));
    fake.json(&format!("DELETE {path}"), json!({"kind": "Status"}));
    let ran = fake.run_at_home(&["logout", "--context", "box"], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "logged out of box\n"), "{}", ran.err);
    assert!(!kept(&fake, "box.pem").exists());
}
