//! Removal, and all that goes with an object.
//!
//! Removing one object can set off more: what it alone owns, an owner that waits for the last of
//! its dependents, a namespace that waits to be empty. Each of these is a [`Step`]; steps are taken
//! from a queue until there are none, all in the transaction of the removal, so that no reader ever
//! sees half of it, and a long chain of owners cannot exhaust the stack.

use std::collections::VecDeque;

use berth_model::event::ChangeKind;
use berth_model::kinds::{Kind, NAMESPACE, Registration};
use berth_model::meta;
use jiff::Timestamp;
use rusqlite::params;
use serde_json::{Value, json};

use super::changes::Entry;
use super::error::{Refusal, StoreError};
use super::ownership::Part;
use super::read::{self, ReadTx};
use super::shape::{same_version, set_finalizers, time};
use super::tx::{Tx, Written};

/// Holds an owner until its dependents are gone; the name is Kubernetes'.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds a namespace until its content is gone.
const CONTENTS: &str = "berth.dev/contents";

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go when it has gone.
    #[default]
    Background,
    /// It goes when they have gone.
    Foreground,
    /// They stay, without owner.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Only if this is its uid.
    pub uid: Option<String>,
    /// Only if this is its version.
    pub resource_version: Option<String>,
    /// What becomes of what it owns.
    pub propagation: Propagation,
}

enum Step {
    /// Remove an object, or mark it if something holds it.
    Delete { uid: String, propagation: Propagation },
    /// An owner has gone, or waits for its dependents to go first.
    Orphaned { owner: String, propagation: Propagation },
    /// An owner may have lost its last dependent.
    Released { owner: String },
    /// A namespace may be empty.
    Emptied { namespace: String },
}

/// An object whose life is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// It, in the form it was kept in.
    pub object: Value,
    /// When it was over.
    pub at: Timestamp,
    /// Bytes it takes.
    pub size: u64,
}

impl ReadTx<'_> {
    /// Objects of a kind whose life is over at `at`, the first to expire first. A kind's life is how long it is kept
    /// if nothing else is said: whoever keeps it for less or longer asks with another time.
    ///
    /// # Errors
    /// [`super::Fault`] if the database cannot be read.
    pub fn expired(&self, kind: &'static Registration, at: Timestamp) -> Result<Vec<Expired>, StoreError> {
        let sql = "SELECT body, expires_at FROM object
                   WHERE kind = ?1 AND expires_at <= ?2 AND deleted_at IS NULL ORDER BY expires_at, uid";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let over = self.rows(sql, params![kind.key(), at.as_microsecond()], row, "find what has expired")?;
        let expired = |(text, at): (String, i64)| {
            let object = read::body(|| format!("an expired {}", kind.kind), &text)?;
            Ok(Expired { object, at: Timestamp::from_microsecond(at).unwrap_or_default(), size: text.len() as u64 })
        };
        over.into_iter().map(expired).collect()
    }
}

