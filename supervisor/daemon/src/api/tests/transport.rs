//! The wire under those who mean no good: who sends a head byte by byte, takes all connections, or speaks old TLS.

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_tests::{python, spawn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connections::Listening;
use super::listen::{Limits, serve_tls_within};
use super::*;
use crate::auth::ca::{Authority, Names, ServerCertificate};

/// A listener with TLS that bears little.
struct Narrow {
    world: World,
    address: SocketAddr,
    connector: TlsConnector,
}

impl Narrow {
    async fn new(limits: Limits) -> Self {
        let world = World::new();
        let now = Timestamp::from_second(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed()).unwrap();
        let authority = Arc::new(Authority::open_or_create(world.dir.path(), now).unwrap());
        let connector = connector(authority.certificate_pem());
        let certificate = ServerCertificate::open(authority, &Names::of("harbour", []), now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = certificate.tls().unwrap();
        tokio::spawn(serve_tls_within(limits, listener, tls, world.router.clone(), world.stop.clone()));
        Self { world, address, connector }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        connected(&self.connector, self.address, Ipv4Addr::LOCALHOST).await.unwrap()
    }
}

fn connector(authority: &str) -> TlsConnector {
    // Fails only if a test before has done it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A connection from one of the addresses that this machine calls itself by.
async fn connected(connector: &TlsConnector, to: SocketAddr, from: Ipv4Addr) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(to).await?;
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Sends `first`, then pieces for ever, and reads until the other side has had enough.
async fn dribble(stream: impl AsyncRead + AsyncWrite, first: &[u8], piece: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let (first, piece) = (first.to_vec(), piece.to_vec());
    let sending = async move {
        let mut sent = to.write_all(&first).await;
        while sent.is_ok() {
            sent = to.write_all(&piece).await.and(to.flush().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut answer = Vec::new();
        // A connection that breaks off has ended as well.
        drop(from.read_to_end(&mut answer).await);
        answer
    };
    let ended = async {
        tokio::select! { answer = reading => answer, () = sending => unreachable!() }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the connection is still held")
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn preface() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

#[tokio::test]
async fn whoever_sends_a_head_byte_by_byte_is_waited_for_no_longer() {
    let short = Duration::from_millis(200);
    let narrow = Narrow::new(Limits { head: short, ping: short, ..Limits::default() }).await;
    dribble(narrow.connect().await, b"GET /livez HTTP/1.1\r\nx: ", b"a").await;
    dribble(narrow.connect().await, b"", b"P").await;
    dribble(narrow.connect().await, &preface(), b"").await;
    // A block of headers of HTTP/2 that never ends.
    let endless = [preface(), frame(HEADERS, 0, 1, &[0x82])].concat();
    dribble(narrow.connect().await, &endless, &frame(CONTINUATION, 0, 1, &[])).await;
    // The handshake itself.
    dribble(TcpStream::connect(narrow.address).await.unwrap(), &[22, 3, 1, 64, 0], &[0]).await;
}

#[tokio::test]
async fn whoever_is_refused_before_all_he_sends_has_come_is_answered_and_may_ask_again() {
    let narrow = Narrow::new(Limits::default()).await;
    let mut stream = narrow.connect().await;
    let head = "POST /api/v1/namespaces/default/secrets HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Long enough for the refusal.
    for _ in 0..20 {
        dribble(narrow.connect().await, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"")
            .await;
    }
    stream.write_all(&vec![b' '; 3_000_000]).await.unwrap();
    let again = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let said = String::from_utf8(dribble(stream, again, b"").await).unwrap();
    assert!(said.starts_with("HTTP/1.1 401") && said.contains("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn whoever_asks_nothing_is_not_waited_for_as_long_as_one_who_has_asked() {
    let narrow = Narrow::new(Limits { head: Duration::from_millis(200), ..Limits::default() }).await;
    let answer = dribble(narrow.connect().await, b"", b"").await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn an_archive_that_trickles_in_is_ended_and_one_that_comes_in_bursts_is_not() {
    let least = (10, Duration::from_millis(100));
    let piece = |text: &'static str| Ok(Bytes::from(text));
    let drop_by_drop = futures_util::stream::iter([piece("a")]).chain(futures_util::stream::pending());
    let all: Vec<_> = stream::brisk(drop_by_drop.boxed(), least).collect().await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].as_ref().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let later = async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        piece("the rest")
    };
    let bursts = futures_util::stream::iter([piece("twenty bytes at once")]).chain(futures_util::stream::once(later));
    let all: Vec<_> = stream::brisk(bursts.boxed(), least).collect().await;
    assert!(all.len() == 2 && all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let narrow = Narrow::new(Limits { of_address: 2, ..Limits::default() }).await;
    let held = [narrow.connect().await, narrow.connect().await];
    let third = connected(&narrow.connector, narrow.address, Ipv4Addr::LOCALHOST).await;
    assert!(third.is_err(), "a third connection from one address was let in");
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    connected(&narrow.connector, narrow.address, elsewhere).await.unwrap();
    drop(held);
    // What has ended makes room, as soon as it is noticed.
    while connected(&narrow.connector, narrow.address, Ipv4Addr::LOCALHOST).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn local_root_is_served_when_the_network_has_taken_all_there_is() {
    let narrow = Narrow::new(Limits { connections: 1, ..Limits::default() }).await;
    let socket = narrow.world.dir.path().join("api.sock");
    let unix = bind_socket(&socket).unwrap();
    tokio::spawn(serve_socket(unix, narrow.world.router.clone(), narrow.world.stop.clone()));
    let _held = narrow.connect().await;
    let mut local = UnixStream::connect(&socket).await.unwrap();
    local.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    local.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

/// So many are held at the same time.
const IDLE: usize = 10_000;
/// Where those who hold them find the listener and its authority.
const ORDERS: &str = "BERTH_IDLE_ORDERS";

fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = IDLE as u64 + 1000;
    let hard = hard.max(wanted);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
        .expect("this test opens 10,000 files; allow more: ulimit -Hn 65536");
}

/// Reads frames, answers pings as every client does, and tells of the first answer.
async fn idle(mut stream: TlsStream<TcpStream>, answered: tokio::sync::oneshot::Sender<()>) -> std::io::Result<()> {
    let mut answered = Some(answered);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        match (head[3], head[4] & 1) {
            (PING, 0) => stream.write_all(&frame(PING, 1, 0, &payload)).await?,
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            (HEADERS, _) => drop(answered.take().map(|answered| answered.send(()))),
            _ => {}
        }
        stream.flush().await?;
    }
}

/// Opens all, each with one request that is answered, says how many, and holds them until its own input ends.
#[test]
#[ignore = "is started by the test below"]
fn holders() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(hold(&serde_json::from_str(&orders).unwrap()));
}

async fn hold(orders: &(SocketAddr, String)) {
    let (connector, open) = (connector(&orders.1), Arc::new(AtomicUsize::new(0)));
    // GET /livez, in the table of HPACK and as literals.
    let request = [&[0x82, 0x87, 0x04, 6][..], b"/livez", &[0x01, 1], b"x"].concat();
    let hello = [preface(), frame(HEADERS, 5, 1, &request)].concat();
    let one = |number: usize| {
        let (connector, hello, open, to) = (connector.clone(), hello.clone(), open.clone(), orders.0);
        async move {
            let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 500 + 1).unwrap());
            let mut stream = connected(&connector, to, from).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            stream.flush().await.unwrap();
            let (answered, first) = tokio::sync::oneshot::channel();
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                drop(idle(stream, answered).await);
                open.fetch_sub(1, Ordering::SeqCst);
            });
            first.await.unwrap();
        }
    };
    futures_util::stream::iter(0..IDLE).map(one).buffer_unordered(64).collect::<()>().await;
    println!("\nopen {}", open.load(Ordering::SeqCst));
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    println!("\nopen {}", open.load(Ordering::SeqCst));
}

fn holders_process(orders: &(SocketAddr, String)) -> std::process::Child {
    let name = format!("{}::holders", module_path!().split_once("::").unwrap().1);
    let mut command = spawn::command(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--ignored", "--nocapture"]).env(ORDERS, serde_json::to_string(orders).unwrap());
    spawn::start(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap()
}

/// The next time the holders say how many are open.
fn told(lines: &mut std::io::Lines<std::io::BufReader<std::process::ChildStdout>>) -> String {
    lines.map(Result::unwrap).find(|line| line.starts_with("open ")).expect("the holders have ended")
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_held_while_others_are_served() {
    allow_many_files();
    let listening = Listening::new().await;
    let before = resident();
    let mut holders = holders_process(&(listening.address, listening.authority.clone()));
    let mut lines = std::io::BufReader::new(holders.stdout.take().unwrap()).lines();
    let (mut lines, all) =
        tokio::task::spawn_blocking(move || (told(&mut lines), lines)).await.map(|(a, b)| (b, a)).unwrap();
    assert_eq!(all, format!("open {IDLE}"));
    println!("{} KiB for each", resident().saturating_sub(before) / IDLE as u64);
    let client = listening.client("localhost");
    for _ in 0..10 {
        let answer = client.get(listening.url("localhost", CONFIG_MAPS)).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let local = listening.local("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(local.starts_with("HTTP/1.1 "), "{local}");
    drop(holders.stdin.take());
    let still = tokio::task::spawn_blocking(move || told(&mut lines)).await.unwrap();
    assert_eq!(still, format!("open {IDLE}"));
    holders.wait().unwrap();
}

/// What is looked for.
const SCANS: &str = "--certinfo --sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression --reneg --heartbleed \
    --openssl_ccs --robot --early_data --ems";

/// What a scanner finds out about a listener.
async fn scanned(listening: &Listening) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), &listening.authority).unwrap();
    let program = tokio::task::spawn_blocking(|| python::with(&["sslyze==6.3.1"])).await.unwrap().unwrap();
    let mut command = spawn::command(program);
    command.current_dir(folder.path()).args(["-m", "sslyze", "--certinfo_ca_file", "ca.crt", "--json_out", "out.json"]);
    command.args(["--mozilla_config", "disable"]);
    command.args(SCANS.split(' ')).arg(format!("localhost:{}", listening.address.port()));
    tokio::task::spawn_blocking(move || spawn::output(&mut command))
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{error}"));
    let told = std::fs::read(folder.path().join("out.json")).unwrap();
    serde_json::from_slice::<Value>(&told).unwrap()["server_scan_results"][0].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scanner_finds_no_old_tls_no_weak_cipher_and_a_sound_chain() {
    let found = scanned(&Listening::new().await).await;
    let result = |of: &str| found["scan_result"][of]["result"].clone();
    let ciphers = |version: &str| -> Vec<String> {
        let accepted = result(&format!("{version}_cipher_suites"))["accepted_cipher_suites"].take();
        let name = |one: &Value| one["cipher_suite"]["name"].as_str().unwrap().to_owned();
        accepted.as_array().unwrap_or_else(|| panic!("{version} was not looked at: {found}")).iter().map(name).collect()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(ciphers(old), Vec::<String>::new(), "{old}");
    }
    let good = |name: &String| name.contains("_GCM_") || name.contains("_CHACHA20_");
    let (second, third) = (ciphers("tls_1_2"), ciphers("tls_1_3"));
    assert!(!second.is_empty() && second.iter().all(|name| good(name) && name.starts_with("TLS_ECDHE_")), "{second:?}");
    assert!(!third.is_empty() && third.iter().all(good), "{third:?}");
    assert_eq!(result("tls_compression")["supports_compression"], false);
    // What is sent early can be sent again by whoever has seen it.
    assert_eq!(result("tls_1_3_early_data")["supports_early_data"], false);
    assert_eq!(result("session_renegotiation")["client_renegotiations_success_count"], 0);
    assert_eq!(result("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"], false);
    assert_eq!(result("tls_extended_master_secret")["supports_ems_extension"], true);
    assert_eq!(result("heartbleed")["is_vulnerable_to_heartbleed"], false);
    assert_eq!(result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], false);
    let chains = result("certificate_info")["certificate_deployments"].take();
    for chain in chains.as_array().unwrap() {
        let by_ours = chain["path_validation_results"].as_array().unwrap().iter();
        let by_ours = by_ours.filter(|one| one["trust_store"]["name"] == "Supplied CA file").collect::<Vec<_>>();
        assert_eq!((by_ours.len(), &by_ours[0]["validation_error"]), (1, &Value::Null));
        assert_eq!(by_ours[0]["verified_certificate_chain"].as_array().unwrap().len(), 2);
        assert_eq!(chain["received_chain_has_valid_order"], true);
        assert_eq!(chain["verified_chain_has_sha1_signature"], false);
    }
}
