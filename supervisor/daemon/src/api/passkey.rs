//! Passkeys as a second factor.
//!
//! ```text
//! POST .../users/NAME/passkeys           himself, logged in of late -> challenge, and what the browser makes one from
//! POST .../users/NAME/passkeys/confirm   challenge, name, what the browser made -> kept; ten recovery codes with the first
//! POST .../users/NAME/passkeys/remove    himself, logged in of late, or somebody who holds all that he holds
//! POST /auth/passkey                     name and password -> challenge, and what the browser shows one by; the login
//!                                        then carries both (`passkey`)
//! ```
//!
//! A passkey is good for the host name by which it was made. Public keys and counters are kept beside the password's hash.

use berth_model::field::FieldError;
use berth_model::login::{ConfirmPasskey, Login, PasskeyChallenge, PasskeyProof, RecoveryCodes, RemovePasskey};
use berth_model::policy::Verb;
use berth_model::resource::role_binding::SubjectReference;
use berth_model::resource::user::PasskeyStatus;
use berth_model::resource::{GROUP, User};
use berth_model::status::{Failure, Reason};
use http::header::HOST;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webauthn_rs::prelude::{AuthenticationResult, Passkey};

use super::account::user;
use super::guard;
use super::login::{done, password_is_right, said, secretly};
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::second_factor::{self, Recovery, himself, is_himself, tell};
use super::write::transact;
use crate::auth::passkey::{CHALLENGE_SECONDS, Pending, RelyingParty};
use crate::store::{ReadTx, StoreError, Tx, Verifier};

/// A user has no use for more.
const MOST: usize = 20;
/// Letters of a passkey's name.
const LONGEST_NAME: usize = 64;

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let path = |subresource| format!("/apis/berth.dev/v1/users/{{name}}/{subresource}");
    let access = |subresource| Access::Object { group: GROUP, plural: "users", subresource, verb: Verb::Create };
    vec![
        Route::new(Method::POST, path("passkeys"), access("passkeys"), begin),
        Route::new(Method::POST, path("passkeys/confirm"), access("passkeys/confirm"), confirm),
        Route::new(Method::POST, path("passkeys/remove"), access("passkeys/remove"), remove),
        Route::new(Method::POST, "/auth/passkey", Access::Path, challenge),
    ]
}

/// What is kept of a passkey.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// As its user calls it.
    name: String,
    /// The host name that it is good for.
    host: String,
    added: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
    key: Passkey,
}

fn kept(tx: &ReadTx<'_>, uid: &str) -> Result<Vec<Kept>, Error> {
    let Some(text) = tx.verifier(uid, Verifier::Passkeys)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|error| reply::internal(&error))
}

/// Keeps them all, and shows in the user's status what may be known of them.
fn keep(tx: &mut Tx<'_>, name: &str, uid: &str, all: &[Kept]) -> Result<(), Error> {
    if all.is_empty() {
        tx.drop_verifier(uid, Verifier::Passkeys)?;
    } else {
        let text = serde_json::to_string(all).map_err(|error| reply::internal(&error))?;
        tx.set_verifier(uid, Verifier::Passkeys, &text)?;
    }
    let shown = |one: &Kept| PasskeyStatus {
        name: one.name.clone(),
        host: one.host.clone(),
        added: one.added,
        last_used: one.last_used,
    };
    let shown = all.iter().map(shown).collect();
    tell(tx, name, |status| status.passkeys = shown)
}

/// Whether a user has one.
pub(super) fn has_any(tx: &ReadTx<'_>, uid: &str) -> Result<bool, StoreError> {
    Ok(tx.verifier(uid, Verifier::Passkeys)?.is_some())
}

/// The machine by the name that the browser has it by.
fn party(ask: &Ask) -> Result<RelyingParty, Error> {
    let authority = ask.headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    RelyingParty::of(authority).map_err(|error| Error::bad_request(error.to_string()))
}

fn written(options: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(options).map_err(|error| reply::internal(&error))
}

/// `POST .../users/{name}/passkeys`.
async fn begin(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let (name, party) = (himself(&ask)?, party(&ask)?);
    let (wanted, now) = (name.clone(), ask.api.store.steady_now());
    let find = move |tx: &ReadTx<'_>| -> Result<_, Error> {
        let uid = user(tx, &wanted)?.metadata.uid.unwrap_or_default();
        Ok((kept(tx, &uid)?, uid))
    };
    let (has, uid) = ask.api.store.read(move |tx| Ok(find(tx))).await??;
    if has.len() >= MOST {
        return Err(Error::new(Reason::Conflict, format!("{name} has {MOST} passkeys already; remove one first")));
    }
    let keys: Vec<Passkey> = has.into_iter().map(|one| one.key).collect();
    let handle = uid.parse().map_err(|_| reply::internal(&std::io::Error::other("a user's uid is no UUID")))?;
    let (options, state) = party.begin_registration(handle, &name, &keys)?;
    let challenge = ask.api.challenges.keep(&uid, Pending::Registration(Box::new(state)), now)?;
    secretly(
        StatusCode::OK,
        &PasskeyChallenge { challenge, options: written(&options)?, expires_in: CHALLENGE_SECONDS },
    )
}

