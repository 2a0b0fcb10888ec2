//! Who may reach whom, as one plain value.
//!
//! ```text
//!  bundles, revisions, namespaces, policies --plan--> Plan --daemon--> nftables' rules
//!                                                      |---decide----> `berth policy debug`
//!                                                      '---zone------> names that may be looked up
//! ```
//!
//! A packet passes two gates: that of the bundle it comes from and that of the bundle it goes to.
//! A gate that no NetworkPolicy selects has the default. Outbound: any bundle (its own gate
//! decides), and outside what the bundle's `egress` names. Inbound: declared ports, for bundles
//! of the same namespace that declare a dependency, and published ones for the outside; in a
//! namespace that the settings open, every port for every bundle of it. A gate
//! that policies select lets through what one of them allows, and nothing else; `egress` stays
//! the outer bound in any case. Answers to what was let through are always let through.

mod decide;
mod plan;
mod policy;
mod ranges;
mod report;
mod zone;

#[cfg(test)]
mod testing;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use decide::{Reason, Verdict};
pub use plan::Facts;
pub use policy::{MAX_RULES, MAX_TERMS, validate};
pub use ranges::{BadBlock, Ranges};
pub use report::{Lookup, MemberReport, NetworkReport, NetworkStatus, UnknownParty, Verdicts};
pub use zone::{Answer, DOMAIN, Host, Query, Service, Zone};

use crate::allocation::hardware_address;
use crate::resource::bundle::{Egress, Protocol};

/// Port of the name server on every bridge.
pub const DNS_PORT: u16 = 53;
/// Networks that are not the public internet; link-local ones apart.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
/// Where clouds keep what they tell their machines.
const LINK_LOCAL: [&str; 3] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"];
/// Everything that is no public address for other reasons: this machine, groups, reserved ranges.
const NOWHERE: [&str; 7] = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "ff00::/8"];

/// A bundle's name with its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Bundle, or policy.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// The whole network of bundles on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Networks in use, by number.
    pub networks: Vec<Network>,
    /// Bundles that have addresses, by name.
    pub members: Vec<Member>,
    /// Policies, by name.
    pub policies: Vec<Policy>,
    /// What could not be done as asked, for people.
    pub problems: Vec<String>,
    /// The machine's neighbours are told its name.
    pub multicast_dns: bool,
}

/// One namespace's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its number.
    pub number: u8,
    /// Whose it is.
    pub namespace: String,
    /// The machine's addresses on its bridge.
    pub gateways: Vec<IpAddr>,
    /// Its bundles reach one another without a declared dependency.
    pub open: bool,
}

/// A bundle on the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which.
    pub name: Name,
    /// One for each revision that may have a unit.
    pub ends: Vec<End>,
    /// Its own addresses, whichever revision serves.
    pub service: Vec<IpAddr>,
    /// Positions among the members of those that declare a dependency on it.
    pub dependents: Vec<usize>,
    /// What it may reach outside.
    pub egress: Egress,
    /// Positions of the policies that select it for what comes in; empty for the default.
    pub inbound: Vec<usize>,
    /// The same for what goes out.
    pub outbound: Vec<usize>,
}

/// The end of a link: a revision's network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Number of the revision.
    pub revision: u64,
    /// Name of the link's other end, on the bridge.
    pub link: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The revision serves, as it is meant to.
    pub serves: bool,
    /// Ports it declares.
    pub ports: Vec<Port>,
}

/// A declared port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
    /// The machine's port that leads to it.
    pub published: Option<u16>,
}

/// A NetworkPolicy, with what its selectors choose at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which.
    pub name: Name,
    /// For what comes in, if it is about that.
    pub inbound: Option<Vec<Rule>>,
    /// For what goes out, if it is about that.
    pub outbound: Option<Vec<Rule>>,
}

/// One rule of a policy: both parts must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its place in the policy, from 0.
    pub number: usize,
    /// Who may be at the other end; anybody if absent.
    pub far: Option<Ranges>,
    /// Ports that are allowed; every one if empty.
    pub ports: Vec<PortMatch>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Ranges in order; none for every port.
    pub numbers: Vec<(u16, u16)>,
    /// A port by name holds for these destinations only.
    pub at: Option<Ranges>,
}

impl End {
    /// The only hardware address that may send through the link.
    pub fn hardware(&self) -> Option<[u8; 6]> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(hardware_address(*address)),
            IpAddr::V6(_) => None,
        })
    }

    /// The address that the kernel inside gives its link by itself, made of the hardware address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let [a, b, c, d, e, f] = self.hardware()?;
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Some(Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f)))
    }
}

impl Member {
    /// All its addresses, of every revision.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ends.iter().flat_map(|end| end.addresses.iter().copied())
    }

    /// The end that the service address leads to.
    pub fn serving(&self) -> Option<&End> {
        self.ends.iter().find(|end| end.serves)
    }
}

impl Plan {
    /// All addresses that are, or could be, those of bundles, of the pools that have a network in use.
    pub fn ours(&self) -> Ranges {
        let gateways = self.networks.iter().flat_map(|network| &network.gateways);
        let blocks: Vec<String> =
            gateways.map(|gateway| format!("{gateway}/{}", if gateway.is_ipv4() { 16 } else { 48 })).collect();
        Ranges::blocks(&blocks.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What an egress class lets out. Bundles' own addresses are in none of them.
    pub fn outside(&self, class: Egress) -> Ranges {
        let everywhere = Ranges::blocks(&["0.0.0.0/0", "::/0"]).without(&Ranges::blocks(&NOWHERE));
        let (private, link_local) = (Ranges::blocks(&PRIVATE), Ranges::blocks(&LINK_LOCAL));
        let allowed = match class {
            Egress::None => Ranges::default(),
            Egress::Internet => everywhere.without(&private).without(&link_local),
            Egress::Lan => private.without(&link_local),
            Egress::All => everywhere,
        };
        allowed.without(&self.ours())
    }

    /// The bundle that has this address as its own; service addresses are not.
    pub fn owner(&self, address: IpAddr) -> Option<(&Member, &End)> {
        let mut ends = self.members.iter().flat_map(|member| member.ends.iter().map(move |end| (member, end)));
        ends.find(|(_, end)| end.addresses.contains(&address))
    }

    /// Whether the bundles of a namespace reach one another without a declared dependency.
    pub fn is_open(&self, namespace: &str) -> bool {
        self.networks.iter().any(|network| network.open && network.namespace == namespace)
    }

    /// A bundle by its name.
    pub fn member(&self, name: &Name) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.name.cmp(name)).ok()?;
        self.members.get(at)
    }
}

impl Rule {
    /// Whether it allows this, seen from the gate it is at.
    pub fn allows(&self, far: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let hit = |one: &PortMatch| {
            one.protocol == protocol
                && (one.numbers.is_empty() || one.numbers.iter().any(|(a, b)| (*a..=*b).contains(&port)))
                && one.at.as_ref().is_none_or(|at| at.holds(to))
        };
        self.far.as_ref().is_none_or(|who| who.holds(far)) && (self.ports.is_empty() || self.ports.iter().any(hit))
    }
}
