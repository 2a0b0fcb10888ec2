//! `portforward`: connections to ports of a running service, in both ways that Kubernetes' clients ask for it.
//!
//! ```text
//! kubectl ──── SPDY in WebSocket ──────────────► streams ──┐
//!                                                          ├─ connections ──► address of the bundle : port
//! libraries ── WebSocket of numbered channels ─► channels ─┘
//! ```
//!
//! Who does not read is waited for: a connection that is not read from holds up those beside it, as everywhere where
//! this is spoken.

mod channels;
mod streams;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use berth_model::resource::Bundle;
use berth_model::status::Reason;
use bytes::Bytes;
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::reply::{Error, Reply};
use super::request::Ask;
use super::websocket::{Handshake, PING, Sink, goodbye, open};

/// What clients ask for, the better one first.
const PROTOCOLS: [&str; 2] = [streams::PROTOCOL, channels::PROTOCOL];
/// Messages that wait for one side or the other.
const QUEUE: usize = 16;
/// Bytes read at a time.
const PIECE: usize = 32 << 10;
/// For a service to take a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET .../pods/{name}/portforward`.
pub(super) async fn port_forward(ask: Ask) -> Reply {
    let shake = Handshake::of(&ask.headers, &PROTOCOLS)?;
    let ports = if shake.speaks(channels::PROTOCOL) { Some(channels::ports(&ask)?) } else { None };
    let address = address(&ask).await?;
    let (who, namespace, name) = (ask.subject.identity(), ask.namespace(), ask.name());
    tracing::info!(who, namespace, bundle = name, "port-forward");
    let (upgrade, stop, session) =
        (ask.upgrade()?, ask.ending(), (ask.api.metrics.session_opened(), ask.stream.clone()));
    tokio::spawn(async move {
        if let Some((sink, stream)) = open(upgrade).await {
            let serve = async {
                match ports {
                    Some(ports) => channels::serve(sink, stream, address, &ports).await,
                    None => streams::serve(sink, stream, address).await,
                }
            };
            stop.run_until_cancelled(serve).await;
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

/// Until the client is gone, or nobody has anything to say any more.
async fn write(mut sink: Sink, mut said: Receiver<Bytes>) {
    let mut look = interval_at(Instant::now() + PING, PING);
    loop {
        let message = tokio::select! {
            message = said.recv() => match message {
                Some(message) => Message::Binary(message),
                None => return goodbye(&mut sink).await,
            },
            _ = look.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// Nobody listens any more once the client is gone, and then all of this is about to end.
async fn say(to: &Sender<Bytes>, message: Bytes) {
    if to.send(message).await.is_err() {
        tracing::trace!("a client of port-forward left before the last word");
    }
}

/// How a connection is spoken of to the client.
trait Words {
    /// What the service said.
    fn bytes(&self, bytes: &[u8]) -> Bytes;
    /// It is over; why, if there never was a connection.
    fn over(&self, why: Option<String>) -> Vec<Bytes>;
}

struct Connection<W> {
    to: SocketAddr,
    words: W,
    say: Sender<Bytes>,
}

impl<W: Words> Connection<W> {
    /// Until either side is done; then it is told that it is over.
    async fn run(self, inputs: Receiver<Bytes>, over: CancellationToken) {
        let done = tokio::select! {
            done = self.carry(inputs) => done,
            () = over.cancelled() => Ok(()),
        };
        let why = done.err().map(|error| format!("the connection to port {} failed: {error}", self.to.port()));
        over.cancel();
        for last in self.words.over(why) {
            say(&self.say, last).await;
        }
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
                length => say(&self.say, self.words.bytes(&piece[..length])).await,
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
