//! Addresses and id ranges, handed out from what is already in use.
//!
//! Nothing is stored but the allocations themselves, inside the revisions that hold them. A
//! namespace has a network with a number, and keeps it for as long as one of its revisions is on
//! record:
//!
//! ```text
//!  10.213.<n>.<h>         fdxx:xxxx:xxxx:<n>::<h>          a revision's own address
//!  10.213.<128+n>.<s>     fdxx:xxxx:xxxx:<128+n>::<s>      a bundle's service address
//!  10.213.<n>.1           fdxx:xxxx:xxxx:<n>::1            the machine, on the namespace's bridge
//! ```
//!
//! The first two bytes are those of the [`Pool`] at the time when the namespace got its network. Own
//! addresses come and go with revisions; the service address is the bundle's for as long as it
//! has any revision. The 40 bits after `fd` are drawn once and then copied from any revision.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::resource::revision::Allocation;

/// The first id given to a container. 524288 to 1879048191 is the range that systemd sets aside
/// for containers (its UIDS-GIDS document).
pub const FIRST_ID: u32 = 524_288;
/// Ids per container.
pub const IDS_PER_CONTAINER: u32 = 65_536;
/// Containers that fit into systemd's range.
const ID_SLOTS: u32 = (1_879_048_192 - FIRST_ID) / IDS_PER_CONTAINER;
/// The private networks of IPv4 that a pool may be taken from: first byte, and range of the second.
const PRIVATE: [(u8, std::ops::RangeInclusive<u8>); 4] =
    [(10, 0..=255), (172, 16..=31), (192, 168..=168), (100, 64..=127)];
/// Networks of namespaces have lower numbers; the same with this added are their service addresses.
pub const SERVICES: u8 = 128;

/// What the IPv4 addresses of new networks are taken from: their first two bytes. A namespace keeps
/// the network it has, whatever is set later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool([u8; 2]);

/// Text that is no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPool {
    /// No network of IPv4.
    #[error("`{0}` is no IPv4 network; write e.g. 10.213.0.0/16")]
    NoNetwork(String),
    /// Too large or too small.
    #[error(
        "`{0}` is not as large as it has to be: write one with /16, e.g. 10.213.0.0/16 (128 namespaces of 253 bundles)"
    )]
    Size(String),
    /// Bits beyond the prefix.
    #[error("`{0}` is an address in a network; write the network itself, {1}")]
    Host(String, Pool),
    /// Somebody else's addresses.
    #[error(
        "`{0}` is no private network, so that bundles would hide others' addresses: write a /16 out of 10.0.0.0/8, \
         172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
    )]
    Public(String),
}

impl Default for Pool {
    fn default() -> Self {
        Self([10, 213])
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.0;
        write!(out, "{a}.{b}.0.0/16")
    }
}

impl FromStr for Pool {
    type Err = BadPool;

    fn from_str(text: &str) -> Result<Self, BadPool> {
        let no_network = || BadPool::NoNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(no_network)?;
        let [a, b, rest @ ..] = address.parse::<Ipv4Addr>().map_err(|_| no_network())?.octets();
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        match prefix.parse::<u8>().ok().filter(|prefix| is_number && *prefix <= 32).ok_or_else(no_network)? {
            16 => {}
            _ => return Err(BadPool::Size(text.to_owned())),
        }
        if !PRIVATE.iter().any(|(first, second)| *first == a && second.contains(&b)) {
            return Err(BadPool::Public(text.to_owned()));
        }
        let pool = Self([a, b]);
        if rest == [0, 0] { Ok(pool) } else { Err(BadPool::Host(text.to_owned(), pool)) }
    }
}

impl Pool {
    /// That of a namespace's network, or else of the next one to be made.
    pub fn of(held: &[Held], namespace: &str, next: Pool) -> Pool {
        let own = held.iter().find(|held| held.namespace == namespace);
        own.and_then(|own| Pool::around(&own.allocation)).unwrap_or(next)
    }

    /// That of an address of ours, IPv4.
    pub fn holding(address: IpAddr) -> Option<Pool> {
        match address {
            IpAddr::V4(address) => Some(Pool([address.octets()[0], address.octets()[1]])),
            IpAddr::V6(_) => None,
        }
    }

    /// That of an allocation.
    pub fn around(allocation: &Allocation) -> Option<Pool> {
        octets(&allocation.address).map(|[a, b, ..]| Pool([a, b]))
    }
}

/// There is no room for one more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All networks belong to other namespaces.
    #[error("all 128 namespace networks are in use: remove a namespace's bundles first")]
    Networks,
    /// All addresses of the namespace are held by revisions.
    #[error("all 253 addresses of this namespace are in use: remove bundles or old revisions first")]
    Addresses,
    /// All service addresses of the namespace are held by bundles.
    #[error("all 253 service addresses of this namespace are in use: remove bundles first")]
    Services,
    /// All id ranges are held by revisions.
    #[error("all user id ranges are in use: remove bundles or old revisions first")]
    Ids,
}

