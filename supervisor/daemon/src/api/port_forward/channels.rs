//! As libraries ask for it: the ports are named beforehand, and each has one connection, which is made at once.
//!
//! ```text
//! channel 2n      the bytes of the n-th port's connection
//! channel 2n + 1  why there is none
//! ```
//!
//! The first that is told on each channel is its port, two bytes, the lower one first. When all connections are over,
//! the WebSocket is.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{Connection, QUEUE, Words, say, write};
use crate::api::reply::Error;
use crate::api::request::Ask;
use crate::api::websocket::{FAREWELL, SILENCE, Sink, Stream, gone};

/// Its name in the handshake.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";
/// Ports of one client.
const MOST: usize = 64;

/// `ports=80&ports=443`, or `ports=80,443`.
pub(super) fn ports(ask: &Ask) -> Result<Vec<u16>, Error> {
    let said = ask.query.iter().filter(|(name, _)| name == "ports");
    parse(said.flat_map(|(_, value)| value.split(',')))
}

fn parse<'t>(words: impl Iterator<Item = &'t str>) -> Result<Vec<u16>, Error> {
    let port = |word: &str| word.parse().ok().filter(|port| *port != 0);
    let ports: Option<Vec<u16>> = words.map(port).collect();
    ports.filter(|ports| (1..=MOST).contains(&ports.len())).ok_or_else(|| {
        Error::bad_request(format!("say which ports, at most {MOST}: ?ports=<number>&ports=<number>..."))
    })
}

pub(super) async fn serve(sink: Sink, stream: Stream, address: IpAddr, ports: &[u16]) {
    let (say, said) = channel(QUEUE);
    // Both come to an end: the writer when nobody is left who says something, the other one when the client is gone.
    tokio::join!(write(sink, said), run(stream, address, ports, say));
}

async fn run(mut stream: Stream, address: IpAddr, ports: &[u16], say: Sender<Bytes>) {
    let mut connections = JoinSet::new();
    let mut inputs = Vec::new();
    for (number, port) in (0..).zip(ports) {
        let channels = Channels(number);
        channels.begin(*port, &say).await;
        let (input, rest) = channel(QUEUE);
        let connection = Connection { to: SocketAddr::new(address, *port), words: channels, say: say.clone() };
        connections.spawn(connection.run(rest, CancellationToken::new()));
        inputs.push(input);
    }
    drop(say);
    tokio::select! {
        () = hear(&mut stream, &inputs) => return,
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
    // A client that does not close is left after a while; it has been told everything.
    let _: Result<(), tokio::time::error::Elapsed> = timeout(FAREWELL, gone(&mut stream)).await;
}

/// Until the client is gone.
async fn hear(stream: &mut Stream, inputs: &[Sender<Bytes>]) {
    while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
        match message {
            Message::Binary(bytes) => pass(inputs, bytes).await,
            Message::Close(_) => return,
            _ => {}
        }
    }
}

/// From the client to a connection; what comes for one that has ended, or for none, is dropped.
async fn pass(inputs: &[Sender<Bytes>], message: Bytes) {
    let Some((channel, bytes)) = message.split_first().map(|(channel, _)| (*channel, message.slice(1..))) else {
        return;
    };
    let input = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0 && !bytes.is_empty());
    if let Some(input) = input
        && input.send(bytes).await.is_err()
    {
        tracing::trace!(channel, "bytes came for a connection that is over");
    }
}

/// The channels of the n-th port.
struct Channels(u8);

impl Channels {
    async fn begin(&self, port: u16, to: &Sender<Bytes>) {
        for channel in [self.0 * 2, self.0 * 2 + 1] {
            say(to, on(channel, &port.to_le_bytes())).await;
        }
    }
}

impl Words for Channels {
    fn bytes(&self, bytes: &[u8]) -> Bytes {
        on(self.0 * 2, bytes)
    }

    fn over(&self, why: Option<String>) -> Vec<Bytes> {
        why.map(|why| on(self.0 * 2 + 1, why.as_bytes())).into_iter().collect()
    }
}

fn on(channel: u8, bytes: &[u8]) -> Bytes {
    let mut all = BytesMut::with_capacity(1 + bytes.len());
    all.put_u8(channel);
    all.put_slice(bytes);
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_there_is_at_least_one() {
        let of = |words: &[&str]| parse(words.iter().copied()).ok();
        assert_eq!(of(&["80", "443"]), Some(vec![80, 443]));
        for wrong in [&[][..], &["http"], &["80", ""], &["0"], &["65536"], &["1"; 65]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_ports_connection_has_one_channel_for_bytes_and_one_for_why_there_is_none() {
        let second = Channels(1);
        assert_eq!(second.bytes(b"ab"), &[2, b'a', b'b'][..]);
        assert_eq!(second.over(Some("no".into())), [Bytes::from_static(&[3, b'n', b'o'])]);
        assert!(second.over(None).is_empty());
    }

    #[tokio::test]
    async fn bytes_go_to_the_connection_of_their_channel_and_others_are_dropped() {
        let (first, mut at_first) = channel(4);
        let (second, mut at_second) = channel(4);
        for message in [&[0, b'a'][..], &[2, b'b'], &[3, b'c'], &[4, b'd'], &[2], &[]] {
            pass(&[first.clone(), second.clone()], Bytes::from_static(message)).await;
        }
        assert_eq!((at_first.try_recv().unwrap(), at_second.try_recv().unwrap()), ("a".into(), "b".into()));
        assert!(at_first.try_recv().is_err() && at_second.try_recv().is_err());
    }
}
