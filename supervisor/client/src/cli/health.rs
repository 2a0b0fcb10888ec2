//! `berth system health`: whether everything serves that should, as a new version of the machine is judged by.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use berth_model::health::{BootReport, MachineHealth, Waiting};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::Context;
use super::args::HealthArgs;
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use crate::client::berth;
use crate::yaml;

/// Between two looks: what comes up takes seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// For as long as nobody has said how long to wait.
const PATIENCE: u32 = 120;

pub(super) async fn run(context: &Context, args: &HealthArgs) -> Result<(), Failure> {
    let health = if args.wait { waited(context).await } else { asked(context).await? };
    if let Some(path) = &args.record {
        let report = report(context, &health, &args.image_version)?;
        record(path, &report).map_err(|source| Failure::Write { path: path.to_owned(), source })?;
    }
    show(context, &health)?;
    match health.healthy {
        true => Ok(()),
        false => Err(Failure::Several(health.told(), 1)),
    }
}

async fn asked(context: &Context) -> Result<MachineHealth, Failure> {
    let request = berth(&["system", "health"], reqwest::Method::GET);
    Ok(context.client.transport().json(&request).await?)
}

/// The first good answer, or the last one in time. Whoever does not answer is not well.
async fn waited(context: &Context) -> MachineHealth {
    let (begun, mut patience) = (Instant::now(), PATIENCE);
    loop {
        let health = match asked(context).await {
            Ok(health) => {
                patience = health.timeout_seconds;
                health
            }
            Err(error) => unanswered(&error),
        };
        if health.healthy || begun.elapsed() >= Duration::from_secs(patience.into()) {
            return health;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn unanswered(error: &Failure) -> MachineHealth {
    MachineHealth::of(vec![Waiting { what: "supervisor".to_owned(), why: error.to_string() }], PATIENCE)
}

fn report(context: &Context, health: &MachineHealth, version: &str) -> Result<BootReport, Failure> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let boot_id = std::fs::read_to_string(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    Ok(BootReport {
        version: version.to_owned(),
        boot_id: boot_id.trim().to_owned(),
        at: context.now().to_string(),
        healthy: health.healthy,
        why: if health.healthy { String::new() } else { health.told() },
    })
}

/// The machine may start anew the moment after: then it is on the disk.
fn record(path: &Path, report: &BootReport) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(format!("{:#}\n", json!(report)).as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(folder)?.sync_all()
}

fn show(context: &Context, health: &MachineHealth) -> Result<(), Failure> {
    match context.output {
        Output::Json => context.say(&format!("{:#}", json!(health))),
        Output::Yaml => context.say(&yaml::to_string(&json!(health))?),
        Output::Name => {
            let names: Vec<&str> = health.waiting_for.iter().map(|one| one.what.as_str()).collect();
            context.say(&names.join("\n"))
        }
        Output::Table | Output::Wide => context.sheet(&sheet(health), &health.told()),
    }
}

fn sheet(health: &MachineHealth) -> Sheet {
    let mut sheet = Sheet::new(&["Waiting for", "Why"]);
    for Waiting { what, why } in &health.waiting_for {
        sheet.row(vec![what.clone(), why.clone()]);
    }
    sheet
}
