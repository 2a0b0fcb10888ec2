//! ConfigMaps: written, applied, watched, and kept at hand.

use std::pin::pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::{Outcome, PLACE, code, same};

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), PLACE)
}

fn settings(name: &str, colour: &str) -> Outcome<ConfigMap> {
    let labels = json!({ "of": name });
    Ok(serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "data": { "colour": colour } }))?)
}

fn colour(of: &ConfigMap) -> &str {
    of.data.as_ref().and_then(|data| data.get("colour")).map_or("", String::as_str)
}

/// Made, replaced, patched, listed in parts, deleted; what is stale is refused.
pub async fn written(client: &Client) -> Outcome {
    let (api, post) = (api(client), PostParams::default());
    let first = api.create(&post, &settings("settings", "green")?).await?;
    same("another of that name", code(api.create(&post, &settings("settings", "red")?).await)?, 409)?;
    let patch = json!({ "data": { "colour": "blue" } });
    for patch in [Patch::Merge(&patch), Patch::Strategic(&patch)] {
        let patched = api.patch("settings", &PatchParams::default(), &patch).await?;
        same("the patched colour", colour(&patched), "blue")?;
    }
    same("a stale replacement", code(api.replace("settings", &post, &first).await)?, 409)?;
    for number in 0..5 {
        api.create(&post, &settings(&format!("part-{number}"), "grey")?).await?;
    }
    same("the parts of a list", parts(&api).await?, 6)?;
    same("what is not there", api.get_opt("absent").await?.is_none(), true)?;
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("of!=settings")).await?;
    let left: Vec<String> =
        api.list_metadata(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    same("what is left", left, vec!["settings".to_owned()])
}

async fn parts(api: &Api<ConfigMap>) -> Outcome<usize> {
    let (mut found, mut wanted) = (0, ListParams::default().limit(2));
    loop {
        let part = api.list(&wanted).await?;
        found += part.items.len();
        match part.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => wanted = wanted.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Applied by two on the server, who must agree.
pub async fn applied(client: &Client) -> Outcome {
    let api = api(client);
    let wish = |colour: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "colour": colour } });
    let apply = async |manager: &str, force: bool, wish: Value| {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        api.patch("applied", &params, &Patch::Apply(wish)).await
    };
    apply("team-a", false, wish("green")).await?;
    same("what another owns", code(apply("team-b", false, wish("red")).await)?, 409)?;
    same("what was taken over", colour(&apply("team-b", true, wish("red")).await?), "red")?;
    let mut empty = wish("");
    empty["data"] = json!({});
    same("what nobody wants any more", colour(&apply("team-b", false, empty).await?), "")
}

/// A watcher tells what there is and what becomes of it, by either way of beginning.
pub async fn watched(client: &Client) -> Outcome {
    let config = || watcher::Config::default().labels("of=watched");
    for (at, config) in [config(), config().streaming_lists()].into_iter().enumerate() {
        let (api, post) = (api(client), PostParams::default());
        api.create(&post, &settings("watched", "green")?).await?;
        let mut events = pin!(watcher(api.clone(), config));
        same("the first event", next(&mut events).await?, "init".to_owned())?;
        same("what was there", next(&mut events).await?, "there green".to_owned())?;
        same("its end", next(&mut events).await?, "all".to_owned())?;
        let patch = Patch::Merge(json!({ "data": { "colour": format!("blue-{at}") } }));
        api.patch("watched", &PatchParams::default(), &patch).await?;
        same("a change", next(&mut events).await?, format!("changed blue-{at}"))?;
        api.delete("watched", &DeleteParams::default()).await?;
        same("a deletion", next(&mut events).await?, format!("deleted blue-{at}"))?;
    }
    Ok(())
}

async fn next(events: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin)) -> Outcome<String> {
    Ok(match events.try_next().await?.ok_or("the watch ended")? {
        Event::Init => "init".to_owned(),
        Event::InitApply(there) => format!("there {}", colour(&there)),
        Event::InitDone => "all".to_owned(),
        Event::Apply(changed) => format!("changed {}", colour(&changed)),
        Event::Delete(gone) => format!("deleted {}", colour(&gone)),
    })
}

/// A reflector keeps at hand what there is.
pub async fn reflected(client: &Client) -> Outcome {
    let api = api(client);
    let (store, writer) = reflector::store();
    let mut events = pin!(reflector::reflector(writer, watcher(api.clone(), watcher::Config::default())));
    let at_hand = || store.get(&ObjectRef::new("settings").within(PLACE)).map(|found| colour(&found).to_owned());
    while at_hand().is_none() {
        events.next().await.ok_or("the watch ended")??;
    }
    let patch = Patch::Merge(json!({ "data": { "colour": "violet" } }));
    api.patch("settings", &PatchParams::default(), &patch).await?;
    while at_hand().as_deref() != Some("violet") {
        events.next().await.ok_or("the watch ended")??;
    }
    api.delete("settings", &DeleteParams::default()).await?;
    while at_hand().is_some() {
        events.next().await.ok_or("the watch ended")??;
    }
    Ok(())
}
