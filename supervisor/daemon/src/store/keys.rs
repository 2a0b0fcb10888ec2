//! Idempotency keys: the same request, sent again, finds the operation it started.

use berth_model::kinds::OPERATION;
use berth_model::resource::Operation;
use berth_model::resource::operation::Target;
use rusqlite::params;

use super::error::StoreError;
use super::read::{self, ReadTx};
use super::tx::Tx;

impl ReadTx<'_> {
    /// The operation that was started for a target under a key, as long as its record is kept.
    pub fn operation_for(&self, key: &str, target: &Target) -> Result<Option<Operation>, StoreError> {
        let sql = "SELECT operation FROM idempotency WHERE key = ?1 AND target = ?2";
        let found = self.rows(sql, params![key, text(target)], |row| row.get::<_, String>(0), "look a key up")?;
        let Some(uid) = found.first() else { return Ok(None) };
        let operation = self.by_uid(uid)?.filter(|(kind, _)| **kind == OPERATION);
        operation.map(|(_, object)| read::typed(&object)).transpose()
    }
}

impl Tx<'_> {
    /// Makes a key lead to an operation that is in the store; goes with the operation.
    ///
    /// # Errors
    /// [`super::Fault::Sql`] if the key is taken for this target: look it up first, in the same
    /// transaction.
    pub fn remember_key(&mut self, key: &str, target: &Target, operation: &Operation) -> Result<(), StoreError> {
        let sql = "INSERT INTO idempotency (key, target, operation) VALUES (?1, ?2, ?3)";
        let uid = operation.metadata.uid.as_deref().unwrap_or_default();
        self.execute(sql, params![key, text(target), uid], "remember a key").map(drop)
    }
}

fn text(target: &Target) -> String {
    format!("{}/{}/{}", target.kind, target.namespace, target.name)
}
