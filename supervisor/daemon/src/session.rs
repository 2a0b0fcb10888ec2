//! A command in a container, as the daemon's side sees it: one connection to the helper that systemd
//! starts per session (`berth-exec.socket`), frames in both directions.
//!
//! The daemon itself may not enter a container. Dropping a [`Session`] hangs up, and the helper then
//! kills the command: whoever waits with a time limit needs nothing else to end it.

use std::io;
use std::path::Path;

use berth_model::session::{Begin, Decoder, Frame, Refusal, SessionError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Read at once.
const BUFFER: usize = 16 << 10;

/// A command could not be begun, or the connection to it broke.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The helper does not answer.
    #[error("reaching the helper that runs commands; see `systemctl status berth-exec.socket`")]
    Connect(#[source] io::Error),
    /// The command does not run.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection broke.
    #[error("exchanging data with the helper that runs commands")]
    Exchange(#[source] io::Error),
    /// The other side says what it must not say.
    #[error("understanding the helper that runs commands")]
    Frame(#[source] SessionError),
    /// It went away without telling how the command ended.
    #[error("the helper that runs commands ended without a word; see `journalctl -u 'berth-exec@*'`")]
    Vanished,
}

/// A running command.
#[derive(Debug)]
pub struct Session {
    hearing: Hearing,
    saying: Saying,
}

/// The half that gives output and the end.
#[derive(Debug)]
pub struct Hearing {
    from: OwnedReadHalf,
    decoder: Decoder,
}

/// The half that takes input.
#[derive(Debug)]
pub struct Saying {
    into: OwnedWriteHalf,
}

impl Session {
    /// Begins a command through the helper's socket and comes back when it runs.
    ///
    /// # Errors
    /// [`CommandError`]; `Refused` if the container or the program is not there.
    pub async fn begin(socket: &Path, begin: Begin) -> Result<Self, CommandError> {
        let stream = UnixStream::connect(socket).await.map_err(CommandError::Connect)?;
        Self::over(stream, begin).await
    }

    /// As [`Session::begin`], over a connection that is there.
    ///
    /// # Errors
    /// As [`Session::begin`].
    pub async fn over(stream: UnixStream, begin: Begin) -> Result<Self, CommandError> {
        let (from, into) = stream.into_split();
        let hearing = Hearing { from, decoder: Decoder::default() };
        let mut session = Self { hearing, saying: Saying { into } };
        session.saying.say(&Frame::Begin(begin)).await?;
        match session.hearing.next().await? {
            Frame::Started => Ok(session),
            Frame::Refused(refusal) => Err(CommandError::Refused(refusal)),
            _ => Err(CommandError::Vanished),
        }
    }

    /// Both halves, for those who hear and say at once.
    pub fn split(self) -> (Hearing, Saying) {
        (self.hearing, self.saying)
    }

    /// Hears to the end: the exit code, and the end of what was written, at most `kept` bytes.
    ///
    /// # Errors
    /// [`CommandError`]: the connection broke.
    pub async fn finish(mut self, kept: usize) -> Result<(u8, Vec<u8>), CommandError> {
        let mut said: Vec<u8> = Vec::new();
        loop {
            match self.hearing.next().await? {
                Frame::Ended(code) => return Ok((code, said)),
                Frame::Output(bytes) | Frame::Error(bytes) => {
                    said.extend_from_slice(&bytes);
                    said.drain(..said.len().saturating_sub(kept));
                }
                _ => return Err(CommandError::Vanished),
            }
        }
    }
}

impl Hearing {
    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`CommandError`]: there is none, and there will be none.
    pub async fn next(&mut self) -> Result<Frame, CommandError> {
        let mut bytes = [0; BUFFER];
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(CommandError::Frame)? {
                return Ok(frame);
            }
            match self.from.read(&mut bytes).await.map_err(CommandError::Exchange)? {
                0 => return Err(CommandError::Vanished),
                length => self.decoder.push(bytes.get(..length).unwrap_or_default()),
            }
        }
    }
}

impl Saying {
    /// Sends a frame.
    ///
    /// # Errors
    /// [`CommandError`]: the other side has gone.
    pub async fn say(&mut self, frame: &Frame) -> Result<(), CommandError> {
        let bytes = frame.encode().map_err(CommandError::Frame)?;
        self.into.write_all(&bytes).await.map_err(CommandError::Exchange)
    }
}
