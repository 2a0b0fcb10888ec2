//! Managers who apply, change and leave, one after the other.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::BUNDLE;
use crate::managed::{self, Conflict, Write};

/// An object, and who owns what of it.
#[derive(Clone, Debug, PartialEq)]
struct World {
    object: Value,
    entries: Vec<ManagedFieldsEntry>,
}

fn write<'a>(manager: &'a str, applied: Option<&'a Fields>) -> Write<'a> {
    let (api_version, time) = ("berth.dev/v1", Timestamp::UNIX_EPOCH);
    Write { manager, api_version, lists: BUNDLE.lists(), applied, time }
}

impl World {
    fn new() -> Self {
        Self { object: json!({}), entries: Vec::new() }
    }

    /// Does nothing if others own what would be changed.
    fn try_apply(&mut self, manager: &str, configuration: &Value) -> Result<(), Vec<Conflict>> {
        let before = self.clone();
        let conflicts = self.force(manager, configuration);
        if conflicts.is_empty() {
            return Ok(());
        }
        *self = before;
        Err(conflicts)
    }

    /// Takes over what others own, and tells what that was.
    fn force(&mut self, manager: &str, configuration: &Value) -> Vec<Conflict> {
        let fields = Fields::of(configuration, BUNDLE.lists());
        let write = write(manager, Some(&fields));
        let (last, others) = managed::shares(&self.entries, &write);
        let new = apply(&self.object, configuration, &last, &others, BUNDLE.lists()).unwrap();
        let conflicts = managed::conflicts(&self.entries, &self.object, &new, &write);
        self.entries = managed::record(&self.entries, Some(&self.object), &new, &write);
        self.object = new;
        conflicts
    }

    fn update(&mut self, manager: &str, new: Value) {
        self.entries = managed::record(&self.entries, Some(&self.object), &new, &write(manager, None));
        self.object = new;
    }

    /// All fields; of a part of the object that has become empty nothing is left.
    fn fields(&self) -> Fields {
        let mut object = self.object.clone();
        object.as_object_mut().unwrap().retain(|_, part| *part != json!({}));
        Fields::of(&object, BUNDLE.lists())
    }
}

fn ports(ports: Value) -> Value {
    json!({"spec": {"ports": ports}})
}

#[test]
fn a_configuration_is_merged_and_what_it_holds_no_more_goes() {
    let mut world = World::new();
    world.update("somebody", json!({"spec": {"env": [{"name": "Z", "value": "0"}], "image": "web:1"}}));
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    world.try_apply("me", &json!({"spec": {"env": env, "user": "1"}})).unwrap();
    let names = |world: &World| -> Vec<Value> {
        world.object["spec"]["env"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect()
    };
    assert_eq!(names(&world), ["Z", "A", "B"]);
    world.try_apply("me", &json!({"spec": {"env": [{"name": "B", "value": "3"}]}})).unwrap();
    assert_eq!(
        world.object,
        json!({"spec": {"env": [{"name": "Z", "value": "0"}, {"name": "B", "value": "3"}], "image": "web:1"}})
    );
}

#[test]
fn items_come_in_the_order_in_which_they_are_applied_and_others_stay_where_they_are() {
    let mut world = World::new();
    world.update("somebody", ports(json!([{"name": "a"}, {"name": "x"}, {"name": "b"}])));
    world.try_apply("me", &ports(json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]))).unwrap();
    assert_eq!(world.object, ports(json!([{"name": "c"}, {"name": "x"}, {"name": "b"}, {"name": "a"}])));
}

