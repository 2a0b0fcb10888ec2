//! Follows long work to its end: an operation by its name, or a bundle until it is ready.
//!
//! [`Readiness`] decides from what is known about a [`Wish`]; the functions around it only watch and wait. A
//! deadline and Ctrl-C end the waiting, never the work.

use std::collections::BTreeSet;
use std::future::Future;

use berth_model::resource::{Bundle, Operation};
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::Context;
use super::failure::Failure;
use super::progress::Progress;
use super::views::{BundleView, OperationView};
use crate::resource::{ResourceType, Scope};
use crate::watch::{News, Watcher};

/// Waits for `work`, but not beyond the deadline and not against the person's will.
pub(super) async fn bounded<T>(
    context: &Context,
    what: &str,
    instead: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (what, instead) = (what.to_owned(), instead.to_owned());
    tokio::select! {
        done = work => done,
        () = tokio::time::sleep(context.timeout) => {
            Err(Failure::TimedOut { what, seconds: context.timeout.as_secs(), instead })
        }
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => Err(Failure::Interrupted { what, instead }),
            Err(source) => Err(Failure::Runtime(source)),
        },
    }
}

/// Follows an operation until it has succeeded; the answer is its last state.
///
/// `None` if it is gone: its target took it along.
pub(super) async fn operation(context: &Context, name: &str) -> Result<Option<Value>, Failure> {
    until(context, &context.namespace, name, |_| false).await
}

/// The same, but for no longer than until it is as far as wanted.
pub(super) async fn until(
    context: &Context,
    namespace: &str,
    name: &str,
    is_enough: impl Fn(&OperationView) -> bool,
) -> Result<Option<Value>, Failure> {
    let instead = format!("berth operation show {name} -w -n {namespace}");
    let watched = watch_operation(context, namespace, name, is_enough);
    bounded(context, &format!("operation/{name}"), &instead, watched).await
}

async fn watch_operation(
    context: &Context,
    namespace: &str,
    name: &str,
    is_enough: impl Fn(&OperationView) -> bool,
) -> Result<Option<Value>, Failure> {
    let mut progress = Progress::new(context.on_terminal());
    let kind = ResourceType::of::<Operation>();
    let mut watcher = Watcher::new(&context.client, &kind, Scope::object(namespace, name));
    let mut last = None;
    loop {
        match watcher.next().await? {
            News::Present(object) if is_named(&object, name) => {
                let view = OperationView::of(&object);
                progress.show(&view)?;
                if view.finished() {
                    return outcome(&view).map(|()| Some(object));
                }
                if is_enough(&view) {
                    return Ok(Some(object));
                }
                last = Some(object);
            }
            News::Absent(object) if is_named(&object, name) => return Ok(None),
            News::Synced if last.is_none() => return Ok(None),
            News::Lost(why) => lost(context, &why)?,
            _ => {}
        }
    }
}

/// What a finished operation means for the command.
pub(super) fn outcome(operation: &OperationView) -> Result<(), Failure> {
    let name = operation.name().to_owned();
    match operation.status.state.as_str() {
        "Succeeded" => Ok(()),
        "Cancelled" => {
            let told = operation.status.error.as_ref().map(|error| error.message.clone());
            let why = told.unwrap_or_else(|| "a later request overtook it".to_owned());
            Err(Failure::Cancelled { what: format!("operation/{name}"), why })
        }
        _ => {
            let error = operation.status.error.clone().unwrap_or_default();
            Err(Failure::Operation { operation: name, error: Box::new(error) })
        }
    }
}

fn is_named(object: &Value, name: &str) -> bool {
    object["metadata"]["name"] == name
}

fn lost(context: &Context, why: &str) -> Result<(), Failure> {
    context.note(&format!("connection lost ({why}); trying again"))
}

/// Follows a bundle until it is ready as it was wished; the answer is its last state.
pub(super) async fn ready(context: &Context, wish: &Wish) -> Result<Value, Failure> {
    let instead = format!("berth status {} -w -n {}", wish.name, wish.namespace);
    bounded(context, &format!("bundle/{}", wish.name), &instead, watch_bundle(context, wish)).await
}

