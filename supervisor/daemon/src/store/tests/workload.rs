//! What random tests do to a store: transactions of actions on a small world of slots, so that
//! names, owners and namespaces meet often.

use berth_model::kinds::{BUNDLE, CONFIG_MAP, EVENT, NAMESPACE, Registration, TEARDOWN_FINALIZER};
use berth_model::meta;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Seconds between two transactions: fourteen of them are longer than an Event's life.
pub(super) const STEP: i64 = 12 * 3600;

pub(super) const NAMESPACES: [&str; 3] = ["default", "team", "lab"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const HOLD: &str = "test.dev/hold";

/// A kind, a namespace and a name, out of a few each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) kind: usize,
    pub(super) namespace: usize,
    pub(super) name: usize,
}

pub(super) const CONFIGS: usize = 0;
pub(super) const BUNDLES: usize = 1;
pub(super) const EVENTS: usize = 2;
const KINDS: [&Registration; 3] = [&CONFIG_MAP, &BUNDLE, &EVENT];

#[derive(Clone, Debug)]
pub(super) enum Action {
    Create { slot: Slot, value: u8, held: bool, owner: Option<Slot> },
    Update { slot: Slot, value: u8, stale: bool },
    Status { slot: Slot, value: u8 },
    Free { slot: Slot },
    Delete { slot: Slot, propagation: Propagation },
    CreateNamespace { namespace: usize },
    DeleteNamespace { namespace: usize },
    Compact { keep: u64 },
    Sweep,
}

/// Actions that are kept, or undone, together.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) actions: Vec<Action>,
    pub(super) fails: bool,
}

/// What one action came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    Unchanged,
    Removed,
    NotFound,
    AlreadyExists,
    Conflict,
    NoNamespace,
    Terminating,
    Protected,
}

/// An object as far as the tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) value: u8,
    pub(super) status: u8,
    pub(super) generation: i64,
    pub(super) held: bool,
    pub(super) waits: bool,
    pub(super) deleting: bool,
    pub(super) owned: bool,
}

/// All there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    /// Whether each namespace is being deleted.
    pub(super) namespaces: std::collections::BTreeMap<usize, bool>,
    pub(super) objects: std::collections::BTreeMap<Slot, Seen>,
    pub(super) version: u64,
    pub(super) compacted: u64,
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..3_usize, 0..3_usize, 0..3_usize).prop_map(|(kind, namespace, name)| Slot { kind, namespace, name })
}

fn action() -> impl Strategy<Value = Action> {
    let propagation =
        prop_oneof![Just(Propagation::Background), Just(Propagation::Foreground), Just(Propagation::Orphan)];
    let owner = proptest::option::of(slot());
    prop_oneof![
        8 => (slot(), 1..4_u8, proptest::bool::weighted(0.2), owner)
            .prop_map(|(slot, value, held, owner)| Action::Create { slot, value, held, owner }),
        4 => (slot(), 1..4_u8, proptest::bool::weighted(0.1))
            .prop_map(|(slot, value, stale)| Action::Update { slot, value, stale }),
        2 => (slot(), 1..4_u8).prop_map(|(slot, value)| Action::Status { slot, value }),
        3 => slot().prop_map(|slot| Action::Free { slot }),
        4 => (slot(), propagation).prop_map(|(slot, propagation)| Action::Delete { slot, propagation }),
        3 => (0..3_usize).prop_map(|namespace| Action::CreateNamespace { namespace }),
        1 => (0..3_usize).prop_map(|namespace| Action::DeleteNamespace { namespace }),
        1 => (0..20_u64).prop_map(|keep| Action::Compact { keep }),
        1 => Just(Action::Sweep),
    ]
}

pub(super) fn transaction() -> impl Strategy<Value = Transaction> {
    (prop::collection::vec(action(), 1..6), proptest::bool::weighted(0.1))
        .prop_map(|(actions, fails)| Transaction { actions, fails })
}

