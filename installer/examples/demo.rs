//! The installer's interface before a machine that is made up: nothing is written, whatever is typed.
//!
//! `cargo run -p berth-installer --example demo`; the tests drive it through a terminal.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::Sender;

use berth_installer::config::{Action, Bus, Config, Keymap};
use berth_installer::findings::{Finding, Level};
use berth_installer::seam::{Disk, Machine, Outcome, Phase, Progress};
use berth_installer::tui::{self, Ending, Look};

struct Demo;

impl Machine for Demo {
    fn disks(&self) -> Vec<Disk> {
        vec![Disk {
            path: PathBuf::from("/dev/vda"),
            ids: vec![PathBuf::from("/dev/disk/by-id/virtio-S1-4242")],
            serial: Some("S1-4242".to_owned()),
            model: None,
            bus: Some(Bus::Virtio),
            bytes: 64 << 30,
            removable: false,
            boots_this: false,
            content: Some("ext4, 3 partitions".to_owned()),
            unfinished: false,
            installed: None,
        }]
    }

    fn findings(&self) -> Vec<Finding> {
        vec![Finding { name: "memory", level: Level::Ok, meaning: "made up: 8.0 GiB".to_owned(), action: None }]
    }

    fn use_keyboard(&self, _: &Keymap) {}

    fn install(&self, config: Config, progress: Sender<Progress>) {
        let said = Phase::ALL.into_iter().flat_map(|phase| {
            [Progress::Began(phase), Progress::Part { phase, done: 1, total: 2 }, Progress::Ended(phase)]
        });
        let url = format!("https://{}.local:6443", config.hostname.map(|name| name.to_string()).unwrap_or_default());
        let recovery_code = "dlhbktjr-ghfdcvnj-kebtulih-cdefghij-klnrtuvb-icndthgb-fkrlvjdu-tbcegikn".to_owned();
        let outcome = Outcome { recovery_code, url, claim: None };
        for one in said.chain([Progress::Finished(outcome)]) {
            if progress.send(one).is_err() {
                return;
            }
        }
    }

    fn finish(&self, _: Action) {}
}

fn main() -> ExitCode {
    let (text, code) = match tui::run(&Demo, Look::told(|name| std::env::var(name).ok())) {
        Ok(Ending::Installed) => ("installed\n".to_owned(), ExitCode::SUCCESS),
        Ok(Ending::Left(failed)) => ("left\n".to_owned(), ExitCode::from(failed.map_or(1, Phase::exit_code))),
        Err(error) => (format!("{error}\n"), ExitCode::FAILURE),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
