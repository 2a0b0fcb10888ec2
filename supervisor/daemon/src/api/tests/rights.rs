use super::route::{Access, Table};
use super::*;

const PEER: Peer = Peer::Network(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1));

/// What a stranger may ask; everything else in the table is refused to him.
const OPEN: [&str; 11] = [
    "/livez",
    "/readyz",
    "/auth/claim",
    "/auth/login",
    "/auth/refresh",
    "/auth/logout",
    "/auth/passkey",
    "/auth/password",
    "/auth/invitation",
    "/auth/device",
    "/auth/device/token",
];

fn stranger(method: &Method, path: &str) -> Request<Body> {
    Request::builder().method(method.clone()).uri(path).body(Body::from("{}")).unwrap()
}

/// A path of the route, with something in the place of each parameter.
fn example(route: &Route) -> String {
    route.path.replace("{namespace}", "default").replace("{name}", "web")
}

#[tokio::test]
async fn every_route_of_the_table_is_closed_to_strangers_but_the_open_ones() {
    let world = World::new();
    let Table(routes) = table();
    assert!(routes.len() > 7 * KINDS.len(), "the table is not all there");
    for route in &routes {
        let path = example(route);
        let answer = Answer::of(world.send_from(PEER, stranger(&route.method, &path)).await).await;
        let open = OPEN.contains(&path.as_str());
        let refused = answer.code == 401 && answer.failed().2.contains("anonymous may not");
        assert_eq!(refused, !open, "{} {path}: {}", route.method, answer.body);
        if !open {
            assert_eq!(answer.failed().1, "Unauthorized");
            assert!(answer.failed().2.contains("send a token"), "{}", answer.failed().2);
        }
    }
}

#[tokio::test]
async fn every_route_of_the_table_lets_the_owner_and_local_root_through() {
    let world = World::new();
    let Table(routes) = table();
    for route in &routes {
        let path = format!("{}?dryRun=All&timeoutSeconds=1&name=r.example/x", example(route));
        for peer in [PEER, Peer::Socket { uid: 0 }] {
            let request = owned(route.method.clone(), &path, &[], Body::from("{}"));
            let answer = Answer::of(world.send_from(peer, request).await).await;
            let refused =
                answer.code == 401 || answer.body["message"].as_str().is_some_and(|why| why.contains("may not"));
            assert!(!refused && answer.code < 500, "{} {path}: {}", route.method, answer.body);
        }
    }
}

#[test]
fn a_route_says_what_its_method_and_path_mean() {
    for route in table().0 {
        let Access::Object { plural, subresource, verb, .. } = route.access else {
            let expected = if route.path.starts_with("/auth/") { Method::POST } else { Method::GET };
            assert_eq!(route.method, expected, "{}", route.path);
            continue;
        };
        let method = match verb {
            Verb::Get | Verb::List | Verb::Watch => Method::GET,
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete | Verb::DeleteCollection => Method::DELETE,
            // A WebSocket begins with GET; POST is how older clients ask, and are told so.
            Verb::Exec => route.method.clone(),
        };
        assert_eq!(route.method, method, "{}", route.path);
        assert!(route.path.contains(&format!("/{plural}")), "{}", route.path);
        assert!(route.path.ends_with(subresource), "{}", route.path);
    }
}

#[test]
fn every_verb_of_every_kind_has_its_route() {
    let routes = table().0;
    let all = [Verb::Get, Verb::List, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];
    for kind in KINDS {
        for verb in all {
            let wanted = Access::Object { group: kind.group, plural: kind.plural, subresource: "", verb };
            assert!(routes.iter().any(|route| route.access == wanted), "{verb} {}", kind.plural);
        }
    }
}

#[tokio::test]
async fn a_wrong_token_and_other_local_users_are_refused_and_told_apart() {
    let world = World::new();
    let mut request = stranger(&Method::GET, CONFIG_MAPS);
    request.headers_mut().insert("authorization", "Bearer berth_owner_wrong".parse().unwrap());
    let answer = Answer::of(world.send_from(PEER, request).await).await;
    assert_eq!((answer.failed().0, answer.header("www-authenticate")), (401, "Bearer realm=\"berth\""));
    let answer = Answer::of(world.send_from(Peer::Socket { uid: 1000 }, stranger(&Method::GET, "/livez")).await).await;
    assert_eq!(
        answer.failed(),
        (403, "Forbidden", "the socket is for root alone; use sudo, or the HTTPS address with a token")
    );
}

#[tokio::test]
async fn a_request_by_an_unknown_way_is_refused() {
    let world = World::new();
    let response = world.router.clone().oneshot(owned(Method::GET, CONFIG_MAPS, &[], Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_path_that_is_not_served_is_absent_to_the_owner_and_closed_to_strangers() {
    let world = World::new();
    for path in ["/", "/api/v2", "/apis/berth.dev/v1/unicorns", "/api/v1/namespaces/default/endpoints"] {
        assert_eq!(world.get(path).await.failed().1, "NotFound", "{path}");
        let answer = Answer::of(world.send_from(PEER, stranger(&Method::GET, path)).await).await;
        assert_eq!(answer.failed().0, 401, "{path}");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_refused() {
    let world = World::new();
    let answer = world.post(&format!("{CONFIG_MAPS}/web"), json!({})).await;
    assert_eq!((answer.failed().0, answer.failed().1), (405, "MethodNotAllowed"));
    assert!(answer.header("allow").contains("PATCH"), "{}", answer.header("allow"));
}
