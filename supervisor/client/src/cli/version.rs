//! `berth version`.

use serde_json::{Value, json};

use super::Context;
use super::args::VersionArgs;
use super::failure::Failure;
use super::output::Output;
use crate::request::Request;
use crate::yaml;

pub(super) async fn run(context: &Context, args: &VersionArgs) -> Result<(), Failure> {
    let mut versions = json!({"client": {"berthVersion": env!("CARGO_PKG_VERSION")}});
    if args.client {
        return show(context, &versions);
    }
    let answer: Result<Value, _> = context.client.transport().json(&Request::get(&["version"])).await;
    if let Ok(server) = &answer {
        versions["server"] = server.clone();
    }
    if !context.is_printing() {
        show(context, &versions)?;
    }
    answer.map(drop).map_err(Failure::Client)
}

fn show(context: &Context, versions: &Value) -> Result<(), Failure> {
    match context.output {
        Output::Json => context.say(&format!("{versions:#}")),
        Output::Yaml => context.say(&yaml::to_string(versions)?),
        _ => context.say(&lines(versions)),
    }
}

/// The server also names the version of Kubernetes whose clients it understands; that is not meant.
fn lines(versions: &Value) -> String {
    let version = |side: &Value| side["berthVersion"].as_str().or(side["gitVersion"].as_str()).map(str::to_owned);
    let line = |side: &str| version(&versions[side]).map(|version| format!("{side:<8}{version}"));
    [line("client"), line("server")].into_iter().flatten().collect::<Vec<_>>().join("\n")
}
