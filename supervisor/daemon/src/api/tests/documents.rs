use futures_util::future::BoxFuture;

use super::*;
use crate::metrics::{Kind, Probe, Sample, Series};

#[tokio::test]
async fn discovery_names_every_kind_with_its_verbs() {
    let world = World::new();
    assert_eq!(world.get("/api").await.ok()["versions"], json!(["v1"]));
    let groups = world.get("/apis").await.ok();
    let groups: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let wanted =
        ["apps", "authentication.k8s.io", "authorization.k8s.io", "berth.dev", "metrics.k8s.io", "networking.k8s.io"];
    assert_eq!(groups, wanted);
    assert_eq!(world.get("/apis/berth.dev").await.ok()["preferredVersion"]["groupVersion"], "berth.dev/v1");
    for kind in KINDS {
        let path = if kind.group.is_empty() { "/api/v1".into() } else { format!("/apis/{}", kind.api_version()) };
        let list = world.get(&path).await.ok();
        let found = list["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == kind.plural);
        let found = found.unwrap_or_else(|| panic!("{} is not in {path}", kind.plural));
        assert_eq!((&found["kind"], &found["namespaced"]), (&kind.kind.into(), &kind.namespaced.into()));
        assert_eq!(found["verbs"].as_array().unwrap().len(), kind.verbs.len());
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_documents_path_changes_nothing() {
    let world = World::new();
    for path in ["/version", "/api", "/api/v1", "/apis", "/apis/berth.dev", "/apis/berth.dev/v1"] {
        assert_eq!(world.get(&format!("{path}/")).await.ok(), world.get(path).await.ok(), "{path}");
    }
}

/// What kubectl 1.32 sends to `/api` and `/apis`.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn aggregated_discovery_has_every_kind_in_two_documents() {
    let world = World::new();
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let answer = world.ask(Method::GET, path, &[("accept", AGGREGATED)], "").await;
        assert_eq!(
            answer.header("content-type"),
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        for group in answer.ok()["items"].as_array().unwrap() {
            for resource in group["versions"][0]["resources"].as_array().unwrap() {
                let group = group["metadata"]["name"].as_str().unwrap_or("");
                assert_eq!(resource["responseKind"]["group"], group);
                found.push((group.to_owned(), resource.clone()));
            }
        }
    }
    assert_eq!(found.len(), KINDS.len());
    for kind in KINDS {
        let is_it = |(group, resource): &&(String, Value)| group == kind.group && resource["resource"] == kind.plural;
        let (_, resource) = found.iter().find(is_it).unwrap_or_else(|| panic!("{} is not there", kind.plural));
        assert_eq!(resource["responseKind"]["kind"], kind.kind);
        assert_eq!(resource["scope"] == "Namespaced", kind.namespaced, "{}", kind.plural);
        assert_eq!(resource["singularResource"], kind.singular);
        assert_eq!(resource["verbs"].as_array().unwrap().len(), kind.verbs.len());
        assert_eq!(resource["subresources"].is_array(), kind.status, "{}", kind.plural);
    }
    let bundles = &found.iter().find(|(_, resource)| resource["resource"] == "bundles").unwrap().1;
    assert_eq!((&bundles["shortNames"], &bundles["categories"]), (&json!(["bd"]), &json!(["all"])));
}

#[tokio::test]
async fn the_classic_documents_are_for_whoever_does_not_ask_for_aggregated_ones() {
    let world = World::new();
    let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    for accept in ["application/json", "*/*", older, "application/json,application/json;as=Table"] {
        let kind = |answer: Value| answer["kind"].as_str().unwrap().to_owned();
        let ask = async |path| kind(world.ask(Method::GET, path, &[("accept", accept)], "").await.ok());
        assert_eq!((ask("/api").await.as_str(), ask("/apis").await.as_str()), ("APIVersions", "APIGroupList"));
    }
}

#[tokio::test]
async fn a_document_that_a_client_has_already_is_not_sent_again() {
    let world = World::new();
    let ask = async |tag: &str| {
        let headers = [("accept", AGGREGATED), ("if-none-match", tag)];
        world.ask(Method::GET, "/apis", &headers, "").await
    };
    let first = ask("").await;
    let tag = first.header("etag").to_owned();
    assert_eq!((first.code, first.header("vary")), (200, "Accept"));
    let again = ask(&tag).await;
    assert_eq!((again.code, again.body, again.headers["etag"].to_str().unwrap()), (304, "".into(), tag.as_str()));
    assert_eq!(ask("\"another\"").await.code, 200);
}

#[tokio::test]
async fn readiness_is_told_to_everybody_and_its_details_to_known_subjects() {
    let world = World::new();
    let stranger = async || {
        let request = Request::builder().uri("/readyz").body(Body::empty()).unwrap();
        let peer = Peer::Network("192.0.2.9:1".parse().unwrap());
        Answer::of(world.send_from(peer, request).await).await
    };
    let details = world.get("/readyz").await.ok();
    assert_eq!(details, "[+] secrets\n[+] store\nok\n");
    world.readiness.set("systemd", Err("the bus does not answer; see `systemctl status dbus`".into()));
    let answer = world.get("/readyz").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.as_str().unwrap().contains("[-] systemd: the bus does not answer"), "{}", answer.body);
    let answer = stranger().await;
    assert_eq!((answer.code, answer.body), (503, "not ready\n".into()));
    world.readiness.set("systemd", Ok(()));
    assert_eq!(stranger().await.body, "ok\n");
}

struct Depth;

impl Probe for Depth {
    fn read(&self) -> BoxFuture<'_, Vec<Sample>> {
        const DEPTH: Series = Series { name: "store_queue_depth", help: "Depth", kind: Kind::Gauge };
        Box::pin(std::future::ready(vec![Sample { series: &DEPTH, labels: Vec::new(), value: 0.0 }]))
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_code() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    world.get(&format!("{CONFIG_MAPS}/web")).await.ok();
    world.get(&format!("{CONFIG_MAPS}/absent")).await;
    world.get("/nowhere").await;
    world.metrics.ask(Arc::new(Depth));
    let answer = world.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.body.as_str().unwrap();
    let route = "/api/v1/namespaces/{namespace}/configmaps/{name}";
    for line in [
        format!("berth_api_requests_total{{method=\"GET\",route=\"{route}\",code=\"200\"}} 1"),
        format!("berth_api_requests_total{{method=\"GET\",route=\"{route}\",code=\"404\"}} 1"),
        "berth_api_requests_total{method=\"GET\",route=\"*\",code=\"404\"} 1".to_owned(),
        "\nberth_store_queue_depth 0.0\n".to_owned(),
    ] {
        assert!(text.contains(&line), "no line {line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_version_is_told() {
    let world = World::new();
    let version = world.get("/version").await.ok();
    assert_eq!((version["major"].clone(), version["minor"].clone()), ("1".into(), "33".into()));
    assert_eq!(version["berthVersion"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn an_archive_of_any_size_is_streamed_in_under_its_name() {
    let world = World::new();
    let size = 5 * 1024 * 1024;
    let path = "/apis/berth.dev/v1/images/import?name=localhost%2Fweb%3A1";
    let tar = [("content-type", "application/x-tar")];
    let image = world.ask(Method::POST, path, &tar, vec![7; size]).await.created();
    assert_eq!(image["metadata"]["name"], "localhost/web:1");
    assert_eq!(*world.images.imported.lock().unwrap(), [("localhost/web:1".to_owned(), size)]);
    let list = world.get("/apis/berth.dev/v1/images").await.ok();
    assert_eq!((list["kind"].clone(), names(&list)), ("ImageList".into(), vec!["localhost/web:1"]));
    let answer = world.ask(Method::POST, "/apis/berth.dev/v1/images/import", &tar, "x").await;
    assert_eq!(answer.failed().0, 400);
}

#[tokio::test]
async fn images_are_removed_by_name_or_where_nothing_needs_them_and_a_dry_run_removes_none() {
    let world = World::new();
    let images = "/apis/berth.dev/v1/images";
    for name in ["a", "b"] {
        world.ask(Method::POST, &format!("{images}/import?name={name}"), &[], "x").await.created();
    }
    assert_eq!(world.ask(Method::DELETE, images, &[], "").await.failed().0, 400);
    assert_eq!(world.ask(Method::DELETE, &format!("{images}?name=a&dryRun=All"), &[], "").await.failed().0, 400);
    world.ask(Method::DELETE, &format!("{images}?name=a"), &[], "").await.ok();
    assert_eq!(world.ask(Method::DELETE, &format!("{images}?name=a"), &[], "").await.failed().0, 404);
    let told = world.ask(Method::POST, &format!("{images}/prune?dryRun=All"), &[], "").await.ok();
    assert_eq!((names(&told), names(&world.get(images).await.ok())), (vec!["b"], vec!["b"]));
    let pruned = world.ask(Method::POST, &format!("{images}/prune"), &[], "").await.ok();
    assert_eq!((names(&pruned), names(&world.get(images).await.ok()).len()), (vec!["b"], 0));
}

#[tokio::test]
async fn a_cleanup_tells_what_it_removes_and_a_dry_run_the_same_without_removing_it() {
    let world = World::new();
    world.ask(Method::POST, "/apis/berth.dev/v1/images/import?name=a", &[], "x").await.created();
    let path = "/apis/berth.dev/v1/system/cleanup";
    let told = world.ask(Method::POST, &format!("{path}?dryRun=All"), &[], "").await.ok();
    let item = json!({"kind": "Image", "name": "a", "id": "sha256:a", "why": "unused for 8 d", "size": 1});
    assert_eq!((&told["kind"], &told["items"]), (&json!("CleanupReport"), &json!([item])));
    assert_eq!((&told["dryRun"], &told["freed"], &told["level"]), (&json!(true), &Value::Null, &json!("Warning")));
    let real = world.ask(Method::POST, path, &[], "").await.ok();
    assert_eq!((&real["items"], &real["freed"], &real["dryRun"]), (&told["items"], &json!(4096), &json!(false)));
    assert_eq!(world.ask(Method::POST, path, &[], "").await.ok()["items"], json!([]));
    assert_eq!(world.ask(Method::POST, &format!("{path}?dryRun=Some"), &[], "").await.failed().0, 400);
}

#[tokio::test]
async fn a_log_is_asked_for_with_all_its_options() {
    let world = World::new();
    let query = "tailLines=10&sinceSeconds=60&timestamps=true&previous=true";
    let answer = world.get(&format!("{BUNDLES}/web/log?{query}")).await;
    assert_eq!((answer.code, answer.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert_eq!(answer.body, "one\ntwo\n");
    world.get(&format!("{BUNDLES}/web/log?sinceTime=2026-02-01T00:00:00Z")).await.ok();
    let asked = world.logs.asked.lock().unwrap().clone();
    let first = LogRequest {
        namespace: "default".into(),
        bundle: "web".into(),
        follow: false,
        tail_lines: Some(10),
        since: Some("2026-03-01T11:59:00Z".parse().unwrap()),
        timestamps: true,
        previous: true,
    };
    assert_eq!(asked[0], first);
    assert_eq!(asked[1].since, Some("2026-02-01T00:00:00Z".parse().unwrap()));
    for query in ["tailLines=few", "follow=perhaps", "sinceTime=yesterday"] {
        assert_eq!(world.get(&format!("{BUNDLES}/web/log?{query}")).await.failed().0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_followed_log_ends_when_the_daemon_stops() {
    let world = World::new();
    let response = world.send(owned(Method::GET, &format!("{BUNDLES}/web/log?follow=true"), &[], Body::empty())).await;
    let mut pieces = response.into_body().into_data_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "one\n");
    world.stop.cancel();
    let rest: Vec<_> = StreamExt::collect(pieces).await;
    assert!(rest.len() <= 1, "{rest:?}");
}

#[tokio::test]
async fn what_is_behind_a_seam_fails_with_what_to_do_and_hides_its_insides() {
    let world = World::new();
    let absent = world.get(&format!("{BUNDLES}/absent/log")).await;
    assert_eq!(absent.failed(), (404, "NotFound", "bundle absent is not there"));
    let broken = world.get(&format!("{BUNDLES}/broken/log")).await;
    assert_eq!(broken.failed(), (500, "InternalError", "berthd could not do this; `journalctl -u berthd` says why"));
}
