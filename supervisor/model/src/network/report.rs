//! What people ask about the network, and the answers, as the API carries them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Answer, End, Name, Plan, Query, Verdict, Zone};
use crate::allocation::bridge_name;
use crate::resource::bundle::Protocol;

/// The port that is looked at where none is named and none is declared.
const USUAL: (Protocol, u16) = (Protocol::Tcp, 443);

/// What somebody names is nobody on the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no bundle on the network; write NAME, NAMESPACE/NAME or an IP address, and see `berth network status`"
)]
pub struct UnknownParty(pub String);

/// What becomes of connections from one to another, one for each port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Who begins.
    pub from: String,
    /// With whom.
    pub to: String,
    /// By port.
    pub verdicts: Vec<Verdict>,
}

/// What a bundle is told of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Who asks.
    pub from: String,
    /// What for.
    pub name: String,
    /// It exists for the asker.
    pub found: bool,
    /// Addresses it stands for.
    pub addresses: Vec<IpAddr>,
    /// The whole name: of the bundle, or that of a service's or address's bundle.
    pub target: String,
    /// The port that a service name stands for.
    pub port: Option<u16>,
    /// In a sentence.
    pub message: String,
}

/// All networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// One for each namespace with bundles.
    pub networks: Vec<NetworkReport>,
    /// What could not be done as asked.
    pub problems: Vec<String>,
}

/// One namespace's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Whose.
    pub namespace: String,
    /// Its bridge.
    pub bridge: String,
    /// The machine's addresses on it, where names are answered.
    pub gateways: Vec<IpAddr>,
    /// Its bundles reach one another without a declared dependency.
    #[serde(default)]
    pub open: bool,
    /// Who is on it.
    pub bundles: Vec<MemberReport>,
}

/// One bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub name: String,
    /// Its own addresses.
    pub service: Vec<IpAddr>,
    /// Addresses of the revision that serves.
    pub serving: Vec<IpAddr>,
    /// What it may reach outside.
    pub egress: String,
    /// Who may reach its declared ports by a dependency.
    pub dependents: Vec<String>,
    /// Policies that decide instead of the default, for what comes in.
    pub inbound: Vec<String>,
    /// The same for what goes out.
    pub outbound: Vec<String>,
}

impl Plan {
    /// What becomes of connections between two that a person names. Without a port all declared ones
    /// are looked at.
    ///
    /// # Errors
    /// [`UnknownParty`].
    pub fn inquire(
        &self,
        namespace: &str,
        from: &str,
        to: &str,
        port: Option<(Protocol, u16)>,
    ) -> Result<Verdicts, UnknownParty> {
        let sender = self.addresses_of(namespace, from)?;
        let receiver = self.addresses_of(namespace, to)?;
        // Both in one family; the first of each is IPv4.
        let pairs = sender.iter().flat_map(|one| receiver.iter().map(move |other| (*one, *other)));
        let pair = pairs.clone().find(|(one, other)| one.is_ipv4() == other.is_ipv4());
        let (one, other) = pair.ok_or_else(|| UnknownParty(to.to_owned()))?;
        let declared = self.owner(other).into_iter().flat_map(|(_, end)| &end.ports);
        let mut ports: Vec<_> = match port {
            Some(port) => vec![port],
            None => declared.map(|port| (port.protocol, port.number)).collect(),
        };
        if ports.is_empty() {
            ports.push(USUAL);
        }
        let verdicts = ports.into_iter().map(|(protocol, port)| self.decide(one, other, protocol, port)).collect();
        Ok(Verdicts { from: self.called(one), to: self.called(other), verdicts })
    }

    fn called(&self, address: IpAddr) -> String {
        self.owner(address).map_or_else(|| address.to_string(), |(member, _)| member.name.to_string())
    }

    fn addresses_of(&self, namespace: &str, word: &str) -> Result<Vec<IpAddr>, UnknownParty> {
        if let Ok(address) = word.parse() {
            return Ok(vec![address]);
        }
        let (namespace, name) = word.split_once('/').unwrap_or((namespace, word));
        let name = Name { namespace: namespace.to_owned(), name: name.to_owned() };
        let member = self.member(&name).ok_or_else(|| UnknownParty(word.to_owned()))?;
        let end: Option<&End> = member.serving().or(member.ends.last());
        Ok(end.map(|end| end.addresses.clone()).unwrap_or_default())
    }

