//! `berth system status`, `update`, `reboot` and `poweroff`: versions of the machine's own system.

use berth_model::meta;
use berth_model::release::{Entry, SystemStatus};
use berth_model::resource::Operation;
use reqwest::Method;
use serde_json::{Value, json};

use super::Context;
use super::args::SystemUpdateArgs;
use super::failure::Failure;
use super::follow;
use super::output::Output;
use super::sheet::Sheet;
use super::views::OperationView;
use crate::client::berth;
use crate::request::Body;
use crate::resource::ResourceType;
use crate::yaml;

pub(super) async fn status(context: &Context) -> Result<(), Failure> {
    let request = berth(&["system", "status"], Method::GET);
    let status: SystemStatus = context.client.transport().json(&request).await?;
    match context.output {
        Output::Json => context.say(&format!("{:#}", json!(status))),
        Output::Yaml => context.say(&yaml::to_string(&json!(status))?),
        Output::Name => context.say(&status.version),
        Output::Table | Output::Wide => show(context, &status),
    }
}

fn show(context: &Context, status: &SystemStatus) -> Result<(), Failure> {
    context.sheet(&sheet(status), "the machine's system is no image of Berth; its package manager updates it")?;
    match &status.last_start {
        None => Ok(()),
        Some(start) if start.healthy => context.say(&format!("{} came up well at {}", start.version, start.at)),
        Some(start) => context.say(&format!("{} did not come up well at {}: {}", start.version, start.at, start.why)),
    }
}

fn sheet(status: &SystemStatus) -> Sheet {
    let mut sheet = Sheet::new(&["Version", "Runs", "State"]);
    for entry in &status.versions {
        let runs = if entry.version == status.version { "yes" } else { "" };
        sheet.row(vec![entry.version.clone(), runs.to_owned(), state(entry)]);
    }
    sheet
}

fn state(entry: &Entry) -> String {
    match entry.tries_left {
        None => "good".to_owned(),
        Some(0) => "given up".to_owned(),
        Some(left) => format!("on trial, {left} left"),
    }
}

pub(super) async fn update(context: &Context, args: SystemUpdateArgs) -> Result<(), Failure> {
    let SystemUpdateArgs { source, channel, restart } = args;
    let body = json!({ "source": source, "channel": channel, "restart": restart });
    let request = berth(&["system", "update"], Method::POST).body(Body::Json(body)).once(context.new_key());
    let asked: Value = context.client.transport().json(&request).await?;
    let kind = ResourceType::of::<Operation>();
    let (name, namespace) = (meta::name(&asked).to_owned(), meta::namespace(&asked).to_owned());
    if context.wait == Some(false) {
        context.outcome(&kind, &asked, &format!("operation/{name}"))?;
        return context.note(&format!("follow it with: berth operation show {name} -w -n {namespace}"));
    }
    let is_there = |view: &OperationView| view.has_done("WriteSlot") && !restart;
    let last = follow::until(context, &namespace, &name, is_there).await?.unwrap_or(asked);
    let view = OperationView::of(&last);
    let version = view.status.result["version"].as_str().unwrap_or_default();
    match (version, view.finished()) {
        ("", _) => context.outcome(&kind, &last, "there is nothing newer"),
        (version, true) => context.outcome(&kind, &last, &format!("version {version} runs")),
        (version, false) => {
            context.outcome(&kind, &last, &format!("version {version} is written"))?;
            context.note("it is tried at the next start: berth system reboot")
        }
    }
}

pub(super) async fn rollback(context: &Context) -> Result<(), Failure> {
    let request = berth(&["system", "rollback"], Method::POST);
    let answer: Value = context.client.transport().json(&request).await?;
    context.say(answer["message"].as_str().unwrap_or("the machine starts anew"))
}

pub(super) async fn power(context: &Context, verb: &str, said: &str) -> Result<(), Failure> {
    let request = berth(&["system", verb], Method::POST);
    let _: Value = context.client.transport().json(&request).await?;
    context.say(said)
}