/// As long as that takes.
pub(super) async fn watch_bundle(context: &Context, wish: &Wish) -> Result<Value, Failure> {
    let mut progress = Progress::new(context.on_terminal());
    let mut known = Readiness::new(wish);
    let (bundle, operation) = (ResourceType::of::<Bundle>(), ResourceType::of::<Operation>());
    let mut bundles = Watcher::new(&context.client, &bundle, Scope::object(&wish.namespace, &wish.name));
    let fields = Some(format!("spec.target.kind=Bundle,spec.target.name={}", wish.name));
    let scope = Scope { fields, ..Scope::namespace(&wish.namespace) };
    let mut operations = Watcher::new(&context.client, &operation, scope.clone());
    loop {
        let news = tokio::select! {
            news = bundles.next() => match news? {
                News::Absent(object) if is_named(&object, &wish.name) => return Err(removed(&wish.name)),
                news => news,
            },
            news = operations.next() => news?,
        };
        match news {
            News::Present(object) => known.seen(object, &mut progress)?,
            News::Lost(why) => lost(context, &why)?,
            News::Absent(_) | News::Synced => {}
        }
        if operations.synced() && known.verdict().is_some() {
            // An operation that was begun with what the bundle shows now may not have been told yet.
            for object in context.client.list_dynamic(&operation, &scope).await?.items {
                known.seen(object, &mut progress)?;
            }
            if let Some(verdict) = known.verdict() {
                return verdict;
            }
        }
    }
}

fn removed(name: &str) -> Failure {
    Failure::NotReady {
        what: format!("bundle/{name}"),
        reason: "Removed".to_owned(),
        message: "it was removed while it was waited for".to_owned(),
        instead: "berth operations".to_owned(),
    }
}

/// What is waited for: a bundle as the server answered it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wish {
    namespace: String,
    name: String,
    generation: i64,
    created: Option<Timestamp>,
    /// Version of the change that was just made, 0 if there was none: all that counts comes after it.
    since: u64,
    /// What was begun after that sequence counts, whatever it does.
    begun_after: Option<u64>,
    /// Something has to be begun.
    acts: bool,
}

