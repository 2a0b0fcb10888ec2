//! Which server, who asks, and what is said when that does not work.

use serde_json::json;

use crate::fake::{Fake, dead_socket};
use crate::run::alone;

const TOKEN: &str = "berth_0123456789";

fn token_file(fake: &Fake) -> String {
    let file = fake.dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_told_with_what_to_do() {
    let (_dir, socket) = dead_socket();
    let address = format!("unix://{}", socket.display());
    let ran = alone(&["--server", &address, "status"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert_eq!(
        ran.err,
        format!(
            "error [Unreachable]: no answer from {address}: Connection refused (os error 111)\n  \
             try: `systemctl status berthd` on this machine; for another machine give --server, --token-file and --ca\n"
        )
    );
    std::fs::remove_file(&socket).unwrap();
    let ran = alone(&["--server", &address, "version"]).await;
    assert_eq!((ran.code, ran.out), (1, format!("client  {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(ran.err.contains("No such file or directory"), "{}", ran.err);
}

#[tokio::test]
async fn over_the_network_the_token_is_sent_and_the_certificate_checked() {
    let fake = Fake::start_tls().await;
    fake.json("GET /version", json!({"berthVersion": "9.9.9"}));
    let (token, ca) = (token_file(&fake), fake.dir.path().join("ca.crt").display().to_string());
    let ran = fake.run(&["version", "--token-file", &token, "--ca", &ca]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(fake.seen()[0].header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(fake.seen()[0].header("user-agent"), format!("berth/{}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_server_of_another_authority_gets_no_token() {
    let (fake, other) = (Fake::start_tls().await, Fake::start_tls().await);
    let (token, ca) = (token_file(&fake), other.dir.path().join("ca.crt").display().to_string());
    let ran = fake.run(&["status", "--token-file", &token, "--ca", &ca]).await;
    assert_eq!(ran.code, 1);
    let expected = format!("error [Untrusted]: the certificate of {} is not trusted: ", fake.address);
    assert!(ran.err.starts_with(&expected), "{}", ran.err);
    assert!(ran.err.contains("try: give the server's own authority with --ca"), "{}", ran.err);
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn who_is_not_known_is_told_how_to_log_in() {
    let fake = Fake::start_tls().await;
    fake.refuse("GET /apis/berth.dev/v1/namespaces/default/bundles", 401, "Unauthorized", "who are you?");
    let ca = fake.dir.path().join("ca.crt").display().to_string();
    let ran = fake.run(&["status", "--ca", &ca]).await;
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error [401 Unauthorized]: who are you?\n  \
         try: log in with `berth login`, name the file that holds a token with --token-file, or run it on the machine as root\n"
    );
}

#[tokio::test]
async fn a_token_file_without_a_token_is_no_login() {
    let fake = Fake::start();
    let file = fake.dir.path().join("token");
    std::fs::write(&file, "\n").unwrap();
    let ran = fake.run(&["status", "--token-file", file.to_str().unwrap()]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("holds no usable token"), "{}", ran.err);
}

#[tokio::test]
async fn an_address_that_would_show_the_token_is_wrong_usage() {
    let ran = alone(&["--server", "http://192.0.2.7:6443", "status"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("must begin with https:// or unix://"), "{}", ran.err);
}

#[tokio::test]
async fn an_answer_that_is_no_api_is_told_as_such() {
    let fake = Fake::start();
    fake.on("GET /version", crate::fake::Reply::Stream(vec!["<html>".into()], crate::fake::End::Properly));
    let ran = fake.run(&["version"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("error [Malformed]: the answer from unix://"), "{}", ran.err);
}
