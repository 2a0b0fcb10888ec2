//! The two ways in: TLS on a port, and a unix socket whose peers the kernel names.
//!
//! ```text
//! accept ─> permit (connections are capped, in all and from one address) ─> TLS handshake in time
//!   ─> first request in time ─> HTTP/1.1 or 2 ─> router
//!   └─ stop: no new connections; open ones finish their requests within the grace, then end
//! ```
//!
//! Every request carries the [`Peer`] it came from, and the client certificate that was shown. A failed accept or handshake costs that
//! connection only.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use berth_model::connection::SERVER_WAITS;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::linger;
use crate::auth::Peer;
use crate::auth::attempts::neighbourhood;
use crate::auth::client_certificate::Presented;

/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What one listener bears.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time, each listener by itself, so that the network cannot lock local root out.
    pub(super) connections: u32,
    /// The same from one address; the socket has none.
    pub(super) of_address: u32,
    /// Time for a handshake, and for the head of a request; also for all that comes before the first.
    pub(super) head: Duration,
    /// Without a new request a connection takes no further ones; what it has begun goes on.
    pub(super) idle: Duration,
    /// Between looks whether an HTTP/2 client is still there.
    pub(super) ping: Duration,
    /// Time for requests to end after the daemon was told to stop.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 10,000 that wait for something, and room for those who ask.
            connections: 10_240,
            of_address: 1024,
            head: SERVER_WAITS,
            idle: Duration::from_secs(300),
            ping: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// Binds the unix socket, in the place of one left over. Root alone can open it.
///
/// # Errors
/// The directory is missing or not writable.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves TLS connections until `stop`, and returns when the last one has ended.
pub async fn serve_tls(listener: TcpListener, tls: Arc<rustls::ServerConfig>, router: Router, stop: CancellationToken) {
    serve_tls_within(Limits::default(), listener, tls, router, stop).await;
}

pub(super) async fn serve_tls_within(
    limits: Limits,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    stop: CancellationToken,
) {
    serve(Tls { listener, acceptor: TlsAcceptor::from(tls), patience: limits.head }, router, limits, stop).await;
}

/// Serves connections on the unix socket until `stop`, and returns when the last one has ended.
pub async fn serve_socket(listener: UnixListener, router: Router, stop: CancellationToken) {
    serve(listener, router, Limits::default(), stop).await;
}

/// A way in.
pub(super) trait Door: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection: what is still to be done before it can be used, and who is there.
    fn accept(&self) -> impl Future<Output = io::Result<(Handshake<Self::Stream>, Peer)>> + Send;

    /// The client certificate that was shown in the handshake, where there was one.
    fn presented(_: &Self::Stream) -> Option<Presented> {
        None
    }
}

pub(super) type Handshake<S> = BoxFuture<'static, io::Result<S>>;

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    patience: Duration,
}

impl Door for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&self) -> io::Result<(Handshake<Self::Stream>, Peer)> {
        let (stream, address) = self.listener.accept().await?;
        // Small answers at once; a refusal by the kernel costs a little latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let handshake = tokio::time::timeout(self.patience, self.acceptor.accept(stream));
        let handshake = handshake.map(|done| done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
        Ok((handshake.boxed(), Peer::Network(address)))
    }

    fn presented(stream: &Self::Stream) -> Option<Presented> {
        Presented::of(stream.get_ref().1.peer_certificates())
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Handshake<Self::Stream>, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let uid = stream.peer_cred()?.uid();
        Ok((std::future::ready(Ok(stream)).boxed(), Peer::Socket { uid }))
    }
}

pub(super) async fn serve<D: Door>(door: D, router: Router, limits: Limits, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(limits.connections as usize));
    let places = Arc::<Places>::default();
    while let Some(accepted) = stop.run_until_cancelled(next(&permits, &door)).await {
        match accepted {
            Ok((permit, handshake, peer)) => {
                let Some(place) = places.take(peer, limits.of_address) else {
                    tracing::debug!("a connection from {peer:?} is one too many from there");
                    continue;
                };
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    match handshake.await {
                        Ok(stream) => {
                            let who = (peer, D::presented(&stream));
                            connection(stream, who, router, limits, stop).await;
                        }
                        Err(error) => tracing::debug!("a handshake with {peer:?} failed: {error}"),
                    }
                    drop((place, permit));
                });
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(door);
    // Whoever holds all permits is the last; the semaphore is never closed.
    drop(permits.acquire_many(limits.connections).await);
}

/// How many connections there are, by where they come from.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, u32>>);

/// One of them, given back when it is dropped.
struct Place {
    places: Arc<Places>,
    /// None on the socket.
    address: Option<IpAddr>,
}

impl Places {
    fn take(self: &Arc<Self>, peer: Peer, most: u32) -> Option<Place> {
        let address = match peer {
            Peer::Socket { .. } => None,
            Peer::Network(address) => Some(neighbourhood(address.ip())),
        };
        if let Some(address) = address {
            let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = taken.entry(address).or_default();
            *taken = taken.checked_add(1).filter(|taken| *taken <= most)?;
        }
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&address).map_or(0, |taken| taken.saturating_sub(1));
        match left {
            0 => drop(taken.remove(&address)),
            left => drop(taken.insert(address, left)),
        }
    }
}

async fn next<D: Door>(
    permits: &Arc<Semaphore>,
    door: &D,
) -> io::Result<(OwnedSemaphorePermit, Handshake<D::Stream>, Peer)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (handshake, peer) = door.accept().await?;
    Ok((permit, handshake, peer))
}

async fn connection<S>(
    stream: S,
    (peer, presented): (Peer, Option<Presented>),
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(Notify::new());
    let asking = asked.clone();
    let service = tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        asking.notify_one();
        request.extensions_mut().insert(peer);
        if let Some(presented) = presented {
            request.extensions_mut().insert(presented);
        }
        let (request, left) = linger::lend(request);
        let answering = router.clone().oneshot(request);
        async move {
            let answer = answering.await;
            left.take_in().await;
            answer
        }
    });
    let builder = http_settings(&limits);
    let mut serving =
        pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)));
    // Whoever has asked nothing yet is not waited for as long as one who has.
    let mut patience = limits.head;
    loop {
        tokio::select! {
            ended = serving.as_mut() => return told(peer, ended),
            () = asked.notified() => patience = limits.idle,
            () = stop.cancelled() => break,
            () = tokio::time::sleep(patience) => break,
        }
    }
    // What has begun is finished, a watch included; nothing new begins.
    serving.as_mut().graceful_shutdown();
    let out_of_time = async {
        stop.cancelled().await;
        tokio::time::sleep(limits.grace).await;
    };
    tokio::select! {
        ended = serving => told(peer, ended),
        () = out_of_time => {}
    }
}

fn told(peer: Peer, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!("a connection from {peer:?} broke off: {}", crate::log::chain(&*error));
    }
}

fn http_settings(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.head)
        .max_concurrent_streams(128)
        .max_header_list_size(32 * 1024);
    builder
}