impl Slot {
    pub(super) fn registration(self) -> &'static Registration {
        KINDS[self.kind]
    }

    pub(super) fn namespace(self) -> &'static str {
        NAMESPACES[self.namespace]
    }

    pub(super) fn name(self) -> &'static str {
        NAMES[self.name]
    }

    fn finalizer(self) -> &'static str {
        if self.kind == BUNDLES { TEARDOWN_FINALIZER } else { HOLD }
    }

    fn object(self, value: u8) -> Value {
        let mut object = match self.kind {
            CONFIGS => json!({ "data": { "value": value.to_string() } }),
            BUNDLES => json!({ "spec": { "image": format!("image:{value}") } }),
            _ => json!({ "involvedObject": {}, "message": value.to_string() }),
        };
        object["metadata"] = json!({ "namespace": self.namespace(), "name": self.name() });
        object
    }

    fn value(self, object: &Value) -> u8 {
        let text = match self.kind {
            CONFIGS => object["data"]["value"].as_str(),
            BUNDLES => object["spec"]["image"].as_str().and_then(|image| image.strip_prefix("image:")),
            _ => object["message"].as_str(),
        };
        text.unwrap().parse().unwrap()
    }
}

/// Does a whole transaction; its outcomes are lost if it fails, as it is meant to.
pub(super) fn run(tx: &mut Tx<'_>, transaction: &Transaction) -> Result<Vec<Outcome>, StoreError> {
    let outcomes = transaction.actions.iter().map(|action| outcome(act(tx, action))).collect::<Result<_, _>>()?;
    if transaction.fails { Err(Fault::Lost.into()) } else { Ok(outcomes) }
}

fn outcome(result: Result<Outcome, StoreError>) -> Result<Outcome, StoreError> {
    match result {
        Err(StoreError::Refused(refusal)) => Ok(match refusal {
            Refusal::NotFound { .. } => Outcome::NotFound,
            Refusal::AlreadyExists { .. } => Outcome::AlreadyExists,
            Refusal::Conflict { .. } => Outcome::Conflict,
            Refusal::NoNamespace(_) => Outcome::NoNamespace,
            Refusal::NamespaceTerminating(_) => Outcome::Terminating,
            Refusal::Protected { .. } => Outcome::Protected,
            other => panic!("unexpected refusal: {other}"),
        }),
        other => other,
    }
}

fn act(tx: &mut Tx<'_>, action: &Action) -> Result<Outcome, StoreError> {
    match action {
        Action::Create { slot, value, held, owner } => create(tx, *slot, *value, *held, *owner),
        Action::Update { slot, value, stale } => {
            let mut object = current(tx, *slot)?;
            let fields = slot.object(*value);
            for field in ["data", "spec", "message"] {
                if let Some(value) = fields.get(field) {
                    object[field] = value.clone();
                }
            }
            if *stale {
                object["metadata"]["resourceVersion"] = "1".into();
            }
            tx.update_value(slot.registration(), object).map(written)
        }
        Action::Status { slot, value } => {
            let slot = Slot { kind: BUNDLES, ..*slot };
            let mut object = current(tx, slot)?;
            object["status"] = json!({ "restarts": value });
            tx.update_status_value(&BUNDLE, object).map(written)
        }
        Action::Free { slot } => {
            let mut object = current(tx, *slot)?;
            let others: Vec<String> = meta::finalizers(&object).into_iter().map(str::to_owned).collect();
            let others: Vec<String> = others.into_iter().filter(|known| known != slot.finalizer()).collect();
            object["metadata"]["finalizers"] = json!(others);
            tx.update_value(slot.registration(), object).map(written)
        }
        Action::Delete { slot, propagation } => {
            let how = Deletion { propagation: *propagation, ..Deletion::default() };
            tx.delete_value(slot.registration(), slot.namespace(), slot.name(), &how).map(written)
        }
        Action::CreateNamespace { namespace } => {
            let object = json!({ "metadata": { "name": NAMESPACES[*namespace] } });
            tx.create_value(&NAMESPACE, object).map(|_| Outcome::Changed)
        }
        Action::DeleteNamespace { namespace } => {
            tx.delete_value(&NAMESPACE, "", NAMESPACES[*namespace], &Deletion::default()).map(written)
        }
        Action::Compact { keep } => {
            let mark = tx.version()?.saturating_sub(*keep);
            tx.compact(mark).map(|()| Outcome::Changed)
        }
        Action::Sweep => super::sweep(tx).map(|_| Outcome::Changed),
    }
}

