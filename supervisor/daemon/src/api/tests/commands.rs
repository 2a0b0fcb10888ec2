//! `exec` over a real connection: a WebSocket at one end, at the other a helper that follows a script.

use std::io;

use berth_model::session::{Decoder, Frame, Refusal};
use futures_util::SinkExt;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::listen::{self, Door, Handshake, Limits};
use super::websocket::READY;
use super::*;
use crate::session::Session;

/// Services and what comes of a command in them: `web` runs a helper that echoes, `old` has no such
/// program, anything else is not there.
#[derive(Default)]
pub(super) struct FakeCommands {
    asked: Mutex<Vec<CommandRequest>>,
    helper: Mutex<Option<JoinHandle<Vec<Frame>>>>,
}

impl FakeCommands {
    async fn begin(&self, request: CommandRequest) -> Result<Begun, PortError> {
        self.asked.lock().unwrap().push(request.clone());
        match request.bundle.as_str() {
            "web" => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                *self.helper.lock().unwrap() = Some(tokio::spawn(echo(theirs)));
                Ok(Begun::Running(Session::over(ours, Default::default()).await.unwrap()))
            }
            "old" => Ok(Begun::Refused(Refusal { code: 127, message: "no such program".into() })),
            other => Err(PortError::Absent(format!("there is no bundle {other}"))),
        }
    }
}

impl CommandsPort for FakeCommands {
    fn begin(&self, request: CommandRequest) -> BoxFuture<'_, Result<Begun, PortError>> {
        FakeCommands::begin(self, request).boxed()
    }
}

/// Answers input with the same as output, a size as error, and ends with 3 at the end of input. Gives
/// what it heard when the other side hangs up.
async fn echo(mut socket: UnixStream) -> Vec<Frame> {
    let (mut decoder, mut heard, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            let answer = match &frame {
                Frame::Begin(_) => Some(Frame::Started),
                Frame::Input(bytes) => Some(Frame::Output(bytes.clone())),
                Frame::Resize(size) => Some(Frame::Error(format!("{size:?}").into_bytes())),
                Frame::EndOfInput => Some(Frame::Ended(3)),
                _ => None,
            };
            heard.push(frame);
            if let Some(answer) = answer {
                socket.write_all(&answer.encode().unwrap()).await.unwrap();
            }
        }
        match socket.read(&mut bytes).await {
            Ok(length @ 1..) => decoder.push(&bytes[..length]),
            _ => return heard,
        }
    }
}

/// A socket behind which everybody comes from the network.
struct Plain(UnixListener);

impl Door for Plain {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Handshake<UnixStream>, Peer)> {
        let (stream, _) = self.0.accept().await?;
        let peer = Peer::Network("192.0.2.1:40000".parse().unwrap());
        Ok((std::future::ready(Ok(stream)).boxed(), peer))
    }
}

/// Opens a WebSocket at the route; the refusal's code if there is one.
async fn open(world: &World, bundle: &str, query: &str) -> Result<WebSocketStream<UnixStream>, u16> {
    open_at(world, bundle, &format!("{BUNDLES}/{bundle}/exec?{query}")).await
}

async fn open_at(world: &World, bundle: &str, route: &str) -> Result<WebSocketStream<UnixStream>, u16> {
    open_as(world, bundle, route, "v5.channel.k8s.io,v4.channel.k8s.io").await
}

pub(super) async fn open_as(
    world: &World,
    bundle: &str,
    route: &str,
    protocols: &'static str,
) -> Result<WebSocketStream<UnixStream>, u16> {
    let path = world.dir.path().join(format!("{bundle}.sock"));
    let door = Plain(UnixListener::bind(&path).unwrap());
    tokio::spawn(listen::serve(door, world.router.clone(), Limits::default(), world.stop.clone()));
    let mut request = format!("ws://harbour{route}").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocols));
    let stream = UnixStream::connect(&path).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], protocols.split(',').next().unwrap());
            Ok(socket)
        }
        Err(SocketError::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn heard(socket: &mut WebSocketStream<UnixStream>) -> (u8, String) {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return (bytes[0], String::from_utf8_lossy(&bytes[1..]).into_owned()),
            Message::Close(_) => panic!("closed"),
            _ => {}
        }
    }
}

fn says(bytes: &[u8]) -> Message {
    Message::Binary(bytes.to_vec().into())
}

