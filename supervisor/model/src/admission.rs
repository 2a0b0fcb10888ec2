//! Which operations begin now, and which end without having begun.
//!
//! An operation that is not at work passes these gates in turn:
//!
//! ```text
//!  cancelled, or overtaken by a later wish for its target ........ ends
//!  one that it requires did not succeed .......................... ends
//!  held .......................................................... rests, as the next
//!  one that it requires is not done .............................. rests: later ones of its target may begin
//!  another of its target is at work, or was asked for earlier .... waits
//!  one that it conflicts with is at work ......................... waits
//!  one that prefers to go before it is at work, or could begin ... waits
//!  no place is free .............................................. waits; the most urgent takes the next one
//! ```
//!
//! **Who takes a place.** First what had begun in an earlier life of the supervisor; then by [`Priority`], and among
//! equals by age. Nobody starves: who could have begun and was passed over by [`PATIENCE`] later ones goes before all that
//! have not. Unless there is but one place, the last is kept for what people wait for, and for whom was passed over.
//!
//! Preferences never make a circle ([`circle`] finds the one that a new operation would close), so among those that
//! could begin there is always one that waits for none of the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::resource::Operation;
use crate::resource::operation::{OperationState, Priority, Relations, Target};

/// So many later ones may take a place before one that could have taken it.
pub const PATIENCE: u32 = 8;

/// Namespace and name of an operation.
pub type Key = (String, String);

/// All that admission is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'a> {
    /// Every operation that is not finished, in the order in which they were asked for.
    pub unfinished: &'a [Operation],
    /// How those ended that others require; what is in neither list is gone.
    pub ended: &'a BTreeMap<Key, OperationState>,
    /// What is at work on which target.
    pub at_work: &'a BTreeMap<Target, Key>,
    /// By how many later ones each was passed over so far.
    pub passed: &'a BTreeMap<Key, u32>,
    /// How many may be at work at the same time.
    pub places: usize,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// These begin, or go on.
    pub begin: Vec<Key>,
    /// These end without having begun.
    pub close: Vec<(Key, Close)>,
    /// These are at work, or begin, and are to stop at what they do and undo it.
    pub interrupt: Vec<Key>,
    /// These rest; each with the name of one that it waits for.
    pub rest: Vec<(Key, String)>,
    /// By how many later ones each that waits for a place was passed over by now.
    pub passed: BTreeMap<Key, u32>,
}

/// Why an operation ends that never began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// Somebody cancelled it.
    Cancelled,
    /// A later wish for the same target came before it.
    Overtaken,
    /// The named one is required, and ended so, or is gone.
    Unmet(String, Option<OperationState>),
}

/// Decides.
pub fn admit(queue: Queue<'_>) -> Admission {
    let views: Vec<View<'_>> = (0..).zip(queue.unfinished).map(|(age, one)| View::of(one, age, &queue)).collect();
    let mut admission = Admission::default();
    for (view, later) in views.iter().zip(1..).map(|(view, next)| (view, &views[next..])) {
        match view.fate(later) {
            Fate::Ends(why) => admission.close.push((view.key.clone(), why)),
            Fate::Rests(name) => admission.rest.push((view.key.clone(), name)),
            Fate::Lives => {}
        }
    }
    let closed: BTreeSet<&Key> = admission.close.iter().map(|(key, _)| key).collect();
    let mut heads = heads(&views, &closed, queue.at_work);
    heads.sort_by_key(|view| view.rank);
    let ready: Vec<&View<'_>> = heads.iter().copied().filter(|one| !one.is_barred(&views, &heads)).collect();
    let begun = take_places(&ready, queue.at_work.len(), queue.places);
    admission.passed = passed_over(&ready, &begun, queue.passed);
    admission.begin = begun.iter().map(|view| view.key.clone()).collect();
    for (view, later) in views.iter().zip(1..).map(|(view, next)| (view, &views[next..])) {
        if (view.at_work || admission.begin.contains(&view.key)) && view.is_unwanted(later) {
            admission.interrupt.push(view.key.clone());
        }
    }
    admission
}

