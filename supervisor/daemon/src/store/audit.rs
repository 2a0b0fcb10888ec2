//! The chain of audit records: kept in the transaction of the deed that it tells of, so that neither is there without the
//! other.
//!
//! ```text
//! hash(n) = SHA-256( hash(n-1) || n as eight bytes, the highest first || the deed as it is kept )
//! ```
//!
//! The deed is kept as text and hashed as that text. Now and then somebody who has a key signs the newest hash.

use std::sync::Arc;

use berth_model::meta;
use berth_model::resource::AuditRecord;
use berth_model::resource::audit_record::{AuditRecordSpec, Deed};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use ring::digest;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::error::{Fault, StoreError};
use super::read::{Page, PageRequest, ReadTx};
use super::shape::encode;
use super::tx::Tx;

/// What comes before the first record.
const BEGINNING: [u8; 32] = [0; 32];

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it is in the chain, from 1.
    pub sequence: u64,
    /// The hash of the one before it.
    pub previous: [u8; 32],
    /// What was done, as it was hashed.
    pub deed: String,
    /// Its own hash.
    pub hash: [u8; 32],
}

/// A hash that somebody has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of which record.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// By the key of the machine.
    pub signature: Vec<u8>,
}

impl Link {
    /// What the hash of a record is.
    pub fn expected(previous: &[u8; 32], sequence: u64, deed: &str) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(previous);
        context.update(&sequence.to_be_bytes());
        context.update(deed.as_bytes());
        bytes(context.finish().as_ref())
    }

    /// What is called after its place in the chain, so that names are in the order of time.
    pub fn name(sequence: u64) -> String {
        format!("{sequence:012}")
    }

    /// The object that shows it.
    ///
    /// # Errors
    /// What is kept is no deed.
    pub fn object(&self) -> Result<Value, StoreError> {
        let deed = self.deed()?;
        let metadata = ObjectMeta {
            name: Some(Self::name(self.sequence)),
            uid: Some(format!("audit-{}", self.sequence)),
            creation_timestamp: Some(Time(deed.time)),
            resource_version: Some(self.sequence.to_string()),
            ..ObjectMeta::default()
        };
        let (previous, hash) = (hex(&self.previous), hex(&self.hash));
        encode(&AuditRecord {
            metadata,
            spec: AuditRecordSpec { sequence: self.sequence, deed, previous, hash },
            status: None,
        })
    }

    /// It as a line of JSON; the deed stands there as the text that was hashed.
    pub fn line(&self) -> String {
        let (previous, hash) = (hex(&self.previous), hex(&self.hash));
        json!({ "sequence": self.sequence, "previous": previous, "hash": hash, "deed": self.deed }).to_string()
    }

    /// What was done.
    ///
    /// # Errors
    /// What is kept is no deed.
    pub fn deed(&self) -> Result<Deed, StoreError> {
        super::read::parsed(|| format!("audit record {}", self.sequence), &self.deed)
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let hash = |at| Ok::<_, rusqlite::Error>(bytes(&row.get::<_, Vec<u8>>(at)?));
        Ok(Self { sequence: number(row.get(0)?), previous: hash(1)?, deed: row.get(2)?, hash: hash(3)? })
    }
}

/// A hash in hexadecimal.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn bytes(of: &[u8]) -> [u8; 32] {
    of.try_into().unwrap_or(BEGINNING)
}

fn number(of: i64) -> u64 {
    of.cast_unsigned()
}

const COLUMNS: &str = "SELECT sequence, previous, deed, hash FROM audit";

impl ReadTx<'_> {
    /// The newest record.
    pub fn newest_audit(&self) -> Result<Option<Link>, StoreError> {
        let sql = format!("{COLUMNS} ORDER BY sequence DESC LIMIT 1");
        let found = self.connection.prepare_cached(&sql).and_then(|mut ready| ready.query_row([], Link::of).optional());
        found.map_err(Fault::of("read the newest audit record"))
    }

    /// At most so many records after one, in their order.
    pub fn audit_after(&self, sequence: u64, limit: usize) -> Result<Vec<Link>, StoreError> {
        let sql = format!("{COLUMNS} WHERE sequence > ?1 ORDER BY sequence LIMIT ?2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.rows(&sql, params![sequence.cast_signed(), limit], Link::of, "read audit records")
    }

    /// A record by its name.
    pub fn audit_record(&self, name: &str) -> Result<Option<Value>, StoreError> {
        let Ok(sequence) = name.parse::<u64>() else { return Ok(None) };
        let found = self.audit_after(sequence.saturating_sub(1), 1)?.into_iter().next();
        found.filter(|link| Link::name(link.sequence) == name).map(|link| link.object()).transpose()
    }

    /// A part of all that is chosen, in the order of time.
    pub fn audit_page(&self, wanted: &PageRequest) -> Result<Page, StoreError> {
        let limit = wanted.limit.unwrap_or(usize::MAX);
        let (mut after, mut items, mut remaining) = (begin(wanted), Vec::new(), 0);
        loop {
            let links = self.audit_after(after, PIECE)?;
            let Some(last) = links.last() else { break };
            after = last.sequence;
            for link in &links {
                let object = link.object()?;
                match wanted.selector.matches(&object) {
                    true if items.len() < limit => items.push(object),
                    true => remaining += 1,
                    false => {}
                }
            }
        }
        let next = items.last().filter(|_| remaining > 0).map(|last| (String::new(), meta::name(last).to_owned()));
        Ok(Page { version: self.version()?, items, next, remaining })
    }

    /// All checkpoints, in their order.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let sql = "SELECT sequence, hash, signature FROM checkpoint ORDER BY sequence";
        let row = |row: &Row<'_>| {
            let hash = bytes(&row.get::<_, Vec<u8>>(1)?);
            Ok(Checkpoint { sequence: number(row.get(0)?), hash, signature: row.get(2)? })
        };
        self.rows(sql, [], row, "read checkpoints")
    }
}

/// Records that are read at once.
const PIECE: usize = 500;

fn begin(wanted: &PageRequest) -> u64 {
    wanted.after.as_ref().and_then(|(_, name)| name.parse().ok()).unwrap_or(0)
}

impl Tx<'_> {
    /// Puts a deed at the end of the chain. The time is that of the transaction.
    pub fn audit(&mut self, deed: &Deed) -> Result<(), StoreError> {
        let deed = serde_json::to_string(&Deed { time: self.now, ..deed.clone() });
        let deed = deed.map_err(|source| Fault::Encode { kind: "AuditRecord", source: Arc::new(source) })?;
        let (sequence, previous) = match self.newest_audit()? {
            Some(last) => (last.sequence + 1, last.hash),
            None => (1, BEGINNING),
        };
        let hash = Link::expected(&previous, sequence, &deed);
        let sql = "INSERT INTO audit (sequence, at, previous, deed, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![sequence.cast_signed(), self.now.as_second(), previous.as_slice(), deed, hash.as_slice()];
        self.execute(sql, values, "keep an audit record").map(drop)
    }

    /// Keeps what somebody has signed.
    pub fn keep_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO checkpoint (sequence, hash, signature) VALUES (?1, ?2, ?3)";
        let Checkpoint { sequence, hash, signature } = checkpoint;
        self.execute(sql, params![sequence.cast_signed(), hash.as_slice(), signature], "keep a checkpoint").map(drop)
    }

    /// Forgets what is older than this, the newest record excepted, on which the chain goes on.
    pub fn forget_audit(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        let sql = "DELETE FROM audit WHERE at < ?1 AND sequence < (SELECT max(sequence) FROM audit)";
        self.execute(sql, [before.as_second()], "forget old audit records")
    }
}
