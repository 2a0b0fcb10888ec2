//! Many objects, many watches, many changes: nobody who reads misses one or hears two the wrong way round, and those who
//! do not read are told that they have lost the thread.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::watches::Events;
use super::*;
use crate::chance::count;

/// Longer than a reader waits for its turn, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(10);
const WRITERS: usize = 4;
/// Watches that nobody reads.
const IDLE: usize = 3;

fn name(object: usize) -> String {
    format!("c{object}")
}

/// Follows until every object has had that many updates: each comes once, and in order.
async fn follow(mut events: Events, objects: usize, updates: u64) {
    let mut seen: BTreeMap<String, u64> = (0..objects).map(|object| (name(object), 0)).collect();
    let (mut newest, mut open) = (0, objects);
    while open > 0 {
        let event = events.next().await.expect("the watch has ended");
        let object = &event["object"];
        let text = |part: &str| object.pointer(part).and_then(Value::as_str).unwrap_or_default().to_owned();
        if event["type"] == "ADDED" {
            continue;
        }
        assert_eq!(event["type"], "MODIFIED", "{event}");
        let version: u64 = text("/metadata/resourceVersion").parse().unwrap();
        assert!(version > newest, "version {version} came after {newest}");
        newest = version;
        let before = seen.get_mut(&text("/metadata/name")).unwrap();
        assert_eq!(text("/data/n"), (*before + 1).to_string(), "of {}, after {before}", text("/metadata/name"));
        *before += 1;
        open -= usize::from(*before == updates);
    }
}

async fn write(world: &World, objects: impl Iterator<Item = usize> + Clone, updates: u64) {
    for n in 1..=updates {
        for object in objects.clone() {
            let path = format!("{CONFIG_MAPS}/{}", name(object));
            world.merge(&path, json!({ "data": { "n": n.to_string() } })).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_watches_is_told_every_change_once_and_in_order_and_who_does_not_read_is_cut_off() {
    let pace = WatchPace { patience: PATIENCE, ..WatchPace::default() };
    let world = World::with(MasterKey::from_bytes(&[7; 32]), pace);
    let (objects, watches) = (count(40, 1000) as usize, count(20, 200) as usize);
    let updates = 10;
    for object in 0..objects {
        world.config_map(&name(object), json!({ "n": "0" })).await;
    }
    let now = *world.store.revision().borrow();
    let mut readers = Vec::new();
    for number in 0..watches {
        // Some begin with all there is, some where they have read to.
        let since = if number % 2 == 0 { String::new() } else { format!("&resourceVersion={now}") };
        let events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true{since}")).await;
        readers.push(tokio::spawn(follow(events, objects, updates)));
    }
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={now}");
    let idle = join_all((0..IDLE).map(|_| Events::of(&world, &path))).await;

    join_all((0..WRITERS).map(|writer| write(&world, (writer..objects).step_by(WRITERS), updates))).await;
    for reader in readers {
        reader.await.unwrap();
    }
    // Whoever reads makes room: reading begins when all were given up.
    while !world.metrics.encode().unwrap().contains("berth_api_watches 0\n") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mut events in idle {
        let mut last = Value::Null;
        while let Some(event) = events.next().await {
            last = event;
        }
        assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
    }
}
