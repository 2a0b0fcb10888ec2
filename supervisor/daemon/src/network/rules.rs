//! `inet berth`, rendered. Pure; compared with golden files and loaded for real in the tests.
//!
//! ```text
//!  prerouting, output   a published port, or a service address -> the revision that serves
//!  forward              answers; then the sender's gate, then the receiver's
//!    outbound             one set per egress class; bundles that policies select have a chain
//!    inbound              declared and published ports, by sets; or the bundle's chain of policies
//!  input                the name server of the bridge, and nothing else of this machine
//!  output (redirects)   containers are not told of shorter ways, there are none
//!  postrouting          what leaves carries the machine's own address, and so does what a bundle
//!                       sends to itself by its service address
//! ```
//!
//! Everything without a policy is looked up in sets and maps, so that packets cost the same however
//! many services there are. All traffic between bundles is routed through here, also on one bridge:
//! see [`super::links`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_host::nft::expr::MetaKey;
use berth_host::nft::schema::SetType;
use berth_host::nft::stmt::{NAT, NATFamily, Statement};
use berth_host::nft::types::{NfChainType, NfFamily, NfHook};
use berth_host::nft::{
    Ruleset, accept, address, any_of, back, dispatch, drop, equal, field, goto, jump, kind_of_destination, lookup,
    meta, number, range, refuse, reset, text, unequal,
};
use berth_model::network::{DNS_PORT, Member, Plan, PortMatch, Ranges, Rule};
use berth_model::resource::bundle::{Egress, Protocol};

use super::links;
use super::words::{
    Expr, Family, Stmt, broken, from_elsewhere, from_us, hook, joined, redirected, replies, to_elsewhere, to_us,
    transport, word,
};

/// Name of both tables.
pub const TABLE: &str = "berth";

const CLASSES: [Egress; 4] = [Egress::Internet, Egress::Lan, Egress::None, Egress::All];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Both tables, to be replaced in one transaction.
pub fn tables(plan: &Plan) -> [Ruleset; 2] {
    let rules = Ruleset::new(NfFamily::INet, TABLE);
    let rules = Family::BOTH.into_iter().fold(rules, |rules, family| sets(maps(rules, plan, family), plan, family));
    let rules = open(rules, plan);
    let rules = forward(input(redirects(translation(rules)))).chain("outbound", None).chain("inbound", None);
    let rules = outbound(classes(endings(rules), plan), plan);
    let rules = inbound(policies(rules, plan), plan);
    [postrouting(rules, plan), links::table(plan)]
}

fn address_type(family: Family) -> SetType {
    if family.is_v4() { SetType::Ipv4Addr } else { SetType::Ipv6Addr }
}

/// From published ports and service addresses to containers.
fn maps(rules: Ruleset, plan: &Plan, family: Family) -> Ruleset {
    let kind = address_type(family);
    let serving = || plan.members.iter().filter_map(|member| Some((member, member.serving()?)));
    let mut rules = rules;
    for protocol in PROTOCOLS {
        let (mut addresses, mut ports) = (Vec::new(), Vec::new());
        for (_, end) in serving() {
            let Some(to) = family.first(&end.addresses) else { continue };
            for port in end.ports.iter().filter(|port| port.protocol == protocol) {
                let Some(published) = port.published else { continue };
                addresses.push((number(published), address(to)));
                ports.push((number(published), number(port.number)));
            }
        }
        let name = |part: &str| family.named(&format!("{}_{part}", word(protocol)));
        rules = rules.map(&name("address"), &[SetType::InetService], kind, addresses).map(
            &name("port"),
            &[SetType::InetService],
            SetType::InetService,
            ports,
        );
    }
    let services = serving().filter_map(|(member, end)| {
        Some((address(family.first(&member.service)?), address(family.first(&end.addresses)?)))
    });
    rules.map(&family.named("service"), &[kind], kind, services.collect())
}

