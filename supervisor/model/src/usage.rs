//! What bundles and the machine use, as the kernel counts it at one moment.
//!
//! Counters only grow (or begin anew when a unit is restarted); what is used per second is the difference between
//! two looks, which [`per_second`] takes.

use serde::{Deserialize, Serialize};

use crate::pressure::Disk;
use crate::resource::{GROUP, VERSION};

/// One look at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// `berth.dev/v1`.
    pub api_version: String,
    /// `Usage`.
    pub kind: String,
    /// When it was taken: microseconds since some moment that stays the same until the next boot.
    pub taken_us: u64,
    /// All of the machine.
    pub machine: MachineUsage,
    /// Every bundle, by namespace and name.
    pub bundles: Vec<BundleUsage>,
}

/// What the machine uses, whoever it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MachineUsage {
    /// Processors that are there.
    pub cores: u64,
    /// Time that they were at work since the boot, all together, microseconds.
    pub cpu_us: u64,
    /// Tasks that run or want to, on average over a minute, in hundredths.
    pub load_hundredths: u64,
    /// Bytes of memory there are.
    pub memory: u64,
    /// Bytes of it that could be had without swapping.
    pub memory_available: u64,
    /// Seconds since the boot.
    pub uptime: u64,
    /// The data disk.
    pub disk: Disk,
}

/// What a bundle uses. What its kernel does not count, or does not count now, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BundleUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Restarts by systemd.
    pub restarts: u64,
    /// Processor time since its unit was started, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Bytes now, caches of files included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Bytes read from disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Bytes written to disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
}

impl Usage {
    /// One look, taken then.
    pub fn new(taken_us: u64, machine: MachineUsage, bundles: Vec<BundleUsage>) -> Self {
        Self { api_version: format!("{GROUP}/{VERSION}"), kind: "Usage".to_owned(), taken_us, machine, bundles }
    }

    /// The same bundle in this look.
    pub fn bundle(&self, namespace: &str, name: &str) -> Option<&BundleUsage> {
        self.bundles.iter().find(|one| one.namespace == namespace && one.name == name)
    }
}

/// How much a counter grew in a second, over a time in microseconds. `None` if either end is not known; a counter that
/// began anew counts from nothing.
pub fn per_second(before: Option<u64>, after: Option<u64>, over_us: u64) -> Option<u64> {
    let (before, after) = (before?, after?);
    let grown = u128::from(if after < before { after } else { after - before });
    let rate = grown * 1_000_000 / u128::from(over_us.max(1));
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_told_per_second_and_one_that_began_anew_from_nothing() {
        assert_eq!(per_second(Some(100), Some(400), 500_000), Some(600));
        assert_eq!(per_second(Some(400), Some(100), 1_000_000), Some(100));
        assert_eq!(per_second(None, Some(100), 1_000_000), None);
        assert_eq!(per_second(Some(0), Some(u64::MAX), 0), Some(u64::MAX));
    }
}
