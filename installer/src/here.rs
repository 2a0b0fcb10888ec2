//! This very machine, for the interface: its disks, whether it can hold Berth, and the installation itself.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use berth_host::cmd::Command;
use berth_host::link::Network;
use tokio::runtime::{Builder, Runtime};

use crate::aftermath::{self, Told};
use crate::config::{Action, Config, Keymap};
use crate::facts;
use crate::findings::{self, Finding, Level};
use crate::install::{self, Order};
use crate::seam::{Disk, Machine, Phase, Progress};
use crate::{disks, words};

/// Of what is looked at on a machine that runs services: what is so of one that is yet to, too.
const HARDWARE: [&str; 6] = ["architecture", "kernel", "control groups", "user namespaces", "packet filter", "memory"];
const TPM: &str = "/sys/class/tpm/tpm0/tpm_version_major";
const LOADKEYS: &str = "/usr/bin/loadkeys";

/// This machine.
#[derive(Debug)]
pub struct Here {
    /// Addresses and a port that are looked at on a machine that runs services.
    port: u16,
    range: Network,
}

impl Here {
    /// As `check` looks at it if nothing else is said.
    pub fn new(port: u16, range: Network) -> Self {
        Self { port, range }
    }
}

/// Each call comes on a thread of its own.
fn runtime() -> Option<Runtime> {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            words::warn(&error);
            None
        }
    }
}

impl Machine for Here {
    fn disks(&self) -> Vec<Disk> {
        let Some(runtime) = runtime() else { return Vec::new() };
        runtime.block_on(disks::list()).unwrap_or_else(|error| {
            words::warn(&error);
            Vec::new()
        })
    }

    fn findings(&self) -> Vec<Finding> {
        let Some(runtime) = runtime() else { return Vec::new() };
        let facts = runtime.block_on(facts::gather("/var/lib/berth".into(), self.port, self.range));
        let known = findings::judge(&facts).into_iter().filter(|finding| HARDWARE.contains(&finding.name));
        known.chain([tpm()]).collect()
    }

    fn use_keyboard(&self, keymap: &Keymap) {
        let Some(runtime) = runtime() else { return };
        if Path::new(LOADKEYS).exists()
            && let Err(error) = runtime.block_on(Command::new(LOADKEYS).arg(keymap.as_str()).run())
        {
            words::warn(&error);
        }
    }

    fn install(&self, config: Config, progress: Sender<Progress>) {
        let failed = |what: String| Progress::Failed { phase: Phase::Check, what, remedy: "start again".to_owned() };
        // Nobody listens any more once the interface has been left; the installation goes on.
        let say = |said: Progress| drop(progress.send(said));
        let (text, runtime) = match (config.to_toml(), runtime()) {
            (Ok(text), Some(runtime)) => (text.to_string(), runtime),
            (Err(error), _) => return say(failed(words::chain(&error))),
            (_, None) => return say(failed("this machine is out of resources".to_owned())),
        };
        let order = Order { config, text, files: Vec::new(), origin: None };
        let sender = Mutex::new(progress.clone());
        let tell = |said: &Progress| {
            if let Ok(sender) = sender.lock() {
                drop(sender.send(said.clone()));
            }
        };
        runtime.block_on(async {
            let result = install::install(&order, &tell).await;
            aftermath::told(&Told { order: Some(&order), result: &result }).await;
        });
    }

    fn finish(&self, action: Action) {
        let Some(runtime) = runtime() else { return };
        runtime.block_on(aftermath::finish(action));
    }
}

/// Whether the data can be opened with nobody at hand.
fn tpm() -> Finding {
    let there = fs::read_to_string(TPM).is_ok_and(|version| version.trim() == "2");
    let (level, meaning, action) = match there {
        true => (Level::Ok, "a TPM 2.0 opens the data at each start", None),
        false => (
            Level::Warn,
            "no TPM 2.0: each start waits for the recovery code",
            Some("turn it on in the firmware's settings if the machine has one".to_owned()),
        ),
    };
    Finding { name: "tpm", level, meaning: meaning.to_owned(), action }
}
