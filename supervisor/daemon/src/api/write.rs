//! The generic writes, each one transaction: admit (the registry's rules), seal, keep.
//!
//! A dry run does all of it and then undoes the transaction by answering with an error.

use std::borrow::Cow;

use berth_model::field::FieldError;
use berth_model::kinds::{Admitted, Registration, Request};
use berth_model::repeated::Read;
use berth_model::status::{Failure, Reason};
use berth_model::{meta, patch as patching};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::apply;
use super::guard::{Asker, Guard};
use super::read::{scope, selector, visible};
use super::references;
use super::reply::{self, Error, Reply};
use super::request::{Ask, about};
use crate::secret::Sealer;
use crate::store::{Deletion, PageRequest, Propagation, ReadTx, Refusal, StoreError, Tx, Written};

/// An object as it was kept, and what the client should know about its request.
pub(super) struct Kept {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// What to do about fields that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `POST` to a collection.
pub(super) async fn create(mut ask: Ask, kind: &'static Registration) -> Reply {
    let validation = FieldValidation::of(&ask, kind)?;
    let Read { value: mut body, repeated } = ask.json().await?;
    frame(kind, &mut body, &ask.namespace(), "")?;
    let sealer = ask.api.sealer.clone();
    sealer.resolve_digests(kind.sealed, &mut body, None)?;
    let admitted = admit(kind, body, &Request::Create)?;
    let warnings = validation.judge(kind, &admitted.unknown, &repeated)?;
    let (asker, trail) = (Asker::of(&ask), ask.trail.clone());
    let work = move |tx: &mut Tx<'_>| -> Result<Kept, Error> {
        let guard = Guard::begin(tx, &asker, kind)?;
        let seal = |object: &mut Value| seal(&sealer, kind, object, None);
        let object = tx.create_finished(kind, admitted.object, seal)?;
        references::check(tx, kind, &object, None)?;
        guard.end(tx, None, Some(&object))?;
        trail.about(meta::name(&object));
        Ok(Kept { object, warnings })
    };
    let kept = transact(&ask, work).await?;
    answer(&ask, kind, StatusCode::CREATED, kept)
}

/// `PUT` of an object.
pub(super) async fn update(mut ask: Ask, kind: &'static Registration) -> Reply {
    let Read { value: mut body, repeated } = ask.json().await?;
    frame(kind, &mut body, &ask.namespace(), &ask.name())?;
    replace(ask, kind, Replacement::Whole(body), repeated).await
}

/// `PATCH` of an object: a JSON merge patch (RFC 7396), a JSON patch (RFC 6902), a strategic one of built-in kinds, and a
/// configuration to apply.
pub(super) async fn patch(mut ask: Ask, kind: &'static Registration) -> Reply {
    let media = ask.media_type();
    if media == patching::APPLY {
        return apply::apply(ask, kind).await;
    }
    if ask.flag("force")? {
        let error = FieldError::forbidden("force", "is for apply patches alone; leave it out");
        return Err(error.into());
    }
    let taken = kind.patches().contains(&media.as_str());
    let Some(apply) = patching::by_media_type(&media).filter(|_| taken) else {
        let message = format!(
            "a patch of type {media} is not taken here; send application/merge-patch+json \
             (kubectl patch --type=merge), application/json-patch+json (--type=json) or \
             application/apply-patch+yaml (kubectl apply --server-side)"
        );
        return Err(Error::new(Reason::UnsupportedMediaType, message));
    };
    let Read { value: changes, repeated } = ask.body_value().await?;
    replace(ask, kind, Replacement::Patch { apply, changes }, repeated).await
}

/// What an object is to be replaced by.
enum Replacement {
    Whole(Value),
    Patch { apply: patching::Patcher, changes: Value },
}

async fn replace(ask: Ask, kind: &'static Registration, by: Replacement, repeated: Vec<String>) -> Reply {
    let validation = FieldValidation::of(&ask, kind)?;
    let (namespace, name, sealer) = (ask.namespace(), ask.name(), ask.api.sealer.clone());
    let asker = Asker::of(&ask);
    let work = move |tx: &mut Tx<'_>| -> Result<Kept, Error> {
        let guard = Guard::begin(tx, &asker, kind)?;
        let old = must_get(tx, kind, &namespace, &name)?;
        let clear = in_the_clear(&sealer, kind, &old)?;
        let (mut body, request) = match by {
            Replacement::Whole(body) => (body, Request::Replace(&clear)),
            Replacement::Patch { apply, changes } => (apply(&clear, &changes, kind.lists())?, Request::Patch(&clear)),
        };
        sealer.resolve_digests(kind.sealed, &mut body, Some(&old))?;
        let mut admitted = admit(kind, body, &request)?;
        let warnings = validation.judge(kind, &admitted.unknown, &repeated)?;
        seal(&sealer, kind, &mut admitted.object, Some(&old))?;
        let object = tx.update_with_record(kind, admitted.object)?.into_inner();
        references::check(tx, kind, &object, Some(&old))?;
        guard.end(tx, Some(&old), Some(&object))?;
        Ok(Kept { object, warnings })
    };
    let kept = transact(&ask, work).await?;
    answer(&ask, kind, StatusCode::OK, kept)
}

