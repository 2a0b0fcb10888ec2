//! Links and addresses of the machine, over rtnetlink.
//!
//! [`Links`] holds one netlink socket of the network namespace it was opened in, and the task
//! that serves it; both end with it. Nothing here forks and no thread changes its namespace.

mod network;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

use network::bits;
pub use network::{BadNetwork, Network};

/// The longest name of a link.
const LONGEST_NAME: usize = 15;

/// What went wrong between the kernel and here.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("opening a netlink socket")]
    Open(#[source] std::io::Error),
    /// The kernel cannot have a link of this name.
    #[error("{0:?} cannot be the name of a link")]
    BadName(String),
    /// Something else has the name.
    #[error("link {name} is no bridge but {kind}")]
    NotABridge {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The kernel refused.
    #[error("{doing} {about}")]
    Request {
        /// What was being done, as a verb.
        doing: &'static str,
        /// Which link or address.
        about: String,
        /// The refusal.
        #[source]
        source: rtnetlink::Error,
    },
}

/// A link as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// Whether it was told to be up.
    pub up: bool,
    /// Number of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// An address of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name of the link that has it.
    pub link: String,
    /// The address and its network.
    pub network: Network,
    /// Whether others can reach it: not loopback, not link-local.
    pub global: bool,
}

/// A network that is reached by a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Name of the link; empty where there are several.
    pub link: String,
    /// The network.
    pub network: Network,
}

/// What it took to have something as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was made.
    Created,
    /// It was there, and was put right.
    Changed,
    /// It was there, and right.
    Unchanged,
}

/// What a bridge that is there lacks, and has too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Repair {
    up: bool,
    add: Vec<Network>,
    remove: Vec<Network>,
}

impl Repair {
    /// Addresses that are not global are the kernel's own affair.
    fn of(link: &Link, has: &[Address], wanted: &[Network]) -> Repair {
        let missing = |network: &&Network| !has.iter().any(|found| found.network == **network);
        let surplus = |found: &&Address| found.global && !wanted.contains(&found.network);
        Repair {
            up: !link.up,
            add: wanted.iter().filter(missing).copied().collect(),
            remove: has.iter().filter(surplus).map(|found| found.network).collect(),
        }
    }
}

