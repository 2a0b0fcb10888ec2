//! Follows long work to its end: an operation by its name, or a bundle until it is ready.
//!
//! [`Readiness`] decides from what is known; the functions around it only watch and wait. A
//! deadline and Ctrl-C end the waiting, never the work.

use std::future::Future;

use berth_model::resource::{Bundle, Operation};
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
    let instead = format!("berth operation show {name} -w -n {}", context.namespace);
    bounded(context, &format!("operation/{name}"), &instead, watch_operation(context, name)).await
}

async fn watch_operation(context: &Context, name: &str) -> Result<Option<Value>, Failure> {
    let mut progress = Progress::new(context.on_terminal());
    let kind = ResourceType::of::<Operation>();
    let mut watcher = Watcher::new(&context.client, &kind, Scope::object(&context.namespace, name));
    let mut last = None;
    loop {
        match watcher.next().await? {
            News::Present(object) if is_named(&object, name) => {
                let view = OperationView::of(&object);
                progress.show(&view)?;
                if view.finished() {
                    return outcome(&view).map(|()| Some(object));
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
        "Cancelled" => Err(Failure::Cancelled(format!("operation/{name}"))),
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

/// Follows a bundle until it is ready for `generation`; the answer is its last state.
pub(super) async fn ready(context: &Context, namespace: &str, name: &str, generation: i64) -> Result<Value, Failure> {
    let instead = format!("berth status {name} -w -n {namespace}");
    let watch = watch_bundle(context, namespace, name, generation);
    bounded(context, &format!("bundle/{name}"), &instead, watch).await
}

async fn watch_bundle(context: &Context, namespace: &str, name: &str, generation: i64) -> Result<Value, Failure> {
    let mut progress = Progress::new(context.on_terminal());
    let mut known = Readiness::new(generation);
    let mut bundles = Watcher::new(&context.client, &ResourceType::of::<Bundle>(), Scope::object(namespace, name));
    let fields = format!("spec.target.kind=Bundle,spec.target.name={name}");
    let scope = Scope { fields: Some(fields), ..Scope::namespace(namespace) };
    let mut operations = Watcher::new(&context.client, &ResourceType::of::<Operation>(), scope);
    loop {
        let verdict = tokio::select! {
            news = bundles.next() => match news? {
                News::Present(object) if is_named(&object, name) => known.bundle(object),
                News::Absent(object) if is_named(&object, name) => return Err(removed(name)),
                News::Lost(why) => { lost(context, &why)?; Verdict::Wait }
                _ => Verdict::Wait,
            },
            news = operations.next() => match news? {
                News::Present(object) => {
                    let view = OperationView::of(&object);
                    if known.concerns(&view, name) {
                        progress.show(&view)?;
                    }
                    known.operation(view, name)
                }
                News::Synced => known.operations_known(),
                _ => Verdict::Wait,
            },
        };
        match verdict {
            Verdict::Wait => {}
            Verdict::Settled(object) => return Ok(object),
            Verdict::Failed(failure) => return Err(*failure),
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

/// What is known of a bundle that is waited for.
#[derive(Debug, Default)]
struct Readiness {
    generation: i64,
    bundle: Option<Value>,
    operation: Option<OperationView>,
    operations_known: bool,
}

/// What follows from it.
#[derive(Debug)]
enum Verdict {
    Wait,
    /// Ready, or stopped because that is what somebody wanted.
    Settled(Value),
    Failed(Box<Failure>),
}

impl Readiness {
    fn new(generation: i64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Whether an operation brings about what is waited for.
    fn concerns(&self, operation: &OperationView, name: &str) -> bool {
        let spec = &operation.spec;
        let kinds = ["Install", "Update", "Start", "Restart"];
        spec.target.name == name && spec.generation >= self.generation && kinds.contains(&spec.kind.as_str())
    }

    fn bundle(&mut self, object: Value) -> Verdict {
        self.bundle = Some(object);
        self.verdict()
    }

    /// Only the latest operation counts: an earlier one may have failed and been tried again.
    fn operation(&mut self, operation: OperationView, name: &str) -> Verdict {
        let later = |known: &OperationView| known.name() == operation.name() || known.order() < operation.order();
        let later = self.operation.as_ref().is_none_or(later);
        if later && self.concerns(&operation, name) {
            self.operation = Some(operation);
        }
        self.verdict()
    }

    fn operations_known(&mut self) -> Verdict {
        self.operations_known = true;
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        let (true, Some(object)) = (self.operations_known, &self.bundle) else { return Verdict::Wait };
        if let Some(operation) = &self.operation {
            if !operation.finished() {
                return Verdict::Wait;
            }
            if let Err(failure) = outcome(operation) {
                return Verdict::Failed(Box::new(failure));
            }
        }
        judge(object, self.generation)
    }
}

fn judge(object: &Value, generation: i64) -> Verdict {
    let bundle = BundleView::of(object);
    if bundle.status.observed_generation < generation {
        return Verdict::Wait;
    }
    let at_rest = |ready: &Condition| matches!(ready.reason.as_str(), "StartSkipped" | "StoppedByOperator");
    match bundle.condition("Ready") {
        Some(ready) if ready.status == "True" || at_rest(ready) => Verdict::Settled(object.clone()),
        _ if bundle.status.phase == "Failed" => Verdict::Failed(Box::new(not_ready(&bundle))),
        _ => Verdict::Wait,
    }
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
        let mut known = Readiness::new(2);
        known.bundle(bundle);
        for one in operations {
            known.operation(one.clone(), "web");
        }
        match known.operations_known() {
            Verdict::Wait => "wait".to_owned(),
            Verdict::Settled(_) => "settled".to_owned(),
            Verdict::Failed(failure) => failure.to_string(),
        }
    }

    #[test]
    fn ready_for_the_wanted_generation_is_the_end() {
        assert_eq!(known(bundle(2, "Running", ("True", "StartCompleted")), &[]), "settled");
        assert_eq!(known(bundle(1, "Running", ("True", "StartCompleted")), &[]), "wait");
    }

    #[test]
    fn nothing_is_decided_before_the_operations_are_known() {
        let mut known = Readiness::new(2);
        assert!(matches!(known.bundle(bundle(2, "Failed", ("False", "StartFailed"))), Verdict::Wait));
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
    fn an_operation_for_an_older_wish_does_not_count() {
        let old = [operation("a", 1, "Failed")];
        assert_eq!(known(bundle(2, "Running", ("True", "StartCompleted")), &old), "settled");
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
