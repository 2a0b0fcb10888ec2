//! Codes of an authenticator app as a second factor.
//!
//! ```text
//! POST .../users/NAME/totp           himself, logged in of late -> secret and address, shown this once
//! POST .../users/NAME/totp/confirm   a code of it               -> ten recovery codes, shown this once; needed from now on
//! POST .../users/NAME/totp/disable   himself with a code, or somebody who holds all that he holds
//! ```
//!
//! The secret is sealed by the machine's key, and opened to check a code. A code is good once: the step that it belongs to
//! is kept, and only later ones are taken. Recovery codes are kept as hashes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_model::field::FieldError;
use berth_model::login::{ConfirmTotp, DisableTotp, Enrolment, RecoveryCodes};
use berth_model::policy::{Subject, Verb};
use berth_model::resource::role_binding::SubjectReference;
use berth_model::resource::user::UserStatus;
use berth_model::resource::{GROUP, User};
use berth_model::status::{Failure, Reason};
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::account::user;
use super::guard;
use super::login::{address, done, said, secretly, too_often};
use super::passkey;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::write::transact;
use crate::auth::totp::Generator;
use crate::auth::{code, secret};
use crate::secret::{ACCOUNTS, Record, Sealer, SecretError};
use crate::store::{Purpose, ReadTx, StoreError, Tx, Verifier};

/// Within this time an app that is set up has to show a code.
const ENROLMENT: SignedDuration = SignedDuration::from_mins(10);
/// Recovery codes that are given out.
const RECOVERY_CODES: usize = 10;
/// Characters of each, of five bits.
const RECOVERY_LENGTH: usize = 16;

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let path = |subresource| format!("/apis/berth.dev/v1/users/{{name}}/{subresource}");
    let access = |subresource| Access::Object { group: GROUP, plural: "users", subresource, verb: Verb::Create };
    vec![
        Route::new(Method::POST, path("totp"), access("totp"), begin),
        Route::new(Method::POST, path("totp/confirm"), access("totp/confirm"), confirm),
        Route::new(Method::POST, path("totp/disable"), access("totp/disable"), disable),
    ]
}

/// What is kept of an app.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Its secret, sealed, in base 64.
    sealed: String,
    /// The step of which a code was taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    /// Until when it may be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// A user whose codes are checked.
struct Bearer<'a> {
    name: &'a str,
    uid: &'a str,
}

impl Bearer<'_> {
    fn record(&self) -> Record<'_> {
        Record { namespace: ACCOUNTS, name: self.name, uid: self.uid, key: "second factor" }
    }

    fn seal(&self, sealer: &Sealer, generator: &Generator) -> Result<String, SecretError> {
        Ok(STANDARD.encode(sealer.seal(&self.record(), generator.secret())?))
    }

    fn generator(&self, sealer: &Sealer, kept: &Kept) -> Result<Generator, Error> {
        let sealed = STANDARD.decode(&kept.sealed).unwrap_or_default();
        let secret = sealer.unseal(&self.record(), &sealed)?;
        Ok(Generator::of(&secret, self.name, "")?)
    }

    fn kept(&self, tx: &ReadTx<'_>, what: Verifier) -> Result<Option<Kept>, Error> {
        let Some(text) = tx.verifier(self.uid, what)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).map_err(|error| reply::internal(&error))?))
    }

    fn keep(&self, tx: &mut Tx<'_>, what: Verifier, kept: &Kept) -> Result<(), Error> {
        let text = serde_json::to_string(kept).map_err(|error| reply::internal(&error))?;
        Ok(tx.set_verifier(self.uid, what, &text)?)
    }
}

/// What a user has beside his password.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    app: bool,
    passkeys: bool,
}

impl Factors {
    /// Whether he needs more than his password.
    pub(super) fn any(self) -> bool {
        self.app || self.passkeys
    }
}

/// What the user with this uid has beside his password.
pub(super) fn factors(tx: &ReadTx<'_>, uid: &str) -> Result<Factors, StoreError> {
    Ok(Factors { app: tx.verifier(uid, Verifier::Totp)?.is_some(), passkeys: passkey::has_any(tx, uid)? })
}

/// What somebody is told whose password was right, and who has to show more.
pub(super) fn needed(factors: Factors) -> Error {
    let ways = match (factors.app, factors.passkeys) {
        (true, true) => "a code of the authenticator app, a passkey, or a recovery code",
        (false, true) => "a passkey, in a browser, or a recovery code",
        _ => "a code of the authenticator app, or a recovery code",
    };
    let why = format!("the password is right, and a second factor is needed: send {ways}");
    let mut causes = vec![FieldError::required("code", why.clone())];
    causes.extend(factors.passkeys.then(|| FieldError::required("passkey", "answer a challenge: POST /auth/passkey")));
    Failure { causes, ..Failure::new(Reason::Unauthorized, why) }.into()
}

fn wrong() -> Error {
    let why = "the code is wrong, too old, or was used before; wait for the next one of the authenticator app, or use a \
               recovery code";
    about_the_code(FieldError::invalid("code", why))
}