fn sets(rules: Ruleset, plan: &Plan, family: Family) -> Ruleset {
    let kind = address_type(family);
    let (mut declared, mut published, mut own) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for member in &plan.members {
        let dependents = member.dependents.iter().filter_map(|at| plan.members.get(*at));
        let senders: Vec<IpAddr> = family.of(dependents.flat_map(Member::addresses));
        for end in &member.ends {
            let Some(to) = family.first(&end.addresses) else { continue };
            own.extend(family.of(member.addresses()).into_iter().map(|from| (from, to)));
            for port in &end.ports {
                declared.extend(senders.iter().map(|from| (*from, to, port.protocol, port.number)));
                published.extend(port.published.map(|_| (to, port.protocol, port.number)));
            }
        }
    }
    let port = |protocol: Protocol, port: u16| [text(word(protocol)), number(port)];
    let declared = declared.into_iter().map(|(from, to, protocol, number)| {
        joined([address(from), address(to)].into_iter().chain(port(protocol, number)))
    });
    let published = published
        .into_iter()
        .map(|(to, protocol, number)| joined([address(to)].into_iter().chain(port(protocol, number))));
    let own = own.into_iter().map(|(from, to)| joined([address(from), address(to)]));
    let rules = rules
        .set(
            &family.named("declared"),
            &[kind, kind, SetType::InetProto, SetType::InetService],
            false,
            declared.collect(),
        )
        .set(&family.named("published"), &[kind, SetType::InetProto, SetType::InetService], false, published.collect())
        .set(&family.named("self"), &[kind, kind], false, own.collect());
    senders(rules, plan, family)
}

/// Bridges on which everybody may talk to everybody. A packet that comes from a bridge and goes back to
/// it is between two bundles of one namespace.
fn open(rules: Ruleset, plan: &Plan) -> Ruleset {
    let bridges = plan.networks.iter().filter(|network| network.open);
    let bridges = bridges.map(|network| {
        let bridge = berth_model::allocation::bridge_name(network.number);
        joined([text(bridge.clone()), text(bridge)])
    });
    rules.set("open", &[SetType::Ifname, SetType::Ifname], false, bridges.collect())
}

/// Who sends by which egress class, and where the name server listens for whom.
fn senders(rules: Ruleset, plan: &Plan, family: Family) -> Ruleset {
    let kind = address_type(family);
    let rules = CLASSES.into_iter().fold(rules, |rules, class| {
        let members = plan.members.iter().filter(|member| member.egress == class);
        let addresses = family.of(members.flat_map(Member::addresses)).into_iter().map(address);
        rules.set(&family.named(class.word()), &[kind], false, addresses.collect())
    });
    let servers = plan.networks.iter().flat_map(|network| {
        let bridge = berth_model::allocation::bridge_name(network.number);
        let own = family.of(network.gateways.iter().copied()).into_iter();
        own.map(move |gateway| joined([text(bridge.clone()), address(gateway)])).collect::<Vec<_>>()
    });
    rules.set(&family.named("servers"), &[SetType::Ifname, kind], false, servers.collect())
}

/// Packets for this machine itself, or for a service, from outside or made here. Loopback is left
/// alone: the kernel drops what it would have to route from 127.0.0.0/8.
fn translation(rules: Ruleset) -> Ruleset {
    let at = [("prerouting", NfHook::Prerouting), ("output", NfHook::Output)];
    at.into_iter().fold(rules, |rules, (chain, at)| {
        let rules = rules.chain(chain, hook(NfChainType::NAT, at, -100));
        Family::BOTH.into_iter().fold(rules, |rules, family| {
            let rules = PROTOCOLS
                .into_iter()
                .fold(rules, |rules, protocol| rules.rule(chain, "published ports", published_port(family, protocol)));
            let to = nat(family, lookup(family.destination(), &family.named("service")), None);
            let only = equal(meta(MetaKey::Nfproto), text(family.protocol()));
            rules.rule(chain, "service addresses", vec![only, to])
        })
    })
}