fn create(tx: &mut Tx<'_>, slot: Slot, value: u8, held: bool, owner: Option<Slot>) -> Result<Outcome, StoreError> {
    let mut object = slot.object(value);
    if held && slot.kind != BUNDLES {
        object["metadata"]["finalizers"] = json!([HOLD]);
    }
    let owner = owner.map(|owner| Slot { namespace: slot.namespace, ..owner }).filter(|owner| *owner != slot);
    let owner = owner.map(|owner| tx.get_value(owner.registration(), owner.namespace(), owner.name())).transpose()?;
    if let Some(owner) = owner.flatten() {
        object["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "X", "name": "x", "uid": meta::uid(&owner) }]);
    }
    tx.create_value(slot.registration(), object).map(|_| Outcome::Changed)
}

fn current(tx: &Tx<'_>, slot: Slot) -> Result<Value, StoreError> {
    let found = tx.get_value(slot.registration(), slot.namespace(), slot.name())?;
    found.ok_or_else(|| {
        let kind = slot.registration().key();
        Refusal::NotFound { kind, namespace: slot.namespace().into(), name: slot.name().into() }.into()
    })
}

fn written(written: Written<Value>) -> Outcome {
    match written {
        Written::Changed(_) => Outcome::Changed,
        Written::Unchanged(_) => Outcome::Unchanged,
        Written::Removed(_) => Outcome::Removed,
    }
}

/// What is in the store, after a look at whether it agrees with its own change log.
pub(super) fn look(tx: &ReadTx<'_>) -> Result<World, StoreError> {
    let mut world = World { version: tx.version()?, compacted: tx.compacted()?, ..World::default() };
    for object in tx.list_values(&NAMESPACE, None)? {
        let index = NAMESPACES.iter().position(|name| *name == meta::name(&object)).unwrap();
        world.namespaces.insert(index, meta::is_deleting(&object));
    }
    for (kind, registration) in KINDS.iter().enumerate() {
        for object in tx.list_values(registration, None)? {
            let namespace = NAMESPACES.iter().position(|name| *name == meta::namespace(&object)).unwrap();
            let name = NAMES.iter().position(|name| *name == meta::name(&object)).unwrap();
            let slot = Slot { kind, namespace, name };
            world.objects.insert(slot, seen(slot, &object));
        }
    }
    check_log(tx, &world)?;
    Ok(world)
}

fn seen(slot: Slot, object: &Value) -> Seen {
    let finalizers = meta::finalizers(object);
    Seen {
        value: slot.value(object),
        status: object["status"]["restarts"].as_u64().unwrap_or(0).try_into().unwrap(),
        generation: meta::generation(object),
        held: finalizers.contains(&slot.finalizer()),
        waits: finalizers.contains(&"foregroundDeletion"),
        deleting: meta::is_deleting(object),
        owned: !meta::owners(object).is_empty(),
    }
}

/// The log has every version since the mark, each object is what its last entry says, and entries
/// of one object follow from each other.
fn check_log(tx: &ReadTx<'_>, world: &World) -> Result<(), StoreError> {
    let changes = tx.changes(world.compacted, usize::MAX)?;
    let versions: Vec<u64> = changes.iter().map(|change| change.resource_version).collect();
    assert_eq!(versions, (world.compacted + 1..=world.version).collect::<Vec<_>>());
    let mut last: std::collections::BTreeMap<_, Option<Value>> = Default::default();
    for change in changes {
        let key = (change.kind.key(), change.namespace.clone(), change.name.clone());
        assert_eq!(meta::resource_version(&change.object), Some(change.resource_version));
        if let Some(before) = last.get(&key) {
            assert_eq!(change.previous, *before, "{key:?} at {}", change.resource_version);
        }
        let now = Some(change.object).filter(|_| change.what != berth_model::event::ChangeKind::Deleted);
        last.insert(key, now);
    }
    for ((kind, namespace, name), object) in last {
        let kind = berth_model::kinds::by_key(&kind).unwrap();
        assert_eq!(tx.get_value(kind, &namespace, &name)?, object);
    }
    Ok(())
}
