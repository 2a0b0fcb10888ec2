//! Actions on a change set: stage an edit, see what all of them come to, apply them, lead them on.
//!
//! ```text
//! add ────> one entry more, on top of those before it (nothing acts)
//! plan ───> apply, undone by answering
//! apply ──> base unmoved ─> rules of every kind ─> writes ─> references ─> Operation: one transaction
//! rebase ─> the same edits on what is there now
//! ```
//!
//! The store runs one transaction after the other, so of two authors who add at once nobody loses
//! anything. Who made an edit of what he had read says which version of the set that was.
//!
//! Of Secrets, contents have digests in place of values, as readers are shown them; new values are sealed at once and
//! lie in the set, by their digests ([`Drafts`]).

mod apply;
mod volumes;

use berth_model::changes::{Broken, Key, Prefer, Staged, draft, fold, followed, rebase};
use berth_model::field::{FieldError, Rule};
use berth_model::kinds::{BUNDLE, CHANGE_SET, KINDS, Registration, Request, by_kind, by_word};
use berth_model::policy::{Decision, Resource, Subject, Verb, authorize};
use berth_model::resource::ChangeSet;
use berth_model::resource::change_set::{
    ChangeSetState, ChangeSetStatus, Entry, EntryVerb, MAX_BYTES, MAX_ENTRIES, Snapshot,
};
use berth_model::resource::operation::Actor;
use berth_model::status::{Failure, Reason};
use berth_model::{id, meta, patch};
use serde::Deserialize;
use serde_json::Value;

use super::action::idempotency_key;
use super::read::visible;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::write::{admit, frame, must_get, transact};
use crate::secret::{Before, Drafts, Sealer, redact_object};
use crate::store::{ReadTx, Tx};

/// `POST .../changesets/{name}/actions/{action}`.
pub(super) const ACTIONS: [&str; 4] = ["actions/add", "actions/plan", "actions/apply", "actions/rebase"];

/// The body of `add`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Edit {
    verb: EditVerb,
    #[serde(default)]
    api_version: String,
    kind: String,
    name: String,
    /// New name.
    to: Option<String>,
    /// A whole object to create, a merge patch for one that is there.
    object: Option<Value>,
    /// The version of the change set that the edit was made from.
    resource_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EditVerb {
    /// Create, or update what is there.
    Apply,
    Create,
    Update,
    Delete,
    Rename,
}

/// The body of `rebase`; may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rebase {
    prefer: Option<String>,
}

/// Where a change set lies, and who asks.
#[derive(Clone)]
struct Place {
    namespace: String,
    name: String,
    actor: Actor,
    subject: Subject,
    sealer: Sealer,
}

pub(super) async fn ask_for(mut ask: Ask, action: &'static str) -> Reply {
    let (sealer, subject) = (ask.api.sealer.clone(), ask.subject.clone());
    let place = Place { namespace: ask.namespace(), name: ask.name(), actor: ask.actor(), subject, sealer };
    match action {
        "actions/add" => {
            let edit: Edit = serde_json::from_value(ask.json().await?.value)
                .map_err(|error| Error::bad_request(format!("the edit cannot be read: {error}")))?;
            let set = transact(&ask, move |tx| add(tx, &place, edit)).await?;
            Ok(reply::json(&visible(&ask.api, &CHANGE_SET, encoded(&set)?, false)?))
        }
        "actions/rebase" => {
            let prefer = preference(&ask.options::<Rebase>().await?)?;
            let set = transact(&ask, move |tx| lead_on(tx, &place, prefer)).await?;
            Ok(reply::json(&visible(&ask.api, &CHANGE_SET, encoded(&set)?, false)?))
        }
        "actions/plan" => {
            ask.query.push(("dryRun".to_owned(), "All".to_owned()));
            let plan = transact(&ask, move |tx| apply::perform(tx, &place)).await?;
            Ok(reply::json(&encoded(&plan)?))
        }
        _ => {
            let key = idempotency_key(&ask)?;
            let operation = transact(&ask, move |tx| apply::apply(tx, &place, key)).await?;
            Ok(reply::json(&encoded(&operation)?))
        }
    }
}

