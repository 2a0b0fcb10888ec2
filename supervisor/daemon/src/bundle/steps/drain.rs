//! Before a revision that was replaced is stopped: who is connected to it is served to the end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_model::condition::Reason;
use berth_model::resource::revision::Revision;
use tokio::time::{Instant, sleep};

use super::{Steps, machine_failed};
use crate::bundle::seams::UnitState;
use crate::bundle::view::container_id;
use crate::operation::{StepError, Task};

/// How long that may take: what container engines give a program between asking it to end and killing it.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Steps {
    /// Waits until nobody is connected to it any more. New connections lead elsewhere since the promotion; one that
    /// its client keeps open without using it has no end, so the wait has. How many are left then.
    pub(super) async fn drain(&self, task: &Task, old: &Revision) -> Result<usize, StepError> {
        let seen = self.machine.observe(&container_id(old)).await;
        let seen = seen.map_err(machine_failed(Reason::WorkloadFailed, "looking at the earlier revision failed"))?;
        // The connections of one that does not run have nobody to end them.
        if seen.state != UnitState::Active {
            return Ok(0);
        }
        let (addresses, until) = (old.spec.allocation.addresses(), Instant::now() + self.drain);
        loop {
            let open = self.connected(&addresses).await?;
            if open == 0 || Instant::now() >= until {
                return Ok(open);
            }
            let number = old.spec.number;
            task.progress.report(0, format!("waiting for connections to revision {number} to end: {open}"));
            sleep(LOOK_EVERY).await;
        }
    }

    async fn connected(&self, to: &BTreeSet<IpAddr>) -> Result<usize, StepError> {
        let seen = self.net.connected(to).await;
        seen.map_err(machine_failed(Reason::WorkloadFailed, "looking at connections to the earlier revision failed"))
    }

    /// A packet of a connection that was cut off would go on being sent to where nobody is, and its client wait for an
    /// answer. Looked at anew, it comes to who serves now, who tells that there is no such connection.
    pub(super) async fn forget_connections(&self, old: &Revision) -> Result<(), StepError> {
        let forgotten = self.net.forget(&old.spec.allocation.addresses()).await;
        forgotten
            .map_err(machine_failed(Reason::WorkloadFailed, "forgetting connections to the earlier revision failed"))
    }
}
