//! What a handler gets: who asks for what, and the body as far as it wants it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use berth_model::kinds::Registration;
use berth_model::policy::Subject;
use berth_model::protobuf::{self, ProtobufError};
use berth_model::repeated::{self, Read};
use berth_model::resource::operation::Actor;
use berth_model::status::{About, Reason};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::Authority;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::audit::Trail;
use super::limits::OpenStream;
use super::reply::{Error, Shape};
use crate::auth::Peer;
use crate::auth::client_certificate::Presented;

/// Bytes of a body that is read whole.
pub(super) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Time for such a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// One request that has passed authorization.
pub(super) struct Ask {
    pub(super) api: Arc<Api>,
    pub(super) subject: Subject,
    /// Where it came from.
    pub(super) peer: Peer,
    /// The client certificate that it came with.
    pub(super) presented: Option<Presented>,
    /// What it is recorded as.
    pub(super) trail: Arc<Trail>,
    pub(super) headers: HeaderMap,
    /// How whoever asks calls the machine, if he says so in the target of the request, as with HTTP/2.
    pub(super) authority: Option<Authority>,
    /// Parameters of the path: `namespace`, `name`.
    pub(super) path: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    /// Behind a lock that is never waited for: a body alone could not be shared between threads.
    pub(super) body: Mutex<Body>,
    /// It is counted as open as long as this is kept.
    pub(super) stream: Option<Arc<OpenStream>>,
    /// How the connection becomes something else than HTTP, if it can.
    pub(super) upgrade: Option<OnUpgrade>,
}

impl Ask {
    /// Says when what is open has to end: the daemon stops, or whoever opened it may not have it any more.
    pub(super) fn ending(&self) -> CancellationToken {
        self.stream.as_ref().map_or_else(|| self.api.stop.clone(), |stream| stream.ending.clone())
    }

    /// A parameter of the path; empty if the route has none of that name.
    pub(super) fn segment(&self, name: &str) -> &str {
        find(&self.path, name).unwrap_or("")
    }

    /// `metadata.namespace`; empty for all, or for kinds without.
    pub(super) fn namespace(&self) -> String {
        self.segment("namespace").to_owned()
    }

    /// `metadata.name`; empty for a collection.
    pub(super) fn name(&self) -> String {
        self.segment("name").to_owned()
    }

    /// A parameter of the query; an empty one counts as absent.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        find(&self.query, name).filter(|value| !value.is_empty())
    }

    /// A parameter that is true or false, in any case, as clients in Python write `True`; absent is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        let Some(said) = self.query(name) else { return Ok(false) };
        truth(said).ok_or_else(|| Error::bad_request(format!("{name}={said} is not understood; use true or false")))
    }

    /// A parameter that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let parse =
            |text: &str| text.parse().map_err(|_| Error::bad_request(format!("{name}={text} is not a whole number")));
        self.query(name).map(parse).transpose()
    }

    /// `dryRun=All`.
    pub(super) fn dry_run(&self) -> Result<bool, Error> {
        match self.query("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Error::bad_request(format!("dryRun={other} is not understood; use dryRun=All"))),
        }
    }

    /// Refuses `dryRun` where it cannot be had, so that nobody takes the deed for a rehearsal.
    pub(super) fn no_dry_run(&self) -> Result<(), Error> {
        match self.dry_run()? {
            false => Ok(()),
            true => Err(Error::bad_request("this cannot be tried without doing it; leave dryRun out")),
        }
    }

    /// `container`, where it is said, is the only one that there is: named like the bundle.
    pub(super) fn only_container(&self) -> Result<(), Error> {
        let name = self.segment("name");
        match self.query("container").filter(|container| *container != name) {
            None => Ok(()),
            Some(other) => {
                Err(Error::bad_request(format!("there is no container {other} here; the only one is called {name}")))
            }
        }
    }

    /// How the connection becomes a WebSocket.
    pub(super) fn upgrade(&self) -> Result<OnUpgrade, Error> {
        self.upgrade.clone().ok_or_else(|| Error::bad_request("this connection cannot become a WebSocket"))
    }

    /// The shape in which the client wants objects.
    pub(super) fn shape(&self) -> Shape {
        Shape::wanted(&self.headers, self.query("includeObject"))
    }

    /// On whose behalf something is written, and by what way.
    pub(super) fn actor(&self) -> Actor {
        self.actor_of(self.subject.identity())
    }

    /// The same on behalf of somebody who has just proven who he is.
    pub(super) fn actor_of(&self, identity: &str) -> Actor {
        Actor { identity: identity.to_owned(), source: way(&self.headers).to_owned() }
    }

    /// Who is recorded as the owner of the fields that are written: `fieldManager`, or the program.
    pub(super) fn manager(&self) -> String {
        let agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let program = agent.split(['/', ' ']).next().filter(|program| !program.is_empty());
        self.query("fieldManager").or(program).unwrap_or("unknown").chars().take(128).collect()
    }

    /// The media type of the body, without parameters; JSON if it is not said.
    pub(super) fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = value.and_then(|value| value.split(';').next()).map(str::trim);
        media.unwrap_or("application/json").to_ascii_lowercase()
    }

    /// The body as JSON, with what it says more than once.
    pub(super) async fn json(&mut self) -> Result<Read, Error> {
        let media = self.media_type();
        match media.as_str() {
            "application/json" => self.body_value().await,
            protobuf::MEDIA_TYPE => self.protobuf().await,
            _ => {
                let message = format!("a body of type {media} is not read here; send application/json");
                Err(Error::new(Reason::UnsupportedMediaType, message))
            }
        }
    }

    /// A body as kubectl writes some kinds of Kubernetes' own.
    async fn protobuf(&mut self) -> Result<Read, Error> {
        let read = protobuf::read(&self.bytes().await?);
        let value = read.map_err(|error| {
            let reason = match error {
                ProtobufError::UnknownKind { .. } | ProtobufError::UnknownField { .. } => Reason::UnsupportedMediaType,
                ProtobufError::NoEnvelope | ProtobufError::Garbled { .. } => Reason::BadRequest,
            };
            Error::new(reason, error.to_string())
        })?;
        Ok(Read { value, repeated: Vec::new() })
    }

    /// The same, whatever the body's type is called.
    pub(super) async fn body_value(&mut self) -> Result<Read, Error> {
        repeated::read(&self.bytes().await?).map_err(|error| broken(&error))
    }

    /// The body as JSON of a known shape; absent is the default.
    pub(super) async fn options<T: DeserializeOwned + Default>(&mut self) -> Result<T, Error> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() { Ok(T::default()) } else { parse(&bytes) }
    }

    /// The body as it streams in; empty if it was taken before.
    pub(super) fn take_body(&mut self) -> Body {
        std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// The whole body, within the limit and in time.
    pub(super) async fn bytes(&mut self) -> Result<bytes::Bytes, Error> {
        whole(self.take_body(), BODY_TIME).await
    }
}

