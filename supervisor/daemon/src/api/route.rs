//! One row of the routing table, and the only way from a row to a handler.
//!
//! ```text
//! request ─> who asks (auth) ─> may he (policy) ─> handler ─> answer, counted
//! ```
//!
//! A [`Route`] cannot be made without saying what it gives access to, and [`Table::into_router`] is
//! the only thing that calls a handler; so no route is without authorization.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::{Query, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use berth_model::kinds::Registration;
use berth_model::policy::{Decision, FRESH, Resource, Subject, Verb, authorize, is_stale};
use berth_model::status::{About, Reason};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use super::Api;
use super::audit::{Asked, Trail};
use super::limits::{self, OpenStream};
use super::reply::{Error, Reply};
use super::request::{Ask, about, truth, way};
use super::standing::{self, Opened};
use crate::auth::client_certificate::Presented;
use crate::auth::{Peer, bearer, bootstrap};

type Running = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Arc<dyn Fn(Ask) -> Running + Send + Sync>;

/// What a route gives access to, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A path that is no object.
    Path,
    /// Objects; namespace and name are in the path of the request.
    Object {
        group: &'static str,
        plural: &'static str,
        /// Empty for the object itself.
        subresource: &'static str,
        verb: Verb,
    },
}

/// One row of the table.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) access: Access,
    /// The kind whose objects the route is about, if it is in the registry.
    pub(super) kind: Option<&'static Registration>,
    handler: Handler,
}

impl Route {
    pub(super) fn new<F, R>(method: Method, path: impl Into<String>, access: Access, handler: F) -> Self
    where
        F: Fn(Ask) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |ask| Box::pin(handler(ask)));
        Self { method, path: path.into(), access, kind: None, handler }
    }

    /// The same about objects of a kind.
    pub(super) fn of(mut self, kind: &'static Registration) -> Self {
        self.kind = Some(kind);
        self
    }
}

/// All rows.
pub(super) struct Table(pub(super) Vec<Route>);

impl Table {
    /// The router: rows by path and method, and what answers to everything else.
    pub(super) fn into_router(self, api: &Arc<Api>) -> Router {
        let mut router = Router::new();
        for route in self.0 {
            let path = route.path.clone();
            router = router.route(&path, served(api, route));
        }
        let absent = Route::new(Method::GET, "*", Access::Path, absent);
        let wrong = Route::new(Method::GET, "*", Access::Path, wrong_method);
        router.fallback(service(api, absent)).method_not_allowed_fallback(service(api, wrong))
    }
}

async fn absent(_: Ask) -> Reply {
    let message = "nothing is served at this path; GET /api and /apis tell what is";
    Err(Error::new(Reason::NotFound, message))
}

async fn wrong_method(_: Ask) -> Reply {
    Err(Error::new(Reason::MethodNotAllowed, "this path does not take this method; see the Allow header"))
}

fn served(api: &Arc<Api>, route: Route) -> MethodRouter {
    let filter = match route.method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    MethodRouter::new().on(filter, service(api, route))
}

/// What axum calls for a row.
fn service(
    api: &Arc<Api>,
    route: Route,
) -> impl Fn(RawPathParams, Request) -> Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>
+ Clone
+ Send
+ Sync
+ 'static {
    let (api, route) = (api.clone(), Arc::new(route));
    move |params, request| {
        let (api, route) = (api.clone(), route.clone());
        Box::pin(async move { Ok(answer(api, &route, params, request).await) })
    }
}

async fn answer(api: Arc<Api>, route: &Route, params: RawPathParams, request: Request) -> Response {
    let (began, method) = (Instant::now(), request.method().clone());
    let metrics = api.metrics.clone();
    let path: Vec<_> = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let about = About::default;
    let about = route.kind.map_or_else(about, |kind| self::about(kind, find(&path, "name")));
    let trail = Arc::new(Trail::new(api.notary.clone(), address(&request)));
    let reply = match admitted(api.clone(), route, path, request, &trail).await {
        Ok(ask) => {
            let stream = ask.stream.clone();
            let reply = (route.handler)(ask).await;
            match stream {
                Some(stream) => reply.map(|response| limits::held(response, stream)),
                None => reply,
            }
        }
        Err(error) => Err(error),
    };
    let refused = reply.as_ref().err().filter(|error| error.is_refusal()).map(|error| error.message().to_owned());
    let response = careful(reply.unwrap_or_else(|error| error.about(|| about).into_response()));
    let succeeded = response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    trail.answered(&api, refused.as_deref(), succeeded).await;
    metrics.request(method.as_str(), &route.path, response.status().as_u16(), began.elapsed());
    response
}

