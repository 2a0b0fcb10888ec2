//! From a name and a password to a session, and back.
//!
//! ```text
//! POST /auth/claim     code, name, password: the first owner of a machine that nobody owns
//! POST /auth/login     name, password  -> access token (15 min), refresh token (7 days, good once);
//!                                         who has a second factor is asked for a code or a passkey, too
//! POST /auth/refresh   refresh token   -> both anew; one that was used before ends the session
//! POST /auth/logout    access token    -> the session is gone
//! POST /auth/password  name, password, new password; other sessions of his are gone
//! ```
//!
//! These answer to everybody: what is wrong about a name and what about a password is not told apart, and whoever is wrong
//! too often waits.

use std::net::{IpAddr, Ipv4Addr};

use berth_model::kinds::{Request, SESSION, USER};
use berth_model::login::{ACCESS_SECONDS, ChangePassword, Claim, Login, PasskeyProof, Refresh, Tokens};
use berth_model::policy::OWNER;
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectReference};
use berth_model::resource::session::{SESSION_LIFE, SessionSpec, SessionStatus};
use berth_model::resource::user::UserStatus;
use berth_model::resource::{RoleBinding, Session, User};
use berth_model::status::{Failure, Reason};
use http::header::USER_AGENT;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::passkey;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::second_factor::{self, Factors};
use super::write::admit;
use crate::auth::secret::{self, Fresh};
use crate::auth::{Peer, Refusal, accounts, bearer, password};
use crate::secret::Sealer;
use crate::store::{Deletion, Purpose, ReadTx, StoreError, Tx, Verifier};

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    vec![
        row("/auth/claim", claim),
        row("/auth/login", login),
        row("/auth/refresh", refresh),
        row("/auth/logout", logout),
        row("/auth/password", change_password),
    ]
}

fn row<R>(path: &'static str, handler: fn(Ask) -> R) -> Route
where
    R: Future<Output = Reply> + Send + 'static,
{
    Route::new(Method::POST, path, Access::Path, handler)
}

/// Under what wrong codes are counted: no user is called so.
const CODE: &str = "the code of the machine";

/// `POST /auth/claim`.
async fn claim(mut ask: Ask) -> Reply {
    let Claim { code, user, password: word } = said(&mut ask).await?;
    let (from, now, word) = (address(&ask), ask.api.store.steady_now(), Zeroizing::new(word));
    ask.api.attempts.allowed(CODE, from, now).map_err(too_often)?;
    if !ask.api.claim.is_right(&code) {
        ask.api.attempts.failed(CODE, from, now);
        let message = "this is not the code of this machine, or somebody owns it already; the code is on its console \
                       for as long as nobody does";
        return Err(Error::new(Reason::Unauthorized, message));
    }
    password::check(&user, &word)?;
    let (phc, trail, name) = (password::hash(word).await?, ask.trail.clone(), user.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        first_owner(tx, &name, &phc)?;
        trail.about(&name);
        trail.by(&format!("user:{name}"));
        Ok(trail.done(tx)?)
    };
    ask.api.store.write(&ask.actor_of(&format!("user:{user}")), work).await?;
    ask.api.claim.close().map_err(|error| reply::internal(&error))?;
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(reply::with_code(StatusCode::CREATED, reply::json(&body)))
}

fn first_owner(tx: &mut Tx<'_>, name: &str, phc: &str) -> Result<(), Error> {
    if accounts::has_owner(tx)? {
        return Err(Error::new(Reason::Forbidden, "somebody owns this machine already; ask him for an account"));
    }
    let body = json!({ "metadata": { "name": name }, "spec": {} });
    let admitted = admit(&USER, body, &Request::Create)?;
    tx.create_value(&USER, admitted.object)?;
    let metadata = ObjectMeta { name: Some(format!("{OWNER}.user.{name}")), ..ObjectMeta::default() };
    let subjects = vec![SubjectReference::user(name)];
    let spec = RoleBindingSpec { role: OWNER.to_owned(), namespace: None, subjects };
    tx.create(&RoleBinding { metadata, spec, status: None })?;
    replace_password(tx, name, phc)
}

/// What somebody shows beside his password.
#[derive(Default)]
struct Second {
    code: Option<String>,
    passkey: Option<PasskeyProof>,
}

/// A user whose password was right, with what he shows beside it.
struct Proven {
    name: String,
    uid: String,
    code: Option<Zeroizing<String>>,
    passkey: Option<passkey::Shown>,
}

impl Proven {
    /// He, if he is still there.
    fn user(&self, tx: &ReadTx<'_>) -> Result<User, Error> {
        let user = tx.get::<User>("", &self.name)?;
        user.filter(|user| user.metadata.uid.as_deref() == Some(&self.uid)).ok_or_else(wrong)
    }

    /// Uses what he shows, in the transaction that he is let in by. Only then he was right.
    fn second(&self, tx: &mut Tx<'_>, sealer: &Sealer) -> Result<(), Error> {
        match &self.passkey {
            Some(shown) => passkey::count(tx, &self.name, &self.uid, shown),
            None => {
                second_factor::prove(tx, sealer, &self.name, &self.uid, self.code.as_ref().map(|code| code.as_str()))
            }
        }
    }
}

/// A user whose password was right.
pub(super) struct Found {
    name: String,
    /// His uid.
    pub(super) uid: String,
    /// What he has beside it.
    factors: Factors,
}

impl Found {
    /// Takes the guess back that he was counted with.
    pub(super) fn forgive(&self, ask: &Ask) {
        ask.api.attempts.forgiven(&self.name, address(ask));
    }
}

/// Finds out whether somebody knows the password of a user.
pub(super) async fn password_is_right(ask: &Ask, name: &str, word: String) -> Result<Found, Error> {
    let (from, now) = (address(ask), ask.api.store.steady_now());
    ask.api.attempts.allowed(name, from, now).map_err(too_often)?;
    // Counted before it is known, so that many at the same time are not let through.
    ask.api.attempts.failed(name, from, now);
    let wanted = name.to_owned();
    let find = move |tx: &ReadTx<'_>| -> Result<_, StoreError> {
        let user = tx.get::<User>("", &wanted)?.filter(|user| !user.spec.disabled);
        let Some(uid) = user.and_then(|user| user.metadata.uid) else { return Ok(None) };
        let factors = second_factor::factors(tx, &uid)?;
        Ok(Some((tx.verifier(&uid, Verifier::Password)?, uid, factors)))
    };
    let (phc, known) = match ask.api.store.read(find).await? {
        Some((phc, uid, factors)) => (phc, Some((uid, factors))),
        None => (None, None),
    };
    let right = password::verify(Zeroizing::new(word), phc).await?;
    let (uid, factors) = known.filter(|_| right).ok_or_else(wrong)?;
    Ok(Found { name: name.to_owned(), uid, factors })
}

