//! `berth login --device`, and `berth device approve` and `deny`: a machine where nobody can type a password shows a code,
//! and somebody who is logged in elsewhere lets it in.

use std::io::{self, IsTerminal};
use std::time::Duration;

use berth_model::login::{
    DEVICE_GRANT, DeviceAuthorization, DeviceCode, DeviceLoginShown, DeviceRefusal, DeviceRefused, DeviceTokens,
    Tokens, UserCode,
};
use berth_model::resource::User;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::failure::Failure;
use super::{Context, login, second_factor};
use crate::error::ClientError;
use crate::request::{Body, Request};
use crate::resource::ResourceType;

/// So much longer it waits when the server says that it asks too soon (RFC 8628).
const SLOWER: Duration = Duration::from_secs(5);

/// Shows a code, and asks until somebody has decided.
pub(super) async fn log_in(context: &Context) -> Result<Tokens, Failure> {
    let request = Request::new(Method::POST, &["auth", "device"]);
    let begun: DeviceAuthorization = context.client.transport().json(&request).await?;
    context.note(&format!(
        "code: {code}\nsomebody who is logged in to this machine lets this one in, as himself: berth device approve {code}",
        code = begun.user_code
    ))?;
    let seconds = |number: i64| Duration::from_secs(u64::try_from(number).unwrap_or_default());
    let (mut pause, end) = (seconds(begun.interval), Instant::now() + seconds(begun.expires_in));
    let asking = asking(begun.device_code)?;
    loop {
        tokio::time::sleep(pause).await;
        match context.client.transport().json_or::<DeviceTokens, DeviceRefused>(&asking).await {
            Ok(Ok(tokens)) => return Ok(tokens.into()),
            Ok(Err(refused)) => match refused.error {
                DeviceRefusal::AuthorizationPending => {}
                DeviceRefusal::SlowDown => pause += SLOWER,
                _ => return Err(Failure::Denied(refused.error_description)),
            },
            // It may be starting anew: the standard asks for twice the pause each time.
            Err(ClientError::Unreachable { .. } | ClientError::Interrupted { .. }) if Instant::now() < end => {
                pause *= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn asking(device_code: String) -> Result<Request, Failure> {
    let form = serde_urlencoded::to_string(DeviceCode { grant_type: DEVICE_GRANT.to_owned(), device_code });
    let form = form.map_err(|error| Failure::Usage(format!("the code of the server cannot be sent back: {error}")))?;
    Ok(Request::new(Method::POST, &["auth", "device", "token"]).body(Body::Form(form)))
}

fn about(name: &str, below: &[&str], user_code: &str) -> Request {
    let body = json!(UserCode { user_code: user_code.to_owned() });
    let request = ResourceType::of::<User>().object(Method::POST, "", name).below("devicelogins");
    below.iter().fold(request, |request, segment| request.below(segment)).body(Body::Json(body))
}

/// Shows from where a login was begun, and lets it in if that is right.
pub(super) async fn approve(context: &Context, code: &str, yes: bool) -> Result<(), Failure> {
    let (name, transport) = (second_factor::own_name(context).await?, context.client.transport());
    let shown: DeviceLoginShown = transport.json(&about(&name, &[], code)).await?;
    let DeviceLoginShown { address, program, begun_at, .. } = shown;
    context.note(&format!("a login from {address} with {program}, begun {begun_at}"))?;
    if !yes && !is_meant(&name)? {
        return context.say("nothing was changed; berth device deny ends it");
    }
    transport.json::<DeviceLoginShown>(&about(&name, &["approve"], code)).await?;
    context.say(&format!("it comes in as {name}"))
}

/// Whoever has been talked into typing a code that somebody else shows sees here where that one is.
fn is_meant(name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let message = "nobody can be asked here whether that is the login that is meant; say --yes to let it in";
        return Err(Failure::Usage(message.to_owned()));
    }
    let said = login::asked(&format!("let it in as {name}? (yes or no): "))?;
    Ok(["y", "yes"].contains(&said.trim().to_ascii_lowercase().as_str()))
}

/// Ends a login that nobody is to let in.
pub(super) async fn deny(context: &Context, code: &str) -> Result<(), Failure> {
    let name = second_factor::own_name(context).await?;
    let denied: DeviceLoginShown = context.client.transport().json(&about(&name, &["deny"], code)).await?;
    context.say(&format!("the login from {} is refused", denied.address))
}
