//! Invitations: an account that waits for somebody to set its password.
//!
//! ```text
//! POST .../invitations     user or none, role, namespace -> a secret, shown this once, and the Invitation
//! POST /auth/invitation    secret, password, user if it was left to him
//!                          -> the user, his role, and the invitation is gone: one transaction
//! ```
//!
//! Whoever invites has to hold what he gives, when he invites and still when it is taken: what was taken from him meanwhile,
//! or given to that name by others, comes to nobody by his invitation.

use berth_model::field::FieldError;
use berth_model::id::{dns_label, dns_subdomain};
use berth_model::kinds::{INVITATION, Request, USER};
use berth_model::login::{Accept, Accepted, Invite};
use berth_model::policy::{Known, Subject, Verb};
use berth_model::resource::invitation::{INVITATION_LIFE, InvitationSpec};
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectReference};
use berth_model::resource::{GROUP, Invitation, RoleBinding, User};
use berth_model::status::Reason;
use http::{Method, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::guard;
use super::login::{address, replace_password, said, secretly, too_often};
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::write::{admit, transact};
use crate::auth::{accounts, password, secret};
use crate::store::{Deletion, Purpose, ReadTx, Tx, hex};

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let access = Access::Object { group: GROUP, plural: "invitations", subresource: "", verb: Verb::Create };
    vec![
        Route::new(Method::POST, "/apis/berth.dev/v1/invitations", access, invite),
        Route::new(Method::POST, "/auth/invitation", Access::Path, accept),
    ]
}

/// `POST .../invitations`.
async fn invite(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let invite: Invite = said(&mut ask).await?;
    in_order(&invite)?;
    let (subject, made) = (ask.subject.clone(), secret::fresh(Purpose::Invitation)?);
    let (hash, trail) = (made.hash, ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<Invitation, Error> {
        let invitation = keep(tx, &subject, invite, &hash)?;
        trail.about(invitation.metadata.name.as_deref().unwrap_or_default());
        Ok(invitation)
    };
    let invitation = transact(&ask, work).await?;
    secretly(StatusCode::CREATED, &json!({ "secret": made.secret.as_str(), "invitation": invitation }))
}

fn in_order(invite: &Invite) -> Result<(), Error> {
    let told = |field: &str, checked: Result<(), berth_model::id::NameError>| {
        checked.map_err(|error| FieldError::invalid(field, error.to_string()))
    };
    told("user", invite.user.as_deref().map_or(Ok(()), dns_subdomain))?;
    told("role", dns_subdomain(&invite.role))?;
    Ok(told("namespace", invite.namespace.as_deref().map_or(Ok(()), dns_label))?)
}

/// Keeps an invitation, and by what it is recognised. It is called like the user, so that nobody is invited twice.
fn keep(tx: &mut Tx<'_>, subject: &Subject, invite: Invite, hash: &[u8; 32]) -> Result<Invitation, Error> {
    let Invite { user, role, namespace } = invite;
    may_give(tx, subject, user.as_deref(), &role, namespace.as_deref())?;
    if let Some(user) = &user {
        is_free(tx, user)?;
    }
    let expires_at = tx.steady_now() + INVITATION_LIFE;
    let generate_name = user.is_none().then(|| format!("{role}."));
    let metadata = ObjectMeta { name: user.clone(), generate_name, ..ObjectMeta::default() };
    let spec = InvitationSpec { user, role, namespace, invited_by: subject.identity().to_owned(), expires_at };
    let made = tx.create(&Invitation { metadata, spec, status: None })?;
    tx.add_credential(Purpose::Invitation, hash, made.metadata.uid.as_deref().unwrap_or_default(), Some(expires_at))?;
    Ok(made)
}

fn is_free(tx: &ReadTx<'_>, name: &str) -> Result<(), Error> {
    match tx.get::<User>("", name)? {
        None => Ok(()),
        Some(_) => Err(taken(format!("there is a user {name} already; grant him the role, or set his password"))),
    }
}

fn taken(message: String) -> Error {
    Error::new(Reason::AlreadyExists, message)
}

/// Whether somebody holds what another is to get, with what that name was granted already.
fn may_give(
    tx: &ReadTx<'_>,
    subject: &Subject,
    name: Option<&str>,
    role: &str,
    namespace: Option<&str>,
) -> Result<(), Error> {
    guard::holds_role(tx, subject, &binding(name.unwrap_or_default(), role, namespace))?;
    match name {
        Some(name) => guard::holds_all_of(tx, subject, &SubjectReference::user(name)),
        None => Ok(()),
    }
}

fn binding(name: &str, role: &str, namespace: Option<&str>) -> RoleBindingSpec {
    let subjects = vec![SubjectReference::user(name)];
    RoleBindingSpec { role: role.to_owned(), namespace: namespace.map(str::to_owned), subjects }
}

fn worthless() -> Error {
    let message = "this invitation is not good: it was used, taken back, or is over; ask for another";
    Error::new(Reason::Unauthorized, message)
}

/// The invitation that a secret is for, while it is good.
fn found(tx: &ReadTx<'_>, hash: &[u8; 32], now: Timestamp) -> Result<Invitation, Error> {
    let credential = tx.credential(Purpose::Invitation, hash)?.ok_or_else(worthless)?;
    let object = tx.by_uid(&credential.object)?.filter(|(kind, _)| **kind == INVITATION);
    let invitation = object.and_then(|(_, object)| Invitation::deserialize(&object).ok());
    invitation.filter(|invitation| now < invitation.spec.expires_at).ok_or_else(worthless)
}

/// The same for what somebody shows. Who is wrong too often waits, as at a login; each secret is counted by itself, so
/// that strangers keep nobody from his.
async fn shown(ask: &Ask, hash: Option<[u8; 32]>) -> Result<Invitation, Error> {
    let (from, now) = (address(ask), ask.api.store.steady_now());
    let counted = hash.map_or_else(String::new, |hash| hex(&hash));
    ask.api.attempts.allowed(&counted, from, now).map_err(too_often)?;
    let found = match hash {
        None => Err(worthless()),
        Some(hash) => ask.api.store.read(move |tx| Ok(found(tx, &hash, now))).await?,
    };
    found.inspect_err(|error| {
        if error.is_refusal() {
            ask.api.attempts.failed(&counted, from, now);
        }
    })
}

/// `POST /auth/invitation`.
async fn accept(mut ask: Ask) -> Reply {
    let Accept { secret: said_secret, user, password: word } = said(&mut ask).await?;
    let (said_secret, word) = (Zeroizing::new(said_secret), Zeroizing::new(word));
    let recognised = secret::recognise(&said_secret).filter(|(purpose, _)| *purpose == Purpose::Invitation);
    // Looked up before any work is done: to hash a password costs much.
    let hash = recognised.map(|(_, hash)| hash);
    let invitation = shown(&ask, hash).await?;
    let (hash, user) = (hash.ok_or_else(worthless)?, chosen(&invitation, user)?);
    ask.trail.about(&user);
    password::check(&user, &word)?;
    let phc = password::hash(word).await?;
    let (trail, identity) = (ask.trail.clone(), SubjectReference::user(&user).identity());
    ask.trail.by(&identity);
    let accepted = Accepted { user: user.clone() };
    let work = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let invitation = found(tx, &hash, tx.steady_now())?;
        take(tx, &invitation, &user, &phc)?;
        Ok(trail.done(tx)?)
    };
    ask.api.store.write(&ask.actor_of(&identity), work).await?;
    let body = serde_json::to_value(accepted).map_err(|error| reply::internal(&error))?;
    Ok(reply::with_code(StatusCode::CREATED, reply::json(&body)))
}

