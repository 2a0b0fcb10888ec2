//! Random transactions on a store and on the oracle: both must come to the same.

use proptest::test_runner::TestCaseError;

use super::model::{Oracle, Told};
use super::workload::{self, NAMESPACES, Transaction, look};
use super::*;
use crate::chance::{count, runner, seed};

#[derive(Clone, Debug)]
enum Move {
    Run(Transaction),
    Reopen,
    /// Reads the changes of the last so many versions.
    Follow(u64),
    /// Reads the list as it was so many versions ago.
    LookBack(u64),
}

fn moves() -> impl proptest::strategy::Strategy<Value = Vec<Move>> {
    use proptest::prelude::*;
    let one = prop_oneof![
        12 => workload::transaction().prop_map(Move::Run),
        1 => Just(Move::Reopen),
        2 => (0..40_u64).prop_map(Move::Follow),
        2 => (0..40_u64).prop_map(Move::LookBack),
    ];
    proptest::collection::vec(one, 1..60)
}

#[test]
fn a_store_does_what_the_oracle_says_whatever_is_done_to_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runner(seed(), count(24, 1000)).run(&moves(), |moves| {
        runtime.block_on(Run::new().all(&moves));
        Ok::<(), TestCaseError>(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

struct Run {
    fixture: Fixture,
    oracle: Oracle,
    /// Every world there was, by its version.
    past: std::collections::BTreeMap<u64, workload::World>,
}

impl Run {
    fn new() -> Self {
        Self { fixture: Fixture::new(), oracle: Oracle::new(), past: Default::default() }
    }

    async fn all(mut self, moves: &[Move]) {
        self.remember();
        for one in moves {
            match one {
                Move::Run(transaction) => self.transaction(transaction).await,
                Move::Reopen => self.fixture.reopen().await,
                Move::Follow(back) => self.follow(*back).await,
                Move::LookBack(back) => self.look_back(*back).await,
            }
            assert_eq!(self.fixture.store.read(look).await.unwrap(), self.oracle.world());
            self.remember();
        }
    }

    fn remember(&mut self) {
        let world = self.oracle.world();
        self.past.insert(world.version, world);
    }

    async fn transaction(&mut self, transaction: &Transaction) {
        self.fixture.let_pass(workload::STEP);
        let now = self.fixture.seconds.load(Ordering::SeqCst);
        let expected = self.oracle.run(transaction, now);
        let real = transaction.clone();
        let outcomes = self.fixture.write(move |tx| workload::run(tx, &real)).await;
        match outcomes {
            Ok(outcomes) => assert_eq!(Some(outcomes), expected),
            Err(error) => assert_eq!((error.to_string(), expected), (Fault::Lost.to_string(), None)),
        }
        assert_eq!(self.fixture.newest(), self.oracle.world().version);
    }

    /// What watchers are told is what happened; within one transaction in any order.
    async fn follow(&self, back: u64) {
        let world = self.oracle.world();
        let since = world.version.saturating_sub(back);
        let changes = self.fixture.store.changes(since, usize::MAX).await;
        if since < world.compacted {
            assert_eq!(refusal(changes), Refusal::Gone { asked: since, oldest: world.compacted });
            return;
        }
        if self.past.contains_key(&since) {
            let mut told: Vec<String> = changes.unwrap().iter().map(|change| change_text(change)).collect();
            let tail = self.oracle.told.iter().skip(usize::try_from(since).unwrap());
            let mut expected: Vec<String> = tail.map(told_text).collect();
            told.sort();
            expected.sort();
            assert_eq!(told, expected);
        }
    }

    /// A list at an older version shows what was there then.
    async fn look_back(&self, back: u64) {
        let world = self.oracle.world();
        let at = world.version.saturating_sub(back).max(1);
        let pages = self.fixture.store.read(move |tx| {
            let wanted = PageRequest { at: Some(at), ..PageRequest::default() };
            tx.page(&berth_model::kinds::CONFIG_MAP, &wanted)
        });
        let page = pages.await;
        if at < world.compacted {
            assert!(matches!(refusal(page), Refusal::Gone { .. }));
        } else if let Some(then) = self.past.get(&at) {
            let expected = then.objects.keys().filter(|slot| slot.kind == workload::CONFIGS).count();
            assert_eq!(page.unwrap().items.len(), expected);
        }
    }
}

fn change_text(change: &Change) -> String {
    format!("{} {}/{}", change.kind.plural, change.namespace, change.name)
}

fn told_text(told: &Told) -> String {
    match told {
        Told::Object(slot) => format!("{} {}/{}", slot.registration().plural, slot.namespace(), slot.name()),
        Told::Namespace(index) => format!("namespaces /{}", NAMESPACES[*index]),
        Told::Settings => "settings /berth".to_owned(),
    }
}
