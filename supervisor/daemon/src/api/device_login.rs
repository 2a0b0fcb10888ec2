//! Logins without a password (RFC 8628): a program shows a code, and a user who is logged in elsewhere says that it may come
//! in as he.
//!
//! ```text
//! POST /auth/device                               -> a code for the program, and one for people: both good for ten minutes
//! POST /auth/device/token                 form: the program's code -> `authorization_pending`, `slow_down`,
//!                                         `access_denied`, `expired_token`, or tokens as after a login, once
//! POST .../users/NAME/devicelogins          himself, logged in of late: the code for people -> from where it was begun
//! POST .../users/NAME/devicelogins/approve  the same -> it comes in as he
//! POST .../users/NAME/devicelogins/deny     the same -> it does not
//! ```
//!
//! The first two have the shapes of the RFC, so that other programs can use them, too.

use berth_model::field::FieldError;
use berth_model::kinds::USER;
use berth_model::login::{
    DEVICE_GRANT, DeviceAuthorization, DeviceCode, DeviceLoginShown, DeviceRefusal, DeviceRefused, DeviceTokens,
    UserCode,
};
use berth_model::policy::{Subject, Verb};
use berth_model::resource::{GROUP, User};
use berth_model::status::{Failure, Reason};
use http::header::HOST;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::account::user;
use super::login::{Pair, address, begin_session, said, secretly, seen, unkept};
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::second_factor::Guess;
use super::write::transact;
use crate::auth::attempts::neighbourhood;
use crate::auth::{code, secret};
use crate::store::{DEVICE_LOGIN_LIFE, DeviceDecision, DeviceHashes, DeviceLogin, Purpose, Tx};

/// Seconds that a program waits before it asks again; so many more each time that it does not.
const INTERVAL: i64 = 5;
/// Characters of the code for people, of five bits each.
const LENGTH: usize = 8;
/// Logins that wait for one address, and for all together.
const OF_ADDRESS: usize = 5;
const IN_ALL: usize = 1000;

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let path = |below| format!("/apis/berth.dev/v1/users/{{name}}/{below}");
    let access = |subresource| Access::Object { group: GROUP, plural: "users", subresource, verb: Verb::Create };
    vec![
        Route::new(Method::POST, "/auth/device", Access::Path, begin),
        Route::new(Method::POST, "/auth/device/token", Access::Path, token),
        Route::new(Method::POST, path("devicelogins"), access("devicelogins"), show),
        Route::new(Method::POST, path("devicelogins/approve"), access("devicelogins/approve"), approve),
        Route::new(Method::POST, path("devicelogins/deny"), access("devicelogins/deny"), deny),
    ]
}

/// `POST /auth/device`.
async fn begin(ask: Ask) -> Reply {
    let (device, shown) = (secret::fresh(Purpose::Device)?, code::draw(LENGTH)?);
    let hashes = DeviceHashes { device: device.hash, code: hash(&shown) };
    let (place, seen, trail) = (neighbourhood(address(&ask)).to_string(), seen(&ask), ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        tx.forget_ended_device_logins()?;
        has_room(tx, Some(&place), OF_ADDRESS)?;
        has_room(tx, None, IN_ALL)?;
        let (address, program, began) = (seen.address, seen.program, tx.steady_now());
        let login = DeviceLogin { address, program, began, interval: INTERVAL, polled: None, decision: None };
        tx.add_device_login(&hashes, &place, &login)?;
        Ok(trail.done(tx)?)
    };
    ask.api.store.write(&ask.actor(), work).await?;
    let begun = DeviceAuthorization {
        device_code: device.secret.to_string(),
        user_code: code::grouped(&shown).to_string(),
        verification_uri: format!("https://{}/device", host(&ask)),
        expires_in: DEVICE_LOGIN_LIFE.as_secs(),
        interval: INTERVAL,
    };
    secretly(StatusCode::OK, &begun)
}

/// How whoever asks calls this machine.
fn host(ask: &Ask) -> String {
    let said = ask.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    said.or_else(|| ask.authority.as_ref().map(ToString::to_string)).unwrap_or_else(|| "localhost".to_owned())
}

