//! A server that answers as it is told, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// No wait for anything the server is asked lasts longer; only a broken test comes so far.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server says to one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A code and a document.
    Json(u16, Value),
    /// A certificate for the key of the request that is in the body.
    Sign(Signing),
    /// Text as it comes, then how it ends.
    Stream(Vec<String>, End),
    /// The connection breaks before there is an answer.
    Break,
}

/// A certificate as it is to be.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The server's authority, as PEM.
    pub authority: String,
    pub subject: &'static str,
    pub issued_at: jiff::Timestamp,
    pub expires_at: jiff::Timestamp,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// As it should.
    Properly,
    /// In the middle of the connection.
    Broken,
    /// Not at all.
    Open,
}

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
    pub body: Bytes,
}

impl Seen {
    /// `POST /path`, or `WATCH /path`.
    pub fn line(&self) -> String {
        let watching = self.query.split('&').any(|pair| pair == "watch=true");
        let verb = if watching { "WATCH" } else { &self.method };
        format!("{verb} {}", self.path)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug, Default)]
struct Script {
    replies: Mutex<HashMap<String, VecDeque<Reply>>>,
    seen: Mutex<Vec<Seen>>,
}

/// The server. Ends with the test.
pub struct Fake {
    script: Arc<Script>,
    count: watch::Receiver<usize>,
    pub address: String,
    pub dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    count: Arc<watch::Sender<usize>>,
}

impl Fake {
    /// Behind a unix socket.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (fake, router) = Self::new(format!("unix://{}", socket.display()), dir);
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Behind TLS on a port, with the certificate of an authority in `ca.crt`.
    pub async fn start_tls() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = authority(&dir);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (fake, router) = Self::new(format!("https://{}", listener.local_addr().unwrap()), dir);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                tokio::spawn(async move {
                    // A client that does not trust us ends the handshake.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                });
            }
        });
        fake
    }

    fn new(address: String, dir: tempfile::TempDir) -> (Self, Router) {
        let script = Arc::new(Script::default());
        let (sender, count) = watch::channel(0);
        let shared = Shared { script: script.clone(), count: Arc::new(sender) };
        let router = Router::new().fallback(any(answer)).with_state(shared);
        (Self { script, count, address, dir }, router)
    }

    /// Answers `POST /path` or `WATCH /path` so. Several answers to the same are given in turn; the
    /// last one stays.
    pub fn on(&self, line: &str, reply: Reply) -> &Self {
        self.script.replies.lock().unwrap().entry(line.to_owned()).or_default().push_back(reply);
        self
    }

    /// Answers with a document.
    pub fn json(&self, line: &str, document: Value) -> &Self {
        self.on(line, Reply::Json(200, document))
    }

    /// Answers with an error of the API.
    pub fn refuse(&self, line: &str, code: u16, reason: &str, message: &str) -> &Self {
        self.on(line, Reply::Json(code, refusal(code, reason, message)))
    }

    /// Answers with a list of some kind.
    pub fn list(&self, line: &str, version: u64, items: Vec<Value>) -> &Self {
        let metadata = json!({"resourceVersion": version.to_string()});
        self.json(line, json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// Answers a watch with events.
    pub fn events(&self, line: &str, events: &[(&str, Value)], end: End) -> &Self {
        let line_of = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
        self.on(&format!("WATCH {line}"), Reply::Stream(events.iter().map(line_of).collect(), end))
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }

    /// All requests so far as `POST /path`.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// The requests of one line.
    pub fn asked(&self, line: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.line() == line).collect()
    }

    /// Waits until it has been asked something so often.
    pub async fn until_asked(&mut self, line: &str, times: usize) {
        let script = self.script.clone();
        let often = move || script.seen.lock().unwrap().iter().filter(|seen| seen.line() == line).count() >= times;
        let asked = self.count.wait_for(|_| often());
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        assert!(matches!(asked, Ok(Ok(_))), "{line} was not asked {times} times");
    }
}

/// An error of the API.
pub fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
           "message": message})
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let seen = see(request).await;
    let reply = shared.script.take(&seen);
    let body = seen.body.clone();
    shared.script.seen.lock().unwrap().push(seen);
    shared.count.send_modify(|count| *count += 1);
    match reply {
        Reply::Json(code, document) => json_response(code, &document),
        Reply::Sign(signing) => json_response(201, &signed(&body, &signing)),
        Reply::Stream(parts, end) => Response::new(stream(parts, end)),
        Reply::Break => Response::builder().header("content-length", "10").body(stream(vec![], End::Broken)).unwrap(),
    }
}

fn signed(body: &[u8], signing: &Signing) -> Value {
    let asked: Value = serde_json::from_slice(body).unwrap();
    let request = rcgen::CertificateSigningRequestParams::from_pem(asked["request"].as_str().unwrap()).unwrap();
    let authority = rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
    json!({
        "certificate": request.signed_by(&authority).unwrap().pem(), "authority": signing.authority,
        "subject": signing.subject, "name": "alice.x7k2p",
        "issuedAt": signing.issued_at.to_string(), "expiresAt": signing.expires_at.to_string(),
    })
}

async fn see(request: Request) -> Seen {
    let (head, body) = request.into_parts();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default(),
    }
}

impl Script {
    fn take(&self, seen: &Seen) -> Reply {
        let mut replies = self.replies.lock().unwrap();
        match replies.get_mut(&seen.line()) {
            Some(queue) if queue.len() > 1 => queue.pop_front().unwrap(),
            Some(queue) => queue[0].clone(),
            None => {
                let message = format!("{} is not here", seen.path);
                Reply::Json(404, refusal(404, "NotFound", &message))
            }
        }
    }
}

fn json_response(code: u16, document: &Value) -> Response {
    let builder = Response::builder().status(code).header("content-type", "application/json");
    builder.body(Body::from(document.to_string())).unwrap()
}

fn stream(parts: Vec<String>, end: End) -> Body {
    let parts = futures_util::stream::iter(parts.into_iter().map(|part| Ok::<_, std::io::Error>(Bytes::from(part))));
    match end {
        End::Properly => Body::from_stream(parts),
        End::Open => Body::from_stream(parts.chain(futures_util::stream::pending())),
        End::Broken => {
            // Breaks once what came before is on its way.
            let broken = futures_util::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            });
            Body::from_stream(parts.chain(broken))
        }
    }
}

/// An authority, and a server with its certificate for 127.0.0.1.
fn authority(dir: &tempfile::TempDir) -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    std::fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(vec![server.der().clone(), ca.der().clone()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A socket in a directory of its own that nobody listens on.
pub fn dead_socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    (dir, socket)
}
