//! Where is listened: on the machine's address of each bridge, and nowhere else.
//!
//! A bridge may come after its address is in the zone, and go before; listening does not depend on
//! it (IP_FREEBIND).

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_server::Server;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tracing::{error, info};

use crate::answer::Names;

/// A TCP connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait to be read on a TCP connection.
const WAITING: usize = 32;
/// TCP connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The servers there are.
pub(crate) struct Listeners {
    names: Names,
    port: u16,
    servers: BTreeMap<IpAddr, Server<Names>>,
}

impl Listeners {
    pub(crate) fn new(names: Names, port: u16) -> Self {
        Self { names, port, servers: BTreeMap::new() }
    }

    /// Listens on exactly these addresses. One that fails is reported, and tried again the next time.
    pub(crate) async fn follow(&mut self, wanted: &[IpAddr]) {
        let gone: Vec<IpAddr> = self.servers.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            let Some(mut server) = self.servers.remove(&address) else { continue };
            match server.shutdown_gracefully().await {
                Ok(()) => info!(%address, "no longer listening"),
                Err(failure) => error!(%address, error = &failure as &dyn Error, "a server ended badly"),
            }
        }
        for address in wanted {
            if self.servers.contains_key(address) {
                continue;
            }
            match self.serve(*address) {
                Ok(server) => drop(self.servers.insert(*address, server)),
                Err(failure) => error!(%address, error = &failure as &dyn Error, "cannot listen"),
            }
        }
    }

    fn serve(&self, address: IpAddr) -> io::Result<Server<Names>> {
        let at = SocketAddr::new(address, self.port);
        let mut server = Server::new(self.names.clone());
        server.register_socket(UdpSocket::from_std(bound(at, Type::DGRAM)?.into())?);
        let listener = bound(at, Type::STREAM)?;
        listener.listen(BACKLOG)?;
        server.register_listener(TcpListener::from_std(listener.into())?, IDLE, WAITING);
        Ok(server)
    }
}

fn bound(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}