/// `DELETE` of an object: a `Status` if it is gone, the object if something holds it.
pub(super) async fn delete(mut ask: Ask, kind: &'static Registration) -> Reply {
    let how = deletion(&mut ask).await?;
    let (namespace, name, asker) = (ask.namespace(), ask.name(), Asker::of(&ask));
    let work = move |tx: &mut Tx<'_>| -> Result<_, Error> {
        let guard = Guard::begin(tx, &asker, kind)?;
        let old = tx.get_value(kind, &namespace, &name)?;
        let deleted = tx.delete_value(kind, &namespace, &name, &how)?;
        guard.end(tx, old.as_ref(), None)?;
        Ok(deleted)
    };
    match transact(&ask, work).await? {
        Written::Removed(last) => Ok(reply::json(&removed(kind, &last))),
        Written::Changed(object) | Written::Unchanged(object) => {
            answer(&ask, kind, StatusCode::OK, Kept { object, warnings: Vec::new() })
        }
    }
}

/// `DELETE` of a collection: everything that the selectors choose, in one transaction.
pub(super) async fn delete_collection(mut ask: Ask, kind: &'static Registration) -> Reply {
    let how = deletion(&mut ask).await?;
    let chosen = PageRequest { namespace: scope(&ask), selector: selector(&ask, kind)?, ..PageRequest::default() };
    let asker = Asker::of(&ask);
    let work = move |tx: &mut Tx<'_>| -> Result<Vec<Value>, Error> {
        let guard = Guard::begin(tx, &asker, kind)?;
        let page = tx.page(kind, &chosen)?;
        let mut deleted = Vec::new();
        for object in page.items {
            guard.may_touch(tx, &object)?;
            match tx.delete_value(kind, meta::namespace(&object), meta::name(&object), &how) {
                Ok(written) => deleted.push(written.into_inner()),
                // It went with one before it.
                Err(StoreError::Refused(Refusal::NotFound { .. })) => deleted.push(object),
                Err(error) => return Err(error.into()),
            }
        }
        guard.end(tx, None, None)?;
        Ok(deleted)
    };
    let deleted = transact(&ask, work).await?;
    let visible = |object| visible(&ask.api, kind, object, false);
    let items = deleted.into_iter().map(visible).collect::<Result<Vec<_>, _>>()?;
    let version = ask.api.store.revision().borrow().to_string();
    let metadata = json!({ "resourceVersion": version });
    Ok(reply::json(&ask.shape().list(kind, items, metadata, (ask.api.clock)())))
}

/// Answers to a verb that the kind does not serve.
pub(super) async fn instead(_: Ask, kind: &'static Registration) -> Reply {
    let message = format!("{} cannot be changed so: {}", kind.plural, kind.instead);
    Err(Error::new(Reason::MethodNotAllowed, message))
}

/// Answers to a write of status.
pub(super) async fn status_is_ours(_: Ask, kind: &'static Registration) -> Reply {
    let message = format!("the status of {} is written by Berth alone; change the spec instead", kind.plural);
    Err(Error::new(Reason::MethodNotAllowed, message))
}

/// How a transaction ends that is not to be kept.
enum Undone<T> {
    Failed(Error),
    DryRun(T),
}

impl<T> From<StoreError> for Undone<T> {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs one transaction on behalf of whoever asks, and undoes it if that is only to see what would
/// come of it.
pub(super) async fn transact<T: Send + 'static>(
    ask: &Ask,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (dry, manager, trail) = (ask.dry_run()?, ask.manager(), ask.trail.clone());
    let all = move |tx: &mut Tx<'_>| {
        tx.set_manager(manager);
        let done = work(tx).map_err(Undone::Failed)?;
        if dry {
            return Err(Undone::DryRun(done));
        }
        trail.done(tx)?;
        Ok(done)
    };
    match ask.api.store.write(&ask.actor(), all).await {
        Ok(done) | Err(Undone::DryRun(done)) => Ok(done),
        Err(Undone::Failed(error)) => Err(error),
    }
}

/// An object that has to be there.
pub(super) fn must_get(
    tx: &ReadTx<'_>,
    kind: &'static Registration,
    namespace: &str,
    name: &str,
) -> Result<Value, Error> {
    let found = tx.get_value(kind, namespace, name)?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    found.ok_or_else(|| Refusal::NotFound { kind: kind.key(), namespace, name }.into())
}

pub(super) fn answer(ask: &Ask, kind: &Registration, code: StatusCode, kept: Kept) -> Reply {
    let object = visible(&ask.api, kind, kept.object, false)?;
    let shaped = ask.shape().object(kind, object, (ask.api.clock)());
    Ok(reply::warn(reply::with_code(code, reply::json(&shaped)), &kept.warnings))
}

