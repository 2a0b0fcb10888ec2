//! What whoever asks may do, who he is, and whose a token is: questions that are answered and kept nowhere.

use std::collections::BTreeMap;

use berth_model::policy::{Decision, Resource, Subject, Verb, authorize};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use crate::auth::Refusal;

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    vec![
        row(AUTHORIZATION, "selfsubjectaccessreviews", may_i),
        row(AUTHORIZATION, "selfsubjectrulesreviews", what_may_i),
        row(AUTHENTICATION, "selfsubjectreviews", who_am_i),
        row(AUTHENTICATION, "tokenreviews", whose),
    ]
}

fn row<R>(group: &'static str, plural: &'static str, handler: fn(Ask) -> R) -> Route
where
    R: Future<Output = Reply> + Send + 'static,
{
    let access = Access::Object { group, plural, subresource: "", verb: Verb::Create };
    Route::new(Method::POST, format!("/apis/{group}/v1/{plural}"), access, handler)
}

/// `SelfSubjectAccessReview`: one question.
async fn may_i(mut ask: Ask) -> Reply {
    let mut review = read(&mut ask, AUTHORIZATION, "SelfSubjectAccessReview").await?;
    let decision = match (review.pointer("/spec/resourceAttributes"), review.pointer("/spec/nonResourceAttributes")) {
        (Some(Value::Object(_)), Some(Value::Object(_))) | (None, None) => {
            let message = "ask about a resource or about a path: give spec.resourceAttributes or \
                           spec.nonResourceAttributes, and not both";
            return Err(Error::bad_request(message));
        }
        (Some(about), _) => about_resource(&ask, about),
        (None, Some(about)) => {
            let path = text(about, "path");
            decide(&ask, &verbs(text(about, "verb")), &Resource::Path(path))
        }
    };
    review["status"] = match decision {
        Decision::Allowed => json!({ "allowed": true }),
        Decision::Denied(why) => json!({ "allowed": false, "reason": why }),
    };
    answer(&review)
}

fn about_resource(ask: &Ask, about: &Value) -> Decision {
    let plain = |name| text(about, name);
    let resource = Resource::Object {
        group: plain("group"),
        plural: plain("resource"),
        subresource: plain("subresource"),
        namespace: plain("namespace"),
        name: plain("name"),
    };
    decide(ask, &verbs(plain("verb")), &resource)
}

/// Whether all of some verbs are allowed; without any the question is about nothing that can be done here.
fn decide(ask: &Ask, verbs: &[Verb], resource: &Resource<'_>) -> Decision {
    let denied = |verb: &Verb| match authorize(&ask.subject, *verb, resource) {
        Decision::Allowed => None,
        denied => Some(denied),
    };
    match verbs {
        [] => Decision::Denied("there is no such verb here".to_owned()),
        some => some.iter().find_map(denied).unwrap_or(Decision::Allowed),
    }
}

/// What a verb stands for: itself, all of them, or what is done with a method of HTTP.
fn verbs(word: &str) -> Vec<Verb> {
    match word {
        "*" => Verb::ALL.to_vec(),
        "post" => vec![Verb::Create],
        "put" => vec![Verb::Update],
        "head" => vec![Verb::Get],
        word => Verb::ALL.into_iter().filter(|verb| verb.name() == word).collect(),
    }
}

/// `SelfSubjectRulesReview`: everything, in one namespace. It is asked of every route there is.
async fn what_may_i(mut ask: Ask) -> Reply {
    let mut review = read(&mut ask, AUTHORIZATION, "SelfSubjectRulesReview").await?;
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or("").to_owned();
    if namespace.is_empty() {
        return Err(Error::bad_request("say in which namespace: give spec.namespace"));
    }
    let (mut resources, mut paths) = (BTreeMap::<_, Vec<&str>>::new(), Vec::new());
    for route in super::table().0 {
        match route.access {
            Access::Path if allowed(&ask, Verb::Get, &Resource::Path(&route.path)) => paths.push(route.path),
            Access::Path => {}
            Access::Object { group, plural, subresource, verb } => {
                let resource = Resource::Object { group, plural, subresource, namespace: &namespace, name: "" };
                let name = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
                let known = resources.entry((group, name)).or_default();
                if allowed(&ask, verb, &resource) && !known.contains(&verb.name()) {
                    known.push(verb.name());
                }
            }
        }
    }
    let rules = resources.into_iter().filter(|(_, verbs)| !verbs.is_empty());
    let rules =
        rules.map(|((group, name), verbs)| json!({ "apiGroups": [group], "resources": [name], "verbs": verbs }));
    review["status"] = json!({
        "resourceRules": rules.collect::<Vec<_>>(),
        "nonResourceRules": [{ "nonResourceURLs": paths, "verbs": [Verb::Get.name()] }],
        "incomplete": false,
    });
    answer(&review)
}

fn allowed(ask: &Ask, verb: Verb, resource: &Resource<'_>) -> bool {
    authorize(&ask.subject, verb, resource) == Decision::Allowed
}

/// `SelfSubjectReview`: who asks.
async fn who_am_i(mut ask: Ask) -> Reply {
    let mut review = read(&mut ask, AUTHENTICATION, "SelfSubjectReview").await?;
    review["status"] = json!({ "userInfo": user(&ask.subject) });
    answer(&review)
}

fn user(subject: &Subject) -> Value {
    let granted = match subject {
        Subject::Known(known) => known.grants.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    json!({ "username": subject.identity(), "groups": ["system:authenticated"], "extra": { "berth.dev/granted": granted } })
}

/// `TokenReview`: whose token it is. The answer does not repeat it.
async fn whose(mut ask: Ask) -> Reply {
    let mut review = read(&mut ask, AUTHENTICATION, "TokenReview").await?;
    let token = match review.pointer_mut("/spec/token").map(Value::take) {
        Some(Value::String(token)) if !token.is_empty() => Zeroizing::new(token),
        _ => return Err(Error::bad_request("say whose: give spec.token")),
    };
    review["spec"] = json!({});
    review["status"] = match ask.api.authenticator.whose(token.as_bytes()).await {
        Ok(subject) => json!({ "authenticated": true, "user": user(&subject) }),
        Err(Refusal::Store(fault)) => return Err(fault.into()),
        Err(refusal) => json!({ "authenticated": false, "error": refusal.to_string() }),
    };
    answer(&review)
}

/// The question, of the kind that the path takes.
async fn read(ask: &mut Ask, group: &str, kind: &str) -> Result<Value, Error> {
    let mut review = ask.json().await?.value;
    let expected = [("apiVersion", format!("{group}/v1")), ("kind", kind.to_owned())];
    if !review.is_object() {
        return Err(Error::bad_request("the body must be a JSON object"));
    }
    for (field, expected) in expected {
        match review.get(field).and_then(Value::as_str).filter(|found| !found.is_empty()) {
            None => review[field] = expected.into(),
            Some(found) if found == expected => {}
            Some(found) => {
                let message = format!("{field} of the body is `{found}`, but this path takes `{expected}`");
                return Err(Error::bad_request(message));
            }
        }
    }
    Ok(review)
}

fn answer(review: &Value) -> Reply {
    Ok(reply::with_code(StatusCode::CREATED, reply::json(review)))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}
