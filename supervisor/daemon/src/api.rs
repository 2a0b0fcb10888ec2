//! The HTTP API: one table of routes, read from top to bottom.
//!
//! ```text
//! listen.rs   TLS and unix socket; who is at the other end
//! route.rs    the way from a row to its handler: authentication, authorization, counting
//! read.rs watch.rs write.rs   the generic verbs, for every kind in the registry
//! apply.rs    configurations that are applied, for the same kinds
//! action.rs   what is more than a write: start, stop, restart, update, uninstall
//! references.rs  where references of bundles lead, and that they do
//! rollback.rs where a rollback leads, and why it does not
//! volume.rs   the same for volumes: grow, lock, unlock, erase
//! changeset.rs  edits that wait to be made together
//! operation.rs  the same for operations: cancel, retry
//! exec.rs     a command in a service, over a WebSocket
//! stream.rs   images in, logs out        health.rs   about the machine itself
//! discovery.rs openapi.rs   what is served here       document.rs  as documents that clients keep
//! cleanup.rs  what nothing needs any more        system.rs  what is used, and how it is found
//! review.rs   what whoever asks may do, and who he is
//! login.rs    from a name and a password to a session, and back
//! second_factor.rs  codes of an authenticator app
//! device_login.rs  from a code that a program shows to a session, by somebody who is logged in
//! invitation.rs  accounts that wait for somebody to set their password
//! passkey.rs        passkeys, which browsers show
//! account.rs  passwords, keys and tokens that are made for others
//! certificate.rs  client certificates: signed, renewed
//! audit.rs    what is recorded of requests
//! limits.rs   how much anybody may ask        current.rs  Settings as they are now
//! guard.rs    nobody gives more than he has, and one owner stays
//! network.rs  who reaches whom, and by which rule
//! reply.rs    objects in the shape asked for; errors as `Status`, nowhere else
//! ```
//!
//! Handlers decode, check and write to the store; they never touch the machine (streams pass through a seam). Kinds are known
//! from `berth_model::kinds` alone: a new one has all its routes by being registered.

mod account;
mod action;
mod apply;
mod attach;
mod audit;
mod certificate;
mod changeset;
mod channels;
mod cleanup;
mod current;
mod device_login;
mod discovery;
mod document;
mod exec;
mod guard;
mod health;
mod invitation;
mod limits;
mod linger;
mod listen;
mod login;
mod network;
mod openapi;
mod operation;
mod passkey;
mod port_forward;
mod read;
mod references;
mod relations;
mod reply;
mod request;
mod review;
mod rollback;
mod route;
mod second_factor;
mod standing;
mod stream;
mod system;
mod volume;
mod watch;
mod websocket;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use berth_model::kinds::{CERTIFICATE, INVITATION, KINDS, Registration};
use berth_model::policy::Verb;
use http::Method;
use tokio_util::sync::CancellationToken;

use crate::audit::Notary;
use crate::auth::Authenticator;
use crate::auth::attempts::Attempts;
use crate::auth::ca::Authority;
use crate::auth::claim::Claim;
use crate::auth::passkey::Challenges;
use crate::metrics::Metrics;
use crate::secret::Sealer;
use crate::store::{Clock, Store};

pub use action::note_wish;
pub use audit::Refusals;
pub use cleanup::CleanupPort;
pub use current::CurrentSettings;
pub use exec::{Begun, CommandRequest, CommandsPort};
pub use health::Readiness;
pub use limits::Limiter;
pub use listen::{bind_socket, serve_socket, serve_tls};
pub use standing::Rights;
pub use stream::{ByteStream, ImagesPort, LogRequest, LogsPort, PortError};
pub use system::{DiagnoseRequest, Power, SystemPort};
pub use watch::WatchPace;

use action::ACTIONS;
use route::{Access, Route, Table};

/// What the network has to say of itself at present.
pub type Overlaps = tokio::sync::watch::Receiver<Vec<String>>;

