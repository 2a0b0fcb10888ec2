//! A command in a service, over a WebSocket with numbered channels (`v5.channel.k8s.io`), as the
//! server of any Kubernetes speaks it. What the channels are connected to is the caller's.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use reqwest::Upgraded;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::error::told;

/// The protocol asked for.
pub const PROTOCOL: &str = "v5.channel.k8s.io";

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What comes from the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// From its standard output, or its terminal.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// How it ended.
    Ended(End),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its exit code; absent if the server could not run it to its end.
    pub code: Option<u8>,
    /// What the server says about it.
    pub message: String,
}

/// The half that hears.
#[derive(Debug)]
pub struct Hearing(SplitStream<WebSocketStream<Upgraded>>);

/// The half that says.
#[derive(Debug)]
pub struct Saying(SplitSink<WebSocketStream<Upgraded>, Message>);

/// Both halves of an opened socket.
pub fn halves(socket: WebSocketStream<Upgraded>) -> (Hearing, Saying) {
    let (sink, stream) = socket.split();
    (Hearing(stream), Saying(sink))
}

impl Hearing {
    /// The next thing heard, or `None` if the connection ended without a word about the command.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Heard>, SocketError> {
        while let Some(message) = self.0.next().await {
            if let Message::Binary(bytes) = message?
                && let Some(heard) = understood(&bytes)
            {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }
}

impl Saying {
    /// Input for the command.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn input(&mut self, bytes: &[u8]) -> Result<(), SocketError> {
        self.say(&[&[INPUT], bytes].concat()).await
    }

    /// There is no more input.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn end_of_input(&mut self) -> Result<(), SocketError> {
        self.say(&[CLOSE, INPUT]).await
    }

    /// The terminal has this size now.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<(), SocketError> {
        let size = json!({ "Width": columns, "Height": rows }).to_string();
        self.say(&[&[RESIZE], size.as_bytes()].concat()).await
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), SocketError> {
        self.0.send(Message::Binary(bytes.to_vec().into())).await
    }
}

fn understood(message: &[u8]) -> Option<Heard> {
    match message {
        [OUTPUT, bytes @ ..] => Some(Heard::Output(bytes.to_vec())),
        [ERROR, bytes @ ..] => Some(Heard::Error(bytes.to_vec())),
        [STATUS, status @ ..] => Some(Heard::Ended(end(&serde_json::from_slice(status).unwrap_or_default()))),
        _ => None,
    }
}

fn end(status: &Status) -> End {
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.find_map(|cause| cause.message.as_deref()?.parse().ok());
    match status.status.as_deref() {
        Some("Success") => End { code: Some(0), message: String::new() },
        _ => End { code, message: told(status) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_at_the_end_holds_the_exit_code() {
        let heard = |text: &str| understood(&[&[STATUS], text.as_bytes()].concat());
        assert_eq!(
            heard(r#"{"metadata":{},"status":"Success"}"#),
            Some(Heard::Ended(End { code: Some(0), message: String::new() }))
        );
        let failed = r#"{"status":"Failure","reason":"NonZeroExitCode","message":"it ended with 3",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(heard(failed), Some(Heard::Ended(End { code: Some(3), message: "it ended with 3".into() })));
        let broken = r#"{"status":"Failure","reason":"InternalError","message":"the helper is gone"}"#;
        assert_eq!(heard(broken), Some(Heard::Ended(End { code: None, message: "the helper is gone".into() })));
    }

    #[test]
    fn channels_that_are_not_known_are_passed_over() {
        assert_eq!(understood(&[9, 1]), None);
        assert_eq!(understood(&[]), None);
        assert_eq!(understood(&[ERROR, b'x']), Some(Heard::Error(b"x".to_vec())));
    }
}
