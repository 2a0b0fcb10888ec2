//! `berth top`: what bundles and the machine use. Two looks a moment apart make the rates.

use std::cmp::Reverse;
use std::time::Duration;

use berth_model::quantity::about_bytes;
use berth_model::usage::{BundleUsage, Usage, per_second};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::args::{TopArgs, TopOrder};
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use crate::client::berth;
use crate::error::ClientError;
use crate::yaml;

/// Between the two looks of one answer, and between answers.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));
/// To the first place of a terminal, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is shown: everything is per second that grows, and absent where the kernel does not count it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    machine: Machine,
    bundles: Vec<Row>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    cores: u64,
    /// Thousandths of a core.
    cpu_milli_cores: u64,
    load_hundredths: u64,
    memory_bytes: u64,
    memory_available_bytes: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    uptime_seconds: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    ready: bool,
    /// Thousandths of a core.
    cpu_milli_cores: Option<u64>,
    memory_bytes: Option<u64>,
    read_bytes_per_second: Option<u64>,
    written_bytes_per_second: Option<u64>,
    pids: Option<u64>,
    restarts: u64,
}

pub(super) async fn run(context: &Context, args: &TopArgs) -> Result<(), Failure> {
    let mut before = look(context).await?;
    let mut pause = PAUSES.0;
    loop {
        tokio::time::sleep(pause).await;
        let after = look(context).await?;
        let shown = shown(context, args, &before, &after);
        print(context, args, &shown)?;
        if !args.watch {
            return Ok(());
        }
        (before, pause) = (after, PAUSES.1);
    }
}

async fn look(context: &Context) -> Result<Usage, ClientError> {
    context.client.transport().json(&berth(&["system", "usage"], Method::GET)).await
}

fn shown(context: &Context, args: &TopArgs, before: &Usage, after: &Usage) -> Shown {
    let wanted = |one: &&BundleUsage| args.all_namespaces || one.namespace == context.namespace;
    let mut bundles: Vec<Row> = after.bundles.iter().filter(wanted).map(|one| row(one, before, after)).collect();
    sort(&mut bundles, args.sort);
    let over = after.taken_us.saturating_sub(before.taken_us);
    let now = &after.machine;
    let machine = Machine {
        cores: now.cores,
        cpu_milli_cores: per_second(Some(before.machine.cpu_us), Some(now.cpu_us), over).unwrap_or_default() / 1000,
        load_hundredths: now.load_hundredths,
        memory_bytes: now.memory,
        memory_available_bytes: now.memory_available,
        disk_bytes: now.disk.total,
        disk_free_bytes: now.disk.free,
        uptime_seconds: now.uptime,
    };
    Shown { machine, bundles }
}

/// A bundle that was not there at the first look has no rates yet.
fn row(now: &BundleUsage, before: &Usage, after: &Usage) -> Row {
    let over = after.taken_us.saturating_sub(before.taken_us);
    let then = before.bundle(&now.namespace, &now.name);
    let rate = |of: fn(&BundleUsage) -> Option<u64>| per_second(then.and_then(of), of(now), over);
    Row {
        namespace: now.namespace.clone(),
        name: now.name.clone(),
        ready: now.ready,
        cpu_milli_cores: rate(|one| one.cpu_us).map(|us| us / 1000),
        memory_bytes: now.memory,
        read_bytes_per_second: rate(|one| one.read),
        written_bytes_per_second: rate(|one| one.written),
        pids: now.tasks,
        restarts: now.restarts,
    }
}

/// The most first; what uses the same by namespace and name, as it came.
fn sort(rows: &mut [Row], order: TopOrder) {
    let moved =
        |row: &Row| row.read_bytes_per_second.zip(row.written_bytes_per_second).map(|(read, wrote)| read + wrote);
    match order {
        TopOrder::Cpu => rows.sort_by_key(|row| Reverse(row.cpu_milli_cores)),
        TopOrder::Memory => rows.sort_by_key(|row| Reverse(row.memory_bytes)),
        TopOrder::Io => rows.sort_by_key(|row| Reverse(moved(row))),
        TopOrder::Pids => rows.sort_by_key(|row| Reverse(row.pids)),
        TopOrder::Restarts => rows.sort_by_key(|row| Reverse(row.restarts)),
        TopOrder::Name => rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))),
    }
}

fn print(context: &Context, args: &TopArgs, shown: &Shown) -> Result<(), Failure> {
    match context.output {
        // One line each, so that a program can tell where one ends.
        Output::Json if args.watch => context.say(&json!(shown).to_string()),
        Output::Json => context.say(&format!("{:#}", json!(shown))),
        Output::Yaml => context.say(&yaml::to_string(&json!(shown))?),
        Output::Name => {
            context.say(&shown.bundles.iter().map(|row| format!("bundle/{}", row.name)).collect::<Vec<_>>().join("\n"))
        }
        Output::Table | Output::Wide => {
            let clear = if args.watch && context.shows_on_terminal() { CLEAR } else { "" };
            let table = sheet(shown, args.all_namespaces).render(false, &mut Vec::new(), true);
            let end = if args.watch && clear.is_empty() { "\n\n" } else { "" };
            context.say(&format!("{clear}{}\n{table}{end}", head(&shown.machine)))
        }
    }
}

/// All of the machine in one line.
fn head(machine: &Machine) -> String {
    let Machine { cores, cpu_milli_cores, load_hundredths, .. } = machine;
    let used = machine.memory_bytes.saturating_sub(machine.memory_available_bytes);
    let filled = machine.disk_bytes.saturating_sub(machine.disk_free_bytes);
    format!(
        "machine: {} of {cores} cores, load {}.{:02}, memory {} of {}, data disk {} of {}, up {}",
        cores_of(*cpu_milli_cores),
        load_hundredths / 100,
        load_hundredths % 100,
        about_bytes(used),
        about_bytes(machine.memory_bytes),
        about_bytes(filled),
        about_bytes(machine.disk_bytes),
        berth_model::kinds::age(i64::try_from(machine.uptime_seconds).unwrap_or(i64::MAX)),
    )
}

fn sheet(shown: &Shown, with_namespace: bool) -> Sheet {
    let headers = ["Namespace", "Name", "Ready", "CPU", "Memory", "Read/s", "Written/s", "Pids", "Restarts"];
    let from = usize::from(!with_namespace);
    let mut sheet = Sheet::new(&headers[from..]);
    for row in &shown.bundles {
        let cells = vec![
            row.namespace.clone(),
            row.name.clone(),
            row.ready.to_string(),
            known(row.cpu_milli_cores, cores_of),
            known(row.memory_bytes, about_bytes),
            known(row.read_bytes_per_second, about_bytes),
            known(row.written_bytes_per_second, about_bytes),
            known(row.pids, |pids| pids.to_string()),
            row.restarts.to_string(),
        ];
        sheet.row(cells.into_iter().skip(from).collect());
    }
    sheet
}

fn known(value: Option<u64>, show: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn cores_of(milli: u64) -> String {
    format!("{}.{:02}", milli / 1000, milli % 1000 / 10)
}