fn about_the_code(cause: FieldError) -> Error {
    let message = cause.message.clone();
    Failure { causes: vec![cause], ..Failure::new(Reason::Unauthorized, message) }.into()
}

/// Uses the code that somebody shows, if he needs one. To be asked in the transaction that lets him in.
pub(super) fn prove(tx: &mut Tx<'_>, sealer: &Sealer, name: &str, uid: &str, said: Option<&str>) -> Result<(), Error> {
    let (bearer, factors) = (Bearer { name, uid }, factors(tx, uid)?);
    if !factors.any() {
        return Ok(());
    }
    let said = said.ok_or_else(|| needed(factors))?;
    let plain = code::plain(said);
    if code::is_one(&plain, RECOVERY_LENGTH) {
        return recover(tx, name, uid, &plain);
    }
    let kept = bearer.kept(tx, Verifier::Totp)?.ok_or_else(wrong)?;
    let step = bearer.generator(sealer, &kept)?.step_of(said, tx.now(), kept.last).ok_or_else(wrong)?;
    bearer.keep(tx, Verifier::Totp, &Kept { last: Some(step), ..kept })
}

/// Codes in the place of a second factor, as they are drawn.
pub(super) struct Recovery {
    codes: Vec<Zeroizing<String>>,
    /// By what they are recognised.
    pub(super) hashes: Vec<[u8; 32]>,
}

impl Recovery {
    /// Draws them.
    pub(super) fn draw() -> Result<Self, Error> {
        let codes = (0..RECOVERY_CODES).map(|_| code::draw(RECOVERY_LENGTH)).collect::<Result<Vec<_>, _>>()?;
        let hashes = codes.iter().map(|code| secret::of_code(Purpose::Recovery, code)).collect();
        Ok(Self { codes, hashes })
    }

    /// As they are given out, this once.
    pub(super) fn shown(&self) -> Vec<String> {
        self.codes.iter().map(|code| code::grouped(code).to_string()).collect()
    }
}

/// Keeps recovery codes of a user who has none; whether he had none.
pub(super) fn begin_recovery(tx: &mut Tx<'_>, name: &str, uid: &str, hashes: &[[u8; 32]]) -> Result<bool, Error> {
    if tx.credentials(Purpose::Recovery, uid)? > 0 {
        return Ok(false);
    }
    for hash in hashes {
        tx.add_credential(Purpose::Recovery, hash, uid, None)?;
    }
    tell(tx, name, |status| status.recovery_codes = u32::try_from(hashes.len()).ok())?;
    Ok(true)
}

/// Takes the recovery codes from a user who needs nothing but his password any more.
pub(super) fn end_recovery(tx: &mut Tx<'_>, name: &str, uid: &str) -> Result<(), Error> {
    if factors(tx, uid)?.any() {
        return Ok(());
    }
    tx.drop_credentials(Purpose::Recovery, uid)?;
    tell(tx, name, |status| status.recovery_codes = None)
}

fn recover(tx: &mut Tx<'_>, name: &str, uid: &str, plain: &str) -> Result<(), Error> {
    let hash = secret::of_code(Purpose::Recovery, plain);
    let his = tx.credential(Purpose::Recovery, &hash)?.is_some_and(|found| found.object == uid);
    if !his || !tx.take_credential(Purpose::Recovery, &hash)? {
        return Err(wrong());
    }
    let left = tx.credentials(Purpose::Recovery, uid)?;
    tracing::warn!("user {name} used a recovery code, and has {left} left");
    tell(tx, name, |status| status.recovery_codes = Some(left))
}

/// Changes what may be known of a user's ways in.
pub(super) fn tell(tx: &mut Tx<'_>, name: &str, change: impl FnOnce(&mut UserStatus)) -> Result<(), Error> {
    let user = user(tx, name)?;
    let mut status = user.status.clone().unwrap_or_default();
    change(&mut status);
    tx.update_status(&User { status: Some(status), ..user })?;
    Ok(())
}

/// Whether whoever asks is the user that the path names.
pub(super) fn is_himself(ask: &Ask) -> bool {
    ask.subject.identity().strip_prefix("user:") == Some(ask.segment("name"))
}

/// Refuses everybody but the user himself who is logged in: what he will need, nobody else may know, and no key sets up.
pub(super) fn himself(ask: &Ask) -> Result<String, Error> {
    let logged_in = matches!(&ask.subject, Subject::Known(known) if known.authenticated.is_some());
    match logged_in && is_himself(ask) {
        true => Ok(ask.name()),
        false => {
            let message = "only a user who is logged in sets up a second factor, and for himself alone";
            Err(Error::new(Reason::Forbidden, message))
        }
    }
}

