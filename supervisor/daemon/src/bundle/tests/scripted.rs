//! A machine, images and a network that remember what was asked of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::allocation::Pool;
use berth_model::plan::{Ending, Plan};
use berth_model::projection::{Held, resolve};
use berth_model::provided::Provided;
use berth_model::resource::bundle::health::Look;
use berth_model::resource::bundle::{Bundle, BundleSpec, Port, VolumeWish, gone_back};
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Relations, StepName,
    StepState, Target,
};
use berth_model::resource::revision::{ResolvedImage, Revision, goal};
use berth_model::resource::{Volume, volume};
use futures_util::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bundle::fetch::{revisions_of, view};
use crate::bundle::seams::{
    Cause, ImageFailure, Images, Machine, Net, Observed, Provider, Started, Survey, UnitState, Unprovided,
};
use crate::bundle::steps::{PATIENCE, Steps, Turns};
use crate::bundle::unit::UnitRequest;
use crate::bundle::view::{View, operation_state, rests, state_of};
use crate::bundle::{BundleKey, Bundles, berthd};
use crate::daemon::volumes::{BundleVolumes, ByTarget};
use crate::metrics::Metrics;
use crate::operation::{AbortPoints, Progress, Runner, order};
use crate::reconcile::Reconciler;
use crate::store::{Clock, Store, Tx};
use crate::volume::Volumes;
use crate::volume::tests::{Disk, FakeDisks};

/// Everything outside the daemon: it survives the daemon's death.
#[derive(Default)]
pub struct World {
    /// How far the machine's clock is behind the test's.
    pub set_back: Mutex<jiff::SignedDuration>,
    pub units: Mutex<BTreeMap<String, Observed>>,
    pub plans: Mutex<BTreeMap<String, Plan>>,
    pub image_fails: Mutex<Option<String>>,
    /// So many next answers of the registry fail.
    pub flaps: Mutex<u32>,
    /// The network cannot be changed.
    pub net_fails: Mutex<bool>,
    pub start_fails: Mutex<Option<String>>,
    pub occupied: Mutex<Vec<u16>>,
    pub overlapping: Mutex<Vec<Pool>>,
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
            if self.start_fails.lock().unwrap().as_ref() == Some(&unit.id) {
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
        Box::pin(async move { Ok(self.units.lock().unwrap().get(id).cloned().unwrap_or_default()) })
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
        let found = resolve(spec, &self.held.lock().unwrap());
        let told = |provided: Provided| {
            if provided.is_empty() { String::new() } else { serde_json::to_string(&provided).unwrap() }
        };
        Box::pin(async move { Ok(found.map(told)) })
    }
    fn provide<'a>(&'a self, _: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Provided, Unprovided>> {
        let found = resolve(spec, &self.held.lock().unwrap());
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
    fn overlaps(&self, pools: Vec<Pool>) -> BoxFuture<'_, Result<Vec<String>, Cause>> {
        let overlapping = self.overlapping.lock().unwrap().clone();
        let pools = pools.into_iter().filter(move |pool| overlapping.contains(pool));
        let said: Vec<String> = pools.map(|pool| format!("{pool} overlaps link lan0")).collect();
        Box::pin(async move { Ok(said) })
    }
}

/// One life of the daemon's bundle domain.
pub struct Daemon {
    pub store: Store,
    pub world: Arc<World>,
    bundles: Bundles,
    woken: tokio::sync::Mutex<mpsc::Receiver<BundleKey>>,
    pub stop: CancellationToken,
    runner: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Opens the store in `dir` and begins to work.
    pub fn start(dir: &std::path::Path, world: &Arc<World>, abort: AbortPoints, stop: CancellationToken) -> Self {
        let machine = world.clone();
        let clock: Clock = Arc::new(move || clock() - *machine.set_back.lock().unwrap());
        let store = Store::open(&dir.join("berth.db"), clock.clone()).unwrap();
        let volumes = Volumes::new(store.clone(), world.disks.clone(), world.disks.clone());
        let steps = Steps {
            store: store.clone(),
            machine: world.clone(),
            images: world.clone(),
            provider: world.clone(),
            net: world.clone(),
            volumes: Arc::new(BundleVolumes(volumes.clone())),
            layers: "/layers".into(),
            pool: Pool::default(),
            drawn: [1, 2, 3, 4, 5],
            turns: Turns::new(world.patience.lock().unwrap().unwrap_or(PATIENCE)),
        };
        let volumes = Arc::new(volumes);
        let executor = ByTarget { bundles: Arc::new(steps), volumes: volumes.clone(), machine: volumes };
        let runner = Runner::new(store.clone(), Arc::new(executor), abort, Metrics::new());
        let runner = runner.pausing(Duration::from_millis(1));
        let (wake, woken) = mpsc::channel(16);
        Self {
            bundles: Bundles::new(store.clone(), world.clone(), world.clone(), clock, wake),
            woken: tokio::sync::Mutex::new(woken),
            store,
            world: world.clone(),
            runner: tokio::spawn(runner.run(stop.clone())),
            stop,
        }
    }

