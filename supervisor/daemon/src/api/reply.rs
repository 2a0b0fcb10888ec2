//! Answers: the one place where an error becomes a `Status`, and where an object takes the shape
//! the client asked for (itself, a row of a table, its metadata).

use std::error::Error as StdError;

use axum::body::Body;
use axum::response::Response;
use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, Registration};
use berth_model::selector::SelectorError;
use berth_model::status::{About, Failure, Reason};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::ca::CaError;
use crate::auth::password::PasswordError;
use crate::auth::{AuthError, Refusal as AuthRefusal};
use crate::secret::SecretError;
use crate::store::{Refusal, StoreError};

use super::request::about;
use super::stream::PortError;

/// What a handler answers.
pub(super) type Reply = Result<Response, Error>;

/// A request that failed, on its way to becoming a `Status`. Whatever goes wrong in a handler
/// becomes one of these here, and nowhere else.
#[derive(Debug)]
pub(super) struct Error(Box<Failure>);

impl Error {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Failure::new(reason, message).into()
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// The same with the object it is about, unless that is known already.
    pub(super) fn about(mut self, about: impl FnOnce() -> About) -> Self {
        if self.0.about == About::default() {
            self.0.about = about();
        }
        self
    }

    /// Whether whoever asks is not known, or may not.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.0.reason, Reason::Unauthorized | Reason::Forbidden)
    }

    /// What is told to people.
    pub(super) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether it is the server that lacks something, not the request.
    pub(super) fn is_fault(&self) -> bool {
        self.0.reason.code() >= StatusCode::INTERNAL_SERVER_ERROR.as_u16()
    }

    /// The object that tells a client.
    pub(super) fn status(&self) -> Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }

    /// The answer, logged if it is our fault.
    pub(super) fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.0.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = with_code(code, json(&self.status()));
        let headers = response.headers_mut();
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.reason == Reason::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"berth\""));
        }
        response
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl From<AuthRefusal> for Error {
    fn from(refusal: AuthRefusal) -> Self {
        let reason = match refusal {
            AuthRefusal::NotRoot => Reason::Forbidden,
            AuthRefusal::Store(error) => return error.into(),
            _ => Reason::Unauthorized,
        };
        Self::new(reason, refusal.to_string())
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        internal(&error)
    }
}

impl From<CaError> for Error {
    fn from(error: CaError) -> Self {
        internal(&error)
    }
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Weak(why) => FieldError::invalid("password", why).into(),
            PasswordError::Unfit(why) => FieldError::invalid("passwordHash", why).into(),
            PasswordError::Ending => Self::new(Reason::ServiceUnavailable, error.to_string()),
            PasswordError::Hash(_) => internal(&error),
        }
    }
}

impl From<SelectorError> for Error {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        let message = error.to_string();
        Failure { causes: vec![error], ..Failure::new(Reason::Invalid, message) }.into()
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        let reason = match &error {
            SecretError::StaleDigest { .. } => Reason::Conflict,
            SecretError::Malformed { .. } => Reason::Invalid,
            SecretError::Locked(why) => return Self::new(Reason::ServiceUnavailable, format!("{error}: {why}")),
            _ => return internal(&error),
        };
        Self::new(reason, error.to_string())
    }
}

