//! The kinds that say who has an account and who may do what.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use super::berth::PLAIN;
use super::core;
use super::table::{Column, count, since, text};
use super::{Kind, Permanent, Registration, Shape};
use crate::policy::Verb;
use crate::resource::certificate::RECORD_LIFE;
use crate::resource::invitation::INVITATION_LIFE;
use crate::resource::session::SESSION_LIFE;
use crate::resource::{self, ApiKey, AuditRecord, Certificate, Device, Invitation, Role, RoleBinding, Session, User};

/// What clients may do with credentials that are made by other ways than writing them down.
const CREDENTIAL_VERBS: &[Verb] =
    &[Verb::Get, Verb::List, Verb::Watch, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];

/// Programs that have an account.
pub static SERVICE_ACCOUNT: Registration = Registration {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    columns: &[Column::NAME, Column::AGE],
    cells: |object, now| vec![text(object, "/metadata/name"), since(object, "/metadata/creationTimestamp", now)],
    shape: Shape::of::<ServiceAccount>(),
    ..core::PLAIN
};

fn has_second_factor(user: &Value) -> bool {
    user.pointer("/status/totpSet").is_some_and(Value::is_string) || user.pointer("/status/passkeys/0").is_some()
}

/// Persons who have an account.
pub static USER: Registration = Registration {
    kind: "User",
    plural: "users",
    singular: "user",
    namespaced: false,
    columns: &[
        Column::NAME,
        Column::text("Display-Name", "How he is called by others."),
        Column::text("Disabled", "Whether he is kept out."),
        Column::text("Second-Factor", "Whether he needs more than his password to log in."),
        Column::text("Last-Login", "Time since he last logged in."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/displayName"),
            flag(object, "/spec/disabled"),
            truth(has_second_factor(object)),
            at(object, "/status/lastLogin", now),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    complete: |body, _| {
        if let Some(fields) = body.as_object_mut() {
            fields.entry("spec").or_insert_with(|| serde_json::json!({}));
        }
    },
    shape: Shape::of::<User>(),
    ..PLAIN
};

/// Rules under a name.
pub static ROLE: Registration = Registration {
    kind: "Role",
    plural: "roles",
    singular: "role",
    namespaced: false,
    columns: &[
        Column::NAME,
        Column::text("Description", "Whom it is for."),
        Column::number("Rules", "How many it has."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/description"),
            Value::from(count(object, "/spec/rules")),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    status: false,
    permanent: &[always("owner"), always("admin"), always("operator"), always("auditor"), always("viewer")],
    shape: Shape::of::<Role>(),
    validate: resource::role::validate,
    ..PLAIN
};

const fn always(name: &'static str) -> Permanent {
    Permanent { namespace: "", name, instead: "delete the role bindings that grant it" }
}

/// Who is granted what.
pub static ROLE_BINDING: Registration = Registration {
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    namespaced: false,
    columns: &[
        Column::NAME,
        Column::text("Role", "What is granted."),
        Column::text("Namespace", "Where; `*` is the whole machine."),
        Column::text("Subjects", "To whom."),
        Column::AGE,
    ],
    cells: |object, now| {
        let shown = |cell: Value, empty: &str| if cell == "" { Value::from(empty) } else { cell };
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/role"),
            shown(text(object, "/spec/namespace"), "*"),
            Value::from(subjects(object)),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    selectable: &["spec.role", "spec.namespace"],
    status: false,
    shape: Shape::of::<RoleBinding>(),
    validate: resource::role_binding::validate,
    ..PLAIN
};

/// Credentials of users for programs.
pub static API_KEY: Registration = Registration {
    kind: "ApiKey",
    plural: "apikeys",
    singular: "apikey",
    namespaced: false,
    verbs: CREDENTIAL_VERBS,
    instead: "an API key is made by POST .../users/NAME/apikeys, which shows it once: `berth apikey create`",
    columns: &[
        Column::NAME,
        Column::text("User", "On whose behalf it acts."),
        Column::text("Role", "It may do no more than this role."),
        Column::text("Namespace", "It is good there alone."),
        Column::text("Expires", "When it ends."),
        Column::text("Last-Used", "Time since it was last used."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/user"),
            text(object, "/spec/role"),
            text(object, "/spec/namespace"),
            text(object, "/spec/expiresAt"),
            at(object, "/status/lastUsed", now),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    selectable: &["spec.user"],
    immutable_spec: true,
    shape: Shape::of::<ApiKey>(),
    ..PLAIN
};

/// Accounts that wait for somebody to set their password.
pub static INVITATION: Registration = Registration {
    kind: "Invitation",
    plural: "invitations",
    singular: "invitation",
    namespaced: false,
    verbs: CREDENTIAL_VERBS,
    instead: "an invitation is made by POST .../invitations, with who is invited to what, which shows its secret once: `berth invite`",
    columns: &[
        Column::NAME,
        Column::text("User", "How he will be called; empty, if he chooses."),
        Column::text("Role", "What he will be granted."),
        Column::text("Namespace", "Where; `*` is the whole machine."),
        Column::text("Invited-By", "Who invited him."),
        Column::text("Expires", "When it ends."),
        Column::AGE,
    ],
    cells: |object, now| {
        let shown = |cell: Value, empty: &str| if cell == "" { Value::from(empty) } else { cell };
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/user"),
            text(object, "/spec/role"),
            shown(text(object, "/spec/namespace"), "*"),
            text(object, "/spec/invitedBy"),
            text(object, "/spec/expiresAt"),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    status: false,
    immutable_spec: true,
    life: |_| Some(INVITATION_LIFE),
    shape: Shape::of::<Invitation>(),
    ..PLAIN
};

/// Users who are logged in.
pub static SESSION: Registration = Registration {
    kind: "Session",
    plural: "sessions",
    singular: "session",
    namespaced: false,
    verbs: CREDENTIAL_VERBS,
    instead: "a session is made by logging in: `berth login`, or POST /auth/login",
    columns: &[
        Column::NAME,
        Column::text("User", "Who is logged in."),
        Column::text("Address", "From where he last was seen."),
        Column::text("Program", "By which program."),
        Column::text("Refreshed", "Time since it was last refreshed."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/user"),
            text(object, "/status/address"),
            text(object, "/status/program"),
            at(object, "/status/refreshed", now),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    selectable: &["spec.user"],
    immutable_spec: true,
    life: |_| Some(SESSION_LIFE),
    shape: Shape::of::<Session>(),
    ..PLAIN
};

/// Client certificates of users.
pub static CERTIFICATE: Registration = Registration {
    kind: "Certificate",
    plural: "certificates",
    singular: "certificate",
    short_names: &["cert"],
    namespaced: false,
    verbs: CREDENTIAL_VERBS,
    instead: "a certificate is made by sending a signing request, not the object: `berth ca`",
    columns: &[
        Column::NAME,
        Column::text("User", "Who is recognised by it."),
        Column::text("Revoked", "Whether it was ended."),
        Column::text("Expires", "When it ends."),
        Column::text("Last-Seen", "Time since somebody came with it."),
        Column::AGE,
        Column::text("Serial", "Its serial number.").wide(),
        Column::text("Description", "What it is for.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/user"),
            flag(object, "/spec/revoked"),
            text(object, "/status/expiresAt"),
            at(object, "/status/lastSeen", now),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/status/serial"),
            text(object, "/spec/description"),
        ]
    },
    selectable: &["spec.user", "spec.revoked", "status.serial"],
    life: |_| Some(RECORD_LIFE),
    shape: Shape::of::<Certificate>(),
    validate: resource::certificate::validate,
    ..PLAIN
};

/// Machines that ask by themselves.
pub static DEVICE: Registration = Registration {
    kind: "Device",
    plural: "devices",
    singular: "device",
    label_name: true,
    columns: &[
        Column::NAME,
        Column::text("Role", "What it may do in its namespace."),
        Column::text("Revoked", "Whether it was kept out."),
        Column::text("Expires", "When its certificate ends."),
        Column::text("Last-Seen", "Time since it came with its certificate."),
        Column::AGE,
        Column::text("Serial", "The serial number of its certificate.").wide(),
        Column::text("Description", "What it is.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/role"),
            flag(object, "/spec/revoked"),
            text(object, "/status/expiresAt"),
            at(object, "/status/lastSeen", now),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/status/serial"),
            text(object, "/spec/description"),
        ]
    },
    selectable: &["spec.role", "spec.revoked", "status.serial"],
    complete: |body, _| {
        if let Some(fields) = body.as_object_mut() {
            fields.entry("spec").or_insert_with(|| serde_json::json!({}));
        }
    },
    shape: Shape::of::<Device>(),
    validate: resource::device::validate,
    ..PLAIN
};

/// What was done and refused.
pub static AUDIT_RECORD: Registration = Registration {
    kind: "AuditRecord",
    plural: "auditrecords",
    singular: "auditrecord",
    namespaced: false,
    verbs: &[Verb::Get, Verb::List],
    instead: "audit records are made by Berth alone, of every deed and every refusal, and go when they are 90 days old",
    columns: &[
        Column::NAME,
        Column::text("Who", "Who did it."),
        Column::text("From", "From where."),
        Column::text("Verb", "What was to be done."),
        Column::text("What", "Of what."),
        Column::text("Result", "Done or Denied."),
        Column::AGE,
        Column::text("Message", "Why not.").wide(),
    ],
    cells: |object, now| {
        let part = |field: &str| object["spec"][field].as_str().unwrap_or_default().to_owned();
        let place = [part("resource"), part("namespace"), part("name")];
        let place: Vec<&str> = place.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/identity"),
            text(object, "/spec/address"),
            text(object, "/spec/verb"),
            Value::from(place.join(" ")),
            text(object, "/spec/result"),
            since(object, "/spec/time", now),
            text(object, "/spec/message"),
        ]
    },
    selectable: &["spec.identity", "spec.verb", "spec.resource", "spec.namespace", "spec.name", "spec.result"],
    status: false,
    immutable_spec: true,
    chained: true,
    shape: Shape::of::<AuditRecord>(),
    ..PLAIN
};

/// What is true or false, or is left out if it is false.
fn flag(object: &Value, pointer: &str) -> Value {
    truth(object.pointer(pointer) == Some(&Value::Bool(true)))
}

fn truth(is: bool) -> Value {
    Value::from(if is { "True" } else { "False" })
}

/// Time since something that may never have happened.
fn at(object: &Value, pointer: &str, now: jiff::Timestamp) -> Value {
    match object.pointer(pointer) {
        None | Some(Value::Null) => Value::from("<never>"),
        Some(_) => since(object, pointer, now),
    }
}

fn subjects(object: &Value) -> String {
    let subjects = object.pointer("/spec/subjects").and_then(Value::as_array);
    let shown = |subject: &Value| {
        let part = |field: &str| subject[field].as_str().unwrap_or_default().to_owned();
        match part("namespace").as_str() {
            "" => part("name"),
            namespace => format!("{namespace}/{}", part("name")),
        }
    };
    subjects.into_iter().flatten().map(shown).collect::<Vec<_>>().join(",")
}

impl Kind for ServiceAccount {
    fn registration() -> &'static Registration {
        &SERVICE_ACCOUNT
    }
}

impl Kind for User {
    fn registration() -> &'static Registration {
        &USER
    }
}

impl Kind for Role {
    fn registration() -> &'static Registration {
        &ROLE
    }
}

impl Kind for RoleBinding {
    fn registration() -> &'static Registration {
        &ROLE_BINDING
    }
}

impl Kind for ApiKey {
    fn registration() -> &'static Registration {
        &API_KEY
    }
}

impl Kind for Invitation {
    fn registration() -> &'static Registration {
        &INVITATION
    }
}

impl Kind for Session {
    fn registration() -> &'static Registration {
        &SESSION
    }
}

impl Kind for Certificate {
    fn registration() -> &'static Registration {
        &CERTIFICATE
    }
}

impl Kind for Device {
    fn registration() -> &'static Registration {
        &DEVICE
    }
}

impl Kind for AuditRecord {
    fn registration() -> &'static Registration {
        &AUDIT_RECORD
    }
}
