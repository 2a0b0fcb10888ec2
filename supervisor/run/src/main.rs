//! The command line of `berth-run`; see the library for what it does.

use std::error::Error;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;

use berth_run::exec::{self, ExecError, Request, Size, session};
use berth_run::launcher::Libcontainer;
use berth_run::paths::{ContainerId, Paths};
use berth_run::report::FAILED;
use berth_run::start;
use berth_run::stopped::{self, Told};
use berth_run::sys;
use clap::{Args, Parser, Subcommand};
use sd_notify::NotifyState;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What systemd and berthd call for one container.
#[derive(Debug, Parser)]
#[command(name = "berth-run", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// ExecStart of a unit: make the container and hand its first process to systemd
    Start {
        /// <namespace>.<bundle>.r<revision>
        id: ContainerId,
    },
    /// ExecStop (with --asked) and ExecStopPost of a unit: record how it ended
    Stopped {
        /// Called by ExecStop
        #[arg(long)]
        asked: bool,
        /// <namespace>.<bundle>.r<revision>
        id: ContainerId,
    },
    /// Run a command in a running container, confined as the container is
    Exec(ExecArguments),
    /// Run one command for the daemon, which is at the other end of standard input
    Session,
}

#[derive(Args, Debug)]
struct ExecArguments {
    /// Give the command a terminal of this size
    #[arg(long, value_name = "ROWSxCOLS", value_parser = exec::size)]
    tty: Option<Size>,
    /// Without a terminal: pass standard input on
    #[arg(short = 'i', long, conflicts_with = "tty")]
    interactive: bool,
    /// As in an image: user, uid, user:group; the container's own user if absent
    #[arg(long)]
    user: Option<String>,
    /// Read more environment (NAME=value, each ended by a zero byte) from this open descriptor
    #[arg(long, value_name = "N")]
    env_fd: Option<RawFd>,
    /// <namespace>.<bundle>.r<revision>
    id: ContainerId,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    log_to_stderr();
    let paths = Paths::default();
    let code = match Arguments::parse().command {
        Command::Start { id } => start(&paths, &id),
        Command::Stopped { asked, id } => stopped(&paths, &id, asked),
        Command::Exec(arguments) => exec(&paths, arguments),
        Command::Session => session(&paths),
    };
    ExitCode::from(code)
}

/// The runtime flattens its errors into a word or two; where the words come from it logs. What it
/// logs on the way out again only repeats them.
fn log_to_stderr() {
    let causes = [
        "berth_run",
        "libcontainer::namespaces",
        "libcontainer::process::init",
        "libcontainer::rootfs",
        "libcontainer::syscall",
        "libcontainer::user_ns",
    ];
    let filter =
        causes.into_iter().fold(Targets::new(), |filter, target| filter.with_target(target, LevelFilter::ERROR));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_ansi(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

fn start(paths: &Paths, id: &ContainerId) -> u8 {
    match start::start(paths, id, &Libcontainer) {
        Ok(()) => 0,
        Err(error) => {
            let text = explain(&error);
            if let Err(error) = sd_notify::notify(&[NotifyState::Status(&text)]) {
                tracing::error!(%error, "cannot tell systemd the status");
            }
            error.exit_code()
        }
    }
}

fn stopped(paths: &Paths, id: &ContainerId, asked: bool) -> u8 {
    let told = Told::from(|name| std::env::var(name).ok());
    let outcome = match asked {
        true => stopped::asked(paths, id, &told),
        false => stopped::ended(paths, id, &told),
    };
    outcome.map_or_else(
        |error| {
            explain(&error);
            1
        },
        |()| 0,
    )
}

fn exec(paths: &Paths, arguments: ExecArguments) -> u8 {
    let env = match arguments.env_fd.map(environment).unwrap_or_else(|| Ok(Vec::new())) {
        Ok(env) => env,
        Err(error) => {
            explain(&error);
            return FAILED;
        }
    };
    let request = Request {
        command: arguments.command,
        terminal: arguments.tty,
        input: arguments.interactive,
        user: arguments.user,
        env,
    };
    exec::exec(paths, &arguments.id, request).unwrap_or_else(|error| {
        explain(&error);
        error.exit_code()
    })
}

fn environment(number: RawFd) -> Result<Vec<String>, ExecError> {
    let from: OwnedFd = sys::passed_descriptor(number).map_err(ExecError::Environment)?;
    exec::read_environment(from)
}

/// A session's command that does not run is told to the other side; an error here is a fault.
fn session(paths: &Paths) -> u8 {
    let socket = sys::passed_descriptor(0).map_err(ExecError::Prepare);
    match socket.and_then(|socket| session::serve(paths, socket)) {
        Ok(()) => 0,
        Err(error) => {
            explain(&error);
            error.exit_code()
        }
    }
}

/// Prints an error with all its causes, for the journal with the priority "error", and gives the
/// text.
fn explain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let priority = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => "<3>",
        None => "",
    };
    eprintln!("{priority}berth-run: {text}");
    text
}
