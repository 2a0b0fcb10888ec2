//! The oracle: what a store must be after each transaction, said in the plainest way.

use std::collections::BTreeMap;

use super::Propagation;
use super::workload::{Action, BUNDLES, EVENTS, Outcome, Seen, Slot, Transaction, World};

/// Seconds an Event lives.
const LIFE: i64 = 7 * 86_400;

#[derive(Clone, Debug)]
struct Thing {
    id: u64,
    seen: Seen,
    owner: Option<u64>,
    expires: Option<i64>,
}

/// What was told about a slot, or a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Object(Slot),
    Namespace(usize),
    Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Oracle {
    things: BTreeMap<Slot, Thing>,
    namespaces: BTreeMap<usize, bool>,
    born: u64,
    now: i64,
    compacted: u64,
    /// One entry per version.
    pub(super) told: Vec<Told>,
}

impl Oracle {
    pub(super) fn new() -> Self {
        Self {
            things: BTreeMap::new(),
            namespaces: [(0, false)].into(),
            born: 0,
            now: 0,
            compacted: 0,
            told: vec![Told::Namespace(0), Told::Settings],
        }
    }

    pub(super) fn world(&self) -> World {
        World {
            namespaces: self.namespaces.clone(),
            objects: self.things.iter().map(|(slot, thing)| (*slot, thing.seen.clone())).collect(),
            version: self.told.len() as u64,
            compacted: self.compacted,
        }
    }

    pub(super) fn run(&mut self, transaction: &Transaction, now: i64) -> Option<Vec<Outcome>> {
        let before = self.clone();
        self.now = now;
        let outcomes = transaction.actions.iter().map(|action| self.act(action)).collect();
        if transaction.fails {
            *self = before;
            return None;
        }
        Some(outcomes)
    }

