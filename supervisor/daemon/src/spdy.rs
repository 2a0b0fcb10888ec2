//! Frames of SPDY/3.1 as Kubernetes' clients speak it inside a WebSocket to forward ports: see the draft
//! `draft-mbelshe-httpbis-spdy-00`, sections 2.2 and 2.6. Pure: bytes in, frames out, and back.
//!
//! ```text
//! control   1 | version 15 | type 16 | flags 8 | length 24 | ...
//! data      0 | stream 31            | flags 8 | length 24 | bytes
//! ```
//!
//! The clients that speak it keep no windows, and none are kept here: who does not read is waited for.

mod headers;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use headers::HeaderError;
use headers::{Deflated, Inflated};

const VERSION: u16 = 0x8003;
const STREAM: u32 = 0x7fff_ffff;
const FIN: u8 = 1;
const HEAD: usize = 8;
/// Bytes of a frame: clients write some 32 KiB at a time.
const LONGEST: usize = 1 << 20;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// Status of a stream that was cut off because its client asked for something that is not served.
pub const REFUSED: u32 = 3;

/// What the client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A stream begins.
    Open {
        /// Its number.
        stream: u32,
        /// Names in lower case, and values.
        headers: Vec<(String, String)>,
        /// The client has nothing to send on it.
        end: bool,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// What was sent.
        bytes: Bytes,
        /// It was the last of it.
        end: bool,
    },
    /// The client is no longer interested in a stream.
    Reset(u32),
    /// To be sent back.
    Ping(u32),
    /// No more streams will come.
    GoAway,
}

/// Bytes that are no SPDY.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// Longer than any client writes.
    #[error("a frame of {0} bytes is longer than {LONGEST}")]
    TooLong(usize),
    /// Another version.
    #[error("a frame of another version than SPDY/3")]
    Version,
    /// Too short for its type.
    #[error("a frame of type {0} that ends too early")]
    Short(u16),
    /// The headers of a stream.
    #[error("reading the headers of a stream")]
    Headers(#[from] HeaderError),
}

/// Both directions of one connection.
#[derive(Default)]
pub struct Codec {
    received: BytesMut,
    inflated: Inflated,
    deflated: Deflated,
}

impl Codec {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole frame that says anything.
    ///
    /// # Errors
    /// What came is no SPDY; nothing after it can be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SpdyError> {
        while let Some(mut frame) = self.whole()? {
            let first = frame.get_u32();
            let flags = frame.get_u8();
            frame.advance(3);
            let end = flags & FIN != 0;
            if first & !STREAM == 0 {
                return Ok(Some(Frame::Data { stream: first, bytes: frame.freeze(), end }));
            }
            if first >> 16 != u32::from(VERSION) {
                return Err(SpdyError::Version);
            }
            let kind = u16::try_from(first & 0xffff).unwrap_or_default();
            if let Some(said) = self.control(kind, end, &mut frame)? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    /// Bytes of the next frame, its head included.
    fn whole(&mut self) -> Result<Option<BytesMut>, SpdyError> {
        let Some(length) = self.received.get(5..HEAD) else { return Ok(None) };
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if length > LONGEST {
            return Err(SpdyError::TooLong(length));
        }
        Ok((self.received.len() >= HEAD + length).then(|| self.received.split_to(HEAD + length)))
    }

    /// Settings, windows, and other things that mean nothing here are passed over.
    fn control(&mut self, kind: u16, end: bool, body: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        let mut number = || body.try_get_u32().map(|number| number & STREAM).map_err(|_| SpdyError::Short(kind));
        Ok(match kind {
            SYN_STREAM => {
                let (stream, _associated) = (number()?, number()?);
                // Its priority.
                body.try_get_u16().map_err(|_| SpdyError::Short(kind))?;
                Some(Frame::Open { stream, headers: self.inflated.read(body)?, end })
            }
            RST_STREAM => Some(Frame::Reset(number()?)),
            PING => Some(Frame::Ping(body.try_get_u32().map_err(|_| SpdyError::Short(kind))?)),
            GO_AWAY => Some(Frame::GoAway),
            _ => None,
        })
    }

    /// A stream of the client's is taken, without a header to say about it.
    ///
    /// # Errors
    /// The library that packs headers has failed.
    pub fn reply(&mut self, stream: u32) -> Result<Bytes, SpdyError> {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.extend_from_slice(&self.deflated.none()?);
        Ok(control_frame(SYN_REPLY, &body))
    }
}

/// Bytes of a stream, the last of them if it ends.
pub fn data(stream: u32, bytes: &[u8], end: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + bytes.len());
    frame.put_u32(stream);
    frame.put_u8(if end { FIN } else { 0 });
    put_length(&mut frame, bytes.len());
    frame.extend_from_slice(bytes);
    frame.freeze()
}

/// Nothing more of a stream.
pub fn reset(stream: u32, status: u32) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(stream);
    body.put_u32(status);
    control_frame(RST_STREAM, &body)
}

/// The answer to a ping.
pub fn pong(id: u32) -> Bytes {
    control_frame(PING, &id.to_be_bytes())
}

fn control_frame(kind: u16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + body.len());
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    frame.put_u8(0);
    put_length(&mut frame, body.len());
    frame.extend_from_slice(body);
    frame.freeze()
}

fn put_length(frame: &mut BytesMut, length: usize) {
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()[1..]);
}

#[cfg(test)]
pub mod tests;
