//! `/openapi/v3`: an index, and a document for each group and version, from the routing table and the types.
//!
//! ```text
//! Table (paths, verbs) ─┐
//!                       ├─> a document per group and version ─> index: their addresses, each with its hash
//! types (schemas) ──────┘
//! ```
//!
//! A client that follows the index comes with the hash of what it wants and may keep the answer for good; one that
//! comes with another hash is sent to the present one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::response::Response;
use berth_model::kinds::{KINDS, Registration};
use berth_model::policy::Verb;
use berth_model::schema;
use berth_model::status::Reason;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::discovery::group_versions;
use super::document::Document;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};

const JSON: &str = "application/json";

/// Where a group and version is served, without the slash at the beginning: `apis/berth.dev/v1`.
type Place = String;

/// The documents by place.
static DOCUMENTS: LazyLock<BTreeMap<Place, Document>> = LazyLock::new(|| {
    let all = group_versions().into_iter().chain([("", "v1")]);
    all.map(|(group, version)| (place(group, version), Document::new(JSON, &document(group, version)))).collect()
});

/// The index of them.
static INDEX: LazyLock<Document> = LazyLock::new(|| {
    let address = |(place, document): (&Place, &Document)| {
        (place.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{place}?hash={}", document.hash) }))
    };
    Document::new(JSON, &json!({ "paths": DOCUMENTS.iter().map(address).collect::<Map<_, _>>() }))
});

/// `GET /openapi/v3`.
pub(super) async fn index(ask: Ask) -> Reply {
    Ok(INDEX.answer(&ask.headers))
}

/// `GET /openapi/v3/apis/berth.dev/v1` and its like.
pub(super) async fn of_group(ask: Ask, group: &'static str, version: &'static str) -> Reply {
    let place = place(group, version);
    let absent = || Error::new(Reason::NotFound, "no kind is of this group and version");
    let document = DOCUMENTS.get(&place).ok_or_else(absent)?;
    match ask.query("hash") {
        None => Ok(document.answer(&ask.headers)),
        Some(hash) if hash == document.hash => Ok(document.answer_for_good(&ask.headers)),
        Some(_) => Ok(moved(&format!("/openapi/v3/{place}?hash={}", document.hash))),
    }
}

/// Where documents are: the index's address followed by their place.
pub(super) fn address(group: &str, version: &str) -> String {
    format!("/openapi/v3/{}", place(group, version))
}

fn place(group: &str, version: &str) -> Place {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn moved(address: &str) -> Response {
    let mut response = reply::with_code(StatusCode::MOVED_PERMANENTLY, Response::default());
    response.headers_mut().extend(HeaderValue::from_str(address).ok().map(|address| (LOCATION, address)));
    response
}

fn document(group: &str, version: &str) -> Value {
    let kinds: Vec<&'static Registration> =
        KINDS.iter().copied().filter(|kind| (kind.group, kind.version) == (group, version)).collect();
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for route in super::table().0 {
        if let Some((method, operation)) = described(&route, group, &kinds) {
            let path = paths.entry(route.path.clone()).or_insert_with(|| json!({ "parameters": places(&route.path) }));
            path[method] = operation;
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Berth", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": schema::schemas(&kinds),
            "responses": failures(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

/// The parameters of a path.
fn places(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let place = |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    names.map(place).collect()
}

/// What a route does, if it belongs to the group: a verb that a kind serves, or something beside these.
fn described(route: &Route, group: &str, kinds: &[&'static Registration]) -> Option<(String, Value)> {
    let Access::Object { group: of, subresource, verb, .. } = route.access else { return None };
    let Some(kind) = route.kind else {
        let (path, method) = (&route.path, route.method.as_str().to_ascii_lowercase());
        return (of == group).then(|| (method.clone(), beside(&method, path, verb, subresource)));
    };
    let served = if subresource.is_empty() { kind.serves(verb) } else { verb == Verb::Get };
    let (method, action) = words(verb).filter(|_| served && kinds.contains(&kind))?;
    Some((method.to_owned(), generic(kind, &route.path, subresource, verb, action)))
}

/// A verb of a kind.
fn generic(kind: &'static Registration, path: &str, subresource: &str, verb: Verb, action: &str) -> Value {
    let whole = reference(&kind.schema_name());
    let mut operation = json!({
        "operationId": operation_id(kind, path, subresource, action),
        "tags": [kind.api_version()],
        "parameters": parameters(verb),
        "responses": responses(verb, &done(kind, verb, &whole)),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": schema::group_version_kind(kind, kind.kind),
    });
    if let Some(body) = body(kind, verb, &whole) {
        operation["requestBody"] = body;
    }
    operation
}

/// The codes of what went well, with what is answered then.
fn done(kind: &Registration, verb: Verb, whole: &Value) -> Vec<(u16, Value)> {
    match verb {
        Verb::Create => vec![(201, whole.clone())],
        // A configuration that is applied makes what is not there.
        Verb::Patch if kind.serves(Verb::Create) => vec![(200, whole.clone()), (201, whole.clone())],
        Verb::List | Verb::DeleteCollection => vec![(200, reference(&format!("{}List", kind.schema_name())))],
        // What something holds is answered as it is then.
        Verb::Delete => vec![(200, json!({ "anyOf": [reference(&schema::status_name()), whole] }))],
        _ => vec![(200, whole.clone())],
    }
}

/// What is no verb of a kind: an action, output, a stream.
fn beside(method: &str, path: &str, verb: Verb, subresource: &str) -> Value {
    let code = match (verb, subresource) {
        (Verb::Exec, _) => 101,
        (_, "import" | "apikeys" | "bootstraptokens" | "certificates" | "token") | (Verb::Create, "") => 201,
        (Verb::Create, action) if action.starts_with("actions/") && !path.contains("/changesets/") => 202,
        (Verb::Create, "update" | "rollback" | "reboot" | "poweroff") if path.contains("/system/") => 202,
        _ => 200,
    };
    let mut operation = json!({
        "operationId": words_of(method, path),
        "responses": responses(verb, &[(code, json!({}))]),
    });
    if verb == Verb::Create {
        operation["requestBody"] = json!({ "content": content(&[JSON], &json!({})) });
    }
    operation
}

/// One word for a method and a path: `postApisBerthDevV1NamespacesNamespaceBundlesNameActionsStart`.
fn words_of(method: &str, path: &str) -> String {
    let words = path.split(|sign: char| !sign.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    words.fold(method.to_owned(), |all, word| all + &capital(word))
}

/// All codes that a verb answers with.
fn responses(verb: Verb, done: &[(u16, Value)]) -> Value {
    let mut all = Map::new();
    for (code, schema) in done {
        let mut told = json!({ "description": "As asked." });
        if *schema != json!({}) {
            told["content"] = content(&[JSON], schema);
        }
        all.insert(code.to_string(), told);
    }
    for reason in Reason::ALL.into_iter().filter(|reason| may_fail(verb, *reason)) {
        let name = failure_name(reason.code());
        all.insert(reason.code().to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    all.into()
}

/// Whether a verb can fail so: what everybody can be told, and what comes of what the verb does.
fn may_fail(verb: Verb, reason: Reason) -> bool {
    let writes = !matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    match reason {
        Reason::AlreadyExists
        | Reason::Conflict
        | Reason::RequestEntityTooLarge
        | Reason::UnsupportedMediaType
        | Reason::Invalid
        | Reason::Timeout => writes,
        Reason::Expired | Reason::MethodNotAllowed => verb == Verb::List,
        Reason::NotAcceptable => false,
        _ => true,
    }
}

/// What failures of a code are called: the names of their reasons.
fn failure_name(code: u16) -> String {
    let of_code = Reason::ALL.into_iter().filter(|reason| reason.code() == code);
    of_code.map(Reason::name).collect::<Vec<_>>().join("Or")
}

/// How each code that tells of a failure is answered, by the names of its reasons.
fn failures() -> Value {
    let codes: BTreeSet<u16> = Reason::ALL.into_iter().map(Reason::code).collect();
    let told = |code| {
        let name = failure_name(code);
        let content = content(&[JSON], &reference(&schema::status_name()));
        (name.clone(), json!({ "description": format!("{name}: the message says why."), "content": content }))
    };
    codes.into_iter().map(told).collect::<Map<_, _>>().into()
}

/// The method of a verb, and its name in `x-kubernetes-action`.
fn words(verb: Verb) -> Option<(&'static str, &'static str)> {
    match verb {
        Verb::Get => Some(("get", "get")),
        Verb::List => Some(("get", "list")),
        Verb::Create => Some(("post", "post")),
        Verb::Update => Some(("put", "put")),
        Verb::Patch => Some(("patch", "patch")),
        Verb::Delete => Some(("delete", "delete")),
        Verb::DeleteCollection => Some(("delete", "deletecollection")),
        // A watch is a list with `watch=true`.
        Verb::Watch | Verb::Exec => None,
    }
}

/// One word that no other operation of the document has: `listNamespacedBundle`.
fn operation_id(kind: &Registration, path: &str, subresource: &str, action: &str) -> String {
    let scope = match (path.contains("{namespace}"), kind.namespaced) {
        (true, _) => "Namespaced",
        (false, true) => "AllNamespaces",
        (false, false) => "",
    };
    let part = if subresource.is_empty() { "" } else { "Status" };
    format!("{action}{scope}{}{part}", kind.kind)
}

/// The body that a verb takes.
fn body(kind: &Registration, verb: Verb, whole: &Value) -> Option<Value> {
    let content = match verb {
        Verb::Create | Verb::Update => content(&[JSON], whole),
        Verb::Patch => content(kind.patches(), &json!({})),
        Verb::Delete | Verb::DeleteCollection => content(&[JSON], &reference(&schema::delete_options_name())),
        _ => return None,
    };
    let required = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
    Some(json!({ "content": content, "required": required }))
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect::<Map<_, _>>().into()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A parameter of a query: name, type, and what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const LISTS: &[Parameter] = &[
    ("labelSelector", "string", "Only objects with such labels."),
    ("fieldSelector", "string", "Only objects with such fields."),
    ("limit", "integer", "At most so many; `continue` of the answer leads to the rest."),
    ("continue", "string", "The rest of a list, at the version of its beginning."),
    ("resourceVersion", "string", "The version to list or watch from."),
    ("resourceVersionMatch", "string", "`Exact` or `NotOlderThan`: how `resourceVersion` is meant."),
    ("watch", "boolean", "Changes as they happen, one JSON object a line."),
    ("allowWatchBookmarks", "boolean", "Versions are told also when nothing has changed."),
    ("sendInitialEvents", "boolean", "A watch begins with what there is."),
    ("timeoutSeconds", "integer", "How long a watch lasts, at most."),
];

const WRITES: &[Parameter] = &[
    ("dryRun", "string", "`All`: nothing is changed, and the answer is what would be."),
    ("fieldManager", "string", "Who owns the fields that are written."),
    ("fieldValidation", "string", "`Strict`, `Warn` or `Ignore`: what becomes of unknown and repeated fields."),
];

const PATCHES: &[Parameter] =
    &[("force", "boolean", "Takes over what others own; for configurations that are applied, and no other patches.")];

const DELETIONS: &[Parameter] = &[
    ("dryRun", "string", "`All`: nothing is changed, and the answer is what would be."),
    ("propagationPolicy", "string", "`Background`, `Foreground` or `Orphan`: what becomes of what it owns."),
];

const SELECTION: &[Parameter] = &[LISTS[0], LISTS[1]];

fn parameters(verb: Verb) -> Vec<Value> {
    let groups: &[&[Parameter]] = match verb {
        Verb::List => &[LISTS],
        Verb::Create | Verb::Update => &[WRITES],
        Verb::Patch => &[WRITES, PATCHES],
        Verb::Delete => &[DELETIONS],
        Verb::DeleteCollection => &[SELECTION, DELETIONS],
        _ => &[],
    };
    let parameter = |(name, kind, says): &Parameter| json!({ "name": name, "in": "query", "description": says, "schema": { "type": kind } });
    groups.iter().copied().flatten().map(parameter).collect()
}