    /// Ends without finishing anything.
    pub async fn die(self) {
        self.stop.cancel();
        self.runner.await.unwrap();
    }

    /// Reconciles until nothing is left to do. A change can be read a moment before it is told, so a
    /// second look must find nothing either.
    pub async fn settle(&self) {
        let mut newest = self.store.revision();
        let mut quiet = false;
        loop {
            newest.mark_unchanged();
            self.look().await;
            if !self.busy().await && !newest.has_changed().unwrap() {
                if quiet {
                    return;
                }
                quiet = true;
                continue;
            }
            quiet = false;
            tokio::select! {
                changed = newest.changed() => changed.unwrap(),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// What the daemon does before anybody can ask it.
    pub async fn doubt(&self) {
        self.bundles.doubt().await.unwrap();
    }

    /// Waits until a lookout has news, and reconciles.
    pub async fn news(&self) {
        let key = self.woken.lock().await.recv().await.unwrap();
        self.bundles.reconcile(&key).await.unwrap();
    }

    async fn busy(&self) -> bool {
        self.operations().await.iter().any(|op| !operation_state(op).finished() && !rests(op))
    }

    pub async fn operations(&self) -> Vec<Operation> {
        let mut all = self.store.read(|tx| tx.list::<Operation>(None)).await.unwrap();
        all.sort_by_key(order);
        all
    }

    pub async fn bundle(&self) -> Option<Bundle> {
        self.store.read(|tx| tx.get::<Bundle>("default", "web")).await.unwrap()
    }

    pub async fn volumes(&self) -> Vec<Volume> {
        self.store.read(|tx| tx.list::<Volume>(None)).await.unwrap()
    }

    pub async fn volume(&self, name: &str) -> volume::VolumeStatus {
        let all = self.volumes().await;
        all.into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap().status.unwrap()
    }

    /// Asks for an operation on a volume, as the API does, and waits for its end.
    pub async fn ask_of_volume(&self, name: &str, kind: OperationKind) -> OperationStatus {
        let volume = self.volumes().await.into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap();
        let target = Target {
            kind: "Volume".into(),
            namespace: "default".into(),
            name: name.into(),
            uid: volume.metadata.uid.unwrap(),
        };
        let write = move |tx: &mut Tx<'_>| {
            let operation = asked(kind, target, berthd(), tx.version()?);
            tx.create(&operation)
        };
        let made = self.store.write(&berthd(), write).await.unwrap();
        self.settle().await;
        let made = made.metadata.name;
        self.operations().await.into_iter().find(|one| one.metadata.name == made).unwrap().status.unwrap()
    }

    /// Asks for an operation on the bundle as a person does.
    pub async fn ask(&self, kind: OperationKind) {
        let target = self.target().await;
        let write = move |tx: &mut Tx<'_>| {
            let operation = asked(kind, target, person(), tx.version()?);
            tx.create(&operation)
        };
        self.store.write(&person(), write).await.unwrap();
    }

    /// Asks for the end of the operation at work, as the API does.
    pub async fn cancel(&self) {
        let cancel = |tx: &mut Tx<'_>| {
            let at_work = tx.list::<Operation>(None)?.into_iter().find(|op| !operation_state(op).finished());
            let mut operation = at_work.unwrap();
            operation.status.as_mut().unwrap().cancelled_by = Some(person());
            tx.update_status(&operation).map(drop)
        };
        self.store.write(&person(), cancel).await.unwrap();
    }

    /// Reconciles once, and waits until the operation that this brings about has begun a step.
    pub async fn until_begun(&self, step: StepName) {
        let mut newest = self.store.revision();
        self.look().await;
        let at_it = |op: &Operation| {
            let steps = op.status.iter().flat_map(|status| &status.steps);
            steps.clone().any(|one| one.name == step && one.state == StepState::Running)
        };
        while !self.operations().await.iter().any(at_it) {
            newest.changed().await.unwrap();
        }
    }

    async fn target(&self) -> Target {
        let uid = self.bundle().await.unwrap().metadata.uid.unwrap();
        Target { kind: "Bundle".into(), namespace: "default".into(), name: "web".into(), uid }
    }

    /// Asks for a rollback, as the API does.
    pub async fn roll_back(&self, to: Option<u64>) {
        let target = self.target().await;
        let write = self.store.write(&person(), move |tx| {
            let mut bundle = tx.get::<Bundle>("default", "web")?.unwrap();
            let revisions: Vec<Revision> = tx.list(None)?;
            let goal = goal(&revisions, &bundle.spec, to).unwrap();
            let mut operation = asked(OperationKind::Rollback, target, person(), tx.version()?);
            operation.spec.rollback_to = Some(goal.spec.number);
            bundle.spec = gone_back("web", &bundle.spec, &goal.spec.bundle_spec, &[]);
            let bundle = tx.update(&bundle)?.into_inner();
            operation.spec.generation = bundle.metadata.generation.unwrap();
            tx.create(&operation).map(drop)
        });
        write.await.unwrap();
    }

