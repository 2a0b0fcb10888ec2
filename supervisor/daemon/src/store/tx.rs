//! Writing: create, update, status. Removal is in [`super::collect`].

use std::ops::Deref;

use berth_model::event::ChangeKind;
use berth_model::field::FieldError;
use berth_model::kinds::{Kind, NAMESPACE, Registration};
use berth_model::managed::Fields;
use berth_model::meta;
use berth_model::resource::operation::Actor;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde_json::Value;
use uuid::Uuid;

use super::changes::Entry;
use super::collect;
use super::error::{Fault, Refusal, StoreError};
use super::ownership::Part;
use super::read::{self, ReadTx};
use super::recent::News;
use super::shape::{self, encode, invalid, same_version, set_finalizers};

/// How often a name is drawn for `generateName`.
const DRAWS: usize = 8;

/// What a write came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<T> {
    /// The object is different now; it did not exist before, perhaps.
    Changed(T),
    /// It was so already: no new version, nobody is told.
    Unchanged(T),
    /// It was being deleted, and the write took its last finalizer off; this is what it was.
    Removed(T),
}

impl<T> Written<T> {
    /// The object, whatever became of it.
    pub fn into_inner(self) -> T {
        match self {
            Self::Changed(object) | Self::Unchanged(object) | Self::Removed(object) => object,
        }
    }

    /// Whether anything happened.
    pub fn is_unchanged(&self) -> bool {
        matches!(self, Self::Unchanged(_))
    }

    /// The same outcome with another form of the object.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Written<U>, E> {
        Ok(match self {
            Self::Changed(object) => Written::Changed(f(object)?),
            Self::Unchanged(object) => Written::Unchanged(f(object)?),
            Self::Removed(object) => Written::Removed(f(object)?),
        })
    }
}

/// A transaction: all that [`ReadTx`] can do, and writing.
pub struct Tx<'c> {
    read: ReadTx<'c>,
    pub(super) now: Timestamp,
    pub(super) steady: Timestamp,
    actor: Actor,
    pub(super) manager: String,
    pub(super) news: News,
}

impl<'c> Deref for Tx<'c> {
    type Target = ReadTx<'c>;