/// Everything the handlers work with.
pub struct Api {
    /// Where objects are.
    pub store: Store,
    /// Seals and opens the values of secrets.
    pub sealer: Sealer,
    /// Knows who asks.
    pub authenticator: Authenticator,
    /// Signs client certificates.
    pub authority: Arc<Authority>,
    /// Who was wrong about who he is.
    pub attempts: Attempts,
    /// When accounts and rights were changed.
    pub rights: Rights,
    /// Challenges for passkeys that wait for an answer.
    pub challenges: Challenges,
    /// Settings as they are now.
    pub settings: CurrentSettings,
    /// Who asks how much.
    pub limiter: Limiter,
    /// By what a machine that nobody owns is claimed.
    pub claim: Arc<Claim>,
    /// Signs and examines the audit records.
    pub notary: Arc<Notary>,
    /// What was refused of late.
    pub refusals: Refusals,
    /// Counts.
    pub metrics: Metrics,
    /// Which parts are ready.
    pub readiness: Readiness,
    /// Images on the machine.
    pub images: Arc<dyn ImagesPort>,
    /// Removes what nothing needs.
    pub cleanup: Arc<dyn CleanupPort>,
    /// Looks after the machine.
    pub system: Arc<dyn SystemPort>,
    /// Output of bundles.
    pub logs: Arc<dyn LogsPort>,
    /// Commands in bundles.
    pub commands: Arc<dyn CommandsPort>,
    /// Where addresses of bundles overlap networks of the machine's other links, a sentence each.
    pub overlaps: Overlaps,
    /// The time.
    pub clock: Clock,
    /// Ends watches and followed logs.
    pub stop: CancellationToken,
    /// How patient watches are.
    pub pace: WatchPace,
}

/// The router with every route. Requests must carry their [`crate::auth::Peer`], as the listeners
/// here see to.
pub fn router(api: Api) -> Router {
    table().into_router(&Arc::new(api))
}

/// Commands in a bundle's container.
const EXEC: &str = "namespaces/{namespace}/bundles/{name}/exec";

