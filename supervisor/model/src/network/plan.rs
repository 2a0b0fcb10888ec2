//! From what is in the store to the plan.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::resource::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::policy::{Labels, Selectable, compile};
use super::{End, Member, Name, Network, Plan, Port};
use crate::allocation::{gateway, gateway6, network_of};
use crate::reference::dependencies;
use crate::resource::revision::{Allocation, Revision, RevisionState};
use crate::resource::settings::NetworkSettings;
use crate::resource::{Bundle, bundle};

/// Label by which every bundle can be selected; one set by a person has precedence.
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label by which every namespace can be selected.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// What is in the store.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Dependencies, labels and egress are read here: they hold at once, without a new revision.
    pub bundles: Vec<Bundle>,
    /// Addresses, and ports as the programs that run were told them.
    pub revisions: Vec<Revision>,
    /// For their labels.
    pub namespaces: Vec<Namespace>,
    /// NetworkPolicies.
    pub policies: Vec<NetworkPolicy>,
    /// Which namespaces are open, and whether neighbours are told of the machine.
    pub settings: NetworkSettings,
}

impl Plan {
    /// The plan for what is in the store.
    pub fn of(facts: &Facts) -> Plan {
        let mut held: BTreeMap<Name, Vec<&Revision>> = BTreeMap::new();
        for revision in facts.revisions.iter().filter(|revision| state(revision).holds_allocation()) {
            held.entry(owner(revision)).or_default().push(revision);
        }
        let bundles: BTreeMap<Name, &Bundle> = facts.bundles.iter().map(|one| (name_of(&one.metadata), one)).collect();
        let mut members: Vec<Member> =
            held.iter().map(|(name, revisions)| member(name, revisions, bundles.get(name))).collect();
        depend(&mut members, &bundles);
        let networks = networks(&held, &facts.settings);
        let mut plan = Plan { networks, members, multicast_dns: facts.settings.multicast_dns, ..Plan::default() };
        let namespaces = namespace_labels(facts);
        let labels: Vec<Labels> = plan.members.iter().map(|one| labels(&one.name, bundles.get(&one.name))).collect();
        compile(&mut plan, &facts.policies, &Selectable { namespaces, labels });
        plan
    }
}

fn state(revision: &Revision) -> RevisionState {
    revision.status.as_ref().map(|status| status.state).unwrap_or_default()
}

fn owner(revision: &Revision) -> Name {
    Name { namespace: revision.metadata.namespace.clone().unwrap_or_default(), name: revision.spec.bundle.clone() }
}

pub(super) fn name_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Name {
    Name { namespace: metadata.namespace.clone().unwrap_or_default(), name: metadata.name.clone().unwrap_or_default() }
}

fn member(name: &Name, revisions: &[&Revision], bundle: Option<&&Bundle>) -> Member {
    // The newest speaks for the service address; all have the same.
    let newest = revisions.iter().max_by_key(|revision| revision.spec.number);
    let service = newest.map(|revision| service_addresses(&revision.spec.allocation));
    let egress = bundle.map(|bundle| &bundle.spec).or(newest.map(|newest| &newest.spec.bundle_spec));
    let wanted = bundle.is_none_or(|bundle| bundle.spec.start);
    Member {
        name: name.clone(),
        ends: revisions.iter().map(|revision| end(revision, wanted)).collect(),
        service: service.unwrap_or_default(),
        dependents: Vec::new(),
        egress: egress.map(|spec| spec.egress).unwrap_or_default(),
        inbound: Vec::new(),
        outbound: Vec::new(),
    }
}

