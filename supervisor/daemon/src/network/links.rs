//! `bridge berth`: no link can send in another's name, and none to another directly.
//!
//! ```text
//!  prerouting   what comes from a container's link carries the link's own hardware address, and its
//!               own IP address, in ARP too; no announcements of routers or neighbours
//!  across       nothing from one link of a bridge to another: packets go through the machine, where
//!               `inet berth` sees them
//! ```

use std::net::IpAddr;

use berth_host::nft::expr::MetaKey;
use berth_host::nft::schema::SetType;
use berth_host::nft::types::{NfChainType, NfFamily, NfHook};
use berth_host::nft::{Ruleset, accept, address, any_of, drop, equal, field, goto, meta, text, unequal};
use berth_model::network::{End, Plan};

use super::rules::TABLE;
use super::words::{Expr, Family, Stmt, hook, joined};

/// Every container's link.
const LINKS: &str = "bv*";

/// The whole table.
pub(super) fn table(plan: &Plan) -> Ruleset {
    let ends: Vec<&End> = plan.members.iter().flat_map(|member| &member.ends).collect();
    across(checks(sets(Ruleset::new(NfFamily::Bridge, TABLE), &ends)))
}

fn sets(rules: Ruleset, ends: &[&End]) -> Ruleset {
    let hardware = ends.iter().filter_map(|end| Some(joined([text(&*end.link), text(shown(end.hardware()?))])));
    let rules = rules.set("links", &[SetType::Ifname, SetType::EtherAddr], false, hardware.collect());
    let pairs = |family: Family| -> Vec<Expr> {
        let own = |end: &End| {
            let all = end.addresses.iter().copied().chain(end.link_local().map(IpAddr::V6));
            family.of(all).into_iter().map(|one| joined([text(&*end.link), address(one)])).collect::<Vec<_>>()
        };
        ends.iter().flat_map(|end| own(end)).collect()
    };
    rules.set("addresses4", &[SetType::Ifname, SetType::Ipv4Addr], false, pairs(Family::V4)).set(
        "addresses6",
        &[SetType::Ifname, SetType::Ipv6Addr],
        false,
        pairs(Family::V6),
    )
}

fn checks(rules: Ruleset) -> Ruleset {
    let announcements = ["nd-router-advert", "nd-neighbor-advert", "nd-redirect"].map(text);
    let announced = equal(field("icmpv6", "type"), any_of(announcements.into()));
    let arp = equal(field("arp", "operation"), any_of(vec![text("request"), text("reply")]));
    rules
        .chain("prerouting", hook(NfChainType::Filter, NfHook::Prerouting, -300))
        .chain("link", None)
        .rule("prerouting", "links of containers", vec![equal(meta(MetaKey::Iifname), text(LINKS)), goto("link")])
        .rule(
            "link",
            "the link's own hardware address",
            vec![unequal(by(field("ether", "saddr")), text("@links")), drop()],
        )
        .rule(
            "link",
            "ARP in its own name",
            vec![
                arp,
                equal(by(field("arp", "saddr ether")), text("@links")),
                equal(by(field("arp", "saddr ip")), Family::V4.at("addresses")),
                accept(),
            ],
        )
        .rule("link", "no announcements: neighbours are known", vec![announced, drop()])
        .rule("link", "its own IPv4 address", own_address(Family::V4))
        .rule("link", "its own IPv6 addresses", own_address(Family::V6))
        .rule("link", "nothing else", vec![drop()])
}

fn own_address(family: Family) -> Vec<Stmt> {
    vec![equal(by(family.source()), family.at("addresses")), accept()]
}

/// Together with the link a frame came by.
fn by(what: Expr) -> Expr {
    joined([meta(MetaKey::Iifname), what])
}

fn across(rules: Ruleset) -> Ruleset {
    rules.chain("across", hook(NfChainType::Filter, NfHook::Forward, 0)).rule(
        "across",
        "only through the machine",
        vec![equal(meta(MetaKey::Iifname), text(LINKS)), drop()],
    )
}

fn shown(hardware: [u8; 6]) -> String {
    hardware.map(|byte| format!("{byte:02x}")).join(":")
}
