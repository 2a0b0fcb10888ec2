//! From a credential to whoever it stands for, with what was granted to him: read anew for each request, so that what is
//! taken back is taken back at once.

use berth_model::kinds::{API_KEY, CERTIFICATE, DEVICE, INVITATION, Registration, SESSION, USER};
use berth_model::meta;
use berth_model::policy::{BUILT_IN, Grant, Known, OWNER, built_in};
use berth_model::resource::api_key::ApiKeyStatus;
use berth_model::resource::certificate::CertificateStatus;
use berth_model::resource::device::DeviceStatus;
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectKind, SubjectReference};
use berth_model::resource::{ApiKey, Certificate, Device, Role, RoleBinding, Session, User};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use crate::store::{Credential, Purpose, ReadTx, Store, StoreError, Tx, house_keeping};

/// How exact the time of the last use of a key is, so that not every request writes.
const USE_NOTED: SignedDuration = SignedDuration::from_hours(1);

/// Whoever was recognised.
pub struct Recognised {
    /// He.
    pub known: Known,
    /// What he showed, if its last use is to be noted.
    pub used: Option<Used>,
}

/// What was used, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Used {
    /// An API key.
    Key(String),
    /// A user's client certificate.
    Certificate(String),
    /// The certificate of a device, by the names of namespace and device.
    Device(String, String),
}

/// Notes that it was used now.
pub fn note_use(tx: &mut Tx<'_>, used: &Used) -> Result<(), StoreError> {
    let now = Some(tx.steady_now());
    match used {
        Used::Key(name) => {
            let Some(found) = tx.get::<ApiKey>("", name)? else { return Ok(()) };
            tx.update_status(&ApiKey { status: Some(ApiKeyStatus { last_used: now }), ..found }).map(drop)
        }
        Used::Certificate(name) => {
            let Some(found) = tx.get::<Certificate>("", name)? else { return Ok(()) };
            let status = CertificateStatus { last_seen: now, ..found.status.clone().unwrap_or_default() };
            tx.update_status(&Certificate { status: Some(status), ..found }).map(drop)
        }
        Used::Device(namespace, name) => {
            let Some(found) = tx.get::<Device>(namespace, name)? else { return Ok(()) };
            let status = DeviceStatus { last_seen: now, ..found.status.clone().unwrap_or_default() };
            tx.update_status(&Device { status: Some(status), ..found }).map(drop)
        }
    }
}

fn is_stale(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= USE_NOTED)
}

type Answer<T> = Result<Result<T, Refusal>, StoreError>;

/// Whose a session's or a user's credential is.
pub fn by_credential(tx: &ReadTx<'_>, purpose: Purpose, hash: &[u8; 32], now: Timestamp) -> Answer<Recognised> {
    let Some(found) = tx.credential(purpose, hash)? else { return Ok(Err(Refusal::WrongToken)) };
    match worthless(&found, now) {
        Some(refusal) => Ok(Err(refusal)),
        None => by_object(tx, &found.object, now),
    }
}

/// Who comes by the session, key or certificate with this uid.
pub fn by_object(tx: &ReadTx<'_>, uid: &str, now: Timestamp) -> Answer<Recognised> {
    let Some((kind, object)) = tx.by_uid(uid)? else { return Ok(Err(Refusal::WrongToken)) };
    if [&CERTIFICATE, &DEVICE].contains(&kind) {
        return of_certificate(tx, kind, &object, now);
    }
    if *kind == SESSION {
        let session = Session::deserialize(&object).ok();
        let status = session.as_ref().and_then(|session| session.status.as_ref());
        // Of a session that does not say, it was long ago.
        let authenticated = status.and_then(|status| status.authenticated).unwrap_or(Timestamp::MIN);
        let shown = Shown { authenticated: Some(authenticated), ..Shown::default() };
        return of_user(tx, session.map(|session| session.spec.user), shown);
    }
    let key = ApiKey::deserialize(&object).ok().filter(|_| *kind == API_KEY);
    let Some(key) = key else { return Ok(Err(Refusal::WrongToken)) };
    let last = key.status.and_then(|status| status.last_used);
    let stale = is_stale(last, now);
    let within = match (&key.spec.role, &key.spec.namespace) {
        (None, None) => None,
        (role, namespace) => Some(limit(tx, role.as_deref(), namespace.clone())?),
    };
    let used = key.metadata.name.filter(|_| stale).map(Used::Key);
    of_user(tx, Some(key.spec.user), Shown { within, used, authenticated: None })
}

/// The name by which records speak of whoever holds it, whether it is still good or not.
pub fn holder(tx: &ReadTx<'_>, purpose: Purpose, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
    let Some(found) = tx.credential(purpose, hash)? else { return Ok(None) };
    let Some((kind, object)) = tx.by_uid(&found.object)? else { return Ok(None) };
    if *kind == DEVICE {
        return Ok(Device::deserialize(&object).ok().map(|device| device.identity()));
    }
    let user = object.pointer("/spec/user").and_then(Value::as_str);
    Ok(user.map(|user| SubjectReference::user(user).identity()))
}