/// An allocation on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's namespace.
    pub namespace: String,
    /// The holder's bundle.
    pub bundle: String,
    /// The revision may have a unit, so that address and ids are in use; otherwise only network
    /// and service address are.
    pub in_use: bool,
    /// What it holds.
    pub allocation: Allocation,
}

/// Sets addresses, an id range and a link name aside for one more revision of a bundle. `pool` is for
/// a namespace that has no network yet, `drawn` are the random bits of the IPv6 network, for the case
/// that there is none at all.
pub fn allocate(
    held: &[Held],
    pool: Pool,
    namespace: &str,
    bundle: &str,
    drawn: [u8; 5],
) -> Result<Allocation, Exhausted> {
    let pool = Pool::of(held, namespace, pool);
    let network = network_number(held, namespace)?;
    let host = free_host(held, network)?;
    let service = service_number(held, namespace, bundle)?;
    let global = held.iter().find_map(|h| global_id(&h.allocation)).unwrap_or(drawn);
    let services = SERVICES + network;
    Ok(Allocation {
        address: v4(pool, network, host).to_string(),
        address6: v6(global, network, host).to_string(),
        service: v4(pool, services, service).to_string(),
        service6: v6(global, services, service).to_string(),
        id_base: free_ids(held)?,
        host_link: format!("bv{network}-{host}"),
    })
}

/// The third byte of an allocation's address: the number of its namespace's network.
pub fn network_of(allocation: &Allocation) -> Option<u8> {
    octets(&allocation.address).map(|bytes| bytes[2])
}

/// The bridge of a network.
pub fn bridge_name(network: u8) -> String {
    format!("berth{network}")
}

/// The machine's own address on the bridge of an allocation's network.
pub fn gateway(allocation: &Allocation) -> Option<Ipv4Addr> {
    Some(v4(Pool::around(allocation)?, network_of(allocation)?, 1))
}

/// The machine's own IPv6 address on the bridge of an allocation's network; none for a revision
/// from before there was IPv6.
pub fn gateway6(allocation: &Allocation) -> Option<Ipv6Addr> {
    Some(v6(global_id(allocation)?, network_of(allocation)?, 1))
}

/// The hardware address of a container's end of its link, made of its IPv4 address: neighbours
/// remember it over a restart, so it must be the same; and nobody else may send by it.
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}

fn v4(Pool([a, b]): Pool, network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, network, host)
}

fn v6(global: [u8; 5], network: u8, host: u8) -> Ipv6Addr {
    let [a, b, c, d, e] = global;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(pair(0xfd, a), pair(b, c), pair(d, e), network.into(), 0, 0, 0, host.into())
}

fn octets(address: &str) -> Option<[u8; 4]> {
    address.parse::<Ipv4Addr>().ok().map(|address| address.octets())
}

fn global_id(allocation: &Allocation) -> Option<[u8; 5]> {
    let [_, a, b, c, d, e, ..] = allocation.address6.parse::<Ipv6Addr>().ok()?.octets();
    Some([a, b, c, d, e])
}

fn network_number(held: &[Held], namespace: &str) -> Result<u8, Exhausted> {
    let own = held.iter().find(|h| h.namespace == namespace).and_then(|h| network_of(&h.allocation));
    let taken: BTreeSet<u8> = held.iter().filter_map(|h| network_of(&h.allocation)).collect();
    own.or_else(|| (0..SERVICES).find(|n| !taken.contains(n))).ok_or(Exhausted::Networks)
}

fn free_host(held: &[Held], network: u8) -> Result<u8, Exhausted> {
    let used = held.iter().filter(|h| h.in_use).filter_map(|h| octets(&h.allocation.address));
    let taken: BTreeSet<u8> = used.filter(|bytes| bytes[2] == network).map(|bytes| bytes[3]).collect();
    (2..=254).find(|host| !taken.contains(host)).ok_or(Exhausted::Addresses)
}

fn service_number(held: &[Held], namespace: &str, bundle: &str) -> Result<u8, Exhausted> {
    let here = held.iter().filter(|h| h.namespace == namespace);
    let numbers = here.filter_map(|h| Some((h.bundle.as_str(), octets(&h.allocation.service)?[3])));
    let numbers: Vec<(&str, u8)> = numbers.collect();
    let own = numbers.iter().find(|(owner, _)| *owner == bundle).map(|(_, number)| *number);
    let free = || (2..=254).find(|host| numbers.iter().all(|(_, taken)| taken != host));
    own.or_else(free).ok_or(Exhausted::Services)
}

