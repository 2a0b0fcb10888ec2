//! Conditions of a bundle: a closed vocabulary, and the one rule that fills it in.
//!
//! A bundle passes four conditions in order. Where it stands is one [`Reason`]; everything else
//! follows: what comes before is done and True, what comes after has not begun and is False.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The conditions, in the order in which they become true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// What is to run is known and recorded.
    ProfilePrepared,
    /// Its secrets are where it will find them.
    SecretsProvisioned,
    /// Image, network and unit are made.
    Bound,
    /// It serves.
    Ready,
}

/// Every reason a condition can have; it belongs to exactly one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not recorded yet.
    ProfilePending,
    /// Recorded.
    ProfilePersisted,
    /// Could not be recorded.
    ProfileFailed,
    /// Not delivered yet.
    SecretsPending,
    /// Delivered.
    SecretsDistributed,
    /// Could not be delivered.
    SecretsFailed,
    /// Not bound to the services it needs yet.
    BindingsPending,
    /// Bound.
    BindingsCompleted,
    /// Could not be bound.
    BindingsFailed,
    /// Image, network and unit are not made yet.
    WorkloadPending,
    /// They are made.
    WorkloadApplied,
    /// They could not be made.
    WorkloadFailed,
    /// Not started yet.
    StartPending,
    /// Started and ready.
    StartCompleted,
    /// Prepared and left stopped, as asked for.
    StartSkipped,
    /// Did not start, or did not become ready.
    StartFailed,
    /// An operator stopped it.
    StoppedByOperator,
    /// It serves, but not as it should.
    Degraded,
    /// It keeps ending and being started again.
    CrashLooping,
}

impl ConditionType {
    /// All, in order.
    pub const ALL: [ConditionType; 4] = [Self::ProfilePrepared, Self::SecretsProvisioned, Self::Bound, Self::Ready];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProfilePrepared => "ProfilePrepared",
            Self::SecretsProvisioned => "SecretsProvisioned",
            Self::Bound => "Bound",
            Self::Ready => "Ready",
        }
    }

    fn done(self) -> Reason {
        match self {
            Self::ProfilePrepared => Reason::ProfilePersisted,
            Self::SecretsProvisioned => Reason::SecretsDistributed,
            Self::Bound => Reason::WorkloadApplied,
            Self::Ready => Reason::StartCompleted,
        }
    }

    fn pending(self) -> Reason {
        match self {
            Self::ProfilePrepared => Reason::ProfilePending,
            Self::SecretsProvisioned => Reason::SecretsPending,
            Self::Bound => Reason::WorkloadPending,
            Self::Ready => Reason::StartPending,
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 19] = [
        Self::ProfilePending,
        Self::ProfilePersisted,
        Self::ProfileFailed,
        Self::SecretsPending,
        Self::SecretsDistributed,
        Self::SecretsFailed,
        Self::BindingsPending,
        Self::BindingsCompleted,
        Self::BindingsFailed,
        Self::WorkloadPending,
        Self::WorkloadApplied,
        Self::WorkloadFailed,
        Self::StartPending,
        Self::StartCompleted,
        Self::StartSkipped,
        Self::StartFailed,
        Self::StoppedByOperator,
        Self::Degraded,
        Self::CrashLooping,
    ];

    /// The condition it is a reason of.
    pub fn condition(self) -> ConditionType {
        use Reason as R;
        match self {
            R::ProfilePending | R::ProfilePersisted | R::ProfileFailed => ConditionType::ProfilePrepared,
            R::SecretsPending | R::SecretsDistributed | R::SecretsFailed => ConditionType::SecretsProvisioned,
            R::BindingsPending
            | R::BindingsCompleted
            | R::BindingsFailed
            | R::WorkloadPending
            | R::WorkloadApplied
            | R::WorkloadFailed => ConditionType::Bound,
            R::StartPending
            | R::StartCompleted
            | R::StartSkipped
            | R::StartFailed
            | R::StoppedByOperator
            | R::Degraded
            | R::CrashLooping => ConditionType::Ready,
        }
    }

    /// Whether its condition is True under it.
    pub fn is_true(self) -> bool {
        self.condition().done() == self
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProfilePending => "ProfilePending",
            Self::ProfilePersisted => "ProfilePersisted",
            Self::ProfileFailed => "ProfileFailed",
            Self::SecretsPending => "SecretsPending",
            Self::SecretsDistributed => "SecretsDistributed",
            Self::SecretsFailed => "SecretsFailed",
            Self::BindingsPending => "BindingsPending",
            Self::BindingsCompleted => "BindingsCompleted",
            Self::BindingsFailed => "BindingsFailed",
            Self::WorkloadPending => "WorkloadPending",
            Self::WorkloadApplied => "WorkloadApplied",
            Self::WorkloadFailed => "WorkloadFailed",
            Self::StartPending => "StartPending",
            Self::StartCompleted => "StartCompleted",
            Self::StartSkipped => "StartSkipped",
            Self::StartFailed => "StartFailed",
            Self::StoppedByOperator => "StoppedByOperator",
            Self::Degraded => "Degraded",
            Self::CrashLooping => "CrashLooping",
        }
    }
}

