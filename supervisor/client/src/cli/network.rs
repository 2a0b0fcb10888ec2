//! `berth network status`, `berth policy debug` and `berth dns lookup`: what the server says of the
//! network that it has the kernel keep to.

use std::net::IpAddr;

use berth_model::network::{Lookup, NetworkStatus, Verdict, Verdicts};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Context;
use super::args::{DnsCommand, NetworkCommand, PolicyCommand};
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use crate::client::berth;
use crate::error::ClientError;
use crate::request::Request;
use crate::yaml;

pub(super) async fn status(context: &Context, command: NetworkCommand) -> Result<(), Failure> {
    let NetworkCommand::Status = command;
    let status: NetworkStatus = ask(context, berth(&["network"], Method::GET)).await?;
    if shown(context, &status)? {
        return Ok(());
    }
    context.sheet(&sheet(&status), "no bundles")?;
    status.problems.iter().try_for_each(|problem| context.note(&format!("warning: {problem}")))
}

pub(super) async fn debug(context: &Context, command: PolicyCommand) -> Result<(), Failure> {
    let PolicyCommand::Debug { from, to, port } = command;
    let request = berth(&["network", "verdicts"], Method::GET).query("namespace", &context.namespace);
    let request = request.query("from", &from).query("to", &to);
    let request = port.iter().fold(request, |request, port| request.query("port", port));
    let verdicts: Verdicts = ask(context, request).await?;
    if shown(context, &verdicts)? {
        return Ok(());
    }
    context.say(&verdicts.verdicts.iter().map(line).collect::<Vec<_>>().join("\n"))
}

pub(super) async fn look_up(context: &Context, command: DnsCommand) -> Result<(), Failure> {
    let DnsCommand::Lookup { name, from } = command;
    let request = berth(&["network", "lookup"], Method::GET).query("namespace", &context.namespace);
    let lookup: Lookup = ask(context, request.query("from", &from).query("name", &name)).await?;
    if shown(context, &lookup)? {
        return Ok(());
    }
    context.say(&found(&lookup))
}

async fn ask<T: DeserializeOwned>(context: &Context, request: Request) -> Result<T, ClientError> {
    context.client.transport().json(&request).await
}

/// For programs; false if it is for people.
fn shown(context: &Context, answer: &impl Serialize) -> Result<bool, Failure> {
    let value = serde_json::to_value(answer).unwrap_or(Value::Null);
    match context.output {
        Output::Json => context.say(&format!("{value:#}")).map(|()| true),
        Output::Yaml => context.say(&yaml::to_string(&value)?).map(|()| true),
        _ => Ok(false),
    }
}

fn line(verdict: &Verdict) -> String {
    let protocol = format!("{:?}", verdict.protocol).to_lowercase();
    let word = if verdict.allowed { "allowed" } else { "denied" };
    format!("{word}  {}/{protocol}  {}", verdict.port, verdict.message)
}

fn found(lookup: &Lookup) -> String {
    if !lookup.found {
        return format!("{}: {}", lookup.name, lookup.message);
    }
    let port = lookup.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let lines = lookup.addresses.iter().map(ToString::to_string);
    [format!("{}{port}", lookup.target)].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

fn sheet(status: &NetworkStatus) -> Sheet {
    let mut sheet = Sheet::new(&["Namespace", "Bridge", "Bundle", "Address", "Serving", "Egress", "Reached by"]);
    for network in &status.networks {
        for bundle in &network.bundles {
            let by = match bundle.inbound.as_slice() {
                [] if network.open => "all of the namespace".to_owned(),
                [] => bundle.dependents.join(", "),
                policies => format!("policy {}", policies.join(", ")),
            };
            let egress = match bundle.outbound.as_slice() {
                [] => bundle.egress.clone(),
                policies => format!("{}, policy {}", bundle.egress, policies.join(", ")),
            };
            let (namespace, bridge) = (network.namespace.clone(), network.bridge.clone());
            let (service, serving) = (first(&bundle.service), first(&bundle.serving));
            sheet.row(vec![namespace, bridge, bundle.name.clone(), service, serving, egress, by]);
        }
    }
    sheet
}

/// IPv4 comes first; the others are in the JSON.
fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use berth_model::network::Reason;
    use berth_model::resource::bundle::Protocol;

    use super::*;

    #[test]
    fn a_verdict_says_allowed_or_denied_first_and_by_which_rule_last() {
        let verdict = Verdict {
            allowed: false,
            reason: Reason::Default,
            message: "default/web -> default/db: no dependency is declared".into(),
            protocol: Protocol::Udp,
            port: 53,
        };
        assert_eq!(line(&verdict), "denied  53/udp  default/web -> default/db: no dependency is declared");
    }

    #[test]
    fn a_name_is_shown_with_what_it_stands_for_or_why_it_is_not_there() {
        let lookup = Lookup {
            found: true,
            target: "db.default.berth.internal".into(),
            addresses: vec!["10.213.128.3".parse().unwrap()],
            ..Lookup::default()
        };
        assert_eq!(found(&lookup), "db.default.berth.internal\n10.213.128.3");
        let lookup = Lookup { name: "db".into(), message: "does not exist".into(), ..Lookup::default() };
        assert_eq!(found(&lookup), "db: does not exist");
    }
}
