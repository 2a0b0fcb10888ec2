//! `berth-installer`: can this machine hold Berth, what is it to become, and how does it become that?
//!
//! ```text
//! check      looks at a machine that runs, and changes nothing       people, berth-setup.service
//! validate   reads a berth.toml; needs no machine                    people
//! schema     prints what one may say                                 editors
//! mode       appliance or installation                               the ramdisk
//! install    puts the system that runs onto another disk             berth-install.service, people
//! apply      tells the supervisor what the berth.toml said           berth-first.service
//! ```

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use berth_host::link::Network;
use berth_installer::findings::{Finding, Level};
use berth_installer::here::Here;
use berth_installer::seam::Phase;
use berth_installer::tui::{self, Ending, Look};
use berth_installer::unattended::{self, Install};
use berth_installer::validate::Validate;
use berth_installer::{apply, facts, findings, mode, validate, words};
use clap::{Parser, Subcommand, ValueEnum};

/// Prepares a machine for Berth.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Without one: the installation's screens, on this terminal.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells whether this machine can hold Berth, and what to do if not.
    Check(Check),
    /// Tells what is wrong with a berth.toml, without a network or a machine: 0 if it can be used, 2 if not.
    Validate(Validate),
    /// Prints the JSON Schema of berth.toml.
    Schema,
    /// Puts the system that runs onto another disk of this machine. Exit codes: 2 no configuration that can be used, 10 the
    /// machine does not go with it; in these nothing was written. 20 the system, 30 the data, 40 the firmware, 50 the end.
    Install(Box<Install>),
    /// Decides in the ramdisk what a start is to be.
    #[command(hide = true)]
    Mode,
    /// Tells the supervisor what the configuration said that the machine was given.
    #[command(hide = true)]
    Apply,
}

/// What to check, and how to tell.
#[derive(Debug, Parser)]
struct Check {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Where Berth keeps its data.
    #[arg(long, default_value = "/var/lib/berth")]
    data_dir: PathBuf,
    /// Port of the API.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Addresses that Berth gives to services.
    #[arg(long, default_value = "10.213.0.0/16")]
    range: Network,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// One line per finding.
    Table,
    /// One object with all findings.
    Json,
}

/// Exit code where a configuration cannot be used.
const UNUSABLE: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else { return screens() };
    let (text, code) = match command {
        Command::Check(check) => checked(check).await,
        Command::Validate(asked) => validated(&asked),
        Command::Schema => (validate::printed_schema(), ExitCode::SUCCESS),
        Command::Install(asked) => (String::new(), ExitCode::from(unattended::run(&asked).await)),
        Command::Mode => (String::new(), ended(mode::run().await)),
        Command::Apply => (String::new(), ended(apply::run().await)),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The installation's screens. They run work of their own, each on a thread.
fn screens() -> ExitCode {
    let Check { port, range, .. } = Check::parse_from(["check"]);
    let look = Look::told(|name| std::env::var(name).ok());
    match std::thread::spawn(move || tui::run(&Here::new(port, range), look)).join() {
        Ok(Ok(Ending::Installed)) => ExitCode::SUCCESS,
        Ok(Ok(Ending::Left(failed))) => ExitCode::from(failed.map_or(1, Phase::exit_code)),
        Ok(Err(error)) => ended(Err(error)),
        Err(_) => ExitCode::FAILURE,
    }
}

/// The chain of an error is printed here, once.
fn ended<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            words::warn(&error);
            ExitCode::FAILURE
        }
    }
}

async fn checked(check: Check) -> (String, ExitCode) {
    let facts = facts::gather(check.data_dir, check.port, check.range).await;
    let findings = findings::judge(&facts);
    let text = match check.output {
        Form::Table => findings::table(&findings),
        Form::Json => findings::json(&findings),
    };
    let bearable = findings.iter().all(is_bearable);
    (text, if bearable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn validated(asked: &Validate) -> (String, ExitCode) {
    let verdict = validate::judge(&asked.file);
    let text = if asked.json { verdict.json() } else { verdict.text(&asked.file.display().to_string()) };
    (text, if verdict.valid { ExitCode::SUCCESS } else { ExitCode::from(UNUSABLE) })
}

fn is_bearable(finding: &Finding) -> bool {
    finding.level != Level::Fail
}
