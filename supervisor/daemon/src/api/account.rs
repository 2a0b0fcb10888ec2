//! Passwords, keys and tokens that are made for others. Whoever makes one can be that other, so that he has to hold all
//! that the other holds.

use berth_model::field::FieldError;
use berth_model::id::{dns_label, dns_subdomain};
use berth_model::login::{NewKey, SetPassword};
use berth_model::policy::Verb;
use berth_model::resource::api_key::ApiKeySpec;
use berth_model::resource::role_binding::SubjectReference;
use berth_model::resource::{ApiKey, GROUP, User};
use berth_model::status::Reason;
use http::{Method, StatusCode};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::guard;
use super::login::{done, owned_by, replace_password, said, unkept};
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::route::{Access, Route};
use super::write::{must_get, transact};
use crate::auth::service_token::{AUDIENCE, Account};
use crate::auth::{password, secret};
use crate::store::{Purpose, ReadTx, Refusal, Tx};

/// The routes.
pub(super) fn rows() -> Vec<Route> {
    let of_user = |subresource| Access::Object { group: GROUP, plural: "users", subresource, verb: Verb::Create };
    let path = |subresource| format!("/apis/berth.dev/v1/users/{{name}}/{subresource}");
    let token = Access::Object { group: "", plural: "serviceaccounts", subresource: "token", verb: Verb::Create };
    vec![
        Route::new(Method::POST, path("password"), of_user("password"), set_password),
        Route::new(Method::POST, path("apikeys"), of_user("apikeys"), new_key),
        Route::new(Method::POST, "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", token, new_token),
    ]
}

pub(super) fn user(tx: &ReadTx<'_>, name: &str) -> Result<User, Error> {
    let absent =
        || Refusal::NotFound { kind: "users.berth.dev".into(), namespace: String::new(), name: name.to_owned() };
    Ok(tx.get::<User>("", name)?.ok_or_else(absent)?)
}

/// `POST .../users/{name}/password`.
async fn set_password(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let wanted: SetPassword = said(&mut ask).await?;
    let (name, subject) = (ask.name(), ask.subject.clone());
    let known = name.clone();
    ask.api.store.read(move |tx| Ok(user(tx, &known).map(drop))).await??;
    let phc = hash_of(&name, wanted).await?;
    let work = move |tx: &mut Tx<'_>| {
        user(tx, &name)?;
        guard::holds_all_of(tx, &subject, &SubjectReference::user(&name))?;
        replace_password(tx, &name, &phc)
    };
    ask.api.store.write(&ask.actor(), work).await?;
    Ok(done())
}

/// What is kept of a password: its hash, which may be all that was said.
async fn hash_of(name: &str, wanted: SetPassword) -> Result<String, Error> {
    let (word, hash) = (wanted.password.map(Zeroizing::new), wanted.password_hash);
    match (word, hash) {
        (Some(word), None) => {
            password::check(name, &word)?;
            Ok(password::hash(word).await?)
        }
        (None, Some(hash)) => {
            password::check_hash(&hash)?;
            Ok(hash)
        }
        _ => Err(FieldError::invalid("password", "say either password or passwordHash").into()),
    }
}

/// `POST .../users/{name}/apikeys`: the key, which is shown this once.
async fn new_key(mut ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let wanted: NewKey = ask.options().await?;
    let problems = problems(&wanted);
    if let Some(first) = problems.into_iter().next() {
        return Err(first.into());
    }
    let (name, subject, made) = (ask.name(), ask.subject.clone(), secret::fresh(Purpose::Key)?);
    let hash = made.hash;
    let work = move |tx: &mut Tx<'_>| -> Result<ApiKey, Error> {
        let user = user(tx, &name)?;
        guard::holds_all_of(tx, &subject, &SubjectReference::user(&name))?;
        keep_key(tx, &user, &name, wanted, &hash)
    };
    let key = transact(&ask, work).await?;
    let object = serde_json::to_value(&key).map_err(|_| unwritable())?;
    let body = json!({ "key": made.secret.as_str(), "apiKey": object });
    Ok(unkept(reply::with_code(StatusCode::CREATED, reply::json(&body))))
}