/// Whose client certificate it is.
pub fn by_certificate(tx: &ReadTx<'_>, hash: &[u8; 32], now: Timestamp) -> Answer<Recognised> {
    let Some(found) = tx.credential(Purpose::Certificate, hash)? else { return Ok(Err(Refusal::UnknownCertificate)) };
    if worthless(&found, now).is_some() {
        return Ok(Err(Refusal::ExpiredCertificate));
    }
    let Some((kind, object)) = tx.by_uid(&found.object)? else { return Ok(Err(Refusal::UnknownCertificate)) };
    of_certificate(tx, kind, &object, now)
}

fn of_certificate(tx: &ReadTx<'_>, kind: &'static Registration, object: &Value, now: Timestamp) -> Answer<Recognised> {
    if *kind == DEVICE {
        return Device::deserialize(object).map_or(Ok(Err(Refusal::UnknownCertificate)), |one| of_device(tx, one, now));
    }
    let certificate = Certificate::deserialize(object).ok().filter(|_| *kind == CERTIFICATE);
    let Some(certificate) = certificate else { return Ok(Err(Refusal::UnknownCertificate)) };
    if certificate.spec.revoked {
        return Ok(Err(Refusal::RevokedCertificate));
    }
    let stale = is_stale(certificate.status.and_then(|status| status.last_seen), now);
    let used = certificate.metadata.name.filter(|_| stale).map(Used::Certificate);
    of_user(tx, Some(certificate.spec.user), Shown { used, ..Shown::default() })
}

fn of_device(tx: &ReadTx<'_>, device: Device, now: Timestamp) -> Answer<Recognised> {
    if device.spec.revoked {
        return Ok(Err(Refusal::RevokedCertificate));
    }
    if device.metadata.deletion_timestamp.is_some() {
        return Ok(Err(Refusal::UnknownCertificate));
    }
    let grants = grants_of_device(tx, &device)?;
    let known = Known { identity: device.identity(), grants, within: None, authenticated: None };
    let last = device.status.and_then(|status| status.last_seen);
    let place = (device.metadata.namespace.unwrap_or_default(), device.metadata.name.unwrap_or_default());
    let used = is_stale(last, now).then_some(Used::Device(place.0, place.1));
    Ok(Ok(Recognised { known, used }))
}

/// What a device may do: its role, in its namespace.
pub fn grants_of_device(tx: &ReadTx<'_>, device: &Device) -> Result<Vec<Grant>, StoreError> {
    let Some(role) = &device.spec.role else { return Ok(Vec::new()) };
    let namespace = Some(device.metadata.namespace.clone().unwrap_or_default());
    Ok(vec![Grant { role: role.clone(), namespace, rules: rules(tx, role)? }])
}

/// Whoever enrols with a bootstrap token.
#[derive(Clone, Debug, PartialEq)]
pub enum Enrolling {
    /// A user.
    User(Box<User>),
    /// A device.
    Device(Box<Device>),
}

impl Enrolling {
    /// The name by which records speak of him.
    pub fn identity(&self) -> String {
        match self {
            Self::Device(device) => device.identity(),
            Self::User(user) => SubjectReference::user(user.metadata.name.as_deref().unwrap_or_default()).identity(),
        }
    }
}

/// Whose bootstrap token it is.
pub fn by_bootstrap(tx: &ReadTx<'_>, hash: &[u8; 32], now: Timestamp) -> Answer<Enrolling> {
    let found = tx.credential(Purpose::Bootstrap, hash)?.filter(|found| worthless(found, now).is_none());
    let Some(found) = found else { return Ok(Err(Refusal::WrongBootstrap)) };
    let Some((kind, object)) = tx.by_uid(&found.object)? else { return Ok(Err(Refusal::WrongBootstrap)) };
    if *kind == DEVICE {
        let device = Device::deserialize(&object).ok();
        let device = device.filter(|one| !one.spec.revoked && one.metadata.deletion_timestamp.is_none());
        return Ok(device.map(|one| Enrolling::Device(one.into())).ok_or(Refusal::WrongBootstrap));
    }
    let user = User::deserialize(&object).ok().filter(|_| *kind == USER);
    Ok(match user {
        None => Err(Refusal::WrongBootstrap),
        Some(user) if user.spec.disabled || user.metadata.deletion_timestamp.is_some() => Err(Refusal::Disabled),
        Some(user) => Ok(Enrolling::User(user.into())),
    })
}

/// What is known of the credential that was shown.
#[derive(Default)]
struct Shown {
    within: Option<Grant>,
    used: Option<Used>,
    authenticated: Option<Timestamp>,
}