fn encoded(answer: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(answer).map_err(|_| Error::new(Reason::InternalError, "the answer could not be shown"))
}

fn preference(rebase: &Rebase) -> Result<Prefer, Error> {
    match rebase.prefer.as_deref() {
        None => Ok(Prefer::Neither),
        Some("ours") => Ok(Prefer::Ours),
        Some("theirs") => Ok(Prefer::Theirs),
        Some(_) => Err(FieldError::new(Rule::Unsupported, "prefer", "use ours or theirs, or leave it out").into()),
    }
}

/// A set that can still be changed, with what is staged in it.
fn open(tx: &ReadTx<'_>, place: &Place) -> Result<(ChangeSet, ChangeSetStatus, Staged), Error> {
    must_get(tx, &CHANGE_SET, &place.namespace, &place.name)?;
    let gone = || Error::new(Reason::NotFound, format!("changeset {} is gone", place.name));
    let mut set = tx.get::<ChangeSet>(&place.namespace, &place.name)?.ok_or_else(gone)?;
    let status = set.status.take().unwrap_or_default();
    if status.state == ChangeSetState::Applied {
        let operation = status.operation.as_deref().unwrap_or_default();
        let message = format!(
            "changeset {} was applied by operation {operation}; make another one for what comes next",
            place.name
        );
        return Err(Error::new(Reason::Conflict, message));
    }
    let staged = fold(&status.entries).map_err(|broken| does_not_follow(&broken))?;
    Ok((set, status, staged))
}

fn does_not_follow(broken: &Broken) -> Error {
    let reason = match broken {
        Broken::Present { .. } => Reason::AlreadyExists,
        Broken::Absent { .. } => Reason::Conflict,
    };
    Error::new(reason, broken.to_string())
}

/// One edit more; the set as it is then.
fn add(tx: &mut Tx<'_>, place: &Place, edit: Edit) -> Result<ChangeSet, Error> {
    let (mut set, mut status, mut staged) = open(tx, place)?;
    let version = set.metadata.resource_version.as_deref().unwrap_or_default();
    if edit.resource_version.as_deref().is_some_and(|read| read != version) {
        let message = format!("changeset {} has changed meanwhile; read it again and repeat the edit", place.name);
        return Err(Error::new(Reason::Conflict, message));
    }
    let kind = editable(&edit)?;
    let mut drafts = drafts(&set, &mut status);
    let entry = entry(tx, place, kind, &staged, &mut drafts, edit)?;
    status.sealed = drafts.sealed;
    if let Some(entry) = entry {
        permitted(place, kind, entry.verb, &entry.name)?;
        staged.step(&entry).map_err(|broken| does_not_follow(&broken))?;
        status.entries.push(entry);
        bounded(&status)?;
    }
    set.status = Some(status);
    Ok(tx.update_status(&set)?.into_inner())
}

/// The values that wait in a set, taken out of it.
fn drafts(set: &ChangeSet, status: &mut ChangeSetStatus) -> Drafts {
    Drafts { keeper: set.metadata.uid.clone().unwrap_or_default(), sealed: std::mem::take(&mut status.sealed) }
}

fn bounded(status: &ChangeSetStatus) -> Result<(), Error> {
    let bytes = encoded(&(&status.entries, &status.sealed))?.to_string().len();
    if status.entries.len() <= MAX_ENTRIES && bytes <= MAX_BYTES {
        return Ok(());
    }
    let message = format!("a change set takes {MAX_ENTRIES} entries and {MAX_BYTES} bytes; apply this one first");
    Err(FieldError::new(Rule::TooLong, "status.entries", message).into())
}

/// The kind of object that an edit is about, if its objects can be staged.
fn editable(edit: &Edit) -> Result<&'static Registration, Error> {
    let found = by_kind(&edit.api_version, &edit.kind).or_else(|| by_word(&edit.kind));
    let can = |kind: &&Registration| {
        let verbs = [Verb::Create, Verb::Update, Verb::Delete];
        kind.namespaced && !kind.record && **kind != CHANGE_SET && verbs.iter().all(|verb| kind.serves(*verb))
    };
    if let Some(kind) = found.filter(can) {
        return Ok(kind);
    }
    let others: Vec<&str> = KINDS.iter().copied().filter(can).map(|kind| kind.kind).collect();
    let message = format!("`{}` cannot be staged; what can is {}", edit.kind, others.join(", "));
    Err(FieldError::new(Rule::Unsupported, "kind", message).into())
}

