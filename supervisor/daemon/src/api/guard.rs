//! What keeps accounts from being turned against whoever set them up: nobody gives, takes or uses what he does not hold
//! himself, and one owner who can log in stays. It is asked inside the transaction that writes.

use berth_model::kinds::{API_KEY, CERTIFICATE, ROLE, ROLE_BINDING, Registration, SESSION, USER};
use berth_model::meta;
use berth_model::policy::Subject;
use berth_model::resource::Role;
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectReference};
use berth_model::status::Reason;
use serde::Deserialize;
use serde_json::Value;

use super::reply::Error;
use crate::auth::accounts;
use crate::store::ReadTx;

/// One write of an object, from before it until after it.
pub(super) struct Guard {
    subject: Subject,
    kind: &'static Registration,
    had_owner: bool,
}

impl Guard {
    /// Looks at what there is before.
    pub(super) fn begin(tx: &ReadTx<'_>, subject: &Subject, kind: &'static Registration) -> Result<Self, Error> {
        let matters = *kind == USER || *kind == ROLE_BINDING;
        Ok(Self { subject: subject.clone(), kind, had_owner: matters && accounts::has_owner(tx)? })
    }

    /// Refuses what was written, an object in the place of another, if whoever wrote it may not.
    pub(super) fn end(&self, tx: &ReadTx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Error> {
        for object in [old, new].into_iter().flatten() {
            self.may_touch(tx, object)?;
        }
        if self.had_owner && !accounts::has_owner(tx)? {
            let message = "this would leave nobody who is owner of the machine; make another user one first";
            return Err(Error::new(Reason::Forbidden, message));
        }
        Ok(())
    }

    /// Refuses whoever may not have anything to do with an object.
    pub(super) fn may_touch(&self, tx: &ReadTx<'_>, object: &Value) -> Result<(), Error> {
        let kind = self.kind;
        if *kind == ROLE_BINDING {
            let Ok(spec) = RoleBindingSpec::deserialize(&object["spec"]) else { return Ok(()) };
            let granted = accounts::granted(tx, &spec)?;
            let lacks = self.subject.lacks(&granted.rules, granted.namespace.as_deref());
            return refuse(lacks.is_some(), &self.subject, || granted.to_string());
        }
        if *kind == ROLE {
            let Ok(role) = Role::deserialize(object) else { return Ok(()) };
            let lacks = self.subject.lacks(&role.spec.rules, None);
            return refuse(lacks.is_some(), &self.subject, || {
                "all that this role allows, on the whole machine".to_owned()
            });
        }
        let user = match () {
            () if *kind == USER => meta::name(object),
            () if [&API_KEY, &CERTIFICATE, &SESSION].contains(&kind) => {
                object["spec"]["user"].as_str().unwrap_or_default()
            }
            () => return Ok(()),
        };
        holds_all_of(tx, &self.subject, &SubjectReference::user(user))
    }
}

/// Refuses whoever does not hold all that somebody else holds.
pub(super) fn holds_all_of(tx: &ReadTx<'_>, subject: &Subject, other: &SubjectReference) -> Result<(), Error> {
    for grant in accounts::grants(tx, other)? {
        let lacks = subject.lacks(&grant.rules, grant.namespace.as_deref()).is_some();
        refuse(lacks, subject, || format!("all that {} holds: {grant}", other.identity()))?;
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
