//! What passes between the daemon and `berth-run session` while a command runs in a container.
//!
//! ```text
//! daemon:  Begin ─ (Input | EndOfInput | Resize)*          and hangs up to end the command
//! run:     Started ─ (Output | Error)* ─ Ended             or Refused, instead of Started
//! ```
//!
//! Each frame is one byte of kind, four of length (most significant first), and that many bytes. All
//! of it goes through one local socket, so that command and environment are in no argument list.

use serde::{Deserialize, Serialize};

/// A frame's bytes are no more than this; larger ones are a fault of the writer.
pub const LARGEST: usize = 1 << 20;
/// Bytes before the content: kind and length.
const HEAD: usize = 5;

/// What is to be run, where, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begin {
    /// Container id, `<namespace>.<bundle>.r<revision>`.
    pub id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Size>,
    /// Whether input will come; without it the command reads an empty one.
    #[serde(default)]
    pub input: bool,
    /// As in an image's configuration; absent is the container's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// More environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Why a command did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusal {
    /// 127: no such program; 126: it cannot be run; 125: anything else.
    pub code: u8,
    /// For people.
    pub message: String,
}

/// One thing said by one side to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first word of the daemon.
    Begin(Begin),
    /// For the command's standard input.
    Input(Vec<u8>),
    /// There will be no more input.
    EndOfInput,
    /// The terminal has another size now.
    Resize(Size),
    /// The command runs.
    Started,
    /// It does not.
    Refused(Refusal),
    /// From standard output, or from the terminal.
    Output(Vec<u8>),
    /// From standard error.
    Error(Vec<u8>),
    /// The command's exit code, 128 and more for a signal; the last word.
    Ended(u8),
}

/// What came is no frame.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No such kind.
    #[error("a frame of kind {0} is not known")]
    Kind(u8),
    /// Larger than [`LARGEST`].
    #[error("a frame says that it has {0} bytes, which is more than any has")]
    Length(usize),
    /// The content is not what the kind says.
    #[error("a frame of kind {0} cannot be read")]
    Content(u8, #[source] serde_json::Error),
}

impl Frame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// A text in it cannot be written as JSON, which none of the types here allows.
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let (kind, content) = match self {
            Self::Begin(begin) => (1, json(1, begin)?),
            Self::Input(bytes) => (2, bytes.clone()),
            Self::EndOfInput => (3, Vec::new()),
            Self::Resize(size) => (4, json(4, size)?),
            Self::Started => (5, Vec::new()),
            Self::Refused(refusal) => (6, json(6, refusal)?),
            Self::Output(bytes) => (7, bytes.clone()),
            Self::Error(bytes) => (8, bytes.clone()),
            Self::Ended(code) => (9, vec![*code]),
        };
        let length = u32::try_from(content.len()).ok().filter(|_| content.len() <= LARGEST);
        let length = length.ok_or(SessionError::Length(content.len()))?;
        let mut bytes = Vec::with_capacity(HEAD + content.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&content);
        Ok(bytes)
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, SessionError> {
        let bad = |source| SessionError::Content(kind, source);
        Ok(match kind {
            1 => Self::Begin(serde_json::from_slice(content).map_err(bad)?),
            2 => Self::Input(content.to_vec()),
            3 => Self::EndOfInput,
            4 => Self::Resize(serde_json::from_slice(content).map_err(bad)?),
            5 => Self::Started,
            6 => Self::Refused(serde_json::from_slice(content).map_err(bad)?),
            7 => Self::Output(content.to_vec()),
            8 => Self::Error(content.to_vec()),
            9 => Self::Ended(content.first().copied().unwrap_or_default()),
            kind => return Err(SessionError::Kind(kind)),
        })
    }
}

fn json(kind: u8, value: &impl Serialize) -> Result<Vec<u8>, SessionError> {
    serde_json::to_vec(value).map_err(|source| SessionError::Content(kind, source))
}

/// Puts frames together from pieces as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Vec<u8>,
}

impl Decoder {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// What came is none; nothing after it can be read either.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SessionError> {
        let Some((head, rest)) = self.held.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, a, b, c, d] = *head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(SessionError::Length(length));
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(kind, content)?;
        self.held.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let size = Size { rows: 40, columns: 120 };
        vec![
            Frame::Begin(Begin {
                id: "default.web.r1".into(),
                command: vec!["sh".into(), "-c".into(), "ä\n".into()],
                terminal: Some(size),
                input: true,
                user: Some("33".into()),
                env: vec!["A=1".into()],
            }),
            Frame::Input(vec![0, 255]),
            Frame::EndOfInput,
            Frame::Resize(size),
            Frame::Started,
            Frame::Refused(Refusal { code: 127, message: "no such program".into() }),
            Frame::Output(Vec::new()),
            Frame::Error(b"x".to_vec()),
            Frame::Ended(137),
        ]
    }

    #[test]
    fn frames_arrive_as_they_were_sent_however_they_are_cut() {
        let bytes: Vec<u8> = all().iter().flat_map(|frame| frame.encode().unwrap()).collect();
        for piece in [1, 3, 7, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, all());
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_not_waited_for() {
        let read = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame()
        };
        assert!(matches!(read(&[77, 0, 0, 0, 0]), Err(SessionError::Kind(77))));
        assert!(matches!(read(&[2, 255, 0, 0, 0]), Err(SessionError::Length(_))));
        assert!(matches!(read(&[4, 0, 0, 0, 1, b'{']), Err(SessionError::Content(4, _))));
        assert!(matches!(read(&[2, 0, 0, 0, 9, 1]), Ok(None)));
    }

    #[test]
    fn a_frame_that_is_too_large_is_not_written() {
        assert!(Frame::Input(vec![0; LARGEST + 1]).encode().is_err());
    }
}
