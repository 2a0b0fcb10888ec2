//! Addresses and id ranges, handed out from what is already in use.
//!
//! Nothing is stored but the allocations themselves, inside the revisions that hold them: a
//! namespace's network number is the second byte of any of its revisions' addresses, and a
//! namespace without revisions needs none.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::resource::revision::Allocation;

/// The first id given to a container. 524288 to 1879048191 is the range that systemd sets aside
/// for containers (its UIDS-GIDS document).
pub const FIRST_ID: u32 = 524_288;
/// Ids per container.
pub const IDS_PER_CONTAINER: u32 = 65_536;
/// Containers that fit into systemd's range.
const ID_SLOTS: u32 = (1_879_048_192 - FIRST_ID) / IDS_PER_CONTAINER;
/// The first two bytes of every container's address.
pub const NETWORK_PREFIX: [u8; 2] = [10, 213];

/// There is no room for one more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All 256 networks belong to other namespaces.
    #[error("all 256 namespace networks are in use: remove a namespace's bundles first")]
    Networks,
    /// All addresses of the namespace are held by revisions.
    #[error("all 253 addresses of this namespace are in use: remove bundles or old revisions first")]
    Addresses,
    /// All id ranges are held by revisions.
    #[error("all user id ranges are in use: remove bundles or old revisions first")]
    Ids,
}

/// An allocation that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's namespace.
    pub namespace: String,
    /// What it holds.
    pub allocation: Allocation,
}

/// Sets an address, an id range and a link name aside for one more revision in `namespace`.
pub fn allocate(held: &[Held], namespace: &str) -> Result<Allocation, Exhausted> {
    let network = network_number(held, namespace)?;
    let host = free_host(held, network)?;
    Ok(Allocation {
        address: Ipv4Addr::new(NETWORK_PREFIX[0], NETWORK_PREFIX[1], network, host).to_string(),
        id_base: free_ids(held)?,
        host_link: format!("bv{network}-{host}"),
    })
}

/// The third byte of an allocation's address: the number of its namespace's network.
pub fn network_of(allocation: &Allocation) -> Option<u8> {
    octets(allocation).map(|bytes| bytes[2])
}

/// The bridge of a network.
pub fn bridge_name(network: u8) -> String {
    format!("berth{network}")
}

/// The machine's own address on a network's bridge.
pub fn gateway(network: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK_PREFIX[0], NETWORK_PREFIX[1], network, 1)
}

fn octets(allocation: &Allocation) -> Option<[u8; 4]> {
    allocation.address.parse::<Ipv4Addr>().ok().map(|address| address.octets())
}

fn network_number(held: &[Held], namespace: &str) -> Result<u8, Exhausted> {
    let own = held.iter().find(|h| h.namespace == namespace).and_then(|h| network_of(&h.allocation));
    let taken: BTreeSet<u8> = held.iter().filter_map(|h| network_of(&h.allocation)).collect();
    own.or_else(|| (0..=255).find(|n| !taken.contains(n))).ok_or(Exhausted::Networks)
}

fn free_host(held: &[Held], network: u8) -> Result<u8, Exhausted> {
    let taken: BTreeSet<u8> = held
        .iter()
        .filter_map(|h| octets(&h.allocation))
        .filter(|bytes| bytes[2] == network)
        .map(|bytes| bytes[3])
        .collect();
    (2..=254).find(|host| !taken.contains(host)).ok_or(Exhausted::Addresses)
}

fn free_ids(held: &[Held]) -> Result<u32, Exhausted> {
    let taken: BTreeSet<u32> = held.iter().map(|h| h.allocation.id_base).collect();
    (0..ID_SLOTS)
        .map(|slot| FIRST_ID + slot * IDS_PER_CONTAINER)
        .find(|base| !taken.contains(base))
        .ok_or(Exhausted::Ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(held: &mut Vec<Held>, namespace: &str) -> Allocation {
        let allocation = allocate(held, namespace).unwrap();
        held.push(Held { namespace: namespace.into(), allocation: allocation.clone() });
        allocation
    }

    #[test]
    fn two_bundles_of_a_namespace_share_a_network_and_nothing_else() {
        let mut held = Vec::new();
        let (a, b) = (hold(&mut held, "default"), hold(&mut held, "default"));
        assert_eq!((a.address.as_str(), b.address.as_str()), ("10.213.0.2", "10.213.0.3"));
        assert_eq!((a.id_base, b.id_base), (524_288, 589_824));
        assert_eq!((a.host_link.as_str(), b.host_link.as_str()), ("bv0-2", "bv0-3"));
    }

    #[test]
    fn another_namespace_gets_another_network() {
        let mut held = Vec::new();
        hold(&mut held, "default");
        assert_eq!(hold(&mut held, "team").address, "10.213.1.2");
    }

    #[test]
    fn what_is_given_back_is_given_out_again() {
        let mut held = Vec::new();
        let first = hold(&mut held, "default");
        hold(&mut held, "default");
        held.remove(0);
        assert_eq!(hold(&mut held, "default"), first);
    }

    #[test]
    fn a_full_namespace_says_so() {
        let mut held = Vec::new();
        for _ in 0..253 {
            hold(&mut held, "default");
        }
        assert_eq!(allocate(&held, "default"), Err(Exhausted::Addresses));
        assert!(allocate(&held, "team").is_ok());
    }

    #[test]
    fn the_longest_link_name_fits_the_kernel() {
        assert!("bv255-254".len() <= 15);
    }
}
