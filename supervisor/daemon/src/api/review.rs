//! What whoever asks may do, who he is, and whose a token is: questions that are answered and kept nowhere.

use std::collections::BTreeMap;

use berth_model::kinds::{
    Registration, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_REVIEW, SELF_SUBJECT_RULES_REVIEW, TOKEN_REVIEW,
};
use berth_model::policy::{Decision, Resource, Subject, Verb, authorize};
use berth_model::repeated::Read;
use berth_model::resource::User;
use http::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::Access;
use super::write::{FieldValidation, frame};
use crate::auth::Refusal;

/// `POST` of a review: it comes back with its answer.
pub(super) async fn review(mut ask: Ask, kind: &'static Registration) -> Reply {
    let (mut review, warnings) = read(&mut ask, kind).await?;
    review["status"] = match kind {
        _ if *kind == SELF_SUBJECT_ACCESS_REVIEW => may_i(&ask, &review)?,
        _ if *kind == SELF_SUBJECT_RULES_REVIEW => what_may_i(&ask, &review)?,
        _ if *kind == SELF_SUBJECT_REVIEW => json!({ "userInfo": me(&ask).await? }),
        _ if *kind == TOKEN_REVIEW => whose(&ask, &mut review).await?,
        _ => return super::write::instead(ask, kind).await,
    };
    Ok(reply::warn(reply::with_code(StatusCode::CREATED, reply::json(&review)), &warnings))
}

/// `SelfSubjectAccessReview`: one question.
fn may_i(ask: &Ask, review: &Value) -> Result<Value, Error> {
    let decision = match (review.pointer("/spec/resourceAttributes"), review.pointer("/spec/nonResourceAttributes")) {
        (Some(Value::Object(_)), Some(Value::Object(_))) | (None, None) => {
            let message = "ask about a resource or about a path: give spec.resourceAttributes or \
                           spec.nonResourceAttributes, and not both";
            return Err(Error::bad_request(message));
        }
        (Some(about), _) => about_resource(ask, about),
        (None, Some(about)) => {
            let path = text(about, "path");
            decide(ask, &verbs(text(about, "verb")), &Resource::Path(path))
        }
    };
    Ok(match decision {
        Decision::Allowed => json!({ "allowed": true }),
        Decision::Denied(why) => json!({ "allowed": false, "reason": why }),
    })
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
fn what_may_i(ask: &Ask, review: &Value) -> Result<Value, Error> {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or("").to_owned();
    if namespace.is_empty() {
        return Err(Error::bad_request("say in which namespace: give spec.namespace"));
    }
    let (mut resources, mut paths) = (BTreeMap::<_, Vec<&str>>::new(), Vec::new());
    for route in super::table().0 {
        match route.access {
            Access::Path if allowed(ask, Verb::Get, &Resource::Path(&route.path)) => paths.push(route.path),
            Access::Path => {}
            Access::Object { group, plural, subresource, verb } => {
                let resource = Resource::Object { group, plural, subresource, namespace: &namespace, name: "" };
                let name = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
                let known = resources.entry((group, name)).or_default();
                if allowed(ask, verb, &resource) && !known.contains(&verb.name()) {
                    known.push(verb.name());
                }
            }
        }
    }
    let rules = resources.into_iter().filter(|(_, verbs)| !verbs.is_empty());
    let rules =
        rules.map(|((group, name), verbs)| json!({ "apiGroups": [group], "resources": [name], "verbs": verbs }));
    Ok(json!({
        "resourceRules": rules.collect::<Vec<_>>(),
        "nonResourceRules": [{ "nonResourceURLs": paths, "verbs": [Verb::Get.name()] }],
        "incomplete": false,
    }))
}

fn allowed(ask: &Ask, verb: Verb, resource: &Resource<'_>) -> bool {
    authorize(&ask.subject, verb, resource) == Decision::Allowed
}

/// `SelfSubjectReview`: who asks.
fn user(subject: &Subject) -> Value {
    let granted = match subject {
        Subject::Known(known) => known.grants.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    json!({ "username": subject.identity(), "groups": ["system:authenticated"], "extra": { "berth.dev/granted": granted } })
}

/// The same, with what he needs to log in.
async fn me(ask: &Ask) -> Result<Value, Error> {
    let mut me = user(&ask.subject);
    let Some(name) = ask.subject.identity().strip_prefix("user:").map(str::to_owned) else { return Ok(me) };
    let status = ask.api.store.read(move |tx| Ok(tx.get::<User>("", &name)?.and_then(|user| user.status))).await?;
    let status = status.unwrap_or_default();
    let factors = [("totp", status.totp_set.is_some()), ("passkey", !status.passkeys.is_empty())];
    let factors: Vec<&str> = factors.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
    if !factors.is_empty() {
        me["extra"]["berth.dev/second-factor"] = json!(factors);
    }
    Ok(me)
}

/// `TokenReview`: whose token it is. The answer does not repeat it.
async fn whose(ask: &Ask, review: &mut Value) -> Result<Value, Error> {
    let token = match review.pointer_mut("/spec/token").map(Value::take) {
        Some(Value::String(token)) if !token.is_empty() => Zeroizing::new(token),
        _ => return Err(Error::bad_request("say whose: give spec.token")),
    };
    review["spec"] = json!({});
    Ok(match ask.api.authenticator.whose(token.as_bytes()).await {
        Ok(subject) => json!({ "authenticated": true, "user": user(&subject) }),
        Err(Refusal::Store(fault)) => return Err(fault.into()),
        Err(refusal) => json!({ "authenticated": false, "error": refusal.to_string() }),
    })
}

/// The question, of the kind that the path takes, and what to warn of.
async fn read(ask: &mut Ask, kind: &'static Registration) -> Result<(Value, Vec<String>), Error> {
    let validation = FieldValidation::of(ask, kind)?;
    let Read { value: mut body, repeated } = ask.json().await?;
    frame(kind, &mut body, "", "")?;
    let mut decoded = kind.read(&body)?;
    // Nobody keeps a review, so nobody has fields of it; and what somebody sends as such may be anything.
    if let Some(metadata) = decoded.object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok((decoded.object, validation.judge(kind, &decoded.unknown, &repeated)?))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}
