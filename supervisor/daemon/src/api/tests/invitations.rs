//! Invitations: who may give what, and that each is good once.

use super::access::{BINDINGS, PASSWORD, USERS, text};
use super::*;

const INVITATIONS: &str = "/apis/berth.dev/v1/invitations";

impl World {
    /// Somebody invites somebody.
    async fn invites(&self, token: &str, name: &str, role: &str) -> Answer {
        self.bearing(token, Method::POST, INVITATIONS, json!({ "user": name, "role": role })).await
    }

    async fn accepts(&self, secret: &str) -> Answer {
        self.stranger("/auth/invitation", json!({ "secret": secret, "password": PASSWORD })).await
    }
}

fn secret(invited: Answer) -> String {
    assert_eq!(invited.header("cache-control"), "no-store");
    text(&invited.created(), "secret").to_owned()
}

#[tokio::test]
async fn whoever_is_invited_sets_his_password_once_and_has_the_role_that_he_was_given() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let invited = secret(world.invites(&admin, "nina", "viewer").await);
    let shown = world.get(&format!("{INVITATIONS}/nina")).await.ok();
    assert_eq!(text(&shown["spec"], "invitedBy"), "user:adam");
    assert_eq!(text(&shown["spec"], "expiresAt"), "2026-03-08T12:00:00Z");
    assert!(!on_disk(world.dir.path(), invited.as_bytes()), "the secret is on the disk");
    let weak = world.stranger("/auth/invitation", json!({ "secret": invited, "password": "short" })).await;
    assert_eq!(weak.failed().0, 422);
    world.accepts(&invited).await.created();
    let tokens = world.login("nina").await;
    world.bearing(text(&tokens, "accessToken"), Method::GET, BUNDLES, Value::Null).await.ok();
    let refused = world.bearing(text(&tokens, "accessToken"), Method::GET, USERS, Value::Null).await;
    assert_eq!(refused.failed().0, 403);
    assert_eq!(names(&world.get(INVITATIONS).await.ok()), Vec::<&str>::new());
    for secret in [invited.as_str(), "", "berth_invitation_x", text(&tokens, "refreshToken")] {
        assert_eq!(world.accepts(secret).await.failed().0, 401, "{secret}");
    }
    // Nor is the secret good for anything else.
    assert_eq!(world.bearing(&invited, Method::GET, BUNDLES, Value::Null).await.code, 401);
    let deeds = world.get("/apis/berth.dev/v1/auditrecords?fieldSelector=spec.resource=/auth/invitation").await.ok();
    let deed = &deeds["items"][0]["spec"];
    assert_eq!((text(deed, "identity"), text(deed, "name"), text(deed, "result")), ("user:nina", "nina", "Done"));
}

#[tokio::test]
async fn an_invitation_that_is_taken_back_is_good_for_nothing() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let invited = secret(world.invites(&admin, "nina", "viewer").await);
    assert_eq!(world.invites(&admin, "nina", "viewer").await.failed().1, "AlreadyExists");
    world.bearing(&admin, Method::DELETE, &format!("{INVITATIONS}/nina"), Value::Null).await.ok();
    assert_eq!(world.accepts(&invited).await.failed().0, 401);
    assert_eq!(world.invites(&admin, "adam", "viewer").await.failed().1, "AlreadyExists");
    let answer = world.invites(&admin, "nina", "No Role").await;
    assert_eq!((answer.failed().0, &answer.body["details"]["causes"][0]["field"]), (422, &json!("role")));
}

