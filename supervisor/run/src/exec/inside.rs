//! The way in, in two processes, in the one order that works.
//!
//! Every step runs in a process that is between two worlds: it must not be looked into from inside
//! (not dumpable), must not carry descriptors in, and must not make the container's processes wait.

use std::convert::Infallible;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libcontainer::capabilities::{drop_privileges, reset_effective};
use libcontainer::oci_spec::runtime::LinuxCapabilities;
use libcontainer::syscall::syscall::create_syscall;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid};

use super::NOTHING;
use super::target::Target;
use crate::program::Program;
use crate::report::Failure;
use crate::user::Identity;
use crate::{seccomp, sys};

/// What runs inside, and as whom.
#[derive(Debug)]
pub struct Command {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// User and groups, in ids as seen inside.
    pub identity: Identity,
    /// Every set.
    pub capabilities: LinuxCapabilities,
}

/// Where the command's standard streams come from.
#[derive(Debug)]
pub enum Stdio {
    /// A new terminal of the container; its master goes out through this socket.
    Terminal(OwnedFd),
    /// These, with nothing to read if there is no input.
    Streams {
        /// Standard input.
        input: Option<OwnedFd>,
        /// Standard output.
        output: OwnedFd,
        /// Standard error.
        error: OwnedFd,
    },
}

/// All namespaces of the container but that of its control group: a process that has joined it can
/// no longer be cloned into a group outside of it, which is where this one still is.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Names the step that failed.
fn at<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::while_doing(doing, error)
}

/// Tells the outside of a failure and gives the process' exit code.
pub fn report_to(tell: &OwnedFd, outcome: Result<(), Failure>) -> i32 {
    match outcome {
        Ok(()) => 0,
        // A pipe that is gone means that nobody listens any more; the exit code still tells.
        Err(failure) => i32::from(failure.send(tell).map_or(failure.code, |()| failure.code)),
    }
}

/// The middle process: joins the container, leaves a child in it, and tells the child's pid.
pub fn join(
    target: &Target,
    command: &Command,
    stdio: &Stdio,
    tell: &OwnedFd,
    announce: &OwnedFd,
) -> Result<(), Failure> {
    // While it is still the host's root: both may go up.
    sys::set_limits(&target.limits).map_err(at("taking over the resource limits"))?;
    fs::write("/proc/self/oom_score_adj", target.oom_score.trim()).map_err(at("taking over the OOM score"))?;
    prctl::set_dumpable(false).map_err(at("hiding from the container's processes"))?;
    setns(target.pidfd(), NAMESPACES).map_err(at("joining the container's namespaces"))?;
    let pid = sys::clone_into_cgroup(target.cgroup(), || {
        let Err(failure) = become_command(target, command, stdio);
        report_to(tell, Err(failure))
    })
    .map_err(at("making a process in the container"))?;
    nix::unistd::write(announce, &pid.as_raw().to_ne_bytes()).map_err(at("telling the process' number"))?;
    Ok(())
}

/// The child: becomes the command, or says why not.
fn become_command(target: &Target, command: &Command, stdio: &Stdio) -> Result<Infallible, Failure> {
    nix::unistd::setsid().map_err(at("making a session"))?;
    setns(target.pidfd(), CloneFlags::CLONE_NEWCGROUP)
        .map_err(at("joining the container's control group namespace"))?;
    // Until now its ids mean nothing inside; a terminal could not even be given to the user.
    become_user(&Identity { uid: 0, gid: 0, groups: vec![], home: String::new() })?;
    connect(stdio, &command.identity)?;
    nix::unistd::chdir(target.cwd()).map_err(at("going to the working directory"))?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    sys::close_on_exec_from(3).map_err(at("keeping descriptors out of the container"))?;

    prctl::set_keepcaps(true).map_err(at("keeping capabilities over the change of user"))?;
    become_user(&command.identity)?;
    drop_capabilities(&command.capabilities)?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(at("tying the command to its caller"))?;
    prctl::set_no_new_privs().map_err(at("giving up new privileges"))?;
    let program = Program::find(&command.args, &command.env)?;
    seccomp::load(&target.system_calls).map_err(at("loading the system call filter"))?;
    Err(program.run())
}

fn become_user(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).map_err(at("setting the groups"))?;
    setresgid(gid, gid, gid).map_err(at("setting the group"))?;
    setresuid(uid, uid, uid).map_err(at("setting the user"))
}

fn drop_capabilities(wanted: &LinuxCapabilities) -> Result<(), Failure> {
    let syscall = create_syscall();
    reset_effective(syscall.as_ref()).map_err(at("taking the capabilities into use"))?;
    drop_privileges(wanted, syscall.as_ref()).map_err(at("dropping capabilities"))
}

fn connect(stdio: &Stdio, identity: &Identity) -> Result<(), Failure> {
    match stdio {
        Stdio::Terminal(socket) => connect_terminal(socket, identity),
        Stdio::Streams { input, output, error } => {
            match input {
                Some(input) => dup2_stdin(input),
                None => nix::fcntl::open("/dev/null", NOTHING, Mode::empty()).and_then(|nothing| dup2_stdin(&nothing)),
            }
            .map_err(at("connecting standard input"))?;
            dup2_stdout(output).map_err(at("connecting standard output"))?;
            dup2_stderr(error).map_err(at("connecting standard error"))
        }
    }
}

/// Opens a terminal of the container's own devpts, so that it has a name inside.
fn connect_terminal(socket: &OwnedFd, identity: &Identity) -> Result<(), Failure> {
    let doing = at("opening a terminal");
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(&doing)?;
    let terminal = sys::terminal_peer(master.as_fd()).map_err(at("opening the terminal's other side"))?;
    let rights = [master.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(b"t")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    )
    .map_err(at("handing the terminal out"))?;
    nix::unistd::fchown(&terminal, Some(Uid::from_raw(identity.uid)), None)
        .map_err(at("giving the terminal to the user"))?;
    sys::take_terminal(terminal.as_fd()).map_err(at("taking the terminal"))?;
    dup2_stdin(&terminal)
        .and_then(|()| dup2_stdout(&terminal))
        .and_then(|()| dup2_stderr(&terminal))
        .map_err(at("connecting the terminal"))
}
