//! `berth system`.

use berth_model::cleanup::{Item, Report};
use berth_model::quantity::about_bytes;
use reqwest::Method;
use serde_json::json;

use super::Context;
use super::args::SystemCommand;
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use super::{health, versions};
use crate::client::berth;
use crate::yaml;

pub(super) async fn run(context: &Context, command: SystemCommand) -> Result<(), Failure> {
    match command {
        SystemCommand::Cleanup { dry_run } => cleanup(context, dry_run).await,
        SystemCommand::Health(args) => health::run(context, &args).await,
        SystemCommand::Status => versions::status(context).await,
        SystemCommand::Update(args) => versions::update(context, args).await,
        SystemCommand::Rollback => versions::rollback(context).await,
        SystemCommand::Reboot => versions::power(context, "reboot", "the machine starts anew").await,
        SystemCommand::Poweroff => versions::power(context, "poweroff", "the machine is switched off").await,
    }
}

async fn cleanup(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let request = berth(&["system", "cleanup"], Method::POST);
    let request = if dry_run { request.query("dryRun", "All") } else { request };
    let report: Report = context.client.transport().json(&request).await?;
    match context.output {
        Output::Json => context.say(&format!("{:#}", json!(report))),
        Output::Yaml => context.say(&yaml::to_string(&json!(report))?),
        Output::Name => context.say(&report.plan.items.iter().map(named).collect::<Vec<_>>().join("\n")),
        Output::Table | Output::Wide => show(context, &report),
    }
}

fn show(context: &Context, report: &Report) -> Result<(), Failure> {
    context.sheet(&sheet(report), "nothing is old enough to be removed")?;
    if !report.plan.items.is_empty() {
        context.say(&totals(report))?;
    }
    context.say(&format!("data disk: {} % of {} used", report.disk.percent(), about_bytes(report.disk.total)))
}

fn named(item: &Item) -> String {
    format!("{}/{}", item.kind.word(), item.name)
}

fn sheet(report: &Report) -> Sheet {
    let mut sheet = Sheet::new(&["Kind", "Namespace", "Name", "Why", "Size"]);
    for item in &report.plan.items {
        let Item { namespace, name, why, .. } = item;
        let size = about_bytes(item.size);
        sheet.row(vec![item.kind.word().to_owned(), namespace.clone(), name.clone(), why.clone(), size]);
    }
    sheet
}

fn totals(report: &Report) -> String {
    let (what, size) = (report.plan.counts(), about_bytes(report.size));
    match report.freed {
        None => format!("would be removed: {what}; {size}"),
        Some(freed) => format!("removed: {what}; {size}; the data disk has {} more room", about_bytes(freed)),
    }
}
