//! `berth audit`: who did what, and whether the record of it is whole.

use std::io::Write;

use berth_model::resource::AuditRecord;
use berth_model::resource::audit_record::Verification;
use reqwest::Method;

use super::args::{AuditCommand, AuditListArgs};
use super::failure::Failure;
use super::{Context, get, report};
use crate::client::berth;
use crate::resource::{ResourceType, Scope};

pub(super) async fn run(context: &Context, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => list(context, &args).await,
        AuditCommand::Verify => verify(context).await,
        AuditCommand::Export => export(context).await,
        AuditCommand::Report => report::run(context).await,
    }
}

async fn list(context: &Context, args: &AuditListArgs) -> Result<(), Failure> {
    let chosen = [("spec.identity", &args.by), ("spec.verb", &args.verb), ("spec.name", &args.about)];
    let mut fields: Vec<String> =
        chosen.into_iter().filter_map(|(field, value)| Some(format!("{field}={}", value.as_ref()?))).collect();
    if args.denied {
        fields.push("spec.result=Denied".to_owned());
    }
    let fields = (!fields.is_empty()).then(|| fields.join(","));
    get::list(context, &ResourceType::of::<AuditRecord>(), &Scope { fields, ..Scope::default() }).await
}

async fn verify(context: &Context) -> Result<(), Failure> {
    let request = berth(&["auditrecords", "verification"], Method::GET);
    let found: Verification = context.client.transport().json(&request).await?;
    if !context.output.is_table() {
        let document = serde_json::to_value(&found).unwrap_or_default();
        context.document(&ResourceType::of::<AuditRecord>(), &document)?;
    }
    if !found.problems.is_empty() {
        return Err(Failure::Tampered(found.problems));
    }
    let Verification { records, first, last, checkpoints, key, .. } = found;
    if !context.output.is_table() {
        return Ok(());
    }
    context.say(&format!("{records} records ({first} to {last}) and {checkpoints} checkpoints are whole"))?;
    // An older supervisor does not say.
    match key.as_str() {
        "" => Ok(()),
        key => context.say(&format!("signed by {key}")),
    }
}

async fn export(context: &Context) -> Result<(), Failure> {
    let request = berth(&["auditrecords", "export"], Method::GET);
    let mut pieces = context.client.transport().pieces(&request).await?;
    let mut out = std::io::stdout().lock();
    while let Some(piece) = pieces.next().await? {
        out.write_all(&piece).map_err(Failure::Output)?;
    }
    out.flush().map_err(Failure::Output)
}
