//! A process that is killed between two statements: what it was answered is there, what it was
//! not answered is there whole or not at all, and no version is ever used twice.
//!
//! The parent draws a script of transactions from the seed and starts itself again as a child that
//! works on it. The child counts what its writing connection does, stops the writer at a drawn
//! count, takes note of every answer that was given by then, and ends itself by SIGKILL. The parent
//! opens the store, finds the place in the script it stands at, and sends the next child on from
//! there, until the script is done. Every other child dies right before a commit.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, raise};
use proptest::strategy::{Strategy, ValueTree};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::model::Oracle;
use super::workload::{self, Transaction, World, look};
use super::*;
use crate::chance::{count, runner, seed};

/// Where the child finds its orders.
const ORDERS: &str = "BERTH_TEST_KILL_ORDERS";
/// Transactions that wait for the writer together.
const TOGETHER: usize = 3;
/// Trace events until the end, at most: a transaction makes about a hundred.
const LONGEST: u64 = 400;
/// Commits until the end, at most.
const MOST_COMMITS: u64 = 6;

#[derive(Serialize, Deserialize)]
struct Orders {
    directory: PathBuf,
    seed: u64,
    /// The first transaction of the script to run.
    start: usize,
    /// Events until SIGKILL.
    point: u64,
    /// Whether only commits count.
    at_commit: bool,
}

fn script(seed: u64) -> Vec<Transaction> {
    let strategy = proptest::collection::vec(workload::transaction(), 30..60);
    strategy.new_tree(&mut runner(seed, 1)).unwrap().current()
}

/// Where each child dies: after how many events, and whether only commits count.
fn points(seed: u64) -> impl Iterator<Item = (u64, bool)> {
    let mut runner = runner(!seed, 1);
    let mut draw = move |most: u64| (1..=most).new_tree(&mut runner).unwrap().current();
    [false, true].into_iter().cycle().map(move |commit| (draw(if commit { MOST_COMMITS } else { LONGEST }), commit))
}

fn time(index: usize) -> i64 {
    1_000_000 + i64::try_from(index).unwrap() * workload::STEP
}

/// What the store must be after each number of transactions.
fn worlds(script: &[Transaction]) -> Vec<World> {
    let mut oracle = Oracle::new();
    let mut worlds = vec![oracle.world()];
    for (index, transaction) in script.iter().enumerate() {
        oracle.run(transaction, time(index));
        worlds.push(oracle.world());
    }
    worlds
}

#[test]
fn a_store_whose_process_is_killed_between_statements_loses_nothing_it_has_promised() {
    let base = seed();
    let mut kills = 0;
    for number in 0..count(4, 200) {
        let seed = base.wrapping_add(u64::from(number));
        kills += Survivor::new(seed).run();
    }
    eprintln!("killed {kills} times");
}

struct Survivor {
    seed: u64,
    directory: TempDir,
    worlds: Vec<World>,
    /// Every change that was ever read, by version.
    history: BTreeMap<u64, serde_json::Value>,
}

impl Survivor {
    fn new(seed: u64) -> Self {
        let worlds = worlds(&script(seed));
        Self { seed, directory: tempfile::tempdir().unwrap(), worlds, history: BTreeMap::new() }
    }

