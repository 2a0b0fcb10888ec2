//! `berth`: everything a person can do with a Berth machine, by its API.

use std::process::ExitCode;

use berth_client::cli::{self, Surroundings};
use clap::Parser;
use ring::rand::{SecureRandom, SystemRandom};

#[allow(clippy::disallowed_methods, reason = "the main reads the clock for all who are handed the time")]
fn main() -> ExitCode {
    let new_key = || uuid::Uuid::new_v4().to_string();
    cli::main(cli::Cli::parse(), Surroundings { clock: jiff::Timestamp::now, new_key, random })
}

fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| std::io::Error::other("the kernel gives none"))
}