/// `POST .../users/{name}/totp`. Called again before it is confirmed, it draws another secret.
async fn begin(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let name = himself(&ask)?;
    let machine = nix::unistd::gethostname().map_err(|error| reply::internal(&error))?;
    let generator = Generator::draw(&name, &machine.to_string_lossy())?;
    let (secret, uri) = (generator.typed(), generator.uri());
    let sealer = ask.api.sealer.clone();
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let uid = uid(tx, &name)?;
        if factors(tx, &uid)?.app {
            let message = "there is a second factor already; take it away first: `berth user totp disable`";
            return Err(Error::new(Reason::Conflict, message));
        }
        let bearer = Bearer { name: &name, uid: &uid };
        let sealed = bearer.seal(&sealer, &generator)?;
        bearer.keep(tx, Verifier::Enrolment, &Kept { sealed, last: None, until: Some(tx.steady_now() + ENROLMENT) })
    };
    transact(&ask, work).await?;
    secretly(
        StatusCode::OK,
        &Enrolment { secret: secret.to_string(), uri: uri.to_string(), expires_in: ENROLMENT.as_secs() },
    )
}

fn uid(tx: &ReadTx<'_>, name: &str) -> Result<String, Error> {
    Ok(user(tx, name)?.metadata.uid.unwrap_or_default())
}

/// `POST .../users/{name}/totp/confirm`.
async fn confirm(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let name = himself(&ask)?;
    let ConfirmTotp { code: shown } = said(&mut ask).await?;
    let recovery = Recovery::draw()?;
    let hashes = recovery.hashes.clone();
    let (sealer, shown) = (ask.api.sealer.clone(), Zeroizing::new(shown));
    let from = address(&ask);
    let guess = Guess::begin(&ask, &name)?;
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let uid = uid(tx, &name)?;
        let kept = confirmed(tx, &sealer, &Bearer { name: &name, uid: &uid }, &shown)?;
        Bearer { name: &name, uid: &uid }.keep(tx, Verifier::Totp, &kept)?;
        tx.drop_verifier(&uid, Verifier::Enrolment)?;
        let now = tx.now();
        tell(tx, &name, |status| status.totp_set = Some(now))?;
        tx.drop_credentials(Purpose::Recovery, &uid)?;
        begin_recovery(tx, &name, &uid, &hashes).map(drop)
    };
    transact(&ask, work).await?;
    guess.was_right();
    tracing::info!("{} needs a second factor from now on, as he said from {from}", ask.subject.identity());
    secretly(StatusCode::OK, &RecoveryCodes { recovery_codes: recovery.shown() })
}

/// What is kept from now on of an app that shows this code.
fn confirmed(tx: &Tx<'_>, sealer: &Sealer, bearer: &Bearer<'_>, shown: &str) -> Result<Kept, Error> {
    let kept =
        bearer.kept(tx, Verifier::Enrolment)?.filter(|kept| kept.until.is_some_and(|until| tx.steady_now() < until));
    let kept = kept.ok_or_else(|| {
        let message = "no second factor waits to be confirmed, or no longer; begin anew: `berth user totp enable`";
        Error::new(Reason::Conflict, message)
    })?;
    let step = bearer.generator(sealer, &kept)?.step_of(shown, tx.now(), None);
    let step = step.ok_or_else(|| {
        let why = "this is not the code that the app shows now; see whether the clocks of both are right";
        Error::from(FieldError::invalid("code", why))
    })?;
    Ok(Kept { last: Some(step), until: None, ..kept })
}

/// `POST .../users/{name}/totp/disable`.
async fn disable(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let DisableTotp { code } = said(&mut ask).await?;
    let (name, sealer, subject) = (ask.name(), ask.api.sealer.clone(), ask.subject.clone());
    let (own, code) = (is_himself(&ask), code.map(Zeroizing::new));
    let guess = own.then(|| Guess::begin(&ask, &name)).transpose()?;
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let uid = uid(tx, &name)?;
        match own {
            true => prove(tx, &sealer, &name, &uid, code.as_ref().map(|code| code.as_str()))?,
            false => guard::holds_all_of(tx, &subject, &SubjectReference::user(&name))?,
        }
        tx.drop_verifier(&uid, Verifier::Enrolment)?;
        if !tx.drop_verifier(&uid, Verifier::Totp)? {
            return Err(Error::new(Reason::Conflict, format!("{name} has no authenticator app")));
        }
        tell(tx, &name, |status| status.totp_set = None)?;
        end_recovery(tx, &name, &uid)
    };
    transact(&ask, work).await?;
    if let Some(guess) = guess {
        guess.was_right();
    }
    Ok(done())
}

/// A code that somebody shows who is logged in: it is counted with those at the door, so that nobody has more guesses here.
pub(super) struct Guess<'a> {
    ask: &'a Ask,
    name: String,
}

impl<'a> Guess<'a> {
    pub(super) fn begin(ask: &'a Ask, name: &str) -> Result<Self, Error> {
        let (from, now) = (address(ask), ask.api.store.steady_now());
        ask.api.attempts.allowed(name, from, now).map_err(too_often)?;
        ask.api.attempts.failed(name, from, now);
        Ok(Self { ask, name: name.to_owned() })
    }

    pub(super) fn was_right(self) {
        self.ask.api.attempts.forgiven(&self.name, address(self.ask));
    }
}