fn published_port(family: Family, protocol: Protocol) -> Vec<Stmt> {
    let word = word(protocol);
    let map = |part: &str| lookup(field(word, "dport"), &family.named(&format!("{word}_{part}")));
    let loopback: Ranges = Ranges::blocks(&["127.0.0.0/8", "::1/128"]);
    let mut statements = vec![equal(meta(MetaKey::Nfproto), text(family.protocol()))];
    statements.extend(family.ranges(&loopback).map(|loopback| unequal(family.destination(), loopback)));
    statements.extend([
        equal(kind_of_destination(), text("local")),
        equal(meta(MetaKey::L4proto), text(word)),
        nat(family, map("address"), Some(map("port"))),
    ]);
    statements
}

fn nat(family: Family, to: Expr, port: Option<Expr>) -> Stmt {
    let kind = if family.is_v4() { NATFamily::IP } else { NATFamily::IP6 };
    Statement::DNAT(Some(NAT { addr: Some(to), family: Some(kind), port, flags: None }))
}

fn redirects(rules: Ruleset) -> Ruleset {
    rules
        .chain("redirects", hook(NfChainType::Filter, NfHook::Output, 0))
        .rule("redirects", "no shorter ways", vec![to_us(), equal(field("icmp", "type"), text("redirect")), drop()])
        .rule(
            "redirects",
            "no shorter ways",
            vec![to_us(), equal(field("icmpv6", "type"), text("nd-redirect")), drop()],
        )
}

fn input(rules: Ruleset) -> Ruleset {
    let solicited = equal(field("icmpv6", "type"), text("nd-neighbor-solicit"));
    let rules = rules
        .chain("input", hook(NfChainType::Filter, NfHook::Input, 0))
        .rule("input", "not from a bundle", vec![from_elsewhere(), accept()])
        .rule("input", "answers", vec![replies(), accept()])
        .rule("input", "who has this machine's address", vec![solicited, accept()]);
    let rules = Family::BOTH.into_iter().fold(rules, |rules, family| {
        let here = equal(joined([meta(MetaKey::Iifname), family.destination()]), family.at("servers"));
        PROTOCOLS.into_iter().fold(rules, |rules, protocol| {
            let port = equal(field(word(protocol), "dport"), number(DNS_PORT));
            rules.rule("input", "the name server", vec![here.clone(), port, accept()])
        })
    });
    rules.rule("input", "nothing else of this machine", vec![goto("refused")])
}

fn forward(rules: Ruleset) -> Ruleset {
    let rules = rules
        .chain("forward", hook(NfChainType::Filter, NfHook::Forward, 0))
        .rule("forward", "not ours", vec![from_elsewhere(), to_elsewhere(), accept()])
        .rule("forward", "answers", vec![replies(), accept()])
        .rule("forward", "neither an answer nor a question", vec![broken(), drop()]);
    let rules = Family::BOTH.into_iter().fold(rules, |rules, family| {
        rules.rule("forward", "a bundle to itself", vec![from_us(), to_itself(family), accept()])
    });
    rules.rule("forward", "the sender's gate", vec![from_us(), goto("outbound")]).rule(
        "forward",
        "the receiver's gate",
        vec![goto("inbound")],
    )
}

fn to_itself(family: Family) -> Stmt {
    equal(joined([family.source(), family.destination()]), family.at("self"))
}

/// Where gates end: with a word for bundles, without one for others; or at the next gate.
fn endings(rules: Ruleset) -> Ruleset {
    rules
        .chain("refused", None)
        .rule("refused", "bundles are told", vec![from_us(), equal(meta(MetaKey::L4proto), text("tcp")), reset()])
        .rule("refused", "bundles are told", vec![from_us(), refuse()])
        .rule("refused", "", vec![drop()])
        .chain("passed", None)
        .rule("passed", "the receiver's gate", vec![to_us(), goto("inbound")])
        .rule("passed", "", vec![accept()])
}

fn only(class: Egress) -> String {
    format!("only_{}", class.word())
}