/// Nobody stages what he could not do.
fn permitted(place: &Place, kind: &Registration, verb: EntryVerb, name: &str) -> Result<(), Error> {
    let verbs: &[Verb] = match verb {
        EntryVerb::Create => &[Verb::Create],
        EntryVerb::Update => &[Verb::Update],
        EntryVerb::Delete => &[Verb::Delete],
        EntryVerb::Rename => &[Verb::Create, Verb::Delete],
    };
    let object =
        Resource::Object { group: kind.group, plural: kind.plural, subresource: "", namespace: &place.namespace, name };
    for verb in verbs {
        if let Decision::Denied(why) = authorize(&place.subject, *verb, &object) {
            return Err(Error::new(Reason::Forbidden, why));
        }
    }
    Ok(())
}

/// What an edit finds: the object as it is in the store, and as the set has made it so far.
struct Found {
    stored: Option<Value>,
    snapshot: Option<Snapshot>,
    content: Option<Value>,
}

fn found(
    tx: &ReadTx<'_>,
    namespace: &str,
    kind: &'static Registration,
    name: &str,
    staged: &Staged,
) -> Result<Found, Error> {
    let stored = tx.get_value(kind, namespace, name)?;
    if let Some(slot) = staged.slots.get(&Key::new(kind, name)) {
        let snapshot = slot.now.clone().map(|content| Snapshot { resource_version: String::new(), content });
        return Ok(Found { stored, snapshot, content: slot.now.clone() });
    }
    if stored.as_ref().is_some_and(meta::is_deleting) {
        let message = format!("{} {name} is being removed; wait until it is gone", kind.kind);
        return Err(Error::new(Reason::Conflict, message));
    }
    let snapshot = stored.as_ref().map(|stored| snapshot(kind, stored));
    let content = snapshot.as_ref().map(|seen| match *kind == BUNDLE {
        true => followed(&seen.content, &staged.renames),
        false => seen.content.clone(),
    });
    Ok(Found { stored, snapshot, content })
}

fn snapshot(kind: &Registration, stored: &Value) -> Snapshot {
    Snapshot { resource_version: meta::text(stored, "resourceVersion").to_owned(), content: content(kind, stored) }
}

/// All of a stored object that a person can say, with digests in place of values that nobody is shown.
fn content(kind: &Registration, stored: &Value) -> Value {
    draft(&redact_object(kind.sealed, stored.clone()))
}

/// The entry that an edit becomes; none if nothing would be different.
fn entry(
    tx: &Tx<'_>,
    place: &Place,
    kind: &'static Registration,
    staged: &Staged,
    drafts: &mut Drafts,
    edit: Edit,
) -> Result<Option<Entry>, Error> {
    let Edit { verb, name, to, object, .. } = edit;
    let found = found(tx, &place.namespace, kind, &name, staged)?;
    let absent = || Error::new(Reason::NotFound, format!("there is no {} {name}, nor one staged", kind.kind));
    let base = Entry {
        author: place.actor.clone(),
        time: tx.now().to_string(),
        verb: EntryVerb::Create,
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        name: name.clone(),
        to: None,
        before: found.snapshot.clone(),
        after: None,
    };
    let entry = match (verb, &found.content) {
        (EditVerb::Create | EditVerb::Apply, None) => {
            let mut body = object.ok_or_else(needs_object)?;
            frame(kind, &mut body, &place.namespace, &name)?;
            let mut after = admitted(kind, body, &Request::Create)?;
            place.sealer.draft_object(kind.sealed, &mut after, Before::default(), drafts)?;
            Entry { after: Some(after), ..base }
        }
        (EditVerb::Create, Some(_)) => {
            let message = format!("{} {name} is there already; change it, or choose another name", kind.kind);
            return Err(Error::new(Reason::AlreadyExists, message));
        }
        (_, None) => return Err(absent()),
        (EditVerb::Apply | EditVerb::Update, Some(content)) => {
            let merged = patch::merge(content, &object.ok_or_else(needs_object)?)?;
            let old = found.stored.as_ref().map(|stored| redact_object(kind.sealed, stored.clone()));
            let mut after = admitted(kind, merged, &Request::Patch(old.as_ref().unwrap_or(content)))?;
            let before = Before { shown: Some(content), stored: found.stored.as_ref() };
            place.sealer.draft_object(kind.sealed, &mut after, before, drafts)?;
            if after == *content {
                return Ok(None);
            }
            Entry { verb: EntryVerb::Update, after: Some(after), ..base }
        }
        (EditVerb::Delete, Some(_)) => Entry { verb: EntryVerb::Delete, ..base },
        (EditVerb::Rename, Some(_)) => {
            let to = to.ok_or_else(|| FieldError::required("to", "give the new name"))?;
            renameable(tx, place, kind, &to, staged)?;
            Entry { verb: EntryVerb::Rename, to: Some(to), ..base }
        }
    };
    Ok(Some(entry))
}

