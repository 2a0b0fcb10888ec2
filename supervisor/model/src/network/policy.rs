//! NetworkPolicies: their rules as a person writes them, checked; and as the plan has them, with
//! every selector replaced by the addresses it chooses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

use super::plan::name_of;
use super::ranges::merged;
use super::{Member, Name, Plan, Policy, PortMatch, Ranges, Rule};
use crate::field::{FieldError, Rule as Finding};
use crate::meta;
use crate::resource::bundle::Protocol;

/// Most rules of one policy, both directions together.
pub const MAX_RULES: usize = 500;
/// Most peers, exceptions and ports of one policy.
pub const MAX_TERMS: usize = 5000;
/// Most rules of all policies together, as the kernel has them. More would take so long to load
/// that every change of the machine's network waits for it.
const MAX_RENDERED: usize = 20_000;

pub(super) type Labels = BTreeMap<String, String>;

/// What selectors choose from.
pub(super) struct Selectable {
    /// Labels of namespaces.
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// Labels of the plan's members, in its order.
    pub(super) labels: Vec<Labels>,
}

/// One rule of either direction.
struct Written<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

/// Both directions of a policy; one that it is not about is absent.
struct Directions<'a> {
    inbound: Option<Vec<Written<'a>>>,
    outbound: Option<Vec<Written<'a>>>,
}

impl<'a> Directions<'a> {
    fn of(policy: &'a NetworkPolicy) -> Self {
        let Some(spec) = &policy.spec else { return Self { inbound: Some(Vec::new()), outbound: None } };
        let types = spec.policy_types.as_deref().filter(|types| !types.is_empty());
        let about = |word: &str| types.map(|types| types.iter().any(|one| one == word));
        let inbound = spec.ingress.iter().flatten().map(|rule| Written {
            peers: rule.from.as_deref().unwrap_or_default(),
            ports: rule.ports.as_deref().unwrap_or_default(),
        });
        let outbound = spec.egress.iter().flatten().map(|rule| Written {
            peers: rule.to.as_deref().unwrap_or_default(),
            ports: rule.ports.as_deref().unwrap_or_default(),
        });
        Self {
            inbound: about("Ingress").unwrap_or(true).then(|| inbound.collect()),
            outbound: about("Egress").unwrap_or(spec.egress.is_some()).then(|| outbound.collect()),
        }
    }
}

/// Compiles policies into a plan that has its members already.
pub(super) fn compile(plan: &mut Plan, policies: &[NetworkPolicy], from: &Selectable) {
    let mut policies: Vec<&NetworkPolicy> = policies.iter().collect();
    policies.sort_by_key(|policy| name_of(&policy.metadata));
    let mut room = MAX_RENDERED;
    for policy in policies {
        let name = name_of(&policy.metadata);
        let subjects = subjects(plan, policy, from, &name);
        let directions = Directions::of(policy);
        let ours = plan.ours();
        let context = Context { members: &plan.members, from, namespace: &name.namespace, ours: &ours };
        let mut compiled = Policy {
            inbound: directions.inbound.map(|rules| context.rules(&rules)),
            outbound: directions.outbound.map(|rules| context.rules(&rules)),
            name,
        };
        if !fits(&compiled, &mut room) {
            plan.problems.push(format!(
                "all NetworkPolicies together have more than {MAX_RENDERED} rules: {} allows nothing until some are removed",
                compiled.name
            ));
            compiled.inbound = compiled.inbound.map(|_| Vec::new());
            compiled.outbound = compiled.outbound.map(|_| Vec::new());
        }
        attach(plan, compiled, &subjects);
    }
}

/// Takes what a policy costs from the room there is, if there is enough.
fn fits(policy: &Policy, room: &mut usize) -> bool {
    let rules = policy.inbound.iter().chain(&policy.outbound).flatten();
    let cost: usize = rules.map(|rule| 2 * rule.ports.len().max(1)).sum();
    let left = room.checked_sub(cost);
    *room = left.unwrap_or(*room);
    left.is_some()
}

fn attach(plan: &mut Plan, policy: Policy, subjects: &[usize]) {
    let at = plan.policies.len();
    for subject in subjects {
        let Some(member) = plan.members.get_mut(*subject) else { continue };
        member.inbound.extend(policy.inbound.is_some().then_some(at));
        member.outbound.extend(policy.outbound.is_some().then_some(at));
    }
    plan.policies.push(policy);
}