/// `POST .../users/{name}/passkeys/confirm`.
async fn confirm(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let (owner, party) = (himself(&ask)?, party(&ask)?);
    let ConfirmPasskey { challenge, name, credential } = said(&mut ask).await?;
    let named = name.trim().to_owned();
    if named.is_empty() || named.chars().count() > LONGEST_NAME || named.chars().any(char::is_control) {
        return Err(FieldError::invalid("name", format!("call it something of 1 to {LONGEST_NAME} letters")).into());
    }
    let (wanted, now) = (owner.clone(), ask.api.store.steady_now());
    let uid = ask.api.store.read(move |tx| Ok(user(tx, &wanted))).await??.metadata.uid.unwrap_or_default();
    let Some(Pending::Registration(state)) = ask.api.challenges.take(&challenge, &uid, now) else {
        return Err(no_longer());
    };
    let answer = serde_json::from_value(credential).map_err(|_| not_made())?;
    let key = party.finish_registration(&answer, &state).map_err(|error| {
        tracing::info!("a passkey of {owner} was not taken: {error}");
        not_made()
    })?;
    let recovery = Recovery::draw()?;
    let (hashes, who) = (recovery.hashes.clone(), owner.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<bool, Error> {
        add(tx, &who, &uid, Kept { name: named, host: party.host, added: tx.now(), last_used: None, key })?;
        second_factor::begin_recovery(tx, &who, &uid, &hashes)
    };
    let first = transact(&ask, work).await?;
    secretly(StatusCode::OK, &RecoveryCodes { recovery_codes: if first { recovery.shown() } else { Vec::new() } })
}

fn add(tx: &mut Tx<'_>, owner: &str, uid: &str, one: Kept) -> Result<(), Error> {
    let mut all = kept(tx, uid)?;
    if all.iter().any(|other| other.name == one.name) {
        let message = format!("there is a passkey called {} already", one.name);
        return Err(FieldError::duplicate("name", message).into());
    }
    for other in tx.list::<User>(None)? {
        let his = kept(tx, other.metadata.uid.as_deref().unwrap_or_default())?;
        if his.iter().any(|two| two.key.cred_id() == one.key.cred_id()) {
            return Err(Error::new(Reason::Conflict, "this passkey is known here already"));
        }
    }
    all.push(one);
    keep(tx, owner, uid, &all)
}

fn not_made() -> Error {
    let why = "this is not what a browser makes for the challenge; begin anew, by the same name of the machine";
    FieldError::invalid("credential", why).into()
}

fn no_longer() -> Error {
    Error::new(Reason::Conflict, "no such challenge waits for an answer, or no longer; begin anew")
}

/// `POST .../users/{name}/passkeys/remove`.
async fn remove(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let RemovePasskey { name } = said(&mut ask).await?;
    let (owner, own, subject) = (ask.name(), is_himself(&ask), ask.subject.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        if !own {
            guard::holds_all_of(tx, &subject, &SubjectReference::user(&owner))?;
        }
        let uid = user(tx, &owner)?.metadata.uid.unwrap_or_default();
        let mut all = kept(tx, &uid)?;
        let before = all.len();
        all.retain(|one| one.name != name);
        if all.len() == before {
            return Err(Error::new(Reason::NotFound, format!("{owner} has no passkey called {name}")));
        }
        keep(tx, &owner, &uid, &all)?;
        second_factor::end_recovery(tx, &owner, &uid)
    };
    transact(&ask, work).await?;
    Ok(done())
}

/// `POST /auth/passkey`.
async fn challenge(mut ask: Ask) -> Reply {
    let Login { user, password, .. } = said(&mut ask).await?;
    ask.trail.about(&user);
    let party = party(&ask)?;
    let found = password_is_right(&ask, &user, password).await?;
    found.forgive(&ask);
    let uid = found.uid.clone();
    let has = ask.api.store.read(move |tx| Ok(kept(tx, &uid))).await??;
    let keys: Vec<Passkey> = has.into_iter().filter(|one| one.host == party.host).map(|one| one.key).collect();
    if keys.is_empty() {
        let message = format!("{user} has no passkey for {}; use a code, or a recovery code", party.host);
        return Err(Error::new(Reason::Conflict, message));
    }
    let (options, state) = party.begin_login(&keys)?;
    let now = ask.api.store.steady_now();
    let challenge = ask.api.challenges.keep(&found.uid, Pending::Login(Box::new(state)), now)?;
    secretly(
        StatusCode::OK,
        &PasskeyChallenge { challenge, options: written(&options)?, expires_in: CHALLENGE_SECONDS },
    )
}

/// What a browser has shown, before it is let count.
pub(super) struct Shown(AuthenticationResult);

/// Whether a browser has shown a passkey of the user with this uid.
pub(super) fn check(ask: &Ask, uid: &str, proof: PasskeyProof) -> Result<Shown, Error> {
    let PasskeyProof { challenge, credential } = proof;
    let now = ask.api.store.steady_now();
    let Some(Pending::Login(state)) = ask.api.challenges.take(&challenge, uid, now) else { return Err(wrong()) };
    let answer = serde_json::from_value(credential).map_err(|_| wrong())?;
    party(ask)?.finish_login(&answer, &state).map(Shown).map_err(|error| {
        tracing::info!("a passkey was not taken: {error}");
        wrong()
    })
}

fn wrong() -> Error {
    let why =
        "the passkey is not his, was taken away, or answers another challenge; ask for a new one: POST /auth/passkey";
    let cause = FieldError::invalid("passkey", why);
    let message = cause.message.clone();
    Failure { causes: vec![cause], ..Failure::new(Reason::Unauthorized, message) }.into()
}

/// Notes that it was used, if it is still his. To be asked in the transaction that lets him in.
pub(super) fn count(tx: &mut Tx<'_>, name: &str, uid: &str, shown: &Shown) -> Result<(), Error> {
    let mut all = kept(tx, uid)?;
    let one = all.iter_mut().find(|one| one.key.cred_id() == shown.0.cred_id()).ok_or_else(wrong)?;
    one.key.update_credential(&shown.0);
    one.last_used = Some(tx.now());
    keep(tx, name, uid, &all)
}