/// One chain per egress class that comes back for what the class reaches.
fn classes(rules: Ruleset, plan: &Plan) -> Ruleset {
    CLASSES.into_iter().fold(rules, |rules, class| {
        let (name, reached) = (only(class), plan.outside(class));
        let rules = rules.chain(&name, None);
        let rules = Family::BOTH.into_iter().fold(rules, |rules, family| match family.ranges(&reached) {
            Some(reached) => rules.rule(&name, "", vec![equal(family.destination(), reached), back()]),
            None => rules,
        });
        rules.rule(&name, "out of reach", vec![goto("refused")])
    })
}

fn outbound(rules: Ruleset, plan: &Plan) -> Ruleset {
    let chosen = |member: &&Member| !member.outbound.is_empty();
    let rules = plan.members.iter().filter(chosen).fold(rules, |rules, member| {
        let chain = gate("out", member);
        let first = vec![to_elsewhere(), jump(&only(member.egress))];
        let rules = rules.chain(&chain, None).rule(&chain, "egress class", first);
        gate_of_policies(rules, plan, &chain, "out", &member.outbound)
    });
    let rules = by_chain(rules, plan, "outbound", "out", chosen);
    let rules = rules.rule("outbound", "to a bundle", vec![to_us(), goto("inbound")]);
    let rules = CLASSES.into_iter().fold(rules, |rules, class| {
        Family::BOTH.into_iter().fold(rules, |rules, family| {
            let ours = equal(family.source(), family.at(class.word()));
            rules.rule("outbound", "egress class", vec![ours.clone(), jump(&only(class))]).rule(
                "outbound",
                "",
                vec![ours, accept()],
            )
        })
    });
    rules.rule("outbound", "nobody's address", vec![goto("refused")])
}

fn inbound(rules: Ruleset, plan: &Plan) -> Ruleset {
    let chosen = |member: &&Member| !member.inbound.is_empty();
    let rules = plan.members.iter().filter(chosen).fold(rules, |rules, member| {
        let chain = gate("in", member);
        gate_of_policies(rules.chain(&chain, None), plan, &chain, "in", &member.inbound)
    });
    let rules = by_chain(rules, plan, "inbound", "in", chosen);
    let one_bridge = equal(joined([meta(MetaKey::Iifname), meta(MetaKey::Oifname)]), text("@open"));
    let rules = rules.rule("inbound", "open namespaces", vec![one_bridge, accept()]);
    let rules =
        Family::BOTH.into_iter().fold(rules, |rules, family| {
            let declared = joined([family.source(), family.destination()].into_iter().chain(transport()));
            let published = joined([family.destination()].into_iter().chain(transport()));
            let published = equal(published, family.at("published"));
            rules
                .rule("inbound", "declared ports", vec![from_us(), equal(declared, family.at("declared")), accept()])
                .rule("inbound", "published ports", vec![from_elsewhere(), redirected(), published, accept()])
        });
    rules.rule("inbound", "nothing else", vec![goto("refused")])
}

fn gate(direction: &str, member: &Member) -> String {
    format!("{direction}/{}", member.name)
}

fn policy_chain(direction: &str, name: &impl std::fmt::Display) -> String {
    format!("{direction}/policy/{name}")
}

fn gate_of_policies(rules: Ruleset, plan: &Plan, chain: &str, direction: &str, policies: &[usize]) -> Ruleset {
    let policies = policies.iter().filter_map(|at| plan.policies.get(*at));
    let rules =
        policies.fold(rules, |rules, one| rules.rule(chain, "", vec![jump(&policy_chain(direction, &one.name))]));
    rules.rule(chain, "no rule allows it", vec![goto("refused")])
}

/// Sends bundles that policies select to their own chains: by source going out, by destination coming in.
fn by_chain(
    rules: Ruleset,
    plan: &Plan,
    chain: &str,
    direction: &str,
    chosen: impl Fn(&&Member) -> bool + Copy,
) -> Ruleset {
    Family::BOTH.into_iter().fold(rules, |rules, family| {
        let members = plan.members.iter().filter(chosen);
        let chains = members.flat_map(|member| {
            let own = family.of(member.addresses()).into_iter();
            own.map(|one| (address(one), gate(direction, member))).collect::<Vec<_>>()
        });
        let chains: Vec<_> = chains.collect();
        let key = if direction == "out" { family.source() } else { family.destination() };
        if chains.is_empty() { rules } else { rules.rule(chain, "policies", vec![dispatch(key, chains)]) }
    })
}