/// Makes a body agree with the place it was sent to.
pub(super) fn frame(kind: &Registration, body: &mut Value, namespace: &str, name: &str) -> Result<(), Error> {
    if !body.is_object() {
        return Err(Error::bad_request("the body must be a JSON object"));
    }
    for pointer in ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"] {
        if body.pointer(pointer).is_some_and(|said| !said.is_string() && !said.is_null()) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            return Err(Error::bad_request(format!("{field} of the body must be a text")));
        }
    }
    for (field, expected) in [("apiVersion", kind.api_version().as_str()), ("kind", kind.kind)] {
        match body.get(field).and_then(Value::as_str) {
            None | Some("") => body[field] = expected.into(),
            Some(found) if found == expected => {}
            Some(found) => {
                let message = format!("{field} of the body is `{found}`, but this path takes `{expected}`");
                return Err(Error::bad_request(message));
            }
        }
    }
    for (field, expected) in [("namespace", namespace), ("name", name)] {
        let found = meta::text(body, field);
        if !expected.is_empty() && found.is_empty() {
            meta::set(body, field, Some(expected.into()));
        } else if !expected.is_empty() && found != expected {
            let message = format!("metadata.{field} of the body is `{found}`, but the path says `{expected}`");
            return Err(Error::bad_request(message));
        }
    }
    Ok(())
}

pub(super) fn admit(kind: &'static Registration, body: Value, request: &Request<'_>) -> Result<Admitted, Error> {
    // What is far too long for a name is told by how it begins.
    let name: String = meta::name(&body).chars().take(253).collect();
    kind.admit(body, request).map_err(|causes| {
        let about = berth_model::status::About { kind: kind.kind.to_owned(), ..about(kind, &name) };
        Failure::invalid(about, causes).into()
    })
}

pub(super) fn in_the_clear<'a>(
    sealer: &Sealer,
    kind: &Registration,
    stored: &'a Value,
) -> Result<Cow<'a, Value>, Error> {
    match kind.sealed {
        [] => Ok(Cow::Borrowed(stored)),
        maps => Ok(Cow::Owned(sealer.reveal_object(maps, stored)?)),
    }
}

pub(super) fn seal(
    sealer: &Sealer,
    kind: &Registration,
    object: &mut Value,
    stored: Option<&Value>,
) -> Result<(), Error> {
    match kind.sealed {
        [] => Ok(()),
        maps => Ok(sealer.seal_object(maps, object, stored)?),
    }
}

fn removed(kind: &Registration, last: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200,
        "details": {
            "name": meta::name(last), "group": kind.group, "kind": kind.plural, "uid": meta::uid(last),
        },
    })
}

/// The options of a deletion, from body and query.
async fn deletion(ask: &mut Ask) -> Result<Deletion, Error> {
    let options: DeleteOptions = ask.options().await?;
    if let Some(dry_run) = options.dry_run.as_deref().and_then(<[String]>::first) {
        ask.query.push(("dryRun".to_owned(), dry_run.clone()));
    }
    let policy = options.propagation_policy.or_else(|| ask.query("propagationPolicy").map(str::to_owned));
    let propagation = match policy.as_deref() {
        None | Some("" | "Background") => Propagation::Background,
        Some("Foreground") => Propagation::Foreground,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            let message = format!("propagationPolicy={other} is not understood; use Background, Foreground or Orphan");
            return Err(Error::bad_request(message));
        }
    };
    let only = options.preconditions.unwrap_or_default();
    Ok(Deletion { uid: only.uid, resource_version: only.resource_version, propagation })
}

impl FieldValidation {
    /// As asked for; strict for Berth's own kinds, a warning for the others, as Kubernetes has it.
    pub(super) fn of(ask: &Ask, kind: &Registration) -> Result<Self, Error> {
        match ask.query("fieldValidation") {
            Some("Strict") => Ok(Self::Strict),
            Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some(other) => {
                let message = format!("fieldValidation={other} is not understood; use Strict, Warn or Ignore");
                Err(Error::bad_request(message))
            }
            None if kind.is_built_in() => Ok(Self::Warn),
            None => Ok(Self::Strict),
        }
    }

    /// What to warn of.
    pub(super) fn judge(
        self,
        kind: &Registration,
        unknown: &[String],
        repeated: &[String],
    ) -> Result<Vec<String>, Error> {
        let named = |what: &str, field: &String| format!("{what} field \"{field}\"");
        let unknown_named = unknown.iter().map(|field| named("unknown", field));
        let found: Vec<String> = unknown_named.chain(repeated.iter().map(|field| named("duplicate", field))).collect();
        match self {
            Self::Strict if !found.is_empty() => {
                let (spelling, once) = ("correct the spelling, or leave it out", "say it once");
                let advice = if unknown.is_empty() { once } else { spelling };
                let message = format!("{} has {}; {advice}", kind.kind, found.join(", "));
                let wrong = |field: &String| FieldError::invalid(field.clone(), format!("is not known; {spelling}"));
                let twice = |field: &String| FieldError::duplicate(field.clone(), format!("is there twice; {once}"));
                let causes = unknown.iter().map(wrong).chain(repeated.iter().map(twice)).collect();
                Err(Failure { causes, ..Failure::new(Reason::BadRequest, message) }.into())
            }
            Self::Warn => Ok(found),
            Self::Strict | Self::Ignore => Ok(Vec::new()),
        }
    }
}
