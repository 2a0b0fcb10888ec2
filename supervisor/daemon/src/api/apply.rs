//! `PATCH` with a configuration to apply (server-side apply): one transaction that makes the object agree with it, or makes
//! the object, and records what its manager owns from then on.

use berth_model::field::FieldError;
use berth_model::kinds::{Registration, Request};
use berth_model::managed::{self, Fields};
use berth_model::patch;
use berth_model::policy::{Decision, Resource, Verb, authorize};
use berth_model::repeated::{self, Read};
use berth_model::status::{Failure, Reason};
use http::StatusCode;
use serde_json::{Value, json};

use super::guard::{Asker, Guard};
use super::references;
use super::reply::{Error, Reply};
use super::request::Ask;
use super::write::{FieldValidation, Kept, admit, answer, frame, in_the_clear, must_get, seal, transact};
use crate::secret::Sealer;
use crate::store::Tx;

/// What a manager wants of an object.
struct Wish {
    kind: &'static Registration,
    manager: String,
    /// All that he wants.
    configuration: Value,
    /// The fields of it.
    fields: Fields,
    /// Take over what others own.
    force: bool,
    validation: FieldValidation,
    repeated: Vec<String>,
    sealer: Sealer,
}

/// `PATCH` of type `application/apply-patch+yaml`.
pub(super) async fn apply(mut ask: Ask, kind: &'static Registration) -> Reply {
    let wish = Wish::of(&mut ask, kind).await?;
    let (namespace, name, may_create) = (ask.namespace(), ask.name(), may_create(&ask, kind));
    let asker = Asker::of(&ask);
    let work = move |tx: &mut Tx<'_>| -> Result<(StatusCode, Kept), Error> {
        let guard = Guard::begin(tx, &asker, kind)?;
        let old = tx.get_value(kind, &namespace, &name)?;
        let (code, kept) = match &old {
            Some(old) => (StatusCode::OK, wish.change(tx, old)?),
            None if !kind.serves(Verb::Create) => {
                return Err(must_get(tx, kind, &namespace, &name).err().unwrap_or_else(absent));
            }
            None => may_create.and_then(|()| Ok((StatusCode::CREATED, wish.make(tx)?)))?,
        };
        guard.end(tx, old.as_ref(), Some(&kept.object))?;
        Ok((code, kept))
    };
    let (code, kept) = transact(&ask, work).await?;
    answer(&ask, kind, code, kept)
}

fn absent() -> Error {
    Error::new(Reason::NotFound, "the object is not there, and only Berth makes objects of this kind")
}

/// Whoever applies makes what is not there: that is another right.
fn may_create(ask: &Ask, kind: &Registration) -> Result<(), Error> {
    let (namespace, name) = (ask.segment("namespace"), ask.segment("name"));
    let wanted = Resource::Object { group: kind.group, plural: kind.plural, subresource: "", namespace, name };
    match authorize(&ask.subject, Verb::Create, &wanted) {
        Decision::Allowed => Ok(()),
        Decision::Denied(why) => Err(Error::new(Reason::Forbidden, why)),
    }
}

impl Wish {
    async fn of(ask: &mut Ask, kind: &'static Registration) -> Result<Self, Error> {
        let validation = FieldValidation::of(ask, kind)?;
        let named = ask.query("fieldManager").is_some();
        let required = || FieldError::required("fieldManager", "say who applies (kubectl: --field-manager)");
        named.then_some(()).ok_or_else(required)?;
        let Read { value: mut configuration, repeated } = read(&ask.bytes().await?)?;
        frame(kind, &mut configuration, &ask.namespace(), &ask.name())?;
        let record = configuration.pointer("/metadata/managedFields");
        if record.is_some_and(|record| !record.is_null() && *record != json!([])) {
            return Err(Error::bad_request(
                "metadata.managedFields must be nil: it is Berth's own record; leave it out",
            ));
        }
        kind.configure(&mut configuration);
        let fields = Fields::of(&configuration, kind.lists());
        let (force, manager, sealer) = (ask.flag("force")?, ask.manager(), ask.api.sealer.clone());
        Ok(Self { kind, manager, configuration, fields, force, validation, repeated, sealer })
    }

    fn make(self, tx: &mut Tx<'_>) -> Result<Kept, Error> {
        let Self { kind, configuration: mut body, fields, sealer, .. } = self;
        sealer.resolve_digests(kind.sealed, &mut body, None)?;
        let admitted = admit(kind, body, &Request::Create)?;
        let warnings = self.validation.judge(kind, &admitted.unknown, &self.repeated)?;
        let seal = |object: &mut Value| seal(&sealer, kind, object, None);
        let object = tx.create_applied(kind, admitted.object, &fields, seal)?;
        references::check(tx, kind, &object, None)?;
        Ok(Kept { object, warnings })
    }

    fn change(self, tx: &mut Tx<'_>, old: &Value) -> Result<Kept, Error> {
        let (kind, version) = (self.kind, self.kind.api_version());
        let write = managed::Write {
            manager: &self.manager,
            api_version: &version,
            lists: kind.lists(),
            applied: Some(&self.fields),
            time: tx.now(),
        };
        let entries = managed::entries(old).map_err(|error| unreadable(&error))?;
        let (last, others) = managed::shares(&entries, &write);
        let clear = in_the_clear(&self.sealer, kind, old)?;
        let mut body = patch::apply(&clear, &self.configuration, &last, &others, kind.lists())?;
        self.sealer.resolve_digests(kind.sealed, &mut body, Some(old))?;
        let mut admitted = admit(kind, body, &Request::Patch(&clear))?;
        let warnings = self.validation.judge(kind, &admitted.unknown, &self.repeated)?;
        seal(&self.sealer, kind, &mut admitted.object, Some(old))?;
        let conflicts = managed::conflicts(&entries, old, &admitted.object, &write);
        if !self.force && !conflicts.is_empty() {
            let causes = conflicts.iter().map(managed::Conflict::cause).collect();
            return Err(Failure { causes, ..Failure::new(Reason::Conflict, managed::told_of(&conflicts)) }.into());
        }
        let object = tx.update_applied(kind, admitted.object, &self.fields)?.into_inner();
        references::check(tx, kind, &object, Some(old))?;
        Ok(Kept { object, warnings })
    }
}

fn unreadable(error: &serde_json::Error) -> Error {
    Error::new(Reason::InternalError, format!("the record of owned fields cannot be read: {error}"))
}

/// A configuration, which is JSON or one document of YAML.
fn read(text: &[u8]) -> Result<Read, Error> {
    repeated::read(text).or_else(|json| {
        let text = std::str::from_utf8(text).map_err(|_| Error::bad_request("the body is not UTF-8"))?;
        if text.trim_start().starts_with('{') {
            return Err(Error::bad_request(format!("the body is not the JSON expected here: {json}")));
        }
        // As kubectl reads: unquoted `yes` is a truth value and `0755` is octal.
        let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
        let value = serde_saphyr::from_str_with_options(text, options);
        let value =
            value.map_err(|yaml| Error::bad_request(format!("the body is not the YAML expected here: {yaml}")))?;
        Ok(Read { value, repeated: Vec::new() })
    })
}
