//! Real sockets: TLS with our own authority, HTTP/1.1 and 2, and the unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::listen::Limits;
use super::*;
use crate::auth::ca::{Authority, Names, ServerCertificate};

/// A world that listens.
pub(super) struct Listening {
    pub(super) world: World,
    pub(super) address: SocketAddr,
    pub(super) socket: PathBuf,
    certificate: ServerCertificate,
    pub(super) authority: String,
    serving: JoinHandle<()>,
}

fn names() -> Names {
    Names::of("harbour", [])
}

impl Listening {
    pub(super) async fn new() -> Self {
        let world = World::new();
        let now = Timestamp::from_second(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed()).unwrap();
        let authority = Arc::new(Authority::open_or_create(world.dir.path(), now).unwrap());
        let pem = authority.certificate_pem().to_owned();
        let certificate = ServerCertificate::open(authority, &names(), now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = world.dir.path().join("api.sock");
        let unix = bind_socket(&socket).unwrap();
        let tls = serve_tls(listener, certificate.tls().unwrap(), world.router.clone(), world.stop.clone());
        let local = serve_socket(unix, world.router.clone(), world.stop.clone());
        let serving = tokio::spawn(async move {
            tokio::join!(tls, local);
        });
        Self { world, address, socket, certificate, authority: pem, serving }
    }

    pub(super) fn client(&self, name: &str) -> reqwest::Client {
        self.builder(name).build().unwrap()
    }

    fn builder(&self, name: &str) -> reqwest::ClientBuilder {
        // Fails only if a test before has done it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let authority = reqwest::Certificate::from_pem(self.authority.as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([authority]).resolve(name, self.address)
    }

    /// Whoever has this key and certificate.
    pub(super) fn holder(&self, pem: &str) -> reqwest::Client {
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        self.builder("localhost").identity(identity).build().unwrap()
    }

    pub(super) fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.address.port())
    }

    /// One request over the unix socket, as text.
    pub(super) async fn local(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_client_that_trusts_our_authority_reaches_the_api_by_each_name_over_http_2() {
    let listening = Listening::new().await;
    for name in ["localhost", "harbour", "harbour.local", "127.0.0.1"] {
        let request = listening.client(name).get(listening.url(name, "/version")).bearer_auth(TOKEN);
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2), "{name}");
    }
    let other = listening.client("elsewhere").get(listening.url("elsewhere", "/version")).send().await;
    assert!(other.is_err(), "a name that the certificate does not say was accepted");
}

#[tokio::test]
async fn the_chain_ends_in_our_authority_and_in_no_other() {
    let listening = Listening::new().await;
    drop(rustls::crypto::ring::default_provider().install_default());
    let stranger = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    assert!(stranger.get(listening.url("127.0.0.1", "/livez")).send().await.is_err());
}