/// Every route.
fn table() -> Table {
    let mut rows = vec![
        path("/livez", health::livez),
        path("/readyz", health::readyz),
        path("/metrics", health::metrics),
        path("/openapi/v3", openapi::index),
        path(&openapi::address("", "v1"), |ask| openapi::of_group(ask, "", "v1")),
        berth(Method::GET, "images", "images", "", Verb::List, stream::images),
        berth(Method::DELETE, "images", "images", "", Verb::Delete, stream::remove),
        berth(Method::POST, "images/import", "images", "import", Verb::Create, stream::import),
        berth(Method::POST, "images/prune", "images", "prune", Verb::Create, stream::prune),
        berth(Method::GET, "namespaces/{namespace}/bundles/{name}/log", "bundles", "log", Verb::Get, stream::log),
        berth(Method::GET, EXEC, "bundles", "exec", Verb::Exec, exec::exec),
        // How clients ask that speak SPDY: they are told what is spoken here.
        berth(Method::POST, EXEC, "bundles", "exec", Verb::Exec, exec::exec),
    ];
    rows.extend([
        berth(Method::POST, "system/cleanup", "system", "cleanup", Verb::Create, cleanup::cleanup),
        berth(Method::GET, "system/usage", "system", "usage", Verb::Get, system::usage),
        berth(Method::GET, "system/status", "system", "status", Verb::Get, system::status),
        berth(Method::POST, "system/update", "system", "update", Verb::Create, system::update),
        berth(Method::POST, "system/rollback", "system", "rollback", Verb::Create, system::rollback),
        berth(Method::POST, "system/reboot", "system", "reboot", Verb::Create, system::reboot),
        berth(Method::POST, "system/poweroff", "system", "poweroff", Verb::Create, system::poweroff),
        berth(Method::GET, "system/health", "system", "health", Verb::Get, health::machine),
        berth(Method::POST, "system/diagnostics", "system", "diagnostics", Verb::Create, system::diagnose),
        berth(Method::GET, "system/support-bundle", "system", "support-bundle", Verb::Get, system::support_bundle),
        berth(Method::GET, "network", "network", "", Verb::Get, network::status),
        berth(Method::GET, "network/verdicts", "network", "verdicts", Verb::Get, network::verdicts),
        berth(Method::GET, "network/lookup", "network", "lookup", Verb::Get, network::lookup),
    ]);
    rows.extend(described("/version", health::version));
    rows.extend(described("/api", discovery::core));
    rows.extend(described("/api/v1", discovery::core_resources));
    rows.extend(described("/apis", discovery::groups));
    for (group, version) in discovery::group_versions() {
        rows.extend(described(&format!("/apis/{group}"), move |_| discovery::group(group)));
        rows.extend(described(&format!("/apis/{group}/{version}"), move |_| {
            discovery::group_resources(group, version)
        }));
        rows.push(path(&openapi::address(group, version), move |ask| openapi::of_group(ask, group, version)));
    }
    rows.extend(ACTIONS.iter().map(|action| {
        let path = format!("namespaces/{{namespace}}/bundles/{{name}}/{}", action.subresource);
        let handler = move |ask| action::ask_for(ask, action);
        berth(Method::POST, &path, "bundles", action.subresource, Verb::Create, handler)
    }));
    rows.extend(volume::ACTIONS.iter().map(|action| {
        let path = format!("namespaces/{{namespace}}/volumes/{{name}}/{}", action.subresource);
        let handler = move |ask| volume::ask_for(ask, action);
        berth(Method::POST, &path, "volumes", action.subresource, Verb::Create, handler)
    }));
    rows.extend(operation::ACTIONS.iter().map(|action| {
        let path = format!("namespaces/{{namespace}}/operations/{{name}}/{}", action.subresource);
        let handler = move |ask| operation::ask_for(ask, action);
        berth(Method::POST, &path, "operations", action.subresource, Verb::Create, handler)
    }));
    rows.extend(changeset::ACTIONS.iter().map(|action| {
        let path = format!("namespaces/{{namespace}}/changesets/{{name}}/{action}");
        berth(Method::POST, &path, "changesets", action, Verb::Create, move |ask| changeset::ask_for(ask, action))
    }));
    rows.extend(KINDS.iter().flat_map(|kind| generic(kind)));
    rows.extend(pod_rows());
    rows.extend(login::rows());
    rows.extend(account::rows());
    rows.extend(certificate::rows());
    rows.extend(second_factor::rows());
    rows.extend(device_login::rows());
    rows.extend(invitation::rows());
    rows.extend(passkey::rows());
    rows.extend(audit::rows());
    Table(rows)
}

/// What can be asked of a Pod beside reading it is what can be asked of the bundle that it shows.
fn pod_rows() -> [Route; 7] {
    let access = |subresource, verb| Access::Object { group: "", plural: "pods", subresource, verb };
    let path = |subresource| format!("/api/v1/namespaces/{{namespace}}/pods/{{name}}/{subresource}");
    let run = |method| Route::new(method, path("exec"), access("exec", Verb::Exec), exec::exec);
    let forward =
        |method| Route::new(method, path("portforward"), access("portforward", Verb::Exec), port_forward::port_forward);
    let attach = |method| Route::new(method, path("attach"), access("attach", Verb::Exec), attach::attach);
    [
        Route::new(Method::GET, path("log"), access("log", Verb::Get), stream::log),
        run(Method::GET),
        run(Method::POST),
        attach(Method::GET),
        attach(Method::POST),
        forward(Method::GET),
        forward(Method::POST),
    ]
}