fn unwritable() -> Error {
    Error::new(Reason::InternalError, "the answer cannot be written")
}

/// Keys are called after their users.
fn keep_key(tx: &mut Tx<'_>, user: &User, name: &str, wanted: NewKey, hash: &[u8; 32]) -> Result<ApiKey, Error> {
    let metadata = ObjectMeta {
        name: wanted.name.as_ref().map(|own| format!("{name}.{own}")),
        generate_name: wanted.name.is_none().then(|| format!("{name}.")),
        owner_references: Some(vec![owned_by(user)]),
        ..ObjectMeta::default()
    };
    let life = wanted.expires_in.map(|seconds| SignedDuration::from_secs(i64::from(seconds)));
    let expires_at = life.map(|life| tx.steady_now() + life);
    let spec = ApiKeySpec { user: name.to_owned(), role: wanted.role, namespace: wanted.namespace, expires_at };
    let key = tx.create(&ApiKey { metadata, spec, status: None })?;
    tx.add_credential(Purpose::Key, hash, key.metadata.uid.as_deref().unwrap_or_default(), expires_at)?;
    Ok(key)
}

fn problems(wanted: &NewKey) -> Vec<FieldError> {
    let told = |field: &str, checked: Result<(), berth_model::id::NameError>| {
        checked.err().map(|error| FieldError::invalid(field, error.to_string()))
    };
    let name = wanted.name.as_deref().and_then(|name| told("name", dns_label(name)));
    let role = wanted.role.as_deref().and_then(|role| told("role", dns_subdomain(role)));
    let namespace = wanted.namespace.as_deref().and_then(|name| told("namespace", dns_label(name)));
    let never = wanted.expires_in == Some(0);
    let never =
        never.then(|| FieldError::invalid("expiresIn", "use 1 second or more, or leave it out for a key without end"));
    [name, role, namespace, never].into_iter().flatten().collect()
}

/// Seconds that a token is good for: at least and at most, as Kubernetes has it, and if nothing is said.
const TOKEN_SECONDS: (i64, i64, i64) = (600, 365 * 24 * 3600, 3600);

/// `POST .../serviceaccounts/{name}/token`: a `TokenRequest`, answered with the token in its status.
async fn new_token(mut ask: Ask) -> Reply {
    let mut request = ask.json().await?.value;
    let (audiences, seconds) = wanted_token(&request)?;
    let (namespace, name, subject) = (ask.namespace(), ask.name(), ask.subject.clone());
    let find = move |tx: &mut Tx<'_>| -> Result<Account, Error> {
        let kind = &berth_model::kinds::SERVICE_ACCOUNT;
        let uid = berth_model::meta::uid(&must_get(tx, kind, &namespace, &name)?).to_owned();
        guard::holds_all_of(tx, &subject, &SubjectReference::service_account(&namespace, &name))?;
        Ok(Account { namespace, name, uid })
    };
    let account = transact(&ask, find).await?;
    let (now, life) = (ask.api.store.steady_now(), SignedDuration::from_secs(seconds));
    let token = ask.api.authenticator.service_tokens.make(account, audiences, now, life)?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["status"] = json!({ "token": token, "expirationTimestamp": (now + life).to_string() });
    Ok(unkept(reply::with_code(StatusCode::CREATED, reply::json(&request))))
}

/// For whom, and for how long.
fn wanted_token(request: &Value) -> Result<(Vec<String>, i64), Error> {
    if !request.is_object() {
        return Err(Error::bad_request("the body must be a JSON object"));
    }
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array);
    let audiences: Vec<String> = audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if audiences.is_empty() { vec![AUDIENCE.to_owned()] } else { audiences };
    let (least, most, usual) = TOKEN_SECONDS;
    let seconds = match request.pointer("/spec/expirationSeconds") {
        None | Some(Value::Null) => usual,
        Some(said) => said.as_i64().unwrap_or(0),
    };
    if !(least..=most).contains(&seconds) {
        let message = format!("a token is good for {least} to {most} seconds");
        return Err(FieldError::invalid("spec.expirationSeconds", message).into());
    }
    Ok((audiences, seconds))
}
