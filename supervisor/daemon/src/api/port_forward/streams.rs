//! As kubectl asks for it: SPDY in a WebSocket, with as many connections as the client begins.
//!
//! A connection is two streams with one `requestid`: one for its bytes, and one on which it is told why there is no
//! connection, or nothing, when it is over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{Connection, QUEUE, Words, say, write};
use crate::api::websocket::{SILENCE, Sink, Stream};
use crate::spdy::{self, Codec, Frame, SpdyError};

/// Its name in the handshake.
pub(super) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Connections of one client at a time.
const MOST: usize = 256;

pub(super) async fn serve(sink: Sink, stream: Stream, address: IpAddr) {
    let (say, said) = channel(QUEUE);
    let session = Session { address, say, codec: Codec::default(), told: HashMap::new(), open: HashMap::new() };
    tokio::select! {
        () = write(sink, said) => {}
        ended = session.run(stream) => {
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "a client of port-forward is not understood");
            }
        }
    }
}

/// The streams of a connection.
struct Streams {
    bytes: u32,
    told: u32,
}

impl Words for Streams {
    fn bytes(&self, bytes: &[u8]) -> Bytes {
        spdy::data(self.bytes, bytes, false)
    }

    fn over(&self, why: Option<String>) -> Vec<Bytes> {
        vec![spdy::data(self.bytes, b"", true), spdy::data(self.told, why.unwrap_or_default().as_bytes(), true)]
    }
}

/// A connection's other end, here.
struct Open {
    input: Sender<Bytes>,
    over: CancellationToken,
}

/// All connections of one client.
struct Session {
    address: IpAddr,
    say: Sender<Bytes>,
    codec: Codec,
    /// Streams for what is to be told, by the request that they belong to.
    told: HashMap<String, u32>,
    /// Connections by the stream of their bytes.
    open: HashMap<u32, Open>,
}

impl Session {
    /// Until the client goes or says what is not understood; its connections end with it.
    async fn run(mut self, mut stream: Stream) -> Result<(), SpdyError> {
        let mut connections = JoinSet::new();
        while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
            match message {
                Message::Binary(bytes) => self.codec.push(&bytes),
                Message::Close(_) => return Ok(()),
                _ => continue,
            }
            while let Some(frame) = self.codec.next_frame()? {
                self.take(frame, &mut connections).await?;
            }
            while connections.try_join_next().is_some() {}
            self.open.retain(|_, one| !one.over.is_cancelled());
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame, connections: &mut JoinSet<()>) -> Result<(), SpdyError> {
        match frame {
            Frame::Open { stream, headers, .. } => self.begin(stream, &headers, connections).await?,
            Frame::Data { stream, bytes, end } => self.pass(stream, bytes, end).await,
            Frame::Reset(stream) => {
                if let Some(one) = self.open.remove(&stream) {
                    one.over.cancel();
                }
            }
            Frame::Ping(id) => self.say(spdy::pong(id)).await,
            Frame::GoAway => {}
        }
        Ok(())
    }

    async fn begin(
        &mut self,
        stream: u32,
        headers: &[(String, String)],
        connections: &mut JoinSet<()>,
    ) -> Result<(), SpdyError> {
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        let request = header("requestid").to_owned();
        match (header("streamtype"), header("port").parse()) {
            ("error", _) if self.told.len() < MOST => {
                let reply = self.codec.reply(stream)?;
                self.told.insert(request, stream);
                self.say(reply).await;
            }
            ("data", Ok(port)) if self.open.len() < MOST && self.told.contains_key(&request) => {
                let reply = self.codec.reply(stream)?;
                self.say(reply).await;
                let tell = self.told.remove(&request).unwrap_or_default();
                self.connect(stream, tell, port, connections);
            }
            _ => self.say(spdy::reset(stream, spdy::REFUSED)).await,
        }
        Ok(())
    }

    fn connect(&mut self, stream: u32, tell: u32, port: u16, connections: &mut JoinSet<()>) {
        let (input, inputs) = channel(QUEUE);
        let over = CancellationToken::new();
        let (to, words) = (SocketAddr::new(self.address, port), Streams { bytes: stream, told: tell });
        let connection = Connection { to, words, say: self.say.clone() };
        self.open.insert(stream, Open { input, over: over.clone() });
        connections.spawn(async move { connection.run(inputs, over).await });
    }

    /// From the client to a connection; what comes for one that has ended is dropped.
    async fn pass(&mut self, stream: u32, bytes: Bytes, end: bool) {
        let Some(one) = self.open.get(&stream) else { return };
        let gone = !bytes.is_empty() && one.input.send(bytes).await.is_err();
        if end || gone {
            self.open.remove(&stream);
        }
    }

    async fn say(&self, frame: Bytes) {
        say(&self.say, frame).await;
    }
}
