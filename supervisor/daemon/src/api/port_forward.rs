//! `portforward`: connections to ports of a running service, over a WebSocket that carries SPDY, as Kubernetes' clients
//! ask for it.
//!
//! ```text
//! client ── SPDY in WebSocket ──► Session ──┬─ connection ──► address of the bundle : port
//!                                           └─ connection ──► ...
//! ```
//!
//! A connection is two streams with one `requestid`: one for its bytes, and one on which it is told why there is no
//! connection, or nothing, when it is over. Who does not read is waited for: a connection that is not read from holds up
//! those beside it, as everywhere where this is spoken.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use berth_model::resource::Bundle;
use berth_model::status::Reason;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::reply::{Error, Reply};
use super::request::Ask;
use super::websocket::{Handshake, PING, SILENCE, Sink, Stream, open};
use crate::spdy::{self, Codec, Frame, SpdyError};

/// What the client asks for.
const PROTOCOLS: [&str; 1] = ["SPDY/3.1+portforward.k8s.io"];
/// Frames that wait for one side or the other.
const QUEUE: usize = 16;
/// Bytes read at a time.
const PIECE: usize = 32 << 10;
/// Connections of one client at a time.
const MOST: usize = 256;
/// For a service to take a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET .../pods/{name}/portforward`.
pub(super) async fn port_forward(ask: Ask) -> Reply {
    let shake = Handshake::of(&ask.headers, &PROTOCOLS)?;
    let address = address(&ask).await?;
    let (who, namespace, name) = (ask.subject.identity(), ask.namespace(), ask.name());
    tracing::info!(who, namespace, bundle = name, "port-forward");
    let (upgrade, stop, session) = (ask.upgrade()?, ask.api.stop.clone(), ask.api.metrics.session_opened());
    tokio::spawn(async move {
        if let Some((sink, stream)) = open(upgrade).await {
            serve(sink, stream, address, stop).await;
        }
        drop(session);
    });
    shake.answer()
}

/// The bundle's own address, which leads to the revision that serves.
async fn address(ask: &Ask) -> Result<IpAddr, Error> {
    let (namespace, name) = (ask.namespace(), ask.name());
    let of = name.clone();
    let found = ask.api.store.read(move |tx| tx.get::<Bundle>(&namespace, &of)).await?;
    let status = found.and_then(|bundle| bundle.status).filter(|status| status.unit.is_some());
    let address = status.and_then(|status| status.address?.parse().ok());
    address.ok_or_else(|| {
        Error::new(Reason::NotFound, format!("{name} is not running; start it, or look at `berth status`"))
    })
}

async fn serve(sink: Sink, stream: Stream, address: IpAddr, stop: CancellationToken) {
    let (say, said) = channel(QUEUE);
    let session = Session { address, say, codec: Codec::default(), told: HashMap::new(), open: HashMap::new() };
    tokio::select! {
        () = write(sink, said) => {}
        ended = session.run(stream) => {
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "a client of port-forward is not understood");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// Until the client is gone.
async fn write(mut sink: Sink, mut said: Receiver<Bytes>) {
    let mut look = interval_at(Instant::now() + PING, PING);
    loop {
        let message = tokio::select! {
            frame = said.recv() => match frame {
                Some(frame) => Message::Binary(frame),
                None => return,
            },
            _ = look.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
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
        let connection = Connection { to: SocketAddr::new(self.address, port), stream, tell, say: self.say.clone() };
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

/// Nobody listens any more once the client is gone, and then all of this is about to end.
async fn say(to: &Sender<Bytes>, frame: Bytes) {
    if to.send(frame).await.is_err() {
        tracing::trace!("a client of port-forward left before the last word");
    }
}

struct Connection {
    to: SocketAddr,
    stream: u32,
    tell: u32,
    say: Sender<Bytes>,
}

impl Connection {
    /// Until either side is done; then it is told that it is over, and why if it never was a connection.
    async fn run(self, inputs: Receiver<Bytes>, over: CancellationToken) {
        let done = tokio::select! {
            done = self.carry(inputs) => done,
            () = over.cancelled() => Ok(()),
        };
        let why = done.err().map(|error| format!("the connection to port {} failed: {error}", self.to.port()));
        over.cancel();
        say(&self.say, spdy::data(self.stream, b"", true)).await;
        say(&self.say, spdy::data(self.tell, why.unwrap_or_default().as_bytes(), true)).await;
    }

    async fn carry(&self, inputs: Receiver<Bytes>) -> io::Result<()> {
        let connected = timeout(PATIENCE, TcpStream::connect(self.to)).await;
        let (read, write) = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.into_split();
        let forth = async {
            forth(inputs, write).await?;
            // The service may have more to say after the client has said all.
            std::future::pending().await
        };
        tokio::select! {
            done = forth => done,
            done = self.back(read) => done,
        }
    }

    async fn back(&self, mut read: OwnedReadHalf) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            match read.read(&mut piece).await? {
                0 => return Ok(()),
                length => say(&self.say, spdy::data(self.stream, &piece[..length], false)).await,
            }
        }
    }
}

async fn forth(mut inputs: Receiver<Bytes>, mut write: OwnedWriteHalf) -> io::Result<()> {
    while let Some(bytes) = inputs.recv().await {
        write.write_all(&bytes).await?;
    }
    write.shutdown().await
}
