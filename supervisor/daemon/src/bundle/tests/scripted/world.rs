//! A machine, images and a network that remember what was asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use berth_model::allocation::Pool;
use berth_model::plan::{Ending, Plan};
use berth_model::projection::{Held, resolve};
use berth_model::provided::Provided;
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::bundle::health::Look;
use berth_model::resource::revision::ResolvedImage;
use futures_util::future::BoxFuture;

use crate::bundle::seams::{
    Cause, ImageFailure, Images, Machine, Net, Observed, ProfileFailure, Provider, Started, Survey, UnitState,
    Unprovided,
};
use crate::bundle::unit::UnitRequest;
use crate::operation::Progress;
use crate::volume::tests::FakeDisks;

/// Everything outside the daemon: it survives the daemon's death.
#[derive(Default)]
pub struct World {
    /// Where the machine's clock stands still, if it does.
    pub stopped: Mutex<Option<jiff::Timestamp>>,
    pub units: Mutex<BTreeMap<String, Observed>>,
    pub plans: Mutex<BTreeMap<String, Plan>>,
    /// System call profiles of the machine.
    pub profiles: Mutex<BTreeMap<String, Vec<u64>>>,
    pub image_fails: Mutex<Option<String>>,
    /// So many next answers of the registry fail.
    pub flaps: Mutex<u32>,
    /// The network cannot be changed.
    pub net_fails: Mutex<bool>,
    /// Units whose names begin so do not start.
    pub start_fails: Mutex<Option<String>>,
    pub occupied: Mutex<Vec<u16>>,
    pub overlapping: Mutex<Vec<Pool>>,
    /// What the next looks at the connections to an address find, the last one first; then there are none.
    pub connected: Mutex<BTreeMap<IpAddr, Vec<usize>>>,
    /// Addresses whose connections were forgotten.
    pub forgotten: Mutex<BTreeSet<IpAddr>>,
    /// How long connections to a revision that is replaced may go on, if not as usual.
    pub drain: Mutex<Option<std::time::Duration>>,
    pub starts: Mutex<u32>,
    pub unhealthy: Mutex<Option<String>>,
    /// What a tag means changes with it.
    pub pushed: Mutex<u32>,
    /// How units fare right after their start that do not simply run.
    pub courses: Mutex<BTreeMap<String, Observed>>,
    /// How long a bundle waits for others, if not as usual.
    pub patience: Mutex<Option<std::time::Duration>>,
    pub disks: Arc<FakeDisks>,
    /// What the objects hold, and what the units were given of it.
    pub held: Mutex<Held>,
    pub given: Mutex<BTreeMap<String, Provided>>,
}

impl Machine for World {
    fn start(&self, unit: UnitRequest, plan: Plan, provided: Provided) -> BoxFuture<'_, Result<Started, Cause>> {
        Box::pin(async move {
            if self.start_fails.lock().unwrap().as_ref().is_some_and(|these| unit.id.starts_with(these)) {
                return Ok(Started::Failed);
            }
            let mut units = self.units.lock().unwrap();
            if units.get(&unit.id).is_some_and(|seen| seen.state == UnitState::Active) {
                return Ok(Started::AlreadyRunning);
            }
            *self.starts.lock().unwrap() += 1;
            self.plans.lock().unwrap().insert(unit.id.clone(), plan);
            self.given.lock().unwrap().insert(unit.id.clone(), provided);
            let course = self.courses.lock().unwrap().get(&unit.id).cloned();
            let up = || Observed { state: UnitState::Active, main_pid: 7, ..Observed::default() };
            units.insert(unit.id, course.unwrap_or_else(up));
            Ok(Started::Done)
        })
    }
    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move {
            self.units.lock().unwrap().remove(id);
            Ok(())
        })
    }
    fn observe<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Observed, Cause>> {
        Box::pin(async move {
            let planned = self.plans.lock().unwrap().contains_key(id);
            let seen = self.units.lock().unwrap().get(id).cloned().unwrap_or_default();
            Ok(Observed { planned, ..seen })
        })
    }
    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move {
            self.plans.lock().unwrap().remove(id);
            self.given.lock().unwrap().remove(id);
            Ok(())
        })
    }
    fn look_into<'a>(&'a self, _: &'a str, _: &'a str, _: Look<'a>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.unhealthy.lock().unwrap().clone().map_or(Ok(()), Err) })
    }
    fn accepts<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, bool> {
        Box::pin(async { true })
    }
    fn profile<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<u64>, ProfileFailure>> {
        Box::pin(async move {
            let known = self.profiles.lock().unwrap().get(name).cloned();
            known.ok_or_else(|| ProfileFailure::Absent(format!("/profiles/{name}.json").into()))
        })
    }
    fn last_lines<'a>(&'a self, _: &'a str, _: u32) -> BoxFuture<'a, Result<Vec<String>, Cause>> {
        Box::pin(async { Ok(vec!["bind: permission denied".into()]) })
    }
}

