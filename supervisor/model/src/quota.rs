//! Quotas: what the bundles of a namespace may use together, and what they do.
//!
//! What counts is what a bundle is allowed, not what it happens to use: its limits, with the defaults where it names
//! none, its volumes (those too that a removed bundle has left), and its layer on disk.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{bytes, cpu_millis, show_bytes};
use crate::resource::bundle::{BundleSpec, DEFAULT_CPU, DEFAULT_MEMORY, DEFAULT_PIDS};
use crate::resource::volume::{VolumeStatus, volume_name};

/// Amounts by what they are of; what is absent has no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Quota {
    /// Cores, e.g. `2` or `1500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Bytes of memory, e.g. `4Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes of volumes, and of layers on disk, e.g. `100Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Number of bundles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundles: Option<u64>,
}

/// What is counted, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Thousandths of a core.
    Cpu,
    /// Bytes.
    Memory,
    /// Processes and threads.
    Pids,
    /// Bytes.
    Storage,
    /// Bundles.
    Bundles,
}

impl Measure {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Pids, Self::Storage, Self::Bundles];

    /// The field of a bundle that asks for it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Cpu => "spec.resources.cpu",
            Self::Memory => "spec.resources.memory",
            Self::Pids => "spec.resources.pids",
            Self::Storage => "spec.volumes",
            Self::Bundles => "metadata.namespace",
        }
    }

    /// An amount as people write it.
    fn show(self, amount: u64) -> String {
        match self {
            Self::Cpu if amount.is_multiple_of(1000) => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
            Self::Memory | Self::Storage => show_bytes(amount),
            Self::Pids | Self::Bundles => amount.to_string(),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Storage => "storage",
            Self::Bundles => "bundles",
        })
    }
}

impl Quota {
    /// Nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The amount of a measure: thousandths of a core, bytes, or a number. `None` if it is not named, or is none.
    pub fn of(&self, measure: Measure) -> Option<u64> {
        match measure {
            Measure::Cpu => self.cpu.as_deref().and_then(|text| cpu_millis(text).ok()),
            Measure::Memory => self.memory.as_deref().and_then(|text| bytes(text).ok()),
            Measure::Pids => self.pids,
            Measure::Storage => self.storage.as_deref().and_then(|text| bytes(text).ok()),
            Measure::Bundles => self.bundles,
        }
    }

    /// These amounts, of what `self` names.
    #[must_use]
    pub fn showing(&self, used: &Used) -> Self {
        let text = |measure| self.of(measure).map(|_| measure.show(used.of(measure)));
        let number = |measure| self.of(measure).map(|_| used.of(measure));
        Self {
            cpu: text(Measure::Cpu),
            memory: text(Measure::Memory),
            pids: number(Measure::Pids),
            storage: text(Measure::Storage),
            bundles: number(Measure::Bundles),
        }
    }
}

/// What bundles use together, in the units of [`Measure`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used([u64; 5]);

impl Used {
    /// The amount of a measure.
    pub fn of(&self, measure: Measure) -> u64 {
        self.0[measure as usize]
    }

    /// What these bundles are allowed, by name, and the volumes of their namespace have, by name.
    pub fn by<'a>(
        bundles: impl IntoIterator<Item = (&'a str, &'a BundleSpec)>,
        volumes: impl IntoIterator<Item = (&'a str, &'a VolumeStatus)>,
    ) -> Self {
        let size =
            |(name, status): (&str, &VolumeStatus)| (name.to_owned(), status.size.max(status.target.unwrap_or(0)));
        let mut sizes: BTreeMap<String, u64> = volumes.into_iter().map(size).collect();
        let mut sums = [0_u64; 5];
        for (name, spec) in bundles {
            for (sum, more) in sums.iter_mut().zip(of_bundle(spec)) {
                *sum = sum.saturating_add(more);
            }
            for wish in &spec.volumes {
                let room = sizes.entry(volume_name(name, &wish.name)).or_default();
                *room = wish.bytes().unwrap_or_default().max(*room);
            }
        }
        let storage = &mut sums[Measure::Storage as usize];
        *storage = sizes.into_values().fold(*storage, u64::saturating_add);
        Self(sums)
    }
}

