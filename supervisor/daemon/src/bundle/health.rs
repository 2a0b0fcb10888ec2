//! Looking after services that run: one task per running container whose bundle says how it is to be
//! looked at.
//!
//! The reconciler calls [`Lookouts::attend`] with what it has just seen; tasks begin and end there and
//! nowhere else. A task looks, counts, and wakes the reconciler when the standing has changed. What
//! was counted is in memory: after a start of the daemon the first look comes at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_model::readiness::{Course, Rules, Standing};
use berth_model::resource::bundle::health::Health;
use berth_model::resource::revision::Revision;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::BundleKey;
use super::seams::{Machine, Observed, UnitState};
use super::view::container_id;

/// One run of one container, and how it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Charge {
    id: String,
    invocation: String,
    address: String,
    health: Health,
}

struct Lookout {
    charge: Charge,
    course: Arc<Mutex<Course>>,
    _task: AbortOnDropHandle<()>,
}

/// All that are looked after, by container.
pub(super) struct Lookouts {
    machine: Arc<dyn Machine>,
    wake: Sender<BundleKey>,
    held: Mutex<HashMap<BundleKey, Lookout>>,
}

impl Lookouts {
    pub(super) fn new(machine: Arc<dyn Machine>, wake: Sender<BundleKey>) -> Self {
        Self { machine, wake, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<BundleKey, Lookout>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after the run that is seen, and after no other of the bundle; how it stands, if it is to
    /// be looked at.
    pub(super) fn attend(&self, key: &BundleKey, serving: Option<(&Revision, &Observed)>) -> Option<Standing> {
        let charge = serving.and_then(|(revision, seen)| charge(revision, seen));
        let mut held = self.held();
        let Some(charge) = charge else {
            held.remove(key);
            return None;
        };
        let rules = charge.health.rules();
        if held.get(key).is_none_or(|present| present.charge != charge) {
            held.insert(key.clone(), self.begin(key.clone(), charge));
        }
        held.get(key).map(|lookout| locked(&lookout.course).standing(&rules))
    }

    fn begin(&self, key: BundleKey, charge: Charge) -> Lookout {
        let course = Arc::new(Mutex::new(Course::default()));
        let (machine, wake) = (self.machine.clone(), self.wake.clone());
        let task = look_after(machine, wake, key, charge.clone(), course.clone());
        Lookout { charge, course, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

fn locked(course: &Mutex<Course>) -> MutexGuard<'_, Course> {
    course.lock().unwrap_or_else(PoisonError::into_inner)
}

fn charge(revision: &Revision, seen: &Observed) -> Option<Charge> {
    let health = revision.spec.bundle_spec.health.clone().filter(|_| seen.state == UnitState::Active)?;
    Some(Charge {
        id: container_id(revision),
        invocation: seen.invocation.clone(),
        address: revision.spec.allocation.address.clone(),
        health,
    })
}

async fn look_after(
    machine: Arc<dyn Machine>,
    wake: Sender<BundleKey>,
    key: BundleKey,
    charge: Charge,
    course: Arc<Mutex<Course>>,
) {
    let (rules, began) = (charge.health.rules(), Instant::now());
    loop {
        let found = look(&*machine, &charge.id, &charge.address, &charge.health, &rules).await;
        let (changed, pause) = {
            let mut course = locked(&course);
            let before = course.standing(&rules);
            course.look(found, &rules, began.elapsed());
            (course.standing(&rules) != before, course.pause(&rules))
        };
        if changed && wake.send(key.clone()).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One look, in its time.
pub(super) async fn look(
    machine: &dyn Machine,
    id: &str,
    address: &str,
    health: &Health,
    rules: &Rules,
) -> Result<(), String> {
    let Some(look) = health.look() else { return Ok(()) };
    match tokio::time::timeout(rules.timeout, machine.look_into(id, address, look)).await {
        Ok(found) => found,
        Err(_) => Err(format!("no answer within {:?}", rules.timeout)),
    }
}
