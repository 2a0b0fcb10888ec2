//! One command for the daemon: a local socket carries the request, both directions of its streams,
//! its terminal's size and its end (`berth_model::session`).
//!
//! systemd starts one of these per connection (`berth-exec@.service`), with all the rights that it
//! takes to enter a container, which the daemon itself does not have. When the other side hangs up,
//! the command and its process group are killed: a session leaves nothing behind.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_model::session::{Begin, Decoder, Frame, Refusal};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::inside::Stdio;
use super::relay::{END_OF_INPUT, receive_descriptor};
use super::target::Target;
use super::{ExecError, Request, command, copy, enter, exit_code, socket_pair, winsize};
use crate::paths::{ContainerId, Paths};
use crate::report;
use crate::sys::{self, Interest};

/// Read at once.
const BUFFER: usize = 16 << 10;

/// Serves the session on `socket` to its end.
///
/// A command that cannot be run is told to the other side and is no error of the session.
pub fn serve(paths: &Paths, socket: OwnedFd) -> Result<(), ExecError> {
    let mut channel = Channel { socket, decoder: Decoder::default() };
    let Some(begin) = channel.begin()? else { return Ok(()) };
    let (pid, streams) = match start(paths, begin) {
        Ok(started) => started,
        Err(error) => {
            let refusal = Refusal { code: error.exit_code(), message: with_causes(&error) };
            return channel.say(&Frame::Refused(refusal));
        }
    };
    let served = run(&mut channel, pid, streams);
    if !matches!(served, Ok(true)) {
        // Nobody listens any more. The command has a session of its own, and so a group of its own.
        end(pid)?;
    }
    served.map(drop)
}

/// Kills the command with its process group, and waits for it.
fn end(pid: Pid) -> Result<(), ExecError> {
    match killpg(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => waitpid(pid, None).map(drop).map_err(ExecError::Wait),
        Err(errno) => Err(ExecError::Wait(errno)),
    }
}

/// Until the command has ended (true) or the other side has gone.
fn run(channel: &mut Channel, pid: Pid, mut streams: Streams) -> Result<bool, ExecError> {
    ignore_broken_pipes().map_err(ExecError::Relay)?;
    let pidfd = sys::pidfd_open(pid).map_err(ExecError::Relay)?;
    channel.say(&Frame::Started)?;
    loop {
        match turn(channel, &pidfd, &mut streams)? {
            Turn::Again => {}
            Turn::Gone => return Ok(false),
            Turn::Ended => break,
        }
    }
    streams.drain(channel)?;
    let status = waitpid(pid, None).map_err(ExecError::Wait)?;
    channel.say(&Frame::Ended(exit_code(status)))?;
    Ok(true)
}

enum Turn {
    Again,
    Gone,
    Ended,
}

/// Waits once and does what can be done.
fn turn(channel: &mut Channel, pidfd: &OwnedFd, streams: &mut Streams) -> Result<Turn, ExecError> {
    // While the command does not take its input, no more is asked for; a hang-up is seen all the same.
    let listen = if streams.pending.is_empty() { libc::POLLIN } else { 0 };
    let mut interests = vec![
        Interest { fd: channel.socket.as_fd(), events: listen },
        Interest { fd: pidfd.as_fd(), events: libc::POLLIN },
    ];
    let output: Vec<usize> = (0..streams.outputs.len()).collect();
    interests.extend(streams.outputs.iter().map(|(_, from)| Interest { fd: from.as_fd(), events: libc::POLLIN }));
    if let Some(input) = streams.input.as_ref().filter(|_| !streams.pending.is_empty()) {
        interests.push(Interest { fd: input.as_fd(), events: libc::POLLOUT });
    }
    let seen = sys::poll(&interests).map_err(ExecError::Relay)?;
    drop(interests);
    let at = |index: usize| seen.get(index).copied().unwrap_or_default();
    for index in output.into_iter().rev() {
        if at(2 + index) != 0 {
            streams.pass_output(index, channel)?;
        }
    }
    if !streams.pending.is_empty() {
        streams.feed().map_err(ExecError::Relay)?;
    }
    if at(1) != 0 {
        return Ok(Turn::Ended);
    }
    if at(0) & libc::POLLIN != 0 {
        return channel.hear(streams);
    }
    Ok(if at(0) & (libc::POLLHUP | libc::POLLERR) != 0 { Turn::Gone } else { Turn::Again })
}