/// A handle on the links of one network namespace.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    server: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Links {
    /// Opens a socket in the network namespace of the calling thread. Needs to be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Open`].
    pub fn open() -> Result<Links, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
        Ok(Links { handle, server: tokio::spawn(connection) })
    }

    /// Sees to it that there is a bridge that is up and has exactly these global addresses.
    ///
    /// A new bridge gets a hardware address of its own, made from its first address: without it
    /// the bridge would take one of its ports', and change it as they come and go.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn ensure_bridge(&self, name: &str, addresses: &[Network]) -> Result<Ensured, LinkError> {
        let (link, created) = match self.link(name).await? {
            Some(link) => (link, false),
            None => (self.create_bridge(name, addresses).await?, true),
        };
        if link.kind != InfoKind::Bridge.to_string() {
            let (name, kind) = (link.name, kind_for_people(link.kind));
            return Err(LinkError::NotABridge { name, kind });
        }
        let has = self.addresses_of(std::slice::from_ref(&link)).await?;
        let repair = Repair::of(&link, &has, addresses);
        let right = repair == Repair::default();
        self.repair(&link, repair).await?;
        Ok(match (created, right) {
            (true, _) => Ensured::Created,
            (false, true) => Ensured::Unchanged,
            (false, false) => Ensured::Changed,
        })
    }

    async fn create_bridge(&self, name: &str, addresses: &[Network]) -> Result<Link, LinkError> {
        let mut bridge = LinkBridge::new(name);
        if let Some(first) = addresses.first() {
            bridge = bridge.address(hardware_address(first.address()).to_vec());
        }
        let result = self.handle.link().add(bridge.build()).execute().await;
        done(result, "making bridge", name, &[])?;
        self.link(name).await?.ok_or_else(|| LinkError::Request {
            doing: "finding again",
            about: name.to_owned(),
            source: rtnetlink::Error::RequestFailed,
        })
    }

    async fn repair(&self, link: &Link, repair: Repair) -> Result<(), LinkError> {
        if repair.up {
            self.set_up(link).await?;
        }
        for network in repair.remove {
            self.remove_address(link, network).await?;
        }
        for network in repair.add {
            let (address, prefix) = (network.address(), network.prefix());
            let mut request = self.handle.address().add(link.index, address, prefix);
            if address.is_ipv6() {
                // Whoever makes links here gives out the addresses, too; an address that waits to
                // be found a duplicate cannot be used, and waits on a bridge without ports for ever.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            let about = format!("{network} to {}", link.name);
            done(request.execute().await, "adding address", &about, &[libc::EEXIST])?;
        }
        Ok(())
    }

    /// Sees to it that exactly these neighbours of a link are known for good. Those that the kernel
    /// has learned by itself stay until it forgets them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn ensure_neighbours(&self, name: &str, wanted: &BTreeMap<IpAddr, [u8; 6]>) -> Result<(), LinkError> {
        let Some(link) = self.link(name).await? else {
            return Err(request("finding link", name, rtnetlink::Error::RequestFailed));
        };
        let known = self.neighbours(link.index).await?;
        for (address, message) in &known {
            if !wanted.contains_key(address) {
                let about = format!("{address} on {name}");
                let result = self.handle.neighbours().del(message.clone()).execute().await;
                done(result, "forgetting neighbour", &about, &[libc::ENOENT])?;
            }
        }
        for (address, hardware) in wanted {
            if known.get(address).is_none_or(|message| hardware_of(message) != Some(hardware.as_slice())) {
                let add = self.handle.neighbours().add(link.index, *address).link_layer_address(hardware).replace();
                done(add.execute().await, "noting neighbour", &format!("{address} on {name}"), &[])?;
            }
        }
        Ok(())
    }

    /// Neighbours that were noted for good.
    async fn neighbours(&self, index: u32) -> Result<BTreeMap<IpAddr, NeighbourMessage>, LinkError> {
        let found = self.handle.neighbours().get().execute().try_collect::<Vec<_>>().await;
        let found = found.map_err(|error| request("listing", "neighbours", error))?;
        let permanent = found
            .into_iter()
            .filter(|message| message.header.ifindex == index && message.header.state == NeighbourState::Permanent);
        Ok(permanent.filter_map(|message| Some((neighbour_address(&message)?, message))).collect())
    }

    pub(crate) async fn set_up(&self, link: &Link) -> Result<(), LinkError> {
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).up().build();
        let result = self.handle.link().change(up).execute().await;
        done(result, "setting up", &link.name, &[])?;
        Ok(())
    }

    async fn remove_address(&self, link: &Link, network: Network) -> Result<(), LinkError> {
        let about = format!("{network} from {}", link.name);
        let messages = self.address_messages().await?;
        let matching = messages
            .into_iter()
            .filter(|message| message.header.index == link.index && network_of(message) == Some(network));
        for message in matching {
            let result = self.handle.address().del(message).execute().await;
            done(result, "removing address", &about, &[libc::EADDRNOTAVAIL])?;
        }
        Ok(())
    }

    /// Deletes a link with all that depends on it; whether there was one.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn delete(&self, name: &str) -> Result<bool, LinkError> {
        let Some(link) = self.link(name).await? else {
            return Ok(false);
        };
        let result = self.handle.link().del(link.index).execute().await;
        done(result, "deleting link", name, &[libc::ENODEV])
    }

    /// The link of this name.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>, LinkError> {
        if !is_name(name) {
            return Err(LinkError::BadName(name.to_owned()));
        }
        let found = self.handle.link().get().match_name(name).execute();
        match found.try_collect::<Vec<_>>().await {
            Err(error) if is(&error, &[libc::ENODEV]) => Ok(None),
            Err(error) => Err(request("looking for link", name, error)),
            Ok(messages) => Ok(messages.iter().find_map(link_of)),
        }
    }

    /// The links whose names begin with `prefix`; all of them for an empty one.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Link>, LinkError> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| request("listing", "links", error))?;
        let links = messages.iter().filter_map(link_of);
        Ok(links.filter(|link| link.name.starts_with(prefix)).collect())
    }

    /// All addresses of the machine.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn addresses(&self) -> Result<Vec<Address>, LinkError> {
        self.addresses_of(&self.list("").await?).await
    }

    /// All IPv4 networks that are reached by a link of the machine, by whatever table of routes; the
    /// default route is none.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn routes(&self) -> Result<Vec<Route>, LinkError> {
        let links = self.list("").await?;
        let every = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let found: Vec<RouteMessage> =
            every.try_collect().await.map_err(|error| request("listing", "routes", error))?;
        Ok(found.iter().filter_map(|message| route_of(message, &links)).collect())
    }

    async fn addresses_of(&self, links: &[Link]) -> Result<Vec<Address>, LinkError> {
        let messages = self.address_messages().await?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let link = links.iter().find(|link| link.index == message.header.index)?;
                Some(Address {
                    link: link.name.clone(),
                    network: network_of(message)?,
                    global: message.header.scope == AddressScope::Universe,
                })
            })
            .collect())
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>, LinkError> {
        let addresses = self.handle.address().get().execute();
        addresses.try_collect().await.map_err(|error| request("listing", "addresses", error))
    }
}

fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn hardware_of(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}

/// Locally administered, and different for different addresses of one machine.
fn hardware_address(address: IpAddr) -> [u8; 6] {
    let [.., a, b, c, d] = bits(address).to_be_bytes();
    [0x02, 0x00, a, b, c, d]
}

fn kind_for_people(kind: String) -> String {
    if kind.is_empty() { "hardware".to_owned() } else { kind }
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
        && name != "."
        && name != ".."
}