impl Tx<'_> {
    /// Deletes an object: [`Written::Removed`], or [`Written::Changed`] if it is only marked
    /// because something holds it ([`Written::Unchanged`] if it was marked before).
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Conflict`] if it is not the one that is meant;
    /// [`Refusal::Protected`] for what is always there.
    pub fn delete<K: Kind>(&mut self, namespace: &str, name: &str, how: &Deletion) -> Result<Written<K>, StoreError> {
        self.delete_value(K::registration(), namespace, name, how)?.try_map(|object| read::typed(&object))
    }

    /// [`Tx::delete`] for a kind that is known at run time only.
    pub fn delete_value(
        &mut self,
        kind: &'static Registration,
        namespace: &str,
        name: &str,
        how: &Deletion,
    ) -> Result<Written<Value>, StoreError> {
        let object = self.must_get(kind, namespace, name)?;
        let meant = json!({ "metadata": { "uid": how.uid, "resourceVersion": how.resource_version } });
        same_version(kind, &meant, &object)?;
        if let Some(instead) = kind.is_permanent(namespace, name) {
            return Err(Refusal::Protected { kind: kind.singular, name: name.to_owned(), instead }.into());
        }
        let uid = meta::uid(&object).to_owned();
        let removed = self.work_off(Step::Delete { uid: uid.clone(), propagation: how.propagation })?;
        if let Some(last) = removed.into_iter().find(|gone| meta::uid(gone) == uid) {
            return Ok(Written::Removed(last));
        }
        let left = self.must_get(kind, namespace, name)?;
        Ok(if left == object { Written::Unchanged(left) } else { Written::Changed(left) })
    }

    /// Removes an object if its life is over at `at`; answers whether it did. One that has been told of again since it
    /// was found lives on.
    ///
    /// # Errors
    /// [`super::Fault`] if the database cannot be written.
    pub fn expire(&mut self, uid: &str, at: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT uid FROM object WHERE uid = ?1 AND expires_at <= ?2 AND deleted_at IS NULL";
        let over: Vec<String> =
            self.rows(sql, params![uid, at.as_microsecond()], |row| row.get(0), "look whether it has expired")?;
        for uid in &over {
            self.work_off(Step::Delete { uid: uid.clone(), propagation: Propagation::Background })?;
        }
        Ok(!over.is_empty())
    }

    /// Removes an object that nothing holds any more, in the form it has now.
    pub(super) fn remove_now(&mut self, kind: &'static Registration, object: Value) -> Result<Value, StoreError> {
        let mut steps = VecDeque::new();
        let last = self.remove(kind, object, &mut steps)?;
        self.work_off_all(steps)?;
        Ok(last)
    }

    /// Lets owners go that waited for an object which has named other owners since.
    pub(super) fn release_owners(&mut self, old: &Value, new: &Value) -> Result<(), StoreError> {
        let kept = meta::owners(new);
        let dropped = meta::owners(old).into_iter().filter(|owner| !kept.contains(owner));
        let steps = dropped.map(|owner| Step::Released { owner: owner.to_owned() }).collect();
        self.work_off_all(steps).map(drop)
    }

    fn work_off(&mut self, first: Step) -> Result<Vec<Value>, StoreError> {
        self.work_off_all(VecDeque::from([first]))
    }

    /// Takes steps until there are none; answers what was removed.
    fn work_off_all(&mut self, mut steps: VecDeque<Step>) -> Result<Vec<Value>, StoreError> {
        let mut removed = Vec::new();
        while let Some(step) = steps.pop_front() {
            let gone = match step {
                Step::Delete { uid, propagation } => self.step_delete(&uid, propagation, &mut steps)?,
                Step::Orphaned { owner, propagation } => self.step_orphaned(&owner, propagation, &mut steps)?,
                Step::Released { owner } => self.step_released(&owner, &mut steps)?,
                Step::Emptied { namespace } => self.step_emptied(&namespace, &mut steps)?,
            };
            removed.extend(gone);
        }
        Ok(removed)
    }

    fn step_delete(
        &mut self,
        uid: &str,
        propagation: Propagation,
        steps: &mut VecDeque<Step>,
    ) -> Result<Option<Value>, StoreError> {
        let Some((kind, object)) = self.by_uid(uid)?.filter(|(_, object)| !meta::is_deleting(object)) else {
            return Ok(None);
        };
        if propagation == Propagation::Orphan {
            self.let_go(uid)?;
        }
        let waits = propagation == Propagation::Foreground && !self.dependents(uid)?.is_empty();
        let mut marked = object.clone();
        set_finalizers(&mut marked, |list| {
            if waits {
                list.push(FOREGROUND.into());
            }
            if *kind == NAMESPACE {
                list.push(CONTENTS.into());
            }
        });
        if meta::finalizers(&marked).is_empty() {
            return self.remove(kind, marked, steps).map(Some);
        }
        meta::set(&mut marked, "deletionTimestamp", Some(time(self.now())));
        meta::set(&mut marked, "deletionGracePeriodSeconds", Some(0.into()));
        if *kind == NAMESPACE {
            marked["status"] = json!({ "phase": "Terminating" });
        }
        let marked = self.put(kind, marked, Some(&object), Part::Object)?;
        if waits {
            steps.push_back(Step::Orphaned { owner: uid.to_owned(), propagation });
        }
        if *kind == NAMESPACE {
            let namespace = meta::name(&marked).to_owned();
            steps.extend(self.content(&namespace, false)?.into_iter().map(delete));
            steps.push_back(Step::Emptied { namespace });
        }
        Ok(None)
    }

    /// What an owner leaves behind goes, unless it has another owner.
    fn step_orphaned(
        &mut self,
        owner: &str,
        propagation: Propagation,
        steps: &mut VecDeque<Step>,
    ) -> Result<Option<Value>, StoreError> {
        for uid in self.dependents(owner)? {
            let Some((kind, object)) = self.by_uid(&uid)? else { continue };
            let mut kept = false;
            for other in meta::owners(&object) {
                kept = kept || (other != owner && self.by_uid(other)?.is_some());
            }
            if kept {
                self.put(kind, without_owner(&object, owner), Some(&object), Part::Object)?;
                steps.push_back(Step::Released { owner: owner.to_owned() });
            } else {
                steps.push_back(Step::Delete { uid, propagation });
            }
        }
        Ok(None)
    }

    /// An owner that waited for its dependents goes with the last.
    fn step_released(&mut self, owner: &str, steps: &mut VecDeque<Step>) -> Result<Option<Value>, StoreError> {
        let Some((kind, object)) = self.by_uid(owner)? else { return Ok(None) };
        if !meta::finalizers(&object).contains(&FOREGROUND) || !self.dependents(owner)?.is_empty() {
            return Ok(None);
        }
        self.unhold(kind, &object, FOREGROUND, steps)
    }

    /// A namespace that waited for its content goes with the last of it; records go with it.
    fn step_emptied(&mut self, name: &str, steps: &mut VecDeque<Step>) -> Result<Option<Value>, StoreError> {
        let namespace = self.get_value(&NAMESPACE, "", name)?;
        let Some(namespace) = namespace.filter(|found| meta::finalizers(found).contains(&CONTENTS)) else {
            return Ok(None);
        };
        if !self.content(name, false)?.is_empty() {
            return Ok(None);
        }
        let records = self.content(name, true)?;
        if records.is_empty() {
            return self.unhold(&NAMESPACE, &namespace, CONTENTS, steps);
        }
        // Held records come back here when they are let go.
        steps.extend(records.into_iter().map(delete));
        Ok(None)
    }

    /// Takes a finalizer of the store's own off an object that is being deleted.
    fn unhold(
        &mut self,
        kind: &'static Registration,
        object: &Value,
        finalizer: &str,
        steps: &mut VecDeque<Step>,
    ) -> Result<Option<Value>, StoreError> {
        let mut free = object.clone();
        set_finalizers(&mut free, |list| list.retain(|known| known != finalizer));
        if meta::finalizers(&free).is_empty() {
            return self.remove(kind, free, steps).map(Some);
        }
        self.put(kind, free, Some(object), Part::Object)?;
        Ok(None)
    }

    /// Takes a row away and logs it; what follows from it is left as steps.
    fn remove(
        &mut self,
        kind: &'static Registration,
        object: Value,
        steps: &mut VecDeque<Step>,
    ) -> Result<Value, StoreError> {
        let uid = meta::uid(&object).to_owned();
        let owners: Vec<String> = meta::owners(&object).into_iter().map(str::to_owned).collect();
        let last = self.strike(kind, object)?;
        steps.push_back(Step::Orphaned { owner: uid, propagation: Propagation::Background });
        steps.extend(owners.into_iter().map(|owner| Step::Released { owner }));
        if kind.namespaced {
            steps.push_back(Step::Emptied { namespace: meta::namespace(&last).to_owned() });
        }
        Ok(last)
    }

    /// Takes a row away and logs that.
    pub(super) fn strike(&mut self, kind: &'static Registration, object: Value) -> Result<Value, StoreError> {
        let uid = meta::uid(&object).to_owned();
        let before = self.by_uid(&uid)?.map(|(_, before)| before);
        let version = self.next_version()?;
        let mut last = object;
        meta::set(&mut last, "resourceVersion", Some(version.to_string().into()));
        self.execute("DELETE FROM object WHERE uid = ?1", [&uid], "remove an object")?;
        let what = ChangeKind::Deleted;
        let text = last.to_string();
        self.log(&Entry { version, kind, what, object: &last, text: &text, previous: before.as_ref() })?;
        self.count(kind, &last, before.as_ref(), what)?;
        Ok(last)
    }

    /// Makes the dependents of an object independent of it.
    fn let_go(&mut self, owner: &str) -> Result<(), StoreError> {
        for uid in self.dependents(owner)? {
            if let Some((kind, object)) = self.by_uid(&uid)? {
                self.put(kind, without_owner(&object, owner), Some(&object), Part::Object)?;
            }
        }
        Ok(())
    }

    fn dependents(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT dependent FROM owner WHERE owner = ?1 ORDER BY dependent";
        self.rows(sql, [owner], |row| row.get(0), "find dependents")
    }

    /// Uids of the records in a namespace, or of everything else in it.
    fn content(&self, namespace: &str, records: bool) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT uid, kind FROM object WHERE namespace = ?1 ORDER BY version";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let all: Vec<(String, String)> = self.rows(sql, [namespace], row, "look into a namespace")?;
        let mut found = Vec::new();
        for (uid, key) in all {
            if read::kind(&key)?.record == records {
                found.push(uid);
            }
        }
        Ok(found)
    }
}

/// No update takes the store's own hold off a namespace: it would leave its content behind.
pub(super) fn keep_hold(new: &mut Value, old: &Value) {
    if meta::finalizers(old).contains(&CONTENTS) && !meta::finalizers(new).contains(&CONTENTS) {
        set_finalizers(new, |list| list.push(CONTENTS.into()));
    }
}

fn delete(uid: String) -> Step {
    Step::Delete { uid, propagation: Propagation::Background }
}

fn without_owner(object: &Value, owner: &str) -> Value {
    let mut free = object.clone();
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_other = |reference: &&Value| reference["uid"] != *owner;
    let others: Vec<&Value> = list.into_iter().flatten().filter(is_other).collect();
    meta::set(&mut free, "ownerReferences", (!others.is_empty()).then(|| json!(others)));
    free
}
