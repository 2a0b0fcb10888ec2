//! `berth-installer install --unattended`: what was found at the start is carried out with nobody at hand, and told to
//! whoever shall know.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use berth_host::fs::FsError;
use clap::Args;
use serde_json::{Value, json};

use crate::aftermath::{Told, count_start, finish, next, starts, told};
use crate::config::{Action, Config, Fault, Overrides};
use crate::install::{self, Failed, Order, Why};
use crate::mode::{Asked, FILE, FOLDER, INSTALLED, Origin};
use crate::seam::{Phase, Progress};
use crate::{apply, http, words};

/// How much of a part has been told of last, in tenths.
static SAID: AtomicU64 = AtomicU64::new(0);
/// What the program ends with when the configuration cannot be had or read.
const NO_CONFIGURATION: u8 = 2;

/// What to install, and whether: as a file says, or as was found at the start, or as these words alone say. What is said
/// here goes before what a file says.
#[derive(Debug, Args)]
pub struct Install {
    /// As what was found at the start says.
    #[arg(long)]
    unattended: bool,
    /// As this file says.
    #[arg(long, value_name = "FILE", conflicts_with = "unattended")]
    config: Option<PathBuf>,
    /// Show what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Carries out what was found at the start, or what a file says, or shows what that would be; returns the exit code.
pub async fn run(asked: &Install) -> u8 {
    if let (true, Some(id)) = (asked.unattended, installed_before()) {
        return go_on(&id).await;
    }
    let order = match order(asked).await {
        Ok(order) if asked.dry_run => return planned(&order).await,
        Ok(order) => order,
        Err(why) => {
            let failed = Failed { phase: Phase::Check, why };
            said(&Progress::Failed { phase: failed.phase, what: failed.what(), remedy: failed.remedy() });
            told(&Told { order: None, result: &Err(failed) }).await;
            return NO_CONFIGURATION;
        }
    };
    let result = install::install(&order, &said).await;
    told(&Told { order: Some(&order), result: &result }).await;
    match result {
        Ok(_) => finish(next(order.config.action(), starts(&install::id(&order.text)))).await,
        Err(failed) => failed.phase.exit_code(),
    }
}

/// Shows what would be done.
async fn planned(order: &Order) -> u8 {
    match install::check(order).await {
        Ok(plan) => {
            println!("{:#}", json!(plan));
            0
        }
        Err(why) => {
            let failed = Failed { phase: Phase::Check, why };
            said(&Progress::Failed { phase: failed.phase, what: failed.what(), remedy: failed.remedy() });
            failed.phase.exit_code()
        }
    }
}

/// The id of what was installed from this medium, if that was its whole purpose.
fn installed_before() -> Option<String> {
    let folder = Path::new(FOLDER);
    if folder.join(FILE).exists() || Asked::now().url.is_some() {
        return None;
    }
    let kept: Value = serde_json::from_slice(&fs::read(folder.join(INSTALLED)).ok()?).ok()?;
    Some(kept["id"].as_str()?.to_owned())
}

/// The firmware has started the medium again: what was installed from it is started instead.
async fn go_on(id: &str) -> u8 {
    match install::start_installed(id).await {
        Ok(()) => match count_start(id) {
            Ok(starts) => finish(next(Action::Reboot, starts)).await,
            Err(error) => {
                words::warn(&error);
                Phase::Start.exit_code()
            }
        },
        Err(failed) => {
            said(&Progress::Failed { phase: failed.phase, what: failed.what(), remedy: failed.remedy() });
            failed.phase.exit_code()
        }
    }
}

/// What a file says, what was found at the start, or what is to be fetched.
async fn order(asked: &Install) -> Result<Order, Why> {
    let file = asked.config.as_deref();
    let folder = Path::new(FOLDER);
    let found = folder.join(FILE);
    let beside = file.and_then(Path::parent).unwrap_or(folder);
    let (text, origin) = match (file, found.exists()) {
        (Some(file), _) => (read(file)?, None),
        (None, _) if !asked.unattended => ("version = 1\n".to_owned(), None),
        (None, true) => (read(&found)?, origin(folder)),
        (None, false) => {
            let remedy = "put berth.toml on the medium's boot partition, or on a volume labelled BERTH";
            let (url, sum) = Asked::now().url.ok_or_else(|| Why::refused("no configuration was found", remedy))?;
            (http::fetch(&url, &sum).await?, Some(Origin::Url { url }))
        }
    };
    let faults = |faults: Vec<Fault>| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Why::refused(lines.join("\n"), "nothing was written; `berth-installer validate` says the same on any machine")
    };
    let config = Config::parse(&text, FILE).map_err(&faults)?;
    let missing = config.missing_files(beside, &text, FILE);
    if !missing.is_empty() {
        return Err(faults(missing));
    }
    let files = apply::named(&config).map(|name| Ok((name.into(), read(&beside.join(name))?.into_bytes())));
    let files = files.collect::<Result<_, Why>>()?;
    let wanted = asked.overrides.clone().over(config.clone()).map_err(faults)?;
    if wanted == config {
        return Ok(Order { config, text, files, origin });
    }
    let unwritable = |error: toml::ser::Error| Why::refused(error.to_string(), "say it in a file instead");
    let text = wanted.to_toml().map_err(unwritable)?.to_string();
    Ok(Order { config: wanted, text, files, origin })
}

fn read(path: &Path) -> Result<String, Why> {
    Ok(fs::read_to_string(path).map_err(|source| FsError::new("reading", path, source))?)
}

fn origin(folder: &Path) -> Option<Origin> {
    serde_json::from_slice(&fs::read(folder.join("origin.json")).ok()?).ok()
}

/// Onto the console and into the journal.
fn said(progress: &Progress) {
    match progress {
        Progress::Began(phase) => println!("Berth: {} ...", phase.words()),
        Progress::Part { phase, done, total } => {
            // Consoles are slow, and journals are kept.
            let tenths = (done * 10).checked_div(*total).unwrap_or_default();
            if SAID.swap(tenths, Ordering::Relaxed) != tenths {
                println!("Berth: {}: {} %", phase.words(), tenths * 10);
            }
        }
        Progress::Ended(_) => {}
        Progress::Failed { phase, what, remedy } => {
            println!("Berth: {} failed: {what}\nBerth: what to do: {remedy}", phase.words());
        }
        Progress::Finished(outcome) => println!("Berth: installed; it will answer at {}", outcome.url),
    }
}