fn link_of(message: &LinkMessage) -> Option<Link> {
    let attributes = &message.attributes;
    let name = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let kind = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    });
    Some(Link {
        index: message.header.index,
        name,
        kind: kind.unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
        controller: attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        }),
    })
}

/// The link's own address: on a point-to-point link the other attribute is the peer's.
fn network_of(message: &AddressMessage) -> Option<Network> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    Network::new(own?, message.header.prefix_len).ok()
}

fn route_of(message: &RouteMessage, links: &[Link]) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.destination_prefix_length == 0 {
        return None;
    }
    let to = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        _ => None,
    });
    let by = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => links.iter().find(|link| link.index == *index),
        _ => None,
    });
    let network = Network::new(to?, header.destination_prefix_length).ok()?;
    Some(Route { link: by.map(|link| link.name.clone()).unwrap_or_default(), network })
}

fn is(error: &rtnetlink::Error, tolerated: &[i32]) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if tolerated.contains(&message.raw_code().abs()))
}

/// Whether it was done, or did not need to be.
fn done(
    result: Result<(), rtnetlink::Error>,
    doing: &'static str,
    about: &str,
    tolerated: &[i32],
) -> Result<bool, LinkError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is(&error, tolerated) => Ok(false),
        Err(error) => Err(request(doing, about, error)),
    }
}

fn request(doing: &'static str, about: &str, source: rtnetlink::Error) -> LinkError {
    LinkError::Request { doing, about: about.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn bridges_of_different_networks_have_different_hardware_addresses() {
        let of = |text: &str| hardware_address(network(text).address());
        assert_eq!(of("10.213.1.1/24"), [2, 0, 10, 213, 1, 1]);
        assert_ne!(of("10.213.2.1/24"), of("10.213.1.1/24"));
    }

    #[test]
    fn a_repair_leaves_the_addresses_alone_that_the_kernel_made() {
        let link = Link { index: 1, name: "b".to_owned(), kind: "bridge".to_owned(), up: true, controller: None };
        let has = |text: &str, global: bool| Address { link: "b".to_owned(), network: network(text), global };
        let found = [has("fe80::1/64", false), has("192.0.2.1/24", true)];
        let repair = Repair::of(&link, &found, &[network("192.0.2.9/24")]);
        let expected = Repair { up: false, add: vec![network("192.0.2.9/24")], remove: vec![network("192.0.2.1/24")] };
        assert_eq!(repair, expected);
    }

    #[tokio::test]
    async fn netns_a_bridge_is_made_once_and_then_left_alone() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        let wanted = [network("10.213.1.1/24"), network("fd00::1/64")];
        let first = links.ensure_bridge("x1", &wanted).await.unwrap();
        assert_eq!(first, Ensured::Created);
        let second = links.ensure_bridge("x1", &wanted).await.unwrap();
        assert_eq!(second, Ensured::Unchanged);
        let link = links.link("x1").await.unwrap().unwrap();
        assert!(link.up);
        assert_eq!(link.kind, "bridge");
    }

    #[tokio::test]
    async fn netns_a_bridge_with_other_addresses_gets_the_right_ones() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        let global = async || -> Vec<Network> {
            let all = links.addresses().await.unwrap();
            all.into_iter().filter(|one| one.global).map(|one| one.network).collect()
        };
        let (old, new) = ([network("10.213.1.1/24")], [network("10.213.2.1/24")]);
        let _created = links.ensure_bridge("x1", &old).await.unwrap();
        assert_eq!(global().await, old);
        let changed = links.ensure_bridge("x1", &new).await.unwrap();
        assert_eq!(changed, Ensured::Changed);
        assert_eq!(global().await, new);
    }

    #[tokio::test]
    async fn netns_links_are_found_by_prefix_and_deleted_once() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        for name in ["x1", "x2", "y1"] {
            let _created = links.ensure_bridge(name, &[]).await.unwrap();
        }
        let names = async || -> Vec<String> {
            let found = links.list("x").await.unwrap();
            found.into_iter().map(|link| link.name).collect()
        };
        assert_eq!(names().await, ["x1", "x2"]);
        assert!(links.delete("x1").await.unwrap());
        assert!(!links.delete("x1").await.unwrap());
        assert_eq!(names().await, ["x2"]);
    }

    #[tokio::test]
    async fn netns_another_kind_of_link_is_not_taken_for_a_bridge() {
        if !netns::enter() {
            return;
        }
        let links = Links::open().unwrap();
        let error = links.ensure_bridge("lo", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "link lo is no bridge but hardware");
    }

    #[tokio::test]
    async fn netns_a_name_that_is_too_long_is_refused() {
        if !netns::enter() {
            return;
        }
        let error = Links::open().unwrap().link("sixteen-letters!").await.unwrap_err();
        assert_eq!(error.to_string(), "\"sixteen-letters!\" cannot be the name of a link");
    }
}
