use super::*;

const BERTH: &str = "/openapi/v3/apis/berth.dev/v1";

/// Every document, as a client finds them by the index.
pub(super) async fn documents(world: &World) -> Vec<(String, Value)> {
    let index = world.get("/openapi/v3").await.ok();
    let mut all = Vec::new();
    for (place, entry) in index["paths"].as_object().unwrap() {
        let address = entry["serverRelativeURL"].as_str().unwrap();
        all.push((place.clone(), world.get(address).await.ok()));
    }
    all
}

#[tokio::test]
async fn the_index_leads_to_a_document_for_every_group_and_version_of_the_registry() {
    let world = World::new();
    let documents = documents(&world).await;
    let places: Vec<&str> = documents.iter().map(|(place, _)| place.as_str()).collect();
    let groups = [
        "apps/v1",
        "authentication.k8s.io/v1",
        "authorization.k8s.io/v1",
        "berth.dev/v1",
        "metrics.k8s.io/v1beta1",
        "networking.k8s.io/v1",
    ];
    assert_eq!(places[0], "api/v1");
    assert_eq!(places[1..], groups.map(|group| format!("apis/{group}")));
    for kind in KINDS {
        let meant = json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]);
        let is_it = |schema: &&Value| schema["x-kubernetes-group-version-kind"] == meant;
        let schemas = |document: &Value| document["components"]["schemas"].as_object().unwrap().clone();
        let found: Vec<Value> = documents
            .iter()
            .flat_map(|(_, document)| schemas(document).values().filter(is_it).cloned().collect::<Vec<_>>())
            .collect();
        assert_eq!(found.len(), 1, "{} has not one schema", kind.kind);
        assert!(found[0]["description"].as_str().is_some_and(|says| says.len() > 5), "{}: {}", kind.kind, found[0]);
        assert!(found[0]["properties"]["metadata"].is_object(), "{}", kind.kind);
    }
}

#[tokio::test]
async fn whatever_a_document_refers_to_is_in_it() {
    fn references(value: &Value) -> Vec<&str> {
        let own = value.get("$ref").and_then(Value::as_str);
        let inner: Vec<&Value> = match value {
            Value::Object(map) => map.values().collect(),
            Value::Array(all) => all.iter().collect(),
            _ => Vec::new(),
        };
        own.into_iter().chain(inner.into_iter().flat_map(references)).collect()
    }
    let world = World::new();
    for (place, document) in documents(&world).await {
        let found = references(&document);
        assert!(found.len() > 10, "{place} refers to {found:?}");
        for reference in found {
            let inside = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(inside).is_some(), "{place} has no {reference}");
        }
    }
}

#[tokio::test]
async fn the_fields_of_a_bundle_are_described_by_their_comments() {
    let world = World::new();
    let schemas = world.get(BERTH).await.ok()["components"]["schemas"].clone();
    let bundle = &schemas["dev.berth.v1.Bundle"];
    assert_eq!((&bundle["description"], &bundle["required"]), (&json!("A service."), &json!(["spec"])));
    let spec = &schemas["BundleSpec"];
    assert_eq!(spec["properties"]["image"]["description"], "`registry/repository[:tag][@sha256:...]`.");
    assert_eq!((&spec["required"], &spec["properties"]["start"]["default"]), (&json!(["image"]), &json!(true)));
    for (name, field) in spec["properties"].as_object().unwrap() {
        let says = field["description"].as_str().unwrap_or_default();
        assert!(says.ends_with('.') && !says.contains("[`"), "spec.{name} is told of as {says:?}");
    }
    let protocol = &schemas["Protocol"];
    assert_eq!((&protocol["type"], &protocol["enum"]), (&json!("string"), &json!(["TCP", "UDP"])));
    assert!(!schemas.to_string().contains("nullable"));
}

#[tokio::test]
async fn every_operation_of_a_document_is_a_route_and_every_write_says_how_it_validates() {
    let world = World::new();
    let routes = table().0;
    let mut seen = 0;
    for (_, document) in documents(&world).await {
        for (path, operations) in document["paths"].as_object().unwrap() {
            let operations = operations.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
            for (method, operation) in operations {
                seen += 1;
                let is_it = |route: &&super::route::Route| {
                    route.path == *path && route.method.as_str().eq_ignore_ascii_case(method)
                };
                let Some(kind) = routes.iter().find(is_it).unwrap().kind else { continue };
                let meant = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
                assert_eq!(operation["x-kubernetes-group-version-kind"], meant, "{method} {path}");
                let parameters = operation["parameters"].as_array().unwrap();
                let validates = parameters.iter().any(|parameter| parameter["name"] == "fieldValidation");
                assert_eq!(validates, ["post", "put", "patch"].contains(&method.as_str()), "{method} {path}");
            }
        }
    }
    let served = |kind: &&&Registration| kind.serves(Verb::Patch);
    assert!(seen > 5 * KINDS.iter().filter(served).count(), "{seen} operations");
}

#[tokio::test]
async fn every_route_of_an_object_is_described_with_every_code_that_it_answers_with() {
    let world = World::new();
    let mut paths = serde_json::Map::new();
    for (_, document) in documents(&world).await {
        paths.extend(document["paths"].as_object().unwrap().clone());
    }
    for route in table().0 {
        let Access::Object { verb, subresource, .. } = route.access else { continue };
        let advice =
            route.kind.is_some_and(|kind| !kind.serves(verb) || (subresource == "status" && verb != Verb::Get));
        let method = route.method.as_str().to_ascii_lowercase();
        let described = paths.get(&route.path).map_or(&Value::Null, |path| &path[method]);
        assert_eq!(described.is_object(), !advice, "{} {}", route.method, route.path);
        let codes: Vec<&String> =
            described["responses"].as_object().into_iter().flatten().map(|(code, _)| code).collect();
        let always = ["400", "401", "403", "404", "429", "500", "503"];
        assert!(advice || always.iter().all(|code| codes.iter().any(|found| found == code)), "{codes:?}");
    }
    let codes = |path: &str, method: &str| {
        paths[path][method]["responses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let bundles = "/apis/berth.dev/v1/namespaces/{namespace}/bundles";
    assert_eq!(codes(bundles, "get"), "200 400 401 403 404 405 410 429 500 503");
    assert_eq!(codes(bundles, "post"), "201 400 401 403 404 409 413 415 422 429 500 503 504");
    assert_eq!(
        codes(&format!("{bundles}/{{name}}/actions/start"), "post"),
        "202 400 401 403 404 409 413 415 422 429 500 503 504"
    );
}

#[tokio::test]
async fn a_document_is_kept_for_good_under_its_hash_and_another_hash_leads_to_it() {
    let world = World::new();
    let index = world.get("/openapi/v3").await.ok();
    let address = index["paths"]["apis/berth.dev/v1"]["serverRelativeURL"].as_str().unwrap();
    let kept = world.get(address).await;
    assert_eq!(kept.header("cache-control"), "private, max-age=31536000, immutable");
    assert!(address.ends_with(kept.header("etag").trim_matches('"')), "{address}");
    let stale = world.get(&format!("{BERTH}?hash=0")).await;
    assert_eq!((stale.code, stale.header("location")), (301, address));
    let plain = world.get(BERTH).await;
    assert_eq!((plain.header("cache-control"), &plain.body), ("no-cache, private", &kept.body));
}
