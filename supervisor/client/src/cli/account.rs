//! `berth user`, `role`, `apikey`, `session`, `token`, `whoami` and `can-i`.

use std::time::Duration;

use berth_model::kinds::{self, Kind};
use berth_model::login::{NewKey, SetPassword};
use berth_model::resource::role_binding::{RoleBindingSpec, SubjectReference};
use berth_model::resource::{ApiKey, Role, RoleBinding, Session, User};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reqwest::Method;
use serde_json::{Value, json};

use super::args::{ApiKeyCommand, CanArgs, GrantArgs, RoleCommand, SessionCommand, TokenArgs, UserCommand};
use super::failure::Failure;
use super::{Context, enrolment, get, login, second_factor};
use crate::request::{Body, Request};
use crate::resource::{ResourceType, Scope};

pub(super) async fn list<K: Kind>(context: &Context) -> Result<(), Failure> {
    get::list(context, &ResourceType::of::<K>(), &Scope::default()).await
}

pub(super) async fn delete<K: Kind>(context: &Context, names: &[String], done: &str) -> Result<(), Failure> {
    let kind = ResourceType::of::<K>();
    for name in names {
        context.client.delete_dynamic(&kind, &context.namespace, name).await?;
        context.say(&format!("{} {done}", kind.shown(name)))?;
    }
    Ok(())
}

pub(super) async fn user(context: &Context, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::List => list::<User>(context).await,
        UserCommand::Create { name, display_name, role, inside, password_file } => {
            let password = password_file.as_deref().map(|file| login::password_of(context, file)).transpose()?;
            create_user(context, &name, display_name).await?;
            if let Some(role) = role {
                let subject = SubjectReference::user(&name);
                grant(context, &Granted { role, namespace: inside, subject }).await?;
            }
            match password {
                Some(password) => {
                    set_password(context, &name, SetPassword { password: Some(password), password_hash: None }).await
                }
                None => context.note(&format!("he has no password yet: berth user password {name}")),
            }
        }
        UserCommand::Password { name, password_hash_file: Some(file), .. } => {
            let hash = login::password_of(context, &file)?;
            set_password(context, &name, SetPassword { password_hash: Some(hash), password: None }).await
        }
        UserCommand::Password { name, password_file, .. } => {
            let password = login::new_password(context, password_file.as_deref())?;
            set_password(context, &name, SetPassword { password: Some(password), password_hash: None }).await
        }
        UserCommand::Disable { name } => disable(context, &name, true).await,
        UserCommand::Enable { name } => disable(context, &name, false).await,
        UserCommand::Totp(args) => second_factor::totp(context, args.command).await,
        UserCommand::Passkey(args) => second_factor::passkey(context, args.command).await,
        UserCommand::Delete { name } => delete::<User>(context, &[name], "deleted").await,
    }
}

async fn create_user(context: &Context, name: &str, display_name: Option<String>) -> Result<(), Failure> {
    let kind = ResourceType::of::<User>();
    let user = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": { "name": name },
        "spec": { "displayName": display_name },
    });
    let made = context.client.create_dynamic(&kind, "", user, context.new_key()).await?;
    context.outcome(&kind, &made, &format!("{} created", kind.shown(name)))
}

async fn set_password(context: &Context, name: &str, wanted: SetPassword) -> Result<(), Failure> {
    login::nothing_is_printed(context)?;
    let kind = ResourceType::of::<User>();
    let body = serde_json::to_value(wanted).unwrap_or_default();
    let request = kind.object(Method::POST, "", name).below("password").body(Body::Json(body));
    context.client.transport().json::<Value>(&request).await?;
    context.say(&format!("{} has a new password", kind.shown(name)))
}

async fn disable(context: &Context, name: &str, disabled: bool) -> Result<(), Failure> {
    let kind = ResourceType::of::<User>();
    let patch = json!({ "spec": { "disabled": disabled } });
    let after = context.client.merge_patch_dynamic(&kind, "", name, patch).await?;
    let word = if disabled { "disabled" } else { "enabled" };
    context.outcome(&kind, &after, &format!("{} {word}", kind.shown(name)))
}

