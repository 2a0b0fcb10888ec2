//! How much anybody may ask, and who is asked nothing of the kind.

use super::*;

const SETTINGS: &str = "/apis/berth.dev/v1/settings/berth";
const ROOT: Peer = Peer::Socket { uid: 0 };

impl World {
    pub(super) async fn allow(&self, limits: Value) {
        let request = owned(
            Method::PATCH,
            SETTINGS,
            &[("content-type", "application/merge-patch+json")],
            json!({ "spec": { "api": { "limits": limits } } }).to_string().into(),
        );
        Answer::of(self.send_from(ROOT, request).await).await.ok();
    }

    async fn asks(&self, peer: Peer, token: Option<&str>, path: &str) -> Response {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send_from(peer, request.body(Body::empty()).unwrap()).await
    }

    /// Asks until it is too much.
    async fn too_much(&self, peer: Peer, token: Option<&str>, path: &str) -> Answer {
        for _ in 0..5000 {
            let answer = self.asks(peer, token, path).await;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                return Answer::of(answer).await;
            }
        }
        panic!("nothing was ever too much");
    }
}

fn from(host: u8) -> Peer {
    Peer::Network((std::net::Ipv4Addr::new(192, 0, 2, host), 1).into())
}

fn told(answer: &Answer) -> &str {
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason, answer.header("retry-after")), (429, "TooManyRequests", "1"));
    assert_eq!(answer.body["details"]["retryAfterSeconds"], 1);
    message
}

#[tokio::test]
async fn whoever_asks_too_much_is_told_when_to_ask_again_and_takes_nothing_from_others() {
    let world = World::new();
    let alice = world.logged_in("alice", "viewer", None).await;
    let bob = world.logged_in("bob", "viewer", None).await;
    world.allow(json!({ "requestsPerSecondPerSubject": 10 })).await;
    let answer = world.too_much(from(9), Some(&alice), CONFIG_MAPS).await;
    let wanted = "user:alice asks more than 10 times a second (spec.api.limits.requestsPerSecondPerSubject of Settings \
                  berth); try again in 1 s";
    assert_eq!(told(&answer), wanted);
    // From elsewhere she is the same; others are others, and local root is always answered.
    world.too_much(from(8), Some(&alice), CONFIG_MAPS).await;
    assert_eq!(world.asks(from(9), Some(&bob), CONFIG_MAPS).await.status(), 200);
    for _ in 0..50 {
        assert_eq!(world.asks(ROOT, None, CONFIG_MAPS).await.status(), 200);
        assert_eq!(world.asks(from(9), Some(&alice), "/livez").await.status(), 200);
    }
    world.too_much(from(9), Some(&alice), CONFIG_MAPS).await;
    // What is set holds at once.
    world.allow(json!({ "requestsPerSecondPerSubject": 1000 })).await;
    assert_eq!(world.asks(from(9), Some(&alice), CONFIG_MAPS).await.status(), 200);
}

#[tokio::test]
async fn strangers_and_those_with_wrong_tokens_count_by_their_address() {
    let world = World::new();
    world.allow(json!({ "requestsPerSecondPerSubject": 10 })).await;
    for token in [None, Some("berth_key_wrong")] {
        let answer = world.too_much(from(9), token, CONFIG_MAPS).await;
        assert!(told(&answer).starts_with("192.0.2.9 asks more than 10 times"), "{}", told(&answer));
    }
    assert_eq!(world.asks(from(7), None, CONFIG_MAPS).await.status(), 401);
    assert_eq!(world.asks(from(9), Some(TOKEN), CONFIG_MAPS).await.status(), 200);
}

#[tokio::test]
async fn all_together_have_a_limit_of_which_local_root_knows_nothing() {
    let world = World::new();
    world.allow(json!({ "requestsPerSecond": 10 })).await;
    let answer = world.too_much(from(9), Some(TOKEN), CONFIG_MAPS).await;
    assert!(told(&answer).starts_with("all together ask more than 10 times a second"), "{}", told(&answer));
    for _ in 0..50 {
        assert_eq!(world.asks(ROOT, None, CONFIG_MAPS).await.status(), 200);
        assert_eq!(
            world.asks(from(9), None, "/readyz").await.status(),
            world.asks(ROOT, None, "/readyz").await.status()
        );
    }
}

#[tokio::test]
async fn streams_have_a_number_and_one_that_ends_makes_room() {
    let world = World::new();
    world.bundle("web").await;
    world.allow(json!({ "streamsPerSubject": 2 })).await;
    let (watch, log) = (format!("{CONFIG_MAPS}?watch=true"), format!("{BUNDLES}/web/log?follow=true"));
    let open = async |path: &str| world.asks(from(9), Some(TOKEN), path).await;
    let (first, second) = (open(&watch).await, open(&log).await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    for path in [&watch, &log, &format!("{BUNDLES}/web/exec?command=sh&stdout=true")] {
        let refused = Answer::of(open(path).await).await;
        let (code, reason, message) = refused.failed();
        assert_eq!((code, reason, refused.header("retry-after")), (429, "TooManyRequests", "10"), "{path}");
        assert!(message.starts_with("owner has 2 watches, followed logs and sessions open"), "{message}");
    }
    assert_eq!(open(CONFIG_MAPS).await.status(), 200);
    assert_eq!(open(&format!("{BUNDLES}/web/log")).await.status(), 200);
    drop(second);
    let third = open(&watch).await;
    assert_eq!(third.status(), 200);
    drop((first, third));
    // A session counts until it is over: the answer alone does not end it, and one that is refused never began.
    for _ in 0..5 {
        assert_ne!(open(&format!("{BUNDLES}/web/exec?command=sh&stdout=true")).await.status(), 429);
    }
}