/// One chain per policy and direction. They come back where no rule allows the packet.
fn policies(rules: Ruleset, plan: &Plan) -> Ruleset {
    plan.policies.iter().fold(rules, |rules, policy| {
        let directions = [("in", &policy.inbound), ("out", &policy.outbound)];
        directions.into_iter().fold(rules, |rules, (direction, written)| {
            let Some(written) = written else { return rules };
            let chain = policy_chain(direction, &policy.name);
            let rules = rules.chain(&chain, None);
            written.iter().fold(rules, |rules, rule| policy_rule(rules, &chain, direction, rule))
        })
    })
}

fn policy_rule(rules: Ruleset, chain: &str, direction: &str, rule: &Rule) -> Ruleset {
    let comment = format!("rule {}", rule.number);
    let verdict = || if direction == "out" { goto("passed") } else { accept() };
    let plain = rule.far.is_none() && rule.ports.iter().all(|port| port.at.is_none());
    if plain {
        // Nothing to match that belongs to a family.
        return ports(rule).into_iter().fold(rules, |rules, mut statements| {
            statements.push(verdict());
            rules.rule(chain, &comment, statements)
        });
    }
    Family::BOTH.into_iter().fold(rules, |rules, family| {
        let at = if direction == "out" { family.destination() } else { family.source() };
        let far = match rule.far.as_ref().map(|far| family.ranges(far)) {
            Some(None) => return rules,
            Some(Some(far)) => Some(equal(at, far)),
            None => None,
        };
        let lines = lines(rule, family);
        lines.into_iter().fold(rules, |rules, line| {
            let statements = far.iter().cloned().chain(line).chain([verdict()]);
            rules.rule(chain, &comment, statements.collect())
        })
    })
}

/// The ports of a rule, one list of conditions for each line it takes.
fn ports(rule: &Rule) -> Vec<Vec<Stmt>> {
    if rule.ports.is_empty() { vec![Vec::new()] } else { rule.ports.iter().map(port).collect() }
}

fn lines(rule: &Rule, family: Family) -> Vec<Vec<Stmt>> {
    if rule.ports.is_empty() {
        return vec![vec![equal(meta(MetaKey::Nfproto), text(family.protocol()))]];
    }
    let lines = rule.ports.iter().filter_map(|one| {
        let own = match one.at.as_ref().map(|at| family.ranges(at)) {
            Some(None) => return None,
            Some(Some(at)) => equal(family.destination(), at),
            None => equal(meta(MetaKey::Nfproto), text(family.protocol())),
        };
        Some([own].into_iter().chain(port(one)).collect())
    });
    lines.collect()
}

fn port(port: &PortMatch) -> Vec<Stmt> {
    let protocol = word(port.protocol);
    if port.numbers.is_empty() {
        return vec![equal(meta(MetaKey::L4proto), text(protocol))];
    }
    let numbers = port.numbers.iter().map(|(first, last)| range(number(*first), number(*last)));
    vec![equal(field(protocol, "dport"), any_of(numbers.collect()))]
}

fn postrouting(rules: Ruleset, plan: &Plan) -> Ruleset {
    let ours = plan.ours();
    let masquerade = || Statement::Masquerade(None);
    let rules = rules.chain("postrouting", hook(NfChainType::NAT, NfHook::Postrouting, 100));
    Family::BOTH.into_iter().fold(rules, |rules, family| {
        let rules = rules.rule("postrouting", "a bundle to itself", vec![to_us(), to_itself(family), masquerade()]);
        match family.ranges(&ours) {
            Some(ours) => {
                let leaves = vec![to_elsewhere(), equal(family.source(), ours), masquerade()];
                rules.rule("postrouting", "to the outside", leaves)
            }
            None => rules,
        }
    })
}