    /// What a bundle is told of a name; decided by the very file that the name server reads.
    ///
    /// # Errors
    /// [`UnknownParty`] for the asker.
    pub fn look_up(&self, namespace: &str, from: &str, name: &str) -> Result<Lookup, UnknownParty> {
        let zone = Zone::of(self);
        let asker = self.addresses_of(namespace, from)?.first().copied();
        let asker = asker.ok_or_else(|| UnknownParty(from.to_owned()))?;
        let lookup = Lookup { from: self.called(asker), name: name.to_owned(), ..Lookup::default() };
        let told = |message: &str| Lookup { message: message.to_owned(), ..lookup.clone() };
        Ok(match zone.answer(Query { asker, name }) {
            Answer::Host(host) => {
                let found = Lookup { found: true, addresses: host.service.clone(), ..told("a bundle it may reach") };
                Lookup { target: host.full_name(), ..found }
            }
            Answer::Service(host, port) => {
                Lookup { found: true, target: host.full_name(), port: Some(port.port), ..told("a port of a bundle") }
            }
            Answer::Pointer(host) => {
                Lookup { found: true, target: host.full_name(), ..told("the bundle with this address") }
            }
            Answer::Elsewhere => told("no name of a bundle: the machine's own resolvers are asked"),
            Answer::Above => told("a name above those of bundles; nothing has it"),
            Answer::Refused => told("the asker is no bundle and is told nothing"),
            Answer::Unknown => told(
                "does not exist for this bundle: it has no bundle of that name that it may reach \
                 (`berth policy debug` says why), or may not ask outside",
            ),
        })
    }

    /// The networks with who is on them.
    pub fn status(&self) -> NetworkStatus {
        let names = |at: &[usize]| -> Vec<String> {
            at.iter().filter_map(|at| self.policies.get(*at)).map(|policy| policy.name.to_string()).collect()
        };
        let report = |member: &super::Member| MemberReport {
            name: member.name.name.clone(),
            service: member.service.clone(),
            serving: member.serving().map(|end| end.addresses.clone()).unwrap_or_default(),
            egress: member.egress.word().to_owned(),
            dependents: member
                .dependents
                .iter()
                .filter_map(|at| self.members.get(*at))
                .map(|one| one.name.name.clone())
                .collect(),
            inbound: names(&member.inbound),
            outbound: names(&member.outbound),
        };
        let networks = self.networks.iter().map(|network| NetworkReport {
            namespace: network.namespace.clone(),
            bridge: bridge_name(network.number),
            gateways: network.gateways.clone(),
            open: network.open,
            bundles: self
                .members
                .iter()
                .filter(|member| member.name.namespace == network.namespace)
                .map(report)
                .collect(),
        });
        NetworkStatus { networks: networks.collect(), problems: self.problems.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;

    #[test]
    fn people_ask_by_name_and_are_told_for_every_declared_port() {
        let mut world = World::default();
        let plan = world.bundle("default", "web", &["db"]).bundle("default", "db", &[]).plan();
        let told = plan.inquire("default", "web", "default/db", None).unwrap();
        let ports: Vec<(u16, bool)> = told.verdicts.iter().map(|one| (one.port, one.allowed)).collect();
        assert_eq!((told.to.as_str(), ports), ("default/db", vec![(80, true), (9000, true)]));
        let told = plan.inquire("default", "db", "2001:db8::1", None).unwrap();
        assert!(told.verdicts[0].allowed && told.verdicts[0].message.contains("egress: internet"), "{told:?}");
        let nobody = plan.inquire("default", "web", "nobody", None).unwrap_err();
        assert!(nobody.to_string().contains("`nobody` is no bundle"), "{nobody}");
    }

    #[test]
    fn a_lookup_says_what_the_name_server_would() {
        let mut world = World::default();
        let plan = world.bundle("default", "web", &["db"]).bundle("default", "db", &[]).plan();
        let told = plan.look_up("default", "web", "db").unwrap();
        assert_eq!((told.found, told.target.as_str()), (true, "db.default.berth.internal"));
        let told = plan.look_up("default", "db", "web").unwrap();
        assert!(!told.found && told.message.contains("does not exist for this bundle"), "{told:?}");
    }

    #[test]
    fn the_status_names_networks_and_who_is_on_them() {
        let mut world = World::default();
        let plan = world.bundle("default", "web", &["db"]).bundle("default", "db", &[]).plan();
        let status = plan.status();
        let db = &status.networks[0].bundles[0];
        assert_eq!(
            (status.networks[0].bridge.as_str(), db.name.as_str(), &db.dependents),
            ("berth0", "db", &vec!["web".to_owned()])
        );
    }
}
