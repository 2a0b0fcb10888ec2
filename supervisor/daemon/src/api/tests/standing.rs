//! What is open when what allowed it is taken back.

use super::access::{KEYS, USERS, text};
use super::watches::Events;
use super::*;

const BINDINGS: &str = "/apis/berth.dev/v1/rolebindings";
const SESSIONS: &str = "/apis/berth.dev/v1/sessions";

impl World {
    /// A watch of a user who is logged in as a viewer, and that tells.
    async fn watched_by(&self, user: &str) -> (Events, String) {
        let token = self.logged_in(user, "viewer", None).await;
        let mut events = Events::of_bearer(
            self,
            &token,
            &format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name=for-{user}"),
        )
        .await;
        self.tells(&mut events, user).await;
        (events, token)
    }

    /// It is still told what happens.
    async fn tells(&self, events: &mut Events, what: &str) {
        self.config_map(&format!("for-{what}"), json!({})).await;
        let event = events.next().await.expect("the watch has ended");
        assert_eq!(event["object"]["metadata"]["name"], format!("for-{what}"), "{event}");
    }
}

/// It is told why, and that is the end.
async fn is_ended(mut events: Events) {
    let last = events.next().await.expect("the watch ended without a word");
    assert_eq!((text(&last, "type"), &last["object"]["code"]), ("ERROR", &json!(403)), "{last}");
    assert_eq!(text(&last["object"], "message"), "this watch is ended: what allowed it was taken back");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_with_its_session_its_users_role_and_its_user() {
    let world = World::new();
    let (events, _) = world.watched_by("alice").await;
    let session = world.get(SESSIONS).await.ok()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.delete(&format!("{SESSIONS}/{session}")).await.ok();
    is_ended(events).await;

    let (events, _) = world.watched_by("bob").await;
    world.delete(&format!("{BINDINGS}/bob-viewer")).await.ok();
    is_ended(events).await;

    let (events, _) = world.watched_by("carol").await;
    world.merge(&format!("{USERS}/carol"), json!({ "spec": { "disabled": true } })).await.ok();
    is_ended(events).await;
}

#[tokio::test]
async fn a_watch_ends_with_the_key_that_it_was_opened_by() {
    let world = World::new();
    world.user("alice").await;
    world.grant("viewer", None, "alice").await;
    let made = world.post(&format!("{USERS}/alice/apikeys"), json!({ "name": "ci" })).await.created();
    let mut events = Events::of_bearer(&world, text(&made, "key"), &format!("{CONFIG_MAPS}?watch=true")).await;
    world.tells(&mut events, "key").await;
    world.delete(&format!("{KEYS}/alice.ci")).await.ok();
    is_ended(events).await;
}

#[tokio::test]
async fn a_watch_goes_on_when_others_lose_theirs_and_when_its_token_is_exchanged() {
    let world = World::new();
    world.user("alice").await;
    world.grant("viewer", None, "alice").await;
    let tokens = world.login("alice").await;
    let path = format!("{CONFIG_MAPS}?watch=true");
    let mut events = Events::of_bearer(&world, text(&tokens, "accessToken"), &path).await;
    world.user("bob").await;
    world.merge(&format!("{USERS}/bob"), json!({ "spec": { "disabled": true } })).await.ok();
    world.tells(&mut events, "others").await;
    world.stranger("/auth/refresh", json!({ "refreshToken": tokens["refreshToken"] })).await.ok();
    *world.now.lock().unwrap() += jiff::SignedDuration::from_mins(20);
    world.grant("viewer", Some("default"), "bob").await;
    world.tells(&mut events, "itself").await;
}
