//! A store's worth of bundles for tests.

use std::net::IpAddr;

use crate::resource::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Facts, Plan};
use crate::allocation::{Held, Pool, allocate};
use crate::resource::Bundle;
use crate::resource::bundle::{BundleSpec, Egress, Expose, Port};
use crate::resource::revision::{Revision, RevisionSpec, RevisionState, RevisionStatus};

#[derive(Default)]
pub(super) struct World {
    facts: Facts,
    held: Vec<Held>,
}

impl World {
    /// A bundle that runs, with the ports `http` (80, published as 8080) and `admin` (9000).
    pub(super) fn bundle(&mut self, namespace: &str, name: &str, depends_on: &[&str]) -> &mut Self {
        let port = |name: &str, container_port| Port { name: name.into(), container_port, ..Port::default() };
        let http = Port { expose: Expose::Lan, host_port: Some(8080), ..port("http", 80) };
        let spec = BundleSpec {
            ports: vec![http, port("admin", 9000)],
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
            start: true,
            ..BundleSpec::default()
        };
        self.facts.bundles.push(Bundle { metadata: meta(namespace, name), spec, status: None });
        self.revision(namespace, name, RevisionState::Active)
    }

    pub(super) fn revision(&mut self, namespace: &str, name: &str, state: RevisionState) -> &mut Self {
        let allocation = allocate(&self.held, Pool::default(), namespace, name, [1, 2, 3, 4, 5]).unwrap();
        let in_use = state.holds_allocation();
        let (owner, bundle) = (namespace.to_owned(), name.to_owned());
        self.held.push(Held { namespace: owner, bundle, in_use, allocation: allocation.clone() });
        let number = self.facts.revisions.iter().filter(|one| one.spec.bundle == name).count() as u64 + 1;
        let bundle_spec = self.found(namespace, name).spec.clone();
        self.facts.revisions.push(Revision {
            metadata: meta(namespace, &format!("{name}-r{number}")),
            spec: RevisionSpec {
                bundle: name.into(),
                number,
                generation: 1,
                operation: String::new(),
                bundle_spec,
                image: Default::default(),
                allocation,
                provided: String::new(),
                references: Vec::new(),
                environment: Vec::new(),
                restores: None,
            },
            status: Some(RevisionStatus { state, ..RevisionStatus::default() }),
        });
        self
    }

    pub(super) fn stopped(&mut self, namespace: &str, name: &str) -> &mut Self {
        self.found(namespace, name).spec.start = false;
        self
    }

    pub(super) fn egress(&mut self, namespace: &str, name: &str, egress: Egress) -> &mut Self {
        self.found(namespace, name).spec.egress = egress;
        self
    }

    pub(super) fn silent(&mut self) -> &mut Self {
        self.facts.settings.multicast_dns = false;
        self
    }

    pub(super) fn open(&mut self, namespaces: &[&str]) -> &mut Self {
        self.facts.settings.open_namespaces = namespaces.iter().map(ToString::to_string).collect();
        self
    }

    /// The bundle that was made last of that name declares none.
    pub(super) fn without_ports(&mut self, namespace: &str, name: &str) -> &mut Self {
        let own = |one: &&mut Revision| one.metadata.namespace.as_deref() == Some(namespace) && one.spec.bundle == name;
        self.facts.revisions.iter_mut().filter(own).for_each(|one| one.spec.bundle_spec.ports.clear());
        self
    }

    pub(super) fn label(&mut self, namespace: &str, name: &str, key: &str, value: &str) -> &mut Self {
        let labels = self.found(namespace, name).metadata.labels.get_or_insert_default();
        labels.insert(key.into(), value.into());
        self
    }

    pub(super) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> &mut Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() };
        self.facts.namespaces.push(Namespace { metadata, ..Namespace::default() });
        self
    }

    pub(super) fn policy(&mut self, namespace: &str, name: &str, spec: Value) -> &mut Self {
        let policy = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        self.facts.policies.push(serde_json::from_value(policy).unwrap());
        self
    }

    pub(super) fn plan(&self) -> Plan {
        Plan::of(&self.facts)
    }

    fn found(&mut self, namespace: &str, name: &str) -> &mut Bundle {
        let own = |bundle: &&mut Bundle| {
            bundle.metadata.namespace.as_deref() == Some(namespace) && bundle.metadata.name.as_deref() == Some(name)
        };
        self.facts.bundles.iter_mut().find(own).unwrap()
    }
}

pub(super) fn addresses(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.into()), name: Some(name.into()), ..ObjectMeta::default() }
}