async fn whole(body: Body, time: Duration) -> Result<bytes::Bytes, Error> {
    match tokio::time::timeout(time, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {BODY_LIMIT} bytes; send less at once");
            Err(Error::new(Reason::RequestEntityTooLarge, message))
        }
        Ok(Err(error)) => Err(Error::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => Err(Error::new(Reason::Timeout, "the body did not arrive in time; send it again")),
    }
}

/// What a parameter says that is true or false.
pub(super) fn truth(said: &str) -> Option<bool> {
    match said.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// What a failed request was about.
pub(super) fn about(kind: &Registration, name: &str) -> About {
    let (group, kind) = (kind.group.to_owned(), kind.plural.to_owned());
    About { group, kind, name: name.to_owned(), uid: String::new() }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| broken(&error))
}

fn broken(error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    Error::bad_request(format!("the body is not the JSON expected here: {what}, at line {line}, column {column}"))
}

/// By what way a request comes.
pub(super) fn way(headers: &HeaderMap) -> &'static str {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    source_of(header("x-berth-source"), header(USER_AGENT.as_str()).unwrap_or(""))
}

/// By what way: what the client says of itself, as far as it is one of the known ways.
fn source_of(said: Option<&str>, agent: &str) -> &'static str {
    const WAYS: [&str; 5] = ["panel", "cli", "api", "mcp", "schedule"];
    let said = WAYS.into_iter().find(|way| Some(*way) == said);
    said.unwrap_or(if agent.starts_with("berth/") || agent == "berth" { "cli" } else { "api" })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_way_is_what_the_client_says_or_what_its_program_is() {
        assert_eq!(source_of(Some("panel"), "Mozilla/5.0"), "panel");
        assert_eq!(source_of(Some("reconciler"), "curl/8"), "api");
        assert_eq!(source_of(None, "berth/0.1.0"), "cli");
        assert_eq!(source_of(None, "kubectl/v1.32"), "api");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_in_time_is_waited_for_no_longer() {
        let (first, rest) = (Ok::<_, std::io::Error>("{"), futures_util::stream::pending());
        let trickle = Body::from_stream(futures_util::StreamExt::chain(futures_util::stream::iter([first]), rest));
        let error = whole(trickle, Duration::from_millis(10)).await.unwrap_err().status();
        assert_eq!((&error["reason"], &error["code"]), (&Value::from("Timeout"), &Value::from(504)));
    }

    #[test]
    fn broken_json_is_told_with_its_position() {
        let error = parse::<Value>(b"{\n  \"a\": 1,\n}").unwrap_err().status();
        let message = "the body is not the JSON expected here: trailing comma, at line 3, column 1";
        assert_eq!((error["code"].clone(), error["message"].clone()), (400.into(), message.into()));
    }
}
