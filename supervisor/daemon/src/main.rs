//! `berthd`: the supervisor's daemon, and its `setup`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use berthd::config::{Command, CommandLine, Config};
use berthd::{daemon, log, setup};
use clap::Parser;
use ring::rand::SystemRandom;

/// How long work on blocking threads may go on after the end.
const LAST_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match start(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd: {}", log::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start(line: &CommandLine) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&line.settings)?;
    log::begin(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match line.command {
        Some(Command::Setup) => {
            let report = runtime.block_on(setup::run(&config.data, now(), &SystemRandom::new()))?;
            tracing::info!(?report, "the machine is set up");
        }
        None => runtime.block_on(daemon::run(config, Arc::new(now)))?,
    }
    // An image may be unpacking on a thread of its own; what it leaves is cleared at the next start.
    runtime.shutdown_timeout(LAST_WORK);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the one clock of the process, handed on as a parameter")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
