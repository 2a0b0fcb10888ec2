//! What nobody sends who means well: refused with a `Status` that says why, and nothing is changed.

use super::*;

/// Sends a body as it is to a collection.
async fn sent(world: &World, path: &str, body: impl Into<Body>) -> Answer {
    world.ask(Method::POST, path, &[], body.into()).await
}

async fn patched(world: &World, media: &str, body: impl Into<Body>) -> Answer {
    let path = format!("{CONFIG_MAPS}/web?fieldManager=tests");
    world.ask(Method::PATCH, &path, &[("content-type", media)], body.into()).await
}

#[tokio::test]
async fn bodies_that_are_deep_huge_garbled_or_ambiguous_are_refused_with_a_reason_and_change_nothing() {
    let world = World::new();
    world.config_map("web", json!({ "a": "b" })).await;
    let before = *world.store.revision().borrow();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("deep lists", deep("[", "]").into()),
        ("deep maps", deep("{\"a\":", "}").into()),
        ("no end", b"{\"metadata\":{\"name\":\"x\"".to_vec()),
        ("nothing", Vec::new()),
        ("not UTF-8", b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec()),
        ("half a surrogate", br#"{"metadata":{"name":"\ud800"}}"#.to_vec()),
        ("a NUL in the name", br#"{"metadata":{"name":"a\u0000b"}}"#.to_vec()),
        ("a NUL in a key", br#"{"metadata":{"name":"x"},"data":{"a\u0000b":"c"}}"#.to_vec()),
        ("a way out", br#"{"metadata":{"name":"../../etc"}}"#.to_vec()),
        ("a huge number", br#"{"metadata":{"name":"x","generation":1e999}}"#.to_vec()),
        ("a number for a name", br#"{"metadata":{"name":12345678901234567890123}}"#.to_vec()),
        ("a list for an object", b"[1,2,3]".to_vec()),
        ("a text", b"\"ConfigMap\"".to_vec()),
        ("two documents", br#"{"metadata":{"name":"x"}}{"metadata":{"name":"y"}}"#.to_vec()),
        ("a long name", format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "a".repeat(100_000)).into()),
    ];
    for (what, body) in &bodies {
        let answer = sent(&world, CONFIG_MAPS, body.clone()).await;
        let (code, reason, message) = answer.failed();
        assert!(matches!(code, 400 | 413 | 422), "{what}: {code} {reason} {message}");
        assert!(message.len() < 2000, "{what}: {} characters", message.len());
    }
    for media in ["application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"] {
        for (what, body) in &bodies {
            let answer = patched(&world, media, body.clone()).await;
            assert!(matches!(answer.code, 400 | 413 | 415 | 422), "{media}, {what}: {}", answer.body);
            answer.failed();
        }
    }
    let anchors = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                   d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(matches!(patched(&world, "application/apply-patch+yaml", anchors).await.failed().0, 400 | 422));
    let large = sent(&world, CONFIG_MAPS, vec![b' '; 4 << 20]).await;
    assert_eq!(large.failed().0, 413);
    assert_eq!(*world.store.revision().borrow(), before, "something was changed");
}

#[tokio::test]
async fn paths_that_try_to_lead_elsewhere_lead_nowhere() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    for path in [
        "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets",
        "/api/v1/namespaces/default/configmaps/%2e%2e",
        "/api/v1/namespaces/default/configmaps/web%00",
        "/api/v1/namespaces/default/configmaps/web%20",
        "/api/v1/namespaces/default/configmaps//web",
        "/api/v1/namespaces//configmaps/web",
        "/api/v1/namespaces/default/../default/configmaps/web",
        "/API/v1/namespaces/default/configmaps/web",
        "/api/v1/namespaces/default%2fconfigmaps/web",
        "//api/v1/namespaces/default/configmaps/web",
    ] {
        let code = world.get(path).await.code;
        assert!(matches!(code, 400 | 404), "{path}: {code}");
    }
    for query in
        ["?limit=-1", "?limit=x", "?continue=%00", "?resourceVersion=x", "?labelSelector=%ff", "?watch=perhaps"]
    {
        let answer = world.get(&format!("{CONFIG_MAPS}{query}")).await;
        assert_eq!(answer.failed().0, 400, "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn every_answer_says_that_it_is_nobodys_to_keep_guess_or_frame() {
    let world = World::new();
    for path in ["/livez", "/metrics", "/api/v1", CONFIG_MAPS, "/nowhere"] {
        let answer = world.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
    }
    assert_eq!(world.get(CONFIG_MAPS).await.header("cache-control"), "no-store");
}