impl Wish {
    /// The bundle as it was answered to a request that changed it, or found it as it should be.
    pub fn of(bundle: &BundleView, changed: bool) -> Self {
        let metadata = &bundle.metadata;
        let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: bundle.name().to_owned(),
            generation: bundle.generation(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            since: version.filter(|_| changed).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The bundle as a change set leaves it, which was applied by the operation of that sequence; it `acts` on the
    /// bundle if that is started anew, be it for what is not in its own spec.
    pub fn after(bundle: &BundleView, sequence: u64, acts: bool) -> Self {
        Self { begun_after: Some(sequence), acts, ..Self::of(bundle, false) }
    }

    /// Whether an operation brings about what is waited for. Those of an earlier bundle of this name do
    /// not: they ended before it was made.
    fn concerns(&self, operation: &OperationView) -> bool {
        let (spec, metadata) = (&operation.spec, &operation.metadata);
        let version = metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let of_kind = match self.begun_after {
            Some(before) => spec.sequence > before,
            None => ["Install", "Update", "Start", "Restart"].contains(&spec.kind.as_str()),
        };
        spec.target.name == self.name
            && spec.generation >= self.generation
            && of_kind
            && version.is_none_or(|version| version > self.since)
            && created >= self.created
    }
}

/// What is known of a bundle that is waited for.
#[derive(Debug, Default)]
struct Readiness {
    wish: Wish,
    bundle: Option<Value>,
    operation: Option<OperationView>,
    at_work: BTreeSet<String>,
}

impl Readiness {
    fn new(wish: &Wish) -> Self {
        Self { wish: wish.clone(), ..Self::default() }
    }

    /// Takes in a bundle or an operation.
    fn seen(&mut self, object: Value, progress: &mut Progress) -> Result<(), Failure> {
        if object["kind"] != Operation::KIND {
            if is_named(&object, &self.wish.name) {
                self.bundle = Some(object);
            }
            return Ok(());
        }
        let operation = OperationView::of(&object);
        if self.wish.concerns(&operation) {
            if self.is_news(&operation) {
                progress.show(&operation)?;
            }
            self.operation(operation);
        }
        Ok(())
    }

    /// What was over before anybody waited is not told step by step.
    fn is_news(&mut self, operation: &OperationView) -> bool {
        let at_work = self.wish.since > 0 || self.wish.begun_after.is_some() || !operation.finished();
        if at_work {
            self.at_work.insert(operation.name().to_owned());
        }
        at_work || self.at_work.contains(operation.name())
    }

    /// Only the latest operation counts: an earlier one may have failed and been tried again. One that
    /// has finished never changes; what says otherwise is old news.
    fn operation(&mut self, operation: OperationView) {
        let later = |known: &OperationView| match known.name() == operation.name() {
            true => !known.finished(),
            false => known.order() < operation.order(),
        };
        if self.operation.as_ref().is_none_or(later) {
            self.operation = Some(operation);
        }
    }

    /// How it ended, if it has: the bundle as it is now, or why not.
    fn verdict(&self) -> Option<Result<Value, Failure>> {
        let object = self.bundle.as_ref()?;
        if let Some(operation) = &self.operation {
            if !operation.finished() {
                return None;
            }
            if let Err(failure) = outcome(operation) {
                return Some(Err(failure));
            }
        }
        if self.wish.acts && self.operation.is_none() && !is_held(object) {
            return None;
        }
        let made = self.operation.as_ref().and_then(OperationView::revision);
        judge(object, self.wish.generation, made)
    }
}

/// Ready, or stopped because that is what somebody wanted, is a good end. The status lags behind:
/// it must speak of this generation and of the revision that was made for it.
fn judge(object: &Value, generation: i64, made: Option<u64>) -> Option<Result<Value, Failure>> {
    let bundle = BundleView::of(object);
    let at_rest = |ready: &Condition| matches!(ready.reason.as_str(), "StartSkipped" | "StoppedByOperator");
    let ready = bundle.condition("Ready");
    if bundle.status.observed_generation < generation {
        return None;
    }
    match ready {
        Some(ready) if at_rest(ready) => Some(Ok(object.clone())),
        Some(ready) if ready.status == "True" => (bundle.status.revision >= made).then(|| Ok(object.clone())),
        _ if matches!(bundle.status.phase.as_str(), "Failed" | "Stopped") => Some(Err(not_ready(&bundle))),
        _ => None,
    }
}

/// Somebody has stopped it with systemd, and nothing but a wish to start it changes that.
fn is_held(object: &Value) -> bool {
    BundleView::of(object).condition("Ready").is_some_and(|ready| ready.reason == "StoppedByOperator")
}

fn not_ready(bundle: &BundleView) -> Failure {
    let name = bundle.name();
    let (reason, message) = match bundle.obstacle() {
        Some(condition) => (condition.reason.clone(), condition.message.clone()),
        None => ("Failed".to_owned(), "it does not say why".to_owned()),
    };
    let instead = format!("berth status {name}; berth logs {name}");
    Failure::NotReady { what: format!("bundle/{name}"), reason, message, instead }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn bundle(observed: i64, phase: &str, ready: (&str, &str)) -> Value {
        json!({
            "metadata": {"name": "web", "generation": 2},
            "status": {"observedGeneration": observed, "phase": phase, "conditions": [
                {"type": "Ready", "status": ready.0, "reason": ready.1, "message": "see the log",
                 "lastTransitionTime": "2026-11-21T00:00:00Z"}]}
        })
    }

    fn operation(name: &str, generation: i64, state: &str) -> OperationView {
        OperationView::of(&json!({
            "metadata": {"name": name, "creationTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"kind": "Install", "generation": generation,
                     "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
            "status": {"state": state, "error": {"code": "WorkloadFailed", "message": "no image"}}
        }))
    }

    fn known(bundle: Value, operations: &[OperationView]) -> String {
        let mut known = Readiness::new(&Wish { name: "web".into(), generation: 2, ..Wish::default() });
        known.bundle = Some(bundle);
        for one in operations.iter().filter(|one| known.wish.concerns(one)).cloned().collect::<Vec<_>>() {
            known.operation(one);
        }
        match known.verdict() {
            None => "wait".to_owned(),
            Some(Ok(_)) => "settled".to_owned(),
            Some(Err(failure)) => failure.to_string(),
        }
    }

    #[test]
    fn ready_for_the_wanted_generation_is_the_end() {
        assert_eq!(known(bundle(2, "Running", ("True", "StartCompleted")), &[]), "settled");
        assert_eq!(known(bundle(1, "Running", ("True", "StartCompleted")), &[]), "wait");
    }

    #[test]
    fn a_status_that_still_speaks_of_the_revision_before_is_not_the_end() {
        let mut done = operation("a", 2, "Succeeded");
        done.status.result = json!({"revision": 5});
        let mut bundle = bundle(2, "Running", ("True", "StartCompleted"));
        bundle["status"]["revision"] = 4.into();
        assert_eq!(known(bundle.clone(), &[done.clone()]), "wait");
        bundle["status"]["revision"] = 5.into();
        assert_eq!(known(bundle, &[done]), "settled");
    }

    #[test]
    fn a_service_that_ended_by_itself_is_not_ready() {
        let ended = bundle(2, "Stopped", ("False", "Degraded"));
        assert_eq!(known(ended, &[]), "bundle/web is not ready: see the log");
    }

    #[test]
    fn an_operation_at_work_is_waited_for_even_if_the_bundle_looks_ready_or_failed() {
        let at_work = [operation("a", 2, "Running")];
        assert_eq!(known(bundle(2, "Running", ("True", "StartCompleted")), &at_work), "wait");
        assert_eq!(known(bundle(2, "Failed", ("False", "StartFailed")), &at_work), "wait");
    }

    #[test]
    fn a_failed_operation_is_told_in_its_own_words() {
        let failed = [operation("a", 2, "Failed")];
        assert_eq!(known(bundle(2, "Failed", ("False", "StartFailed")), &failed), "a failed: no image");
    }

    #[test]
    fn a_later_try_counts_more_than_the_one_before() {
        let tries = [operation("a", 2, "Running"), operation("b", 2, "Failed")];
        assert_eq!(known(bundle(2, "Failed", ("False", "StartFailed")), &tries), "wait");
        let end = [operation("a", 2, "Running"), operation("a", 2, "Failed")];
        assert_eq!(known(bundle(2, "Failed", ("False", "StartFailed")), &end), "a failed: no image");
    }

    #[test]
    fn what_a_change_set_starts_anew_is_waited_for_though_the_bundle_is_as_it_was() {
        let answered = BundleView::of(&bundle(2, "Running", ("True", "StartCompleted")));
        let seen = |acts: bool, reason: &str, sequence: Option<u64>| {
            let mut known = Readiness::new(&Wish::after(&answered, 40, acts));
            known.bundle = Some(bundle(2, "Running", ("True", reason)));
            let begun = sequence.map(|sequence| {
                let mut begun = operation("a", 2, "Succeeded");
                (begun.spec.sequence, begun.spec.kind) = (sequence, "Update".into());
                begun
            });
            begun
                .into_iter()
                .filter(|one| known.wish.concerns(one))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|one| known.operation(one));
            known.verdict().is_some()
        };
        assert_eq!((seen(true, "StartCompleted", None), seen(false, "StartCompleted", None)), (false, true));
        assert_eq!((seen(true, "StartCompleted", Some(40)), seen(true, "StartCompleted", Some(41))), (false, true));
        assert!(seen(true, "StoppedByOperator", None), "who is stopped by hand is left so");
    }

    #[test]
    fn an_operation_for_an_older_wish_does_not_count() {
        let old = [operation("a", 1, "Failed")];
        assert_eq!(known(bundle(2, "Running", ("True", "StartCompleted")), &old), "settled");
    }

    #[test]
    fn an_operation_for_an_earlier_bundle_of_the_name_does_not_count() {
        let answered = BundleView::of(&json!({
            "metadata": {"name": "web", "generation": 1, "resourceVersion": "50",
                         "creationTimestamp": "2026-11-21T00:00:00Z"}}));
        let (fresh, found) = (Wish::of(&answered, true), Wish::of(&answered, false));
        let with = |version: &str, created: &str| {
            let mut operation = operation("a", 1, "Failed");
            operation.metadata.resource_version = Some(version.to_owned());
            operation.metadata.creation_timestamp = Some(Time(created.parse().unwrap()));
            operation
        };
        let before = with("49", "2026-11-21T00:00:00Z");
        assert_eq!((fresh.concerns(&before), found.concerns(&before)), (false, true));
        let long_before = with("49", "2026-11-20T23:59:59Z");
        assert_eq!((fresh.concerns(&long_before), found.concerns(&long_before)), (false, false));
        assert!(fresh.concerns(&with("51", "2026-11-21T00:00:00Z")));
    }

    #[test]
    fn a_bundle_that_is_to_be_stopped_is_settled_when_it_is() {
        assert_eq!(known(bundle(2, "Stopped", ("False", "StartSkipped")), &[]), "settled");
        assert_eq!(known(bundle(2, "Stopped", ("False", "StoppedByOperator")), &[]), "settled");
    }

    #[test]
    fn a_failed_bundle_without_an_operation_says_where_it_hangs() {
        let failed = bundle(2, "Failed", ("False", "CrashLooping"));
        assert_eq!(known(failed, &[]), "bundle/web is not ready: see the log");
    }
}
