//! The file: where it lies, how it is opened, and how its schema came to be.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_model::kinds::{NAMESPACE, SETTINGS};
use berth_model::resource::settings::{self, Settings, SettingsSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde_json::json;

use super::copies;
use super::error::{Fault, StoreError};
use super::tx::Tx;
use super::{DEFAULT_NAMESPACE, house_keeping};

/// Marks the file as ours: "BRTH".
const APPLICATION_ID: i64 = 0x4252_5448;

/// Each step leads from the schema before it to its own; the schema's number is how many were
/// taken. Steps are never changed once released.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (
        key   TEXT    NOT NULL PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('version', 0), ('compacted', 0);

    -- body is the object as it is served; the other columns repeat what is searched by.
    CREATE TABLE object (
        uid        TEXT    NOT NULL PRIMARY KEY,
        kind       TEXT    NOT NULL,
        namespace  TEXT    NOT NULL,
        name       TEXT    NOT NULL,
        version    INTEGER NOT NULL UNIQUE,
        generation INTEGER NOT NULL,
        deleted_at INTEGER,
        expires_at INTEGER,
        body       TEXT    NOT NULL,
        UNIQUE (kind, namespace, name)
    ) STRICT;
    CREATE INDEX object_namespace ON object (namespace);
    CREATE INDEX object_expiry ON object (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE owner (
        owner     TEXT NOT NULL,
        dependent TEXT NOT NULL REFERENCES object (uid) ON DELETE CASCADE,
        PRIMARY KEY (owner, dependent)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX owner_dependent ON owner (dependent);

    CREATE TABLE change (
        version   INTEGER NOT NULL PRIMARY KEY,
        kind      TEXT    NOT NULL,
        namespace TEXT    NOT NULL,
        name      TEXT    NOT NULL,
        what      TEXT    NOT NULL CHECK (what IN ('added', 'modified', 'deleted')),
        at        INTEGER NOT NULL,
        identity  TEXT    NOT NULL,
        source    TEXT    NOT NULL,
        object    TEXT    NOT NULL,
        previous  TEXT
    ) STRICT;

    CREATE TABLE idempotency (
        key       TEXT NOT NULL,
        target    TEXT NOT NULL,
        operation TEXT NOT NULL REFERENCES object (uid) ON DELETE CASCADE,
        PRIMARY KEY (key, target)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_operation ON idempotency (operation);
",
    "
    -- The bundle or volume that an object is about: what is looked for by it is found without reading all of its kind.
    ALTER TABLE object ADD COLUMN subject TEXT GENERATED ALWAYS AS (
        CASE kind
            WHEN 'operations.berth.dev' THEN json_extract(body, '$.spec.target.name')
            WHEN 'revisions.berth.dev'  THEN json_extract(body, '$.spec.bundle')
            WHEN 'volumes.berth.dev'    THEN json_extract(body, '$.spec.bundle')
        END
    ) VIRTUAL;
    CREATE INDEX object_subject ON object (kind, namespace, subject) WHERE subject IS NOT NULL;
    -- Operations that are not finished among the many that are.
    CREATE INDEX object_lasting ON object (kind) WHERE expires_at IS NULL;
",
    "
    -- Whoever writes an object knows what it is about: SQLite need not read the body once more for each write.
    DROP INDEX object_subject;
    ALTER TABLE object DROP COLUMN subject;
    ALTER TABLE object ADD COLUMN subject TEXT;
    UPDATE object SET subject = CASE kind
        WHEN 'operations.berth.dev' THEN json_extract(body, '$.spec.target.name')
        WHEN 'revisions.berth.dev'  THEN json_extract(body, '$.spec.bundle')
        WHEN 'volumes.berth.dev'    THEN json_extract(body, '$.spec.bundle')
        WHEN 'events'               THEN json_extract(body, '$.involvedObject.name')
    END;
    CREATE INDEX object_subject ON object (kind, namespace, subject) WHERE subject IS NOT NULL;
",
    "
    -- What proves who somebody is, apart from the objects that others read. A credential is known by the hash of what
    -- its bearer shows, and goes with the object that it belongs to; so does what a password is checked by.
    CREATE TABLE credential (
        hash       BLOB    NOT NULL PRIMARY KEY,
        purpose    TEXT    NOT NULL,
        object     TEXT    NOT NULL REFERENCES object (uid) ON DELETE CASCADE,
        expires_at INTEGER,
        spent      INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX credential_object ON credential (object);
    CREATE TABLE verifier (
        object  TEXT NOT NULL REFERENCES object (uid) ON DELETE CASCADE,
        purpose TEXT NOT NULL,
        body    TEXT NOT NULL,
        PRIMARY KEY (object, purpose)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- What was done and refused: each record is hashed with the one before it.
    CREATE TABLE audit (
        sequence INTEGER NOT NULL PRIMARY KEY,
        at       INTEGER NOT NULL,
        previous BLOB    NOT NULL,
        deed     TEXT    NOT NULL,
        hash     BLOB    NOT NULL
    ) STRICT;
    CREATE INDEX audit_at ON audit (at);
    CREATE TABLE checkpoint (
        sequence  INTEGER NOT NULL PRIMARY KEY,
        hash      BLOB    NOT NULL,
        signature BLOB    NOT NULL
    ) STRICT;
",
    "
    -- Logins that wait for somebody to let them in: known by hashes, of what their program asks with and of what people
    -- type. One that was let in goes with whoever did that.
    CREATE TABLE device_login (
        device     BLOB    NOT NULL PRIMARY KEY,
        code       BLOB    NOT NULL UNIQUE,
        place      TEXT    NOT NULL,
        expires_at INTEGER NOT NULL,
        approver   TEXT    REFERENCES object (uid) ON DELETE CASCADE,
        body       TEXT    NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX device_login_approver ON device_login (approver) WHERE approver IS NOT NULL;
",
];

/// How long a statement waits for another process that reads the file.
const BUSY: Duration = Duration::from_secs(10);

/// Opens the writing connection, if the file is ours or new. A store that a newer version has taken further and left
/// again is as it was before that.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Fault> {
    match open_ours(path) {
        Err(Fault::NewerSchema { found, known, .. }) if copies::go_back(path, found, known)? => open_ours(path),
        other => other,
    }
}

fn open_ours(path: &Path) -> Result<Connection, Fault> {
    create_private(path).map_err(|source| Fault::Open { path: path.into(), source: Arc::new(source) })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(cannot_open(path))?;
    check_owner(&connection, path)?;
    configure(&connection).map_err(cannot_open(path))?;
    Ok(connection)
}

/// Brings the schema up to date, and makes what every store has from the start.
pub(super) fn bring_up(connection: &mut Connection, path: &Path, now: Timestamp) -> Result<(), StoreError> {
    migrate(connection, path)?;
    first_objects(connection, now)
}

/// Opens a connection that can only read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(cannot_open(path))?;
    connection.busy_timeout(BUSY).map_err(cannot_open(path))?;
    keep_pages(&connection, READERS_PAGES).map_err(cannot_open(path))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn cannot_open(path: &Path) -> impl Fn(rusqlite::Error) -> Fault {
    move |source| Fault::Open { path: path.into(), source: Arc::new(source) }
}

/// SQLite gives its side files the mode of the database; it is made here so that it is private,
/// and in the directory for good, before anything is written.
fn create_private(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?.sync_all()?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Looks before anything is written whether the file is ours, or empty.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let objects = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(objects, [], |row| row.get(0)).map_err(cannot_open(path))?;
    let owner = number("application_id").map_err(cannot_open(path))?;
    let found = number("user_version").map_err(cannot_open(path))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match (tables, owner) {
        (0, 0) => Ok(()),
        (_, APPLICATION_ID) if found > known => Err(Fault::NewerSchema { path: path.into(), found, known }),
        (_, APPLICATION_ID) => Ok(()),
        _ => Err(Fault::Foreign(path.into())),
    }
}

/// KiB of pages that the writer keeps, and each reader: a reader's are worth nothing after the next write, and the
/// kernel has all of them anyway.
const WRITERS_PAGES: i64 = 1024;
const READERS_PAGES: i64 = 256;

/// SQLite counts pages in KiB if the number is negative.
fn keep_pages(connection: &Connection, kibibytes: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -kibibytes)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    keep_pages(connection, WRITERS_PAGES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let version = version.map_err(cannot_open(path))?;
    let taken = usize::try_from(version).unwrap_or(0);
    if taken > 0 && taken < MIGRATIONS.len() {
        copies::keep(connection, path, version)?;
    }
    for (to, step) in (1..).zip(MIGRATIONS).skip(taken) {
        step_to(connection, to, step).map_err(|source| Fault::Migrate { to, source: Arc::new(source) })?;
    }
    Ok(())
}

fn step_to(connection: &mut Connection, to: i64, step: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn first_objects(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    let transaction = connection.transaction().map_err(Fault::of("begin"))?;
    let mut tx = Tx::new(&transaction, (now, now), house_keeping());
    if tx.get_value(&NAMESPACE, "", DEFAULT_NAMESPACE)?.is_none() {
        let namespace = json!({
            "metadata": { "name": DEFAULT_NAMESPACE },
            "status": { "phase": "Active" },
        });
        tx.create_value(&NAMESPACE, namespace)?;
    }
    if tx.get_value(&SETTINGS, "", settings::NAME)?.is_none() {
        let metadata = ObjectMeta { name: Some(settings::NAME.to_owned()), ..ObjectMeta::default() };
        tx.create(&Settings { metadata, spec: SettingsSpec::default(), status: None })?;
    }
    transaction.commit().map_err(Fault::of("commit"))
}
