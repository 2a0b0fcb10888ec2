//! Client certificates: whoever wants one sends a signing request, so that the key was never here.
//!
//! ```text
//! POST .../certificates                    for whoever asks: with his certificate that one is renewed, and keeps its
//!                                          record; with a bootstrap token, which ends in the same transaction, for
//!                                          whom that was made
//! POST .../users/{name}/certificates       for a user, by whoever holds all that he holds
//! POST .../devices/{name}/certificates     for a device, likewise
//! POST .../{users,devices}/{name}/bootstraptokens  a bootstrap token for one of them, likewise
//! ```

use std::sync::Arc;

use berth_model::enrolment::{BOOTSTRAP_LIFE, Bootstrap, Issued, NewCertificate};
use berth_model::field::FieldError;
use berth_model::kinds::{CERTIFICATE, DEVICE};
use berth_model::policy::{Subject, Verb};
use berth_model::resource::certificate::{CertificateSpec, CertificateStatus, USER_LIFE};
use berth_model::resource::device::{DEVICE_LIFE, DeviceStatus};
use berth_model::resource::role_binding::SubjectReference;
use berth_model::resource::{Certificate, Device, GROUP, User};
use berth_model::status::Reason;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::account::user;
use super::guard;
use super::login::{owned_by, unkept};
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::write::{must_get, transact};
use crate::auth::accounts::{self, Enrolling};
use crate::auth::ca::Authority;
use crate::auth::client_certificate::{Holder, Presented, RequestError, Signed, SigningRequest, sign};
use crate::auth::{Refusal, bearer, bootstrap, secret};
use crate::store::{Purpose, ReadTx, Tx, hex};

/// The longest description, in characters.
const LONGEST: usize = 256;

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let access = |plural, subresource| Access::Object { group: GROUP, plural, subresource, verb: Verb::Create };
    let path = |path: &str| format!("/apis/berth.dev/v1/{path}");
    let of_device = |below: &str| path(&format!("namespaces/{{namespace}}/devices/{{name}}/{below}"));
    vec![
        Route::new(Method::POST, path("certificates"), access("certificates", ""), for_whoever_asks),
        Route::new(Method::POST, path("users/{name}/certificates"), access("users", "certificates"), for_a_user),
        Route::new(Method::POST, path("users/{name}/bootstraptokens"), access("users", "bootstraptokens"), invite_user),
        Route::new(Method::POST, of_device("certificates"), access("devices", "certificates"), for_a_device),
        Route::new(Method::POST, of_device("bootstraptokens"), access("devices", "bootstraptokens"), invite_device),
    ]
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        FieldError::invalid("request", error.to_string()).into()
    }
}

/// What is wanted, once it is known to be in order.
struct Wanted {
    request: SigningRequest,
    description: Option<String>,
    authority: Arc<Authority>,
}

async fn wanted(ask: &mut Ask) -> Result<Wanted, Error> {
    ask.no_dry_run()?;
    let NewCertificate { request, description } = ask.options().await?;
    if description.as_ref().is_some_and(|text| text.chars().count() > LONGEST) {
        return Err(FieldError::invalid("description", format!("use {LONGEST} characters or less")).into());
    }
    Ok(Wanted { request: SigningRequest::parse(&request)?, description, authority: ask.api.authority.clone() })
}

/// `POST .../certificates`.
async fn for_whoever_asks(mut ask: Ask) -> Reply {
    let wanted = wanted(&mut ask).await?;
    let token = bearer(&ask.headers)?;
    if let Some(hash) = token.and_then(bootstrap) {
        return issue(&ask, wanted, move |tx, _, text| enrolled(tx, &hash, text)).await;
    }
    // Who comes with a token besides is known by that.
    if let Some(presented) = ask.presented.filter(|_| token.is_none()) {
        return issue(&ask, wanted, move |tx, _, _| record_of(tx, &presented)).await;
    }
    let Some(name) = ask.subject.identity().strip_prefix("user:").map(str::to_owned) else {
        let message = "a certificate names a user or a device, and whoever asks is neither; say for whom: \
                       POST .../users/NAME/certificates (`berth ca NAME`)";
        return Err(Error::bad_request(message));
    };
    issue(&ask, wanted, move |tx, subject, text| guarded(tx, subject, &name, text)).await
}

/// `POST .../users/{name}/certificates`.
async fn for_a_user(mut ask: Ask) -> Reply {
    let (wanted, name) = (wanted(&mut ask).await?, ask.name());
    issue(&ask, wanted, move |tx, subject, text| guarded(tx, subject, &name, text)).await
}

