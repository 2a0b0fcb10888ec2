//! The bundle domain's network, for real: bridges by netlink, the table by nft.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use berth_host::link::{Links, Network};
use berth_host::nft;
use berth_model::allocation::{bridge_name, gateway};
use berth_model::resource::Revision;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::bundle::seams::{Cause, Net};
use crate::network::{State, rules};
use crate::store::Store;

/// Prefix length of a namespace's network.
const PREFIX: u8 = 24;
/// Every bridge of ours begins so.
const BRIDGE: &str = "berth";

/// The machine's links and packet filter. One at a time: the table is written whole, so the last
/// writer has to be the one that read last.
pub struct LinuxNet {
    store: Store,
    links: Mutex<Links>,
}

impl LinuxNet {
    /// Opens a netlink socket.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub fn new(store: Store) -> Result<Self, berth_host::link::LinkError> {
        Ok(Self { store, links: Mutex::new(Links::open()?) })
    }

    async fn bring_about(&self) -> Result<(), Cause> {
        let links = self.links.lock().await;
        let revisions = self.store.read(|tx| tx.list::<Revision>(None)).await?;
        let state = State::of(&revisions);
        for network in &state.networks {
            let own = Network::new(IpAddr::V4(gateway(*network)), PREFIX)?;
            links.ensure_bridge(&bridge_name(*network), &[own]).await?;
        }
        nft::apply(&rules::table(&state)).await?;
        remove_unused(&links, &state.networks).await
    }
}

async fn remove_unused(links: &Links, used: &BTreeSet<u8>) -> Result<(), Cause> {
    let keep: BTreeSet<String> = used.iter().map(|network| bridge_name(*network)).collect();
    for link in links.list(BRIDGE).await?.into_iter().filter(|link| link.kind == "bridge") {
        if !keep.contains(&link.name) {
            links.delete(&link.name).await?;
        }
    }
    Ok(())
}

impl Net for LinuxNet {
    fn configure(&self) -> BoxFuture<'_, Result<(), Cause>> {
        Box::pin(self.bring_about())
    }

    fn occupied(&self, port: u16, udp: bool) -> BoxFuture<'_, Result<bool, Cause>> {
        Box::pin(async move { taken(port, udp).map_err(Cause::from) })
    }
}

/// Whether a program of this machine listens there, found out by trying. (A socket that listens on
/// one address only is in the way, too: published ports take all of the machine's addresses.)
fn taken(port: u16, udp: bool) -> std::io::Result<bool> {
    let everywhere = (Ipv4Addr::UNSPECIFIED, port);
    let tried = if udp { UdpSocket::bind(everywhere).map(drop) } else { TcpListener::bind(everywhere).map(drop) };
    match tried {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}
