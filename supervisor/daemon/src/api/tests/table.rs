//! Who may use which route: all of the routing table for everybody there is, against `table.txt`. A route that is new fails
//! until somebody has said there who may use it. `BERTH_WRITE_TABLE=1` writes down how it is, to be read and kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::access::PASSWORD;
use super::certificates::{CERTIFICATES, request};
use super::enrolment::DEVICES;
use super::*;

const EXPECTED: &str = include_str!("table.txt");
const PEER: Peer = Peer::Network(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1));

/// With what somebody comes.
enum With {
    Nothing,
    Token(String),
    /// A client certificate and its key.
    Certificate(String),
}

/// A letter for each: who he is, and with what he comes.
async fn everybody(world: &World) -> Vec<(char, With)> {
    let mut all = vec![('-', With::Nothing)];
    for (letter, name, role, namespace) in [
        ('v', "vera", "viewer", None),
        ('a', "ada", "auditor", None),
        ('p', "olga", "operator", None),
        ('d', "adam", "admin", None),
        ('o', "olivia", "owner", None),
        ('i', "ines", "operator", Some("default")),
        ('m', "max", "operator", Some("other")),
    ] {
        all.push((letter, With::Token(world.logged_in(name, role, namespace).await)));
    }
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    world.post(accounts, json!({ "metadata": { "name": "robot" } })).await.created();
    let token = world.post(&format!("{accounts}/robot/token"), json!({})).await.created();
    all.push(('s', With::Token(token["status"]["token"].as_str().unwrap().to_owned())));
    all.push(('b', With::Token(world.bootstrap("users/olivia").await)));
    all.push(('e', With::Certificate(world.device("lamp", Some("viewer")).await)));
    all
}

fn asked(route: &Route) -> http::request::Builder {
    let path = route.path.replace("{namespace}", "default").replace("{name}", "web");
    let uri = format!("{path}?dryRun=All&timeoutSeconds=1&name=r.example/x");
    Request::builder().method(route.method.clone()).uri(uri)
}

async fn ask(world: &World, route: &Route, comes: &With) -> Answer {
    let mut request = asked(route);
    match comes {
        With::Nothing => {}
        With::Token(token) => request = request.header("authorization", format!("Bearer {token}")),
        With::Certificate(pem) => return world.presenting(pem, request.body(Body::from("{}")).unwrap()).await,
    }
    Answer::of(world.send_from(PEER, request.body(Body::from("{}")).unwrap()).await).await
}

/// What whoever asks is told by the policy, and by nothing else.
fn is_refused(answer: &Answer) -> bool {
    matches!(answer.code, 401 | 403) && answer.body["message"].as_str().is_some_and(|why| why.contains(" may not "))
}

/// Enough for whoever asks for every route as fast as it goes.
fn many() -> Value {
    json!({ "requestsPerSecond": 100_000, "requestsPerSecondPerSubject": 100_000 })
}

#[tokio::test]
async fn every_route_answers_those_who_may_use_it_and_nobody_else() {
    let world = World::new();
    world.allow(many()).await;
    let everybody = everybody(&world).await;
    let mut found = String::new();
    let mut routes = table().0;
    // Afterwards nobody has a session any more.
    routes.sort_by_key(|route| route.path == "/auth/logout");
    for route in &routes {
        let mut who = String::new();
        for (letter, comes) in &everybody {
            let answer = ask(&world, route, comes).await;
            assert!(answer.code < 500 || answer.code == 503, "{} {}: {}", route.method, route.path, answer.body);
            let known = answer.code != 401 || matches!(comes, With::Nothing) || route.path.starts_with("/auth/");
            assert!(known, "{letter} {} {}: {}", route.method, route.path, answer.body);
            if !is_refused(&answer) {
                who.push(*letter);
            }
        }
        writeln!(found, "{who:<11} {} {}", route.method, route.path).unwrap();
    }
    if std::env::var_os("BERTH_WRITE_TABLE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/tests/table.txt"), &found).unwrap();
    }
    let lines =
        |text: &'static str| text.lines().map(|line| line.split_at(12)).map(|(who, route)| (route, who)).collect();
    let expected: BTreeMap<&str, &str> = lines(EXPECTED);
    for line in found.lines() {
        let (who, route) = line.split_at(12);
        assert_eq!(expected.get(route), Some(&who), "{route}: say in table.txt who may use it");
    }
    assert_eq!(found.lines().count(), EXPECTED.lines().count(), "table.txt tells of routes that are not there");
}

#[tokio::test]
async fn what_was_taken_back_has_ended_or_was_never_given_opens_no_route() {
    let world = World::new();
    world.allow(many()).await;
    let disabled = world.logged_in("vera", "owner", None).await;
    let ended = world.logged_in("olivia", "owner", None).await;
    world.bearing(&ended, Method::POST, "/auth/logout", json!({})).await.ok();
    let refresh = world.stranger("/auth/login", json!({ "user": "olivia", "password": PASSWORD })).await.ok();
    let refresh = refresh["refreshToken"].as_str().unwrap().to_owned();
    world.merge("/apis/berth.dev/v1/users/vera", json!({ "spec": { "disabled": true } })).await.ok();
    let never = "berth_key_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let used = world.bootstrap("users/olivia").await;
    world.bearing(&used, Method::POST, CERTIFICATES, request().1).await.created();
    let token = world.logged_in("carla", "owner", None).await;
    let (revoked, name) = world.certified(&token).await;
    world.revoke(&name).await;
    let deleted = world.device("door", Some("owner")).await;
    world.delete(&format!("{DEVICES}/door")).await.ok();
    let tokens = [disabled, ended, refresh, never, used].map(With::Token);
    for comes in tokens.into_iter().chain([revoked, deleted].map(With::Certificate)) {
        for route in &table().0 {
            let answer = ask(&world, route, &comes).await;
            assert_eq!(answer.failed().0, 401, "{} {}: {}", route.method, route.path, answer.body);
        }
    }
}