fn service_addresses(held: &Allocation) -> Vec<IpAddr> {
    [&held.service, &held.service6].into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// What is meant to be stopped serves nobody: who asks is refused at once instead of being led to where nobody answers.
fn end(revision: &Revision, wanted: bool) -> End {
    let held = &revision.spec.allocation;
    let ports = revision.spec.bundle_spec.ports.iter().map(|port: &bundle::Port| Port {
        name: port.name.clone(),
        protocol: port.protocol,
        number: port.container_port,
        published: port.published(),
    });
    End {
        revision: revision.spec.number,
        link: held.host_link.clone(),
        addresses: held.addresses().into_iter().collect(),
        serves: wanted && state(revision) == RevisionState::Active,
        ports: ports.collect(),
    }
}

fn networks(held: &BTreeMap<Name, Vec<&Revision>>, settings: &NetworkSettings) -> Vec<Network> {
    let mut networks: BTreeMap<u8, Network> = BTreeMap::new();
    for (name, revision) in held.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
        let held = &revision.spec.allocation;
        let Some(number) = network_of(held) else { continue };
        let network = networks.entry(number).or_insert_with(|| Network {
            number,
            namespace: name.namespace.clone(),
            gateways: Vec::new(),
            open: settings.open_namespaces.contains(&name.namespace),
        });
        let own = [gateway(held).map(IpAddr::V4), gateway6(held).map(IpAddr::V6)];
        for more in own.into_iter().flatten() {
            if !network.gateways.contains(&more) {
                network.gateways.push(more);
            }
        }
    }
    networks.into_values().collect()
}

/// Notes with each bundle who declares to depend on it. A dependency on what is not there yet holds
/// as soon as it is.
fn depend(members: &mut [Member], bundles: &BTreeMap<Name, &Bundle>) {
    let at: BTreeMap<Name, usize> = members.iter().enumerate().map(|(at, one)| (one.name.clone(), at)).collect();
    for (name, bundle) in bundles {
        let Some(&dependent) = at.get(name) else { continue };
        for other in dependencies(&bundle.spec) {
            let other = Name { namespace: name.namespace.clone(), name: other };
            if let Some(member) = at.get(&other).and_then(|at| members.get_mut(*at)) {
                member.dependents.push(dependent);
            }
        }
    }
}

fn labels(name: &Name, bundle: Option<&&Bundle>) -> Labels {
    let mut labels = bundle.and_then(|bundle| bundle.metadata.labels.clone()).unwrap_or_default();
    labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.name.clone());
    labels
}

fn namespace_labels(facts: &Facts) -> BTreeMap<String, Labels> {
    let namespaces = facts.namespaces.iter().map(|namespace| {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
        labels.insert(NAMESPACE_LABEL.to_owned(), name.clone());
        (name, labels)
    });
    namespaces.collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, addresses};
    use super::*;

    #[test]
    fn a_bundle_has_an_end_for_each_revision_that_may_run_and_one_that_serves() {
        let mut world = World::default();
        world.bundle("default", "web", &[]).revision("default", "web", RevisionState::Candidate);
        world.revision("default", "web", RevisionState::Superseded);
        let plan = world.plan();
        let web = &plan.members[0];
        let ends: Vec<(u64, bool)> = web.ends.iter().map(|end| (end.revision, end.serves)).collect();
        assert_eq!(ends, [(1, true), (2, false)]);
        assert_eq!(addresses(&web.service), "10.213.128.2 fd01:203:405:80::2");
        assert_eq!(addresses(&web.ends[1].addresses), "10.213.0.3 fd01:203:405::3");
        assert_eq!(addresses(&plan.networks[0].gateways), "10.213.0.1 fd01:203:405::1");
    }

    #[test]
    fn a_bundle_that_is_meant_to_be_stopped_keeps_its_addresses_and_serves_nobody() {
        let mut world = World::default();
        world.bundle("default", "web", &[]).stopped("default", "web");
        let web = &world.plan().members[0];
        assert_eq!((web.ends.len(), web.serving()), (1, None));
        assert_eq!(addresses(&web.service), "10.213.128.2 fd01:203:405:80::2");
    }

    #[test]
    fn dependencies_hold_inside_a_namespace_and_wait_for_what_is_not_there() {
        let mut world = World::default();
        world.bundle("default", "db", &[]).bundle("default", "web", &["db", "later"]).bundle("team", "spy", &["db"]);
        let plan = world.plan();
        let dependents: Vec<&[usize]> = plan.members.iter().map(|member| member.dependents.as_slice()).collect();
        assert_eq!(dependents, [&[1][..], &[], &[]]);
    }

    #[test]
    fn the_address_a_link_gives_itself_is_known_beforehand() {
        let mut world = World::default();
        let plan = world.bundle("default", "web", &[]).plan();
        let end = &plan.members[0].ends[0];
        assert_eq!(end.hardware(), Some([2, 0xbe, 10, 213, 0, 2]));
        assert_eq!(end.link_local().unwrap().to_string(), "fe80::be:aff:fed5:2");
    }
}
