//! Kinds whose objects are read from the machine when they are asked for.

use std::borrow::Cow;

use serde_json::Value;

use super::core::PLAIN;
use super::table::{Column, since, text};
use super::views::shape;
use super::{Registration, views};
use crate::machine::{self, Machine};
use crate::policy::Verb;

/// How the objects of a kind are read.
#[derive(Clone, Copy)]
pub struct Reading {
    /// Whether rates are told, which takes two looks.
    pub rates: bool,
    /// All of its objects.
    pub show: fn(&Machine) -> Vec<Value>,
}

const READS: &[Verb] = &[Verb::Get, Verb::List];

/// The machine.
pub static NODE: Registration = Registration {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    verbs: READS,
    instead: "the Node is what this machine looks like to Kubernetes' clients, and is read when it is asked for; \
              stop bundles with `berth stop`, and the machine with systemctl",
    columns: &[
        Column::NAME,
        Column::text("Status", "Ready: the supervisor answers."),
        Column::AGE,
        Column::text("Version", "Of Berth."),
        Column::text("Internal-IP", "Where it is reached.").wide(),
        Column::text("OS-Image", "Its system.").wide(),
        Column::text("Kernel-Version", "Its kernel.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/status/conditions/0/type"),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/status/nodeInfo/kubeletVersion"),
            text(object, "/status/addresses/0/address"),
            text(object, "/status/nodeInfo/osImage"),
            text(object, "/status/nodeInfo/kernelVersion"),
        ]
    },
    reading: Some(Reading { rates: false, show: machine::nodes }),
    shape: shape(
        || Cow::Borrowed("io.k8s.api.core.v1.Node"),
        |generator| {
            views::register(generator, "io.k8s.api.core.v1.Node", "This machine, as Kubernetes' clients expect it.");
        },
    ),
    ..PLAIN
};

/// What the machine uses.
pub static NODE_METRICS: Registration = Registration {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "NodeMetrics",
    plural: "nodes",
    singular: "nodemetrics",
    namespaced: false,
    verbs: READS,
    instead: "what is used is read when it is asked for, and cannot be written",
    columns: &[
        Column::NAME,
        Column::text("CPU", "Cores at work."),
        Column::text("Memory", "In use, and not to be had without swapping."),
        Column::text("Window", "What rates are told over."),
    ],
    cells: |object, _| ["/metadata/name", "/usage/cpu", "/usage/memory", "/window"].map(|at| text(object, at)).to_vec(),
    reading: Some(Reading { rates: true, show: machine::node_metrics }),
    shape: shape(
        || Cow::Borrowed("io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics"),
        |generator| {
            let name = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics";
            views::register(generator, name, "What this machine uses, as Kubernetes' clients expect it.");
        },
    ),
    ..PLAIN
};

/// What running bundles use.
pub static POD_METRICS: Registration = Registration {
    kind: "PodMetrics",
    plural: "pods",
    singular: "podmetrics",
    label_name: true,
    namespaced: true,
    cells: |object, _| {
        let container = |field: &str| text(object, &format!("/containers/0/usage/{field}"));
        vec![text(object, "/metadata/name"), container("cpu"), container("memory"), text(object, "/window")]
    },
    reading: Some(Reading { rates: true, show: machine::pod_metrics }),
    shape: shape(
        || Cow::Borrowed("io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"),
        |generator| {
            let name = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics";
            views::register(generator, name, "What a running Bundle uses, as Kubernetes' clients expect it.");
        },
    ),
    ..NODE_METRICS
};