fn free_ids(held: &[Held]) -> Result<u32, Exhausted> {
    let taken: BTreeSet<u32> = held.iter().filter(|h| h.in_use).map(|h| h.allocation.id_base).collect();
    (0..ID_SLOTS)
        .map(|slot| FIRST_ID + slot * IDS_PER_CONTAINER)
        .find(|base| !taken.contains(base))
        .ok_or(Exhausted::Ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: [u8; 5] = [1, 2, 3, 4, 5];

    fn hold(held: &mut Vec<Held>, namespace: &str, bundle: &str) -> Allocation {
        let allocation = allocate(held, Pool::default(), namespace, bundle, DRAWN).unwrap();
        let (namespace, bundle) = (namespace.into(), bundle.into());
        held.push(Held { namespace, bundle, in_use: true, allocation: allocation.clone() });
        allocation
    }

    #[test]
    fn two_bundles_of_a_namespace_share_a_network_and_nothing_else() {
        let mut held = Vec::new();
        let (a, b) = (hold(&mut held, "default", "a"), hold(&mut held, "default", "b"));
        assert_eq!((a.address.as_str(), b.address.as_str()), ("10.213.0.2", "10.213.0.3"));
        assert_eq!((a.address6.as_str(), b.address6.as_str()), ("fd01:203:405::2", "fd01:203:405::3"));
        assert_eq!((a.service.as_str(), b.service.as_str()), ("10.213.128.2", "10.213.128.3"));
        assert_eq!(b.service6, "fd01:203:405:80::3");
        assert_eq!((a.id_base, b.id_base), (524_288, 589_824));
        assert_eq!((a.host_link.as_str(), b.host_link.as_str()), ("bv0-2", "bv0-3"));
    }

    #[test]
    fn another_namespace_gets_another_network_with_the_same_random_bits() {
        let mut held = Vec::new();
        hold(&mut held, "default", "a");
        let other = allocate(&held, Pool::default(), "team", "a", [9; 5]).unwrap();
        assert_eq!((other.address.as_str(), other.address6.as_str()), ("10.213.1.2", "fd01:203:405:1::2"));
        assert_eq!(gateway6(&other).unwrap().to_string(), "fd01:203:405:1::1");
    }

    #[test]
    fn the_next_revision_has_another_address_and_the_same_service_address() {
        let mut held = Vec::new();
        let (first, second) = (hold(&mut held, "default", "a"), hold(&mut held, "default", "a"));
        assert_ne!(first.address, second.address);
        assert_eq!((&first.service, &first.service6), (&second.service, &second.service6));
    }

    #[test]
    fn what_is_given_back_is_given_out_again_except_service_address_and_network() {
        let mut held = Vec::new();
        let first = hold(&mut held, "default", "a");
        held[0].in_use = false;
        let other = hold(&mut held, "default", "b");
        assert_eq!((&first.address, first.id_base), (&other.address, other.id_base));
        assert_ne!(first.service, other.service);
        assert_eq!(hold(&mut held, "team", "a").address, "10.213.1.2");
        held.clear();
        assert_eq!(hold(&mut held, "default", "b").service, first.service);
    }

    #[test]
    fn another_pool_is_for_namespaces_that_have_no_network_yet() {
        let mut held = Vec::new();
        hold(&mut held, "default", "a");
        let pool: Pool = "172.20.0.0/16".parse().unwrap();
        let stays = allocate(&held, pool, "default", "b", DRAWN).unwrap();
        assert_eq!((stays.address.as_str(), stays.service.as_str()), ("10.213.0.3", "10.213.128.3"));
        let new = allocate(&held, pool, "team", "a", DRAWN).unwrap();
        assert_eq!((new.address.as_str(), new.service.as_str()), ("172.20.1.2", "172.20.129.2"));
        assert_eq!(gateway(&new).unwrap().to_string(), "172.20.1.1");
        assert_eq!((Pool::of(&held, "default", pool), Pool::of(&held, "team", pool)), (Pool::default(), pool));
    }

    #[test]
    fn a_pool_is_a_private_network_of_one_size() {
        for text in ["10.213.0.0/16", "172.31.0.0/16", "192.168.0.0/16", "100.100.0.0/16"] {
            assert_eq!(text.parse::<Pool>().unwrap().to_string(), text);
        }
        for (text, said) in [
            ("10.213.0.0", "is no IPv4 network"),
            ("fd00::/16", "is no IPv4 network"),
            ("10.213.0.0/+16", "is no IPv4 network"),
            ("10.213.0.0/24", "is not as large as it has to be"),
            ("10.0.0.0/8", "is not as large as it has to be"),
            ("10.213.7.1/16", "write the network itself, 10.213.0.0/16"),
            ("8.8.0.0/16", "is no private network"),
            ("172.32.0.0/16", "is no private network"),
        ] {
            let error = text.parse::<Pool>().unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_full_namespace_says_so() {
        let mut held = Vec::new();
        for _ in 0..253 {
            hold(&mut held, "default", "a");
        }
        assert_eq!(allocate(&held, Pool::default(), "default", "a", DRAWN), Err(Exhausted::Addresses));
        assert!(allocate(&held, Pool::default(), "team", "a", DRAWN).is_ok());
    }

    #[test]
    fn a_namespace_has_room_for_as_many_bundles_as_service_addresses() {
        let mut held = Vec::new();
        for number in 0..253 {
            hold(&mut held, "default", &number.to_string());
        }
        held[0].in_use = false;
        assert_eq!(allocate(&held, Pool::default(), "default", "one-more", DRAWN), Err(Exhausted::Services));
        assert!(allocate(&held, Pool::default(), "default", "7", DRAWN).is_ok());
    }

    #[test]
    fn the_longest_link_name_fits_the_kernel() {
        assert!("bv255-254".len() <= 15);
    }
}
