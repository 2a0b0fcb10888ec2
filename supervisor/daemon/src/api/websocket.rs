//! WebSockets with numbered channels, as Kubernetes' clients speak them: how one is opened and how it ends.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use berth_model::status::Reason;
use futures_util::stream::{Peekable, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::channels::{STATUS, on};
use super::reply::{Error, Reply};

/// Between looks whether the client is still there.
pub(super) const PING: Duration = Duration::from_secs(30);
/// Without any word from it, an answer to a look included, it is not.
pub(super) const SILENCE: Duration = Duration::from_secs(90);
/// For the client to take the last words.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);
/// For a client to be ready for what it is told. kubectl 1.30 to 1.33 drops, without an error, what comes before it has
/// made the streams for it (kubernetes/kubernetes#131189). A client that speaks is ready.
pub(super) const READY: Duration = Duration::from_millis(100);

/// What of a WebSocket's opening the answer is made from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    key: Vec<u8>,
    protocol: &'static str,
}

/// The protocols spoken here, the better one first.
pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

impl Handshake {
    /// `protocols` are those that are spoken, the better one first.
    pub(super) fn of(headers: &HeaderMap, protocols: &[&'static str]) -> Result<Self, Error> {
        let says = |name: http::HeaderName, word: &str| {
            let all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            all.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
        };
        if !says(UPGRADE, "websocket") {
            let message = "this is spoken over a WebSocket (`Upgrade: websocket`); SPDY is not spoken here. \
                           `berth exec` and kubectl 1.30 or later do so";
            return Err(Error::bad_request(message));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| says(CONNECTION, "upgrade"));
        let key =
            key.ok_or_else(|| Error::bad_request("the opening of the WebSocket lacks `Connection` or its key"))?;
        let protocol = protocols.iter().copied().find(|one| says(SEC_WEBSOCKET_PROTOCOL, one)).ok_or_else(|| {
            Error::bad_request(format!("Sec-WebSocket-Protocol must offer one of {}", protocols.join(", ")))
        })?;
        Ok(Self { key: key.as_bytes().to_vec(), protocol })
    }

    /// Whether this is what was agreed upon.
    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocol == protocol
    }

    pub(super) fn answer(&self) -> Reply {
        let broken = |_| Error::new(Reason::InternalError, "the WebSocket could not be opened");
        let accept = HeaderValue::from_str(&derive_accept_key(&self.key)).map_err(broken)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        Ok(response)
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;
/// The half that tells.
pub(super) type Sink = SplitSink<Socket, Message>;
/// The half that hears.
pub(super) type Stream = Peekable<SplitStream<Socket>>;

/// The other side of the handshake once it is ready, if the client is still there.
pub(super) async fn open(upgrade: OnUpgrade) -> Option<(Sink, Stream)> {
    match upgrade.await {
        Ok(upgraded) => {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let (sink, stream) = socket.split();
            let mut stream = stream.peekable();
            // Who says nothing until then is taken to be ready, too.
            let spoke = timeout(READY, Pin::new(&mut stream).peek()).await.is_ok();
            tracing::trace!(spoke, "a client is taken to be ready");
            Some((sink, stream))
        }
        Err(error) => {
            tracing::debug!(%error, "a client left while its WebSocket was opened");
            None
        }
    }
}

/// Waits until the client closes its side.
pub(super) async fn gone(stream: &mut Stream) {
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Close(_) = message {
            return;
        }
    }
}

/// A close without a code is an error to kubectl.
fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// The end of what has no last word. A client that is gone already does not miss it.
pub(super) async fn goodbye(sink: &mut Sink) {
    if let Err(error) = sink.send(close()).await {
        tracing::trace!(%error, "a client left before the end");
    }
}

/// The last word, and then waiting until the client has taken it: closing a connection with unread
/// input would take back what is still on its way.
pub(super) async fn farewell(
    sink: &mut Sink,
    stream: &mut Stream,
    status: &Value,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    sink.send(on(STATUS, status.to_string().as_bytes())).await?;
    sink.send(close()).await?;
    let gone = async { while let Some(Ok(_)) = stream.next().await {} };
    // A client that does not close is left after a while; it has been told everything.
    let _: Result<(), tokio::time::error::Elapsed> = timeout(FAREWELL, gone).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_newer_of_the_offered_protocols_is_spoken() {
        let offer = |protocols| {
            let offered = headers(&[
                ("upgrade", "WebSocket"),
                ("connection", "keep-alive, Upgrade"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-protocol", protocols),
            ]);
            Handshake::of(&offered, &PROTOCOLS)
                .map(|shake| shake.protocol)
                .map_err(|error| error.status()["code"].clone())
        };
        assert_eq!(offer("v4.channel.k8s.io, v5.channel.k8s.io"), Ok("v5.channel.k8s.io"));
        assert_eq!(offer("v4.channel.k8s.io"), Ok("v4.channel.k8s.io"));
        assert_eq!(offer("v3.channel.k8s.io"), Err(json!(400)));
    }

    #[test]
    fn spdy_is_refused_with_a_word_about_what_is_spoken() {
        let spdy = headers(&[("upgrade", "SPDY/3.1"), ("connection", "Upgrade")]);
        let status = Handshake::of(&spdy, &PROTOCOLS).unwrap_err().status();
        assert!(status["message"].as_str().unwrap().contains("SPDY is not spoken here"), "{status}");
    }
}
