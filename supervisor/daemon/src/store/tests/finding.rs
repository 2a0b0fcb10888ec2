//! Objects that are found by what they are about, and not by reading all of their kind.

use berth_model::kinds::Kind;
use berth_model::meta;
use berth_model::resource::operation::{Operation, OperationState, OperationStatus};
use berth_model::selector::Selector;
use rusqlite::{Connection, params_from_iter};

use super::changing::operation;
use super::*;

fn about(name: &str, bundle: &str) -> Operation {
    let mut operation = operation(name);
    operation.spec.target.name = bundle.into();
    operation
}

fn names(operations: &[Operation]) -> Vec<&str> {
    operations.iter().filter_map(|operation| operation.metadata.name.as_deref()).collect()
}

async fn of(fixture: &Fixture, bundle: &'static str) -> Vec<Operation> {
    fixture.store.read(move |tx| tx.list_about("default", bundle)).await.unwrap()
}

#[tokio::test]
async fn operations_are_found_by_what_they_work_on() {
    let mut fixture = Fixture::new();
    for (name, bundle) in [("b", "web"), ("a", "web"), ("c", "db")] {
        fixture.create(about(name, bundle)).await.unwrap();
    }
    assert_eq!(names(&of(&fixture, "web").await), ["a", "b"]);
    assert_eq!(names(&of(&fixture, "none").await), Vec::<&str>::new());
    let elsewhere: Vec<Operation> = fixture.store.read(|tx| tx.list_about("other", "web")).await.unwrap();
    assert_eq!(elsewhere, []);
    fixture.delete::<Operation>("default", "a").await.unwrap();
    fixture.reopen().await;
    assert_eq!(names(&of(&fixture, "web").await), ["b"]);
}

#[tokio::test]
async fn an_operation_lasts_until_it_has_finished() {
    let fixture = Fixture::new();
    let mut done = fixture.create(about("done", "web")).await.unwrap();
    fixture.create(about("open", "web")).await.unwrap();
    done.status = Some(OperationStatus { state: OperationState::Succeeded, ..OperationStatus::default() });
    fixture.write(move |tx| tx.update_status(&done)).await.unwrap();
    let lasting: Vec<Operation> = fixture.store.read(|tx| tx.list_lasting()).await.unwrap();
    assert_eq!(names(&lasting), ["open"]);
}

#[tokio::test]
async fn a_list_that_asks_for_one_thing_is_found_by_it_and_by_all_else_it_asks_for() {
    let fixture = Fixture::new();
    for (name, bundle) in [("b", "web"), ("a", "web"), ("c", "db")] {
        fixture.create(about(name, bundle)).await.unwrap();
    }
    let kind = Operation::registration();
    let listed = async |fields: &str| {
        let selector = Selector::parse(kind, "", fields).unwrap();
        let wanted = PageRequest { selector, ..PageRequest::default() };
        let page = fixture.store.read(move |tx| tx.page(kind, &wanted)).await.unwrap();
        page.items.iter().map(|object| meta::name(object).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("spec.target.name=web").await, ["a", "b"]);
    assert_eq!(listed("spec.target.name=web,metadata.name=b").await, ["b"]);
    assert_eq!(listed("spec.target.name=web,status.state=Running").await, Vec::<String>::new());
    assert_eq!(listed("spec.target.name!=web").await, ["c"]);
    assert_eq!(listed("metadata.name=c").await, ["c"]);
}

#[tokio::test]
async fn neither_reads_all_there_is() {
    let fixture = Fixture::new();
    let raw = Connection::open(fixture.path()).unwrap();
    for (sql, index) in [(read::ABOUT, "object_subject"), (read::LASTING, "object_lasting")] {
        let values = vec!["operations.berth.dev"; sql.matches('?').count()];
        let mut ready = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: String = ready.query_row(params_from_iter(values), |row| row.get(3)).unwrap();
        assert!(plan.contains(&format!("USING INDEX {index} ")), "{plan}");
    }
}

#[tokio::test]
async fn a_store_of_the_first_release_is_brought_up_and_finds_what_it_had() {
    let mut fixture = Fixture::new();
    fixture.create(about("a", "web")).await.unwrap();
    fixture.store.close().await;
    let raw = Connection::open(fixture.path()).unwrap();
    let first = "DROP INDEX object_subject; DROP INDEX object_lasting; ALTER TABLE object DROP COLUMN subject;
                 DROP TABLE credential; DROP TABLE verifier; DROP TABLE audit; DROP TABLE checkpoint;
                 DROP TABLE device_login;
                 PRAGMA user_version = 1;";
    raw.execute_batch(first).unwrap();
    drop(raw);
    fixture.reopen().await;
    assert_eq!(names(&of(&fixture, "web").await), ["a"]);
}
