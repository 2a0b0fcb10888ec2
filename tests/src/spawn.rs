//! The one place where the tests start programs.
//!
//! The product spawns by absolute path through `berth_host::cmd`; the tests call the developer's own tools (QEMU,
//! skopeo, cargo...), wherever his PATH has them, and keep every child's handle: a process is ended by the handle that
//! started it and never by its name.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A program could not be run, or said that it failed.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is not there, or may not be run.
    #[error("starting {program}")]
    Start {
        /// What was to be started.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ran and ended with another code than 0.
    #[error("{program} ended with {status}:\n{said}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// Its last words on standard error (and output).
        said: String,
    },
}

/// A command to be filled in; nothing runs yet.
#[allow(clippy::disallowed_methods, reason = "the tests start the developer's own tools, which lie wherever PATH says")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs to the end and returns what it printed. Another exit code than 0 is an error with its last words.
pub fn output(command: &mut Command) -> Result<Vec<u8>, SpawnError> {
    let program = describe(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SpawnError::Start { program: program.clone(), source })?;
    checked(program, out)
}

/// Runs to the end with the caller's own output, for long builds.
pub fn run(command: &mut Command) -> Result<(), SpawnError> {
    let program = describe(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| SpawnError::Start { program: program.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(SpawnError::Failed { program, status: status.to_string(), said: "(see above)".into() })
}

/// Starts it and hands over its handle.
pub fn start(command: &mut Command) -> Result<Child, SpawnError> {
    command.spawn().map_err(|source| SpawnError::Start { program: describe(command), source })
}

fn checked(program: String, out: Output) -> Result<Vec<u8>, SpawnError> {
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let start = said.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
    Err(SpawnError::Failed { program, status: out.status.to_string(), said: said[start..].to_owned() })
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

type Request = (Command, Sender<io::Result<Child>>);

/// A command for [`start_tied`].
pub fn tied(program: &str) -> Command {
    let mut command = self::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Starts a program that the kernel kills when this process ends, however it ends.
///
/// The kernel ties the child to the *thread* that started it, so one thread that never ends starts them all.
///
/// `command` comes from [`tied`].
pub fn start_tied(command: Command) -> Result<Child, SpawnError> {
    static STARTER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (to, requests) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                // Nobody waits for the answer any more: then the child is dropped, and dies with us.
                let _unheard = reply.send(command.spawn());
            }
        });
        Mutex::new(to)
    });
    let program = describe(&command);
    let failed = |source| SpawnError::Start { program: program.clone(), source };
    let (reply, answer) = channel();
    let gone = || io::Error::other("the starting thread is gone");
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| failed(gone()))?;
    answer.recv().map_err(|_| failed(gone()))?.map_err(failed)
}
