//! The one table of errors a client can get, and the `Status` object that carries them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::field::FieldError;

/// Why a request failed, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be understood.
    BadRequest,
    /// Nobody has said who asks.
    Unauthorized,
    /// He who asks may not.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The thing does not offer this verb.
    MethodNotAllowed,
    /// No representation the client accepts.
    NotAcceptable,
    /// The name is taken.
    AlreadyExists,
    /// The object is not what the client thinks it is.
    Conflict,
    /// The version asked for is forgotten: list again.
    Expired,
    /// The body is too large.
    RequestEntityTooLarge,
    /// The body is of a type that is not read.
    UnsupportedMediaType,
    /// It is understood, and breaks a rule.
    Invalid,
    /// Too often.
    TooManyRequests,
    /// A fault of the server.
    InternalError,
    /// Not now.
    ServiceUnavailable,
    /// It took too long.
    Timeout,
}

impl Reason {
    /// Every row of the table.
    pub const ALL: [Reason; 16] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Expired,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::TooManyRequests,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Timeout,
    ];

    /// Its name on the wire and its HTTP status.
    pub fn row(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest => ("BadRequest", 400),
            Self::Unauthorized => ("Unauthorized", 401),
            Self::Forbidden => ("Forbidden", 403),
            Self::NotFound => ("NotFound", 404),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405),
            Self::NotAcceptable => ("NotAcceptable", 406),
            Self::AlreadyExists => ("AlreadyExists", 409),
            Self::Conflict => ("Conflict", 409),
            Self::Expired => ("Expired", 410),
            Self::RequestEntityTooLarge => ("RequestEntityTooLarge", 413),
            Self::UnsupportedMediaType => ("UnsupportedMediaType", 415),
            Self::Invalid => ("Invalid", 422),
            Self::TooManyRequests => ("TooManyRequests", 429),
            Self::InternalError => ("InternalError", 500),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503),
            Self::Timeout => ("Timeout", 504),
        }
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its HTTP status.
    pub fn code(self) -> u16 {
        self.row().1
    }
}

/// What a failed request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// API group.
    pub group: String,
    /// Kind, or the plural where Kubernetes says it so.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
}

/// A failed request, ready to be told to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Row of the table.
    pub reason: Reason,
    /// One sentence that says what to do.
    pub message: String,
    /// What it was about.
    pub about: About,
    /// Findings by field.
    pub causes: Vec<FieldError>,
    /// When to try again.
    pub retry_after_seconds: Option<i32>,
}

impl Failure {
    /// A failure that is about nothing in particular.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message, about: About::default(), causes: Vec::new(), retry_after_seconds: None }
    }

    /// A body that breaks rules, one cause per finding.
    pub fn invalid(about: About, causes: Vec<FieldError>) -> Self {
        let found: Vec<String> = causes.iter().map(ToString::to_string).collect();
        let found = match found.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{}\" is invalid: {found}", about.kind, about.name);
        Self { about, causes, ..Self::new(Reason::Invalid, message) }
    }

    /// The same failure about an object.
    pub fn about(mut self, about: About) -> Self {
        self.about = about;
        self
    }

    /// The object that tells a client.
    pub fn status(&self) -> Status {
        Status {
            status: Some("Failure".into()),
            code: Some(i32::from(self.reason.code())),
            reason: Some(self.reason.name().into()),
            message: Some(self.message.clone()),
            details: self.details(),
            ..Status::default()
        }
    }

    fn details(&self) -> Option<StatusDetails> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let cause = |error: &FieldError| StatusCause {
            field: text(&error.field),
            message: Some(error.message.clone()),
            reason: Some(error.rule.reason().into()),
        };
        let causes: Vec<StatusCause> = self.causes.iter().map(cause).collect();
        let details = StatusDetails {
            causes: (!causes.is_empty()).then_some(causes),
            group: text(&self.about.group),
            kind: text(&self.about.kind),
            name: text(&self.about.name),
            uid: text(&self.about.uid),
            retry_after_seconds: self.retry_after_seconds,
        };
        (details != StatusDetails::default()).then_some(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_an_error_code() {
        let names: std::collections::BTreeSet<&str> = Reason::ALL.into_iter().map(Reason::name).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.into_iter().all(|reason| (400..600).contains(&reason.code())));
    }

    #[test]
    fn an_invalid_body_is_told_field_by_field() {
        let about = About { kind: "Bundle".into(), name: "web".into(), ..About::default() };
        let causes = vec![
            FieldError::required("spec.image", "name an image"),
            FieldError::duplicate("spec.ports[1].name", "`http` is used twice"),
        ];
        let status = serde_json::to_value(Failure::invalid(about, causes).status()).unwrap();
        assert_eq!(
            status,
            json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                "code": 422, "reason": "Invalid",
                "message": "Bundle \"web\" is invalid: [spec.image: name an image, \
                            spec.ports[1].name: `http` is used twice]",
                "details": {"kind": "Bundle", "name": "web", "causes": [
                    {"reason": "FieldValueRequired", "field": "spec.image", "message": "name an image"},
                    {"reason": "FieldValueDuplicate", "field": "spec.ports[1].name",
                     "message": "`http` is used twice"},
                ]},
            })
        );
    }

    #[test]
    fn a_plain_failure_has_no_details() {
        let status = Failure::new(Reason::Unauthorized, "send a token").status();
        assert_eq!(status.details, None);
        assert_eq!(status.code, Some(401));
    }
}
