//! `berth invite`, `accept` and `invitation`: an account whose password its user sets himself.

use berth_model::login::{Accept, Accepted, Invite};
use berth_model::resource::Invitation;
use reqwest::Method;
use serde_json::Value;

use super::args::{AcceptArgs, InvitationCommand, InviteArgs};
use super::failure::Failure;
use super::{Context, account, login};
use crate::request::{Body, Request};
use crate::resource::ResourceType;

pub(super) async fn invite(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    let InviteArgs { name, role, inside } = args;
    let whom = name.clone().unwrap_or_else(|| "whoever has it".to_owned());
    let body = serde_json::to_value(Invite { user: name, role, namespace: inside }).unwrap_or_default();
    let request = ResourceType::of::<Invitation>().collection(Method::POST, None).body(Body::Json(body));
    let made: Value = context.client.transport().json(&request).await?;
    if !context.output.is_table() {
        return context.document(&ResourceType::of::<Invitation>(), &made);
    }
    let secret = made["secret"].as_str().unwrap_or_default();
    context.note(&format!("{whom} is invited for 7 days by this link, which is good once and shown this once:"))?;
    context.say(&link(context, secret))?;
    context.note("he sets his password with: berth accept --server https://HOST:6443 --ca FILE")
}

/// What is behind `#` is sent to no server, and so stands in no log.
fn link(context: &Context, secret: &str) -> String {
    let server = context.client.transport().server();
    match server.socket {
        None => format!("{}/invitation#{secret}", server.shown().trim_end_matches('/')),
        Some(_) => secret.to_owned(),
    }
}

pub(super) async fn accept(context: &Context, args: AcceptArgs) -> Result<(), Failure> {
    login::nothing_is_printed(context)?;
    let link = match &args.link_file {
        Some(file) => login::password_of(context, file)?,
        None => login::hidden("link of the invitation: ")?,
    };
    let password = login::new_password(context, args.password_file.as_deref())?;
    let accept = Accept { secret: secret_of(&link), user: args.user, password };
    let body = serde_json::to_value(accept).unwrap_or_default();
    let request = Request::new(Method::POST, &["auth", "invitation"]).body(Body::Json(body));
    let accepted: Accepted = context.client.transport().json(&request).await?;
    context.say(&format!("the account {} is made", accepted.user))?;
    context.note("log in with: berth login")
}

/// A link, or what stands behind its `#`.
fn secret_of(link: &str) -> String {
    link.rsplit_once('#').map_or(link, |(_, secret)| secret).trim().to_owned()
}

pub(super) async fn invitation(context: &Context, command: InvitationCommand) -> Result<(), Failure> {
    match command {
        InvitationCommand::List => account::list::<Invitation>(context).await,
        InvitationCommand::Revoke { names } => account::delete::<Invitation>(context, &names, "taken back").await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_taken_as_well_as_what_stands_behind_its_sign() {
        for said in ["https://box:6443/invitation#berth_invitation_x\n", "berth_invitation_x"] {
            assert_eq!(secret_of(said), "berth_invitation_x");
        }
    }
}
