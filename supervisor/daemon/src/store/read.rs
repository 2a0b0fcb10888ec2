//! Reading, inside one snapshot or transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::event::ChangeKind;
use berth_model::kinds::{self, Kind, Registration};
use berth_model::meta;
use berth_model::selector::Selector;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::changes::Change;
use super::error::{Fault, Refusal, StoreError};
use super::shape;

// Left to itself, SQLite reads all of a kind rather than sort the few that are wanted: these two name their index.
pub(super) const ABOUT: &str = "SELECT namespace, name, body FROM object INDEXED BY object_subject
                                WHERE kind = ?1 AND namespace = ?2 AND subject = ?3 ORDER BY name";
pub(super) const LASTING: &str = "SELECT namespace, name, body FROM object INDEXED BY object_lasting
                                  WHERE kind = ?1 AND expires_at IS NULL ORDER BY namespace, name";

/// What can be read; all of it as of one moment.
pub struct ReadTx<'c> {
    pub(super) connection: &'c Connection,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only these objects.
    pub selector: Selector,
    /// At most so many.
    pub limit: Option<usize>,
    /// As it was at this version; now, if absent.
    pub at: Option<u64>,
    /// Those that come after this namespace and name.
    pub after: Option<(String, String)>,
}

/// Part of a list, in the order of namespace and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The version the list is of.
    pub version: u64,
    /// The objects.
    pub items: Vec<Value>,
    /// Where the next part begins: give it as [`PageRequest::after`], with `at` = `version`.
    pub next: Option<(String, String)>,
    /// How many objects come after these.
    pub remaining: usize,
}

/// The newest version.
pub(super) fn version(connection: &Connection) -> Result<u64, StoreError> {
    number(connection, "version")
}

fn number(connection: &Connection, key: &str) -> Result<u64, StoreError> {
    let ready = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1");
    let found = ready.and_then(|mut ready| ready.query_row([key], |row| row.get::<_, i64>(0)));
    Ok(found.map_err(Fault::of("read a counter"))?.cast_unsigned())
}

/// Decodes the body of a row.
pub(super) fn body(what: impl Fn() -> String, text: &str) -> Result<Value, StoreError> {
    decoded(what, text)
}

/// Decodes what was kept as text.
pub(super) fn parsed<T: DeserializeOwned>(what: impl Fn() -> String, text: &str) -> Result<T, StoreError> {
    decoded(what, text)
}

fn decoded<T: DeserializeOwned>(what: impl Fn() -> String, text: &str) -> Result<T, StoreError> {
    let decoded = serde_json::from_str(text);
    decoded.map_err(|source| Fault::Decode { what: what(), source: Arc::new(source) }.into())
}

/// The typed form of an object from the store.
pub(super) fn typed<K: Kind>(object: &Value) -> Result<K, StoreError> {
    K::deserialize(object).map_err(|source| {
        let (kind, namespace, name) = (K::KIND, meta::namespace(object), meta::name(object));
        let what = format!("{kind} {namespace}/{name}");
        Fault::Decode { what, source: Arc::new(source) }.into()
    })
}

fn named_body(row: &Row<'_>) -> rusqlite::Result<(String, String, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// The kind a row says it is of.
pub(super) fn kind(key: &str) -> Result<&'static Registration, StoreError> {
    kinds::by_key(key).ok_or_else(|| Fault::UnknownKind(key.to_owned()).into())
}

