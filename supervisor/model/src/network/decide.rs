//! What the plan says of one connection, and by which rule: the gates of the kernel's rules, walked
//! in the same order.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{DNS_PORT, End, Member, Name, Plan};
use crate::resource::bundle::{Egress, Protocol};

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// It comes about.
    pub allowed: bool,
    /// By what kind of rule.
    pub reason: Reason,
    /// By which rule, and where there is none, what to do.
    pub message: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port it goes to.
    pub port: u16,
}

/// Kinds of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A bundle reaches itself.
    Itself,
    /// A declared dependency.
    Dependency,
    /// Both are in a namespace that the settings open.
    OpenNamespace,
    /// A published port.
    Published,
    /// A rule of a NetworkPolicy, or that none of them allows it.
    NetworkPolicy,
    /// The bundle's `egress`.
    Egress,
    /// The name server of the bridge.
    NameServer,
    /// What nobody has declared is denied.
    Default,
    /// No revision of the bundle serves.
    NotServing,
    /// Neither end is a bundle.
    NotOurs,
}

/// Why a gate opens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Opened<'a> {
    /// Nothing was asked that the next gate does not decide.
    Next,
    Itself,
    Dependency,
    Open(&'a str),
    Published(u16),
    Class(Egress),
    Rule(&'a Name, &'static str, usize),
}

/// Why it stays shut.
#[derive(Clone, Debug, PartialEq)]
enum Shut<'a> {
    Class(Egress),
    Policies(Vec<&'a Name>, &'static str),
    Undeclared,
    UndeclaredPort,
    Unpublished,
}

type Gate<'a> = Result<Opened<'a>, Shut<'a>>;

/// What is sent.
#[derive(Clone, Copy)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: Protocol,
    port: u16,
}

impl Plan {
    /// Whether a connection comes about, and why. Addresses may be those of bundles, service
    /// addresses, or any others.
    pub fn decide(&self, from: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> Verdict {
        let verdict = |allowed, reason, message| Verdict { allowed, reason, message, protocol, port };
        let to = match self.led_by_service(to) {
            Ok(to) => to,
            Err(name) => {
                let message = format!("no revision of {name} serves: see `berth status`");
                return verdict(false, Reason::NotServing, message);
            }
        };
        let packet = Packet { from, to, protocol, port };
        let (sender, receiver) = (self.owner(from), self.owner(to));
        if sender.is_some() && self.networks.iter().any(|network| network.gateways.contains(&to)) {
            let message = "bundles reach the name server of their bridge, and nothing else of the machine";
            let allowed = port == DNS_PORT;
            return verdict(allowed, if allowed { Reason::NameServer } else { Reason::Default }, message.into());
        }
        let between = format!("{} -> {}", self.shown(from), self.shown(to));
        let outbound = sender.map(|(sender, _)| self.outbound(sender, packet, receiver.is_some())).transpose();
        let inbound = |()| receiver.map(|(receiver, end)| self.inbound(receiver, end, packet, sender)).transpose();
        match outbound.and_then(|out| inbound(()).map(|into| (out, into))) {
            Ok((None, None)) => {
                verdict(true, Reason::NotOurs, "neither end is a bundle: Berth has no rule for it".into())
            }
            Ok((out, into)) => {
                let [out, into] = [out, into].map(|gate| gate.unwrap_or(Opened::Next));
                let reason = if into == Opened::Next { out.reason() } else { into.reason() };
                let words: Vec<String> = [out, into].iter().filter_map(|gate| gate.words()).collect();
                verdict(true, reason, format!("{between}: {}", words.join("; ")))
            }
            Err(shut) => verdict(false, shut.reason(), format!("{between}: {}", shut.words(port, protocol))),
        }
    }

    /// Whether a bundle reaches another: any declared port, or in an open namespace any port at all.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let (Some(sender), Some(receiver)) = (self.members.get(from), self.members.get(to)) else { return false };
        if from == to {
            return true;
        }
        let (here, there) = (&sender.name.namespace, &receiver.name.namespace);
        let open = receiver.inbound.is_empty() && here == there && self.is_open(there);
        if open && sender.outbound.is_empty() {
            // Whatever port it listens on.
            return true;
        }
        let default = receiver.inbound.is_empty() && !open && !receiver.dependents.contains(&from);
        let ends = sender.ends.iter().flat_map(|end| receiver.ends.iter().map(move |other| (end, other)));
        let mut tried = ends.flat_map(|(end, other)| other.ports.iter().map(move |port| (end, other, port)));
        !default
            && tried.any(|(end, other, port)| {
                let (Some(from), Some(to)) = (end.addresses.first(), other.addresses.first()) else { return false };
                let packet = Packet { from: *from, to: *to, protocol: port.protocol, port: port.number };
                self.outbound(sender, packet, true).is_ok()
                    && self.inbound(receiver, other, packet, Some((sender, end))).is_ok()
            })
    }

