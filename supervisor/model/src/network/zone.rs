//! Names of bundles as the name server knows them: the file that the daemon writes and `berth-dns`
//! reads, and what either of them answers from it.
//!
//! An asker is known by its address. It is told the names of bundles that it may reach, and its
//! own; all others do not exist for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Name, Plan, Ranges};
use crate::resource::bundle::{Egress, Protocol};

/// What all names end in.
pub const DOMAIN: &str = "berth.internal";

/// Everything the name server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Zone {
    /// Where to answer: the machine's addresses on its bridges.
    pub listen: Vec<IpAddr>,
    /// Bundles.
    pub hosts: Vec<Host>,
    /// The machine's neighbours are told its name.
    #[serde(default = "yes")]
    pub multicast_dns: bool,
}

/// As daemons did that wrote nothing of it.
fn yes() -> bool {
    true
}

/// A bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: Name,
    /// What the name stands for: the service addresses.
    pub service: Vec<IpAddr>,
    /// What it asks from.
    pub addresses: Vec<IpAddr>,
    /// Its declared ports.
    pub ports: Vec<Service>,
    /// Positions of the hosts that exist for it, its own among them.
    pub sees: Vec<usize>,
    /// It may ask for names outside.
    pub outside: bool,
}

/// A declared port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Who asks.
    pub asker: IpAddr,
    /// A name, with or without the dot at its end, in any case.
    pub name: &'a str,
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The asker is no bundle.
    Refused,
    /// A bundle.
    Host(&'a Host),
    /// A port of a bundle.
    Service(&'a Host, &'a Service),
    /// The bundle that has the address.
    Pointer(&'a Host),
    /// A name under which there are others.
    Above,
    /// There is no such name, as far as the asker is concerned.
    Unknown,
    /// Somebody else's name: ask the machine's resolvers.
    Elsewhere,
}

impl Host {
    /// `db.default.berth.internal`.
    pub fn full_name(&self) -> String {
        format!("{}.{}.{DOMAIN}", self.name.name, self.name.namespace)
    }
}

impl Zone {
    /// The names in a plan.
    pub fn of(plan: &Plan) -> Zone {
        let mut hosts: Vec<Host> = plan.members.iter().map(host).collect();
        for to in 0..hosts.len() {
            // With the default gate only dependents can be let in; the rest need not be tried.
            let member = plan.members.get(to);
            let by_default =
                |member: &&super::Member| member.inbound.is_empty() && !plan.is_open(&member.name.namespace);
            let candidates: Vec<usize> = match member.filter(by_default) {
                Some(member) => member.dependents.iter().copied().chain([to]).collect(),
                None => (0..hosts.len()).collect(),
            };
            for from in candidates.into_iter().filter(|from| plan.reaches(*from, to)) {
                hosts.get_mut(from).into_iter().for_each(|host| host.sees.push(to));
            }
        }
        let mut listen: Vec<IpAddr> = plan.networks.iter().flat_map(|network| network.gateways.clone()).collect();
        listen.sort_unstable();
        Zone { listen, hosts, multicast_dns: plan.multicast_dns }
    }

    /// What to answer.
    pub fn answer(&self, query: Query<'_>) -> Answer<'_> {
        let Some(asker) = self.hosts.iter().find(|host| host.addresses.contains(&query.asker)) else {
            return Answer::Refused;
        };
        let name = query.name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(address) = reverse(&name) {
            return self.pointer(asker, address);
        }
        let labels: Vec<&str> = name.split('.').collect();
        let (labels, absolute) = match labels.strip_suffix(&["berth", "internal"]) {
            Some(rest) => (rest, true),
            None => (labels.as_slice(), false),
        };
        let (port, labels) = match labels {
            [port, protocol, rest @ ..] if port.starts_with('_') => (Some((*port, *protocol)), rest),
            labels => (None, labels),
        };
        let found = match labels {
            [] | [_] if absolute => return Answer::Above,
            [name] => self.seen(asker, &asker.name.namespace, name),
            [name, namespace] => self.seen(asker, namespace, name),
            _ => None,
        };
        match (found, port) {
            (Some(host), None) => Answer::Host(host),
            (Some(host), Some((name, protocol))) => service(host, name, protocol),
            (None, _) if absolute || labels.len() < 2 || self.exists(labels) || !asker.outside => Answer::Unknown,
            (None, _) => Answer::Elsewhere,
        }
    }

    fn pointer<'a>(&'a self, asker: &'a Host, address: IpAddr) -> Answer<'a> {
        let own = |host: &&Host| host.service.contains(&address) || host.addresses.contains(&address);
        match self.seen_by(asker).find(own) {
            Some(host) => Answer::Pointer(host),
            None if self.ours().holds(address) || !asker.outside => Answer::Unknown,
            None => Answer::Elsewhere,
        }
    }

    fn ours(&self) -> Ranges {
        let networks = self.listen.iter().map(|address| if address.is_ipv4() { (address, 16) } else { (address, 48) });
        let blocks: Vec<String> = networks.map(|(address, prefix)| format!("{address}/{prefix}")).collect();
        Ranges::blocks(&blocks.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn seen_by<'a>(&'a self, asker: &'a Host) -> impl Iterator<Item = &'a Host> {
        asker.sees.iter().filter_map(|at| self.hosts.get(*at))
    }

    fn seen(&self, asker: &Host, namespace: &str, name: &str) -> Option<&Host> {
        let at = asker.sees.iter().copied();
        let mut hosts = at.filter_map(|at| self.hosts.get(at));
        hosts.find(|host| host.name.namespace == namespace && host.name.name == name)
    }

    /// A name of ours that the asker does not see is not asked of others either.
    fn exists(&self, labels: &[&str]) -> bool {
        let [name, namespace] = labels else { return false };
        self.hosts.iter().any(|host| host.name.namespace == *namespace && host.name.name == *name)
    }
}

fn host(member: &super::Member) -> Host {
    let end = member.serving().or(member.ends.last());
    let ports = end.into_iter().flat_map(|end| &end.ports).map(|port| Service {
        name: port.name.clone(),
        protocol: port.protocol,
        port: port.number,
    });
    Host {
        name: member.name.clone(),
        service: member.service.clone(),
        addresses: member.addresses().collect(),
        ports: ports.collect(),
        sees: Vec::new(),
        outside: member.egress != Egress::None,
    }
}

fn service<'a>(host: &'a Host, name: &str, protocol: &str) -> Answer<'a> {
    let protocol = match protocol {
        "_tcp" => Protocol::Tcp,
        "_udp" => Protocol::Udp,
        _ => return Answer::Unknown,
    };
    let named = |port: &&Service| Some(port.name.as_str()) == name.strip_prefix('_') && port.protocol == protocol;
    host.ports.iter().find(named).map_or(Answer::Unknown, |port| Answer::Service(host, port))
}

/// The address that `3.0.213.10.in-addr.arpa` and its like ask about.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let bytes: Vec<u8> = rest.rsplit('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let digits: Vec<&str> = rest.rsplit('.').collect();
    let right = digits.len() == 32 && digits.iter().all(|digit| digit.len() == 1);
    let bits = u128::from_str_radix(&digits.concat(), 16).ok().filter(|_| right)?;
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    fn zone() -> Zone {
        let mut world = World::default();
        world.bundle("default", "web", &["db"]).bundle("default", "db", &[]).bundle("default", "spy", &[]);
        world.bundle("team", "spy", &[]).egress("default", "spy", Egress::None);
        Zone::of(&world.plan())
    }

    fn told(zone: &Zone, asker: &str, name: &str) -> String {
        match zone.answer(Query { asker: asker.parse().unwrap(), name }) {
            Answer::Host(host) => format!("host {}", host.service[0]),
            Answer::Service(host, port) => format!("port {} of {}", port.port, host.full_name()),
            Answer::Pointer(host) => host.full_name(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_bundle_finds_what_it_depends_on_under_all_its_names() {
        let zone = zone();
        for name in ["db", "DB.", "db.default", "db.default.berth.internal."] {
            assert_eq!(told(&zone, "10.213.0.2", name), "host 10.213.128.3", "{name}");
        }
        assert_eq!(told(&zone, "10.213.0.2", "_admin._tcp.db"), "port 9000 of db.default.berth.internal");
        assert_eq!(told(&zone, "10.213.0.2", "_admin._udp.db.default.berth.internal"), "Unknown");
        assert_eq!(told(&zone, "10.213.0.2", "3.128.213.10.in-addr.arpa"), "db.default.berth.internal");
        let six = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.0.0.5.0.4.0.3.0.2.0.1.0.d.f.ip6.arpa";
        assert_eq!(told(&zone, "fd01:203:405::2", six), "db.default.berth.internal");
        assert_eq!(told(&zone, "10.213.0.2", "web"), "host 10.213.128.2");
    }

    #[test]
    fn neighbours_are_told_of_the_machine_unless_the_settings_say_otherwise() {
        let mut world = World::default();
        assert!(Zone::of(&world.plan()).multicast_dns);
        assert!(!Zone::of(&world.silent().plan()).multicast_dns);
        let before: Zone = serde_json::from_str(r#"{"listen": [], "hosts": []}"#).unwrap();
        assert!(before.multicast_dns, "a file of an earlier daemon");
    }

    #[test]
    fn in_an_open_namespace_all_find_one_another_with_or_without_ports() {
        let mut world = World::default();
        world.bundle("default", "c", &[]).bundle("team", "a", &[]).bundle("team", "b", &[]);
        let zone = Zone::of(&world.without_ports("team", "b").open(&["team"]).plan());
        assert_eq!(told(&zone, "10.213.1.2", "b"), "host 10.213.129.3");
        assert_eq!(told(&zone, "10.213.1.3", "a"), "host 10.213.129.2");
        assert_eq!(told(&zone, "10.213.0.2", "a.team"), "Unknown");
        assert_eq!(told(&zone, "10.213.1.2", "c.default"), "Unknown");
    }

    #[test]
    fn what_a_bundle_may_not_reach_does_not_exist_for_it() {
        let zone = zone();
        for name in ["db", "db.default", "db.default.berth.internal", "3.128.213.10.in-addr.arpa", "nosuch"] {
            assert_eq!(told(&zone, "10.213.1.2", name), "Unknown", "{name}");
        }
        assert_eq!(told(&zone, "10.213.0.3", "web"), "Unknown");
    }

    #[test]
    fn names_of_others_are_asked_of_others_unless_the_asker_stays_inside() {
        let zone = zone();
        for name in ["example.com", "www.example.com.", "1.2.0.192.in-addr.arpa", "_sip._tcp.example.com"] {
            assert_eq!(told(&zone, "10.213.0.2", name), "Elsewhere", "{name}");
            assert_eq!(told(&zone, "10.213.0.4", name), "Unknown", "{name}");
        }
        assert_eq!(told(&zone, "10.213.0.2", "default.berth.internal"), "Above");
    }

    #[test]
    fn whoever_is_no_bundle_is_told_nothing() {
        assert_eq!(told(&zone(), "192.0.2.1", "db.default"), "Refused");
    }

    #[test]
    fn the_file_says_where_to_answer_and_comes_back_as_it_was() {
        let zone = zone();
        let listen: Vec<String> = zone.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["10.213.0.1", "10.213.1.1", "fd01:203:405::1", "fd01:203:405:1::1"]);
        assert_eq!(serde_json::from_str::<Zone>(&serde_json::to_string(&zone).unwrap()).unwrap(), zone);
    }
}