/// Its hash could be found by trying all. Whoever reads the store gains nothing by it: the code lets nobody in who is not
/// logged in.
fn hash(shown: &str) -> [u8; 32] {
    secret::of_code(Purpose::Device, shown)
}

fn has_room(tx: &Tx<'_>, place: Option<&str>, most: usize) -> Result<(), Error> {
    let waiting = tx.device_logins_waiting(place)?;
    let Some(first) = waiting.first_end.filter(|_| waiting.count >= most) else { return Ok(()) };
    let left = first.duration_since(tx.steady_now()).as_secs().max(0) + 1;
    let message = format!("too many logins wait already; let them in or try again in {left} s");
    let failure = Failure::new(Reason::TooManyRequests, message);
    Err(Failure { retry_after_seconds: Some(i32::try_from(left).unwrap_or(i32::MAX)), ..failure }.into())
}

/// What a program is told that asks.
enum Told {
    No(DeviceRefused),
    Yes(DeviceTokens),
}

/// `POST /auth/device/token`.
async fn token(mut ask: Ask) -> Reply {
    let hash = match device_hash(&ask.bytes().await?) {
        Ok(hash) => hash,
        Err(refused) => return refuse(&refused),
    };
    let (pair, seen, trail) = (Pair::draw()?, seen(&ask), ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<Told, Error> {
        tx.forget_ended_device_logins()?;
        let (user, authenticated) = match poll(tx, &hash)? {
            Ok(approved) => approved,
            Err(refused) => return Ok(Told::No(refused)),
        };
        let name = user.metadata.name.clone().unwrap_or_default();
        let session = begin_session(tx, user, authenticated, seen, &pair.hashes())?;
        trail.by(&format!("user:{name}"));
        trail.about(&name);
        trail.done(tx)?;
        Ok(Told::Yes(pair.tokens(session, name).into()))
    };
    match ask.api.store.write(&ask.actor(), work).await? {
        Told::Yes(tokens) => secretly(StatusCode::OK, &tokens),
        Told::No(refused) => refuse(&refused),
    }
}

/// By what the login is known that a form is about.
fn device_hash(form: &[u8]) -> Result<[u8; 32], DeviceRefused> {
    let said: DeviceCode = serde_urlencoded::from_bytes(form).map_err(|_| {
        DeviceRefused::new(DeviceRefusal::InvalidRequest, "the body is not a form with grant_type and device_code")
    })?;
    if said.grant_type != DEVICE_GRANT {
        let why = format!("only {DEVICE_GRANT} is served here");
        return Err(DeviceRefused::new(DeviceRefusal::UnsupportedGrantType, &why));
    }
    let recognised = secret::recognise(&said.device_code).filter(|(purpose, _)| *purpose == Purpose::Device);
    recognised
        .map(|(_, hash)| hash)
        .ok_or_else(|| DeviceRefused::new(DeviceRefusal::InvalidGrant, "this is no code that was given out here"))
}

/// The error of RFC 6749: its word is what programs go by.
fn refuse(refused: &DeviceRefused) -> Reply {
    let body = serde_json::to_value(refused).map_err(|error| reply::internal(&error))?;
    Ok(unkept(reply::with_code(StatusCode::BAD_REQUEST, reply::json(&body))))
}

/// Who comes in, and when whoever lets him in had proven who he is; what is decided is told once.
fn poll(tx: &mut Tx<'_>, device: &[u8; 32]) -> Result<Result<(User, Timestamp), DeviceRefused>, Error> {
    let ended = || DeviceRefused::new(DeviceRefusal::ExpiredToken, "this login has ended, or was used; begin anew");
    let Some(mut login) = tx.device_login(device)? else { return Ok(Err(ended())) };
    if let Some(waits) = waits(&mut login, tx.steady_now()) {
        tx.change_device_login(device, &login)?;
        return Ok(Err(waits));
    }
    tx.forget_device_login(device)?;
    let Some(DeviceDecision::Approved { user, authenticated }) = login.decision else {
        return Ok(Err(DeviceRefused::new(DeviceRefusal::AccessDenied, "somebody said no to this login")));
    };
    let found = tx.by_uid(&user)?.filter(|(kind, _)| **kind == USER);
    let user = found.and_then(|(_, user)| User::deserialize(&user).ok()).filter(|user| !user.spec.disabled);
    Ok(user.map(|user| (user, authenticated)).ok_or_else(ended))
}

/// What a program is told about whose login nobody has decided, or that asks too soon.
fn waits(login: &mut DeviceLogin, now: Timestamp) -> Option<DeviceRefused> {
    let pause = SignedDuration::from_secs(login.interval);
    let too_soon = login.polled.replace(now).is_some_and(|last| now < last + pause);
    if too_soon {
        login.interval += INTERVAL;
        let why = format!("ask every {} s from now on", login.interval);
        return Some(DeviceRefused::new(DeviceRefusal::SlowDown, &why));
    }
    let pending = || DeviceRefused::new(DeviceRefusal::AuthorizationPending, "nobody has let this login in yet");
    login.decision.is_none().then(pending)
}

/// `POST .../users/{name}/devicelogins`.
async fn show(ask: Ask) -> Reply {
    about(ask, |_, _, _| Ok(())).await
}

/// `POST .../users/{name}/devicelogins/approve`.
async fn approve(ask: Ask) -> Reply {
    let authenticated = himself(&ask)?;
    about(ask, move |tx, device, (login, user)| {
        let decision = Some(DeviceDecision::Approved { user: user.to_owned(), authenticated });
        Ok(tx.change_device_login(device, &DeviceLogin { decision, ..login.clone() })?)
    })
    .await
}

/// `POST .../users/{name}/devicelogins/deny`.
async fn deny(ask: Ask) -> Reply {
    about(ask, |tx, device, (login, _)| {
        let decision = Some(DeviceDecision::Denied);
        Ok(tx.change_device_login(device, &DeviceLogin { decision, ..login.clone() })?)
    })
    .await
}

/// Does something about the login of a code, of which nobody has said anything yet; answers from where it was begun.
async fn about<F>(mut ask: Ask, deed: F) -> Reply
where
    F: FnOnce(&mut Tx<'_>, &[u8; 32], (&DeviceLogin, &str)) -> Result<(), Error> + Send + 'static,
{
    ask.no_dry_run()?;
    himself(&ask)?;
    let UserCode { user_code } = said(&mut ask).await?;
    let (name, hash) = (ask.name(), hash(&code::plain(&user_code)));
    let guess = Guess::begin(&ask, &name)?;
    let work = move |tx: &mut Tx<'_>| -> Result<DeviceLogin, Error> {
        tx.forget_ended_device_logins()?;
        let found = tx.device_login_of_code(&hash)?.filter(|(_, login)| login.decision.is_none());
        let (device, login) = found.ok_or_else(unknown)?;
        let uid = user(tx, &name)?.metadata.uid.unwrap_or_default();
        deed(tx, &device, (&login, &uid))?;
        Ok(login)
    };
    let login = transact(&ask, work).await?;
    guess.was_right();
    let (begun_at, expires_at) = (login.began, login.ends());
    let shown = DeviceLoginShown { address: login.address, program: login.program, begun_at, expires_at };
    Ok(reply::json(&serde_json::to_value(shown).map_err(|error| reply::internal(&error))?))
}

fn unknown() -> Error {
    let why =
        "no login waits with this code: it was decided about, has ended, or never was; see what the program shows";
    FieldError::invalid("userCode", why).into()
}

/// Refuses everybody but the user himself who is logged in; no key lets more in than itself. Answers when he had proven who
/// he is.
fn himself(ask: &Ask) -> Result<Timestamp, Error> {
    let is_he = ask.subject.identity().strip_prefix("user:") == Some(ask.segment("name"));
    let authenticated = match &ask.subject {
        Subject::Known(known) => known.authenticated.filter(|_| is_he),
        _ => None,
    };
    authenticated.ok_or_else(|| {
        let message = "only a user who is logged in lets a login in, and as himself alone";
        Error::new(Reason::Forbidden, message)
    })
}