impl<'c> ReadTx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection }
    }

    /// The newest version in this snapshot: what a list carries, and a watch goes on from.
    pub fn version(&self) -> Result<u64, StoreError> {
        version(self.connection)
    }

    /// The version up to which changes are forgotten.
    pub fn compacted(&self) -> Result<u64, StoreError> {
        number(self.connection, "compacted")
    }

    /// Reads one object; `namespace` is empty for kinds without.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, StoreError> {
        let found = self.get_text(K::registration(), namespace, name)?;
        found.map(|text| decoded(|| format!("{} {namespace}/{name}", K::KIND), &text)).transpose()
    }

    /// [`ReadTx::get`] for a kind that is known at run time only.
    pub fn get_value(
        &self,
        kind: &'static Registration,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, StoreError> {
        let found = self.get_text(kind, namespace, name)?;
        found.map(|text| body(|| format!("{} {namespace}/{name}", kind.key()), &text)).transpose()
    }

    fn get_text(&self, kind: &'static Registration, namespace: &str, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM object WHERE kind = ?1 AND namespace = ?2 AND name = ?3";
        let found = self.connection.prepare_cached(sql).and_then(|mut ready| {
            ready.query_row(params![kind.key(), namespace, name], |row| row.get::<_, String>(0)).optional()
        });
        found.map_err(Fault::of("read an object"))
    }

    /// Reads an object by its uid, whatever its kind.
    pub fn by_uid(&self, uid: &str) -> Result<Option<(&'static Registration, Value)>, StoreError> {
        let found = self.connection.prepare_cached("SELECT kind, body FROM object WHERE uid = ?1");
        let found = found.and_then(|mut ready| {
            ready.query_row([uid], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).optional()
        });
        let Some((key, text)) = found.map_err(Fault::of("read an object by uid"))? else { return Ok(None) };
        Ok(Some((kind(&key)?, body(|| format!("{key} {uid}"), &text)?)))
    }

    /// All objects of a kind, in one namespace or all, by namespace and name.
    pub fn list<K: Kind>(&self, namespace: Option<&str>) -> Result<Vec<K>, StoreError> {
        let sql = "SELECT namespace, name, body FROM object
                   WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2) ORDER BY namespace, name";
        self.typed_rows(sql, params![K::registration().key(), namespace])
    }

    /// Revisions and volumes of a bundle, or operations on what has that name, by name.
    pub fn list_about<K: Kind>(&self, namespace: &str, subject: &str) -> Result<Vec<K>, StoreError> {
        self.typed_rows(ABOUT, params![K::registration().key(), namespace, subject])
    }

    /// The objects of a kind whose life has no end yet: of operations, those that are not finished.
    pub fn list_lasting<K: Kind>(&self) -> Result<Vec<K>, StoreError> {
        self.typed_rows(LASTING, params![K::registration().key()])
    }

    fn typed_rows<K: Kind>(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<K>, StoreError> {
        let decode = |(namespace, name, text): (String, String, String)| {
            decoded(|| format!("{} {namespace}/{name}", K::KIND), &text)
        };
        self.rows(sql, parameters, named_body, "list objects")?.into_iter().map(decode).collect()
    }

    /// [`ReadTx::list`] for a kind that is known at run time only.
    pub fn list_values(&self, kind: &'static Registration, namespace: Option<&str>) -> Result<Vec<Value>, StoreError> {
        Ok(self.objects(kind, &[("namespace", namespace)])?.into_values().collect())
    }

    /// Part of a list, now or as it was at an earlier version.
    ///
    /// # Errors
    /// [`Refusal::Gone`] if that version is forgotten, [`Refusal::Ahead`] if it is yet to come.
    pub fn page(&self, kind: &'static Registration, wanted: &PageRequest) -> Result<Page, StoreError> {
        let newest = self.version()?;
        let version = wanted.at.unwrap_or(newest);
        let subject = shape::subject_field(kind).and_then(|field| wanted.selector.only(field));
        let columns = [
            ("namespace", wanted.namespace.as_deref()),
            ("name", wanted.selector.only("/metadata/name")),
            ("subject", subject),
        ];
        let mut objects = self.objects(kind, &columns)?;
        if version != newest {
            self.turn_back(kind, wanted, version, &mut objects)?;
        }
        let is_after = |key: &(String, String)| wanted.after.as_ref().is_none_or(|after| key > after);
        let chosen = |(key, object): &(_, Value)| is_after(key) && wanted.selector.matches(object);
        let mut chosen: Vec<_> = objects.into_iter().filter(chosen).collect();
        let shown = wanted.limit.map_or(chosen.len(), |limit| limit.min(chosen.len()));
        let remaining = chosen.split_off(shown).len();
        let next = chosen.last().filter(|_| remaining > 0).map(|(key, _)| key.clone());
        let items = chosen.into_iter().map(|(_, object)| object).collect();
        Ok(Page { version, items, next, remaining })
    }

    /// Undoes the changes after `version` in a list.
    fn turn_back(
        &self,
        kind: &'static Registration,
        wanted: &PageRequest,
        version: u64,
        objects: &mut BTreeMap<(String, String), Value>,
    ) -> Result<(), StoreError> {
        let mut changes = self.changes(version, usize::MAX)?;
        let concerns = |change: &Change| {
            change.kind == kind && wanted.namespace.as_ref().is_none_or(|only| *only == change.namespace)
        };
        changes.retain(concerns);
        for change in changes.into_iter().rev() {
            let key = (change.namespace, change.name);
            match (change.what, change.previous) {
                (ChangeKind::Added, _) | (_, None) => drop(objects.remove(&key)),
                (_, Some(previous)) => drop(objects.insert(key, previous)),
            }
        }
        Ok(())
    }

    fn objects(
        &self,
        kind: &'static Registration,
        columns: &[(&str, Option<&str>)],
    ) -> Result<BTreeMap<(String, String), Value>, StoreError> {
        let mut sql = "SELECT namespace, name, body FROM object WHERE kind = ?1".to_owned();
        let mut values = vec![kind.key()];
        // Only what is asked for: an index is of no use to a condition that may be none.
        for (column, value) in columns.iter().filter_map(|(column, value)| Some((column, (*value)?))) {
            values.push(value.to_owned());
            sql.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
        let rows = self.rows(&sql, params_from_iter(values), named_body, "list objects")?;
        let decode = |(namespace, name, text): (String, String, String)| {
            let object = body(|| format!("{} {namespace}/{name}", kind.key()), &text)?;
            Ok(((namespace, name), object))
        };
        rows.into_iter().map(decode).collect()
    }

    /// All rows of a query.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
        doing: &'static str,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.connection.prepare_cached(sql).and_then(|mut ready| {
            let rows = ready.query_map(parameters, row)?;
            rows.collect::<rusqlite::Result<Vec<T>>>()
        });
        rows.map_err(Fault::of(doing))
    }

    /// Checks that changes after a version can be told.
    pub(super) fn reachable(&self, since: u64) -> Result<(), StoreError> {
        let (oldest, newest) = (self.compacted()?, self.version()?);
        if since < oldest {
            return Err(Refusal::Gone { asked: since, oldest }.into());
        }
        if since > newest {
            return Err(Refusal::Ahead { asked: since, newest }.into());
        }
        Ok(())
    }
}