/// Finds out whether somebody knows the password of a user, and has shown something beside it if he needs that.
async fn prove(ask: &Ask, name: &str, word: String, second: Second) -> Result<Proven, Error> {
    let found = password_is_right(ask, name, word).await?;
    if found.factors.any() && second.code.is_none() && second.passkey.is_none() {
        found.forgive(ask);
        return Err(second_factor::needed(found.factors));
    }
    let passkey = second.passkey.map(|proof| passkey::check(ask, &found.uid, proof)).transpose()?;
    Ok(Proven { name: found.name, uid: found.uid, code: second.code.map(Zeroizing::new), passkey })
}

fn wrong() -> Error {
    Error::new(Reason::Unauthorized, "there is no such user with that password; check both, or ask an administrator")
}

pub(super) fn too_often(seconds: u64) -> Error {
    let message = format!("too many were wrong from here or about this user; try again in {seconds} s");
    let failure = Failure::new(Reason::TooManyRequests, message);
    Failure { retry_after_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), ..failure }.into()
}

/// From where somebody asks.
pub(super) fn address(ask: &Ask) -> IpAddr {
    match ask.peer {
        Peer::Network(address) => address.ip(),
        Peer::Socket { .. } => Ipv4Addr::LOCALHOST.into(),
    }
}

/// `POST /auth/login`.
async fn login(mut ask: Ask) -> Reply {
    let Login { user, password, code, passkey } = said(&mut ask).await?;
    ask.trail.about(&user);
    let proven = prove(&ask, &user, password, Second { code, passkey }).await?;
    let (made, seen) = (Pair::draw()?, seen(&ask));
    let (hashes, name, trail) = (made.hashes(), proven.name.clone(), ask.trail.clone());
    trail.by(&format!("user:{name}"));
    let sealer = ask.api.sealer.clone();
    let work = move |tx: &mut Tx<'_>| -> Result<String, Error> {
        proven.second(tx, &sealer)?;
        let (user, now) = (proven.user(tx)?, tx.steady_now());
        let session = begin_session(tx, user, now, seen, &hashes)?;
        trail.done(tx)?;
        Ok(session)
    };
    let session = ask.api.store.write(&ask.actor_of(&format!("user:{name}")), work).await?;
    ask.api.attempts.succeeded(&name, address(&ask));
    answer(&made.tokens(session, name))
}