pub(super) async fn role(context: &Context, command: RoleCommand) -> Result<(), Failure> {
    match command {
        RoleCommand::List => list::<Role>(context).await,
        RoleCommand::Bindings => list::<RoleBinding>(context).await,
        RoleCommand::Grant(args) => grant(context, &Granted::of(args)?).await,
        RoleCommand::Revoke(args) => {
            let granted = Granted::of(args)?;
            delete::<RoleBinding>(context, &[granted.binding()], "deleted").await
        }
    }
}

/// A role that somebody is granted.
struct Granted {
    role: String,
    namespace: Option<String>,
    subject: SubjectReference,
}

impl Granted {
    fn of(args: GrantArgs) -> Result<Self, Failure> {
        let GrantArgs { role, subject, inside } = args;
        let subject = match subject.split_once('/') {
            None => SubjectReference::user(&subject),
            Some((place, name)) if !place.is_empty() && !name.is_empty() => {
                SubjectReference::service_account(place, name)
            }
            Some(_) => {
                let message =
                    format!("{subject:?} is neither a user nor a service account; write NAME or NAMESPACE/NAME");
                return Err(Failure::Usage(message));
            }
        };
        Ok(Self { role, namespace: inside, subject })
    }

    /// What the binding is called, so that granting it twice makes one, and it is found to be taken back.
    fn binding(&self) -> String {
        let subject = match &self.subject.namespace {
            None => format!("user.{}", self.subject.name),
            Some(inside) => format!("serviceaccount.{inside}.{}", self.subject.name),
        };
        match &self.namespace {
            None => format!("{}.{subject}", self.role),
            Some(namespace) => format!("{}.{subject}.in.{namespace}", self.role),
        }
    }
}

async fn grant(context: &Context, granted: &Granted) -> Result<(), Failure> {
    let kind = ResourceType::of::<RoleBinding>();
    let metadata = ObjectMeta { name: Some(granted.binding()), ..ObjectMeta::default() };
    let spec = RoleBindingSpec {
        role: granted.role.clone(),
        namespace: granted.namespace.clone(),
        subjects: vec![granted.subject.clone()],
    };
    let binding = serde_json::to_value(RoleBinding { metadata, spec, status: None }).unwrap_or_default();
    let made = context.client.create_dynamic(&kind, "", binding, context.new_key()).await;
    let place = granted.namespace.as_ref().map_or_else(String::new, |inside| format!(" in the namespace {inside}"));
    match made {
        Err(error) if error.is_already_exists() => {
            context.say(&format!("{} is {} already{place}", granted.subject.name, granted.role))
        }
        made => context.outcome(&kind, &made?, &format!("{} is {}{place}", granted.subject.name, granted.role)),
    }
}

pub(super) async fn api_key(context: &Context, command: ApiKeyCommand) -> Result<(), Failure> {
    match command {
        ApiKeyCommand::List => list::<ApiKey>(context).await,
        ApiKeyCommand::Delete { names } => delete::<ApiKey>(context, &names, "deleted").await,
        ApiKeyCommand::Create { user, name, role, inside, expires_in } => {
            let expires_in = expires_in.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
            let body = serde_json::to_value(NewKey { name, role, namespace: inside, expires_in }).unwrap_or_default();
            let kind = ResourceType::of::<User>();
            let request = kind.object(Method::POST, "", &user).below("apikeys").body(Body::Json(body));
            let made: Value = context.client.transport().json(&request).await?;
            if !context.output.is_table() {
                return context.document(&ResourceType::of::<ApiKey>(), &made);
            }
            let called = made["apiKey"]["metadata"]["name"].as_str().unwrap_or_default();
            context.note(&format!("apikey/{called} created; the key is shown this once:"))?;
            context.say(made["key"].as_str().unwrap_or_default())
        }
    }
}

pub(super) async fn session(context: &Context, command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::List => list::<Session>(context).await,
        SessionCommand::Revoke { names } => delete::<Session>(context, &names, "revoked").await,
    }
}