fn subjects(plan: &Plan, policy: &NetworkPolicy, from: &Selectable, name: &Name) -> Vec<usize> {
    let nothing = LabelSelector::default();
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).unwrap_or(&nothing);
    let all = plan.members.iter().zip(&from.labels).enumerate();
    let own = all.filter(|(_, (member, labels))| member.name.namespace == name.namespace && chosen(selector, labels));
    own.map(|(at, _)| at).collect()
}

struct Context<'a> {
    members: &'a [Member],
    from: &'a Selectable,
    namespace: &'a str,
    ours: &'a Ranges,
}

impl Context<'_> {
    fn rules(&self, written: &[Written<'_>]) -> Vec<Rule> {
        let rules = written.iter().enumerate().map(|(number, rule)| Rule {
            number,
            far: (!rule.peers.is_empty())
                .then(|| rule.peers.iter().map(|peer| self.far(peer)).fold(Ranges::default(), Ranges::and)),
            ports: self.ports(rule.ports),
        });
        rules.collect()
    }

    /// A block never stands for bundles: those are chosen by their labels.
    fn far(&self, peer: &NetworkPolicyPeer) -> Ranges {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten().filter_map(|text| Ranges::block(text).ok());
            let except = except.fold(self.ours.clone(), Ranges::and);
            return Ranges::block(&block.cidr).map(|whole| whole.without(&except)).unwrap_or_default();
        }
        let here = |member: &Member| match &peer.namespace_selector {
            None => member.name.namespace == self.namespace,
            Some(selector) => self.from.namespaces.get(&member.name.namespace).is_some_and(|it| chosen(selector, it)),
        };
        let meant = |labels: &Labels| peer.pod_selector.as_ref().is_none_or(|selector| chosen(selector, labels));
        let members = self.members.iter().zip(&self.from.labels);
        let chosen = members.filter(|(member, labels)| here(member) && meant(labels));
        Ranges::of(chosen.flat_map(|(member, _)| member.addresses()))
    }

    /// Numbers are gathered by protocol; each name is looked up at every bundle that has it.
    fn ports(&self, ports: &[NetworkPolicyPort]) -> Vec<PortMatch> {
        let mut plain: BTreeMap<Protocol, Vec<(u16, u16)>> = BTreeMap::new();
        let mut named: BTreeMap<(Protocol, u16), Vec<IpAddr>> = BTreeMap::new();
        for port in ports {
            let Some(protocol) = protocol(port) else { continue };
            match &port.port {
                None => plain.entry(protocol).or_default().push((0, u16::MAX)),
                Some(IntOrString::Int(first)) => {
                    plain.entry(protocol).or_default().extend(range(*first, port.end_port))
                }
                Some(IntOrString::String(name)) => self.look_up(name, protocol, &mut named),
            }
        }
        let plain = plain.into_iter().map(|(protocol, numbers)| {
            let numbers = merged(numbers);
            let every = numbers == [(0, u16::MAX)];
            PortMatch { protocol, numbers: if every { Vec::new() } else { numbers }, at: None }
        });
        let named = named.into_iter().map(|((protocol, number), at)| PortMatch {
            protocol,
            numbers: vec![(number, number)],
            at: Some(Ranges::of(at)),
        });
        let mut all: Vec<PortMatch> = plain.chain(named).collect();
        if all.is_empty() && !ports.is_empty() {
            // Names that nobody has: no ports, which is not the same as every port.
            all.push(PortMatch { protocol: Protocol::Tcp, numbers: vec![(0, 0)], at: Some(Ranges::default()) });
        }
        all
    }

    fn look_up(&self, name: &str, protocol: Protocol, found: &mut BTreeMap<(Protocol, u16), Vec<IpAddr>>) {
        for end in self.members.iter().flat_map(|member| &member.ends) {
            for port in end.ports.iter().filter(|port| port.name == name && port.protocol == protocol) {
                found.entry((protocol, port.number)).or_default().extend(&end.addresses);
            }
        }
    }
}

fn protocol(port: &NetworkPolicyPort) -> Option<Protocol> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

fn range(first: i32, last: Option<i32>) -> Option<(u16, u16)> {
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last.unwrap_or(first)).ok()?);
    (first <= last).then_some((first, last))
}

