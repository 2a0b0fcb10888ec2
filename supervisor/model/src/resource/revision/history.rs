//! The revisions of one bundle, seen as its history: which serves, which served before, where a rollback
//! leads, and which are one too many.

use super::{Revision, RevisionState};
use crate::resource::bundle::{BundleSpec, rollout_part};

/// Revisions of a bundle that are kept. Those in use and the one before them are kept in any case.
pub const KEPT_REVISIONS: usize = 10;

/// A rollback leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// Nothing serves that could be replaced.
    #[error("no revision has served yet, so there is none to go back to; see `berth status` for what hinders it")]
    NeverServed,
    /// There is nothing before it.
    #[error("no revision served before revision {active}, so there is none to go back to")]
    First {
        /// What serves.
        active: u64,
    },
    /// There is no such revision, or no longer.
    #[error("there is no revision {number}: there are {}", listed(present))]
    Unknown {
        /// As asked for.
        number: u64,
        /// The revisions that could be had.
        present: Vec<u64>,
    },
    /// It never served.
    #[error("revision {number} never served, so there is nothing to go back to; apply its spec to try it again")]
    NeverReady {
        /// As asked for.
        number: u64,
    },
    /// Nothing would change.
    #[error("revision {number} is the one that runs")]
    Runs {
        /// As asked for.
        number: u64,
    },
    /// Nothing would change, as what runs was made from the same.
    #[error("revision {active} is the one that runs, and it was made from the same as revision {number}")]
    Same {
        /// As asked for.
        number: u64,
        /// What serves.
        active: u64,
    },
}

fn listed(numbers: &[u64]) -> String {
    match numbers {
        [] => "none".to_owned(),
        _ => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// State of a revision.
pub fn state_of(revision: &Revision) -> RevisionState {
    revision.status.as_ref().map(|status| status.state).unwrap_or_default()
}

/// The revision of a number.
pub fn find(revisions: &[Revision], number: u64) -> Option<&Revision> {
    revisions.iter().find(|one| one.spec.number == number)
}

/// The revision that serves, or would if it were started.
pub fn serving(revisions: &[Revision]) -> Option<&Revision> {
    let active = revisions.iter().filter(|one| state_of(one) == RevisionState::Active);
    active.max_by_key(|one| one.spec.number)
}

/// The revision that served before the one that serves now.
pub fn before(revisions: &[Revision]) -> Option<&Revision> {
    let active = serving(revisions)?.spec.number;
    let served = |one: &&Revision| one.spec.number < active && has_served(one);
    revisions.iter().filter(served).max_by_key(|one| one.spec.number)
}

fn has_served(revision: &Revision) -> bool {
    matches!(state_of(revision), RevisionState::Superseded | RevisionState::Retiring)
}

/// The revision that a rollback of a bundle leads to, which is wanted as `spec` says. If nothing is said it is
/// the one that served before; but while something else is wanted than what serves, as after an
/// update that failed or in the middle of one, it is the one that serves: what is taken back then is
/// the wish.
///
/// # Errors
/// There is no way back, or not there.
pub fn goal<'a>(revisions: &'a [Revision], spec: &BundleSpec, to: Option<u64>) -> Result<&'a Revision, NoWayBack> {
    let active = serving(revisions).ok_or(NoWayBack::NeverServed)?;
    let coming = revisions.iter().any(|one| state_of(one) == RevisionState::Candidate);
    let at_rest = !coming && is_same(&active.spec.bundle_spec, spec);
    let number = active.spec.number;
    let goal = match to {
        Some(to) => find(revisions, to).ok_or_else(|| unknown(revisions, to))?,
        None if at_rest => before(revisions).ok_or(NoWayBack::First { active: number })?,
        None => active,
    };
    match goal.spec.number {
        to if to == number && at_rest => Err(NoWayBack::Runs { number }),
        to if to != number && !has_served(goal) => Err(NoWayBack::NeverReady { number: to }),
        to if at_rest && makes_the_same(goal, active) => Err(NoWayBack::Same { number: to, active: number }),
        _ => Ok(goal),
    }
}

fn unknown(revisions: &[Revision], number: u64) -> NoWayBack {
    let served = revisions.iter().filter(|one| has_served(one));
    let mut present: Vec<u64> = served.map(|one| one.spec.number).collect();
    present.sort_unstable();
    NoWayBack::Unknown { number, present }
}

fn makes_the_same(one: &Revision, other: &Revision) -> bool {
    one.spec.image == other.spec.image
        && one.spec.provided == other.spec.provided
        && is_same(&one.spec.bundle_spec, &other.spec.bundle_spec)
}

fn is_same(one: &BundleSpec, other: &BundleSpec) -> bool {
    rollout_part(one) == rollout_part(other)
}

