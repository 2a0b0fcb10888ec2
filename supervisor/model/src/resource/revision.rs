//! Revision: one immutable state of a bundle, with all that was resolved and allocated for it.

mod history;

use std::collections::BTreeSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bundle::{BundleSpec, Termination};
pub use history::{KEPT_REVISIONS, NoWayBack, before, find, goal, serving, state_of, surplus};

crate::resource::object! {
    /// One immutable state of a bundle.
    Revision, "revisions", RevisionSpec, RevisionStatus
}

/// Written once, never changed. Named `<bundle>-r<number>`, owned by its bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// The bundle's name.
    pub bundle: String,
    /// 1, 2, 3, ... within the bundle.
    pub number: u64,
    /// The bundle's generation it was made from.
    pub generation: i64,
    /// The operation that made it.
    pub operation: String,
    /// The bundle's spec at that time.
    pub bundle_spec: BundleSpec,
    /// What the tag meant at that time.
    pub image: ResolvedImage,
    /// Its own address.
    pub allocation: Allocation,
    /// Tells what it took from ConfigMaps and Secrets from what they hold later, without the values;
    /// empty if it took nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provided: String,
    /// What the references in its variables led to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Resolved>,
    /// Where each variable of its containers comes from, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Origin>,
    /// The number of the revision that it was made from by a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
}

/// Where a variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The variable.
    pub name: String,
    /// `Image`, `Namespace`, `ConfigMap <name>`, `Secret <name>` or `Bundle`.
    pub from: String,
}

/// Where a reference led.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// As it is written, e.g. `${{db.PORT}}`.
    pub reference: String,
    /// What it stood for; never kept of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// An image pinned by digest, with what a start needs of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedImage {
    /// `registry/repository@sha256:...`.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Unpacked layers (diff ids), the topmost first.
    pub layers: Vec<String>,
    /// Image configuration: entrypoint, then default arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User, empty for root.
    pub user: String,
    /// Working directory, empty for `/`.
    pub working_dir: String,
    /// Signal that asks it to stop, e.g. `SIGQUIT`; empty for `SIGTERM`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// The directory of an unpacked layer, by its diff id.
pub fn layer_directory(diff_id: &str) -> String {
    diff_id.replacen(':', "-", 1)
}

/// What was set aside for one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// IPv4 address inside the namespace's network.
    pub address: String,
    /// IPv6 address there; empty in records from before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address6: String,
    /// The bundle's own address, the same for all its revisions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service6: String,
    /// First host id of the range.
    pub id_base: u32,
    /// Name of the host end of the veth pair.
    pub host_link: String,
}

impl Allocation {
    /// The revision's own addresses, one of each family it has.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        [&self.address, &self.address6].into_iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// Only the bookkeeping of its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// What became of it.
    pub state: RevisionState,
    /// Why it did not become ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Why a revision did not become ready, kept for as long as its record is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// The code of the operation's error.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// How its container ended, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination: Option<Termination>,
    /// The newest lines of its output, oldest first: at most 50, and 16 KiB.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// Lines of output that are kept of a revision that failed.
pub const KEPT_LINES: u32 = 50;
/// Bytes of all these lines together; longer ones lose their ends, then older ones go.
pub const KEPT_BYTES: usize = 16 << 10;
/// Bytes of one of these lines.
const KEPT_LINE: usize = 1 << 10;

/// As much of the output as is kept.
pub fn kept_output(lines: &[String]) -> Vec<String> {
    let mut room = KEPT_BYTES;
    let newest = lines.iter().rev().take(KEPT_LINES as usize).map(|line| shortened(line));
    let mut kept: Vec<String> = newest
        .take_while(|line| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        })
        .collect();
    kept.reverse();
    kept
}

fn shortened(line: &str) -> String {
    match line.len() <= KEPT_LINE {
        true => line.to_owned(),
        false => format!("{}...", &line[..line.floor_char_boundary(KEPT_LINE - 3)]),
    }
}

impl RevisionState {
    /// It may have a unit, and holds its address and ids.
    pub fn holds_allocation(self) -> bool {
        matches!(self, Self::Candidate | Self::Active | Self::Retiring)
    }
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionState {
    /// Being brought up, or prepared and left stopped.
    #[default]
    Candidate,
    /// The one that serves.
    Active,
    /// Served until now, still running while its successor takes over.
    Retiring,
    /// Served once.
    Superseded,
    /// Never became ready.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_output_the_newest_lines_are_kept_in_their_order() {
        let lines: Vec<String> = (0..60).map(|number| format!("line {number}")).collect();
        let kept = kept_output(&lines);
        assert_eq!((kept.len(), kept[0].as_str(), kept[49].as_str()), (50, "line 10", "line 59"));
    }

    #[test]
    fn an_output_of_long_lines_is_kept_as_far_as_there_is_room() {
        let lines: Vec<String> = (0..50).map(|number| format!("{number}{}", "\u{e4}".repeat(4000))).collect();
        let kept = kept_output(&lines);
        assert!(kept.iter().map(String::len).sum::<usize>() <= KEPT_BYTES);
        assert!((15..=17).contains(&kept.len()) && kept.last().unwrap().starts_with("49"), "{}", kept.len());
        assert!(kept.iter().all(|line| line.ends_with("\u{e4}...")));
    }
}
