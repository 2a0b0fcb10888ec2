//! The frames between the harness and the agent in the guest, over one virtio-serial port.
//!
//! A port is a bare byte pipe that outlives both its ends: a client may die in the middle of a frame, and a saved
//! machine wakes up with another client. So every frame starts with a mark and names the session it belongs to: a
//! reader skips to the next mark, and drops frames of sessions that are not its own. A session begins with `Hello`
//! from the client, answered by `Hello`; within it, streams (one per command) are numbered by the client.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// No frame carries more than this.
pub const MOST: usize = 32 * 1024;
/// How many ports a machine has, and so how many clients at once.
pub const PORTS: usize = 6;
const MARK: [u8; 4] = *b"\xb5Br1";
const HEAD: usize = 17;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: a new session; all that an older one started is ended. Agent: ready.
    Hello,
    /// Client: start a command; the body is a [`Start`] as JSON.
    Start,
    /// Client: bytes for its standard input.
    Input,
    /// Client: no more input.
    InputEnd,
    /// Client: send this signal (one byte) to its process group.
    Signal,
    /// Agent: bytes of its standard output.
    Output,
    /// Agent: bytes of its standard error.
    Error,
    /// Agent: it ended; the body is an [`Ended`] as JSON. Last frame of the stream.
    Ended,
}

const KINDS: [Kind; 8] =
    [Kind::Hello, Kind::Start, Kind::Input, Kind::InputEnd, Kind::Signal, Kind::Output, Kind::Error, Kind::Ended];

/// A command line, run as root with an environment of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments; the program is looked up in PATH.
    pub argv: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// Its exit code.
    Code(i32),
    /// The signal that killed it.
    Signal(i32),
    /// It never ran.
    NotStarted(String),
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Chosen by the client.
    pub session: u32,
    /// The command it is about; 0 for `Hello`.
    pub stream: u32,
    /// What it says.
    pub kind: Kind,
    /// At most [`MOST`] bytes.
    pub body: Vec<u8>,
}

/// Writes one frame in one call.
pub fn send(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD + frame.body.len());
    let kind = KINDS.iter().position(|kind| *kind == frame.kind).unwrap_or_default();
    bytes.extend(MARK);
    bytes.extend(frame.session.to_le_bytes());
    bytes.extend(frame.stream.to_le_bytes());
    bytes.push(u8::try_from(kind).unwrap_or_default());
    bytes.extend(u32::try_from(frame.body.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(&frame.body);
    to.write_all(&bytes)
}

/// Reads the next whole frame, skipping what is none. `UnexpectedEof` when the other end is gone.
pub fn receive(from: &mut impl Read) -> io::Result<Frame> {
    loop {
        skip_to_mark(from)?;
        let mut head = [0; HEAD - MARK.len()];
        from.read_exact(&mut head)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = word(9) as usize;
        if let Some(kind) = KINDS.get(usize::from(head[8])).copied()
            && length <= MOST
        {
            let mut body = vec![0; length];
            from.read_exact(&mut body)?;
            return Ok(Frame { session: word(0), stream: word(4), kind, body });
        }
    }
}

fn skip_to_mark(from: &mut impl Read) -> io::Result<()> {
    let mut seen = [0; MARK.len()];
    while seen != MARK {
        seen.rotate_left(1);
        from.read_exact(&mut seen[MARK.len() - 1..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_after_half_a_frame() {
        let whole = Frame { session: 7, stream: 3, kind: Kind::Output, body: b"\xb5Br page".to_vec() };
        let mut bytes = Vec::new();
        send(&mut bytes, &whole).unwrap();
        bytes.truncate(bytes.len() - 5);
        bytes.extend([0; 5]);
        send(&mut bytes, &whole).unwrap();
        let mut from = bytes.as_slice();
        assert_ne!(receive(&mut from).unwrap(), whole);
        assert_eq!(receive(&mut from).unwrap(), whole);
        assert_eq!(receive(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
