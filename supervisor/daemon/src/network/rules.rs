//! The nftables table, rendered. Pure; compared with a golden file and loaded for real in the tests.
//!
//! ```text
//!  prerouting, output   a published port of this machine -> address and port, looked up in maps
//!  forward              replies; published ports; bundles to the outside; nothing else to or
//!                       from a bridge of ours, and nothing from one bridge to another
//!  postrouting          what leaves for the outside, or comes back in through a published port,
//!                       carries the machine's own address
//! ```
//!
//! The maps are empty rather than absent when nothing is published, so that the rules are always the
//! same and packets cost the same however many services there are.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use berth_host::nft::expr::{CT, Expression, Fib, FibFlag, FibResult, MetaKey, NamedExpression, Prefix};
use berth_host::nft::schema::SetType;
use berth_host::nft::stmt::{Accept, Drop, NAT, NATFamily, Operator, Statement};
use berth_host::nft::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use berth_host::nft::{Hook, Ruleset, address, equal, field, lookup, matching, meta, number, text, unequal};
use berth_model::allocation::NETWORK_PREFIX;
use berth_model::resource::bundle::Protocol;

use super::State;

/// Name of the table, in family `inet`.
pub const TABLE: &str = "berth";
/// Every bridge of ours.
const BRIDGES: &str = "berth*";

type Expr = Expression<'static>;
type Stmt = Statement<'static>;

/// The whole table.
pub fn table(state: &State) -> Ruleset {
    let rules = Ruleset::new(NfFamily::INet, TABLE);
    let rules = published(published(rules, state, Protocol::Tcp), state, Protocol::Udp);
    let rules = destination(rules, "prerouting", NfHook::Prerouting);
    let rules = destination(rules, "output", NfHook::Output);
    postrouting(forward(rules))
}

/// Names of the maps from a port of this machine to a container's address and port.
fn map_names(protocol: Protocol) -> [&'static str; 2] {
    match protocol {
        Protocol::Tcp => ["tcp_address", "tcp_port"],
        Protocol::Udp => ["udp_address", "udp_port"],
    }
}

fn published(rules: Ruleset, state: &State, protocol: Protocol) -> Ruleset {
    let own = state.published.iter().filter(|one| one.protocol == protocol);
    let addresses = own.clone().map(|one| (number(one.host_port), address(IpAddr::V4(one.address)))).collect();
    let ports = own.map(|one| (number(one.host_port), number(one.port))).collect();
    let [address_map, port_map] = map_names(protocol);
    rules.map(address_map, &[SetType::InetService], SetType::Ipv4Addr, addresses).map(
        port_map,
        &[SetType::InetService],
        SetType::InetService,
        ports,
    )
}

/// `priority` as nft's names have it: -100 dstnat, 0 filter, 100 srcnat.
fn hook(kind: NfChainType, hook: NfHook, priority: i32) -> Option<Hook> {
    Some(Hook { kind, hook, priority, policy: NfChainPolicy::Accept })
}

/// Packets for this machine itself, from outside or made here. Loopback is left alone: the kernel
/// drops what it would have to route from 127.0.0.0/8.
fn destination(rules: Ruleset, chain: &'static str, at: NfHook) -> Ruleset {
    let to = |protocol: Protocol, word: &'static str| {
        let [addr, port] = map_names(protocol).map(|map| Some(lookup(field(word, "dport"), map)));
        let nat = NAT { addr, family: Some(NATFamily::IP), port, flags: None };
        vec![
            equal(meta(MetaKey::Nfproto), text("ipv4")),
            unequal(field("ip", "daddr"), prefix([127, 0, 0, 0], 8)),
            equal(kind_of_destination(), text("local")),
            equal(meta(MetaKey::L4proto), text(word)),
            Statement::DNAT(Some(nat)),
        ]
    };
    rules
        .chain(chain, hook(NfChainType::NAT, at, -100))
        .rule(chain, "published TCP ports", to(Protocol::Tcp, "tcp"))
        .rule(chain, "published UDP ports", to(Protocol::Udp, "udp"))
}

fn forward(rules: Ruleset) -> Ruleset {
    let replies = Expression::List(vec![text("established"), text("related")]);
    let replies = matching(conntrack("state"), Operator::IN, replies);
    rules
        .chain("forward", hook(NfChainType::Filter, NfHook::Forward, 0))
        .rule("forward", "replies", vec![replies, accept()])
        .rule("forward", "published ports", vec![to_us(), redirected(), accept()])
        .rule("forward", "bundles to the outside", vec![from_us(), leaves(), accept()])
        .rule("forward", "nothing else to a bundle", vec![to_us(), drop()])
}

fn postrouting(rules: Ruleset) -> Ruleset {
    let ours = || equal(field("ip", "saddr"), prefix([NETWORK_PREFIX[0], NETWORK_PREFIX[1], 0, 0], 16));
    let masquerade = || Statement::Masquerade(None);
    rules
        .chain("postrouting", hook(NfChainType::NAT, NfHook::Postrouting, 100))
        .rule("postrouting", "to the outside", vec![ours(), leaves(), masquerade()])
        .rule("postrouting", "back in by a published port", vec![ours(), to_us(), redirected(), masquerade()])
}

fn from_us() -> Stmt {
    equal(meta(MetaKey::Iifname), text(BRIDGES))
}

fn to_us() -> Stmt {
    equal(meta(MetaKey::Oifname), text(BRIDGES))
}

fn leaves() -> Stmt {
    unequal(meta(MetaKey::Oifname), text(BRIDGES))
}

/// The packet's connection was led here by a published port.
fn redirected() -> Stmt {
    matching(conntrack("status"), Operator::IN, text("dnat"))
}

fn accept() -> Stmt {
    Statement::Accept(Some(Accept {}))
}

fn drop() -> Stmt {
    Statement::Drop(Some(Drop {}))
}

fn conntrack(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn prefix(first: [u8; 4], len: u32) -> Expr {
    let addr = Box::new(address(IpAddr::V4(Ipv4Addr::from(first))));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
}

/// `local` for an address of this machine.
fn kind_of_destination() -> Expr {
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags: HashSet::from([FibFlag::Daddr]) }))
}