    /// One look at the bundle.
    pub async fn look(&self) {
        for key in self.bundles.keys().await.unwrap() {
            self.bundles.reconcile(&key).await.unwrap();
        }
    }

    /// What a decision would be made from at a later time.
    pub async fn view(&self, later: jiff::SignedDuration) -> View {
        let key = BundleKey { namespace: "default".into(), name: "web".into() };
        let now = clock().checked_add(later).unwrap();
        view(&self.store, &*self.world, &*self.world, &key, now).await.unwrap().unwrap()
    }

    pub async fn revisions(&self) -> Vec<Revision> {
        self.store.read(|tx| revisions_of(tx, "default", "web")).await.unwrap()
    }

    pub async fn put(&self, change: impl FnOnce(&mut BundleSpec) + Send + 'static) {
        let actor = berthd();
        let write = self.store.write(&actor, move |tx| {
            match tx.get::<Bundle>("default", "web")? {
                Some(mut bundle) => {
                    change(&mut bundle.spec);
                    tx.update(&bundle)?;
                }
                None => {
                    let mut bundle = fresh();
                    change(&mut bundle.spec);
                    tx.create(&bundle)?;
                }
            }
            Ok::<_, crate::store::StoreError>(())
        });
        write.await.unwrap();
    }

    pub async fn remove(&self) {
        let actor = berthd();
        let gone = self
            .store
            .write(&actor, |tx| tx.delete::<Bundle>("default", "web", &crate::store::Deletion::default()).map(drop));
        gone.await.unwrap();
    }

    /// What a user could see at the end, without times and generated names.
    pub async fn end_state(&self) -> Vec<String> {
        let revisions = self.store.read(|tx| tx.list::<Revision>(None)).await.unwrap();
        let bundle = self.bundle().await;
        let status = bundle.and_then(|bundle| bundle.status).unwrap_or_default();
        let mut lines: Vec<String> = Vec::new();
        lines.extend(
            revisions
                .iter()
                .map(|one| format!("revision {} {:?} {:?}", one.spec.number, state_of(one), one.spec.allocation)),
        );
        lines.extend(status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)));
        lines.push(format!("phase {:?}", status.phase));
        lines.extend(self.world.units.lock().unwrap().iter().map(|(id, seen)| format!("{id} {:?}", seen.state)));
        lines.extend(self.world.plans.lock().unwrap().keys().map(|id| format!("plan {id}")));
        lines.push(format!("starts {}", self.world.starts.lock().unwrap()));
        let volumes = self.volumes().await;
        lines.extend(volumes.iter().map(|one| format!("volume {:?} {:?}", one.metadata.name, one.status)));
        let disks = self.world.disks.disks.lock().unwrap();
        lines.extend(disks.values().map(|disk| format!("disk {:?}", Disk { key: Vec::new(), ..disk.clone() })));
        lines.push(format!("keys {}", self.world.disks.keys.lock().unwrap().len()));
        let given = self.world.given.lock().unwrap();
        let names =
            |one: &Provided| one.env.iter().map(|var| format!("{}={}", var.name, var.value)).collect::<Vec<_>>();
        lines.extend(given.iter().map(|(id, provided)| format!("{id} is given {:?}", names(provided))));
        lines
    }

    pub async fn last_state(&self) -> Option<OperationState> {
        self.operations().await.last().map(operation_state)
    }
}

fn person() -> Actor {
    Actor { identity: "owner".into(), source: "cli".into() }
}

fn asked(kind: OperationKind, target: Target, actor: Actor, sequence: u64) -> Operation {
    Operation {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            generate_name: Some(format!("{}-", target.name)),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            kind,
            target,
            actor,
            generation: 0,
            sequence,
            reason: String::new(),
            idempotency_key: None,
            priority: Priority::Interactive,
            relations: Relations::default(),
            rollback_of: None,
            rollback_to: None,
        },
        status: Some(OperationStatus::default()),
    }
}

pub fn fresh() -> Bundle {
    Bundle {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web".into()),
            finalizers: Some(vec![berth_model::kinds::TEARDOWN_FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec: BundleSpec {
            image: "registry/web:1".into(),
            start: true,
            ports: vec![Port { name: "http".into(), container_port: 80, ..Port::default() }],
            ..BundleSpec::default()
        },
        status: None,
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

#[allow(clippy::disallowed_methods, reason = "the clock of a test")]
fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A volume as a bundle asks for it.
pub fn wish(name: &str, size: &str) -> VolumeWish {
    VolumeWish { name: name.into(), mount_path: format!("/{name}"), size: size.into(), backup: true }
}