/// Without its volumes.
fn of_bundle(spec: &BundleSpec) -> [u64; 5] {
    let limits = &spec.resources;
    let cpu = cpu_millis(limits.cpu.as_deref().unwrap_or(DEFAULT_CPU)).unwrap_or_default();
    let memory = bytes(limits.memory.as_deref().unwrap_or(DEFAULT_MEMORY)).unwrap_or_default();
    [cpu, memory, limits.pids.unwrap_or(DEFAULT_PIDS), limits.ephemeral_bytes().unwrap_or_default(), 1]
}

/// A quota that a change would exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Of what.
    pub measure: Measure,
    /// How much more is asked for.
    pub requested: String,
    /// How much is used without it.
    pub used: String,
    /// How much there may be.
    pub limited: String,
}

impl fmt::Display for Excess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, requested, used, limited } = self;
        write!(out, "{requested} more of {measure} than the {used} that are used would exceed the quota of {limited}")
    }
}

/// What a change from `before` to `after` would exceed. What was too much before may stay, but not grow: so a quota
/// can be lowered below what is used.
pub fn exceeded(quota: &Quota, before: &Used, after: &Used) -> Vec<Excess> {
    let one = |measure: Measure| {
        let (limit, was, is) = (quota.of(measure)?, before.of(measure), after.of(measure));
        (is > limit && is > was).then(|| Excess {
            measure,
            requested: measure.show(is - was),
            used: measure.show(was),
            limited: measure.show(limit),
        })
    };
    Measure::ALL.into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(rest: serde_json::Value) -> BundleSpec {
        let mut spec = json!({"image": "registry/web:1"});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn quota(value: serde_json::Value) -> Quota {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_bundle_counts_with_its_limits_or_the_defaults_and_a_volume_whether_or_not_it_is_there_yet() {
        let small = spec(json!({}));
        let big = spec(json!({
            "resources": {"cpu": "1500m", "memory": "1Gi", "pids": 100, "ephemeralStorage": "1Gi"},
            "volumes": [{"name": "data", "mountPath": "/data", "size": "2Gi"},
                        {"name": "more", "mountPath": "/more", "size": "3Gi"}]}));
        let there = VolumeStatus { size: 1 << 30, ..VolumeStatus::default() };
        let left = VolumeStatus { size: 5 << 30, target: Some(6 << 30), ..VolumeStatus::default() };
        let used = Used::by([("web", &small), ("db", &big)], [("db-data", &there), ("old-data", &left)]);
        let all = quota(json!({"cpu": "9", "memory": "9Gi", "pids": 1, "storage": "9Gi", "bundles": 1}));
        let shown = json!({"cpu": "2", "memory": "1536Mi", "pids": 612, "storage": "12Gi", "bundles": 2});
        assert_eq!(all.showing(&used), quota(shown));
        assert_eq!(quota(json!({"pids": 1})).showing(&used), quota(json!({"pids": 612})), "what is named is shown");
    }

    #[test]
    fn what_is_used_may_reach_a_quota_and_not_exceed_it() {
        let of = |number: usize| {
            let one = spec(json!({}));
            let all: Vec<(String, BundleSpec)> = (0..number).map(|at| (format!("web{at}"), one.clone())).collect();
            Used::by(all.iter().map(|(name, spec)| (name.as_str(), spec)), [])
        };
        let quota = quota(json!({"memory": "1Gi", "bundles": 3}));
        assert_eq!(exceeded(&quota, &of(1), &of(2)), []);
        let found = exceeded(&quota, &of(2), &of(3));
        let [excess] = found.as_slice() else { panic!("{found:?}") };
        let told = [&excess.requested, &excess.used, &excess.limited].map(String::as_str);
        assert_eq!((excess.measure, told), (Measure::Memory, ["512Mi", "1Gi", "1Gi"]));
        assert_eq!(exceeded(&quota, &of(4), &of(3)), [], "what goes down is no excess");
    }
}