/// One operation, as far as admission goes.
struct View<'a> {
    operation: &'a Operation,
    key: Key,
    at_work: bool,
    /// Its record says that it is at work, which an earlier life of the supervisor may have written.
    begun: bool,
    cancelled: bool,
    gate: Gate,
    /// Who takes a place first: urgency, then age.
    rank: (u8, usize),
}

/// Whether what it requires is done.
enum Gate {
    Open,
    /// Somebody has to release it.
    Held,
    Waits(String),
    Shut(String, Option<OperationState>),
}

enum Fate {
    Lives,
    Rests(String),
    Ends(Close),
}

/// The least urgent that may take the last place.
const WAITED_FOR: u8 = 2;

impl<'a> View<'a> {
    fn of(operation: &'a Operation, age: usize, queue: &Queue<'_>) -> Self {
        let (key, status) = (key(operation), operation.status.as_ref());
        let begun = status.is_some_and(|status| status.state == OperationState::Running);
        let passed = queue.passed.get(&key).copied().unwrap_or_default();
        let urgency = match operation.spec.priority {
            _ if begun => 0,
            _ if passed >= PATIENCE => 1,
            Priority::Interactive => WAITED_FOR,
            Priority::Scheduled => 3,
            Priority::Housekeeping => 4,
        };
        Self {
            operation,
            at_work: queue.at_work.values().any(|busy| *busy == key),
            begun,
            cancelled: status.is_some_and(|status| status.cancelled_by.is_some()),
            gate: if begun { Gate::Open } else { gate(operation, &key.0, queue) },
            rank: (urgency, age),
            key,
        }
    }

    fn target(&self) -> &Target {
        &self.operation.spec.target
    }

    /// What becomes of it whatever place is free.
    fn fate(&self, later: &[Self]) -> Fate {
        match &self.gate {
            _ if self.begun || self.at_work => Fate::Lives,
            _ if self.cancelled => Fate::Ends(Close::Cancelled),
            _ if self.is_unwanted(later) => Fate::Ends(Close::Overtaken),
            Gate::Shut(name, state) => Fate::Ends(Close::Unmet(name.clone(), *state)),
            Gate::Waits(name) => Fate::Rests(name.clone()),
            Gate::Open | Gate::Held => Fate::Lives,
        }
    }

    /// It is cancelled, or overtaken by a later one that could begin.
    fn is_unwanted(&self, later: &[Self]) -> bool {
        let overtakes = |one: &Self| {
            one.target() == self.target()
                && !one.cancelled
                && matches!(one.gate, Gate::Open)
                && one.operation.spec.kind.overtakes(self.operation.spec.kind)
        };
        self.cancelled || later.iter().any(overtakes)
    }

    fn names(&self, list: &[String], other: &Self) -> bool {
        self.key.0 == other.key.0 && list.contains(&other.key.1)
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.names(&self.operation.spec.relations.conflicts_with, other)
            || other.names(&other.operation.spec.relations.conflicts_with, self)
    }

    /// One of them is at work that it cannot be at work with.
    fn is_kept_out(&self, views: &[Self]) -> bool {
        views.iter().any(|other| other.at_work && self.conflicts(other))
    }

    /// It waits for others, whatever place is free. What has begun is not held up by preferences.
    fn is_barred(&self, views: &[Self], heads: &[&Self]) -> bool {
        let first = |other: &Self| other.names(&other.operation.spec.relations.prefers_before, self);
        let could = |other: &&Self| first(other) && !other.is_kept_out(views);
        let yields = views.iter().any(|other| other.at_work && first(other)) || heads.iter().any(could);
        self.is_kept_out(views) || (yields && !self.begun)
    }
}

