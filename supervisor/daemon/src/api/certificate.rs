//! Client certificates: whoever wants one sends a signing request, so that the key was never here.
//!
//! ```text
//! POST .../certificates               for whoever asks; with his certificate that one is renewed, and keeps its record
//! POST .../users/{name}/certificates  for a user, by whoever holds all that he holds
//! ```

use std::sync::Arc;

use berth_model::enrolment::{Issued, NewCertificate};
use berth_model::field::FieldError;
use berth_model::policy::{Subject, Verb};
use berth_model::resource::certificate::{CertificateSpec, CertificateStatus, USER_LIFE};
use berth_model::resource::role_binding::SubjectReference;
use berth_model::resource::{Certificate, GROUP};
use berth_model::status::Reason;
use http::{Method, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::account::user;
use super::guard;
use super::login::owned_by;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::write::transact;
use crate::auth::ca::Authority;
use crate::auth::client_certificate::{Holder, Presented, RequestError, Signed, SigningRequest, sign};
use crate::auth::{Refusal, bearer};
use crate::store::{Purpose, Tx};

/// The longest description, in characters.
const LONGEST: usize = 256;

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let access = |plural, subresource| Access::Object { group: GROUP, plural, subresource, verb: Verb::Create };
    let path = |path: &str| format!("/apis/berth.dev/v1/{path}");
    vec![
        Route::new(Method::POST, path("certificates"), access("certificates", ""), for_whoever_asks),
        Route::new(Method::POST, path("users/{name}/certificates"), access("users", "certificates"), for_a_user),
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
    let Some(name) = ask.subject.identity().strip_prefix("user:").map(str::to_owned) else {
        let message = "a certificate names a user, and whoever asks is none; say for whom: \
                       POST .../users/NAME/certificates (`berth ca NAME`)";
        return Err(Error::bad_request(message));
    };
    // Who comes with a token besides is known by that.
    let renewed = ask.presented.filter(|_| bearer(&ask.headers).is_ok_and(|token| token.is_none()));
    issue(&ask, name, wanted, renewed).await
}

/// `POST .../users/{name}/certificates`.
async fn for_a_user(mut ask: Ask) -> Reply {
    let wanted = wanted(&mut ask).await?;
    issue(&ask, ask.name(), wanted, None).await
}

async fn issue(ask: &Ask, name: String, wanted: Wanted, renewed: Option<Presented>) -> Reply {
    let (subject, trail) = (ask.subject.clone(), ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<Issued, Error> {
        let record = match renewed {
            Some(presented) => record_of(tx, &presented)?,
            None => new_record(tx, &subject, &name, wanted.description)?,
        };
        let holder = Holder { kind: "users", name };
        let signed = sign(&wanted.authority, &wanted.request, &holder, tx.now(), USER_LIFE)?;
        let kept = keep(tx, record, &signed)?;
        trail.about(&kept);
        let subject = SubjectReference::user(&holder.name).identity();
        Ok(answer(signed, &wanted.authority, kept, subject))
    };
    let issued = transact(ask, work).await?;
    let body = serde_json::to_value(&issued);
    let body = body.map_err(|_| Error::new(Reason::InternalError, "the answer cannot be written"))?;
    Ok(reply::with_code(StatusCode::CREATED, reply::json(&body)))
}

fn answer(signed: Signed, authority: &Authority, name: String, subject: String) -> Issued {
    Issued {
        certificate: signed.pem,
        authority: authority.certificate_pem().to_owned(),
        subject,
        name,
        issued_at: signed.issued_at,
        expires_at: signed.expires_at,
    }
}

/// The record of a certificate that somebody came with. What ends it ends what it is renewed to.
fn record_of(tx: &Tx<'_>, presented: &Presented) -> Result<Certificate, Error> {
    let found = tx.credential(Purpose::Certificate, &presented.hash)?.ok_or(Refusal::UnknownCertificate)?;
    let object = tx.by_uid(&found.object)?.and_then(|(_, object)| Certificate::deserialize(&object).ok());
    let record = object.ok_or(Refusal::UnknownCertificate)?;
    match record.spec.revoked {
        true => Err(Refusal::RevokedCertificate.into()),
        false => Ok(record),
    }
}

fn new_record(
    tx: &mut Tx<'_>,
    subject: &Subject,
    name: &str,
    description: Option<String>,
) -> Result<Certificate, Error> {
    let user = user(tx, name)?;
    guard::holds_all_of(tx, subject, &SubjectReference::user(name))?;
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}.")),
        owner_references: Some(vec![owned_by(&user)]),
        ..ObjectMeta::default()
    };
    let spec = CertificateSpec { user: name.to_owned(), description, revoked: false };
    Ok(tx.create(&Certificate { metadata, spec, status: None })?)
}

/// Records a certificate; answers the name of its record.
fn keep(tx: &mut Tx<'_>, record: Certificate, signed: &Signed) -> Result<String, Error> {
    let uid = record.metadata.uid.clone().unwrap_or_default();
    tx.forget_expired_credentials(Purpose::Certificate, &uid)?;
    tx.add_credential(Purpose::Certificate, &signed.presented.hash, &uid, Some(signed.expires_at))?;
    let status = CertificateStatus {
        serial: signed.serial.clone(),
        hash: crate::store::hex(&signed.presented.hash),
        issued_at: Some(signed.issued_at),
        expires_at: Some(signed.expires_at),
        ..record.status.clone().unwrap_or_default()
    };
    let name = record.metadata.name.clone().unwrap_or_default();
    tx.update_status(&Certificate { status: Some(status), ..record })?;
    Ok(name)
}
