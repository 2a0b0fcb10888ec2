use super::*;
use crate::resource::operation::Actor;
use proptest::prelude::*;
use serde_json::json;

fn bundle(name: &str, values: &[&str]) -> Value {
    let env: Vec<Value> =
        values.iter().enumerate().map(|(index, value)| json!({"name": format!("V{index}"), "value": value})).collect();
    json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": name, "namespace": "default"},
           "spec": {"image": "r/x:1", "start": true, "env": env, "resources": {}, "restart": "onFailure", "security": {}}})
}

fn seen(content: Value) -> Option<Snapshot> {
    Some(Snapshot { resource_version: "1".into(), content })
}

fn entry(verb: EntryVerb, name: &str, before: Option<Snapshot>, after: Option<Value>) -> Entry {
    Entry {
        author: Actor::default(),
        time: String::new(),
        verb,
        api_version: "berth.dev/v1".into(),
        kind: "Bundle".into(),
        name: name.into(),
        to: None,
        before,
        after,
    }
}

fn renamed(old: &str, new: &str, before: Value) -> Entry {
    Entry { to: Some(new.into()), ..entry(EntryVerb::Rename, old, seen(before), None) }
}

fn told(staged: &Staged) -> Vec<String> {
    staged.changes().iter().map(|change| format!("{} {}", change.verb().name(), change.key.name)).collect()
}

#[test]
fn what_is_made_and_removed_again_is_nothing_and_many_updates_are_one() {
    use EntryVerb::{Create, Delete, Update};
    let (one, two, three) = (bundle("web", &["1"]), bundle("web", &["2"]), bundle("web", &["3"]));
    let made = bundle("new", &[]);
    let entries = [
        entry(Create, "new", None, Some(made.clone())),
        entry(Update, "web", seen(one.clone()), Some(two.clone())),
        entry(Delete, "new", seen(made), None),
        entry(Update, "web", seen(two.clone()), Some(three.clone())),
    ];
    let staged = fold(&entries).unwrap();
    assert_eq!(told(&staged), ["update web"]);
    let change = &staged.changes()[0];
    assert_eq!(
        (change.before.as_ref().unwrap().content.clone(), change.after.clone()),
        (one.clone(), Some(three.clone()))
    );
    let back = [&entries[..], &[entry(Update, "web", seen(three), Some(one.clone()))]].concat();
    assert_eq!(told(&fold(&back).unwrap()), Vec::<String>::new());
    let again = [entry(Delete, "web", seen(one), None), entry(Create, "web", None, Some(two))];
    assert_eq!(told(&fold(&again).unwrap()), ["update web"]);
}

#[test]
fn a_new_name_is_followed_by_what_is_staged_and_by_what_is_not() {
    let web = bundle("web", &["${{db.HOST}}"]);
    let entries = [
        entry(EntryVerb::Update, "web", seen(bundle("web", &[])), Some(web.clone())),
        renamed("db", "pg", bundle("db", &["${{db.HOST}}"])),
        renamed("pg", "postgres", bundle("pg", &["${{pg.HOST}}"])),
    ];
    let staged = fold(&entries).unwrap();
    assert_eq!(told(&staged), ["delete db", "create postgres", "update web"]);
    let value = |index: usize| staged.changes()[index].after.as_ref().unwrap()["spec"]["env"][0]["value"].clone();
    assert_eq!((value(1), value(2)), (json!("${{postgres.HOST}}"), json!("${{postgres.HOST}}")));
    assert_eq!((staged.old_name("postgres"), staged.old_name("web")), (Some("db"), None));
    let other = bundle("other", &["${{db.PORT}}", "db"]);
    assert_eq!(followed(&other, &staged.renames), bundle("other", &["${{postgres.PORT}}", "db"]));
    assert_eq!(followed(&bundle("plain", &["db"]), &staged.renames), bundle("plain", &["db"]));
}

#[test]
fn an_entry_that_does_not_follow_is_told() {
    let web = bundle("web", &[]);
    let gone = [
        entry(EntryVerb::Delete, "web", seen(web.clone()), None),
        entry(EntryVerb::Update, "web", seen(web.clone()), Some(web.clone())),
    ];
    assert!(matches!(fold(&gone), Err(Broken::Absent { .. })));
    let taken = [entry(EntryVerb::Create, "new", None, Some(bundle("new", &[]))), renamed("web", "new", web)];
    assert!(matches!(fold(&taken), Err(Broken::Present { .. })));
}

