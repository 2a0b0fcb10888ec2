//! `berth-run exec <id> -- CMD`: one more command in a running container, confined as it is.
//!
//! ```text
//! outside                       middle                        command
//! look at the container ──────► limits, oom score
//!                               join user mount pid net ipc uts
//!                               clone into the cgroup ───────► own session, cgroup namespace, root of the user namespace
//! wait for middle  ◄─────────── pid, exit                      terminal or pipes
//! wait for exec or failure ◄────────────────────────────────── directory, user, capabilities, no new privileges, seccomp
//! relay terminal, forward signals, wait ◄───────────────────── program
//! ```
//!
//! Outside stays outside: after joining a pid namespace a process makes children there alone, and
//! relaying and waiting are simpler from here. The command is born inside the container's control
//! group, so that its limits hold from the first instruction on, and as a child of *outside*.
//!
//! The caller is a person at a terminal ([`exec`]) or the daemon behind a socket ([`session`]).

mod inside;
mod relay;
pub mod session;
mod target;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use berth_model::session::SessionError;
pub use berth_model::session::Size;
use nix::fcntl::OFlag;
use nix::pty::Winsize;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::paths::{ContainerId, Paths};
use crate::report::{self, FAILED, Failure};
use crate::user::UserError;
use crate::{spec, sys, user};
use inside::{Command, Stdio};
use target::{Target, TargetError};

/// Added to a signal's number, as shells do.
const SIGNAL_BASE: u8 = 128;
/// Larger environments than the kernel would take are not even read.
const LARGEST_ENVIRONMENT: u64 = 1 << 20;

/// What is to be run.
#[derive(Debug)]
pub struct Request {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal of this size.
    pub terminal: Option<Size>,
    /// Without a terminal: whether there is any input, else it is empty.
    pub input: bool,
    /// As in an image's configuration; absent is the user of the container's first process.
    pub user: Option<String>,
    /// More environment, `NAME=value`.
    pub env: Vec<String>,
}

