//! The change log: what watchers are told, and what older lists are made from.

use std::sync::Arc;

use berth_model::event::ChangeKind;
use berth_model::kinds::Registration;
use berth_model::resource::operation::Actor;
use jiff::Timestamp;
use rusqlite::{Row, params};
use serde_json::Value;

use super::error::StoreError;
use super::read::{self, ReadTx};
use super::tx::Tx;

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The version it made.
    pub resource_version: u64,
    /// Kind of the object.
    pub kind: &'static Registration,
    /// Empty for kinds without.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// What happened.
    pub what: ChangeKind,
    /// The object after it; for a removal as it was last, with the removal's version.
    pub object: Value,
    /// The object before it, as selectors need it.
    pub previous: Option<Value>,
    /// Who did it.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
}

/// A change to be written down.
pub(super) struct Entry<'a> {
    pub(super) version: u64,
    pub(super) kind: &'static Registration,
    pub(super) what: ChangeKind,
    pub(super) object: &'a Value,
    /// The object as it is stored.
    pub(super) text: &'a str,
    pub(super) previous: Option<&'a Value>,
}

impl ReadTx<'_> {
    /// At most `limit` changes after version `since`, oldest first.
    ///
    /// # Errors
    /// [`super::Refusal::Gone`] if some of them are forgotten; [`super::Refusal::Ahead`] if
    /// `since` is yet to come.
    pub fn changes(&self, since: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        self.reachable(since)?;
        let sql = "SELECT version, kind, namespace, name, what, at, identity, source, object, previous
                   FROM change WHERE version > ?1 ORDER BY version LIMIT ?2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.rows(sql, params![since.cast_signed(), limit], raw, "read changes")?;
        rows.into_iter().map(decode).collect()
    }
}

impl Tx<'_> {
    pub(super) fn log(&mut self, entry: &Entry<'_>) -> Result<(), StoreError> {
        let previous = entry.previous.map(Value::to_string);
        let sql = "INSERT INTO change
                   (version, kind, namespace, name, what, at, identity, source, object, previous)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let parameters = params![
            entry.version.cast_signed(),
            entry.kind.key(),
            berth_model::meta::namespace(entry.object),
            berth_model::meta::name(entry.object),
            word(entry.what),
            self.now().as_microsecond(),
            self.actor().identity,
            self.actor().source,
            entry.text,
            previous,
        ];
        self.execute(sql, parameters, "log a change")?;
        let bytes = entry.text.len() + previous.map_or(0, |text| text.len());
        self.news.changes.push((Arc::new(self.change(entry)), bytes));
        Ok(())
    }

    fn change(&self, entry: &Entry<'_>) -> Change {
        Change {
            resource_version: entry.version,
            kind: entry.kind,
            namespace: berth_model::meta::namespace(entry.object).to_owned(),
            name: berth_model::meta::name(entry.object).to_owned(),
            what: entry.what,
            object: entry.object.clone(),
            previous: entry.previous.cloned(),
            actor: self.actor().clone(),
            at: self.now(),
        }
    }

    /// Forgets the changes up to and including a version; objects stay.
    ///
    /// # Errors
    /// [`super::Fault`] if the database cannot be written.
    pub fn compact(&mut self, keep_since: u64) -> Result<(), StoreError> {
        let mark = keep_since.min(self.version()?).max(self.compacted()?).cast_signed();
        self.execute("DELETE FROM change WHERE version <= ?1", [mark], "forget changes")?;
        let sql = "UPDATE meta SET value = ?1 WHERE key = 'compacted'";
        self.execute(sql, [mark], "mark what is forgotten")?;
        self.news.compacted = Some(mark.cast_unsigned());
        Ok(())
    }
}

struct Raw {
    version: i64,
    kind: String,
    namespace: String,
    name: String,
    what: String,
    at: i64,
    actor: Actor,
    object: String,
    previous: Option<String>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        version: row.get(0)?,
        kind: row.get(1)?,
        namespace: row.get(2)?,
        name: row.get(3)?,
        what: row.get(4)?,
        at: row.get(5)?,
        actor: Actor { identity: row.get(6)?, source: row.get(7)? },
        object: row.get(8)?,
        previous: row.get(9)?,
    })
}

fn decode(raw: Raw) -> Result<Change, StoreError> {
    let what = || format!("{} {}/{} at version {}", raw.kind, raw.namespace, raw.name, raw.version);
    let object = read::body(what, &raw.object)?;
    let previous = raw.previous.as_deref().map(|text| read::body(what, text)).transpose()?;
    Ok(Change {
        resource_version: raw.version.cast_unsigned(),
        kind: read::kind(&raw.kind)?,
        what: from_word(&raw.what),
        at: Timestamp::from_microsecond(raw.at).unwrap_or(Timestamp::UNIX_EPOCH),
        actor: raw.actor.clone(),
        object,
        previous,
        namespace: raw.namespace,
        name: raw.name,
    })
}

fn word(what: ChangeKind) -> &'static str {
    match what {
        ChangeKind::Added => "added",
        ChangeKind::Modified => "modified",
        ChangeKind::Deleted => "deleted",
    }
}

/// The schema lets no other word in.
fn from_word(word: &str) -> ChangeKind {
    match word {
        "added" => ChangeKind::Added,
        "deleted" => ChangeKind::Deleted,
        _ => ChangeKind::Modified,
    }
}
