//! Sends requests and judges answers, knowing nothing of what they mean. The one place that holds
//! the token. A transport made by [`Transport::printing`] sends nothing and returns the command.

use std::path::Path;
use std::time::Duration;

use berth_model::connection::CLIENT_REUSES;
use bytes::{Buf, Bytes, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Certificate, ClientBuilder, Identity, RequestBuilder, Response, StatusCode, Upgraded};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::channels::PROTOCOL;
use crate::curl;
use crate::error::ClientError;
use crate::pinned;
use crate::request::{Body, Request};
use crate::server::Server;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A way to one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transport {
    server: Server,
    shown: String,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Send { http: reqwest::Client, token: Option<HeaderValue> },
    Print,
}

impl Transport {
    /// Prepares a way to the server; nothing is asked yet.
    ///
    /// # Errors
    /// Token or certificate file cannot be read or used.
    pub fn new(server: Server) -> Result<Self, ClientError> {
        let shown = server.shown();
        let token = server.token_file.as_deref().map(read_token).transpose()?;
        let http =
            builder_of(&server)?.build().map_err(|source| ClientError::Setup { server: shown.clone(), source })?;
        Ok(Self { server, shown, way: Way::Send { http, token } })
    }

    /// A way to a server of which nothing is known but the SHA-256 of its authority, with a token that is sent to no other.
    ///
    /// # Errors
    /// The token is none, or TLS cannot be set up.
    pub fn pinned(server: Server, fingerprint: &str, token: &str) -> Result<Self, ClientError> {
        let shown = server.shown();
        let settings = pinned::settings(fingerprint).map_err(ClientError::Tls)?;
        let token = bearer(token.as_bytes()).ok_or(ClientError::Bootstrap)?;
        let http = builder_of(&server)?.tls_backend_preconfigured(settings).build();
        let http = http.map_err(|source| ClientError::Setup { server: shown.clone(), source })?;
        Ok(Self { server, shown, way: Way::Send { http, token: Some(token) } })
    }

    /// Sends nothing: every request fails with [`ClientError::Printed`].
    pub fn printing(server: Server) -> Self {
        let shown = server.shown();
        Self { server, shown, way: Way::Print }
    }

