//! One request as a plain value, so that it can be compared, sent, or printed as a command.

use std::path::PathBuf;

use reqwest::{Method, Url};
use serde_json::Value;

/// Accepts a plain JSON answer.
pub const JSON: &str = "application/json";
/// Accepts a table, or plain JSON where the server has none.
pub const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json";
/// The content type of an RFC 7386 patch.
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// What to ask of the server. The address and the login are the transport's.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The verb.
    pub method: Method,
    /// Segments of the path, not escaped.
    pub path: Vec<String>,
    /// Parameters, not escaped.
    pub query: Vec<(String, String)>,
    /// Value of `Accept`.
    pub accept: &'static str,
    /// Value of `Idempotency-Key`: the server does it once, however often it is sent.
    pub idempotency_key: Option<String>,
    /// What is sent along.
    pub body: Body,
}

/// What is sent along with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// A JSON document.
    Json(Value),
    /// An RFC 7386 patch.
    MergePatch(Value),
    /// A form, encoded.
    Form(String),
    /// A tar archive, streamed.
    Archive(Archive),
}

/// Where a streamed archive comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// A tar file.
    File(PathBuf),
    /// A directory, packed on the way.
    Directory(PathBuf),
    /// Standard input.
    Stdin,
}

impl Body {
    /// The content type, if there is content.
    pub fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::Empty => None,
            Self::Json(_) => Some(JSON),
            Self::MergePatch(_) => Some(MERGE_PATCH),
            Self::Form(_) => Some("application/x-www-form-urlencoded"),
            Self::Archive(_) => Some("application/x-tar"),
        }
    }
}

impl Request {
    /// A request without body for a path of segments joined by `/`.
    pub fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            accept: JSON,
            idempotency_key: None,
            body: Body::Empty,
        }
    }

    /// Reads what lies at the path.
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// With one more path segment.
    #[must_use]
    pub fn below(mut self, segment: &str) -> Self {
        self.path.push(segment.to_owned());
        self
    }

    /// With one more parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// With one more parameter, if there is a value for it.
    #[must_use]
    pub fn query_if(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// With another `Accept`.
    #[must_use]
    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// With an idempotency key.
    #[must_use]
    pub fn once(mut self, key: String) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// The address at a server, escaped.
    pub fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        // A base that cannot have a path was refused by `Server::choose`.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parameters_are_escaped() {
        let base = Url::parse("https://box:6443/").unwrap();
        let request = Request::get(&["api", "v1", "a b?"]).query("labelSelector", "app in (a,b)");
        let url = request.url(&base);
        assert_eq!(url.as_str(), "https://box:6443/api/v1/a%20b%3F?labelSelector=app+in+%28a%2Cb%29");
    }
}
