//! Bootstrap tokens, enrolling with them, devices.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::certificates::{ca, kept, mode, signing};
use crate::fake::{Fake, Reply};

const ENROL: &str = "POST /apis/berth.dev/v1/certificates";
const DEVICES: &str = "/apis/berth.dev/v1/namespaces/default/devices";

/// The SHA-256 of the server's authority.
fn fingerprint(fake: &Fake) -> String {
    let pem = std::fs::read(fake.dir.path().join("ca.crt")).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, &der);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn made(fingerprint: &str) -> Reply {
    let expires = "2026-03-01T12:05:00Z";
    Reply::Json(
        201,
        json!({
            "token": "berth_bootstrap_x", "fingerprint": fingerprint, "subject": "user:alice", "expiresAt": expires,
        }),
    )
}

#[tokio::test]
async fn whoever_has_what_the_machine_showed_has_a_certificate_and_a_context_and_trusts_its_authority_from_then_on() {
    let fake = Fake::start_tls().await;
    fake.on("POST /apis/berth.dev/v1/users/alice/bootstraptokens", made(&fingerprint(&fake)));
    let ran = fake.run_at_home(&["token", "--qr", "--user", "alice", "--ca", &ca(&fake)], b"").await;
    let word = format!("berth-enrol:{}#{}#berth_bootstrap_x", fake.address, fingerprint(&fake));
    assert_eq!((ran.code, ran.out.trim()), (0, word.as_str()), "{}", ran.err);
    assert!(
        ran.err.contains("\u{2588}\u{2588}\u{2588}\u{2588}") && ran.err.contains("for user:alice, once"),
        "{}",
        ran.err
    );
    fake.on(ENROL, signing(&fake, 0, 168)).json("GET /version", json!({"berthVersion": "9.9.9"}));
    let ran = fake.run_at_home(&["enrol", "--from", "-", "--name", "box"], ran.out.as_bytes()).await;
    let out = "user:alice has a certificate: berth --context box whoami\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, out), "{}", ran.err);
    let asked = &fake.asked(ENROL)[0];
    assert_eq!(asked.header("authorization"), "Bearer berth_bootstrap_x");
    assert!(!asked.json().to_string().contains("PRIVATE KEY"));
    assert_eq!(mode(&kept(&fake, "box.pem")), 0o600);
    let ran = fake.run_at_home(&["--context", "box", "version"], b"").await;
    assert_eq!((ran.code, fake.asked("GET /version")[0].header("authorization")), (0, ""), "{}", ran.err);
    let config = std::fs::read_to_string(fake.dir.path().join(".kube/config")).unwrap();
    assert!(config.contains(&fake.address) && !config.contains("berth_bootstrap_"), "{config}");
}

