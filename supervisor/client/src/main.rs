//! `berth`: everything a person can do with a Berth machine, by its API.

use std::process::ExitCode;

use berth_client::cli::{self, Surroundings};
use clap::Parser;

#[allow(clippy::disallowed_methods, reason = "the main reads the clock for all who are handed the time")]
fn main() -> ExitCode {
    let surroundings = Surroundings { clock: jiff::Timestamp::now, new_key: || uuid::Uuid::new_v4().to_string() };
    cli::main(cli::Cli::parse(), surroundings)
}