impl Images for World {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<String, ImageFailure>> {
        Box::pin(async move {
            let flap = {
                let mut flaps = self.flaps.lock().unwrap();
                let left = *flaps;
                *flaps = left.saturating_sub(1);
                (left > 0).then(|| "nobody answers".to_owned())
            };
            match flap.or(self.image_fails.lock().unwrap().clone()) {
                None => Ok(format!("{reference}@sha256:{:064x}", *self.pushed.lock().unwrap())),
                Some(message) => Err(ImageFailure {
                    code: "ImageNotFound",
                    message,
                    suggestion: "check the name".into(),
                    retryable: true,
                    source: None,
                }),
            }
        })
    }
    fn ensure<'a>(&'a self, pinned: &'a str, _: Progress) -> BoxFuture<'a, Result<ResolvedImage, ImageFailure>> {
        Box::pin(async move {
            Ok(ResolvedImage {
                reference: pinned.into(),
                layers: vec!["sha256-aa".into()],
                entrypoint: vec!["/bin/serve".into()],
                ..ResolvedImage::default()
            })
        })
    }
    fn check_program<'a>(&'a self, _: &'a ResolvedImage, _: &'a BundleSpec) -> BoxFuture<'a, Result<(), ImageFailure>> {
        Box::pin(async { Ok(()) })
    }
}

impl Provider for World {
    fn survey<'a>(&'a self, _: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Survey, Cause>> {
        let found = resolve(spec, &[], &self.held.lock().unwrap());
        let told = |provided: Provided| {
            if provided.is_empty() { String::new() } else { serde_json::to_string(&provided).unwrap() }
        };
        Box::pin(async move { Ok(found.map(told)) })
    }
    fn provide<'a>(&'a self, _: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Provided, Unprovided>> {
        let found = resolve(spec, &[], &self.held.lock().unwrap());
        Box::pin(async move { found.map_err(Unprovided::Missing) })
    }
}

impl Net for World {
    fn configure(&self) -> BoxFuture<'_, Result<(), Cause>> {
        let fails = *self.net_fails.lock().unwrap();
        Box::pin(async move { if fails { Err("the kernel is busy".into()) } else { Ok(()) } })
    }
    fn occupied(&self, port: u16, _: bool) -> BoxFuture<'_, Result<bool, Cause>> {
        Box::pin(async move { Ok(self.occupied.lock().unwrap().contains(&port)) })
    }
    fn connected<'a>(&'a self, to: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<usize, Cause>> {
        Box::pin(async move {
            let mut connected = self.connected.lock().unwrap();
            Ok(to.iter().filter_map(|address| connected.get_mut(address)?.pop()).sum())
        })
    }
    fn forget<'a>(&'a self, gone: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move {
            self.forgotten.lock().unwrap().extend(gone);
            Ok(())
        })
    }
    fn overlaps(&self, pools: Vec<Pool>) -> BoxFuture<'_, Result<Vec<String>, Cause>> {
        let overlapping = self.overlapping.lock().unwrap().clone();
        let pools = pools.into_iter().filter(move |pool| overlapping.contains(pool));
        let said: Vec<String> = pools.map(|pool| format!("{pool} overlaps link lan0")).collect();
        Box::pin(async move { Ok(said) })
    }
}

/// An ending as `berth-run stopped` writes it.
pub fn ending(stop_asked: bool, result: &str, code: &str, status: &str) -> Ending {
    Ending {
        id: "default.web.r1".into(),
        invocation: "aa".into(),
        stop_asked,
        result: Some(result.into()),
        exit_code: Some(code.into()),
        exit_status: Some(status.into()),
    }
}