    fn act(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Create { slot, value, held, owner } => self.create(*slot, *value, *held, *owner),
            Action::Update { slot, value, stale } => self.update(*slot, *value, *stale),
            Action::Status { slot, value } => self.status(Slot { kind: BUNDLES, ..*slot }, *value),
            Action::Free { slot } => self.free(*slot),
            Action::Delete { slot, propagation } => self.delete(*slot, *propagation),
            Action::CreateNamespace { namespace } => match self.namespaces.insert(*namespace, false) {
                None => {
                    self.told.push(Told::Namespace(*namespace));
                    Outcome::Changed
                }
                Some(terminating) => {
                    self.namespaces.insert(*namespace, terminating);
                    Outcome::AlreadyExists
                }
            },
            Action::DeleteNamespace { namespace } => self.delete_namespace(*namespace),
            Action::Compact { keep } => {
                self.compacted = self.compacted.max((self.told.len() as u64).saturating_sub(*keep));
                Outcome::Changed
            }
            Action::Sweep => self.sweep(),
        }
    }

    fn create(&mut self, slot: Slot, value: u8, held: bool, owner: Option<Slot>) -> Outcome {
        match self.namespaces.get(&slot.namespace) {
            None => return Outcome::NoNamespace,
            Some(true) if slot.kind != EVENTS => return Outcome::Terminating,
            _ if self.things.contains_key(&slot) => return Outcome::AlreadyExists,
            _ => {}
        }
        let owner = owner.map(|owner| Slot { namespace: slot.namespace, ..owner });
        let owner = owner.and_then(|owner| self.things.get(&owner)).map(|owner| owner.id);
        self.born += 1;
        let seen = Seen {
            value,
            status: 0,
            generation: i64::from(slot.kind == BUNDLES),
            held: held || slot.kind == BUNDLES,
            waits: false,
            deleting: false,
            owned: owner.is_some(),
        };
        self.things.insert(slot, Thing { id: self.born, seen, owner, expires: None });
        self.touch(slot);
        Outcome::Changed
    }

    fn update(&mut self, slot: Slot, value: u8, stale: bool) -> Outcome {
        let Some(thing) = self.things.get_mut(&slot) else { return Outcome::NotFound };
        if stale {
            return Outcome::Conflict;
        }
        if thing.seen.value == value {
            return Outcome::Unchanged;
        }
        thing.seen.value = value;
        thing.seen.generation += i64::from(slot.kind == BUNDLES);
        self.touch(slot);
        Outcome::Changed
    }

    fn status(&mut self, slot: Slot, value: u8) -> Outcome {
        let Some(thing) = self.things.get_mut(&slot) else { return Outcome::NotFound };
        if thing.seen.status == value {
            return Outcome::Unchanged;
        }
        thing.seen.status = value;
        self.touch(slot);
        Outcome::Changed
    }

    fn free(&mut self, slot: Slot) -> Outcome {
        let Some(thing) = self.things.get_mut(&slot) else { return Outcome::NotFound };
        if !thing.seen.held {
            return Outcome::Unchanged;
        }
        thing.seen.held = false;
        if thing.seen.deleting && !thing.seen.waits {
            self.remove(slot);
            return Outcome::Removed;
        }
        self.touch(slot);
        Outcome::Changed
    }

    fn delete(&mut self, slot: Slot, propagation: Propagation) -> Outcome {
        let Some(thing) = self.things.get(&slot) else { return Outcome::NotFound };
        if thing.seen.deleting {
            return Outcome::Unchanged;
        }
        self.let_die(slot, propagation);
        if self.things.contains_key(&slot) { Outcome::Changed } else { Outcome::Removed }
    }

    fn let_die(&mut self, slot: Slot, propagation: Propagation) {
        let Some(thing) = self.things.get(&slot).filter(|thing| !thing.seen.deleting) else { return };
        let (id, held) = (thing.id, thing.seen.held);
        if propagation == Propagation::Orphan {
            for dependent in self.owned_by(id) {
                self.change(dependent, |thing| (thing.owner, thing.seen.owned) = (None, false));
            }
        }
        let dependents = self.owned_by(id);
        let waits = propagation == Propagation::Foreground && !dependents.is_empty();
        if !waits && !held {
            self.remove(slot);
            return;
        }
        self.change(slot, |thing| (thing.seen.deleting, thing.seen.waits) = (true, waits));
        if waits {
            dependents.into_iter().for_each(|dependent| self.let_die(dependent, propagation));
        }
    }

    fn remove(&mut self, slot: Slot) {
        let Some(gone) = self.things.remove(&slot) else { return };
        self.told.push(Told::Object(slot));
        for dependent in self.owned_by(gone.id) {
            self.let_die(dependent, Propagation::Background);
        }
        self.release(gone.owner);
        self.emptied(slot.namespace);
    }

    fn release(&mut self, owner: Option<u64>) {
        let waiting = self.things.iter().find(|(_, thing)| Some(thing.id) == owner && thing.seen.waits);
        let Some((slot, thing)) = waiting.map(|(slot, thing)| (*slot, thing.clone())) else { return };
        if self.owned_by(thing.id).is_empty() {
            if thing.seen.held {
                self.change(slot, |thing| thing.seen.waits = false);
            } else {
                self.remove(slot);
            }
        }
    }

    fn delete_namespace(&mut self, namespace: usize) -> Outcome {
        match self.namespaces.get(&namespace) {
            None => Outcome::NotFound,
            Some(_) if namespace == 0 => Outcome::Protected,
            Some(true) => Outcome::Unchanged,
            Some(false) => {
                self.namespaces.insert(namespace, true);
                self.told.push(Told::Namespace(namespace));
                for slot in self.content(namespace, false) {
                    self.let_die(slot, Propagation::Background);
                }
                self.emptied(namespace);
                if self.namespaces.contains_key(&namespace) { Outcome::Changed } else { Outcome::Removed }
            }
        }
    }

    fn emptied(&mut self, namespace: usize) {
        if self.namespaces.get(&namespace) != Some(&true) || !self.content(namespace, false).is_empty() {
            return;
        }
        for slot in self.content(namespace, true) {
            self.let_die(slot, Propagation::Background);
        }
        if self.content(namespace, true).is_empty() && self.namespaces.remove(&namespace).is_some() {
            self.told.push(Told::Namespace(namespace));
        }
    }

    fn sweep(&mut self) -> Outcome {
        let over = |thing: &Thing| thing.expires.is_some_and(|at| at <= self.now) && !thing.seen.deleting;
        let over: Vec<Slot> = self.things.iter().filter(|(_, thing)| over(thing)).map(|(slot, _)| *slot).collect();
        for slot in over {
            self.let_die(slot, Propagation::Background);
        }
        Outcome::Changed
    }

    fn owned_by(&self, id: u64) -> Vec<Slot> {
        self.things.iter().filter(|(_, thing)| thing.owner == Some(id)).map(|(slot, _)| *slot).collect()
    }

    fn content(&self, namespace: usize, records: bool) -> Vec<Slot> {
        let inside = |slot: &&Slot| slot.namespace == namespace && (slot.kind == EVENTS) == records;
        self.things.keys().filter(inside).copied().collect()
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Thing)) {
        if let Some(thing) = self.things.get_mut(&slot) {
            change(thing);
            self.touch(slot);
        }
    }

    fn touch(&mut self, slot: Slot) {
        self.told.push(Told::Object(slot));
        if let Some(thing) = self.things.get_mut(&slot).filter(|_| slot.kind == EVENTS) {
            thing.expires = Some(self.now + LIFE);
        }
    }
}