/// The routes every kind has.
fn generic(kind: &'static Registration) -> Vec<Route> {
    let root = match kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    let all = format!("{root}/{}", kind.plural);
    let collection = match kind.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
        false => all.clone(),
    };
    let object = format!("{collection}/{{name}}");
    let status = format!("{object}/status");
    let mut rows = vec![
        verb(kind, Method::GET, &collection, Verb::List, read::list),
        verb(kind, Method::DELETE, &collection, Verb::DeleteCollection, write::delete_collection),
        verb(kind, Method::GET, &object, Verb::Get, read::get),
        verb(kind, Method::PUT, &object, Verb::Update, write::update),
        verb(kind, Method::PATCH, &object, Verb::Patch, write::patch),
        verb(kind, Method::DELETE, &object, Verb::Delete, write::delete),
    ];
    // What is sent there is no such object, but a request to have one made.
    if ![&CERTIFICATE, &INVITATION].contains(&kind) {
        rows.insert(1, creation(kind, &collection));
    }
    if kind.namespaced {
        rows.push(verb(kind, Method::GET, &all, Verb::List, read::list));
    }
    if kind.status {
        rows.push(status_row(kind, Method::GET, &status, Verb::Get));
        rows.push(status_row(kind, Method::PUT, &status, Verb::Update));
        rows.push(status_row(kind, Method::PATCH, &status, Verb::Patch));
    }
    rows
}

/// A new object, or a question that is answered.
fn creation(kind: &'static Registration, path: &str) -> Route {
    match kind.review {
        true => verb(kind, Method::POST, path, Verb::Create, review::review),
        false => verb(kind, Method::POST, path, Verb::Create, write::create),
    }
}

/// A verb of a kind, or the advice what to do instead of it.
fn verb<R>(
    kind: &'static Registration,
    method: Method,
    path: &str,
    verb: Verb,
    handler: fn(request::Ask, &'static Registration) -> R,
) -> Route
where
    R: Future<Output = reply::Reply> + Send + 'static,
{
    let access = Access::Object { group: kind.group, plural: kind.plural, subresource: "", verb };
    let route = match kind.serves(verb) {
        true => Route::new(method, path, access, move |ask| handler(ask, kind)),
        false => Route::new(method, path, access, move |ask| write::instead(ask, kind)),
    };
    route.of(kind)
}

/// Status is read like the object, and written by Berth alone.
fn status_row(kind: &'static Registration, method: Method, path: &str, verb: Verb) -> Route {
    let access = Access::Object { group: kind.group, plural: kind.plural, subresource: "status", verb };
    let route = match verb {
        Verb::Get => Route::new(method, path, access, move |ask| read::get(ask, kind)),
        _ => Route::new(method, path, access, move |ask| write::status_is_ours(ask, kind)),
    };
    route.of(kind)
}

/// A document by which clients find their way: some of them end its path with a slash.
fn described<F, R>(at: &str, handler: F) -> [Route; 2]
where
    F: Fn(request::Ask) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = reply::Reply> + Send + 'static,
{
    [path(at, handler.clone()), path(&format!("{at}/"), handler)]
}

/// A path that is no object.
fn path<F, R>(path: &str, handler: F) -> Route
where
    F: Fn(request::Ask) -> R + Send + Sync + 'static,
    R: Future<Output = reply::Reply> + Send + 'static,
{
    Route::new(Method::GET, path, Access::Path, handler)
}

/// A path of Berth's own group beside the generic ones.
fn berth<F, R>(
    method: Method,
    path: &str,
    plural: &'static str,
    subresource: &'static str,
    verb: Verb,
    handler: F,
) -> Route
where
    F: Fn(request::Ask) -> R + Send + Sync + 'static,
    R: Future<Output = reply::Reply> + Send + 'static,
{
    let access = Access::Object { group: berth_model::resource::GROUP, plural, subresource, verb };
    Route::new(method, format!("/apis/berth.dev/v1/{path}"), access, handler)
}
