//! Messages for a syslog server: RFC 5424, one datagram each (RFC 5426), or counted in a stream (RFC 6587, and RFC 5425
//! with TLS).
//!
//! A stream has no answers. That everything was taken is known when the receiver closes its end after ours was closed: it
//! has read up to there. So each batch has a connection of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_model::resource::audit_record::DeedResult;
use berth_model::resource::settings::{SyslogMirror, SyslogTransport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

use super::{MirrorError, Receiver, Records, keep, kept};
use crate::store::{Link, StoreError};

/// A syslog server.
pub(super) struct Syslog {
    /// Where its position is kept.
    pub(super) file: PathBuf,
    /// What this machine is called.
    pub(super) hostname: String,
}

/// How far a server has them. Another server begins with the oldest that is kept.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    server: String,
    sequence: u64,
}

impl Receiver for Syslog {
    const PACE: Duration = Duration::from_secs(2);

    async fn advance(&self, records: &Records) -> Result<(), MirrorError> {
        let Some(syslog) = records.set().await?.syslog else { return Ok(()) };
        let mut position: Position = kept(&self.file)?;
        if position.server != syslog.server {
            position = Position { server: syslog.server.clone(), sequence: 0 };
        }
        loop {
            let links = records.after(position.sequence).await?;
            let Some(last) = links.last().map(|last| last.sequence) else { return Ok(()) };
            let messages: Vec<String> =
                links.iter().map(|link| message(link, &self.hostname)).collect::<Result<_, _>>()?;
            let sent = send(&syslog, &messages).await;
            sent.map_err(|source| MirrorError::Syslog { server: syslog.server.clone(), source })?;
            position.sequence = last;
            keep(&self.file, &position)?;
        }
    }
}

/// Facility 13, log audit (RFC 5424, table 1), times eight.
const FACILITY: u8 = 13 << 3;
/// Severities (table 2).
const NOTICE: u8 = 5;
const WARNING: u8 = 4;
/// Longer, and the receiver counts as away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a batch did not get away.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The connection.
    #[error("{doing}")]
    Io {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It takes too long.
    #[error("it did not take them within {} seconds", PATIENCE.as_secs())]
    Late,
    /// The authority that is set.
    #[error("spec.audit.mirror.syslog.authority holds no certificate that can be used")]
    Authority,
    /// The name of the server.
    #[error("the server's name cannot be in a certificate")]
    Name(#[from] InvalidDnsNameError),
    /// TLS cannot be set up.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> SendError {
    move |source| SendError::Io { doing, source }
}

/// A record as a message: its time is when it was done, its text a line as of `berth audit export`.
fn message(link: &Link, hostname: &str) -> Result<String, StoreError> {
    let deed = link.deed()?;
    let severity = if deed.result == DeedResult::Denied { WARNING } else { NOTICE };
    let (priority, time) = (FACILITY + severity, deed.time);
    Ok(format!("<{priority}>1 {time:.6} {hostname} berth - audit - {}", link.line()))
}

/// Sends messages; answers when the receiver has them, as far as its transport lets that be known.
async fn send(to: &SyslogMirror, messages: &[String]) -> Result<(), SendError> {
    let sending = async {
        match to.transport {
            SyslogTransport::Udp => datagrams(&to.server, messages).await,
            SyslogTransport::Tcp => counted(connect(&to.server).await?, messages).await,
            SyslogTransport::Tls => {
                let connector = TlsConnector::from(Arc::new(trusting(to)?));
                let stream = connect(&to.server).await?;
                let stream = connector.connect(name(&to.server)?, stream).await;
                counted(stream.map_err(failed("agreeing on TLS"))?, messages).await
            }
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.map_err(|_| SendError::Late)?
}

async fn connect(server: &str) -> Result<TcpStream, SendError> {
    TcpStream::connect(server).await.map_err(failed("connecting"))
}

fn trusting(to: &SyslogMirror) -> Result<ClientConfig, SendError> {
    let builder = ClientConfig::builder();
    let Some(pem) = &to.authority else { return Ok(builder.with_platform_verifier()?.with_no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| SendError::Authority)?).map_err(|_| SendError::Authority)?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn name(server: &str) -> Result<ServerName<'static>, SendError> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    Ok(ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?)
}

async fn datagrams(server: &str, messages: &[String]) -> Result<(), SendError> {
    let mut addresses = tokio::net::lookup_host(server).await.map_err(failed("looking up its address"))?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound.into()).map_err(failed("looking up its address"))?;
    let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own).await.map_err(failed("opening a socket"))?;
    socket.connect(address).await.map_err(failed("connecting"))?;
    for message in messages {
        socket.send(message.as_bytes()).await.map_err(failed("sending"))?;
    }
    Ok(())
}

/// Each with its number of bytes before it, and then the end.
async fn counted(mut stream: impl AsyncRead + AsyncWrite + Unpin, messages: &[String]) -> Result<(), SendError> {
    let all: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
    stream.write_all(all.as_bytes()).await.map_err(failed("sending"))?;
    stream.shutdown().await.map_err(failed("ending what was sent"))?;
    let mut said = Vec::new();
    match stream.read_to_end(&mut said).await {
        // Some end a connection without TLS's own word for it.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed("waiting until it was taken")(error)),
        _ => Ok(()),
    }
}