#[tokio::test]
async fn nobody_invites_to_what_he_does_not_hold_then_or_now() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let refused = |answer: Answer| {
        assert!(answer.failed().0 == 403 && answer.failed().2.contains("cannot give"), "{}", answer.body);
    };
    refused(world.invites(&admin, "nina", "owner").await);
    let owners = |name: &str| {
        json!({ "metadata": { "name": format!("{name}-owner") },
                "spec": { "role": "owner", "subjects": [{ "kind": "User", "name": name }] } })
    };
    // Neither to what waits for a name, nor to what comes to it before he is here.
    world.post(BINDINGS, owners("ghost")).await.created();
    refused(world.invites(&admin, "ghost", "viewer").await);
    let early = secret(world.invites(&admin, "oscar", "viewer").await);
    world.post(BINDINGS, owners("oscar")).await.created();
    refused(world.accepts(&early).await);
    // What the owner invites to is not an admin's to take back.
    world.post(INVITATIONS, json!({ "user": "olaf", "role": "owner" })).await.created();
    refused(world.bearing(&admin, Method::DELETE, &format!("{INVITATIONS}/olaf"), Value::Null).await);

    let late = secret(world.invites(&admin, "nina", "operator").await);
    world.delete(&format!("{BINDINGS}/adam-admin")).await.ok();
    refused(world.accepts(&late).await);
    world.merge(&format!("{USERS}/adam"), json!({ "spec": { "disabled": true } })).await.ok();
    assert_eq!(world.accepts(&late).await.failed().0, 401);
    assert_eq!(world.get(&format!("{USERS}/nina")).await.code, 404);
}

#[tokio::test]
async fn whoever_may_choose_his_name_chooses_one_that_nothing_waits_for() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let open = secret(world.bearing(&admin, Method::POST, INVITATIONS, json!({ "role": "viewer" })).await);
    let other = secret(world.invites(&admin, "nina", "viewer").await);
    world.grant("owner", None, "ghost").await;
    let accepts = async |secret: &str, user: Option<&str>| {
        let body = json!({ "secret": secret, "user": user, "password": PASSWORD });
        world.stranger("/auth/invitation", body).await
    };
    let field = |answer: &Answer| answer.body["details"]["causes"][0]["field"].clone();
    for wrong in [None, Some("No Name")] {
        let answer = accepts(&open, wrong).await;
        assert_eq!((answer.failed().0, field(&answer)), (422, json!("user")), "{wrong:?}");
    }
    // One who is here, one who was invited, and one to whom something was granted.
    for somebody in ["adam", "nina", "ghost"] {
        assert_eq!(accepts(&open, Some(somebody)).await.failed().1, "AlreadyExists", "{somebody}");
    }
    let answer = accepts(&other, Some("oscar")).await;
    assert_eq!((answer.failed().0, field(&answer)), (422, json!("user")));
    assert_eq!(text(&accepts(&open, Some("lena")).await.created(), "user"), "lena");
    let token = world.login("lena").await;
    world.bearing(text(&token, "accessToken"), Method::GET, BUNDLES, Value::Null).await.ok();
    assert_eq!(names(&world.get(INVITATIONS).await.ok()), ["nina"]);
}

#[tokio::test]
async fn after_seven_days_an_invitation_is_good_for_nothing_and_whoever_guesses_waits() {
    let world = World::new();
    let admin = world.logged_in("adam", "admin", None).await;
    let invited = secret(world.invites(&admin, "nina", "viewer").await);
    let shown = world.table(INVITATIONS).await;
    assert_eq!(
        shown["rows"][0]["cells"].as_array().unwrap()[..5],
        json!(["nina", "nina", "viewer", "*", "user:adam"]).as_array().unwrap()[..]
    );
    *world.now.lock().unwrap() = "2026-03-08T12:00:00Z".parse().unwrap();
    for _ in 0..5 {
        let refused = world.accepts(&invited).await;
        assert!(refused.failed().0 == 401 && refused.failed().2.contains("ask for another"), "{}", refused.body);
    }
    assert_eq!(world.accepts(&invited).await.failed().1, "TooManyRequests");
    crate::auth::accounts::end_old_sessions(&world.store).await.unwrap();
    assert_eq!(names(&world.get(INVITATIONS).await.ok()), Vec::<&str>::new());
}
