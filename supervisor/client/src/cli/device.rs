//! `berth device`.

use berth_model::resource::Device;
use reqwest::Method;
use serde_json::json;

use super::account::delete;
use super::args::{DeviceCommand, IntoArgs};
use super::certificate::{Here, address, have_issued, no_key_is_printed};
use super::failure::Failure;
use super::{Context, device_login, get};
use crate::resource::{ResourceType, Scope};

pub(super) async fn run(context: &Context, command: DeviceCommand) -> Result<(), Failure> {
    let kind = ResourceType::of::<Device>();
    match command {
        DeviceCommand::List => get::list(context, &kind, &Scope::namespace(&context.namespace)).await,
        DeviceCommand::Get { names } => get::objects(context, &kind, &names).await,
        DeviceCommand::Create { name, role, description } => create(context, &name, role, description).await,
        DeviceCommand::Delete { names } => delete::<Device>(context, &names, "deleted").await,
        DeviceCommand::Revoke { names } => revoke(context, &names).await,
        DeviceCommand::IssueCertificate { device, into } => issue(context, &device, into).await,
        DeviceCommand::Approve { code, yes } => device_login::approve(context, &code, yes).await,
        DeviceCommand::Deny { code } => device_login::deny(context, &code).await,
    }
}

async fn create(
    context: &Context,
    name: &str,
    role: Option<String>,
    description: Option<String>,
) -> Result<(), Failure> {
    let kind = ResourceType::of::<Device>();
    let device = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": { "name": name },
        "spec": { "role": role, "description": description },
    });
    let made = context.client.create_dynamic(&kind, &context.namespace, device, context.new_key()).await?;
    context.outcome(&kind, &made, &format!("{} created", kind.shown(name)))
}

async fn revoke(context: &Context, names: &[String]) -> Result<(), Failure> {
    let kind = ResourceType::of::<Device>();
    for name in names {
        let patch = json!({ "spec": { "revoked": true } });
        context.client.merge_patch_dynamic(&kind, &context.namespace, name, patch).await?;
        context.say(&format!("{} revoked", kind.shown(name)))?;
    }
    Ok(())
}

async fn issue(context: &Context, name: &str, into: IntoArgs) -> Result<(), Failure> {
    no_key_is_printed(context)?;
    let kind = ResourceType::of::<Device>();
    let request = kind.object(Method::POST, &context.namespace, name).below("certificates");
    let here = Here { transport: context.client.transport(), server: address(context), request };
    have_issued(context, here, into, None).await
}