pub(super) async fn token(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    if args.qr {
        return enrolment::invite(context, args).await;
    }
    let Some(name) = args.service_account else { return login::token(context, args.exec_credential) };
    let seconds = args.expires_in.as_ref().map(Duration::as_secs);
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": seconds },
    });
    let path = ["api", "v1", "namespaces", &context.namespace, "serviceaccounts", &name, "token"];
    let request = Request::new(Method::POST, &path).body(Body::Json(body));
    let made: Value = context.client.transport().json(&request).await?;
    match context.output.is_table() {
        true => context.say(made["status"]["token"].as_str().unwrap_or_default()),
        false => context.document(&(&kinds::SERVICE_ACCOUNT).into(), &made),
    }
}

pub(super) async fn review(
    context: &Context,
    group: &str,
    plural: &str,
    kind: &str,
    spec: Value,
) -> Result<Value, Failure> {
    let body = json!({ "apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec });
    let request = Request::new(Method::POST, &["apis", group, "v1", plural]).body(Body::Json(body));
    Ok(context.client.transport().json(&request).await?)
}

/// Who asks, as the server sees him.
pub(super) async fn me(context: &Context) -> Result<Value, Failure> {
    let group = "authentication.k8s.io";
    let mut review = review(context, group, "selfsubjectreviews", "SelfSubjectReview", json!({})).await?;
    Ok(review["status"]["userInfo"].take())
}

pub(super) async fn who_am_i(context: &Context) -> Result<(), Failure> {
    let me = me(context).await?;
    if !context.output.is_table() {
        return context.document(&ResourceType::of::<User>(), &me);
    }
    context.say(me["username"].as_str().unwrap_or_default())?;
    let said = |what: &str| me["extra"][what].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (granted, factors): (Vec<&str>, Vec<&str>) = (said("berth.dev/granted"), said("berth.dev/second-factor"));
    granted.into_iter().try_for_each(|one| context.say(&format!("  {one}")))?;
    factors.into_iter().try_for_each(|one| context.say(&format!("  second factor: {one}")))
}

pub(super) async fn can_i(context: &Context, args: &CanArgs) -> Result<(), Failure> {
    let spec = match args.resource.strip_prefix('/') {
        Some(_) => json!({ "nonResourceAttributes": { "verb": args.verb, "path": args.resource } }),
        None => {
            let (word, below) = args.resource.split_once('/').unwrap_or((&args.resource, ""));
            let kind = context.kind(word).await?;
            let namespace = if kind.namespaced { context.namespace.as_str() } else { "" };
            json!({ "resourceAttributes": {
                "verb": args.verb, "group": kind.group, "resource": kind.plural, "subresource": below,
                "namespace": namespace, "name": args.name,
            }})
        }
    };
    let group = "authorization.k8s.io";
    let review = review(context, group, "selfsubjectaccessreviews", "SelfSubjectAccessReview", spec).await?;
    match review["status"]["allowed"] == true {
        true => context.say("yes"),
        false => {
            context.say("no")?;
            Err(Failure::Denied(review["status"]["reason"].as_str().unwrap_or_default().to_owned()))
        }
    }
}

/// The password in a file; the end of its last line is none of it.
pub(super) fn trimmed(text: &str) -> String {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_called_after_what_it_says() {
        let binding = |subject: &str, namespace: Option<&str>| {
            let args =
                GrantArgs { role: "viewer".into(), subject: subject.into(), inside: namespace.map(str::to_owned) };
            Granted::of(args).map(|granted| granted.binding()).map_err(|failure| failure.to_string())
        };
        assert_eq!(binding("alice", None).unwrap(), "viewer.user.alice");
        assert_eq!(binding("team/deploy", Some("team")).unwrap(), "viewer.serviceaccount.team.deploy.in.team");
        assert!(binding("/x", None).unwrap_err().contains("write NAME or NAMESPACE/NAME"));
    }

    #[test]
    fn one_end_of_line_is_none_of_a_password() {
        assert_eq!(
            (trimmed("a b\n"), trimmed("a\r\n"), trimmed("a\n\n"), trimmed(" a")),
            ("a b".into(), "a".into(), "a\n".into(), " a".into())
        );
    }
}
