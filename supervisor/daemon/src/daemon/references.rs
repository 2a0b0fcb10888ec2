//! Which units this connection to systemd refers to: one reference each, however looks, starts and removals overlap.
//!
//! systemd counts references per connection, and a unit that has one too many stays loaded for ever. Asking for one takes
//! a while, in which the unit may be made (with a reference of its own) or removed:
//!
//! ```text
//!             ask               answered: loaded
//!  (nothing) ────> Asking ────────────────────────> Ours    answered while Ours or while nothing is kept:
//!      ^             │  └─────────── born ───────────^      that reference is one too many, give it back
//!      └─ not loaded ┘                               │
//!      └─────────────────── forget ──────────────────┘
//! ```

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reference {
    /// systemd was asked and has not answered.
    Asking,
    /// There is one.
    Ours,
}

/// By name of unit.
#[derive(Debug, Default)]
pub struct References(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    kept: HashMap<String, Reference>,
    /// Units that are stopped for good: a late look must not refer to them again.
    unwanted: HashSet<String>,
}

impl References {
    /// The unit may be referred to.
    pub fn wanted(&self, unit: &str) {
        self.all().unwanted.remove(unit);
    }

    /// No new reference is asked for from here on.
    pub fn unwanted(&self, unit: &str) {
        self.all().unwanted.insert(unit.to_owned());
    }

    /// Something if systemd is to be asked for a reference now.
    pub fn ask(&self, unit: &str) -> Option<Asked<'_>> {
        let mut all = self.all();
        if all.unwanted.contains(unit) {
            return None;
        }
        match all.kept.entry(unit.to_owned()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Reference::Asking);
                Some(Asked { references: self, unit: unit.to_owned() })
            }
        }
    }

    fn answered(&self, unit: &str, referred: bool) -> bool {
        let kept = &mut self.all().kept;
        match (kept.get(unit), referred) {
            (Some(Reference::Asking), true) => {
                kept.insert(unit.to_owned(), Reference::Ours);
                false
            }
            (Some(Reference::Asking), false) => {
                kept.remove(unit);
                false
            }
            (Some(Reference::Ours) | None, referred) => referred,
        }
    }

    /// The unit is being made with a reference.
    pub fn born(&self, unit: &str) {
        self.all().kept.insert(unit.to_owned(), Reference::Ours);
    }

    /// Nothing is kept of the unit any more.
    pub fn forget(&self, unit: &str) {
        self.all().kept.remove(unit);
    }

    /// All are gone, as with their connection.
    pub fn clear(&self) {
        self.all().kept.clear();
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// systemd is being asked. Dropped without an answer, as when nobody waits for it any more, it counts as none.
#[must_use]
#[derive(Debug)]
pub struct Asked<'a> {
    references: &'a References,
    unit: String,
}

impl Asked<'_> {
    /// systemd has answered: whether the reference it gave is to be given back.
    #[must_use]
    pub fn answered(self, referred: bool) -> bool {
        self.references.answered(&self.unit, referred)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let kept = &mut self.references.all().kept;
        if kept.get(&self.unit) == Some(&Reference::Asking) {
            kept.remove(&self.unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "berth.default.web.r1.service";

    #[test]
    fn a_second_look_asks_for_nothing() {
        let references = References::default();
        let asked = references.ask(UNIT).unwrap();
        assert!(references.ask(UNIT).is_none());
        assert!(!asked.answered(true));
        assert!(references.ask(UNIT).is_none());
        references.forget(UNIT);
        assert!(references.ask(UNIT).is_some());
    }

    #[test]
    fn a_unit_that_is_not_there_is_asked_for_again() {
        let references = References::default();
        assert!(!references.ask(UNIT).unwrap().answered(false));
        assert!(references.ask(UNIT).is_some());
    }

    #[test]
    fn a_look_that_nobody_waits_for_any_more_is_no_reference() {
        let references = References::default();
        drop(references.ask(UNIT).unwrap());
        assert!(references.ask(UNIT).is_some());
    }

    #[test]
    fn a_unit_born_while_a_look_asks_keeps_the_reference_of_its_birth_alone() {
        for referred in [false, true] {
            let references = References::default();
            let asked = references.ask(UNIT).unwrap();
            references.born(UNIT);
            assert_eq!(asked.answered(referred), referred, "the look's own is given back");
            assert!(references.ask(UNIT).is_none());
        }
    }

    #[test]
    fn a_unit_removed_while_a_look_asks_keeps_no_reference() {
        let references = References::default();
        let asked = references.ask(UNIT).unwrap();
        references.forget(UNIT);
        assert!(asked.answered(true), "it came too late and is given back");
    }

    #[test]
    fn two_looks_with_a_removal_between_them_keep_one() {
        let references = References::default();
        let first = references.ask(UNIT).unwrap();
        references.forget(UNIT);
        let second = references.ask(UNIT).unwrap();
        assert!(!first.answered(true));
        assert!(second.answered(true), "the second of two is given back");
        assert!(references.ask(UNIT).is_none());
    }

    #[test]
    fn a_unit_stopped_for_good_is_not_asked_for_until_it_is_wanted_again() {
        let references = References::default();
        references.unwanted(UNIT);
        assert!(references.ask(UNIT).is_none());
        references.wanted(UNIT);
        assert!(references.ask(UNIT).is_some());
    }
}