fn start(paths: &Paths, begin: Begin) -> Result<(Pid, Streams), ExecError> {
    let id: ContainerId =
        begin.id.parse().map_err(|error| ExecError::Prepare(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let target = Target::open(paths, &id).map_err(ExecError::Target)?;
    sys::reset_signals().map_err(ExecError::Signals)?;
    let request = Request {
        command: begin.command,
        terminal: begin.terminal,
        input: begin.input,
        user: begin.user,
        env: begin.env,
    };
    let (terminal, input) = (request.terminal, request.input);
    let command = command(&target, request)?;
    if let Some(size) = terminal {
        let (ours, theirs) = socket_pair().map_err(ExecError::Prepare)?;
        let pid = enter(&target, &command, Stdio::Terminal(theirs))?;
        let streams = receive_descriptor(&ours).and_then(|master| {
            sys::set_terminal_size(master.as_fd(), &winsize(size))?;
            Streams::of_terminal(master)
        });
        return match streams {
            Ok(streams) => Ok((pid, streams)),
            Err(error) => {
                end(pid)?;
                Err(ExecError::Terminal(error))
            }
        };
    }
    let (streams, theirs) = Streams::of_pipes(input).map_err(ExecError::Prepare)?;
    Ok((enter(&target, &command, theirs)?, streams))
}

/// Which of the command's outputs.
#[derive(Clone, Copy, Debug)]
enum Which {
    Output,
    Error,
}

/// Our side of the command's streams.
#[derive(Debug)]
struct Streams {
    input: Option<OwnedFd>,
    /// What the command has not taken yet.
    pending: Vec<u8>,
    /// The input ends when all of that is taken.
    ending: bool,
    outputs: Vec<(Which, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    fn of_pipes(input: bool) -> io::Result<(Self, Stdio)> {
        let (output, their_output) = report::pipe()?;
        let (error, their_error) = report::pipe()?;
        let (their_input, ours) = match input {
            true => report::pipe().map(|(read, write)| (Some(read), Some(write)))?,
            false => (None, None),
        };
        for fd in [Some(&output), Some(&error), ours.as_ref()].into_iter().flatten() {
            never_wait(fd)?;
        }
        let outputs = vec![(Which::Output, output), (Which::Error, error)];
        let stdio = Stdio::Streams { input: their_input, output: their_output, error: their_error };
        Ok((Self { input: ours, pending: Vec::new(), ending: false, outputs, terminal: None }, stdio))
    }

    fn of_terminal(master: OwnedFd) -> io::Result<Self> {
        never_wait(&master)?;
        Ok(Self {
            input: Some(copy(&master)?),
            pending: Vec::new(),
            ending: false,
            outputs: vec![(Which::Output, copy(&master)?)],
            terminal: Some(master),
        })
    }

    /// Passes on what there is; an output that has ended is looked at no more.
    fn pass_output(&mut self, index: usize, channel: &mut Channel) -> Result<bool, ExecError> {
        let Some((which, from)) = self.outputs.get(index) else { return Ok(false) };
        let mut bytes = [0; BUFFER];
        match nix::unistd::read(from, &mut bytes) {
            // The last process on the other side of a terminal has gone: EIO.
            Ok(0) | Err(Errno::EIO) => {
                self.outputs.remove(index);
                Ok(false)
            }
            Ok(length) => {
                let bytes = bytes.get(..length).unwrap_or_default().to_vec();
                channel.say(&match which {
                    Which::Output => Frame::Output(bytes),
                    Which::Error => Frame::Error(bytes),
                })?;
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(ExecError::Relay(errno.into())),
        }
    }

    /// Passes on what the ended command has written. Processes that it has left behind may hold the
    /// other side open for ever; so only what is there is taken.
    fn drain(&mut self, channel: &mut Channel) -> Result<(), ExecError> {
        for index in (0..self.outputs.len()).rev() {
            while self.pass_output(index, channel)? {}
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.input.is_some() {
            self.pending.extend_from_slice(bytes);
        }
        self.feed()
    }

    fn end_input(&mut self) -> io::Result<()> {
        match self.terminal {
            Some(_) => self.take(&[END_OF_INPUT]),
            None => {
                self.ending = true;
                self.feed()
            }
        }
    }

    /// Writes what the command takes now.
    fn feed(&mut self) -> io::Result<()> {
        while let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            match nix::unistd::write(input, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                // It reads no more.
                Err(Errno::EPIPE | Errno::EIO) => {
                    self.input = None;
                    self.pending.clear();
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.ending {
            self.input = None;
        }
        Ok(())
    }
}

fn never_wait(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The daemon's end of the socket, as frames.
struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
}

impl Channel {
    /// The first frame; nothing if the other side went away without one.
    fn begin(&mut self) -> Result<Option<Begin>, ExecError> {
        loop {
            match self.decoder.next_frame().map_err(ExecError::Session)? {
                Some(Frame::Begin(begin)) => return Ok(Some(begin)),
                Some(_) => return Err(ExecError::Prepare(io::ErrorKind::InvalidData.into())),
                None => {}
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads once; false at the end.
    fn fill(&mut self) -> Result<bool, ExecError> {
        let mut bytes = [0; BUFFER];
        match nix::unistd::read(&self.socket, &mut bytes) {
            Ok(0) | Err(Errno::ECONNRESET) => Ok(false),
            Ok(length) => {
                self.decoder.push(bytes.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(ExecError::Relay(errno.into())),
        }
    }

    fn hear(&mut self, streams: &mut Streams) -> Result<Turn, ExecError> {
        if !self.fill()? {
            return Ok(Turn::Gone);
        }
        while let Some(frame) = self.decoder.next_frame().map_err(ExecError::Session)? {
            let done = match frame {
                Frame::Input(bytes) => streams.take(&bytes),
                Frame::EndOfInput => streams.end_input(),
                Frame::Resize(size) => match &streams.terminal {
                    Some(terminal) => sys::set_terminal_size(terminal.as_fd(), &winsize(size)),
                    None => Ok(()),
                },
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
            done.map_err(ExecError::Relay)?;
        }
        Ok(Turn::Again)
    }

    fn say(&mut self, frame: &Frame) -> Result<(), ExecError> {
        let bytes = frame.encode().map_err(ExecError::Session)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match nix::unistd::write(&self.socket, rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ExecError::Relay(errno.into())),
            }
        }
        Ok(())
    }
}

/// A side that hangs up is an error of writing to it, not the end of this process: the command has
/// to be ended first.
fn ignore_broken_pipes() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::from(Signal::SIGPIPE)), None)?)
}

fn with_causes(error: &ExecError) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
