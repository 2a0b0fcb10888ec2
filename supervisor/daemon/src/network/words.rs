//! The few words that both tables are written in.

use std::net::IpAddr;

use berth_host::nft::expr::{Expression, MetaKey};
use berth_host::nft::stmt::{Operator, Statement};
use berth_host::nft::types::{NfChainPolicy, NfChainType, NfHook};
use berth_host::nft::{Hook, address, any_of, concat, conntrack, equal, field, matching, meta, range, text, unequal};
use berth_model::network::Ranges;
use berth_model::resource::bundle::Protocol;

pub(super) type Expr = Expression<'static>;
pub(super) type Stmt = Statement<'static>;

/// Every bridge of ours.
const BRIDGES: &str = "berth*";

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn is_v4(self) -> bool {
        self == Self::V4
    }

    /// As headers are called.
    pub(super) fn header(self) -> &'static str {
        if self.is_v4() { "ip" } else { "ip6" }
    }

    /// As the network protocol is called.
    pub(super) fn protocol(self) -> &'static str {
        if self.is_v4() { "ipv4" } else { "ipv6" }
    }

    /// A set's name for this family.
    pub(super) fn named(self, name: &str) -> String {
        format!("{name}{}", if self.is_v4() { 4 } else { 6 })
    }

    /// The name as a rule refers to it.
    pub(super) fn at(self, name: &str) -> Expr {
        text(format!("@{}", self.named(name)))
    }

    pub(super) fn of(self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        addresses.into_iter().filter(|address| address.is_ipv4() == self.is_v4()).collect()
    }

    /// The first of them, if there is one.
    pub(super) fn first(self, addresses: &[IpAddr]) -> Option<IpAddr> {
        addresses.iter().copied().find(|address| address.is_ipv4() == self.is_v4())
    }

    pub(super) fn source(self) -> Expr {
        field(self.header(), "saddr")
    }

    pub(super) fn destination(self) -> Expr {
        field(self.header(), "daddr")
    }

    /// What rules match for a set of addresses, if it has any of this family.
    pub(super) fn ranges(self, ranges: &Ranges) -> Option<Expr> {
        let pairs = ranges.pairs(self.is_v4()).into_iter();
        let pairs: Vec<Expr> = pairs.map(|(first, last)| range(address(first), address(last))).collect();
        (!pairs.is_empty()).then(|| any_of(pairs))
    }
}

pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `priority` as nft's names have it: -300 bridge dstnat, -100 dstnat, 0 filter, 100 srcnat.
pub(super) fn hook(kind: NfChainType, hook: NfHook, priority: i32) -> Option<Hook> {
    Some(Hook { kind, hook, priority, policy: NfChainPolicy::Accept })
}

pub(super) fn from_us() -> Stmt {
    equal(meta(MetaKey::Iifname), text(BRIDGES))
}

pub(super) fn from_elsewhere() -> Stmt {
    unequal(meta(MetaKey::Iifname), text(BRIDGES))
}

pub(super) fn to_us() -> Stmt {
    equal(meta(MetaKey::Oifname), text(BRIDGES))
}

pub(super) fn to_elsewhere() -> Stmt {
    unequal(meta(MetaKey::Oifname), text(BRIDGES))
}

pub(super) fn replies() -> Stmt {
    let replies = Expression::List(vec![text("established"), text("related")]);
    matching(conntrack("state"), Operator::IN, replies)
}

pub(super) fn broken() -> Stmt {
    matching(conntrack("state"), Operator::IN, text("invalid"))
}

/// The packet's connection was led here by a published port or a service address.
pub(super) fn redirected() -> Stmt {
    matching(conntrack("status"), Operator::IN, text("dnat"))
}

/// Protocol and port a packet goes to.
pub(super) fn transport() -> [Expr; 2] {
    [meta(MetaKey::L4proto), field("th", "dport")]
}

pub(super) fn joined(parts: impl IntoIterator<Item = Expr>) -> Expr {
    concat(parts.into_iter().collect())
}
