//! What systemd says about a unit, as plain values.

use std::fmt::Write;

/// Whether a unit runs. The finer sub state is for people; this is what to decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActiveState {
    /// Runs.
    Active,
    /// Runs and reads its configuration again.
    Reloading,
    /// Does not run, and ended well if it ever ran.
    Inactive,
    /// Does not run and ended badly.
    Failed,
    /// Is being started, or waits for its next start after a failure.
    Activating,
    /// Is being stopped.
    Deactivating,
    /// A state that this version does not know.
    Other(String),
}

impl ActiveState {
    pub(super) fn parse(text: &str) -> ActiveState {
        match text {
            "active" => ActiveState::Active,
            "reloading" | "refreshing" => ActiveState::Reloading,
            "inactive" => ActiveState::Inactive,
            "failed" => ActiveState::Failed,
            "activating" => ActiveState::Activating,
            "deactivating" => ActiveState::Deactivating,
            other => ActiveState::Other(other.to_owned()),
        }
    }
}

/// A unit in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSummary {
    /// Full name with suffix.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Whether it runs.
    pub active: ActiveState,
    /// The finer state, for people.
    pub sub: String,
    /// The job that is queued for it, if any.
    pub job: Option<u32>,
}

/// A service unit at one moment: what can be had for little. systemd knows some four hundred properties of a service,
/// and reads files of the kernel for many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Whether it runs.
    pub active: ActiveState,
    /// The main process while it runs.
    pub main_pid: Option<u32>,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// 32 hexadecimal digits, new for every start; absent before the first.
    pub invocation: Option<String>,
}

/// What a property should have been and was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("property {0} is of another type")]
pub struct BadProperty(pub(super) &'static str);

/// An id as systemd prints it; `None` for one of zeros.
pub(super) fn hex(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_never_ran_has_no_invocation() {
        assert_eq!(hex(&[0; 16]), None);
        assert_eq!(hex(&[]), None);
        assert_eq!(hex(&[0xab; 16]), Some("ab".repeat(16)));
    }
}