/// `POST .../devices/{name}/certificates`.
async fn for_a_device(mut ask: Ask) -> Reply {
    let (wanted, namespace, name) = (wanted(&mut ask).await?, ask.namespace(), ask.name());
    let record =
        move |tx: &mut Tx<'_>, subject: &Subject, _| Ok(Record::Device(device(tx, subject, &namespace, &name)?.into()));
    issue(&ask, wanted, record).await
}

/// `POST .../users/{name}/bootstraptokens`.
async fn invite_user(ask: Ask) -> Reply {
    let name = ask.name();
    let find = move |tx: &ReadTx<'_>, subject: &Subject| -> Result<Invited, Error> {
        let uid = user(tx, &name)?.metadata.uid.unwrap_or_default();
        let reference = SubjectReference::user(&name);
        guard::holds_all_of(tx, subject, &reference)?;
        Ok(Invited { uid, identity: reference.identity() })
    };
    invite(&ask, find).await
}

/// `POST .../devices/{name}/bootstraptokens`.
async fn invite_device(ask: Ask) -> Reply {
    let (namespace, name) = (ask.namespace(), ask.name());
    let find = move |tx: &ReadTx<'_>, subject: &Subject| -> Result<Invited, Error> {
        let device = device(tx, subject, &namespace, &name)?;
        Ok(Invited { identity: device.identity(), uid: device.metadata.uid.unwrap_or_default() })
    };
    invite(&ask, find).await
}

/// For whom a bootstrap token is.
struct Invited {
    uid: String,
    identity: String,
}

async fn invite(
    ask: &Ask,
    find: impl FnOnce(&ReadTx<'_>, &Subject) -> Result<Invited, Error> + Send + 'static,
) -> Reply {
    ask.no_dry_run()?;
    let (subject, made) = (ask.subject.clone(), secret::fresh(Purpose::Bootstrap)?);
    let (hash, fingerprint) = (made.hash, ask.api.authority.fingerprint()?);
    let work = move |tx: &mut Tx<'_>| -> Result<(String, Timestamp), Error> {
        let Invited { uid, identity } = find(tx, &subject)?;
        let expires_at = tx.steady_now() + BOOTSTRAP_LIFE;
        tx.forget_expired_credentials(Purpose::Bootstrap, &uid)?;
        tx.add_credential(Purpose::Bootstrap, &hash, &uid, Some(expires_at))?;
        Ok((identity, expires_at))
    };
    let (subject, expires_at) = transact(ask, work).await?;
    said(&Bootstrap { token: made.secret.to_string(), fingerprint, subject, expires_at })
}

/// What was made, for nobody on the way to keep.
fn said(answer: &impl Serialize) -> Reply {
    let body = serde_json::to_value(answer);
    let body = body.map_err(|_| Error::new(Reason::InternalError, "the answer cannot be written"))?;
    Ok(unkept(reply::with_code(StatusCode::CREATED, reply::json(&body))))
}

/// Signs a certificate for whom a record says, in the transaction that finds or makes that record.
async fn issue(
    ask: &Ask,
    wanted: Wanted,
    record: impl FnOnce(&mut Tx<'_>, &Subject, Option<String>) -> Result<Record, Error> + Send + 'static,
) -> Reply {
    let (subject, trail) = (ask.subject.clone(), ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<Issued, Error> {
        let Wanted { request, description, authority } = wanted;
        let record = record(tx, &subject, description)?;
        let signed = sign(&authority, &request, &record.holder(), tx.now(), record.life())?;
        let (name, subject) = (record.name(), record.identity());
        record.keep(tx, &signed)?;
        trail.about(&name);
        let Signed { pem: certificate, issued_at, expires_at, .. } = signed;
        let authority = authority.certificate_pem().to_owned();
        Ok(Issued { certificate, authority, subject, name, issued_at, expires_at })
    };
    said(&transact(ask, work).await?)
}

/// What is kept of a certificate.
enum Record {
    /// Of a user's.
    User(Box<Certificate>),
    /// Of a device's: the device itself.
    Device(Box<Device>),
}

impl Record {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::User(record) => &record.metadata,
            Self::Device(device) => &device.metadata,
        }
    }

    fn name(&self) -> String {
        self.metadata().name.clone().unwrap_or_default()
    }

    fn identity(&self) -> String {
        match self {
            Self::User(record) => SubjectReference::user(&record.spec.user).identity(),
            Self::Device(device) => device.identity(),
        }
    }

    fn holder(&self) -> Holder {
        match self {
            Self::User(record) => Holder { kind: "users", name: record.spec.user.clone() },
            Self::Device(_) => Holder { kind: "devices", name: self.name() },
        }
    }

    fn life(&self) -> SignedDuration {
        match self {
            Self::User(_) => USER_LIFE,
            Self::Device(_) => DEVICE_LIFE,
        }
    }

    /// Keeps that a certificate was signed, and by what it is recognised. Those before it are good until they end.
    fn keep(self, tx: &mut Tx<'_>, signed: &Signed) -> Result<(), Error> {
        let uid = self.metadata().uid.clone().unwrap_or_default();
        tx.forget_expired_credentials(Purpose::Certificate, &uid)?;
        tx.add_credential(Purpose::Certificate, &signed.presented.hash, &uid, Some(signed.expires_at))?;
        let (serial, hash) = (signed.serial.clone(), hex(&signed.presented.hash));
        let (issued_at, expires_at, subject) = (Some(signed.issued_at), Some(signed.expires_at), self.identity());
        match self {
            Self::User(record) => {
                let last_seen = record.status.as_ref().and_then(|status| status.last_seen);
                let status = CertificateStatus { serial, hash, issued_at, expires_at, last_seen };
                tx.update_status(&Certificate { status: Some(status), ..*record })?;
            }
            Self::Device(device) => {
                let last_seen = device.status.as_ref().and_then(|status| status.last_seen);
                let status = DeviceStatus { subject, serial, hash, issued_at, expires_at, last_seen };
                tx.update_status(&Device { status: Some(status), ..*device })?;
            }
        }
        Ok(())
    }
}