    fn led_by_service(&self, to: IpAddr) -> Result<IpAddr, &Name> {
        let Some(member) = self.members.iter().find(|member| member.service.contains(&to)) else { return Ok(to) };
        let ends = member.serving().into_iter().flat_map(|end| &end.addresses);
        ends.copied().find(|own| own.is_ipv4() == to.is_ipv4()).ok_or(&member.name)
    }

    fn outbound(&self, sender: &Member, packet: Packet, to_bundle: bool) -> Gate<'_> {
        if !to_bundle && !self.outside(sender.egress).holds(packet.to) {
            return Err(Shut::Class(sender.egress));
        }
        if sender.outbound.is_empty() {
            return Ok(if to_bundle { Opened::Next } else { Opened::Class(sender.egress) });
        }
        self.by_policies(&sender.outbound, "egress", packet.to, packet)
    }

    fn inbound<'a>(
        &'a self,
        receiver: &'a Member,
        end: &End,
        packet: Packet,
        sender: Option<(&Member, &End)>,
    ) -> Gate<'a> {
        if sender.is_some_and(|(sender, _)| sender.name == receiver.name) {
            return Ok(Opened::Itself);
        }
        if !receiver.inbound.is_empty() {
            return self.by_policies(&receiver.inbound, "ingress", packet.from, packet);
        }
        let declared = end.ports.iter().find(|port| port.protocol == packet.protocol && port.number == packet.port);
        let Some((sender, _)) = sender else {
            return declared.and_then(|port| port.published).map(Opened::Published).ok_or(Shut::Unpublished);
        };
        let mut dependents = receiver.dependents.iter().filter_map(|at| self.members.get(*at));
        let namespace = &receiver.name.namespace;
        match (dependents.any(|one| one.name == sender.name), declared) {
            (true, Some(_)) => Ok(Opened::Dependency),
            _ if sender.name.namespace == *namespace && self.is_open(namespace) => Ok(Opened::Open(namespace)),
            (true, None) => Err(Shut::UndeclaredPort),
            (false, _) => Err(Shut::Undeclared),
        }
    }

    fn by_policies(&self, policies: &[usize], direction: &'static str, far: IpAddr, packet: Packet) -> Gate<'_> {
        let policies: Vec<_> = policies.iter().filter_map(|at| self.policies.get(*at)).collect();
        for policy in &policies {
            let rules = if direction == "ingress" { &policy.inbound } else { &policy.outbound };
            let mut rules = rules.iter().flatten();
            if let Some(rule) = rules.find(|rule| rule.allows(far, packet.to, packet.protocol, packet.port)) {
                return Ok(Opened::Rule(&policy.name, direction, rule.number));
            }
        }
        Err(Shut::Policies(policies.into_iter().map(|policy| &policy.name).collect(), direction))
    }

    fn shown(&self, address: IpAddr) -> String {
        self.owner(address).map_or_else(|| address.to_string(), |(member, _)| member.name.to_string())
    }
}

impl Opened<'_> {
    fn reason(self) -> Reason {
        match self {
            Self::Next | Self::Class(_) => Reason::Egress,
            Self::Itself => Reason::Itself,
            Self::Dependency => Reason::Dependency,
            Self::Open(_) => Reason::OpenNamespace,
            Self::Published(_) => Reason::Published,
            Self::Rule(..) => Reason::NetworkPolicy,
        }
    }

    fn words(self) -> Option<String> {
        match self {
            Self::Next => None,
            Self::Class(class) => Some(format!("`egress: {}` allows it", class.word())),
            Self::Itself => Some("a bundle reaches itself".into()),
            Self::Dependency => Some(
                "the dependency is declared (spec.dependsOn, or a reference in spec.env), and so is the port".into(),
            ),
            Self::Open(namespace) => {
                Some(format!("namespace {namespace} is open (spec.network.openNamespaces of Settings berth)"))
            }
            Self::Published(port) => Some(format!("it is published as port {port} of the machine")),
            Self::Rule(name, direction, number) => {
                Some(format!("NetworkPolicy {name} allows it (spec.{direction}[{number}])"))
            }
        }
    }
}

