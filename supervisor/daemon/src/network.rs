//! The machine's network for bundles: one bridge per namespace and one nftables table, both rendered
//! from the revisions in the store.
//!
//! Nothing is remembered between two calls: [`State::of`] reads who holds which address and which
//! revision serves, [`rules::table`] renders the whole table, and the adapter in `daemon.rs` swaps it
//! in one transaction. Established flows survive the swap, as connection tracking does not belong to
//! the table.

pub mod rules;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use berth_model::allocation::network_of;
use berth_model::resource::bundle::Protocol;
use berth_model::resource::revision::{Revision, RevisionState};

/// What the network has to look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Networks in use, by number.
    pub networks: BTreeSet<u8>,
    /// Published ports, in order.
    pub published: BTreeSet<Published>,
}

/// A port of the machine that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the machine.
    pub host_port: u16,
    /// The container.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

impl State {
    /// Every revision that may have a unit needs its bridge; ports lead to those that serve.
    pub fn of(revisions: &[Revision]) -> State {
        let mut state = State::default();
        for revision in revisions {
            let stands = revision.status.as_ref().map(|status| status.state).unwrap_or_default();
            if !stands.holds_allocation() {
                continue;
            }
            state.networks.extend(network_of(&revision.spec.allocation));
            if stands == RevisionState::Active {
                state.published.extend(published(revision));
            }
        }
        state
    }
}

fn published(revision: &Revision) -> Vec<Published> {
    let Ok(address) = revision.spec.allocation.address.parse() else { return Vec::new() };
    let ports = revision.spec.bundle_spec.ports.iter();
    let lead = ports.filter_map(|port| {
        let host_port = port.published()?;
        Some(Published { protocol: port.protocol, host_port, address, port: port.container_port })
    });
    lead.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::resource::bundle::{BundleSpec, Expose, Port};
    use berth_model::resource::revision::{Allocation, RevisionSpec, RevisionStatus};

    fn revision(number: u64, address: &str, state: RevisionState) -> Revision {
        let port = Port { container_port: 80, expose: Expose::Lan, host_port: Some(8080), ..Port::default() };
        Revision {
            metadata: Default::default(),
            spec: RevisionSpec {
                bundle: "web".into(),
                number,
                generation: 1,
                operation: String::new(),
                bundle_spec: BundleSpec { ports: vec![port], ..BundleSpec::default() },
                image: Default::default(),
                allocation: Allocation { address: address.into(), ..Allocation::default() },
            },
            status: Some(RevisionStatus { state }),
        }
    }

    #[test]
    fn a_port_leads_to_the_revision_that_serves_and_to_no_other() {
        let both =
            [revision(1, "10.213.0.2", RevisionState::Active), revision(2, "10.213.0.3", RevisionState::Candidate)];
        let state = State::of(&both);
        let address: Vec<String> = state.published.iter().map(|one| one.address.to_string()).collect();
        assert_eq!((address, state.networks.len()), (vec!["10.213.0.2".to_owned()], 1));
    }

    #[test]
    fn a_superseded_revision_needs_no_network() {
        assert_eq!(State::of(&[revision(1, "10.213.0.2", RevisionState::Superseded)]), State::default());
    }

    #[test]
    fn the_table_is_rendered_as_in_the_golden_file() {
        let state = State::of(&[revision(1, "10.213.0.2", RevisionState::Active)]);
        let rendered = rules::table(&state).to_json().unwrap();
        assert_eq!(rendered, include_str!("../tests/golden/rules.json").trim_end());
    }
}