/// What browsers are told about every answer. They are not told to insist on TLS for good: the authority is Berth's own,
/// and who has not taken it over yet has to be able to look.
const CAREFUL: [(HeaderName, &str); 3] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
];

fn careful(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in CAREFUL {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// From where a request comes, if it comes over the network.
fn address(request: &Request) -> Option<IpAddr> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Network(address)) => Some(address.ip()),
        Some(Peer::Socket { .. }) | None => None,
    }
}

/// Authentication and authorization: the way every request goes.
async fn admitted(
    api: Arc<Api>,
    route: &Route,
    path: Vec<(String, String)>,
    request: Request,
    trail: &Arc<Trail>,
) -> Result<Ask, Error> {
    let (mut head, body) = request.into_parts();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let Query(query) = query.map_err(|_| Error::bad_request("the query of the URL cannot be read"))?;
    let peer = head.extensions.get::<Peer>().copied();
    let peer = peer.ok_or_else(|| Error::new(Reason::InternalError, "a request came by no known way"))?;
    let presented = head.extensions.get::<Presented>().copied();
    trail.asks(&deed(route, &head, &path, &query), way(&head.headers));
    let subject = identified(&api, peer, route, &head, trail).await?;
    trail.by(subject.identity());
    permitted(&subject, route, &head, &path, &query, api.store.steady_now())?;
    let stream = opened(&api, &subject, peer, route, &query).await?;
    if let Some(stream) = &stream {
        guarded(&api, route, &head, &path, &query, stream).await?;
    }
    let (upgrade, trail) = (head.extensions.remove(), trail.clone());
    // HTTP/2 has it in another place.
    if let Some(host) = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        head.headers.entry(HOST).or_insert(host);
    }
    Ok(Ask {
        api,
        stream,
        subject,
        peer,
        presented,
        trail,
        authority: head.uri.authority().cloned(),
        headers: head.headers,
        path,
        query,
        body: Mutex::new(body),
        upgrade,
    })
}

/// Refuses who comes over the network without a client certificate, if the machine is set so: but for the question
/// whether it lives, and for those who come to enrol. It is looked up for each request, so that it holds on connections
/// that are open.
async fn open_without_certificate(api: &Api, head: &Parts) -> Result<(), Error> {
    let enrols = bearer(&head.headers).ok().flatten().and_then(bootstrap).is_some();
    if head.uri.path() == "/livez" || enrols {
        return Ok(());
    }
    match api.settings.get(&api.store).await?.api.require_client_certificate {
        false => Ok(()),
        true => {
            let message = "nobody gets in here without a client certificate; enrol (`berth enrol`), or have one made as \
                           root on the machine itself (`berth ca NAME`)";
            Err(Error::new(Reason::Unauthorized, message))
        }
    }
}

/// Who asks, if he has not asked too much of late.
async fn identified(api: &Api, peer: Peer, route: &Route, head: &Parts, trail: &Trail) -> Result<Subject, Error> {
    let presented = head.extensions.get::<Presented>();
    let identified = api.authenticator.identify(peer, presented, &head.headers).await;
    let who = match &identified {
        Ok(subject) => limits::counted_as(subject, peer),
        Err(_) => limits::stranger(peer),
    };
    if let Some(who) = who.filter(|_| !limits::is_about_health(&route.path)) {
        api.limiter.admit(api.settings.get(&api.store).await?.api.limits, &who)?;
    }
    if presented.is_none() && matches!(peer, Peer::Network(_)) {
        open_without_certificate(api, head).await?;
    }
    if identified.is_err()
        && let Some(who) = api.authenticator.formerly(presented, &head.headers).await.ok().flatten()
    {
        trail.by(&who);
    }
    Ok(identified?)
}