#[test]
fn differences_are_told_by_field_and_by_name_in_lists() {
    let (old, new) = (bundle("web", &["1", "2"]), bundle("web", &["1", "3", "4"]));
    let paths: Vec<String> = differences(Some(&old), Some(&new)).into_iter().map(|(path, ..)| path).collect();
    assert_eq!(paths, ["spec.env[V1].value", "spec.env[V2].value"]);
}

#[test]
fn changes_of_different_fields_and_items_are_both_made() {
    let base = json!({"image": "r/x:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]});
    let ours = json!({"image": "r/x:2", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}]});
    let theirs =
        json!({"image": "r/x:1", "cpu": "1", "env": [{"name": "B", "value": "3"}, {"name": "A", "value": "1"}]});
    let (merged, conflicts) = merge(Some(&base), Some(&ours), Some(&theirs), Prefer::Neither);
    let both = json!({"image": "r/x:2", "env": [{"name": "B", "value": "3"}, {"name": "A", "value": "2"}], "cpu": "1"});
    assert_eq!((merged, conflicts), (Some(both), Vec::new()));
}

#[test]
fn changes_of_the_same_field_are_told_and_one_can_be_preferred() {
    let base = json!({"image": "1", "env": [{"name": "A", "value": "1"}], "args": ["a"]});
    let ours = json!({"image": "2", "env": [{"name": "A", "value": "2"}], "args": ["a", "b"]});
    let theirs = json!({"image": "3", "env": [], "args": ["a"]});
    let (_, conflicts) = merge(Some(&base), Some(&ours), Some(&theirs), Prefer::Neither);
    assert_eq!(conflicts, ["image", "env[A]"]);
    let (merged, _) = merge(Some(&base), Some(&ours), Some(&theirs), Prefer::Theirs);
    assert_eq!(merged.unwrap(), json!({"image": "3", "env": [], "args": ["a", "b"]}));
    let (merged, _) = merge(Some(&base), Some(&ours), Some(&theirs), Prefer::Ours);
    assert_eq!(merged.unwrap(), ours);
}

fn image(name: &str, image: &str) -> Value {
    let mut content = bundle(name, &["1"]);
    content["spec"]["image"] = image.into();
    content
}

#[test]
fn edits_are_led_on_to_what_is_there_now() {
    let base = bundle("web", &["1"]);
    let entries = [
        entry(EntryVerb::Update, "web", seen(base.clone()), Some(bundle("web", &["2"]))),
        renamed("web", "site", bundle("web", &["2"])),
        entry(EntryVerb::Update, "site", seen(bundle("site", &["2"])), Some(bundle("site", &["3"]))),
    ];
    let there = seen(image("web", "r/x:9"));
    let rebased = rebase(&entries, |_| there.clone(), Prefer::Neither).unwrap();
    assert_eq!(rebased[0].before, there);
    let change = fold(&rebased).unwrap().changes().remove(0);
    let after = change.after.unwrap();
    assert_eq!(
        (after["spec"]["image"].clone(), after["spec"]["env"][0]["value"].clone()),
        (json!("r/x:9"), json!("3"))
    );
    assert_eq!(rebase(&entries, |_| seen(base.clone()), Prefer::Neither).unwrap(), entries);
}

#[test]
fn what_both_have_changed_is_told_by_object_and_field() {
    let entries = [entry(EntryVerb::Update, "web", seen(bundle("web", &["1"])), Some(image("web", "r/x:2")))];
    let there = |_: &Key| seen(image("web", "r/x:3"));
    let conflicts = rebase(&entries, there, Prefer::Neither).unwrap_err();
    let told: Vec<String> = conflicts.iter().map(|one| format!("{} {}", one.key.shown(), one.field)).collect();
    assert_eq!(told, ["bundle/web spec.image"]);
    let with = |prefer| rebase(&entries, there, prefer).unwrap()[0].after.clone().unwrap()["spec"]["image"].clone();
    assert_eq!((with(Prefer::Ours), with(Prefer::Theirs)), (json!("r/x:2"), json!("r/x:3")));
}