    /// A way to the same server that sends, for what has to be read before a command can be printed.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn sending(&self) -> Result<Self, ClientError> {
        match self.way {
            Way::Send { .. } => Ok(self.clone()),
            Way::Print => Self::new(self.server.clone()),
        }
    }

    /// Requests are turned into commands.
    pub fn is_printing(&self) -> bool {
        matches!(self.way, Way::Print)
    }

    /// It asks over a socket of this very machine.
    pub fn is_socket(&self) -> bool {
        self.server.socket.is_some()
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server, as a person would name it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The request as a command.
    pub fn command(&self, request: &Request) -> String {
        curl::command(&self.server, request)
    }

    /// Asks and reads the whole answer as JSON.
    ///
    /// # Errors
    /// See [`ClientError`]; an answer that is an error is `Refused`.
    pub async fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        let builder = self.prepare(request, curl::command)?.timeout(ANSWER_TIMEOUT);
        let response = self.send(with_body(builder, &request.body)).await?;
        self.decode(response).await
    }

    /// [`Transport::json`] where an answer with 400 has a form of its own.
    ///
    /// # Errors
    /// As [`Transport::json`], for every other refusal.
    pub async fn json_or<T: DeserializeOwned, R: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<Result<T, R>, ClientError> {
        let builder = self.prepare(request, curl::command)?.timeout(ANSWER_TIMEOUT);
        let response = with_body(builder, &request.body).send().await;
        let response = response.map_err(|error| ClientError::from_http(&self.shown, error))?;
        let code = response.status();
        if code.is_success() {
            return self.decode(response).await.map(Ok);
        }
        let body = response.bytes().await.map_err(|error| ClientError::from_http(&self.shown, error))?;
        match serde_json::from_slice(&body) {
            Ok(told) if code == StatusCode::BAD_REQUEST => Ok(Err(told)),
            _ => Err(refused(code, &body)),
        }
    }

    /// Asks with a streamed body and reads the whole answer as JSON. Has no time limit of its own.
    ///
    /// # Errors
    /// As [`Transport::json`].
    pub async fn upload(&self, request: &Request, body: reqwest::Body) -> Result<Value, ClientError> {
        let response = self.send(self.prepare(request, curl::command)?.body(body)).await?;
        self.decode(response).await
    }

    /// Asks and reads the answer line by line as it comes.
    ///
    /// # Errors
    /// As [`Transport::json`], for the head of the answer.
    pub async fn lines(&self, request: &Request) -> Result<Lines, ClientError> {
        let builder = self.prepare(request, curl::streaming_command)?;
        let response = self.send(builder).await?;
        Ok(Lines { response, buffer: BytesMut::new(), server: self.shown.clone() })
    }

    /// Asks, and gives the answer in pieces as they come, whatever they are. Has no time limit of its own.
    ///
    /// # Errors
    /// As [`Transport::json`], for the head of the answer.
    pub async fn pieces(&self, request: &Request) -> Result<Pieces, ClientError> {
        let response = self.send(self.prepare(request, curl::command)?).await?;
        Ok(Pieces { response, server: self.shown.clone() })
    }

    /// Asks for a WebSocket with numbered channels.
    ///
    /// # Errors
    /// As [`Transport::json`].
    pub async fn web_socket(&self, request: &Request) -> Result<WebSocketStream<Upgraded>, ClientError> {
        let builder = self.prepare(request, curl::streaming_command)?;
        let setup = |source| ClientError::Setup { server: self.shown.clone(), source };
        // HTTP/2 has no such thing, and the pool of the other client may hold nothing else.
        let (_, asked) = builder.build_split();
        let mut asked = asked.map_err(setup)?;
        let headers = asked.headers_mut();
        let key = generate_key();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        headers.extend(HeaderValue::from_str(&key).map(|key| (SEC_WEBSOCKET_KEY, key)));
        let client = builder_of(&self.server)?.http1_only().build().map_err(setup)?;
        let response = client.execute(asked).await.map_err(|error| ClientError::from_http(&self.shown, error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        let upgraded = response.upgrade().await.map_err(|error| ClientError::from_http(&self.shown, error))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }

    fn prepare(&self, request: &Request, shown: Show) -> Result<RequestBuilder, ClientError> {
        let Way::Send { http, token } = &self.way else {
            return Err(ClientError::Printed(shown(&self.server, request)));
        };
        let mut builder = http.request(request.method.clone(), request.url(&self.server.base));
        builder = builder.header(ACCEPT, request.accept);
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, token);
        }
        if let Some(content) = request.body.content_type() {
            builder = builder.header(CONTENT_TYPE, content);
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header("Idempotency-Key", key);
        }
        Ok(builder)
    }

    async fn send(&self, builder: RequestBuilder) -> Result<Response, ClientError> {
        let response = builder.send().await.map_err(|error| ClientError::from_http(&self.shown, error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response).await),
        }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let code = response.status();
        match response.bytes().await {
            Ok(body) => refused(code, &body),
            Err(error) => ClientError::from_http(&self.shown, error),
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = response.bytes().await.map_err(|error| ClientError::from_http(&self.shown, error))?;
        parse(&self.shown, &body)
    }
}

type Show = fn(&Server, &Request) -> String;

fn refused(code: StatusCode, body: &[u8]) -> ClientError {
    let mut status = serde_json::from_slice::<Status>(body).unwrap_or_else(|_| unspoken(code, body));
    status.code = Some(i32::from(code.as_u16()));
    ClientError::Refused(Box::new(status))
}