#[tokio::test]
async fn a_machine_that_is_another_is_sent_nothing() {
    let fake = Fake::start_tls().await;
    fake.on(ENROL, signing(&fake, 0, 168));
    let word = format!("berth-enrol:{}#{}#berth_bootstrap_x", fake.address, "ab".repeat(32));
    let ran = fake.run_at_home(&["enrol", "--from", "-", "--name", "box"], word.as_bytes()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is not the machine that made this token; it was not sent"), "{}", ran.err);
    assert_eq!(fake.lines(), Vec::<String>::new());
    assert!(!kept(&fake, "box.pem").exists());
    let ran = fake.run_at_home(&["enrol", "--from", "-"], b"berth_bootstrap_x").await;
    assert!(ran.code == 1 && ran.err.contains("not what `berth token --qr` shows"), "{}", ran.err);
    assert!(!ran.err.contains("berth_bootstrap_x"), "{}", ran.err);
}

#[tokio::test]
async fn a_token_that_is_refused_leaves_no_file_behind() {
    let fake = Fake::start_tls().await;
    fake.refuse(ENROL, 401, "Unauthorized", "the bootstrap token is not valid");
    let word = format!("berth-enrol:{}#{}#berth_bootstrap_x", fake.address, fingerprint(&fake));
    let file = fake.dir.path().join("me.pem");
    let ran = fake.run_at_home(&["enrol", "--from", "-", "--out", &file.display().to_string()], word.as_bytes()).await;
    assert!(ran.code == 4 && !file.exists(), "{}", ran.err);
}

#[tokio::test]
async fn a_script_sets_kubectl_up_elsewhere_and_takes_nobodys_place() {
    let fake = Fake::start_tls().await;
    let ca = ca(&fake);
    let line = ["config", "--token", "-", "--script", "--name", "box", "--url", "https://box:6443", "--ca", &ca];
    let ran = fake.run_at_home(&line, b"berth_key_x\n").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out.matches("berth_key_x").count(), 1);
    let (before, _) = ran.out.split_once("END OF CONFIGURATION").unwrap();
    assert!(before.contains("umask 077") && !before.contains("berth_key_x"), "{}", ran.out);
    let script = fake.dir.path().join("set-up");
    std::fs::write(&script, &ran.out).unwrap();
    let home = fake.dir.path().join("elsewhere");
    let run = format!("HOME={} PATH=/usr/bin:/bin sh {}", home.display(), script.display());
    let first = fake.shell(&run).await;
    let config = home.join(".kube/config");
    assert_eq!((first.code, mode(&config)), (0, 0o600), "{}", first.err);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("token: berth_key_x") && text.contains("https://box:6443"), "{text}");
    let again = fake.shell(&run).await;
    assert_eq!((again.code, std::fs::read_to_string(&config).unwrap()), (1, text), "{}", again.err);
    assert_eq!(std::fs::read_dir(home.join(".kube")).unwrap().count(), 1, "half a file is left");
    let plain = fake.run_at_home(&["config", "--token", "-", "--ca", &ca], b"two words").await;
    assert!(plain.code == 2 && !plain.err.contains("two words"), "{}", plain.err);
}

#[tokio::test]
async fn a_device_is_made_given_a_certificate_and_ended() {
    let fake = Fake::start_tls().await;
    let device = json!({"kind": "Device", "metadata": {"name": "lamp"}});
    fake.on(&format!("POST {DEVICES}"), Reply::Json(201, device.clone()));
    let ca = ca(&fake);
    let ran = fake.run_at_home(&["device", "create", "lamp", "--role", "viewer", "--ca", &ca], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "device/lamp created\n"), "{}", ran.err);
    assert_eq!(
        fake.asked(&format!("POST {DEVICES}"))[0].json()["spec"],
        json!({"role": "viewer", "description": Value::Null})
    );
    fake.on(&format!("POST {DEVICES}/lamp/certificates"), signing(&fake, 0, 2160));
    let file = fake.dir.path().join("lamp.pem");
    let shown = file.display().to_string();
    let ran = fake.run_at_home(&["device", "issue-certificate", "lamp", "--out", &shown, "--ca", &ca], b"").await;
    assert_eq!((ran.code, mode(&file)), (0, 0o600), "{}", ran.err);
    fake.json(&format!("PATCH {DEVICES}/lamp"), device)
        .json(&format!("DELETE {DEVICES}/lamp"), json!({"kind": "Status"}));
    let ran = fake.run_at_home(&["device", "revoke", "lamp", "--ca", &ca], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "device/lamp revoked\n"), "{}", ran.err);
    let ran = fake.run_at_home(&["device", "delete", "lamp", "--ca", &ca], b"").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "device/lamp deleted\n"), "{}", ran.err);
    fake.on(&format!("POST {DEVICES}/lamp/bootstraptokens"), made(&fingerprint(&fake)));
    let ran =
        fake.run_at_home(&["token", "--qr", "--device", "lamp", "--url", "https://box:1", "--ca", &ca], b"").await;
    assert!(ran.code == 0 && ran.out.starts_with("berth-enrol:https://box:1#"), "{}{}", ran.out, ran.err);
}
