//! What is told over a WebSocket with numbered channels, as Kubernetes' clients speak it.
//!
//! ```text
//! channel 0 input   1 output   2 error   3 how it ended, a `Status`   4 size of the terminal
//! v5 also: 255 n, channel n ends
//! ```

use berth_model::session::{Frame, Size};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const INPUT: u8 = 0;
pub(super) const OUTPUT: u8 = 1;
pub(super) const ERROR: u8 = 2;
pub(super) const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

pub(super) fn on(channel: u8, bytes: &[u8]) -> Message {
    let mut all = Vec::with_capacity(1 + bytes.len());
    all.push(channel);
    all.extend_from_slice(bytes);
    Message::Binary(all.into())
}

/// A size as Kubernetes' clients write it.
#[derive(Deserialize)]
struct TerminalSize {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// What a message of the client means; what means nothing is passed over, as Kubernetes does.
pub(super) fn understood(message: &[u8]) -> Option<Frame> {
    match message {
        [INPUT, bytes @ ..] if !bytes.is_empty() => Some(Frame::Input(bytes.to_vec())),
        [CLOSE, INPUT] => Some(Frame::EndOfInput),
        [RESIZE, size @ ..] => {
            let size: TerminalSize = serde_json::from_slice(size).ok()?;
            Some(Frame::Resize(Size { rows: size.height, columns: size.width }))
        }
        _ => None,
    }
}

/// The `Status` that tells of an exit code.
pub(super) fn ended(code: u8) -> Value {
    match code {
        0 => json!({ "metadata": {}, "status": "Success" }),
        code => ended_with(code, &format!("command terminated with non-zero exit code {code}")),
    }
}

pub(super) fn ended_with(code: u8, message: &str) -> Value {
    let cause = json!({ "causes": [{ "reason": "ExitCode", "message": code.to_string() }] });
    failure("NonZeroExitCode", message, cause)
}

pub(super) fn stopping() -> Value {
    let message = "the session was ended: the supervisor stops, or what allowed it was taken back";
    failure("InternalError", message, json!({}))
}

pub(super) fn broken(first: &(dyn std::error::Error + 'static)) -> Value {
    let causes = std::iter::successors(Some(first), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    failure("InternalError", &text, json!({}))
}

fn failure(reason: &str, message: &str, details: Value) -> Value {
    json!({ "metadata": {}, "status": "Failure", "reason": reason, "message": message, "details": details })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_client_are_input_its_end_and_sizes() {
        assert_eq!(understood(b"\0ls\n"), Some(Frame::Input(b"ls\n".to_vec())));
        assert_eq!(understood(&[255, 0]), Some(Frame::EndOfInput));
        let size = Frame::Resize(Size { rows: 40, columns: 120 });
        assert_eq!(understood(b"\x04{\"Width\":120,\"Height\":40}"), Some(size));
        for nothing in [&b""[..], b"\0", b"\x04{", b"\x01x", &[255, 1], &[9, 9]] {
            assert_eq!(understood(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn an_exit_code_is_told_as_kubernetes_does() {
        assert_eq!(ended(0)["status"], "Success");
        let status = ended(3);
        assert_eq!(
            (&status["reason"], &status["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("3"))
        );
    }
}
