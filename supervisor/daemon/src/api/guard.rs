//! What keeps accounts from being turned against whoever set them up: nobody gives, takes or uses what he does not hold
//! himself, and one owner who can log in stays. It is asked inside the transaction that writes.

use berth_model::kinds::{
    API_KEY, CERTIFICATE, DEVICE, INVITATION, ROLE, ROLE_BINDING, Registration, SECRET, SESSION, SETTINGS, USER,
};
use berth_model::meta;
use berth_model::policy::{Decision, Resource, Subject, Verb, authorize};
use berth_model::resource::invitation::InvitationSpec;
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectReference};
use berth_model::resource::settings::Settings;
use berth_model::resource::{Device, Role};
use berth_model::status::Reason;
use serde::Deserialize;
use serde_json::Value;

use super::reply::Error;
use super::request::Ask;
use super::route::REVEAL;
use crate::auth::accounts;
use crate::store::ReadTx;

/// Who writes, and how he comes.
pub(super) struct Asker {
    subject: Subject,
    /// He would still get in where nobody does without a client certificate.
    is_certified: bool,
}

impl Asker {
    /// Of a request.
    pub(super) fn of(ask: &Ask) -> Self {
        let is_certified = ask.presented.is_some() || ask.subject == Subject::LocalRoot;
        Self { subject: ask.subject.clone(), is_certified }
    }
}

/// One write of an object, from before it until after it.
pub(super) struct Guard<'a> {
    asker: &'a Asker,
    kind: &'static Registration,
    had_owner: bool,
}

impl<'a> Guard<'a> {
    /// Looks at what there is before.
    pub(super) fn begin(tx: &ReadTx<'_>, asker: &'a Asker, kind: &'static Registration) -> Result<Self, Error> {
        let matters = *kind == USER || *kind == ROLE_BINDING;
        Ok(Self { asker, kind, had_owner: matters && accounts::has_owner(tx)? })
    }

    /// Refuses what was written, an object in the place of another, if whoever wrote it may not.
    pub(super) fn end(&self, tx: &ReadTx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Error> {
        for object in [old, new].into_iter().flatten() {
            self.may_touch(tx, object)?;
        }
        if *self.kind == SETTINGS {
            self.stays_inside(old, new)?;
            self.may_send(old, new)?;
        }
        if self.had_owner && !accounts::has_owner(tx)? {
            let message = "this would leave nobody who is owner of the machine; make another user one first";
            return Err(Error::new(Reason::Forbidden, message));
        }
        Ok(())
    }

    /// Refuses whoever would close the door behind which he stands himself.
    fn stays_inside(&self, old: Option<&Value>, new: Option<&Value>) -> Result<(), Error> {
        let closed = |object: Option<&Value>| {
            let settings = object.and_then(|object| Settings::deserialize(object).ok());
            settings.is_some_and(|settings| settings.spec.api.require_client_certificate)
        };
        if closed(old) || !closed(new) || self.asker.is_certified {
            return Ok(());
        }
        let message = "with this nobody gets in over the network without a client certificate, and you come without one; \
                       have one made (`berth ca NAME`) and ask with it, or do this as root on the machine itself";
        Err(Error::new(Reason::Forbidden, message))
    }

    /// Refuses whoever would have a Secret shown to a server that he may not read himself.
    fn may_send(&self, old: Option<&Value>, new: Option<&Value>) -> Result<(), Error> {
        let set = |object: Option<&Value>| Settings::deserialize(object?).ok()?.spec.audit.mirror.git;
        let Some(git) = set(new).filter(|git| set(old).as_ref() != Some(git)) else { return Ok(()) };
        let (namespace, name) = (git.secret.namespace.as_str(), git.secret.name.as_str());
        let resource = Resource::Object { group: "", plural: SECRET.plural, subresource: REVEAL, namespace, name };
        let allowed = authorize(&self.asker.subject, Verb::Get, &resource) == Decision::Allowed;
        refuse(!allowed, &self.asker.subject, || format!("the right to read Secret {namespace}/{name}"))
    }

    /// Refuses whoever may not have anything to do with an object.
    pub(super) fn may_touch(&self, tx: &ReadTx<'_>, object: &Value) -> Result<(), Error> {
        let kind = self.kind;
        if *kind == ROLE_BINDING {
            let Ok(spec) = RoleBindingSpec::deserialize(&object["spec"]) else { return Ok(()) };
            return holds_role(tx, &self.asker.subject, &spec);
        }
        if *kind == INVITATION {
            let Ok(spec) = InvitationSpec::deserialize(&object["spec"]) else { return Ok(()) };
            let spec = RoleBindingSpec { role: spec.role, namespace: spec.namespace, subjects: Vec::new() };
            return holds_role(tx, &self.asker.subject, &spec);
        }
        if *kind == ROLE {
            let Ok(role) = Role::deserialize(object) else { return Ok(()) };
            let lacks = self.asker.subject.lacks(&role.spec.rules, None);
            return refuse(lacks.is_some(), &self.asker.subject, || {
                "all that this role allows, on the whole machine".to_owned()
            });
        }
        if *kind == DEVICE {
            let Ok(device) = Device::deserialize(object) else { return Ok(()) };
            return holds_all_of_device(tx, &self.asker.subject, &device);
        }
        let user = match () {
            () if *kind == USER => meta::name(object),
            () if [&API_KEY, &CERTIFICATE, &SESSION].contains(&kind) => {
                object["spec"]["user"].as_str().unwrap_or_default()
            }
            () => return Ok(()),
        };
        holds_all_of(tx, &self.asker.subject, &SubjectReference::user(user))
    }
}

/// Refuses whoever does not hold what a binding grants.
pub(super) fn holds_role(tx: &ReadTx<'_>, subject: &Subject, spec: &RoleBindingSpec) -> Result<(), Error> {
    let granted = accounts::granted(tx, spec)?;
    let lacks = subject.lacks(&granted.rules, granted.namespace.as_deref());
    refuse(lacks.is_some(), subject, || granted.to_string())
}

/// Refuses whoever does not hold all that somebody else holds.
pub(super) fn holds_all_of(tx: &ReadTx<'_>, subject: &Subject, other: &SubjectReference) -> Result<(), Error> {
    for grant in accounts::grants(tx, other)? {
        let lacks = subject.lacks(&grant.rules, grant.namespace.as_deref()).is_some();
        refuse(lacks, subject, || format!("all that {} holds: {grant}", other.identity()))?;
    }
    Ok(())
}

/// Refuses whoever does not hold what a device may do.
pub(super) fn holds_all_of_device(tx: &ReadTx<'_>, subject: &Subject, device: &Device) -> Result<(), Error> {
    for grant in accounts::grants_of_device(tx, device)? {
        let lacks = subject.lacks(&grant.rules, grant.namespace.as_deref()).is_some();
        refuse(lacks, subject, || format!("all that {} holds: {grant}", device.identity()))?;
    }
    Ok(())
}

fn refuse(lacks: bool, subject: &Subject, what: impl FnOnce() -> String) -> Result<(), Error> {
    if !lacks {
        return Ok(());
    }
    let message = format!(
        "{} does not hold {}, and so cannot give, change or take it; ask somebody who does",
        subject.identity(),
        what()
    );
    Err(Error::new(Reason::Forbidden, message))
}