/// Reads `ROWSxCOLS`.
pub fn size(text: &str) -> Result<Size, String> {
    let parsed = text
        .split_once('x')
        .and_then(|(rows, columns)| Some(Size { rows: rows.parse().ok()?, columns: columns.parse().ok()? }));
    parsed.ok_or_else(|| format!("{text:?} is not ROWSxCOLS, such as 24x80"))
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Which step failed before the command ran.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container is not there or not to be entered.
    #[error("looking at the container")]
    Target(#[source] TargetError),
    /// The user.
    #[error("finding the user")]
    User(#[source] UserError),
    /// The environment that was to be read.
    #[error("reading the environment")]
    Environment(#[source] io::Error),
    /// The daemon's side of a session said something that is none.
    #[error("hearing from the session's other side")]
    Session(#[source] SessionError),
    /// Signals could not be given their default actions.
    #[error("resetting signals")]
    Signals(#[source] nix::Error),
    /// Pipes, sockets, the helper process.
    #[error("preparing to enter the container")]
    Prepare(#[source] io::Error),
    /// A step inside, or the program.
    #[error("running the command")]
    Inside(#[source] Failure),
    /// The helper ended without a word.
    #[error("entering the container: the helper ended ({0})")]
    Vanished(String),
    /// The terminal's other end did not come.
    #[error("taking over the terminal")]
    Terminal(#[source] io::Error),
    /// Passing bytes and signals on.
    #[error("relaying to and from the command")]
    Relay(#[source] io::Error),
    /// The command's end could not be seen.
    #[error("waiting for the command")]
    Wait(#[source] nix::Error),
}

impl ExecError {
    /// 126 and 127 as a shell has them, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Inside(failure) => failure.code,
            _ => FAILED,
        }
    }
}

/// Runs a command in container `id` and gives its exit code, 128 and more for a signal.
pub fn exec(paths: &Paths, id: &ContainerId, request: Request) -> Result<u8, ExecError> {
    let target = Target::open(paths, id).map_err(ExecError::Target)?;
    sys::reset_signals().map_err(ExecError::Signals)?;
    let terminal = request.terminal;
    let input = request.input;
    let command = command(&target, request)?;

    let (ours, theirs) = relay::channels(terminal, input).map_err(ExecError::Prepare)?;
    let running = enter(&target, &command, theirs)?;
    let relay = ours
        .into_relay(terminal)
        .map_err(ExecError::Terminal)
        .and_then(|relay| relay.run(running).map_err(ExecError::Relay));
    if relay.is_err() {
        // Without anybody to talk to it must not stay.
        nix::sys::signal::kill(running, nix::sys::signal::SIGKILL).map_err(ExecError::Wait)?;
    }
    let status = waitpid(running, None).map_err(ExecError::Wait)?;
    relay?;
    Ok(exit_code(status))
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(u8::MAX),
        WaitStatus::Signaled(_, signal, _) => {
            u8::try_from(signal as i32).map_or(u8::MAX, |signal| SIGNAL_BASE.saturating_add(signal))
        }
        _ => FAILED,
    }
}

/// Puts together what is run as whom; everything that needs files of the container's root is
/// looked up from outside.
fn command(target: &Target, request: Request) -> Result<Command, ExecError> {
    let identity = match &request.user {
        Some(wanted) => user::resolve_in(&target.root(), wanted, target.ids()).map_err(ExecError::User)?,
        None => target.own_identity(),
    };
    let mut env = target.env();
    if request.user.is_some() {
        env.retain(|entry| !entry.starts_with("HOME="));
    }
    env = merged(env, request.env);
    if request.terminal.is_some() && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    Ok(Command {
        args: request.command,
        env: spec::environment(&env, &identity),
        capabilities: target.capabilities(identity.uid),
        identity,
    })
}

/// Reads environment, `NAME=value` each ended by a zero byte, to its end.
pub fn read_environment(from: OwnedFd) -> Result<Vec<String>, ExecError> {
    entries(from).map_err(ExecError::Environment)
}

fn entries(from: OwnedFd) -> io::Result<Vec<String>> {
    let mut text = String::new();
    File::from(from).take(LARGEST_ENVIRONMENT).read_to_string(&mut text)?;
    let entries = text.split('\0').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => Ok(entry.to_owned()),
            _ => Err(io::Error::other("an entry is not NAME=value")),
        })
        .collect()
}

/// `added` entries replace those of the same name.
fn merged(mut env: Vec<String>, added: Vec<String>) -> Vec<String> {
    for entry in added {
        let name = entry.split_inclusive('=').next().unwrap_or_default();
        env.retain(|present| !present.starts_with(name));
        env.push(entry);
    }
    env
}

/// Sends a process in, and comes back when its program runs.
fn enter(target: &Target, command: &Command, stdio: Stdio) -> Result<Pid, ExecError> {
    let (heard, tell) = report::pipe().map_err(ExecError::Prepare)?;
    let (born, announce) = report::pipe().map_err(ExecError::Prepare)?;
    let middle = sys::fork_child(|| {
        let outcome = inside::join(target, command, &stdio, &tell, &announce);
        inside::report_to(&tell, outcome)
    })
    .map_err(ExecError::Prepare)?;
    drop((tell, announce, stdio));
    let ended = waitpid(middle, None).map_err(ExecError::Wait)?;
    let pid = read_pid(born).map_err(ExecError::Prepare)?;
    let failure = report::receive(heard).map_err(ExecError::Prepare)?;
    match (pid, failure) {
        (Some(pid), None) => Ok(pid),
        (Some(pid), Some(failure)) => {
            waitpid(pid, None).map_err(ExecError::Wait)?;
            Err(ExecError::Inside(failure))
        }
        (None, Some(failure)) => Err(ExecError::Inside(failure)),
        (None, None) => Err(ExecError::Vanished(format!("{ended:?}"))),
    }
}

fn read_pid(born: OwnedFd) -> io::Result<Option<Pid>> {
    let mut bytes = Vec::new();
    File::from(born).read_to_end(&mut bytes)?;
    let pid = bytes.try_into().ok().map(i32::from_ne_bytes);
    Ok(pid.map(Pid::from_raw))
}

/// A pair of connected sockets that no program inherits.
fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A descriptor of the same open file for somebody else.
fn copy(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// `/dev/null` of the host is not the container's; it is opened again inside.
const NOTHING: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn a_size_is_rows_and_columns() {
        assert_eq!(size("40x120"), Ok(Size { rows: 40, columns: 120 }));
        for text in ["", "40", "40x", "x120", "40x70000", "-1x5"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let pid = Pid::from_raw(1);
        assert_eq!(exit_code(WaitStatus::Exited(pid, 7)), 7);
        let killed = WaitStatus::Signaled(pid, Signal::SIGKILL, false);
        assert_eq!(exit_code(killed), 137);
    }

    #[test]
    fn added_environment_replaces_entries_of_the_same_name() {
        let entries = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let merged: Vec<String> = merged(entries(&["A=1", "AB=2"]), entries(&["A=3", "C="]));
        assert_eq!(merged, ["AB=2", "A=3", "C="]);
    }

    #[test]
    fn environment_is_read_as_entries_that_end_in_a_zero_byte() {
        let read = |bytes: &[u8]| {
            let (from, into) = report::pipe().unwrap();
            report::send_bytes(into, bytes).unwrap();
            entries(from)
        };
        assert_eq!(read(b"A=1\nB\0C=\0").unwrap(), ["A=1\nB", "C="]);
        assert!(read(b"").unwrap().is_empty());
        assert!(read(b"A=1\0=2\0").is_err());
        assert!(read(b"A\0").is_err());
    }
}