/// Makes a session of a user who has proven then who he is; answers what it is called.
pub(super) fn begin_session(
    tx: &mut Tx<'_>,
    mut user: User,
    authenticated: Timestamp,
    seen: SessionStatus,
    hashes: &Hashes,
) -> Result<String, Error> {
    let (now, name) = (tx.steady_now(), user.metadata.name.clone().unwrap_or_default());
    user.status = Some(UserStatus { last_login: Some(now), ..user.status.unwrap_or_default() });
    tx.update_status(&user)?;
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}.")),
        owner_references: Some(vec![owned_by(&user)]),
        ..ObjectMeta::default()
    };
    let mut session = tx.create(&Session { metadata, spec: SessionSpec { user: name }, status: None })?;
    session.status = Some(SessionStatus { authenticated: Some(authenticated), refreshed: Some(now), ..seen });
    tx.update_status(&session)?;
    hashes.keep(tx, session.metadata.uid.as_deref().unwrap_or_default())?;
    Ok(session.metadata.name.unwrap_or_default())
}

/// What belongs to a user goes with him.
pub(super) fn owned_by(user: &User) -> OwnerReference {
    OwnerReference {
        api_version: berth_model::resource::API_VERSION.to_owned(),
        kind: "User".to_owned(),
        name: user.metadata.name.clone().unwrap_or_default(),
        uid: user.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// What a refresh came to.
enum Refreshed {
    Anew(Tokens),
    /// The token was used before: whoever has it, somebody else has it too.
    Twice {
        user: String,
    },
}

/// `POST /auth/refresh`.
async fn refresh(mut ask: Ask) -> Reply {
    let Refresh { refresh_token } = said(&mut ask).await?;
    let refresh_token = Zeroizing::new(refresh_token);
    let shown = secret::recognise(&refresh_token).filter(|(purpose, _)| *purpose == Purpose::Refresh);
    let (_, hash) = shown.ok_or(Refusal::WrongToken)?;
    let (made, seen) = (Pair::draw()?, seen(&ask));
    let work = move |tx: &mut Tx<'_>| exchange(tx, &hash, seen, made);
    match ask.api.store.write(&ask.actor(), work).await? {
        Refreshed::Anew(tokens) => {
            ask.trail.by(&format!("user:{}", tokens.user));
            answer(&tokens)
        }
        Refreshed::Twice { user } => {
            ask.trail.about(&user);
            tracing::warn!(
                "a refresh token of user {user} was used twice, from {} the second time; its session is ended",
                address(&ask)
            );
            let message = "this refresh token was used before, so that its session is ended; log in again";
            Err(Error::new(Reason::Unauthorized, message))
        }
    }
}

fn exchange(tx: &mut Tx<'_>, hash: &[u8; 32], seen: SessionStatus, made: Pair) -> Result<Refreshed, Error> {
    let found = tx.credential(Purpose::Refresh, hash)?.ok_or(Refusal::WrongToken)?;
    let session = tx.by_uid(&found.object)?.filter(|(kind, _)| **kind == SESSION);
    let session = session.and_then(|(_, object)| Session::deserialize(&object).ok()).ok_or(Refusal::WrongToken)?;
    let (name, user) = (session.metadata.name.clone().unwrap_or_default(), session.spec.user.clone());
    if found.spent {
        tx.delete::<Session>("", &name, &Deletion::default())?;
        return Ok(Refreshed::Twice { user });
    }
    if found.expires_at.is_some_and(|at| at <= tx.steady_now()) {
        return Err(Refusal::Expired.into());
    }
    if tx.get::<User>("", &user)?.is_none_or(|user| user.spec.disabled) {
        return Err(Refusal::Disabled.into());
    }
    let authenticated = session.status.as_ref().and_then(|status| status.authenticated);
    let status = SessionStatus { authenticated, refreshed: Some(tx.steady_now()), ..seen };
    tx.update_status(&Session { status: Some(status), ..session })?;
    tx.spend_credentials(&found.object)?;
    made.hashes().keep(tx, &found.object)?;
    Ok(Refreshed::Anew(made.tokens(name, user)))
}

/// `POST /auth/logout`.
async fn logout(ask: Ask) -> Reply {
    let token = bearer(&ask.headers)?.and_then(|token| std::str::from_utf8(token).ok());
    let shown = token.and_then(secret::recognise).filter(|(purpose, _)| *purpose == Purpose::Access);
    let Some((purpose, hash)) = shown else {
        return Err(Error::bad_request("only a session ends so: send its access token (`Authorization: Bearer ...`)"));
    };
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let Some(found) = tx.credential(purpose, &hash)? else { return Ok(()) };
        let Some((kind, session)) = tx.by_uid(&found.object)? else { return Ok(()) };
        tx.delete_value(kind, "", berth_model::meta::name(&session), &Deletion::default())?;
        Ok(())
    };
    ask.api.store.write(&ask.actor(), work).await?;
    Ok(done())
}

/// `POST /auth/password`.
async fn change_password(mut ask: Ask) -> Reply {
    let ChangePassword { user, password: old, new_password, code, passkey } = said(&mut ask).await?;
    let new_password = Zeroizing::new(new_password);
    ask.trail.about(&user);
    let proven = prove(&ask, &user, old, Second { code, passkey }).await?;
    ask.trail.by(&format!("user:{user}"));
    password::check(&user, &new_password).inspect_err(|_| ask.api.attempts.forgiven(&user, address(&ask)))?;
    let phc = password::hash(new_password).await?;
    let sealer = ask.api.sealer.clone();
    let work = move |tx: &mut Tx<'_>| {
        proven.second(tx, &sealer)?;
        replace_password(tx, &proven.name, &phc)
    };
    ask.api.store.write(&ask.actor_of(&format!("user:{user}")), work).await?;
    ask.api.attempts.succeeded(&user, address(&ask));
    Ok(done())
}

