//! What proves who somebody is.

use berth_model::resource::Session;
use berth_model::resource::session::SessionSpec;
use jiff::SignedDuration;

use super::*;

const HASH: [u8; 32] = [7; 32];

async fn session(fixture: &Fixture, name: &str) -> String {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let session = Session { metadata, spec: SessionSpec { user: "alice".into() }, status: None };
    fixture.create(session).await.unwrap().metadata.uid.unwrap()
}

async fn found(fixture: &Fixture, purpose: Purpose) -> Option<Credential> {
    fixture.store.read(move |tx| tx.credential(purpose, &HASH)).await.unwrap()
}

#[tokio::test]
async fn a_credential_is_known_by_its_hash_and_purpose_and_goes_with_its_object() {
    let mut fixture = Fixture::new();
    let uid = session(&fixture, "one").await;
    let object = uid.clone();
    let add = move |tx: &mut Tx<'_>| tx.add_credential(Purpose::Access, &HASH, &object, None);
    fixture.write(add).await.unwrap();
    fixture.reopen().await;
    let known = Credential { object: uid, expires_at: None, spent: false };
    assert_eq!(found(&fixture, Purpose::Access).await, Some(known));
    assert_eq!(found(&fixture, Purpose::Refresh).await, None);
    fixture.delete::<Session>("", "one").await.unwrap();
    assert_eq!(found(&fixture, Purpose::Access).await, None);
}

#[tokio::test]
async fn a_spent_credential_is_known_until_it_expires() {
    let fixture = Fixture::new();
    let uid = session(&fixture, "one").await;
    let spend = {
        let uid = uid.clone();
        move |tx: &mut Tx<'_>| tx.spend_credentials(&uid)
    };
    fixture
        .write(move |tx| {
            let at = tx.now() + SignedDuration::from_secs(60);
            tx.add_credential(Purpose::Refresh, &HASH, &uid, Some(at))
        })
        .await
        .unwrap();
    fixture.write(spend.clone()).await.unwrap();
    assert!(found(&fixture, Purpose::Refresh).await.unwrap().spent);
    fixture.let_pass(61);
    fixture.write(spend).await.unwrap();
    assert_eq!(found(&fixture, Purpose::Refresh).await, None);
}

#[tokio::test]
async fn the_last_password_that_was_set_counts() {
    let fixture = Fixture::new();
    let uid = session(&fixture, "one").await;
    for phc in ["first", "second"] {
        let uid = uid.clone();
        fixture.write(move |tx| tx.set_verifier(&uid, Verifier::Password, phc)).await.unwrap();
    }
    assert_eq!(
        fixture.store.read(move |tx| tx.verifier(&uid, Verifier::Password)).await.unwrap().as_deref(),
        Some("second")
    );
}

#[tokio::test]
async fn the_time_by_which_credentials_end_goes_on_when_the_clock_is_set_back_also_over_a_restart() {
    let mut fixture = Fixture::new();
    let uid = session(&fixture, "one").await;
    let before = fixture.store.steady_now();
    fixture.write(move |tx| tx.add_credential(Purpose::Access, &HASH, &uid, None)).await.unwrap();
    fixture.let_pass(-3600);
    assert!(fixture.store.steady_now() >= before);
    fixture.reopen().await;
    assert!(fixture.store.steady_now() >= before);
    assert!(fixture.write(|tx| Ok(tx.steady_now())).await.unwrap() >= before);
    // It is the machine's clock again when that has caught up, and a clock that is set a little is believed.
    fixture.let_pass(3600 + 90);
    assert_eq!(fixture.store.steady_now(), before + SignedDuration::from_secs(90));
    fixture.let_pass(-10);
    assert_eq!(fixture.store.steady_now(), before + SignedDuration::from_secs(80));
}
