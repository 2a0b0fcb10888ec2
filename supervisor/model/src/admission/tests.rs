use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::resource::operation::{Actor, OperationKind};

/// `target` is a bundle of the namespace `default`; so are all here.
fn operation(name: &str, target: &str, kind: &str, more: Value) -> Operation {
    let mut operation: Operation = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"kind": kind, "target": {"kind": "Bundle", "namespace": "default", "name": target},
                 "actor": {"identity": "owner", "source": "cli"}, "relations": more["relations"].clone()},
        "status": {"state": more["state"].as_str().unwrap_or("Pending")},
    }))
    .unwrap_or_else(|_| panic!("{more}"));
    operation.spec.priority = serde_json::from_value(more["priority"].clone()).unwrap_or_default();
    operation
}

fn plain(name: &str, target: &str) -> Operation {
    operation(name, target, "Restart", json!({"relations": {}}))
}

fn related(name: &str, target: &str, relation: &str, other: &str) -> Operation {
    operation(name, target, "Restart", json!({"relations": {relation: [other]}}))
}

fn urgent(name: &str, priority: &str) -> Operation {
    operation(name, name, "Restart", json!({"relations": {}, "priority": priority}))
}

fn owned(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

/// A machine that carries operations out as it is told.
#[derive(Default)]
struct World {
    unfinished: Vec<Operation>,
    ended: BTreeMap<Key, OperationState>,
    at_work: BTreeMap<Target, Key>,
    passed: BTreeMap<Key, u32>,
    places: usize,
}

impl World {
    fn of(places: usize, unfinished: Vec<Operation>) -> Self {
        Self { unfinished, places, ..Self::default() }
    }

    fn admission(&self) -> Admission {
        let Self { unfinished, ended, at_work, passed, places } = self;
        admit(Queue { unfinished, ended, at_work, passed, places: *places })
    }

    /// Admits once; the names of what began.
    fn turn(&mut self) -> Vec<String> {
        let admission = self.admission();
        for (key, _) in &admission.close {
            self.end(&key.1, OperationState::Failed);
        }
        for one in self.unfinished.iter_mut().filter(|one| admission.begin.contains(&key(one))) {
            one.status.get_or_insert_default().state = OperationState::Running;
            assert!(self.at_work.insert(one.spec.target.clone(), key(one)).is_none(), "two on one target");
        }
        self.passed = admission.passed;
        admission.begin.into_iter().map(|(_, name)| name).collect()
    }

    fn end(&mut self, name: &str, state: OperationState) {
        self.unfinished.retain(|one| key(one) != owned(name));
        self.at_work.retain(|_, busy| *busy != owned(name));
        self.ended.insert(owned(name), state);
    }

    fn begun(&mut self, places: usize) -> Vec<String> {
        self.places = places;
        self.turn()
    }
}

#[test]
fn what_is_unrelated_runs_side_by_side_and_one_at_a_time_on_each_target() {
    let mut world = World::of(9, vec![plain("a", "web"), plain("b", "db"), plain("c", "web")]);
    assert_eq!(world.turn(), ["a", "b"]);
    world.end("a", OperationState::Failed);
    assert_eq!(world.turn(), ["c"]);
}

#[test]
fn what_requires_another_rests_until_that_has_succeeded_and_lets_later_ones_of_its_target_go() {
    let others = vec![plain("a", "web"), related("b", "db", "requires", "a"), plain("c", "db")];
    let mut world = World::of(9, others);
    assert_eq!(world.admission().rest, [(owned("b"), "a".to_owned())]);
    assert_eq!(world.turn(), ["a", "c"]);
    world.end("c", OperationState::Succeeded);
    assert_eq!(world.turn(), Vec::<String>::new());
    world.end("a", OperationState::Succeeded);
    assert_eq!(world.turn(), ["b"]);
}

#[test]
fn what_is_held_lets_later_ones_of_its_target_go_and_ends_if_it_is_overtaken_or_what_it_requires_fails() {
    let held = |relations: Value| operation("a", "web", "Update", json!({"relations": relations, "state": "Held"}));
    let mut world = World::of(9, vec![held(json!({})), plain("b", "web")]);
    assert_eq!(world.admission().rest, []);
    assert_eq!(world.turn(), ["b"]);
    world.end("b", OperationState::Succeeded);
    assert_eq!(world.turn(), Vec::<String>::new());
    world.unfinished.push(operation("c", "web", "Stop", json!({"relations": {}})));
    assert_eq!(world.admission().close, [(owned("a"), Close::Overtaken)]);
    let mut world = World::of(9, vec![held(json!({"requires": ["z"]}))]);
    world.ended.insert(owned("z"), OperationState::Failed);
    assert_eq!(world.admission().close.len(), 1);
}

#[test]
fn what_requires_one_that_failed_or_is_gone_ends_by_its_name() {
    for state in [Some(OperationState::Failed), Some(OperationState::Cancelled), None] {
        let mut world = World::of(9, vec![related("b", "db", "requires", "a")]);
        world.ended.extend(state.map(|state| (owned("a"), state)));
        assert_eq!(world.admission().close, [(owned("b"), Close::Unmet("a".to_owned(), state))]);
    }
}

#[test]
fn a_preference_orders_two_that_wait_and_holds_nobody_up_for_one_that_cannot_begin() {
    let others = || vec![plain("a", "web"), related("b", "db", "prefersBefore", "a")];
    let mut world = World::of(9, others());
    assert_eq!(world.turn(), ["b"], "the later one goes first");
    assert_eq!(world.turn(), Vec::<String>::new());
    world.end("b", OperationState::Failed);
    assert_eq!(world.turn(), ["a"]);
    let mut world = World::of(9, others());
    world.unfinished[1].spec.relations.requires = vec!["z".to_owned()];
    world.unfinished.push(plain("z", "other"));
    assert_eq!(world.turn(), ["a", "z"], "it rests itself");
    let mut world = World::of(9, others().split_off(1));
    world.turn();
    world.unfinished.insert(0, plain("a", "web"));
    assert_eq!(world.turn(), Vec::<String>::new(), "it is at work already");
}

#[test]
fn those_in_conflict_are_never_at_work_together_whoever_of_them_says_so() {
    for others in [
        vec![plain("a", "web"), related("b", "db", "conflictsWith", "a")],
        vec![related("b", "db", "conflictsWith", "a"), plain("a", "web")],
    ] {
        let mut world = World::of(9, others);
        let first = world.turn();
        assert_eq!(first.len(), 1);
        assert_eq!(world.turn(), Vec::<String>::new());
        world.end(&first[0], OperationState::Succeeded);
        assert_eq!(world.turn().len(), 1);
    }
}

#[test]
fn places_go_by_urgency_then_by_age_and_the_last_is_kept_for_people() {
    let all = || vec![urgent("h", "housekeeping"), urgent("s", "scheduled"), urgent("i", "interactive")];
    assert_eq!(World::of(1, all()).turn(), ["i"]);
    assert_eq!(World::of(2, all()).turn(), ["i"]);
    assert_eq!(World::of(3, all()).turn(), ["i", "s"]);
    assert_eq!(World::of(4, all()).turn(), ["i", "s", "h"]);
    let mut world = World::of(2, all().split_off(1));
    world.unfinished.pop();
    assert_eq!(world.turn(), ["s"]);
    world.unfinished.push(urgent("i", "interactive"));
    assert_eq!(world.turn(), ["i"], "the last place was kept");
}

#[test]
fn what_had_begun_goes_on_first_whatever_came_meanwhile() {
    let begun = |name: &str| operation(name, name, "Update", json!({"relations": {}, "state": "Running"}));
    let mut world = World::of(1, vec![plain("a", "web"), begun("b")]);
    world.unfinished[1].spec.priority = Priority::Housekeeping;
    assert_eq!(world.turn(), ["b"]);
}

#[test]
fn a_wish_to_stop_ends_what_has_not_begun_and_interrupts_what_has_unless_it_rests_itself() {
    let of = |name: &str, kind: &str, relations: Value| operation(name, "web", kind, json!({"relations": relations}));
    let mut world = World::of(9, vec![of("a", "Update", json!({})), of("b", "Stop", json!({}))]);
    assert_eq!(world.admission().close, [(owned("a"), Close::Overtaken)]);
    assert_eq!(world.turn(), ["b"]);
    let mut world = World::of(9, vec![of("a", "Update", json!({}))]);
    world.turn();
    world.unfinished.push(plain("z", "other"));
    world.unfinished.push(of("b", "Stop", json!({"requires": ["z"]})));
    assert_eq!(world.admission().interrupt, Vec::<Key>::new());
    world.end("z", OperationState::Succeeded);
    assert_eq!(world.admission().interrupt, [owned("a")]);
}

#[test]
fn what_is_cancelled_ends_at_once_or_is_interrupted() {
    let mut world = World::of(9, vec![plain("a", "web"), plain("b", "web")]);
    world.begun(9);
    for one in &mut world.unfinished {
        one.status.as_mut().unwrap().cancelled_by = Some(Actor::default());
    }
    let admission = world.admission();
    assert_eq!((admission.interrupt, admission.close), (vec![owned("a")], vec![(owned("b"), Close::Cancelled)]));
}

#[test]
fn an_endless_stream_of_urgent_work_does_not_starve_what_nobody_waits_for() {
    for places in [1, 2, 3] {
        let mut world = World::of(places, vec![urgent("patient", "housekeeping")]);
        let mut began = 0;
        loop {
            let next = world.ended.len() + world.unfinished.len();
            (next..next + 5).for_each(|number| world.unfinished.push(urgent(&format!("u{number}"), "interactive")));
            let turn = world.turn();
            if turn.iter().any(|name| name == "patient") {
                break;
            }
            began += turn.len();
            assert!(began <= PATIENCE as usize + places, "{began} of {places} places");
            turn.iter().for_each(|name| world.end(name, OperationState::Succeeded));
        }
    }
}

#[test]
fn a_circle_is_told_by_its_names() {
    let target = |name: &str| plain("x", name).spec.target;
    let wants = |requires: &[&str], before: &[&str]| Relations {
        requires: requires.iter().map(ToString::to_string).collect(),
        prefers_before: before.iter().map(ToString::to_string).collect(),
        ..Relations::default()
    };
    let waiting = [plain("a", "web"), related("b", "db", "requires", "a"), plain("c", "db")];
    let told = |new: Relations, of: &str| circle(&waiting, &target(of), &new).map(|names| names.join(" "));
    assert_eq!(told(wants(&["a"], &["a"]), "other").as_deref(), Some("a"));
    assert_eq!(told(wants(&["b"], &["a"]), "other").as_deref(), Some("a b"));
    assert_eq!(told(wants(&[], &["a"]), "web").as_deref(), Some("a"), "it is later on the same target");
    assert_eq!(told(wants(&["c"], &["a"]), "other").as_deref(), Some("a b c"));
    assert_eq!(told(wants(&["a"], &["b", "c"]), "other"), None);
    assert_eq!(told(wants(&["a", "b", "c"], &[]), "web"), None);
}

/// How a drawn operation stands to an earlier one, by its place.
#[derive(Clone, Debug)]
struct Drawn {
    target: usize,
    kind: OperationKind,
    priority: Priority,
    relations: Vec<(usize, usize)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let kinds = [OperationKind::Start, OperationKind::Stop, OperationKind::Update, OperationKind::Rollback];
    let priorities = [Priority::Interactive, Priority::Scheduled, Priority::Housekeeping];
    let relations = prop::collection::vec((0..3_usize, 0..12_usize), 0..3);
    (0..4_usize, prop::sample::select(kinds.to_vec()), prop::sample::select(priorities.to_vec()), relations)
        .prop_map(|(target, kind, priority, relations)| Drawn { target, kind, priority, relations })
}

impl Drawn {
    /// The operation that is asked for when `before` are waiting, if nothing speaks against it.
    fn operation(&self, number: usize, before: &[Operation]) -> Option<Operation> {
        let mut made = plain(&format!("o{number}"), &format!("t{}", self.target));
        (made.spec.kind, made.spec.priority) = (self.kind, self.priority);
        for (relation, other) in &self.relations {
            let Some(other) = before.get(*other) else { continue };
            let relations = &mut made.spec.relations;
            let list = [&mut relations.requires, &mut relations.prefers_before, &mut relations.conflicts_with];
            list.into_iter().nth(*relation)?.push(key(other).1);
        }
        circle(before, &made.spec.target, &made.spec.relations).is_none().then_some(made)
    }
}

proptest! {
    #[test]
    fn all_that_is_asked_for_ends_and_nothing_is_at_work_that_should_not_be(
        drawn in prop::collection::vec(drawn(), 1..12),
        places in 1..4_usize,
        ends in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 40),
    ) {
        let mut asked: Vec<Operation> = Vec::new();
        for one in &drawn {
            asked.extend(one.operation(asked.len(), &asked));
        }
        let mut world = World::of(places, asked.clone());
        let relations = |key: &Key| &asked.iter().find(|one| super::key(one) == *key).unwrap().spec.relations;
        for (which, succeeds) in ends.iter().cycle().take(200) {
            let left = world.unfinished.len();
            for name in world.turn() {
                let succeeded = |name: &String| world.ended.get(&owned(name)) == Some(&OperationState::Succeeded);
                prop_assert!(relations(&owned(&name)).requires.iter().all(succeeded), "{} begins too early", name);
            }
            let busy: Vec<Key> = world.at_work.values().cloned().collect();
            prop_assert!(busy.len() <= places);
            for (one, other) in busy.iter().flat_map(|one| busy.iter().map(move |other| (one, other))) {
                prop_assert!(!relations(one).conflicts_with.contains(&other.1), "{:?} beside {:?}", one, other);
            }
            if world.unfinished.is_empty() {
                return Ok(());
            }
            prop_assert!(!busy.is_empty() || world.unfinished.len() < left, "stuck: {:?}", world.unfinished);
            if let Some(key) = (!busy.is_empty()).then(|| which.get(&busy)) {
                world.end(&key.1, if *succeeds { OperationState::Succeeded } else { OperationState::Failed });
            }
        }
        prop_assert!(false, "never at an end");
    }
}