/// The numbers of revisions that are one too many: the oldest beyond `kept`, but none that is in use, none that
/// served before the one that serves, and none of those that are `needed`.
pub fn surplus(revisions: &[Revision], kept: usize, needed: &[u64]) -> Vec<u64> {
    let before = before(revisions).map(|one| one.spec.number);
    let mut numbers: Vec<u64> = revisions.iter().map(|one| one.spec.number).collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    let spared = |number: &u64| {
        let in_use = find(revisions, *number).is_some_and(|one| state_of(one).holds_allocation());
        in_use || Some(*number) == before || needed.contains(number)
    };
    numbers.into_iter().skip(kept).filter(|number| !spared(number)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn revision(number: u64, state: &str) -> Revision {
        let image = json!({"reference": "", "digest": format!("sha256:{number}"), "layers": [], "entrypoint": [],
                           "cmd": [], "env": [], "user": "", "workingDir": ""});
        serde_json::from_value(json!({
            "metadata": {},
            "spec": {"bundle": "web", "number": number, "generation": 1, "operation": "",
                     "bundleSpec": {"image": format!("r/web:{number}")}, "image": image,
                     "allocation": {"address": "", "idBase": 0, "hostLink": ""}},
            "status": {"state": state},
        }))
        .unwrap()
    }

    fn history(states: &[&str]) -> Vec<Revision> {
        states.iter().zip(1..).map(|(state, number)| revision(number, state)).collect()
    }

    /// Where a rollback of a bundle leads that is wanted as its revision `wanted` was.
    fn led(states: &[&str], wanted: u64, to: Option<u64>) -> Result<u64, NoWayBack> {
        let spec = BundleSpec { image: format!("r/web:{wanted}"), start: true, ..BundleSpec::default() };
        goal(&history(states), &spec, to).map(|one| one.spec.number)
    }

    #[test]
    fn it_leads_to_the_revision_that_served_before_over_those_that_failed() {
        assert_eq!(led(&["Superseded", "Superseded", "Failed", "Active"], 4, None), Ok(2));
        assert_eq!(led(&["Superseded", "Superseded", "Failed", "Active"], 4, Some(1)), Ok(1));
    }

    #[test]
    fn while_something_else_is_wanted_than_what_serves_it_takes_the_wish_back() {
        assert_eq!(led(&["Superseded", "Active", "Failed"], 3, None), Ok(2));
        assert_eq!(led(&["Superseded", "Active", "Failed"], 3, Some(2)), Ok(2));
        assert_eq!(led(&["Superseded", "Active", "Candidate"], 2, None), Ok(2), "a newer image of the same tag");
    }

    #[test]
    fn there_is_no_way_back_to_what_runs_failed_or_is_not_there() {
        assert_eq!(led(&["Failed"], 1, None), Err(NoWayBack::NeverServed));
        assert_eq!(led(&["Active"], 1, None), Err(NoWayBack::First { active: 1 }));
        assert_eq!(led(&["Superseded", "Active"], 2, Some(2)), Err(NoWayBack::Runs { number: 2 }));
        assert_eq!(led(&["Superseded", "Failed", "Active"], 3, Some(2)), Err(NoWayBack::NeverReady { number: 2 }));
        let unknown = led(&["Superseded", "Failed", "Superseded", "Active"], 4, Some(9)).unwrap_err();
        assert_eq!(unknown.to_string(), "there is no revision 9: there are 1, 3");
    }

    #[test]
    fn what_was_made_from_the_same_is_what_runs() {
        let mut all = history(&["Superseded", "Superseded", "Active"]);
        all[2].spec.image = all[0].spec.image.clone();
        all[2].spec.bundle_spec = all[0].spec.bundle_spec.clone();
        let wanted = all[0].spec.bundle_spec.clone();
        assert_eq!(goal(&all, &wanted, Some(1)), Err(NoWayBack::Same { number: 1, active: 3 }));
        assert_eq!(goal(&all, &wanted, None).unwrap().spec.number, 2, "back and forth");
        all[2].spec.provided = "other values".into();
        assert_eq!(goal(&all, &wanted, Some(1)).unwrap().spec.number, 1);
    }

    #[test]
    fn the_oldest_are_too_many_but_never_what_serves_what_served_before_or_what_is_needed() {
        let twelve = vec!["Superseded"; 11].into_iter().chain(["Active"]).collect::<Vec<_>>();
        assert_eq!(surplus(&history(&twelve), 10, &[]), [2, 1]);
        assert_eq!(surplus(&history(&twelve), 10, &[1]), [2]);
        assert_eq!(surplus(&history(&twelve), 12, &[]), [0_u64; 0]);
        let failing = ["Superseded", "Superseded", "Active", "Failed", "Failed", "Failed"];
        assert_eq!(surplus(&history(&failing), 2, &[]), [4, 1], "1 served once, 2 before, 3 serves");
    }
}
