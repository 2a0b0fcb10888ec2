//! `portforward` over a real connection: a client that speaks SPDY in a WebSocket at one end, a real listener at the other.

use std::collections::BTreeMap;

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::commands::open_as;
use super::views::bundle_at;
use super::*;
use crate::spdy::tests::Client;
use crate::spdy::{Codec, Frame, data, pong};

/// A client with an open session, and what it has heard and not looked at.
struct Forward {
    socket: WebSocketStream<UnixStream>,
    packed: Client,
    heard: Codec,
}

impl Forward {
    async fn begin(world: &World, bundle: &str) -> Result<Self, u16> {
        let route = format!("/api/v1/namespaces/default/pods/{bundle}/portforward");
        let socket = open_as(world, bundle, &route, "SPDY/3.1+portforward.k8s.io").await?;
        Ok(Self { socket, packed: Client::default(), heard: Codec::default() })
    }

    async fn say(&mut self, frame: Bytes) {
        self.socket.send(Message::Binary(frame)).await.unwrap();
    }

    /// Both streams of a connection, of which the second carries its bytes.
    async fn connect(&mut self, first: u32, port: u16) {
        let (port, request) = (port.to_string(), first.to_string());
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request.as_str())];
        let error = self.packed.open(first, &headers("error"), true);
        self.say(error).await;
        let data = self.packed.open(first + 2, &headers("data"), false);
        self.say(data).await;
    }

    /// The next frame that is no reply.
    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.heard.next_frame().unwrap() {
                return frame;
            }
            match self.socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => self.heard.push(&bytes),
                Message::Close(_) => panic!("closed"),
                _ => {}
            }
        }
    }

    /// All that comes on both streams of a connection until both have ended.
    async fn rest(&mut self, first: u32) -> (String, String) {
        let (mut told, mut bytes, mut ended) = (String::new(), String::new(), 0);
        while ended < 2 {
            if let Frame::Data { stream, bytes: piece, end } = self.next().await {
                let text = if stream == first { &mut told } else { &mut bytes };
                text.push_str(std::str::from_utf8(&piece).unwrap());
                ended += u8::from(end);
            }
        }
        (told, bytes)
    }
}

#[tokio::test]
async fn a_connection_carries_both_directions_and_its_end() {
    let world = World::new();
    bundle_at(&world, "web", "127.0.0.1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        socket.read_to_string(&mut asked).await.unwrap();
        socket.write_all(format!("you said {asked}").as_bytes()).await.unwrap();
    });
    let mut forward = Forward::begin(&world, "web").await.unwrap();
    forward.connect(1, port).await;
    forward.say(data(3, b"hello ", false)).await;
    forward.say(data(3, b"there", true)).await;
    assert_eq!(forward.rest(1).await, (String::new(), "you said hello there".to_owned()));
    service.await.unwrap();
    forward.say(pong(5)).await;
    assert_eq!(forward.next().await, Frame::Ping(5));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_and_the_next_connection_is_made() {
    let world = World::new();
    bundle_at(&world, "web", "127.0.0.1").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut forward = Forward::begin(&world, "web").await.unwrap();
    forward.connect(1, closed).await;
    let (told, bytes) = forward.rest(1).await;
    assert!(told.contains(&format!("port {closed} failed")) && told.contains("refused"), "{told}");
    assert_eq!(bytes, "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    forward.connect(5, listener.local_addr().unwrap().port()).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.write_all(b"welcome").await.unwrap();
    drop(socket);
    assert_eq!(forward.rest(5).await, (String::new(), "welcome".to_owned()));
}

#[tokio::test]
async fn a_connection_that_its_client_gives_up_is_closed_and_told_over() {
    let world = World::new();
    bundle_at(&world, "web", "127.0.0.1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut forward = Forward::begin(&world, "web").await.unwrap();
    forward.connect(1, listener.local_addr().unwrap().port()).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    forward.say(crate::spdy::reset(3, 5)).await;
    assert_eq!(forward.rest(1).await, (String::new(), String::new()));
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0);

    forward.connect(5, listener.local_addr().unwrap().port()).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    drop(forward);
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or_default(), 0, "a client that goes takes its connections along");
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_refused() {
    let world = World::new();
    assert_eq!(Forward::begin(&world, "absent").await.err(), Some(404));
    bundle_at(&world, "web", "127.0.0.1").await;
    let mut forward = Forward::begin(&world, "web").await.unwrap();
    let stray = forward.packed.open(9, &[("streamtype", "data"), ("port", "1"), ("requestid", "none")], false);
    forward.say(stray).await;
    assert_eq!(forward.next().await, Frame::Reset(9));
    forward.say(Bytes::from_static(&[0x80, 2, 0, 1, 0, 0, 0, 0])).await;
    assert!(forward.socket.next().await.is_none_or(|last| last.is_err()), "nonsense ends the session");
}

/// A client that names its ports beforehand; what came on each channel until the end.
async fn by_channels(world: &World, ports: &str, said: &'static [u8]) -> Result<BTreeMap<u8, Vec<u8>>, u16> {
    let route = format!("/api/v1/namespaces/default/pods/web/portforward?ports={ports}");
    let mut socket = open_as(world, ports, &route, "v4.channel.k8s.io").await?;
    socket.send(Message::Binary(Bytes::from_static(said))).await.unwrap();
    let mut came = BTreeMap::<u8, Vec<u8>>::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            came.entry(bytes[0]).or_default().extend(&bytes[1..]);
        }
    }
    Ok(came)
}

#[tokio::test]
async fn libraries_name_their_ports_beforehand_and_each_has_two_channels() {
    let world = World::new();
    bundle_at(&world, "web", "127.0.0.1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let service = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = [0; 5];
        socket.read_exact(&mut asked).await.unwrap();
        socket.write_all(b"hello to you").await.unwrap();
    });
    let came = by_channels(&world, &format!("{closed},{open}"), b"\x02hello").await.unwrap();
    service.await.unwrap();
    assert_eq!(came.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (channel, port) in [(0, closed), (1, closed), (2, open), (3, open)] {
        assert!(came[&channel].starts_with(&port.to_le_bytes()), "channel {channel}: {:?}", came[&channel]);
    }
    assert_eq!(&came[&2][2..], b"hello to you");
    let why = String::from_utf8_lossy(&came[&1][2..]);
    assert!(why.contains(&format!("port {closed} failed")) && why.contains("refused"), "{why}");
    assert_eq!((came[&0].len(), came[&3].len()), (2, 2));
    assert_eq!(by_channels(&world, "http", b"").await.unwrap_err(), 400);
}
