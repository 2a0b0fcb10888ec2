//! The file: first start, restart, other people's files.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn error_of(path: &std::path::Path) -> String {
    let opened = Store::open(path, clock(&Arc::default()));
    opened.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_new_store_is_private_and_has_the_default_namespace() {
    let fixture = Fixture::new();
    for file in std::fs::read_dir(fixture.directory.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let namespace = fixture.get::<Namespace>("", "default").await.unwrap();
    assert_eq!(namespace.status.unwrap().phase, "Active");
}

#[tokio::test]
async fn a_store_that_is_opened_again_has_everything_and_goes_on_counting() {
    let mut fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    fixture.delete::<ConfigMap>("default", "a").await.unwrap();
    let newest = fixture.newest();
    fixture.reopen().await;
    assert_eq!(fixture.newest(), newest);
    let made = fixture.create(config("b", "1")).await.unwrap();
    assert_eq!(made.metadata.resource_version, Some((newest + 1).to_string()));
    assert_eq!(
        fixture.told_since(newest - 2).await,
        ["Added configmaps/a", "Deleted configmaps/a", "Added configmaps/b"]
    );
}

#[tokio::test]
async fn what_waits_is_written_before_the_store_closes_and_nothing_after() {
    let mut fixture = Fixture::new();
    let writes = (0..20).map(|number| fixture.create(config(&format!("c{number}"), "1")));
    let (written, ()) = tokio::join!(futures_util::future::join_all(writes), fixture.store.close());
    let kept = written.iter().filter(|result| result.is_ok()).count();
    assert!(matches!(fixture.create(config("late", "1")).await, Err(StoreError::Broken(Fault::Closed))));
    assert!(matches!(fixture.store.read(|tx| tx.version()).await, Err(StoreError::Broken(Fault::Closed))));
    fixture.reopen().await;
    let all: Vec<ConfigMap> = fixture.store.read(|tx| tx.list(None)).await.unwrap();
    assert_eq!(all.len(), kept);
}

#[tokio::test]
async fn a_store_of_a_newer_berth_is_left_alone_with_advice() {
    let fixture = Fixture::new();
    fixture.store.close().await;
    let raw = Connection::open(fixture.path()).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let error = error_of(&fixture.path());
    assert!(error.contains("has schema 99") && error.contains("install the berthd that wrote it"), "{error}");
}

/// The schema of a closed store becomes another, as a version that is older or newer would have it.
fn set_schema(fixture: &Fixture, sql: &str) {
    Connection::open(fixture.path()).unwrap().execute_batch(sql).unwrap();
}

fn files(fixture: &Fixture) -> Vec<String> {
    let files = std::fs::read_dir(fixture.directory.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains(".schema-") || name.contains(".left-")).collect();
    names.sort();
    names
}

/// What a version before this one has left, whose schema had one step less.
const BEFORE: &str = "DROP TABLE device_login; PRAGMA user_version = 5;";

#[tokio::test]
async fn a_new_schema_leaves_a_copy_of_the_store_before_it_that_is_private_and_whole() {
    let mut fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    fixture.store.close().await;
    set_schema(&fixture, BEFORE);
    fixture.reopen().await;
    assert_eq!(files(&fixture), ["berth.db.schema-5"]);
    let copy = fixture.directory.path().join("berth.db.schema-5");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kept = Connection::open(&copy).unwrap();
    let names: String = kept
        .query_row("SELECT group_concat(name) FROM object WHERE kind = 'configmaps'", [], |row| row.get(0))
        .unwrap();
    let schema: i64 = kept.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((names.as_str(), schema), ("a", 5));
}

#[tokio::test]
async fn a_version_that_comes_back_has_its_store_again_and_what_was_written_since_is_set_aside() {
    let mut fixture = Fixture::new();
    fixture.create(config("before", "1")).await.unwrap();
    fixture.store.close().await;
    let copy = fixture.directory.path().join("berth.db.schema-6");
    std::fs::copy(fixture.path(), &copy).unwrap();
    fixture.reopen().await;
    fixture.create(config("on-trial", "1")).await.unwrap();
    fixture.store.close().await;
    set_schema(&fixture, "CREATE TABLE newer (x); PRAGMA user_version = 7;");
    fixture.reopen().await;
    assert!(fixture.get::<ConfigMap>("default", "before").await.is_some());
    assert!(fixture.get::<ConfigMap>("default", "on-trial").await.is_none());
    assert_eq!(files(&fixture), ["berth.db.left-7"]);
    // It is an ordinary store, which goes on.
    fixture.create(config("after", "1")).await.unwrap();
    fixture.reopen().await;
    assert!(fixture.get::<ConfigMap>("default", "after").await.is_some());
}

#[tokio::test]
async fn copies_are_removed_once_the_new_version_has_stayed_and_nothing_else_is() {
    let mut fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    fixture.store.close().await;
    set_schema(&fixture, BEFORE);
    fixture.reopen().await;
    std::fs::write(fixture.directory.path().join("berth.db.left-7"), "").unwrap();
    assert_eq!(files(&fixture).len(), 2);
    copies::forget_after(std::time::Duration::ZERO, fixture.path()).await;
    assert_eq!(files(&fixture), Vec::<String>::new());
    fixture.reopen().await;
    assert!(fixture.get::<ConfigMap>("default", "a").await.is_some());
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = error_of(&path);
    assert!(error.contains("is not a store of Berth"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    std::fs::write(&path, "not a database, but long enough to look like one to somebody").unwrap();
    assert!(error_of(&path).contains("cannot open the store"));
    assert_eq!(std::fs::read(&path).unwrap().get(..14), Some(b"not a database".as_slice()));
}

#[tokio::test]
async fn every_write_is_synced_and_every_read_sees_one_moment() {
    let fixture = Fixture::new();
    let pragma = |name: &'static str| {
        fixture.write(move |tx| {
            let value = tx.connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
            value.map_err(Fault::of("read a pragma"))
        })
    };
    assert_eq!(pragma("journal_mode").await.unwrap(), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous").await.unwrap(), rusqlite::types::Value::Integer(2));
    assert_eq!(pragma("foreign_keys").await.unwrap(), rusqlite::types::Value::Integer(1));
}

#[tokio::test]
async fn a_reader_keeps_its_moment_while_others_write() {
    let fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    let (begun, wait) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let (tell_begun, may_end) = (begun.0, wait.1);
    let reader = fixture.store.clone();
    let reading = tokio::spawn(async move {
        reader
            .read(move |tx| {
                let before = tx.list::<ConfigMap>(None)?.len();
                tell_begun.send(()).unwrap();
                may_end.recv().unwrap();
                Ok((before, tx.list::<ConfigMap>(None)?.len()))
            })
            .await
    });
    tokio::task::spawn_blocking(move || begun.1.recv().unwrap()).await.unwrap();
    fixture.create(config("b", "1")).await.unwrap();
    wait.0.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), (1, 1));
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let fixture = Fixture::new();
    let tried = fixture.store.read(|tx| {
        let tried = tx.connection.execute("DELETE FROM object", []);
        tried.map(drop).map_err(Fault::of("write as a reader"))
    });
    assert!(matches!(tried.await, Err(StoreError::Broken(Fault::Sql { .. }))));
}