/// An error that is no `Status`, e.g. of a proxy on the way.
fn unspoken(code: reqwest::StatusCode, body: &[u8]) -> Status {
    let text = String::from_utf8_lossy(body);
    let first = text.lines().next().unwrap_or_default().trim();
    let message = match first {
        "" => format!("the server answered {code} without an explanation"),
        said => format!("the server answered {code}: {said}"),
    };
    Status { message: Some(message), reason: code.canonical_reason().map(str::to_owned), ..Status::default() }
}

fn parse<T: DeserializeOwned>(server: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Malformed { server: server.to_owned(), source })
}

fn with_body(builder: RequestBuilder, body: &Body) -> RequestBuilder {
    match body {
        Body::Json(value) | Body::MergePatch(value) => builder.body(value.to_string()),
        Body::Form(form) => builder.body(form.clone()),
        Body::Empty | Body::Archive(_) => builder,
    }
}

fn builder_of(server: &Server) -> Result<ClientBuilder, ClientError> {
    install_crypto();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(CLIENT_REUSES)
        .tcp_keepalive(KEEPALIVE);
    if server.is_local() {
        builder = builder.no_proxy();
    }
    if let Some(socket) = &server.socket {
        // Nothing is encrypted there: reading all authorities that the system trusts would take most of a command's time.
        builder = builder.unix_socket(socket.as_path()).tls_certs_only([]);
    }
    if let Some(file) = &server.identity_file {
        let identity = Identity::from_pem(&read(file)?);
        let identity = identity.map_err(|source| ClientError::Identity { path: file.clone(), source })?;
        builder = builder.identity(identity);
    }
    match &server.ca_file {
        Some(file) => Ok(builder.tls_certs_only(read_certificates(server, file)?)),
        None => Ok(builder),
    }
}

/// The workspace builds rustls without a default provider. Whoever comes first has installed the
/// same one, so that a second attempt is no failure.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

fn read_certificates(server: &Server, file: &Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = read(file)?;
    Certificate::from_pem_bundle(&pem).map_err(|source| ClientError::Setup { server: server.shown(), source })
}

fn read_token(file: &Path) -> Result<HeaderValue, ClientError> {
    bearer(read(file)?.trim_ascii()).ok_or_else(|| ClientError::Token(file.to_owned()))
}

/// What is sent of a token, unless it cannot be one.
fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let header = [b"Bearer ".as_slice(), token].concat();
    let mut value = HeaderValue::from_bytes(&header).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

fn read(file: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(file).map_err(|source| ClientError::File { path: file.to_owned(), source })
}

/// An answer in pieces.
#[derive(Debug)]
pub struct Pieces {
    response: reqwest::Response,
    server: String,
}

impl Pieces {
    /// The next piece, `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|error| ClientError::from_http(&self.server, error))
    }
}

/// An answer that comes line by line. Dropping a `next` loses nothing.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    buffer: BytesMut,
    server: String,
}

impl Lines {
    /// The next line without its end, or `None` after the last. A last line without an end counts.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| ClientError::from_http(&self.server, error))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }

    /// Whether the next line is yet to come, as far as is known without waiting.
    pub fn is_drained(&self) -> bool {
        !self.buffer.contains(&b'\n')
    }

    fn buffered(&mut self) -> Option<Bytes> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        Some(line)
    }

    /// A line as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, ClientError> {
        parse(&self.server, line)
    }
}

#[cfg(test)]
mod tests {
    use berth_model::connection::SERVER_WAITS;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_quiet_connection_is_given_up_before_the_server_may_close_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = Server::choose(Some(&format!("unix://{}", socket.display())), None, None).unwrap();
        let transport = Transport::new(server).unwrap();
        let asking = transport.clone();
        let asked = tokio::spawn(async move { asking.json::<Value>(&Request::get(&["version"])).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        asked.await.unwrap().unwrap();
        let more = tokio::time::timeout(SERVER_WAITS, stream.read(&mut head)).await;
        assert_eq!(more.expect("the client still holds its connection").unwrap(), 0);
        drop(transport);
    }
}
