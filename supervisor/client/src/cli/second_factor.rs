//! `berth user totp`, `berth user passkey`: second factors.

use std::io::IsTerminal;
use std::path::Path;

use berth_model::login::{ConfirmTotp, DisableTotp, Enrolment, RecoveryCodes, RemovePasskey};
use berth_model::resource::User;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{PasskeyCommand, TotpCommand};
use super::failure::Failure;
use super::sheet::Sheet;
use super::{Context, account, login};
use crate::request::{Body, Request};
use crate::resource::ResourceType;

pub(super) async fn totp(context: &Context, command: TotpCommand) -> Result<(), Failure> {
    login::nothing_is_printed(context)?;
    match command {
        TotpCommand::Enable => enable(context).await,
        TotpCommand::Confirm { code_file } => {
            let name = own_name(context).await?;
            confirm(context, &name, code_file.as_deref()).await
        }
        TotpCommand::Disable { name, code_file } => disable(context, name, code_file.as_deref()).await,
    }
}

/// Who asks, if he is a user.
pub(super) async fn own_name(context: &Context) -> Result<String, Failure> {
    let me = account::me(context).await?;
    let name = me["username"].as_str().unwrap_or_default();
    let user = name.strip_prefix("user:").map(str::to_owned);
    user.ok_or_else(|| Failure::Usage(format!("{name} is no user; log in as one, then use --context")))
}

fn request(name: &str, below: &str, body: &impl Serialize) -> Request {
    let body = serde_json::to_value(body).unwrap_or_default();
    let kind = ResourceType::of::<User>();
    below.split('/').fold(kind.object(Method::POST, "", name), Request::below).body(Body::Json(body))
}

async fn enable(context: &Context) -> Result<(), Failure> {
    let name = own_name(context).await?;
    let made: Enrolment = context.client.transport().json(&request(&name, "totp", &json!({}))).await?;
    if !context.output.is_table() {
        return context.document(&ResourceType::of::<User>(), &serde_json::to_value(&made).unwrap_or_default());
    }
    if context.shows_on_terminal() {
        let picture = berth_model::qr::drawn(&made.uri).map_err(Failure::Code)?;
        context.say(&picture)?;
    }
    context.say(&format!("secret: {}\n{}", made.secret, made.uri))?;
    context.note("add it to an authenticator app; it is shown this once")?;
    match std::io::stdin().is_terminal() {
        true => confirm(context, &name, None).await,
        false => context.note("nothing has changed yet: berth user totp confirm"),
    }
}

async fn confirm(context: &Context, name: &str, file: Option<&Path>) -> Result<(), Failure> {
    let code = login::code(context, file)?;
    let given: RecoveryCodes =
        context.client.transport().json(&request(name, "totp/confirm", &ConfirmTotp { code })).await?;
    context.note("from now on a login needs a code of the app. Without the app, each of these is good once:")?;
    context.say(&given.recovery_codes.join("\n"))?;
    context.note("keep them where the app is not; they are shown this once")
}

async fn disable(context: &Context, name: Option<String>, file: Option<&Path>) -> Result<(), Failure> {
    let own = own_name(context).await;
    let is_own = name.is_none() || own.as_ref().is_ok_and(|own| Some(own) == name.as_ref());
    let name = name.map_or(own, Ok)?;
    let code = is_own.then(|| login::code(context, file)).transpose()?;
    context.client.transport().json::<Value>(&request(&name, "totp/disable", &DisableTotp { code })).await?;
    context.say(&format!("{} has no second factor any more", ResourceType::of::<User>().shown(&name)))
}

pub(super) async fn passkey(context: &Context, command: PasskeyCommand) -> Result<(), Failure> {
    let kind = ResourceType::of::<User>();
    match command {
        PasskeyCommand::List { name } => {
            let name = the_user(context, name).await?;
            let user: User = context.client.transport().json(&kind.object(Method::GET, "", &name)).await?;
            show(context, &user)
        }
        PasskeyCommand::Remove { passkey, user } => {
            let name = the_user(context, user).await?;
            let wanted = RemovePasskey { name: passkey.clone() };
            context.client.transport().json::<Value>(&request(&name, "passkeys/remove", &wanted)).await?;
            context.say(&format!("{} has no passkey called {passkey} any more", kind.shown(&name)))
        }
    }
}

async fn the_user(context: &Context, name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name),
        None => own_name(context).await,
    }
}

fn show(context: &Context, user: &User) -> Result<(), Failure> {
    let passkeys = user.status.as_ref().map(|status| status.passkeys.as_slice()).unwrap_or_default();
    if !context.output.is_table() {
        return context.document(&ResourceType::of::<User>(), &json!(passkeys));
    }
    let mut sheet = Sheet::new(&["Name", "Host", "Added", "Last-Used"]);
    for one in passkeys {
        let used = one.last_used.map_or_else(|| "never".to_owned(), |at| at.to_string());
        sheet.row(vec![one.name.clone(), one.host.clone(), one.added.to_string(), used]);
    }
    context.sheet(&sheet, "there is no passkey; browsers make them")
}