impl From<PortError> for Error {
    fn from(error: PortError) -> Self {
        let reason = match &error {
            PortError::Request(_) => Reason::BadRequest,
            PortError::Absent(_) => Reason::NotFound,
            PortError::Conflict(_) => Reason::Conflict,
            PortError::Unavailable(_) => Reason::ServiceUnavailable,
            PortError::Failed(source) => return internal(source.as_ref()),
        };
        Self::new(reason, error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Broken(fault) if fault.is_full() => {
                tracing::error!("a request failed: {}", crate::log::chain(&fault));
                Self::new(Reason::ServiceUnavailable, FULL.to_owned())
            }
            StoreError::Broken(fault) => internal(&fault),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let reason = match refusal {
            Refusal::NotFound { .. } | Refusal::NoNamespace(_) => Reason::NotFound,
            Refusal::AlreadyExists { .. } => Reason::AlreadyExists,
            Refusal::Conflict { .. } => Reason::Conflict,
            Refusal::NamespaceTerminating(_) | Refusal::Protected { .. } => Reason::Forbidden,
            Refusal::QuotaExceeded { name, excess, .. } => {
                let causes = excess.iter().map(|one| FieldError::forbidden(one.measure.field(), one.to_string()));
                let causes = causes.collect();
                let failure = Failure { causes, ..Failure::new(Reason::Forbidden, message) };
                return failure.about(about(&BUNDLE, &name)).into();
            }
            Refusal::Gone { .. } => Reason::Expired,
            Refusal::Ahead { .. } => Reason::Expired,
            Refusal::Invalid { error, .. } => {
                return Failure { causes: vec![error], ..Failure::new(Reason::Invalid, message) }.into();
            }
        };
        Self::new(reason, message)
    }
}

/// Said when nothing can be written down; it gets better by itself once, when the ballast goes.
const FULL: &str = "the data disk is full, so nothing was changed; try again in some seconds, and make room: \
    `berth image prune`, `berth volume list`";

/// A fault of ours: the chain goes to the log, the client learns where to look.
pub(super) fn internal(error: &(dyn StdError + 'static)) -> Error {
    tracing::error!("a request failed: {}", crate::log::chain(error));
    let message = "berthd could not do this; `journalctl -u berthd` says why".to_owned();
    Error::new(Reason::InternalError, message)
}

/// 200 with a JSON body.
pub(super) fn json(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The same answer with another code.
pub(super) fn with_code(code: StatusCode, mut response: Response) -> Response {
    *response.status_mut() = code;
    response
}

/// 200 with a line of text.
pub(super) fn text(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds what a client should know although all went well.
pub(super) fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text = warning.replace(['"', '\\'], "'");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
    response
}

/// The shape in which a client wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they are.
    Whole,
    /// Rows of a table, each with the object's metadata or all of it.
    Table {
        /// `includeObject=Object`.
        whole_rows: bool,
    },
    /// Metadata alone.
    Metadata,
}

impl Shape {
    /// The first shape in `Accept` that is served; anything unknown is answered with plain JSON.
    pub(super) fn wanted(headers: &HeaderMap, include_object: Option<&str>) -> Self {
        let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let shape = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next()?;
            let kind = parts.find_map(|part| part.strip_prefix("as="));
            match (media, kind) {
                ("application/json", Some("Table")) => {
                    Some(Self::Table { whole_rows: include_object == Some("Object") })
                }
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    Some(Self::Metadata)
                }
                ("application/json" | "application/*" | "*/*", None) => Some(Self::Whole),
                _ => None,
            }
        };
        accept.split(',').find_map(shape).unwrap_or(Self::Whole)
    }

    /// One object in this shape.
    pub(super) fn object(self, kind: &Registration, object: Value, now: Timestamp) -> Value {
        match self {
            Self::Whole => object,
            Self::Metadata => metadata_of(object),
            Self::Table { .. } => {
                let version = object["metadata"]["resourceVersion"].clone();
                self.table(kind, vec![object], json!({ "resourceVersion": version }), now)
            }
        }
    }

    /// A list in this shape. `metadata` is that of the list.
    pub(super) fn list(self, kind: &Registration, items: Vec<Value>, metadata: Value, now: Timestamp) -> Value {
        match self {
            Self::Table { .. } => self.table(kind, items, metadata, now),
            Self::Whole => json!({
                "kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": metadata, "items": items,
            }),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": items.into_iter().map(metadata_of).collect::<Vec<_>>(),
            }),
        }
    }

    fn table(self, kind: &Registration, items: Vec<Value>, metadata: Value, now: Timestamp) -> Value {
        let columns = kind.columns.iter().map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format(),
                "description": column.description, "priority": column.priority,
            })
        });
        let row = |object: Value| {
            let cells = (kind.cells)(&object, now);
            let whole = self == Self::Table { whole_rows: true };
            let object = if whole { object } else { metadata_of(object) };
            json!({ "cells": cells, "object": object })
        };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": columns.collect::<Vec<_>>(), "rows": items.into_iter().map(row).collect::<Vec<_>>(),
        })
    }
}

fn metadata_of(mut object: Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fault;

    #[test]
    fn a_write_to_a_full_disk_is_refused_for_now_with_what_to_do() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        database.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 2").unwrap();
        let full = database.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err();
        let source = std::sync::Arc::new(full);
        let told = Error::from(StoreError::Broken(Fault::Sql { doing: "writing an object", source }));
        assert_eq!(told.0.reason, Reason::ServiceUnavailable);
        assert!(told.0.message.contains("nothing was changed") && told.0.message.contains("image prune"));
    }
}