fn needs_object() -> Error {
    FieldError::required("object", "give the object, or the parts of it that are to change").into()
}

fn admitted(kind: &'static Registration, body: Value, request: &Request<'_>) -> Result<Value, Error> {
    let admitted = admit(kind, body, request)?;
    if let Some(unknown) = admitted.unknown.first() {
        let cause = FieldError::invalid(unknown.clone(), "is not known; correct the spelling, or leave it out");
        return Err(cause.into());
    }
    Ok(draft(&admitted.object))
}

fn renameable(
    tx: &ReadTx<'_>,
    place: &Place,
    kind: &'static Registration,
    to: &str,
    staged: &Staged,
) -> Result<(), Error> {
    if *kind != BUNDLE {
        let message = format!("only bundles get new names; create another {} and delete this one", kind.kind);
        return Err(FieldError::new(Rule::Unsupported, "kind", message).into());
    }
    id::dns_label(to).map_err(|error| FieldError::invalid("to", error.to_string()))?;
    if found(tx, &place.namespace, kind, to, staged)?.content.is_some() {
        let message = format!("Bundle {to} is there already; choose another name");
        return Err(Error::new(Reason::AlreadyExists, message));
    }
    Ok(())
}

/// The same edits on what is there now.
fn lead_on(tx: &mut Tx<'_>, place: &Place, prefer: Prefer) -> Result<ChangeSet, Error> {
    let (mut set, mut status, staged) = open(tx, place)?;
    let mut there = std::collections::BTreeMap::new();
    for key in staged.slots.keys() {
        let Some(kind) = key.registration() else { continue };
        let stored = tx.get_value(kind, &place.namespace, &key.name)?.filter(|stored| !meta::is_deleting(stored));
        there.extend(stored.map(|stored| (key.clone(), snapshot(kind, &stored))));
    }
    let rebased = rebase(&status.entries, |key| there.get(key).cloned(), prefer);
    status.entries = rebased.map_err(|conflicts| {
        let told = |one: &berth_model::changes::Conflict| {
            let shown = one.key.shown();
            match one.field.as_str() {
                "" => FieldError::invalid(shown, "is changed by the set, and was removed meanwhile"),
                field => FieldError::invalid(
                    format!("{shown} {field}"),
                    "is changed by the set, and was changed to something else meanwhile",
                ),
            }
        };
        let causes: Vec<FieldError> = conflicts.iter().map(told).collect();
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        let message = format!(
            "changeset {name} contradicts what was done meanwhile: {}; `berth changeset rebase {name} --prefer ours` \
             takes the set's values, `--prefer theirs` those that are there",
            fields.join(", "),
            name = place.name
        );
        Error::from(Failure { causes, ..Failure::new(Reason::Conflict, message) })
    })?;
    fold(&status.entries).map_err(|broken| does_not_follow(&broken))?;
    set.status = Some(status);
    Ok(tx.update_status(&set)?.into_inner())
}