fn chosen(selector: &LabelSelector, labels: &Labels) -> bool {
    let same = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    same && selector.match_expressions.iter().flatten().all(|one| holds(one, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|one| one == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Checks a policy; the old one does not matter.
pub fn validate(new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let policy = match NetworkPolicy::deserialize(new) {
        Ok(policy) => policy,
        Err(error) => return vec![FieldError::invalid("", error.to_string())],
    };
    let Some(spec) = &policy.spec else {
        return vec![FieldError::required("spec", "say whom the policy is for, e.g. `podSelector: {}`")];
    };
    let count = spec.ingress.iter().flatten().count() + spec.egress.iter().flatten().count();
    if count > MAX_RULES {
        let message = format!(
            "has {count} rules; at most {MAX_RULES} fit: gather peers and ports in fewer rules, \
             or write an ipBlock for many addresses"
        );
        return vec![FieldError::new(Finding::TooLong, "spec", message)];
    }
    let types = spec.policy_types.iter().flatten().enumerate();
    let types = types.filter(|(_, word)| !["Ingress", "Egress"].contains(&word.as_str()));
    let mut findings = Findings(types.map(|(at, word)| unknown_type(at, word)).collect());
    match &spec.pod_selector {
        Some(selector) => findings.selector("spec.podSelector", selector),
        None => findings.0.push(FieldError::required("spec.podSelector", "say whom it is for; `{}` is every bundle")),
    }
    findings.rules(&policy);
    findings.0
}

fn unknown_type(at: usize, word: &str) -> FieldError {
    let message = format!("`{word}` is neither `Ingress` nor `Egress`");
    FieldError::new(Finding::Unsupported, format!("spec.policyTypes[{at}]"), message)
}

struct Findings(Vec<FieldError>);

impl Findings {
    /// Rules are checked also where `policyTypes` leaves their direction out.
    fn rules(&mut self, policy: &NetworkPolicy) {
        let mut every = policy.clone();
        if let Some(spec) = &mut every.spec {
            spec.policy_types = Some(vec!["Ingress".into(), "Egress".into()]);
        }
        let directions = Directions::of(&every);
        let both = [("ingress", "from", directions.inbound), ("egress", "to", directions.outbound)];
        let mut terms = 0;
        for (direction, peers, rules) in both {
            for (at, rule) in rules.into_iter().flatten().enumerate() {
                terms += terms_of(&rule);
                self.rule(&format!("spec.{direction}[{at}]"), peers, &rule);
            }
        }
        if terms > MAX_TERMS {
            let message = format!("names {terms} peers, exceptions and ports; at most {MAX_TERMS} fit");
            self.0.push(FieldError::new(Finding::TooLong, "spec", message));
        }
    }

    fn rule(&mut self, path: &str, peers: &str, rule: &Written<'_>) {
        for (at, peer) in rule.peers.iter().enumerate() {
            self.peer(&format!("{path}.{peers}[{at}]"), peer);
        }
        for (at, port) in rule.ports.iter().enumerate() {
            self.port(&format!("{path}.ports[{at}]"), port);
        }
    }

    fn peer(&mut self, path: &str, peer: &NetworkPolicyPeer) {
        let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
        let some = selectors.iter().any(|(_, selector)| selector.is_some());
        match &peer.ip_block {
            Some(_) if some => {
                let message = "an ipBlock stands alone: write selectors as another entry of the list";
                self.0.push(FieldError::forbidden(format!("{path}.ipBlock"), message));
            }
            Some(block) => self.block(&format!("{path}.ipBlock"), block),
            None if !some => {
                let message = "name podSelector, namespaceSelector or ipBlock";
                self.0.push(FieldError::required(path, message));
            }
            None => {}
        }
        for (field, selector) in selectors {
            if let Some(selector) = selector {
                self.selector(&format!("{path}.{field}"), selector);
            }
        }
    }

    fn block(&mut self, path: &str, block: &IPBlock) {
        let whole = match Ranges::block(&block.cidr) {
            Ok(whole) => whole,
            Err(error) => return self.0.push(FieldError::invalid(format!("{path}.cidr"), error.to_string())),
        };
        for (at, text) in block.except.iter().flatten().enumerate() {
            let wrong = match Ranges::block(text) {
                Err(error) => error.to_string(),
                Ok(hole) if !hole.without(&whole).is_empty() => format!("`{text}` is not inside {}", block.cidr),
                Ok(_) => continue,
            };
            self.0.push(FieldError::invalid(format!("{path}.except[{at}]"), wrong));
        }
    }

    fn port(&mut self, path: &str, port: &NetworkPolicyPort) {
        if let Some(word) = port.protocol.as_ref().filter(|_| protocol(port).is_none()) {
            let message = format!("`{word}` is neither `TCP` nor `UDP`");
            self.0.push(FieldError::new(Finding::Unsupported, format!("{path}.protocol"), message));
        }
        let number = |value: i32| (1..=65_535).contains(&value);
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(first)), _) if !number(*first) => {
                self.0.push(FieldError::invalid(format!("{path}.port"), "must be 1 to 65535, or a port's name"));
            }
            (Some(IntOrString::String(name)), None) if crate::id::dns_label(name).is_err() => {
                self.0.push(FieldError::invalid(format!("{path}.port"), format!("`{name}` is no name of a port")));
            }
            (Some(IntOrString::Int(first)), Some(last)) if last < *first || !number(last) => {
                let message = format!("must be {first} to 65535");
                self.0.push(FieldError::invalid(format!("{path}.endPort"), message));
            }
            (None | Some(IntOrString::String(_)), Some(_)) => {
                let message = "goes with a port that is a number";
                self.0.push(FieldError::forbidden(format!("{path}.endPort"), message));
            }
            _ => {}
        }
    }

    fn selector(&mut self, path: &str, selector: &LabelSelector) {
        for (key, value) in selector.match_labels.iter().flatten() {
            let wrong = meta::qualified(key).and_then(|()| meta::label_value(value)).err();
            self.0.extend(wrong.map(|wrong| FieldError::invalid(format!("{path}.matchLabels[{key}]"), wrong)));
        }
        for (at, one) in selector.match_expressions.iter().flatten().enumerate() {
            self.requirement(&format!("{path}.matchExpressions[{at}]"), one);
        }
    }

    fn requirement(&mut self, path: &str, one: &LabelSelectorRequirement) {
        if let Err(wrong) = meta::qualified(&one.key) {
            self.0.push(FieldError::invalid(format!("{path}.key"), wrong));
        }
        let empty = one.values.iter().flatten().next().is_none();
        match one.operator.as_str() {
            "In" | "NotIn" if empty => {
                self.0.push(FieldError::required(format!("{path}.values"), "list the values"));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let message = "has no meaning with this operator; leave it out";
                self.0.push(FieldError::forbidden(format!("{path}.values"), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let message = format!("`{other}` is none of In, NotIn, Exists, DoesNotExist");
                self.0.push(FieldError::new(Finding::Unsupported, format!("{path}.operator"), message));
            }
        }
    }
}

fn terms_of(rule: &Written<'_>) -> usize {
    let except = |peer: &NetworkPolicyPeer| peer.ip_block.iter().flat_map(|block| &block.except).flatten().count();
    rule.ports.len() + rule.peers.iter().map(|peer| 1 + except(peer)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use serde_json::json;

    fn findings(spec: Value) -> Vec<(String, Finding)> {
        let policy = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
        validate(&policy, None).into_iter().map(|error| (error.field, error.rule)).collect()
    }

    #[test]
    fn a_policy_with_all_it_can_have_is_in_order() {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [
                    {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}},
                    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
                     "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}},
                ], "ports": [{"port": 5432}, {"protocol": "UDP", "port": 6000, "endPort": 6010}, {"port": "http"}]},
                {},
            ],
            "egress": [{"to": [{"podSelector": {}}]}],
        });
        assert_eq!(findings(spec), []);
    }

    #[test]
    fn every_wrong_part_is_named() {
        let spec = json!({
            "podSelector": {"matchLabels": {"a b": "x"}},
            "policyTypes": ["Inward"],
            "ingress": [{"from": [
                {},
                {"ipBlock": {"cidr": "192.0.2.0/33"}},
                {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["10.0.0.0/8", "x"]}},
                {"ipBlock": {"cidr": "192.0.2.0/24"}, "podSelector": {}},
                {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Is"}]}},
            ], "ports": [
                {"protocol": "SCTP"}, {"port": 0}, {"port": "No Name"}, {"port": 80, "endPort": 79}, {"endPort": 9},
            ]}],
        });
        let fields: Vec<String> = findings(spec).into_iter().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "spec.policyTypes[0]",
                "spec.podSelector.matchLabels[a b]",
                "spec.ingress[0].from[0]",
                "spec.ingress[0].from[1].ipBlock.cidr",
                "spec.ingress[0].from[2].ipBlock.except[0]",
                "spec.ingress[0].from[2].ipBlock.except[1]",
                "spec.ingress[0].from[3].ipBlock",
                "spec.ingress[0].from[4].podSelector.matchExpressions[0].values",
                "spec.ingress[0].from[4].podSelector.matchExpressions[1].operator",
                "spec.ingress[0].ports[0].protocol",
                "spec.ingress[0].ports[1].port",
                "spec.ingress[0].ports[2].port",
                "spec.ingress[0].ports[3].endPort",
                "spec.ingress[0].ports[4].endPort",
            ]
        );
    }

    #[test]
    fn a_policy_of_ten_thousand_rules_is_refused_with_the_bound() {
        let rules: Vec<Value> = (0..10_000).map(|n| json!({"ports": [{"port": n + 1}]})).collect();
        assert_eq!(findings(json!({"podSelector": {}, "ingress": rules})), [("spec".into(), Finding::TooLong)]);
        let peers: Vec<Value> = (0..6000).map(|_| json!({"ipBlock": {"cidr": "192.0.2.0/24"}})).collect();
        let rules = json!({"podSelector": {}, "ingress": [{"from": peers}]});
        assert_eq!(findings(rules), [("spec".into(), Finding::TooLong)]);
    }

    #[test]
    fn policies_that_are_too_many_together_allow_nothing_rather_than_everything() {
        let rules: Vec<Value> = (0..500).map(|n| json!({"ports": [{"port": n + 1}]})).collect();
        let mut world = World::default();
        world.bundle("default", "web", &[]);
        for number in 10..41 {
            world.policy("default", &format!("p{number}"), json!({"podSelector": {}, "ingress": rules}));
        }
        let plan = world.plan();
        let sizes: Vec<usize> = plan.policies.iter().map(|one| one.inbound.as_ref().unwrap().len()).collect();
        assert_eq!((sizes[19], sizes[20], plan.problems.len()), (500, 0, 11));
        assert!(plan.problems[0].contains("default/p30 allows nothing"), "{}", plan.problems[0]);
        assert_eq!(plan.members[0].inbound.len(), 31);
    }

    #[test]
    fn blocks_stand_for_the_outside_and_selectors_for_bundles() {
        let mut world = World::default();
        world.namespace("default", &[]).namespace("team", &[("tier", "a")]);
        world.bundle("default", "web", &[]).bundle("team", "api", &[]).bundle("team", "db", &[]);
        world.label("team", "db", "app", "store");
        let from = json!([
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            {"namespaceSelector": {"matchLabels": {"tier": "a"}}, "podSelector": {"matchLabels": {"app": "store"}}},
        ]);
        world.policy("default", "p", json!({"podSelector": {}, "ingress": [{"from": from}]}));
        let plan = world.plan();
        let far = plan.policies[0].inbound.as_ref().unwrap()[0].far.clone().unwrap();
        let holds = |text: &str| far.holds(text.parse().unwrap());
        let seen = ["10.0.0.1", "10.1.0.1", "10.213.1.3", "10.213.1.2", "10.213.0.2", "fd01:203:405:1::3"].map(holds);
        assert_eq!(seen, [true, false, true, false, false, true]);
    }

    #[test]
    fn a_port_by_name_is_looked_up_where_it_leads_and_a_name_of_nobody_allows_none() {
        let mut world = World::default();
        world.bundle("default", "web", &[]);
        let rules = json!([{"ports": [{"port": "admin"}]}, {"ports": [{"port": "nobody"}]}]);
        world.policy("default", "p", json!({"podSelector": {}, "ingress": rules}));
        let plan = world.plan();
        let rules = plan.policies[0].inbound.as_ref().unwrap();
        let (far, web) = ("192.0.2.1".parse().unwrap(), "10.213.0.2".parse().unwrap());
        let allowed = |at: usize, port: u16| rules[at].allows(far, web, Protocol::Tcp, port);
        assert_eq!([allowed(0, 9000), allowed(0, 80), allowed(1, 9000), allowed(1, 0)], [true, false, false, false]);
    }
}
