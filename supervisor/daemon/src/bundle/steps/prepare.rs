//! From a tag to a revision: nothing runs yet.

use berth_model::allocation::{Held, Pool, allocate};
use berth_model::condition::Reason;
use berth_model::resource::bundle::{Bundle, BundleSpec, Port, Protocol, rollout_part};
use berth_model::resource::revision::{
    Allocation, ResolvedImage, Revision, RevisionSpec, RevisionState, RevisionStatus, find, serving,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use super::provision::found;
use super::{Done, Steps, store_failed};
use crate::bundle::fetch::revisions_of;
use crate::bundle::references::{environment, resolved};
use crate::bundle::seams::ImageFailure;
use crate::bundle::view::{container_id, state_of};
use crate::operation::{StepDone, StepError, Task};
use crate::store::{Deletion, StoreError, Tx};

/// Under which a step keeps how the bundle named the image.
const NAMED: &str = "named";
/// Under which a step keeps the number of the revision that is made again.
const RESTORES: &str = "restores";

/// A revision cannot be made.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the bundle is gone")]
    Gone,
    #[error("the bundle was given another image while this one was fetched")]
    Moved,
    #[error("{0}")]
    Full(#[from] berth_model::allocation::Exhausted),
    #[error("port {port}/{protocol} of the machine is already published by {owner}")]
    PortTaken { port: u16, protocol: &'static str, owner: String },
}

impl Steps {
    /// An image is looked up anew when somebody asks for an update or names another image; any other
    /// change keeps the digest that serves, and a rollback has the digest of the revision it goes back to.
    pub(super) async fn resolve_image(&self, task: &Task) -> Done {
        let spec = self.bundle(task).await?.spec;
        let revisions = self.revisions(task).await?;
        let called_so = |one: &&Revision| one.spec.bundle_spec.image == spec.image;
        let goal = task.spec.rollback_to.and_then(|number| find(&revisions, number)).filter(called_so);
        let asked = task.spec.actor.source != "reconciler" || spec.update;
        let active = serving(&revisions).filter(called_so).filter(|_| !asked);
        let pinned = match goal.or(active) {
            Some(revision) => revision.spec.image.reference.clone(),
            None => self.images.resolve(&spec.image).await.map_err(image_failed)?,
        };
        let done = StepDone::said(format!("{} is {pinned}", spec.image)).keeping("image", Value::String(pinned));
        let done = done.keeping(NAMED, Value::String(spec.image.clone()));
        Ok(goal.into_iter().fold(done, |done, goal| done.keeping(RESTORES, goal.spec.number.into())))
    }

    pub(super) async fn pull_image(&self, task: &Task) -> Done {
        let pinned = text(task, "image")?;
        let image = self.images.ensure(&pinned, task.progress.clone()).await.map_err(image_failed)?;
        let spec = self.bundle(task).await?.spec;
        self.images.check_program(&image, &spec).await.map_err(image_failed)?;
        let layers = image.layers.len();
        let value = serde_json::to_value(&image).map_err(|error| unreadable().caused_by(error))?;
        Ok(StepDone::said(format!("layers unpacked: {layers}")).keeping("resolved", value))
    }

    pub(super) async fn prepare_revision(&self, task: &Task) -> Done {
        if let Some(done) = self.candidate(task).await? {
            return Ok(StepDone::said(format!("revision {} is recorded", done.spec.number)));
        }
        let image: ResolvedImage = resolved_image(task)?;
        if let Some(number) = self.serves_already(task, &image).await? {
            let done = StepDone::said(format!("nothing is new: revision {number} stays"));
            return Ok(done.keeping("revision", number.into()));
        }
        let spec = self.bundle(task).await?.spec;
        self.check_free_ports(&spec, task).await?;
        self.check_pool(task).await?;
        self.system_calls(&spec, Reason::ProfileFailed).await?;
        let (target, name) = (task.spec.target.clone(), task.name.clone());
        let made_from = MadeFrom {
            operation: name,
            named: task.results.get(NAMED).and_then(Value::as_str).map(ToOwned::to_owned),
            image,
            provided: found(task),
            restores: task.results.get(RESTORES).and_then(Value::as_u64),
            pool: self.pool,
            drawn: self.drawn,
        };
        let made = self.record(move |tx| record(tx, &target.namespace, &target.name, made_from));
        let number = made.await.map_err(prepare_failed)?;
        Ok(StepDone::said(format!("revision {number} is recorded")).keeping("revision", number.into()))
    }

    /// The revision in service, if this very image, wish and values are what it was made from.
    async fn serves_already(&self, task: &Task, image: &ResolvedImage) -> Result<Option<u64>, StepError> {
        let spec = self.bundle(task).await?.spec;
        let revisions = self.revisions(task).await?;
        if revisions.iter().any(|one| state_of(one) == RevisionState::Retiring) {
            return Ok(None);
        }
        let active = revisions.iter().find(|one| state_of(one) == RevisionState::Active);
        let provided = found(task);
        let same = active.filter(|one| {
            one.spec.image == *image
                && one.spec.provided == provided
                && rollout_part(&one.spec.bundle_spec) == rollout_part(&spec)
        });
        Ok(same.map(|one| one.spec.number))
    }

    /// Programs of the machine itself are asked first, by trying; ports this bundle publishes already
    /// are its own.
    async fn check_free_ports(&self, spec: &BundleSpec, task: &Task) -> Result<(), StepError> {
        let own: Vec<(u16, Protocol)> = self
            .revisions(task)
            .await?
            .iter()
            .filter(|revision| state_of(revision).holds_allocation())
            .flat_map(|revision| published(&revision.spec.bundle_spec))
            .collect();
        for (port, protocol) in published(spec).into_iter().filter(|wanted| !own.contains(wanted)) {
            let taken = self.net.occupied(port, protocol == Protocol::Udp).await;
            let taken =
                taken.map_err(super::machine_failed(Reason::ProfileFailed, "looking at the machine's ports failed"))?;
            if taken {
                return Err(port_taken(port, protocol, "a program of the machine itself"));
            }
        }
        Ok(())
    }

    /// Nobody new comes to addresses that mean somebody else on the machine's other links. A bundle that
    /// has its addresses keeps them: whoever reaches it goes on to.
    async fn check_pool(&self, task: &Task) -> Result<(), StepError> {
        if !self.revisions(task).await?.is_empty() {
            return Ok(());
        }
        let everyone = self.store.read(|tx| tx.list::<Revision>(None)).await;
        let everyone = everyone.map_err(|error| store_failed(error, "reading the revisions"))?;
        let held: Vec<Held> = everyone.iter().map(held).collect();
        let pool = Pool::of(&held, &task.spec.target.namespace, self.pool);
        let overlaps = self.net.overlaps(vec![pool]).await;
        let overlaps =
            overlaps.map_err(super::machine_failed(Reason::ProfileFailed, "looking at the machine's links failed"))?;
        overlaps.into_iter().next().map_or(Ok(()), |overlap| Err(pool_overlaps(pool, self.pool, overlap)))
    }

    /// The candidate of a failed operation is kept, as a record; older failed ones make room.
    pub(super) async fn fail_candidate(&self, task: &Task) -> Result<(), StepError> {
        let Some(mut candidate) = self.candidate(task).await? else { return Ok(()) };
        if state_of(&candidate) != RevisionState::Candidate {
            return Ok(());
        }
        explain(candidate.status.get_or_insert_default(), task);
        self.machine
            .forget(&container_id(&candidate))
            .await
            .map_err(super::machine_failed(Reason::StartFailed, "removing the files of the failed revision failed"))?;
        let older = self.revisions(task).await?;
        self.set_states(vec![(candidate, RevisionState::Failed)]).await?;
        let removed = self.record(move |tx| {
            for old in older.iter().filter(|old| state_of(old) == RevisionState::Failed) {
                let name = old.metadata.name.as_deref().unwrap_or_default();
                let namespace = old.metadata.namespace.as_deref().unwrap_or_default();
                tx.delete::<Revision>(namespace, name, &Deletion::default())?;
            }
            Ok::<_, StoreError>(())
        });
        removed.await.map_err(|error| store_failed(error, "removing older failed revisions"))
    }
}

/// Notes why a revision is given up; what it said last is noted already.
fn explain(status: &mut RevisionStatus, task: &Task) {
    let failure = status.failure.get_or_insert_default();
    (failure.reason, failure.message) = match &task.failure {
        Some(error) => (error.code.clone(), error.message.clone()),
        None => ("Cancelled".to_owned(), "a later wish overtook it before it was ready".to_owned()),
    };
}

/// What the steps before have found out.
struct MadeFrom {
    operation: String,
    /// The image as the bundle named it when it was looked up; absent in older records.
    named: Option<String>,
    image: ResolvedImage,
    provided: String,
    restores: Option<u64>,
    pool: Pool,
    drawn: [u8; 5],
}

fn record(tx: &mut Tx<'_>, namespace: &str, name: &str, made_from: MadeFrom) -> Result<u64, PrepareError> {
    let bundle = tx.get::<Bundle>(namespace, name)?.ok_or(PrepareError::Gone)?;
    if made_from.named.as_ref().is_some_and(|named| *named != bundle.spec.image) {
        return Err(PrepareError::Moved);
    }
    let everyone: Vec<Revision> = tx.list::<Revision>(None)?;
    refuse_taken_ports(&everyone, &bundle)?;
    let held: Vec<Held> = everyone.iter().map(held).collect();
    let allocation = allocate(&held, made_from.pool, namespace, name, made_from.drawn)?;
    let number = revisions_of(tx, namespace, name)?.last().map_or(0, |last| last.spec.number) + 1;
    let mut made = revision(&bundle, number, made_from, allocation);
    made.spec.references = resolved(tx, namespace, &bundle.spec)?;
    made.spec.environment = environment(tx, namespace, &made.spec.image, &bundle.spec)?;
    tx.create(&made)?;
    Ok(number)
}

fn held(revision: &Revision) -> Held {
    Held {
        namespace: revision.metadata.namespace.clone().unwrap_or_default(),
        bundle: revision.spec.bundle.clone(),
        in_use: state_of(revision).holds_allocation(),
        allocation: revision.spec.allocation.clone(),
    }
}

fn refuse_taken_ports(everyone: &[Revision], bundle: &Bundle) -> Result<(), PrepareError> {
    let own = (bundle.metadata.namespace.as_deref(), bundle.metadata.name.as_deref());
    let others = everyone.iter().filter(|one| {
        state_of(one).holds_allocation() && (one.metadata.namespace.as_deref(), Some(one.spec.bundle.as_str())) != own
    });
    let wanted = published(&bundle.spec);
    for other in others {
        let theirs = published(&other.spec.bundle_spec);
        if let Some((port, protocol)) = wanted.iter().find(|port| theirs.contains(port)) {
            let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
            return Err(PrepareError::PortTaken {
                port: *port,
                protocol: label(*protocol),
                owner: format!("bundle {namespace}/{}", other.spec.bundle),
            });
        }
    }
    Ok(())
}

fn published(spec: &BundleSpec) -> Vec<(u16, Protocol)> {
    spec.ports.iter().filter_map(|port: &Port| port.published().map(|number| (number, port.protocol))).collect()
}

fn label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn revision(bundle: &Bundle, number: u64, made_from: MadeFrom, allocation: Allocation) -> Revision {
    let name = bundle.metadata.name.clone().unwrap_or_default();
    Revision {
        metadata: ObjectMeta {
            namespace: bundle.metadata.namespace.clone(),
            name: Some(format!("{name}-r{number}")),
            owner_references: Some(vec![owner(bundle)]),
            ..ObjectMeta::default()
        },
        spec: RevisionSpec {
            bundle: name,
            number,
            generation: bundle.metadata.generation.unwrap_or_default(),
            operation: made_from.operation,
            bundle_spec: bundle.spec.clone(),
            image: made_from.image,
            allocation,
            provided: made_from.provided,
            references: Vec::new(),
            environment: Vec::new(),
            restores: made_from.restores,
        },
        status: Some(RevisionStatus::default()),
    }
}

fn owner(bundle: &Bundle) -> OwnerReference {
    OwnerReference {
        api_version: "berth.dev/v1".into(),
        kind: "Bundle".into(),
        name: bundle.metadata.name.clone().unwrap_or_default(),
        uid: bundle.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

pub(super) fn text(task: &Task, key: &str) -> Result<String, StepError> {
    task.results.get(key).and_then(Value::as_str).map(ToOwned::to_owned).ok_or_else(unreadable)
}

fn resolved_image(task: &Task) -> Result<ResolvedImage, StepError> {
    let value = task.results.get("resolved").cloned().ok_or_else(unreadable)?;
    serde_json::from_value(value).map_err(|error| unreadable().caused_by(error))
}

fn unreadable() -> StepError {
    StepError::new(Reason::ProfileFailed, "the operation's record lacks what an earlier step found out")
        .suggest("run the command again")
}

fn image_failed(failure: ImageFailure) -> StepError {
    let suggestion = failure.suggestion.clone();
    let mut error = StepError::new(Reason::ProfileFailed, failure.message).coded(failure.code).suggest(suggestion);
    error.source = failure.source;
    if failure.retryable { error } else { error.permanent() }
}

fn port_taken(port: u16, protocol: Protocol, owner: &str) -> StepError {
    let protocol = label(protocol);
    StepError::new(Reason::ProfileFailed, format!("port {port}/{protocol} of the machine is already in use by {owner}"))
        .coded("PortConflict")
        .suggest("publish another port (spec.ports[].hostPort), or free this one and run the command again")
}

fn pool_overlaps(pool: Pool, next: Pool, overlap: String) -> StepError {
    let another = "set `pool` below `[network]` in /etc/berth/berthd.toml to a private /16 that nobody else uses, \
                   restart berthd and run the command again";
    let error = StepError::new(Reason::ProfileFailed, overlap).coded("AddressPoolOverlap");
    match pool == next {
        true => error.suggest(another),
        false => error.suggest(format!(
            "a namespace keeps its network: use another namespace, whose addresses come out of {next}, or uninstall \
             all bundles of this one first (their volumes stay)"
        )),
    }
    .suggest("or give the other link another network")
}

fn prepare_failed(error: PrepareError) -> StepError {
    match error {
        PrepareError::Store(source) => store_failed(source, "recording the revision"),
        PrepareError::PortTaken { .. } => StepError::new(Reason::ProfileFailed, error.to_string())
            .coded("PortConflict")
            .suggest("publish another port (spec.ports[].hostPort), or free this one and run the command again"),
        PrepareError::Full(_) | PrepareError::Gone | PrepareError::Moved => {
            StepError::new(Reason::ProfileFailed, error.to_string())
        }
    }
}
