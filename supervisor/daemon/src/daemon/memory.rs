//! Gives memory back that the supervisor does not need: a start, a pull and a long list need much more than a rest.

use std::time::Duration;

use berth_host::memory;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::Parts;

/// How often. What is run all the time comes back from the kernel's cache in less than a millisecond.
const INTERVAL: Duration = Duration::from_secs(60);

/// Begins to give back.
pub(super) fn spawn(parts: &Parts, tasks: &TaskTracker) {
    let rounds = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = memory::give_back() {
                warn!("{}", crate::log::chain(&error));
            }
        }
    };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(rounds));
}