    fn run(mut self) -> usize {
        let mut start = 0;
        for (kills, (point, at_commit)) in points(self.seed).enumerate() {
            let status = self.child(start, point, at_commit);
            let promised = self.promised().max(start);
            start = self.place(promised, point);
            if status.success() {
                assert_eq!(start + 1, self.worlds.len(), "seed {}", self.seed);
                return kills;
            }
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "seed {}: {status}", self.seed);
        }
        unreachable!("there is always another point")
    }

    #[allow(clippy::disallowed_methods, reason = "starts no external program, but this test again")]
    fn child(&self, start: usize, point: u64, at_commit: bool) -> ExitStatus {
        let orders = Orders { directory: self.directory.path().into(), seed: self.seed, start, point, at_commit };
        let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--ignored", "--nocapture"])
            .env(ORDERS, serde_json::to_string(&orders).unwrap())
            .output()
            .unwrap();
        if output.status.code().is_some_and(|code| code != 0) {
            panic!("seed {}: {}", self.seed, String::from_utf8_lossy(&output.stderr));
        }
        output.status
    }

    /// How many transactions of the script were answered.
    fn promised(&self) -> usize {
        let answered = std::fs::read_to_string(self.directory.path().join("answered")).unwrap_or_default();
        answered.lines().map(|line| line.parse::<usize>().unwrap() + 1).max().unwrap_or(0)
    }

    /// The number of transactions that are in the store.
    fn place(&mut self, promised: usize, point: u64) -> usize {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let path = self.directory.path().join("berth.db");
        let (world, changes) = runtime.block_on(async {
            let store = Store::open(&path, clock(&Arc::default())).unwrap();
            let read = store.read(|tx| {
                let world = look(tx)?;
                let changes = tx.changes(world.compacted, usize::MAX)?;
                Ok((world, changes))
            });
            let read = read.await.unwrap();
            store.close().await;
            read
        });
        self.never_again(&changes);
        let possible = promised..=(promised + TOGETHER).min(self.worlds.len() - 1);
        let found = possible.clone().find(|place| self.worlds[*place] == world);
        found.unwrap_or_else(|| {
            let expected: Vec<&World> = possible.map(|place| &self.worlds[place]).collect();
            panic!("seed {} killed at {point}: found {world:#?}, expected one of {expected:#?}", self.seed)
        })
    }

    /// A version that was read once stands for the same change for ever.
    fn never_again(&mut self, changes: &[Change]) {
        for change in changes {
            let before = self.history.insert(change.resource_version, change.object.clone());
            assert!(before.is_none_or(|before| before == change.object), "seed {}: {change:?}", self.seed);
        }
    }
}

#[test]
#[ignore = "is started by the test above, and killed"]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work(&orders));
}

async fn work(orders: &Orders) {
    let (point, reached) = oneshot::channel();
    let store = doomed_store(orders, point);
    tokio::select! {
        biased;
        () = all(&store, orders) => {}
        // Every answer that was given by then has been noted: they are looked at first.
        Ok(()) = reached => raise(Signal::SIGKILL).unwrap(),
    }
    store.close().await;
}

async fn all(store: &Store, orders: &Orders) {
    let rest: Vec<_> = script(orders.seed).into_iter().enumerate().skip(orders.start).collect();
    for together in rest.chunks(TOGETHER) {
        let answers = together.iter().map(|(index, transaction)| {
            let (transaction, meant) = (transaction.clone(), transaction.fails);
            let written = store.write(&somebody(), move |tx| workload::run(tx, &transaction));
            async move {
                assert_eq!(written.await.is_err(), meant);
                note_answer(&orders.directory, *index);
            }
        });
        futures_util::future::join_all(answers).await;
    }
}

/// A store whose writer stops for ever at the ordered point and tells that it is reached, under a
/// clock that counts transactions. Where there is no writer yet, the process ends at once.
fn doomed_store(orders: &Orders, point: oneshot::Sender<()>) -> Store {
    let (mut left, mut point) = (orders.point, Some(point));
    let at_commit = orders.at_commit;
    let countdown = move |event: TraceEvent<'_>| {
        let commits = matches!(event, TraceEvent::Stmt(_, sql) if sql == "COMMIT");
        if at_commit && !commits {
            return;
        }
        left -= 1;
        if left > 0 {
            return;
        }
        if std::thread::current().name() != Some("store-writer") {
            raise(Signal::SIGKILL).unwrap();
        }
        point.take().unwrap().send(()).unwrap();
        loop {
            std::thread::park();
        }
    };
    let events = TraceEventCodes::SQLITE_TRACE_STMT | TraceEventCodes::SQLITE_TRACE_PROFILE;
    let (start, calls) = (orders.start, AtomicI64::new(-1));
    let clock: Clock = Arc::new(move || {
        // The first call is for the opening itself.
        let transaction = calls.fetch_add(1, Ordering::SeqCst).max(0);
        Timestamp::from_second(time(start) + transaction * workload::STEP).unwrap()
    });
    let path = orders.directory.join("berth.db");
    Store::start(&path, clock, |connection| connection.trace_v2(events, Some(countdown))).unwrap()
}

fn note_answer(directory: &Path, index: usize) {
    let file = OpenOptions::new().create(true).append(true).open(directory.join("answered"));
    writeln!(file.unwrap(), "{index}").unwrap();
}