#[tokio::test]
async fn the_network_needs_a_token_and_local_root_needs_none() {
    let listening = Listening::new().await;
    let client = listening.client("localhost");
    let url = listening.url("localhost", CONFIG_MAPS);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(client.get(&url).bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    let answer = listening.local(&format!("GET {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    let root = nix::unistd::geteuid().is_root();
    assert!(answer.starts_with(if root { "HTTP/1.1 200 " } else { "HTTP/1.1 403 " }), "{answer}");
}

#[tokio::test]
async fn the_socket_is_for_root_alone_and_takes_the_place_of_one_left_over() {
    use std::os::unix::fs::PermissionsExt;
    let listening = Listening::new().await;
    let mode = || std::fs::metadata(&listening.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let again = bind_socket(&listening.socket).unwrap();
    assert_eq!(mode(), 0o600);
    drop(again);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_connection() {
    let listening = Listening::new().await;
    let before = listening.certificate.facts();
    let renamed = Names::of("lighthouse", []);
    let now = before.from + jiff::SignedDuration::from_hours(48);
    assert!(listening.certificate.renew(&renamed, now).unwrap().is_some());
    let answer = listening.client("lighthouse").get(listening.url("lighthouse", "/livez")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok\n");
}

#[tokio::test]
async fn a_watch_over_the_wire_tells_what_happens() {
    let listening = Listening::new().await;
    let client = listening.client("localhost");
    let url = listening.url("localhost", &format!("{CONFIG_MAPS}?watch=true"));
    let mut answer = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
    listening.world.config_map("web", json!({})).await;
    let line = answer.chunk().await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((event["type"].clone(), event["object"]["metadata"]["name"].clone()), ("ADDED".into(), "web".into()));
}

#[tokio::test]
async fn noise_in_the_place_of_a_handshake_costs_that_connection_only() {
    let listening = Listening::new().await;
    let mut noise = TcpStream::connect(listening.address).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    noise.read_to_end(&mut rest).await.ok();
    let answer = listening.client("localhost").get(listening.url("localhost", "/livez")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn stopping_ends_the_watches_and_then_the_listeners() {
    let listening = Listening::new().await;
    let client = listening.client("localhost");
    let url = listening.url("localhost", &format!("{CONFIG_MAPS}?watch=true"));
    let mut answer = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
    listening.world.stop.cancel();
    let event: Value = serde_json::from_slice(&answer.chunk().await.unwrap().unwrap()).unwrap();
    assert_eq!(event["object"]["code"], 503);
    while let Some(rest) = answer.chunk().await.unwrap() {
        assert_eq!(rest, "");
    }
    drop((answer, client));
    listening.serving.await.unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err());
}

/// A listener on a unix socket that bears little.
async fn narrow(limits: Limits) -> (World, PathBuf) {
    let world = World::new();
    let socket = world.dir.path().join("api.sock");
    let listener = bind_socket(&socket).unwrap();
    tokio::spawn(listen::serve(listener, world.router.clone(), limits, world.stop.clone()));
    (world, socket)
}

/// Sends bytes and reads until `end` has come, or the other side has closed.
async fn exchange(stream: &mut UnixStream, bytes: &str, end: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut piece = [0; 1024];
    while end.is_empty() || !text.ends_with(end) {
        let reading = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut piece));
        match reading.await.expect("nothing came").unwrap() {
            0 => break,
            length => text.push_str(std::str::from_utf8(&piece[..length]).unwrap()),
        }
    }
    text
}

/// What the answer to [`LIVEZ`] ends with: root is told, others are refused.
fn end() -> &'static str {
    if nix::unistd::geteuid().is_root() { "\n" } else { "}" }
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_beyond_the_cap_waits_for_one_to_end() {
    let (_world, socket) = narrow(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = UnixStream::connect(&socket).await.unwrap();
    let served = exchange(&mut first, LIVEZ, end()).await;
    assert!(served.starts_with("HTTP/1.1 "), "{served}");
    let mut second = UnixStream::connect(&socket).await.unwrap();
    second.write_all(LIVEZ.as_bytes()).await.unwrap();
    // The first is still served, while the second has got nothing.
    exchange(&mut first, LIVEZ, end()).await;
    let nothing = second.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    let served = exchange(&mut second, "", end()).await;
    assert!(served.starts_with("HTTP/1.1 "), "{served}");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let (_world, socket) = narrow(Limits { head: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let answer = exchange(&mut stream, "GET /livez HTTP/1.1\r\n", "").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends() {
    let (_world, socket) = narrow(Limits { idle: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let answer = exchange(&mut stream, LIVEZ, "").await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

#[tokio::test]
async fn a_watch_outlives_the_quiet_of_its_connection() {
    let idle = Duration::from_millis(100);
    let (world, socket) = narrow(Limits { idle, ..Limits::default() }).await;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let watch = format!("GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n");
    let watching = exchange(&mut stream, &watch, "\r\n\r\n").await;
    assert!(watching.starts_with("HTTP/1.1 200"), "{watching}");
    // A second connection goes the whole way into its idle end; by then the first has been told too.
    let mut other = UnixStream::connect(&socket).await.unwrap();
    exchange(&mut other, LIVEZ, "").await;
    world.config_map("web", json!({})).await;
    let event = exchange(&mut stream, "", "}\n\r\n").await;
    assert!(event.contains("\"ADDED\""), "{event}");
}
