//! The daemon's bundle domain on a scripted world.

mod world;

use std::sync::Arc;
use std::time::Duration;

use berth_model::allocation::Pool;
use berth_model::provided::Provided;
use berth_model::resource::bundle::{Bundle, BundleSpec, Port, VolumeWish, gone_back};
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Relations, StepName,
    StepState, Target,
};
use berth_model::resource::revision::{Revision, goal};
use berth_model::resource::{Volume, volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bundle::fetch::{revisions_of, view};
use crate::bundle::steps::{DRAIN, PATIENCE, Steps, Turns};
use crate::bundle::view::{View, operation_state, rests, state_of};
use crate::bundle::{BundleKey, Bundles, berthd};
use crate::daemon::volumes::{BundleVolumes, ByTarget};
use crate::metrics::Metrics;
use crate::operation::{AbortPoints, Runner, order};
use crate::reconcile::Reconciler;
use crate::store::{Clock, Store, Tx};
use crate::volume::Volumes;
use crate::volume::tests::Disk;

pub use world::{World, ending};

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
        let clock: Clock = Arc::new(move || machine.stopped.lock().unwrap().unwrap_or_else(&clock));
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
            drain: world.drain.lock().unwrap().unwrap_or(DRAIN),
            turns: Turns::new(world.patience.lock().unwrap().unwrap_or(PATIENCE)),
        };
        let volumes = Arc::new(volumes);
        let executor =
            ByTarget { bundles: Arc::new(steps), volumes: volumes.clone(), machine: volumes.clone(), updates: volumes };
        let runner = Runner::new(store.clone(), Arc::new(executor), abort, Metrics::new());
        let runner = runner.pausing(Duration::from_millis(1)).noting(crate::api::note_wish);
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
        self.ask_with(kind, None, |_| {}).await;
    }

    /// The same on another target, or with more to it.
    pub async fn ask_with(
        &self,
        kind: OperationKind,
        target: Option<Target>,
        change: impl FnOnce(&mut Operation) + Send + 'static,
    ) {
        let own = self.target().await;
        let write = move |tx: &mut Tx<'_>| {
            let mut operation = asked(kind, target.unwrap_or(own), person(), tx.version()?);
            change(&mut operation);
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
            system: None,
            room: None,
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

#[allow(clippy::disallowed_methods, reason = "the clock of a test")]
pub fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A volume as a bundle asks for it.
pub fn wish(name: &str, size: &str) -> VolumeWish {
    VolumeWish { name: name.into(), mount_path: format!("/{name}"), size: size.into(), backup: true }
}
