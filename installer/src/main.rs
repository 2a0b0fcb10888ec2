//! `berth-installer`: can this machine hold Berth, and what is it to become?
//!
//! `check` looks at the machine ([`facts`]), judges what it saw ([`findings`]), prints one finding
//! per line or as JSON, and ends with 0 when nothing stands in the way and 1 otherwise. It is run
//! by people before they install the package, and before every start of `berth-setup.service`.
//! It changes nothing: what it tries out, it tries in a namespace of its own or takes away again.
//! `validate` and `schema` ([`validate`]) need no machine.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use berth_host::link::Network;
use berth_installer::findings::{Finding, Level};
use berth_installer::validate::Validate;
use berth_installer::{facts, findings, validate};
use clap::{Parser, Subcommand, ValueEnum};

/// Prepares a machine for Berth.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells whether this machine can hold Berth, and what to do if not.
    Check(Check),
    /// Tells what is wrong with a berth.toml, without a network or a machine: 0 if it can be used, 2 if not.
    Validate(Validate),
    /// Prints the JSON Schema of berth.toml.
    Schema,
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
    let (text, code) = match Arguments::parse().command {
        Command::Check(check) => checked(check).await,
        Command::Validate(asked) => validated(&asked),
        Command::Schema => (validate::printed_schema(), ExitCode::SUCCESS),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
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