fn worthless(found: &Credential, now: Timestamp) -> Option<Refusal> {
    let over = found.spent || found.expires_at.is_some_and(|at| at <= now);
    over.then_some(Refusal::Expired)
}

/// What a key is good for at most.
fn limit(tx: &ReadTx<'_>, role: Option<&str>, namespace: Option<String>) -> Result<Grant, StoreError> {
    let role = role.unwrap_or(OWNER);
    Ok(Grant { role: role.to_owned(), namespace, rules: rules(tx, role)? })
}

fn of_user(tx: &ReadTx<'_>, name: Option<String>, shown: Shown) -> Answer<Recognised> {
    let Some(name) = name else { return Ok(Err(Refusal::WrongToken)) };
    let Some(user) = tx.get::<User>("", &name)? else { return Ok(Err(Refusal::WrongToken)) };
    if user.spec.disabled || user.metadata.deletion_timestamp.is_some() {
        return Ok(Err(Refusal::Disabled));
    }
    let (subject, Shown { within, used, authenticated }) = (SubjectReference::user(&name), shown);
    let known = Known { identity: subject.identity(), grants: grants(tx, &subject)?, within, authenticated };
    Ok(Ok(Recognised { known, used }))
}

/// The service account of this uid, if it is still that one.
pub fn by_service_account(tx: &ReadTx<'_>, namespace: &str, name: &str, uid: &str) -> Answer<Recognised> {
    let found = tx.get::<ServiceAccount>(namespace, name)?;
    let same = found
        .is_some_and(|found| found.metadata.uid.as_deref() == Some(uid) && found.metadata.deletion_timestamp.is_none());
    if !same {
        return Ok(Err(Refusal::WrongToken));
    }
    let subject = SubjectReference::service_account(namespace, name);
    let known =
        Known { identity: subject.identity(), grants: grants(tx, &subject)?, within: None, authenticated: None };
    Ok(Ok(Recognised { known, used: None }))
}

/// All that is granted to somebody.
pub fn grants(tx: &ReadTx<'_>, subject: &SubjectReference) -> Result<Vec<Grant>, StoreError> {
    let bindings = tx.list::<RoleBinding>(None)?.into_iter();
    let his = bindings.filter(|one| one.spec.subjects.contains(subject));
    his.map(|one| granted(tx, &one.spec)).collect()
}

/// What a binding grants.
pub fn granted(tx: &ReadTx<'_>, spec: &RoleBindingSpec) -> Result<Grant, StoreError> {
    Ok(Grant { role: spec.role.clone(), namespace: spec.namespace.clone(), rules: rules(tx, &spec.role)? })
}

/// Sees to it that the built-in roles can be read where all others are, as this release has them.
///
/// # Errors
/// The store cannot be written.
pub async fn show_built_in_roles(store: &Store) -> Result<(), StoreError> {
    let show = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for role in BUILT_IN {
            let role = Role::of(role);
            match tx.get::<Role>("", role.metadata.name.as_deref().unwrap_or_default())? {
                None => drop(tx.create(&role)?),
                Some(found) => drop(tx.update(&Role { spec: role.spec, ..found })?),
            }
        }
        Ok(())
    };
    store.write(&house_keeping(), show).await
}

/// Logs out everybody whose session has not been refreshed for too long, and forgets certificates that ended long ago.
///
/// # Errors
/// The store cannot be written.
pub async fn end_old_sessions(store: &Store) -> Result<(), StoreError> {
    let end = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        let now = tx.steady_now();
        for kind in [&SESSION, &CERTIFICATE, &INVITATION] {
            for old in tx.expired(kind, now)? {
                tx.expire(meta::uid(&old.object), now)?;
            }
        }
        tx.forget_ended_device_logins()?;
        tx.note_steady()
    };
    store.write(&house_keeping(), end).await
}

/// Whether a user who can log in is owner of the whole machine.
pub fn has_owner(tx: &ReadTx<'_>) -> Result<bool, StoreError> {
    let bindings = tx.list::<RoleBinding>(None)?.into_iter();
    let owners = bindings.filter(|one| one.spec.role == OWNER && one.spec.namespace.is_none());
    for subject in owners.flat_map(|one| one.spec.subjects).filter(|one| one.kind == SubjectKind::User) {
        let user = tx.get::<User>("", &subject.name)?;
        if user.is_some_and(|user| !user.spec.disabled && user.metadata.deletion_timestamp.is_none()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a role allows: one that is not there allows nothing.
pub fn rules(tx: &ReadTx<'_>, role: &str) -> Result<Vec<PolicyRule>, StoreError> {
    match built_in(role) {
        Some(role) => Ok(role.rules()),
        None => Ok(tx.get::<Role>("", role)?.map(|role| role.spec.rules).unwrap_or_default()),
    }
}
