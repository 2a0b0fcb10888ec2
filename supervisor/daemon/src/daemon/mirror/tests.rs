use std::sync::{Arc, Mutex};

use berth_model::resource::audit_record::{Deed, DeedResult};
use berth_model::resource::settings::{SyslogMirror, SyslogTransport};
use k8s_openapi::api::core::v1::Event;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

mod git;

use super::*;

/// A receiver with its records.
struct Mirror<R>(R, Records);

impl<R: Receiver> Mirror<R> {
    async fn advance(&self) -> Result<(), MirrorError> {
        self.0.advance(&self.1).await
    }
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = Arc::new(|| "2026-03-01T12:00:00.1234567Z".parse().unwrap());
        let store = Store::open(&dir.path().join("berth.db"), clock).unwrap();
        Self { dir, store }
    }

    fn mirror(&self) -> Mirror<Syslog> {
        let syslog = Syslog { file: self.dir.path().join("syslog.json"), hostname: "box".into() };
        Mirror(syslog, Records { store: self.store.clone() })
    }

    async fn set(&self, syslog: SyslogMirror) {
        let write = move |tx: &mut Tx<'_>| {
            let mut settings = tx.get::<Settings>("", settings::NAME)?.unwrap();
            settings.spec.audit.mirror.syslog = Some(syslog);
            tx.update(&settings).map(drop)
        };
        self.store.write(&Actor::default(), write).await.unwrap();
    }

    async fn deed(&self, name: &str, result: DeedResult) {
        let deed =
            Deed { identity: "user:alice".into(), verb: "create".into(), name: name.into(), result, ..Deed::default() };
        self.store.write(&Actor::default(), move |tx| tx.audit(&deed)).await.unwrap();
    }
}

fn to(server: impl ToString, transport: SyslogTransport) -> SyslogMirror {
    SyslogMirror { server: server.to_string(), transport, authority: None }
}

/// The messages of one connection, which is closed when they were read.
async fn taken(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    stream.shutdown().await.ok();
    let (mut rest, mut messages) = (String::from_utf8(bytes).unwrap(), Vec::new());
    while let Some((count, more)) = rest.split_once(' ') {
        let (message, after) = more.split_at(count.parse().unwrap());
        messages.push(message.to_owned());
        rest = after.to_owned();
    }
    messages
}

/// Which deeds these are about.
fn names(messages: &[String]) -> Vec<String> {
    let name = |message: &String| {
        let line: serde_json::Value = serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap();
        let deed: Deed = serde_json::from_str(line["deed"].as_str().unwrap()).unwrap();
        format!("{} {}", line["sequence"], deed.name)
    };
    messages.iter().map(name).collect()
}

#[tokio::test]
async fn every_record_arrives_once_in_its_order_also_after_a_restart_and_while_the_receiver_was_away() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    world.set(to(address, SyslogTransport::Tcp)).await;
    world.deed("a", DeedResult::Done).await;
    world.deed("b", DeedResult::Denied).await;
    let receive = async || taken(listener.accept().await.unwrap().0).await;
    let mirror = world.mirror();
    let (sent, messages) = tokio::join!(mirror.advance(), receive());
    sent.unwrap();
    assert_eq!(names(&messages), ["1 a", "2 b"]);
    assert!(messages[0].starts_with("<109>1 2026-03-01T12:00:00.123456Z box berth - audit - {"), "{}", messages[0]);
    assert!(messages[1].starts_with("<108>1 "), "{}", messages[1]);

    drop(listener);
    world.deed("c", DeedResult::Done).await;
    let why = crate::log::chain(&mirror.advance().await.unwrap_err());
    assert!(why.contains(&format!("sending audit records to {address}")) && why.contains("refused"), "{why}");
    let listener = TcpListener::bind(address).await.unwrap();
    let again = world.mirror();
    let (sent, messages) = tokio::join!(again.advance(), async { taken(listener.accept().await.unwrap().0).await });
    sent.unwrap();
    assert_eq!(names(&messages), ["3 c"]);
}

#[tokio::test]
async fn what_was_cut_off_is_sent_again_and_another_receiver_is_sent_everything() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.set(to(listener.local_addr().unwrap(), SyslogTransport::Tcp)).await;
    world.deed("a", DeedResult::Done).await;
    let mirror = world.mirror();
    let cut = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        stream.set_zero_linger().unwrap();
    };
    let (sent, ()) = tokio::join!(mirror.advance(), cut);
    assert!(sent.is_err(), "it ended before it could keep what it read");
    let (sent, messages) = tokio::join!(mirror.advance(), async { taken(listener.accept().await.unwrap().0).await });
    sent.unwrap();
    assert_eq!(names(&messages), ["1 a"]);

    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    world.set(to(other.local_addr().unwrap(), SyslogTransport::Udp)).await;
    mirror.advance().await.unwrap();
    let mut bytes = [0; 2048];
    let size = other.recv(&mut bytes).await.unwrap();
    assert_eq!(names(&[String::from_utf8_lossy(&bytes[..size]).into_owned()]), ["1 a"]);
}

#[tokio::test]
async fn over_tls_only_the_server_of_the_authority_is_sent_anything() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serve = async |signed_by: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let chain = vec![params.signed_by(&key, signed_by).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            Ok(stream) => taken(stream).await,
            Err(_) => Vec::new(),
        }
    };
    let syslog =
        SyslogMirror { authority: Some(own.pem()), ..to(listener.local_addr().unwrap(), SyslogTransport::Tls) };
    world.set(syslog).await;
    world.deed("a", DeedResult::Done).await;
    let mirror = world.mirror();
    let stranger = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let (sent, messages) = tokio::join!(mirror.advance(), serve(&stranger));
    let why = crate::log::chain(&sent.unwrap_err());
    assert!(why.contains("agreeing on TLS") && messages.is_empty(), "{why} {messages:?}");
    let (sent, messages) = tokio::join!(mirror.advance(), serve(&issuer));
    sent.unwrap();
    assert_eq!(names(&messages), ["1 a"]);
}

/// Fails for these reasons one after the other, then takes everything.
struct Moody {
    reasons: Mutex<Vec<&'static str>>,
    done: Notify,
}

impl Receiver for Arc<Moody> {
    const PACE: Duration = Duration::from_secs(1);

    async fn advance(&self, _: &Records) -> Result<(), MirrorError> {
        let reason = self.reasons.lock().unwrap().pop();
        match reason {
            Some("") => Ok(()),
            Some(server) => Err(MirrorError::Syslog { server: server.into(), source: SendError::Late }),
            None => {
                self.done.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_as_an_event_once_until_it_is_another_or_over() {
    let world = World::new();
    let reasons = Mutex::new(vec!["", "two", "one", "one"]);
    let moody = Arc::new(Moody { reasons, done: Notify::new() });
    let running = tokio::spawn(run(moody.clone(), Records { store: world.store.clone() }));
    moody.done.notified().await;
    running.abort();
    let events = world.store.read(|tx| tx.list::<Event>(None)).await.unwrap();
    let mut told: Vec<(&str, Option<i32>)> = Vec::new();
    for event in &events {
        let message = event.message.as_deref().unwrap();
        assert!(event.type_.as_deref() == Some("Normal") || message.contains("spec.audit.mirror of Settings berth"));
        told.push((message.split([':', ';']).next().unwrap(), event.count));
    }
    told.sort_unstable();
    let to = |server: &str| format!("sending audit records to {server}");
    let (one, two) = (to("one"), to("two"));
    let expected = [(one.as_str(), Some(1)), (two.as_str(), Some(1)), ("the audit records are sent again", Some(1))];
    assert_eq!(told, expected);
}
