//! One wish after the other, and a daemon that is killed again and again, anywhere: the end is that of a daemon that
//! nobody disturbed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tokio_util::sync::CancellationToken;

use super::provided::{asks, world};
use super::scripted::{Daemon, World, wish};
use crate::chance::{count, runner, seed};
use crate::operation::AbortPoints;

/// What somebody wants next of a bundle, which is made if it is not there.
#[derive(Clone, Copy, Debug)]
enum Want {
    Image(u8),
    /// The registry does not answer at first.
    Flapping(u8),
    Values,
    Larger,
    Start(bool),
    Gone,
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        4 => (1..4_u8).prop_map(Want::Image),
        2 => (1..4_u8).prop_map(Want::Flapping),
        1 => Just(Want::Values),
        2 => Just(Want::Larger),
        3 => any::<bool>().prop_map(Want::Start),
        1 => Just(Want::Gone),
    ]
}

impl Want {
    /// `size` is the room of a larger volume, in mebibytes.
    async fn is_told(self, daemon: &Daemon, size: u32) {
        match self {
            Self::Image(tag) => daemon.put(move |spec| spec.image = format!("registry/web:{tag}")).await,
            Self::Flapping(tag) => {
                *daemon.world.flaps.lock().unwrap() = 2;
                daemon.put(move |spec| spec.image = format!("registry/web:{tag}")).await;
            }
            Self::Values => daemon.put(asks).await,
            Self::Larger => daemon.put(move |spec| spec.volumes = vec![wish("data", &format!("{size}Mi"))]).await,
            Self::Start(start) => daemon.put(move |spec| spec.start = start).await,
            Self::Gone if daemon.bundle().await.is_some() => daemon.remove().await,
            Self::Gone => {}
        }
    }
}

/// A daemon that is killed at the given one of the points it reaches.
fn born(dir: &Path, world: &Arc<World>, until: Option<usize>) -> Daemon {
    let (stop, left) = (CancellationToken::new(), AtomicUsize::new(until.unwrap_or(usize::MAX)));
    let token = stop.clone();
    let abort = AbortPoints::calling(move |point| {
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            token.cancel();
            panic!("killed at {point}");
        }
    });
    Daemon::start(dir, world, abort, stop)
}

/// What there is when all wishes have been seen to, by as many lives as it took.
async fn end_of(wants: &[Want], lives: &[usize]) -> Vec<String> {
    // Nothing here outlives the process: memory will do.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let world = world(Some("hunter2"));
    let mut lives = lives.iter().copied();
    let mut daemon = born(dir.path(), &world, lives.next());
    for (want, doublings) in wants.iter().zip(0..) {
        want.is_told(&daemon, 16 << doublings).await;
        daemon.settle().await;
        while daemon.stop.is_cancelled() {
            daemon.die().await;
            daemon = born(dir.path(), &world, lives.next());
            daemon.settle().await;
        }
    }
    let state = daemon.end_state().await;
    daemon.die().await;
    state
}

#[test]
fn a_daemon_killed_again_and_again_comes_to_the_end_of_one_that_was_left_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = (proptest::collection::vec(want(), 1..6), proptest::collection::vec(1..60_usize, 1..5));
    let result = runner(seed(), count(100, 1000)).run(&run, |(wants, lives)| {
        let (disturbed, alone) = runtime.block_on(async { (end_of(&wants, &lives).await, end_of(&wants, &[]).await) });
        prop_assert_eq!(disturbed, alone);
        Ok::<(), TestCaseError>(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