    fn deref(&self) -> &ReadTx<'c> {
        &self.read
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection, (now, steady): (Timestamp, Timestamp), actor: Actor) -> Self {
        let manager = actor.identity.clone();
        Self { read: ReadTx::new(connection), now, steady, actor, manager, news: News::default() }
    }

    /// What it has changed.
    pub(super) fn into_news(self) -> News {
        self.news
    }

    /// The time of this transaction.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// On whose behalf it is.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Does a part of the work on behalf of somebody else.
    pub fn on_behalf_of<T>(&mut self, actor: Actor, work: impl FnOnce(&mut Self) -> T) -> T {
        let manager = std::mem::replace(&mut self.manager, actor.identity.clone());
        let own = std::mem::replace(&mut self.actor, actor);
        let done = work(self);
        (self.actor, self.manager) = (own, manager);
        done
    }

    /// Under which name fields are owned from here on (`fieldManager`); the actor's identity if
    /// never set.
    pub fn set_manager(&mut self, manager: impl Into<String>) {
        self.manager = manager.into();
    }

    /// Makes a new object. Uid, version, generation, creation time and the kind's own finalizers
    /// are the store's to give; so is the name, if only `generateName` is there.
    ///
    /// # Errors
    /// [`Refusal::AlreadyExists`], [`Refusal::NoNamespace`], [`Refusal::NamespaceTerminating`];
    /// [`Refusal::Invalid`] without a name, or if none of its owners exists.
    pub fn create<K: Kind>(&mut self, object: &K) -> Result<K, StoreError> {
        read::typed(&self.create_value(K::registration(), encode(object)?)?)
    }

    /// [`Tx::create`] for a kind that is known at run time only.
    pub fn create_value(&mut self, kind: &'static Registration, object: Value) -> Result<Value, StoreError> {
        self.create_finished(kind, object, |_| Ok::<(), StoreError>(()))
    }

    /// [`Tx::create_value`] with a last hand laid on the object when everything about it is known,
    /// its uid included, and before it is kept: the place to seal what must not be readable.
    ///
    /// # Errors
    /// As [`Tx::create`]; what `finish` answers.
    pub fn create_finished<E: From<StoreError>>(
        &mut self,
        kind: &'static Registration,
        object: Value,
        finish: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Result<Value, E> {
        self.create_part(kind, object, Part::Object, finish)
    }

    /// [`Tx::create_finished`] by a configuration that is applied: its fields are owned so, and no others.
    ///
    /// # Errors
    /// As [`Tx::create_finished`].
    pub fn create_applied<E: From<StoreError>>(
        &mut self,
        kind: &'static Registration,
        object: Value,
        fields: &Fields,
        finish: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Result<Value, E> {
        self.create_part(kind, object, Part::Applied(fields), finish)
    }

    fn create_part<E: From<StoreError>>(
        &mut self,
        kind: &'static Registration,
        mut object: Value,
        part: Part<'_>,
        finish: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Result<Value, E> {
        self.check_namespace(kind, &object)?;
        self.name(kind, &mut object)?;
        let (namespace, name) = (meta::namespace(&object), meta::name(&object));
        if self.get_value(kind, namespace, name)?.is_some() {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            return Err(StoreError::from(Refusal::AlreadyExists { kind: kind.key(), namespace, name }).into());
        }
        self.check_owners(kind, &object, None)?;
        let mut object = shape::newborn(kind, object, &Uuid::new_v4().to_string(), self.now);
        finish(&mut object)?;
        Ok(self.put(kind, object, None, part)?)
    }

    /// Replaces an object, status excepted. A `resourceVersion` or `uid` in it must be that of the
    /// object in the store. The generation rises if more than metadata is different.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Conflict`]; [`Refusal::Invalid`] if a spec is different
    /// that never changes.
    pub fn update<K: Kind>(&mut self, object: &K) -> Result<Written<K>, StoreError> {
        self.update_value(K::registration(), encode(object)?)?.try_map(|object| read::typed(&object))
    }

    /// [`Tx::update`] for a kind that is known at run time only.
    pub fn update_value(&mut self, kind: &'static Registration, object: Value) -> Result<Written<Value>, StoreError> {
        self.update_part(kind, object, Part::Object)
    }

    /// [`Tx::update_value`] with what a configuration has made of the object: its fields are owned so.
    ///
    /// # Errors
    /// As [`Tx::update`].
    pub fn update_applied(
        &mut self,
        kind: &'static Registration,
        object: Value,
        fields: &Fields,
    ) -> Result<Written<Value>, StoreError> {
        self.update_part(kind, object, Part::Applied(fields))
    }

    /// [`Tx::update_value`] for whoever may write the record of owned fields himself, as clients do that begin to apply
    /// what they wrote otherwise before.
    ///
    /// # Errors
    /// As [`Tx::update`].
    pub fn update_with_record(
        &mut self,
        kind: &'static Registration,
        object: Value,
    ) -> Result<Written<Value>, StoreError> {
        self.update_part(kind, object, Part::WithRecord)
    }

    fn update_part(
        &mut self,
        kind: &'static Registration,
        object: Value,
        part: Part<'_>,
    ) -> Result<Written<Value>, StoreError> {
        let old = self.must_get(kind, meta::namespace(&object), meta::name(&object))?;
        same_version(kind, &object, &old)?;
        let mut new = shape::updated(kind, object, &old, matches!(part, Part::WithRecord));
        collect::keep_hold(&mut new, &old);
        if let Some(error) = kind.frozen_spec(&new, Some(&old)) {
            return Err(invalid(kind, &new, error));
        }
        self.check_owners(kind, &new, Some(&old))?;
        if shape::content(&new) == shape::content(&old) && !self.is_owned_anew(kind, &new, &old, part)? {
            return Ok(Written::Unchanged(old));
        }
        if kind.status && shape::without_status(&new) != shape::without_status(&old) {
            meta::set(&mut new, "generation", Some((meta::generation(&old) + 1).into()));
        }
        if meta::is_deleting(&new) && meta::finalizers(&new).is_empty() {
            return self.remove_now(kind, new).map(Written::Removed);
        }
        let new = self.put(kind, new, Some(&old), part)?;
        self.release_owners(&old, &new)?;
        Ok(Written::Changed(new))
    }

    /// Replaces the status of an object, and nothing else.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Conflict`] as for [`Tx::update`].
    pub fn update_status<K: Kind>(&mut self, object: &K) -> Result<Written<K>, StoreError> {
        self.update_status_value(K::registration(), encode(object)?)?.try_map(|object| read::typed(&object))
    }

    /// [`Tx::update_status`] for whoever has no use for the object as it is then.
    ///
    /// # Errors
    /// As [`Tx::update_status`].
    pub fn write_status<K: Kind>(&mut self, object: &K) -> Result<(), StoreError> {
        self.update_status_value(K::registration(), encode(object)?).map(drop)
    }

    /// [`Tx::update_status`] for a kind that is known at run time only.
    pub fn update_status_value(
        &mut self,
        kind: &'static Registration,
        mut object: Value,
    ) -> Result<Written<Value>, StoreError> {
        let old = self.must_get(kind, meta::namespace(&object), meta::name(&object))?;
        same_version(kind, &object, &old)?;
        let status = object.get_mut("status").map(Value::take);
        let mut new = old.clone();
        if let (Some(fields), Some(status)) = (new.as_object_mut(), status) {
            fields.insert("status".into(), status);
        }
        if new == old {
            return Ok(Written::Unchanged(old));
        }
        self.put(kind, new, Some(&old), Part::Status).map(Written::Changed)
    }

    /// Gives an object another name, and whatever else has to change with it. What goes by its uid stays with it: to
    /// those who watch, one object goes and another comes with the same uid.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::AlreadyExists`] if there is one of the new name.
    pub fn rename<K: Kind>(
        &mut self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut K),
    ) -> Result<K, StoreError> {
        let kind = K::registration();
        let old = self.must_get(kind, namespace, name)?;
        let mut new: K = read::typed(&old)?;
        change(&mut new);
        let new = encode(&new)?;
        let name = meta::name(&new).to_owned();
        if self.get_value(kind, namespace, &name)?.is_some() {
            let namespace = namespace.to_owned();
            return Err(Refusal::AlreadyExists { kind: kind.key(), namespace, name }.into());
        }
        self.strike(kind, old)?;
        read::typed(&self.put(kind, new, None, Part::Object)?)
    }

    /// Takes a finalizer off an object; one that is being deleted goes with its last.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn remove_finalizer<K: Kind>(
        &mut self,
        namespace: &str,
        name: &str,
        finalizer: &str,
    ) -> Result<Written<K>, StoreError> {
        let kind = K::registration();
        let mut object = self.must_get(kind, namespace, name)?;
        set_finalizers(&mut object, |list| list.retain(|known| *known != finalizer));
        self.update_value(kind, object)?.try_map(|object| read::typed(&object))
    }

    pub(super) fn must_get(
        &self,
        kind: &'static Registration,
        namespace: &str,
        name: &str,
    ) -> Result<Value, StoreError> {
        self.get_value(kind, namespace, name)?.ok_or_else(|| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Refusal::NotFound { kind: kind.key(), namespace, name }.into()
        })
    }

    pub(super) fn execute(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        doing: &'static str,
    ) -> Result<usize, StoreError> {
        let done = self.connection.prepare_cached(sql).and_then(|mut ready| ready.execute(parameters));
        done.map_err(Fault::of(doing))
    }

    /// The next version; nobody sees it before the transaction is kept.
    pub(super) fn next_version(&self) -> Result<u64, StoreError> {
        let sql = "UPDATE meta SET value = value + 1 WHERE key = 'version' RETURNING value";
        let next = self.connection.prepare_cached(sql);
        let next = next.and_then(|mut ready| ready.query_row([], |row| row.get::<_, i64>(0)));
        Ok(next.map_err(Fault::of("count a version"))?.cast_unsigned())
    }

    /// Keeps an object under the next version: row, owners, change log.
    pub(super) fn put(
        &mut self,
        kind: &'static Registration,
        mut object: Value,
        old: Option<&Value>,
        part: Part<'_>,
    ) -> Result<Value, StoreError> {
        // Nobody else writes the records: there is nothing to tell apart.
        if !kind.record {
            self.own_fields(kind, &mut object, old, part)?;
        }
        if *kind == NAMESPACE {
            self.fill_used(&mut object)?;
        }
        let version = self.next_version()?;
        meta::set(&mut object, "resourceVersion", Some(version.to_string().into()));
        let what = if old.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let text = object.to_string();
        self.put_row(kind, &object, &text, version)?;
        self.put_owners(&object)?;
        self.log(&Entry { version, kind, what, object: &object, text: &text, previous: old })?;
        self.count(kind, &object, old, what)?;
        Ok(object)
    }

    fn put_row(&self, kind: &'static Registration, object: &Value, text: &str, version: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO object
                   (uid, kind, namespace, name, version, generation, deleted_at, expires_at, body, subject)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                   ON CONFLICT (uid) DO UPDATE SET
                   version = ?5, generation = ?6, deleted_at = ?7, expires_at = ?8, body = ?9, subject = ?10";
        let expiry = (kind.life)(object).and_then(|life| self.now.checked_add(life).ok());
        let deleted = meta::text(object, "deletionTimestamp").parse::<Timestamp>().ok();
        let parameters = params![
            meta::uid(object),
            kind.key(),
            meta::namespace(object),
            meta::name(object),
            version.cast_signed(),
            meta::generation(object),
            deleted.map(Timestamp::as_microsecond),
            expiry.map(Timestamp::as_microsecond),
            text,
            shape::subject(kind, object),
        ];
        self.execute(sql, parameters, "write an object").map(drop)
    }

    fn put_owners(&self, object: &Value) -> Result<(), StoreError> {
        let uid = meta::uid(object);
        self.execute("DELETE FROM owner WHERE dependent = ?1", [uid], "forget owners")?;
        for owner in meta::owners(object) {
            let sql = "INSERT OR IGNORE INTO owner (owner, dependent) VALUES (?1, ?2)";
            self.execute(sql, [owner, uid], "note an owner")?;
        }
        Ok(())
    }

    fn check_namespace(&self, kind: &'static Registration, object: &Value) -> Result<(), StoreError> {
        let name = meta::namespace(object);
        if !kind.namespaced {
            return Ok(());
        }
        match self.get_value(&NAMESPACE, "", name)? {
            None => Err(Refusal::NoNamespace(name.to_owned()).into()),
            Some(namespace) if meta::is_deleting(&namespace) && !kind.record => {
                Err(Refusal::NamespaceTerminating(name.to_owned()).into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Draws a name if only its beginning is given.
    fn name(&self, kind: &'static Registration, object: &mut Value) -> Result<(), StoreError> {
        if !meta::name(object).is_empty() {
            return Ok(());
        }
        let prefix = meta::text(object, "generateName").to_owned();
        if prefix.is_empty() {
            let error = FieldError::required("metadata.name", "give the object a name");
            return Err(invalid(kind, object, error));
        }
        for _ in 0..DRAWS {
            let random = Uuid::new_v4().simple().to_string();
            let name = format!("{prefix}{}", random.get(..6).unwrap_or(&random));
            let taken = self.get_value(kind, meta::namespace(object), &name)?.is_some();
            meta::set(object, "name", Some(name.into()));
            if !taken {
                break;
            }
        }
        Ok(())
    }

    /// An owner that is named anew must be there: with none it would never be collected.
    fn check_owners(&self, kind: &'static Registration, object: &Value, old: Option<&Value>) -> Result<(), StoreError> {
        let known = old.map(meta::owners).unwrap_or_default();
        for (index, uid) in meta::owners(object).into_iter().enumerate() {
            let owner = self.by_uid(uid)?.map(|(_, owner)| meta::namespace(&owner).to_owned());
            let fits = owner.is_some_and(|place| place.is_empty() || place == meta::namespace(object));
            if !fits && !known.contains(&uid) {
                let field = format!("metadata.ownerReferences[{index}].uid");
                let message = format!("no object in reach has uid `{uid}`; read the owner again");
                return Err(invalid(kind, object, FieldError::invalid(field, message)));
            }
        }
        Ok(())
    }
}
