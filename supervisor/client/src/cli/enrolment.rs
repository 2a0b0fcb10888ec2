//! `berth token --qr`, and `berth enrol` with what it showed.

use std::io;

use berth_model::enrolment::{Bootstrap, Invitation};
use berth_model::resource::{Device, User};
use reqwest::Method;
use serde_json::json;

use super::account::{review, trimmed};
use super::args::{EnrolArgs, TokenArgs};
use super::certificate::{Here, have_issued};
use super::config::reached_at;
use super::failure::Failure;
use super::login::hidden;
use super::{Context, bounded};
use crate::client::berth;
use crate::error::ClientError;
use crate::resource::ResourceType;
use crate::server::Server;
use crate::transport::Transport;

/// `berth token --qr`: text on standard output, the picture of it beside it.
pub(super) async fn invite(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    let request = match &args.device {
        Some(device) => ResourceType::of::<Device>().object(Method::POST, &context.namespace, device),
        None => ResourceType::of::<User>().object(Method::POST, "", &whom(context, args.user).await?),
    };
    let server = reached_at(context, args.url.as_deref())?;
    let made: Bootstrap = context.client.transport().json(&request.below("bootstraptokens")).await?;
    let invitation = Invitation { server, fingerprint: made.fingerprint, token: made.token }.to_string();
    context.note(&berth_model::qr::drawn(&invitation).map_err(Failure::Code)?)?;
    context.note(&format!("for {}, once, until {}: berth enrol", made.subject, made.expires_at))?;
    context.say(&invitation)
}

/// The user that is named, or who asks.
async fn whom(context: &Context, named: Option<String>) -> Result<String, Failure> {
    if let Some(user) = named {
        return Ok(user);
    }
    let review = review(context, "authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", json!({})).await?;
    let who = review["status"]["userInfo"]["username"].as_str().unwrap_or_default();
    let nobody = || Failure::Usage(format!("{who} is no user; say for whom: --user NAME or --device NAME"));
    who.strip_prefix("user:").map(str::to_owned).ok_or_else(nobody)
}

/// `berth enrol`.
pub(super) async fn run(context: &Context, args: EnrolArgs) -> Result<(), Failure> {
    let text = match &args.from {
        Some(file) => bounded::text(file)?,
        None => hidden("what `berth token --qr` showed: ")?,
    };
    let invitation: Invitation =
        trimmed(&text).parse().map_err(|error| Failure::Input(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let server = Server::choose(Some(&invitation.server), None, None)?;
    let transport = Transport::pinned(server, &invitation.fingerprint, &invitation.token)?;
    let request = berth(&["certificates"], Method::POST);
    let here = Here { transport: &transport, server: invitation.server.clone(), request };
    match have_issued(context, here, args.into, args.description).await {
        Err(Failure::Client(ClientError::Untrusted { .. })) => Err(Failure::Impostor(invitation.server)),
        done => done,
    }
}
