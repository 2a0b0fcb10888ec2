//! What follows an installation: the report, what is left on the medium, and the machine's next start.

use std::fs;
use std::path::Path;

use berth_host::cmd::Command;
use serde_json::{Value, json};

use crate::config::{Action, Notify};
use crate::install::{self, Failed, Order};
use crate::mode::{FILE, INSTALLED, Origin};
use crate::seam::{Outcome, Phase};
use crate::volume::{Access, Volume, VolumeError};
use crate::{disks, http, words};

const REPORT: &str = "berth-report.json";
const BOOT: &str = "/boot";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// How often a medium hands over to what was installed from it before it gives up.
const STARTS: u64 = 3;

/// What there is to tell.
pub struct Told<'a> {
    /// What was to be done, if that much is known.
    pub order: Option<&'a Order>,
    /// What came of it.
    pub result: &'a Result<Outcome, Failed>,
}

impl Told<'_> {
    /// The report: never a secret, and so not the recovery code.
    fn report(&self) -> Value {
        let disk = self.order.and_then(|order| order.config.disk.as_ref()).map(|disk| json!(disk));
        match self.result {
            Ok(outcome) => json!({ "event": "installed", "url": outcome.url, "disk": disk }),
            Err(failed) => json!({
                "event": "failed", "phase": failed.phase, "exitCode": failed.phase.exit_code(),
                "what": failed.what(), "remedy": failed.remedy(), "disk": disk,
            }),
        }
    }
}

/// Leaves the report on the medium, sends it, and takes what is secret away from where it was read, once it is of no
/// more use there.
pub async fn told(told: &Told<'_>) {
    let report = told.report().to_string();
    if let Err(error) = leave(told, &report) {
        words::warn(&error);
    }
    let notify: Option<&Notify> = told.order.and_then(|order| order.config.notify.as_ref());
    if let Some(notify) = notify
        && let Err(error) = http::report(notify, &report).await
    {
        words::warn(&error);
    }
}

fn leave(told: &Told<'_>, report: &str) -> Result<(), VolumeError> {
    let boot = Volume::at(Path::new(BOOT));
    boot.write(REPORT, report)?;
    let (Some(order), Ok(_)) = (told.order, told.result) else { return Ok(()) };
    // Only then: a medium that has neither a configuration nor this would make itself a machine at its next start.
    count_start(&install::id(&order.text))?;
    match &order.origin {
        Some(Origin::Volume { device }) if is_booted(device) => boot.wipe(FILE),
        Some(Origin::Volume { device }) => Volume::mount(device, Access::Write)?.wipe(FILE),
        _ => Ok(()),
    }
}

/// Notes on the medium that what has this id was installed from it and is to be started; how often that was so.
///
/// # Errors
/// The medium cannot be written.
pub fn count_start(id: &str) -> Result<u64, VolumeError> {
    let boot = Volume::at(Path::new(BOOT));
    let starts = starts(id);
    boot.write(INSTALLED, &json!({ "id": id, "starts": starts + 1 }).to_string())?;
    Ok(starts + 1)
}

/// How often what was installed from the medium was to be started.
pub fn starts(id: &str) -> u64 {
    let kept = Volume::at(Path::new(BOOT)).read(INSTALLED, 4096).ok().flatten();
    let kept: Option<Value> = kept.and_then(|text| serde_json::from_str(&text).ok());
    kept.filter(|kept| kept["id"] == id).and_then(|kept| kept["starts"].as_u64()).unwrap_or_default()
}

/// A firmware that starts the medium whatever it is told would do so for ever.
pub fn next(wanted: Action, starts: u64) -> Action {
    if starts <= STARTS || wanted == Action::Poweroff {
        return wanted;
    }
    println!("Berth: the firmware starts the medium again and again: remove it, and switch the machine on");
    Action::Poweroff
}

fn is_booted(device: &Path) -> bool {
    let Some(booted) = disks::booted() else { return false };
    let link = Path::new("/dev/disk/by-partuuid").join(booted);
    fs::canonicalize(link).is_ok_and(|path| path == device)
}

/// Starts the machine anew, or switches it off; the exit code.
pub async fn finish(after: Action) -> u8 {
    let verb = match after {
        Action::Reboot => "reboot",
        Action::Poweroff => "poweroff",
    };
    match Command::new(SYSTEMCTL).arg(verb).run().await {
        Ok(_) => 0,
        Err(error) => {
            words::warn(&error);
            Phase::Report.exit_code()
        }
    }
}