/// How the user is called who comes of an invitation.
fn chosen(invitation: &Invitation, wanted: Option<String>) -> Result<String, Error> {
    match (&invitation.spec.user, wanted) {
        (Some(user), wanted) if wanted.as_ref().is_none_or(|wanted| wanted == user) => Ok(user.clone()),
        (Some(user), _) => {
            let why = format!("this invitation is for {user}; leave the name out, or use that one");
            Err(FieldError::invalid("user", why).into())
        }
        (None, Some(wanted)) => {
            dns_subdomain(&wanted).map_err(|error| FieldError::invalid("user", error.to_string()))?;
            Ok(wanted)
        }
        (None, None) => {
            let why = "say how you want to be called: this invitation leaves it to you";
            Err(FieldError::required("user", why).into())
        }
    }
}

/// Makes the user, and ends the invitation with its secret.
fn take(tx: &mut Tx<'_>, invitation: &Invitation, name: &str, phc: &str) -> Result<(), Error> {
    let InvitationSpec { user, role, namespace, invited_by, .. } = &invitation.spec;
    let inviter = inviter(tx, invited_by)?;
    may_give(tx, &inviter, user.as_deref(), role, namespace.as_deref())?;
    if user.is_none() {
        is_nobodys(tx, name)?;
    }
    is_free(tx, name)?;
    let admitted = admit(&USER, json!({ "metadata": { "name": name }, "spec": {} }), &Request::Create)?;
    tx.create_value(&USER, admitted.object)?;
    grant(tx, name, role, namespace.as_deref())?;
    replace_password(tx, name, phc)?;
    tx.delete::<Invitation>("", invitation.metadata.name.as_deref().unwrap_or_default(), &Deletion::default())?;
    Ok(())
}

/// Refuses a name for which something waits: whoever chooses freely gets what he was invited to, and no more.
fn is_nobodys(tx: &ReadTx<'_>, name: &str) -> Result<(), Error> {
    let granted = !accounts::grants(tx, &SubjectReference::user(name))?.is_empty();
    match granted || tx.get::<Invitation>("", name)?.is_some() {
        false => Ok(()),
        true => Err(taken(format!("the name {name} is somebody else's; choose another"))),
    }
}

fn grant(tx: &mut Tx<'_>, name: &str, role: &str, namespace: Option<&str>) -> Result<(), Error> {
    let place = namespace.map_or_else(String::new, |namespace| format!(".in.{namespace}"));
    let called = format!("{role}.user.{name}{place}");
    let spec = binding(name, role, namespace);
    if tx.get::<RoleBinding>("", &called)?.is_some_and(|found| found.spec == spec) {
        return Ok(());
    }
    let metadata = ObjectMeta { name: Some(called), ..ObjectMeta::default() };
    tx.create(&RoleBinding { metadata, spec, status: None })?;
    Ok(())
}

/// Whoever invited somebody, with what he holds now.
fn inviter(tx: &ReadTx<'_>, identity: &str) -> Result<Subject, Error> {
    let reference = match identity.split(':').collect::<Vec<_>>().as_slice() {
        ["owner" | "local-root"] => return Ok(Subject::Owner),
        ["user", name] => {
            let user = tx.get::<User>("", name)?.filter(|user| !user.spec.disabled);
            user.map(|_| SubjectReference::user(name)).ok_or_else(worthless)?
        }
        ["system", "serviceaccount", namespace, name] => SubjectReference::service_account(namespace, name),
        _ => return Err(worthless()),
    };
    let grants = accounts::grants(tx, &reference)?;
    Ok(Subject::Known(Known { identity: identity.to_owned(), grants, within: None, authenticated: None }.into()))
}