/// All conditions of a bundle that stands at `reason`, in order.
///
/// `message` says what to do about it, and is that of the reason's own condition. Transition times
/// are those of `old` wherever the status is the same, `now` otherwise.
pub fn at(reason: Reason, message: &str, generation: i64, now: Timestamp, old: &[Condition]) -> Vec<Condition> {
    let condition = |kind: ConditionType| {
        let (reason, message) = place(kind, reason, message);
        let status = if reason.is_true() { "True" } else { "False" };
        let before = old.iter().find(|old| old.type_ == kind.name() && old.status == status);
        Condition {
            type_: kind.name().into(),
            status: status.into(),
            reason: reason.name().into(),
            message,
            observed_generation: Some(generation),
            last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        }
    };
    ConditionType::ALL.into_iter().map(condition).collect()
}

fn place(kind: ConditionType, reason: Reason, message: &str) -> (Reason, String) {
    match kind.cmp(&reason.condition()) {
        std::cmp::Ordering::Less => (kind.done(), String::new()),
        std::cmp::Ordering::Equal => (reason, message.to_owned()),
        std::cmp::Ordering::Greater if reason.is_true() => (kind.pending(), String::new()),
        std::cmp::Ordering::Greater => (kind.pending(), format!("waits for {}", reason.condition().name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_condition_is_true_only_when_all_before_it_are() {
        for reason in Reason::ALL {
            let conditions = at(reason, "", 1, second(1), &[]);
            let statuses: Vec<bool> = conditions.iter().map(|c| c.status == "True").collect();
            let mut sorted = statuses.clone();
            sorted.sort_by(|a, b| b.cmp(a));
            assert_eq!(statuses, sorted, "{reason:?}");
        }
    }

    #[test]
    fn a_failed_pull_shows_its_message_and_what_waits_for_it() {
        let conditions = at(Reason::WorkloadFailed, "check the registry", 3, second(1), &[]);
        let shown: Vec<_> = conditions.iter().map(|c| (c.reason.as_str(), c.message.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("ProfilePersisted", ""),
                ("SecretsDistributed", ""),
                ("WorkloadFailed", "check the registry"),
                ("StartPending", "waits for Bound"),
            ]
        );
    }

    #[test]
    fn the_transition_time_stays_while_the_status_stays() {
        let failed = at(Reason::StartFailed, "exit code 1", 1, second(10), &[]);
        let looping = at(Reason::CrashLooping, "exit code 1", 1, second(20), &failed);
        let ready = at(Reason::StartCompleted, "", 1, second(30), &looping);
        let time = |conditions: &[Condition]| {
            conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().last_transition_time.0
        };
        assert_eq!(time(&looping), second(10));
        assert_eq!(time(&ready), second(30));
    }
}
