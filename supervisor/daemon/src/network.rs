//! The machine's network for bundles, as the kernel is told it: bridges, neighbours and nftables'
//! tables, all rendered from one [`Plan`].
//!
//! ```text
//!  store --Facts--> Plan (model::network) --tables--> `inet berth`, `bridge berth`: one transaction
//!                     |                   --segments-> bridges with their addresses and neighbours
//!                     '---------- Zone ----------> the file that `berth-dns` reads
//! ```
//!
//! Nothing is remembered between two runs: everything is read from the store and rendered whole.
//! Established flows survive a swap, as connection tracking does not belong to the tables.

mod links;
pub mod rules;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_host::link::{BadNetwork, Network, Route};
use berth_model::allocation::{Pool, SERVICES, bridge_name};
use berth_model::network::{Facts, Plan};
use berth_model::resource::Namespace;
use berth_model::resource::settings::{self, Settings};
use berth_model::resource::{Bundle, Revision};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::store::{Store, StoreError};

/// A bridge with all that is known of it beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub bridge: String,
    /// The machine's addresses on it, with their prefixes. Those among the service addresses are
    /// there so that packets to a service that is down go no further than this machine.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Who has which hardware address: told, so that nobody is asked, and nobody can lie.
    pub neighbours: BTreeMap<IpAddr, [u8; 6]>,
}

/// What the store says of the network.
///
/// # Errors
/// The store cannot be read.
pub async fn plan(store: &Store) -> Result<Plan, StoreError> {
    let facts = store.read(|tx| {
        Ok::<_, StoreError>(Facts {
            bundles: tx.list::<Bundle>(None)?,
            revisions: tx.list::<Revision>(None)?,
            namespaces: tx.list::<Namespace>(None)?,
            policies: tx.list::<NetworkPolicy>(None)?,
            settings: tx.get::<Settings>("", settings::NAME)?.map(|found| found.spec.network).unwrap_or_default(),
        })
    });
    Ok(Plan::of(&facts.await?))
}

/// The bridges of a plan.
pub fn segments(plan: &Plan) -> Vec<Segment> {
    let segments = plan.networks.iter().map(|network| {
        let own = network.gateways.iter();
        let addresses = own.flat_map(|gateway| [*gateway, among_services(*gateway)]);
        let here = plan.members.iter().filter(|member| member.name.namespace == network.namespace);
        let ends = here.flat_map(|member| &member.ends);
        let neighbours =
            ends.flat_map(|end| end.addresses.iter().filter_map(|address| Some((*address, end.hardware()?))));
        Segment {
            bridge: bridge_name(network.number),
            addresses: addresses.map(|address| (address, if address.is_ipv4() { 24 } else { 64 })).collect(),
            neighbours: neighbours.collect(),
        }
    });
    segments.collect()
}

/// Where pools overlap what is reached by links that are not ours, a sentence each.
///
/// # Errors
/// None that can come about: a pool is a network.
pub fn overlaps(pools: &[Pool], reached: impl Iterator<Item = Route>) -> Result<Vec<String>, BadNetwork> {
    // A link's address and the route to its network are one and the same to people.
    let mut found = BTreeSet::new();
    for Route { link, network } in reached.filter(|route| !is_ours(&route.link)) {
        let other = Network::new(network.first(), network.prefix())?;
        let by = if link.is_empty() { "several links".to_owned() } else { format!("link {link}") };
        for pool in pools {
            if pool.to_string().parse::<Network>()?.overlaps(&other) {
                found.insert(format!(
                    "the addresses of bundles, {pool}, overlap {other}, which is reached by {by}: one hides the other"
                ));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Bridges of namespaces, and the containers' links on them.
pub fn is_ours(link: &str) -> bool {
    let numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    link.strip_prefix("berth").or_else(|| link.strip_prefix("bv")).is_some_and(numbered)
}

/// The same address in the network of the namespace's service addresses.
fn among_services(gateway: IpAddr) -> IpAddr {
    match gateway {
        IpAddr::V4(address) => {
            let [a, b, network, host] = address.octets();
            IpAddr::from([a, b, network.saturating_add(SERVICES), host])
        }
        IpAddr::V6(address) => {
            let mut parts = address.segments();
            parts[3] = parts[3].saturating_add(SERVICES.into());
            IpAddr::from(parts)
        }
    }
}

#[cfg(test)]
mod tests;