/// What it is called by here.
pub fn key(operation: &Operation) -> Key {
    let metadata = &operation.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn gate(operation: &Operation, namespace: &str, queue: &Queue<'_>) -> Gate {
    let held = operation.status.as_ref().is_some_and(|status| status.state == OperationState::Held);
    let mut gate = if held { Gate::Held } else { Gate::Open };
    for name in &operation.spec.relations.requires {
        let required = (namespace.to_owned(), name.clone());
        if queue.unfinished.iter().any(|one| key(one) == required) {
            gate = if held { Gate::Held } else { Gate::Waits(name.clone()) };
            continue;
        }
        match queue.ended.get(&required) {
            Some(OperationState::Succeeded) => {}
            other => return Gate::Shut(name.clone(), other.copied()),
        }
    }
    gate
}

/// The next of each target that nothing is at work on: what has begun, else the oldest that does not rest.
fn heads<'v, 'a>(views: &'v [View<'a>], closed: &BTreeSet<&Key>, at_work: &BTreeMap<Target, Key>) -> Vec<&'v View<'a>> {
    let mut heads: BTreeMap<&Target, &View<'a>> = BTreeMap::new();
    for view in views.iter().filter(|view| matches!(view.gate, Gate::Open) && !closed.contains(&view.key)) {
        if at_work.contains_key(view.target()) {
            continue;
        }
        let head = heads.entry(view.target()).or_insert(view);
        if view.begun && !head.begun {
            *head = view;
        }
    }
    heads.into_values().collect()
}

/// Of those that are ready, the most urgent first, those for whom there is a place.
fn take_places<'v, 'a>(ready: &[&'v View<'a>], busy: usize, places: usize) -> Vec<&'v View<'a>> {
    let mut begun: Vec<&View<'a>> = Vec::new();
    for view in ready {
        let free = places.saturating_sub(busy + begun.len());
        let may = free > 1 || (free == 1 && (places == 1 || view.rank.0 <= WAITED_FOR));
        if may && !begun.iter().any(|other| view.conflicts(other)) {
            begun.push(view);
        }
    }
    begun
}

fn passed_over(ready: &[&View<'_>], begun: &[&View<'_>], before: &BTreeMap<Key, u32>) -> BTreeMap<Key, u32> {
    let left = ready.iter().filter(|view| !begun.iter().any(|one| one.key == view.key));
    left.map(|view| {
        let later = begun.iter().filter(|one| !one.begun && one.rank.1 > view.rank.1).count();
        let sum = before.get(&view.key).copied().unwrap_or_default();
        (view.key.clone(), sum.saturating_add(u32::try_from(later).unwrap_or(u32::MAX)))
    })
    .collect()
}

/// The circle that a new operation on a target would close with those of its namespace that have not begun, as their
/// names: it goes before the first, each before the next, and the last before it.
pub fn circle(waiting: &[Operation], target: &Target, new: &Relations) -> Option<Vec<String>> {
    let name = |one: &Operation| one.metadata.name.clone().unwrap_or_default();
    let is_goal = |at: &str| {
        waiting.iter().any(|one| name(one) == at && (one.spec.target == *target || new.requires.contains(&name(one))))
    };
    let after = |at: &str| -> Vec<String> {
        let Some(place) = waiting.iter().position(|one| name(one) == at) else { return Vec::new() };
        let own = &waiting[place].spec;
        let later = waiting[place + 1..].iter().find(|one| one.spec.target == own.target);
        let requiring = waiting.iter().filter(|one| one.spec.relations.requires.iter().any(|required| required == at));
        own.relations.prefers_before.iter().cloned().chain(later.into_iter().chain(requiring).map(name)).collect()
    };
    let mut paths: Vec<Vec<String>> = new.prefers_before.iter().map(|first| vec![first.clone()]).collect();
    let mut seen: BTreeSet<String> = new.prefers_before.iter().cloned().collect();
    while let Some(path) = paths.pop() {
        let at = path.last().map(String::as_str).unwrap_or_default();
        if is_goal(at) {
            return Some(path);
        }
        for next in after(at) {
            if seen.insert(next.clone()) {
                paths.push([path.clone(), vec![next]].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