impl Shut<'_> {
    fn reason(&self) -> Reason {
        match self {
            Self::Class(_) => Reason::Egress,
            Self::Policies(..) => Reason::NetworkPolicy,
            Self::Undeclared | Self::UndeclaredPort | Self::Unpublished => Reason::Default,
        }
    }

    fn words(&self, port: u16, protocol: Protocol) -> String {
        let protocol = format!("{protocol:?}").to_uppercase();
        match self {
            Self::Class(class) => format!(
                "`egress: {}` of the sender does not reach this address; set spec.egress to internet, lan or all",
                class.word()
            ),
            Self::Policies(names, direction) => {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                format!("no {direction} rule of NetworkPolicy {} allows it", names.join(", "))
            }
            Self::Undeclared => "no dependency is declared: add the receiver to spec.dependsOn of the sender \
                                 (same namespace), or allow it by a NetworkPolicy for the receiver"
                .into(),
            Self::UndeclaredPort => {
                format!("the receiver declares no port {port}/{protocol}: add it to spec.ports")
            }
            Self::Unpublished => {
                format!("the receiver does not publish port {port}/{protocol}: give it `expose: lan`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use serde_json::json;

    fn asked(plan: &Plan, from: &str, to: &str, port: u16) -> (bool, Reason) {
        let verdict = plan.decide(from.parse().unwrap(), to.parse().unwrap(), Protocol::Tcp, port);
        (verdict.allowed, verdict.reason)
    }

    /// default: web (10.213.0.2) depends on db (10.213.0.3); spy (10.213.0.4) on nothing; team/spy is 10.213.1.2.
    fn world() -> World {
        let mut world = World::default();
        world.namespace("default", &[]).namespace("team", &[("tier", "a")]);
        world.bundle("default", "web", &["db"]).bundle("default", "db", &[]).bundle("default", "spy", &[]);
        world.bundle("team", "spy", &["db"]);
        world
    }

    #[test]
    fn what_is_declared_is_allowed_and_nothing_else() {
        let plan = world().plan();
        for (from, to, port, expected) in [
            ("10.213.0.2", "10.213.0.3", 9000, (true, Reason::Dependency)),
            ("10.213.0.2", "10.213.128.3", 9000, (true, Reason::Dependency)),
            ("fd01:203:405::2", "fd01:203:405:80::3", 80, (true, Reason::Dependency)),
            ("10.213.0.2", "10.213.0.3", 22, (false, Reason::Default)),
            ("10.213.0.3", "10.213.0.2", 80, (false, Reason::Default)),
            ("10.213.0.4", "10.213.0.3", 80, (false, Reason::Default)),
            ("10.213.1.2", "10.213.0.3", 80, (false, Reason::Default)),
            ("10.213.0.2", "10.213.128.2", 1, (true, Reason::Itself)),
            ("10.213.0.2", "10.213.0.1", 6443, (false, Reason::Default)),
            ("10.213.0.2", "10.213.0.1", 53, (true, Reason::NameServer)),
            ("192.0.2.1", "10.213.0.3", 80, (true, Reason::Published)),
            ("192.0.2.1", "10.213.0.3", 9000, (false, Reason::Default)),
            ("192.0.2.1", "192.0.2.2", 80, (true, Reason::NotOurs)),
        ] {
            assert_eq!(asked(&plan, from, to, port), expected, "{from} {to} {port}");
        }
    }

    #[test]
    fn egress_is_the_outer_bound_of_what_lies_outside() {
        let mut world = world();
        let public = [("1.1.1.1", 0), ("2606:4700::1", 0)];
        let private =
            [("192.168.1.1", 1), ("fd77::1", 1), ("10.0.2.2", 1), ("169.254.169.254", 2), ("fd00:ec2::254", 2)];
        for (class, reached) in
            [(Egress::Internet, &[0][..]), (Egress::Lan, &[1]), (Egress::None, &[]), (Egress::All, &[0, 1, 2])]
        {
            let plan = world.egress("default", "web", class).plan();
            for (to, group) in public.iter().chain(&private) {
                let from = if to.contains(':') { "fd01:203:405::2" } else { "10.213.0.2" };
                assert_eq!(asked(&plan, from, to, 80), (reached.contains(group), Reason::Egress), "{class:?} {to}");
            }
            assert_eq!(asked(&plan, "10.213.0.2", "10.213.77.7", 80), (false, Reason::Egress));
        }
    }

    #[test]
    fn in_an_open_namespace_bundles_reach_one_another_on_every_port_and_nobody_else_does() {
        let mut world = world();
        world.bundle("team", "other", &[]);
        let plan = world.open(&["team", "later"]).plan();
        for (from, to, port, expected) in [
            ("10.213.1.2", "10.213.1.3", 9000, (true, Reason::OpenNamespace)),
            ("10.213.1.3", "10.213.129.2", 22, (true, Reason::OpenNamespace)),
            ("fd01:203:405:1::3", "fd01:203:405:1::2", 22, (true, Reason::OpenNamespace)),
            ("10.213.1.2", "10.213.0.3", 80, (false, Reason::Default)),
            ("10.213.0.2", "10.213.1.2", 80, (false, Reason::Default)),
            ("10.213.0.4", "10.213.0.3", 80, (false, Reason::Default)),
            ("10.213.1.2", "10.213.1.1", 6443, (false, Reason::Default)),
            ("192.0.2.1", "10.213.1.2", 9000, (false, Reason::Default)),
        ] {
            assert_eq!(asked(&plan, from, to, port), expected, "{from} {to} {port}");
        }
        let (from, to) = ("10.213.1.2".parse().unwrap(), "10.213.1.3".parse().unwrap());
        let said = plan.decide(from, to, Protocol::Tcp, 22).message;
        let why = "namespace team is open (spec.network.openNamespaces of Settings berth)";
        assert_eq!(said, format!("team/spy -> team/other: {why}"));

        // A policy decides instead, as it does for dependencies.
        world.policy("team", "shut", json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "other"}}}));
        assert_eq!(asked(&world.plan(), "10.213.1.2", "10.213.1.3", 80), (false, Reason::NetworkPolicy));
        assert_eq!(asked(&world.open(&[]).plan(), "10.213.1.3", "10.213.1.2", 80), (false, Reason::Default));
    }

    #[test]
    fn a_gate_that_policies_select_opens_for_their_rules_alone() {
        let mut world = world();
        world.policy(
            "default",
            "db-in",
            json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "db"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "spy"}}}], "ports": [{"port": 80}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"tier": "a"}}}], "ports": [{"port": 9000, "endPort": 9001}]},
            ]}),
        );
        let plan = world.plan();
        for (from, to, port, expected) in [
            ("10.213.0.4", "10.213.0.3", 80, (true, Reason::NetworkPolicy)),
            ("10.213.0.4", "10.213.0.3", 9000, (false, Reason::NetworkPolicy)),
            ("10.213.1.2", "10.213.0.3", 9001, (true, Reason::NetworkPolicy)),
            ("10.213.0.2", "10.213.0.3", 80, (false, Reason::NetworkPolicy)),
            ("192.0.2.1", "10.213.0.3", 80, (false, Reason::NetworkPolicy)),
        ] {
            assert_eq!(asked(&plan, from, to, port), expected, "{from} {to} {port}");
        }
        let (from, to) = ("10.213.1.2".parse().unwrap(), "10.213.0.3".parse().unwrap());
        let said = plan.decide(from, to, Protocol::Tcp, 9000).message;
        assert_eq!(said, "team/spy -> default/db: NetworkPolicy default/db-in allows it (spec.ingress[1])");
    }

    #[test]
    fn an_egress_policy_can_shut_what_a_dependency_opened_and_cannot_widen_the_class() {
        let mut world = world();
        let to = json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}]);
        world.policy("default", "out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]}));
        let plan = world.plan();
        assert_eq!(asked(&plan, "10.213.0.2", "10.213.0.3", 80), (false, Reason::NetworkPolicy));
        assert_eq!(asked(&plan, "10.213.0.2", "1.1.1.1", 80), (true, Reason::NetworkPolicy));
        assert_eq!(asked(&plan, "10.213.0.2", "192.168.1.1", 80), (false, Reason::Egress));
    }

    #[test]
    fn a_service_address_without_a_revision_that_serves_leads_nowhere() {
        let mut world = World::default();
        world.bundle("default", "web", &["db"]).bundle("default", "db", &[]);
        let mut plan = world.plan();
        plan.members[0].ends[0].serves = false;
        assert_eq!(asked(&plan, "10.213.0.2", "10.213.128.3", 80), (false, Reason::NotServing));
    }
}
