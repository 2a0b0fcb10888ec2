//! The container's network, made from outside between the moment its namespaces exist and the
//! moment its program runs. A restart by systemd makes it anew, with no daemon alive.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use berth_model::allocation;
use berth_model::plan::Network;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::netlink::{LinkIndex, Message, Socket, Veth};

/// Name of the container's end.
const INSIDE: &str = "eth0";

/// What went wrong while the network was made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No netlink socket on the host.
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    /// A host end left behind could not be removed.
    #[error("deleting the stale link {link}")]
    Stale {
        /// The host end.
        link: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The daemon makes the bridge before it starts the unit.
    #[error("looking for the bridge {bridge}, which the daemon makes")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// What the kernel said.
        #[source]
        source: nix::Error,
    },
    /// The pair could not be made.
    #[error("making the link {link} on bridge {bridge}")]
    Pair {
        /// The host end.
        link: String,
        /// The bridge.
        bridge: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The container's network namespace could not be entered or left.
    #[error("{doing} the container's network namespace")]
    Namespace {
        /// Entering, leaving, ...
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step inside.
    #[error("{doing} inside the container")]
    Inside {
        /// The step.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Deletes the host end of a pair; that it is not there is fine.
pub fn delete_link(link: &str) -> Result<(), NetworkError> {
    let mut host = Socket::open().map_err(NetworkError::Open)?;
    delete(&mut host, link)
}

fn delete(host: &mut Socket, link: &str) -> Result<(), NetworkError> {
    match host.request(&Message::delete_link(link)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(source) => Err(NetworkError::Stale { link: link.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// Makes the whole network of the container whose first process is `pid`: loopback always, the pair
/// with its addresses and routes if the plan has one.
pub fn connect(network: Option<&Network>, pid: Pid) -> Result<(), NetworkError> {
    if let Some(network) = network {
        make_pair(network, pid)?;
    }
    let mut inside = Inside::enter(pid, network.is_some())?;
    inside.request(Message::set_up(inside.loopback), || "setting loopback up".to_owned())?;
    match (network, inside.link) {
        (Some(network), Some(link)) => configure(&mut inside, link, network),
        _ => Ok(()),
    }
}

fn make_pair(network: &Network, pid: Pid) -> Result<(), NetworkError> {
    let mut host = Socket::open().map_err(NetworkError::Open)?;
    delete(&mut host, &network.host_link)?;
    let bridge = if_nametoindex(network.bridge.as_str())
        .map_err(|source| NetworkError::Bridge { bridge: network.bridge.clone(), source })?;
    let message = Message::add_veth(&Veth {
        host: &network.host_link,
        bridge: LinkIndex(bridge),
        inside: INSIDE,
        hardware: hardware_address(network),
        pid: pid.as_raw().unsigned_abs(),
    });
    host.request(&message).map_err(|source| NetworkError::Pair {
        link: network.host_link.clone(),
        bridge: network.bridge.clone(),
        source,
    })
}

/// The address that the machine's rules expect of this container. With IPv6 alone it is made of the
/// last bytes of the address in the same way.
fn hardware_address(network: &Network) -> [u8; 6] {
    let first = network.addresses.first().map(|at| at.address);
    let first = first.map(|address| match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d)
        }
    });
    allocation::hardware_address(first.unwrap_or(Ipv4Addr::UNSPECIFIED))
}

fn configure(inside: &mut Inside, link: LinkIndex, network: &Network) -> Result<(), NetworkError> {
    for at in &network.addresses {
        inside.request(Message::add_address(link, at.address, at.prefix), || {
            format!("adding the address {}/{}", at.address, at.prefix)
        })?;
    }
    inside.request(Message::set_up(link), || format!("setting {INSIDE} up"))?;
    for gateway in &network.gateways {
        inside
            .request(Message::add_default_route(link, *gateway), || format!("adding the default route by {gateway}"))?;
    }
    Ok(())
}

/// A netlink socket that lives in the container's network namespace, and what is found there.
#[derive(Debug)]
struct Inside {
    socket: Socket,
    loopback: LinkIndex,
    link: Option<LinkIndex>,
}

impl Inside {
    /// Goes into the namespace, opens the socket, and comes back. The process has one thread and
    /// makes none meanwhile, so that nothing else of ours is ever inside.
    fn enter(pid: Pid, with_link: bool) -> Result<Self, NetworkError> {
        let at = |doing| move |source: io::Error| NetworkError::Namespace { doing, source };
        let ours = File::open("/proc/self/ns/net").map_err(at("remembering the way back from"))?;
        let theirs = File::open(format!("/proc/{pid}/ns/net")).map_err(at("opening"))?;
        setns(&theirs, CloneFlags::CLONE_NEWNET).map_err(|errno| at("entering")(errno.into()))?;
        let opened = Self::open(with_link);
        setns(&ours, CloneFlags::CLONE_NEWNET).map_err(|errno| at("leaving")(errno.into()))?;
        opened.map_err(at("opening a socket in"))
    }

    fn open(with_link: bool) -> io::Result<Self> {
        let link = match with_link {
            true => Some(LinkIndex(if_nametoindex(INSIDE)?)),
            false => None,
        };
        Ok(Self { socket: Socket::open()?, loopback: LinkIndex(if_nametoindex("lo")?), link })
    }

    fn request(&mut self, message: Message, doing: impl FnOnce() -> String) -> Result<(), NetworkError> {
        self.socket.request(&message).map_err(|source| NetworkError::Inside { doing: doing(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_hardware_address_stays_while_the_ip_address_does() {
        let mut network = testing::plan().network.unwrap();
        assert_eq!(hardware_address(&network), [0x02, 0xbe, 10, 213, 0, 5]);
        network.addresses.remove(0);
        assert_eq!(hardware_address(&network), [0x02, 0xbe, 0, 0, 0, 5]);
    }
}