#[tokio::test]
async fn both_directions_a_size_and_the_exit_code_pass() {
    let world = World::new();
    let mut socket =
        open(&world, "web", "command=sh&command=-c&stdin=true&stdout=true&stderr=true&tty=true&user=33").await.unwrap();
    socket.send(says(b"\0hello")).await.unwrap();
    assert_eq!(heard(&mut socket).await, (1, "hello".into()));
    socket.send(says(b"\x04{\"Width\":120,\"Height\":40}")).await.unwrap();
    assert_eq!(heard(&mut socket).await, (2, "Size { rows: 40, columns: 120 }".into()));
    socket.send(says(&[255, 0])).await.unwrap();
    let (channel, status) = heard(&mut socket).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((channel, &status["details"]["causes"][0]["message"]), (3, &json!("3")));
    let Message::Close(Some(last)) = socket.next().await.unwrap().unwrap() else { panic!("no code to the close") };
    assert_eq!(u16::from(last.code), 1000, "kubectl takes anything else for an error");
    let asked = world.commands.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.command, asked.input, asked.user), (vec!["sh".into(), "-c".into()], true, Some("33".into())));
    assert!(asked.terminal.is_some());
}

#[tokio::test]
async fn a_client_that_goes_away_takes_the_command_along() {
    let world = World::new();
    let mut socket = open(&world, "web", "command=sh&stdin=true&stdout=true").await.unwrap();
    socket.send(says(b"\0x")).await.unwrap();
    heard(&mut socket).await;
    drop(socket);
    let helper = world.commands.helper.lock().unwrap().take().unwrap();
    assert!(helper.await.unwrap().contains(&Frame::Input(b"x".to_vec())));
}

#[tokio::test]
async fn commands_are_run_in_a_pod_as_in_its_bundle_and_in_its_only_container() {
    let world = World::new();
    let pod =
        |query: &str| format!("/api/v1/namespaces/default/pods/web/exec?command=sh&stdin=true&stdout=true{query}");
    let mut socket = open_at(&world, "web", &pod("&container=web")).await.unwrap();
    socket.send(says(b"\0hello")).await.unwrap();
    assert_eq!(heard(&mut socket).await, (1, "hello".into()));
    assert_eq!(open_at(&world, "other", &pod("&container=sidecar")).await.unwrap_err(), 400);
}

#[tokio::test]
async fn who_attaches_hears_the_output_from_now_on_and_is_told_when_it_ends() {
    let world = World::new();
    let pod = |name: &str, query: &str| format!("/api/v1/namespaces/default/pods/{name}/attach?stdout=true{query}");
    let mut socket = open_at(&world, "web", &pod("web", "&container=web")).await.unwrap();
    for line in ["one\n", "two\n"] {
        assert_eq!(heard(&mut socket).await, (1, line.into()));
    }
    let asked = world.logs.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.bundle.as_str(), asked.follow, asked.tail_lines), ("web", true, Some(0)));
    assert_eq!(open_at(&world, "input", &pod("web", "&stdin=true")).await.unwrap_err(), 400);
    assert_eq!(open_at(&world, "absent", &pod("absent", "")).await.unwrap_err(), 404);
    world.stop.cancel();
    let (channel, status) = heard(&mut socket).await;
    assert!(channel == 3 && status.contains("the supervisor stops"), "{status}");
}

#[tokio::test]
async fn a_client_that_says_nothing_has_a_moment_to_make_ready_for_what_it_is_told() {
    let world = World::new();
    let asked = std::time::Instant::now();
    let mut socket = open(&world, "old", "command=nope&stdout=true").await.unwrap();
    heard(&mut socket).await;
    assert!(asked.elapsed() >= READY, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_supervisor_that_stops_says_so() {
    let world = World::new();
    let mut socket = open(&world, "web", "command=sh&stdin=true&stdout=true").await.unwrap();
    world.stop.cancel();
    let (channel, status) = heard(&mut socket).await;
    assert!(channel == 3 && status.contains("the supervisor stops"), "{status}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_an_exit_code() {
    let world = World::new();
    let mut socket = open(&world, "old", "command=nope&stdout=true").await.unwrap();
    let (channel, status) = heard(&mut socket).await;
    assert_eq!(channel, 3);
    assert!(status.contains("no such program") && status.contains("127"), "{status}");
}

#[tokio::test]
async fn what_cannot_be_begun_is_refused_before_the_connection_changes() {
    let world = World::new();
    assert_eq!(open(&world, "absent", "command=sh&stdout=true").await.unwrap_err(), 404);
    assert_eq!(open(&world, "a", "stdout=true").await.unwrap_err(), 400);
    assert_eq!(open(&world, "b", "command=sh").await.unwrap_err(), 400);
    let answer = world.post(&format!("{BUNDLES}/web/exec?command=sh&stdout=true"), json!({})).await;
    assert!(answer.failed().2.contains("SPDY is not spoken here"), "{}", answer.failed().2);
}
