//! What passes between the runner and an executor.

use std::error::Error;

use berth_model::condition::Reason;
use berth_model::resource::operation::{OperationError, OperationSpec};
use serde_json::{Map, Value};
use tokio::sync::watch;

/// One operation at work, as an executor sees it.
#[derive(Clone)]
pub struct Task {
    /// The operation's name.
    pub name: String,
    /// What was asked for.
    pub spec: OperationSpec,
    /// What the steps before found out.
    pub results: Map<String, Value>,
    /// Why it is being given up, if it is; nothing is said of one that was overtaken.
    pub failure: Option<OperationError>,
    /// Where to say how far it is.
    pub progress: Progress,
}

/// Says how far a step is. Cheap: the record follows a few times a second.
#[derive(Clone)]
pub struct Progress(pub(super) watch::Sender<(u8, String)>);

impl Progress {
    /// `percent` is clipped to 99, as only the end of a step is its end; it never falls.
    pub fn report(&self, percent: u8, message: impl Into<String>) {
        let message = message.into();
        self.0.send_modify(|shown| *shown = (percent.min(99).max(shown.0), message));
    }
}

/// A step came to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepDone {
    /// For people.
    pub message: String,
    /// Kept in `status.result` for later steps.
    pub results: Map<String, Value>,
}

impl StepDone {
    /// Nothing but a sentence.
    pub fn said(message: impl Into<String>) -> Self {
        Self { message: message.into(), results: Map::new() }
    }

    /// With something to keep.
    pub fn keeping(mut self, key: &str, value: Value) -> Self {
        self.results.insert(key.to_owned(), value);
        self
    }
}

/// A step failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// From the closed vocabulary.
    pub reason: Reason,
    /// A finer code for programs than the reason, if there is one.
    pub code: Option<&'static str>,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub suggestions: Vec<String>,
    /// Trying again without a change may help.
    pub retryable: bool,
    /// Why.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StepError {
    /// A failure that another try may mend.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, code: None, message: message.into(), suggestions: Vec::new(), retryable: true, source: None }
    }

    /// With what lies beneath.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With a code that says more than the reason.
    pub fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// With something the reader can do.
    pub fn suggest(mut self, what: impl Into<String>) -> Self {
        self.suggestions.push(what.into());
        self
    }

    /// Only a change of the wish or of the machine can mend it.
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// As the record shows it.
    pub fn recorded(&self) -> OperationError {
        OperationError {
            code: self.code.unwrap_or(self.reason.name()).to_owned(),
            message: self.message.clone(),
            detail: self.source.as_deref().map(|source| crate::log::chain(source)).unwrap_or_default(),
            suggestions: self.suggestions.clone(),
            retryable: self.retryable,
        }
    }
}