#[test]
fn what_is_gone_by_now_is_a_conflict_unless_it_was_to_go() {
    let base = bundle("web", &["1"]);
    let gone = |_: &Key| None;
    let delete = [entry(EntryVerb::Delete, "web", seen(base.clone()), None)];
    assert_eq!(rebase(&delete, gone, Prefer::Neither).unwrap(), []);
    let update = [entry(EntryVerb::Update, "web", seen(base), Some(image("web", "r/x:2")))];
    assert_eq!(rebase(&update, gone, Prefer::Neither).unwrap_err().len(), 1);
    assert_eq!(rebase(&update, gone, Prefer::Theirs).unwrap(), []);
    let made = rebase(&update, gone, Prefer::Ours).unwrap();
    assert_eq!((made[0].verb, &made[0].before), (EntryVerb::Create, &None));
}

/// What a person can do to a handful of bundles.
#[derive(Clone, Debug)]
enum Deed {
    Put(usize, usize),
    Delete(usize),
    Rename(usize, usize),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn deed() -> impl Strategy<Value = Deed> {
    let name = || 0..NAMES.len();
    prop_oneof![
        (name(), name()).prop_map(|(of, to)| Deed::Put(of, to)),
        name().prop_map(Deed::Delete),
        (name(), name()).prop_map(|(of, to)| Deed::Rename(of, to)),
    ]
}

type World = BTreeMap<String, Value>;

/// Does it to a world, one after the other, as somebody would who makes every change at once.
fn done(base: &World, world: &mut World, deed: &Deed) -> Option<Entry> {
    // An object that no entry was about is seen as it is in the store.
    let before =
        |world: &World, name: &str| world.get(name).and_then(|now| seen(base.get(name).unwrap_or(now).clone()));
    match *deed {
        Deed::Put(of, to) => {
            let name = NAMES[of];
            let content = bundle(name, &[&format!("${{{{{}.HOST}}}}", NAMES[to])]);
            let was = before(world, name);
            world.insert(name.into(), content.clone());
            let verb = if was.is_some() { EntryVerb::Update } else { EntryVerb::Create };
            Some(entry(verb, name, was, Some(content)))
        }
        Deed::Delete(of) => {
            let was = before(world, NAMES[of])?;
            world.remove(NAMES[of]);
            Some(entry(EntryVerb::Delete, NAMES[of], Some(was), None))
        }
        Deed::Rename(of, to) => {
            let (old, new) = (NAMES[of], NAMES[to]);
            let was = before(world, old).filter(|_| !world.contains_key(new))?;
            let mut content = world.remove(old)?;
            meta::set(&mut content, "name", Some(new.into()));
            world.insert(new.into(), content);
            let rename = [Rename { old: old.into(), new: new.into() }];
            world.values_mut().for_each(|content| *content = followed(content, &rename));
            Some(renamed(old, new, was.content))
        }
    }
}

proptest! {
    #[test]
    fn the_plan_of_a_set_does_what_its_entries_do_one_after_the_other(
        first in prop::collection::vec(0..NAMES.len(), 0..4),
        deeds in prop::collection::vec(deed(), 0..12),
    ) {
        let mut base = World::new();
        for of in first {
            done(&World::new(), &mut base, &Deed::Put(of, (of + 1) % NAMES.len()));
        }
        let mut world = base.clone();
        let entries: Vec<Entry> = deeds.iter().filter_map(|deed| done(&base, &mut world, deed)).collect();
        let staged = fold(&entries).unwrap();
        let touched: BTreeSet<&str> = staged.slots.keys().map(|key| key.name.as_str()).collect();
        let mut planned: World = base
            .iter()
            .map(|(name, content)| match touched.contains(name.as_str()) {
                true => (name.clone(), content.clone()),
                false => (name.clone(), followed(content, &staged.renames)),
            })
            .collect();
        for change in staged.changes() {
            prop_assert_eq!(change.before.map(|before| before.content), base.get(&change.key.name).cloned());
            match change.after {
                Some(after) => drop(planned.insert(change.key.name, after)),
                None => drop(planned.remove(&change.key.name)),
            }
        }
        prop_assert_eq!(planned, world);
    }
}