#[test]
fn a_field_that_another_changed_since_is_a_conflict_that_names_him() {
    let mut world = World::new();
    let web = |port: u16| ports(json!([{"name": "web", "containerPort": port}]));
    world.try_apply("me", &web(80)).unwrap();
    world.update("kubectl-edit", web(81));
    let conflicts = world.try_apply("me", &web(80)).unwrap_err();
    assert_eq!(
        managed::told_of(&conflicts).lines().next().unwrap(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using berth.dev/v1 at 1970-01-01T00:00:00Z: \
         .spec.ports[name=\"web\"].containerPort"
    );
    assert_eq!(world.object, web(81));
    world.force("me", &web(80));
    assert_eq!(world.object, web(80));
    assert_eq!(world.try_apply("kubectl-edit", &web(82)).unwrap_err()[0].manager, "\"me\"");
}

#[test]
fn conflicts_with_several_managers_are_told_by_manager() {
    let mut world = World::new();
    world.try_apply("one", &json!({"spec": {"image": "a", "user": "1"}})).unwrap();
    world.try_apply("two", &json!({"spec": {"workingDir": "/a"}})).unwrap();
    let all = json!({"spec": {"image": "b", "user": "2", "workingDir": "/b"}});
    let told = managed::told_of(&world.try_apply("three", &all).unwrap_err());
    let wanted = "Apply failed with 3 conflicts: conflicts with \"one\":\n- .spec.image\n- .spec.user\n\
                  conflicts with \"two\":\n- .spec.workingDir\n";
    assert!(told.starts_with(wanted), "{told}");
}

#[test]
fn an_item_goes_with_its_manager_unless_another_has_something_in_it() {
    let mut world = World::new();
    world.try_apply("me", &ports(json!([{"name": "a", "containerPort": 1}, {"name": "b"}]))).unwrap();
    world.update("other", ports(json!([{"name": "a", "containerPort": 1, "hostPort": 2}, {"name": "b"}])));
    world.try_apply("me", &json!({})).unwrap();
    assert_eq!(world.object, ports(json!([{"name": "a", "hostPort": 2}])));
}

#[test]
fn a_list_in_which_an_item_is_twice_or_has_no_name_is_refused() {
    for wrong in [json!([{"name": "a"}, {"name": "a"}]), json!([{"containerPort": 1}])] {
        let none = Fields::default();
        let refused = apply(&json!({}), &ports(wrong), &none, &none, BUNDLE.lists()).unwrap_err();
        assert_eq!(refused.field, "spec.ports");
    }
}

type Numbers = (Option<u8>, Option<u8>);

/// Items of a list in any order, no two of one name.
fn some_ports() -> impl Strategy<Value = Vec<Value>> {
    let item = |(name, (inside, outside)): (String, Numbers)| {
        let mut item = json!({ "name": name });
        let fields = [("containerPort", inside), ("hostPort", outside)];
        for (field, value) in fields.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            item[field] = value.into();
        }
        item
    };
    let numbers = (prop::option::of(0..3_u8), prop::option::of(0..3_u8));
    let ports = prop::collection::btree_map("[a-d]", numbers, 0..4);
    ports.prop_map(move |ports| ports.into_iter().map(item).collect::<Vec<_>>()).prop_shuffle()
}

fn configuration() -> impl Strategy<Value = Value> {
    let labels = prop::option::of(prop::collection::btree_map("[a-d]", "[0-2]", 0..4));
    let depends = prop::option::of(prop::collection::btree_set("[a-d]", 0..4));
    let command = prop::option::of(prop::collection::vec("[a-c]", 0..3));
    (labels, prop::option::of(some_ports()), depends, command).prop_map(|(labels, ports, depends, command)| {
        let mut object = json!({});
        for (part, field, value) in [
            ("metadata", "labels", labels.map(|labels| json!(labels))),
            ("spec", "ports", ports.map(|ports| json!(ports))),
            ("spec", "dependsOn", depends.map(|depends| json!(depends))),
            ("spec", "command", command.map(|command| json!(command))),
        ] {
            if let Some(value) = value {
                object[part][field] = value;
            }
        }
        object
    })
}

proptest! {
    #[test]
    fn what_is_applied_twice_changes_nothing_the_second_time(
        there in configuration(), mine in configuration(), theirs in configuration(),
    ) {
        let mut world = World::new();
        world.update("somebody", there);
        world.force("they", &theirs);
        world.force("me", &mine);
        let before = world.clone();
        prop_assert!(world.try_apply("me", &mine).is_ok());
        prop_assert_eq!(world, before);
    }

    #[test]
    fn what_two_apply_survives_one_of_them_and_all_else_of_his_goes(
        mine in configuration(), theirs in configuration(),
    ) {
        let mut world = World::new();
        world.force("they", &theirs);
        world.force("me", &mine);
        world.force("they", &json!({}));
        prop_assert_eq!(world.fields(), Fields::of(&mine, BUNDLE.lists()));
        let mut alone = World::new();
        alone.force("me", &mine);
        prop_assert_eq!(world.entries, alone.entries);
    }

    #[test]
    fn leaving_takes_nothing_that_others_have_written(there in configuration(), mine in configuration()) {
        let mut world = World::new();
        world.update("somebody", there.clone());
        let applied = world.try_apply("me", &mine);
        world.force("me", &json!({}));
        if applied.is_ok() {
            prop_assert_eq!(world.fields(), Fields::of(&there, BUNDLE.lists()));
        }
    }
}