/// Sets a password, and ends all sessions that began with another, or were let in by it and have not begun.
pub(super) fn replace_password(tx: &mut Tx<'_>, name: &str, phc: &str) -> Result<(), Error> {
    let user = tx.get::<User>("", name)?.ok_or_else(wrong)?;
    let uid = user.metadata.uid.as_deref().unwrap_or_default();
    tx.set_verifier(uid, Verifier::Password, phc)?;
    tx.forget_device_logins_of(uid)?;
    let status = UserStatus { password_set: Some(tx.now()), ..user.status.clone().unwrap_or_default() };
    tx.update_status(&User { status: Some(status), ..user })?;
    for session in tx.list::<Session>(None)?.into_iter().filter(|session| session.spec.user == name) {
        tx.delete::<Session>("", session.metadata.name.as_deref().unwrap_or_default(), &Deletion::default())?;
    }
    Ok(())
}

/// The body; there has to be one. What is wrong with it is told without repeating any of it.
pub(super) async fn said<T: for<'de> Deserialize<'de>>(ask: &mut Ask) -> Result<T, Error> {
    let bytes = Zeroizing::new(ask.bytes().await?.to_vec());
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::bad_request(format!("the body is not the JSON expected here, at line {line}, column {column}"))
    })
}

/// From where somebody asks, and with what program.
pub(super) fn seen(ask: &Ask) -> SessionStatus {
    let program = ask.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    SessionStatus {
        address: address(ask).to_canonical().to_string(),
        program: program.chars().take(128).collect(),
        ..SessionStatus::default()
    }
}

/// The two tokens of a session.
pub(super) struct Pair {
    access: Fresh,
    refresh: Fresh,
}

/// By what they are recognised.
pub(super) struct Hashes {
    access: [u8; 32],
    refresh: [u8; 32],
}

impl Pair {
    pub(super) fn draw() -> Result<Self, Error> {
        Ok(Self { access: secret::fresh(Purpose::Access)?, refresh: secret::fresh(Purpose::Refresh)? })
    }

    pub(super) fn hashes(&self) -> Hashes {
        Hashes { access: self.access.hash, refresh: self.refresh.hash }
    }

    pub(super) fn tokens(&self, session: String, user: String) -> Tokens {
        Tokens {
            session,
            user,
            access_token: self.access.secret.to_string(),
            expires_in: ACCESS_SECONDS,
            refresh_token: self.refresh.secret.to_string(),
        }
    }
}

impl Hashes {
    fn keep(&self, tx: &mut Tx<'_>, session: &str) -> Result<(), StoreError> {
        let now = tx.steady_now();
        tx.add_credential(
            Purpose::Access,
            &self.access,
            session,
            Some(now + SignedDuration::from_secs(ACCESS_SECONDS)),
        )?;
        tx.add_credential(Purpose::Refresh, &self.refresh, session, Some(now + SESSION_LIFE))
    }
}

/// An answer with secrets in it is nobody's to keep.
pub(super) fn unkept(mut response: axum::response::Response) -> axum::response::Response {
    let never = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, never);
    response
}

/// An answer that says no more than that it was done.
pub(super) fn done() -> axum::response::Response {
    reply::json(&json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200 }))
}

/// An answer with secrets in it.
pub(super) fn secretly(code: StatusCode, said: &impl Serialize) -> Reply {
    let body =
        serde_json::to_value(said).map_err(|_| Error::new(Reason::InternalError, "the answer cannot be written"))?;
    Ok(unkept(reply::with_code(code, reply::json(&body))))
}

fn answer(tokens: &Tokens) -> Reply {
    secretly(StatusCode::OK, tokens)
}