/// A place for what stays open.
async fn opened(
    api: &Api,
    subject: &Subject,
    peer: Peer,
    route: &Route,
    query: &[(String, String)],
) -> Result<Option<Arc<OpenStream>>, Error> {
    let Access::Object { verb, subresource, .. } = route.access else { return Ok(None) };
    let (verb, subresource) = asked(route, verb, subresource, query);
    let stays = limits::is_stream(verb, subresource, truth(find(query, "follow")) == Some(true));
    match limits::counted_as(subject, peer).filter(|_| stays) {
        Some(who) => {
            let limits = api.settings.get(&api.store).await?.api.limits;
            Ok(Some(api.limiter.open(limits, &who, &api.stop)?))
        }
        None => Ok(None),
    }
}

/// Has it end when whoever opens it may not have it any more.
async fn guarded(
    api: &Arc<Api>,
    route: &Route,
    head: &Parts,
    path: &[(String, String)],
    query: &[(String, String)],
    stream: &OpenStream,
) -> Result<(), Error> {
    let Access::Object { group, plural, subresource, verb } = route.access else { return Ok(()) };
    let standing = api.authenticator.standing(head.extensions.get::<Presented>(), &head.headers).await?;
    let Some(standing) = standing else { return Ok(()) };
    let (verb, subresource) = asked(route, verb, subresource, query);
    let (namespace, name) = (find(path, "namespace").to_owned(), find(path, "name").to_owned());
    let opened = Opened { standing, verb, group, plural, subresource, namespace, name };
    standing::guard(api, opened, stream.ending.clone());
    Ok(())
}

/// What is asked for, as it is recorded.
fn deed<'a>(route: &Route, head: &Parts, path: &'a [(String, String)], query: &[(String, String)]) -> Asked<'a> {
    match route.access {
        Access::Path => Asked::path(verb_of(&head.method), head.uri.path()),
        Access::Object { group, plural, subresource, verb } => {
            let place = (find(path, "namespace"), find(path, "name"));
            let (verb, subresource) = asked(route, verb, subresource, query);
            Asked::object(verb, group, plural, subresource, place, !find(query, "dryRun").is_empty())
        }
    }
}

fn permitted(
    subject: &Subject,
    route: &Route,
    head: &Parts,
    path: &[(String, String)],
    query: &[(String, String)],
    now: Timestamp,
) -> Result<(), Error> {
    let decision = match route.access {
        Access::Path => authorize(subject, verb_of(&head.method), &Resource::Path(head.uri.path())),
        Access::Object { group, plural, subresource, verb } => {
            let (namespace, name) = (find(path, "namespace"), find(path, "name"));
            let (verb, subresource) = asked(route, verb, subresource, query);
            let resource = Resource::Object { group, plural, subresource, namespace, name };
            match authorize(subject, verb, &resource) {
                Decision::Allowed if is_stale(subject, verb, &resource, now) => return Err(stale(subject)),
                decision => decision,
            }
        }
    };
    match (decision, subject) {
        (Decision::Allowed, _) => Ok(()),
        (Decision::Denied(why), Subject::Anonymous) => Err(Error::new(Reason::Unauthorized, why)),
        (Decision::Denied(why), _) => Err(Error::new(Reason::Forbidden, why)),
    }
}

fn stale(subject: &Subject) -> Error {
    let message = format!(
        "{} may do this, but logged in {} minutes ago or more: log in again (`berth login`), then ask again",
        subject.identity(),
        FRESH.as_mins()
    );
    Error::new(Reason::Unauthorized, message)
}

/// What is really asked for: a list may be a watch, a read may reveal.
fn asked(route: &Route, verb: Verb, subresource: &'static str, query: &[(String, String)]) -> (Verb, &'static str) {
    // Read as handlers read it: what one takes for yes, the other must.
    let set = |name| truth(find(query, name)) == Some(true);
    let verb = if verb == Verb::List && set("watch") { Verb::Watch } else { verb };
    let sealed = route.kind.is_some_and(|kind| !kind.sealed.is_empty());
    (verb, if sealed && set("reveal") { REVEAL } else { subresource })
}

/// Subresource that stands for values in the clear.
pub(super) const REVEAL: &str = "reveal";

fn verb_of(method: &Method) -> Verb {
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => Verb::Get,
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}