/// The record for whom a bootstrap token was made; the token is good for nothing from here on.
fn enrolled(tx: &mut Tx<'_>, hash: &[u8; 32], description: Option<String>) -> Result<Record, Error> {
    let enrolling = accounts::by_bootstrap(tx, hash, tx.steady_now())??;
    if !tx.take_credential(Purpose::Bootstrap, hash)? {
        return Err(Refusal::WrongBootstrap.into());
    }
    match enrolling {
        Enrolling::User(user) => new_record(tx, &user, description),
        Enrolling::Device(device) => Ok(Record::Device(device)),
    }
}

/// The record of a certificate that somebody came with. What ends it ends what it is renewed to.
fn record_of(tx: &Tx<'_>, presented: &Presented) -> Result<Record, Error> {
    let found = tx.credential(Purpose::Certificate, &presented.hash)?.ok_or(Refusal::UnknownCertificate)?;
    let (kind, object) = tx.by_uid(&found.object)?.ok_or(Refusal::UnknownCertificate)?;
    let record = match kind {
        _ if *kind == DEVICE => Device::deserialize(&object).ok().map(|device| Record::Device(device.into())),
        _ if *kind == CERTIFICATE => Certificate::deserialize(&object).ok().map(|one| Record::User(one.into())),
        _ => None,
    };
    match record.ok_or(Refusal::UnknownCertificate)? {
        Record::User(record) if record.spec.revoked => Err(Refusal::RevokedCertificate.into()),
        Record::Device(device) if device.spec.revoked => Err(Refusal::RevokedCertificate.into()),
        record => Ok(record),
    }
}

/// A new record for a user, by somebody who holds all that he holds.
fn guarded(tx: &mut Tx<'_>, subject: &Subject, name: &str, description: Option<String>) -> Result<Record, Error> {
    let user = user(tx, name)?;
    guard::holds_all_of(tx, subject, &SubjectReference::user(name))?;
    new_record(tx, &user, description)
}

fn new_record(tx: &mut Tx<'_>, user: &User, description: Option<String>) -> Result<Record, Error> {
    let name = user.metadata.name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}.")),
        owner_references: Some(vec![owned_by(user)]),
        ..ObjectMeta::default()
    };
    let spec = CertificateSpec { user: name, description, revoked: false };
    Ok(Record::User(tx.create(&Certificate { metadata, spec, status: None })?.into()))
}

/// A device, for somebody who holds what it may do.
fn device(tx: &ReadTx<'_>, subject: &Subject, namespace: &str, name: &str) -> Result<Device, Error> {
    let object = must_get(tx, &DEVICE, namespace, name)?;
    let unreadable = |_| Error::new(Reason::InternalError, "the device cannot be read");
    let device = Device::deserialize(&object).map_err(unreadable)?;
    guard::holds_all_of_device(tx, subject, &device)?;
    match device.spec.revoked {
        false => Ok(device),
        true => Err(Error::new(Reason::Conflict, "the device is revoked; delete it, and make it anew")),
    }
}
