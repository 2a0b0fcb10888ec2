//! Between the caller and the command: bytes, terminal size, signals, until the command has ended.
//!
//! Without a terminal the command has the caller's own streams and nothing is copied, but for a
//! stream that is the caller's *terminal*: that is not handed into a container, bytes are.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, isatty};

use super::inside::Stdio;
use super::{Size, copy, socket_pair, winsize};
use crate::report;
use crate::sys::{self, Interest};

/// At most this much is read ahead of the reader; a pipe that can be written to takes it at once.
const BUFFER: usize = 4096;
/// What a terminal sends for the end of input.
pub const END_OF_INPUT: u8 = 0x04;
/// Passed on to the command; the other end of a terminal makes its own.
const FORWARDED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Our side of the command's streams.
#[derive(Debug)]
pub enum Ours {
    /// The master comes through this socket.
    Terminal(OwnedFd),
    /// What has to be copied, possibly nothing.
    Streams(Vec<Pump>),
}

/// Both sides of the command's streams.
pub fn channels(terminal: Option<Size>, input: bool) -> io::Result<(Ours, Stdio)> {
    if terminal.is_some() {
        let (ours, theirs) = socket_pair()?;
        return Ok((Ours::Terminal(ours), Stdio::Terminal(theirs)));
    }
    let mut pumps = Vec::new();
    let input = match input {
        true => Some(from_caller(io::stdin().as_fd(), &mut pumps)?),
        false => None,
    };
    let output = to_caller(io::stdout().as_fd(), &mut pumps)?;
    let error = to_caller(io::stderr().as_fd(), &mut pumps)?;
    let stdio = Stdio::Streams { input, output, error };
    Ok((Ours::Streams(pumps), stdio))
}

fn is_terminal(stream: BorrowedFd<'_>) -> bool {
    isatty(stream).unwrap_or(false)
}

fn from_caller(stream: BorrowedFd<'_>, pumps: &mut Vec<Pump>) -> io::Result<OwnedFd> {
    let own = copy(stream)?;
    if !is_terminal(stream) {
        return Ok(own);
    }
    let (read, write) = report::pipe()?;
    pumps.push(Pump::new(own, write));
    Ok(read)
}

fn to_caller(stream: BorrowedFd<'_>, pumps: &mut Vec<Pump>) -> io::Result<OwnedFd> {
    let own = copy(stream)?;
    if !is_terminal(stream) {
        return Ok(own);
    }
    let (read, write) = report::pipe()?;
    pumps.push(Pump::new(read, own).drained());
    Ok(write)
}

impl Ours {
    /// Takes the terminal over, gives it its size, and is ready to run.
    pub fn into_relay(self, size: Option<Size>) -> io::Result<Relay> {
        match self {
            Self::Streams(pumps) => Ok(Relay { pumps, terminal: None, caller: None }),
            Self::Terminal(socket) => {
                let master = receive_descriptor(&socket)?;
                terminal_relay(master, size)
            }
        }
    }
}

fn terminal_relay(master: OwnedFd, size: Option<Size>) -> io::Result<Relay> {
    if let Some(size) = size {
        sys::set_terminal_size(master.as_fd(), &winsize(size))?;
    }
    let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
    fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut input = Pump::new(copy(io::stdin())?, copy(&master)?);
    input.last_word = Some(END_OF_INPUT);
    let output = Pump::new(copy(&master)?, copy(io::stdout())?).drained();
    let caller = match is_terminal(io::stdin().as_fd()) {
        true => Some(RawTerminal::new(copy(io::stdin())?)?),
        false => None,
    };
    Ok(Relay { pumps: vec![input, output], terminal: Some(master), caller })
}

pub fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(number) = descriptors.first()
        {
            return sys::passed_descriptor(*number);
        }
    }
    Err(io::Error::other("no terminal came"))
}

/// One direction: from a descriptor into another, with a little buffer between.
#[derive(Debug)]
pub struct Pump {
    from: OwnedFd,
    into: Option<OwnedFd>,
    buffer: Vec<u8>,
    ended: bool,
    /// Whether what was written before the command ended is still to be passed on.
    drain: bool,
    /// Written once when the input ends, instead of closing.
    last_word: Option<u8>,
}

impl Pump {
    fn new(from: OwnedFd, into: OwnedFd) -> Self {
        Self { from, into: Some(into), buffer: Vec::new(), ended: false, drain: false, last_word: None }
    }

    fn drained(mut self) -> Self {
        self.drain = true;
        self
    }

    /// What this pump waits for now, if it still runs.
    fn interest(&self) -> Option<Interest<'_>> {
        let into = self.into.as_ref()?;
        match (self.buffer.is_empty(), self.ended) {
            (false, _) => Some(Interest { fd: into.as_fd(), events: libc::POLLOUT }),
            (true, false) => Some(Interest { fd: self.from.as_fd(), events: libc::POLLIN }),
            (true, true) => None,
        }
    }

    /// Whether output has nowhere to go any more, which is something else than having ended.
    fn unheard(&self) -> bool {
        self.drain && self.into.is_none() && !self.ended
    }

    fn step(&mut self) -> io::Result<()> {
        match self.buffer.is_empty() {
            true => self.fill(),
            false => self.pour(),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; BUFFER];
        match nix::unistd::read(&self.from, &mut bytes) {
            // The last process on the other side of a terminal has gone: EIO.
            Ok(0) | Err(Errno::EIO) => self.end(),
            Ok(length) => self.buffer.extend_from_slice(&bytes[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn end(&mut self) {
        self.ended = true;
        match self.last_word.take() {
            Some(word) => self.buffer.push(word),
            None => self.into = None,
        }
    }

    fn pour(&mut self) -> io::Result<()> {
        let Some(into) = &self.into else {
            return Ok(());
        };
        match nix::unistd::write(into, &self.buffer) {
            Ok(length) => {
                self.buffer.drain(..length);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody reads any more: the rest of this direction has no meaning.
            Err(Errno::EPIPE | Errno::EIO) => self.into = None,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

/// The caller's terminal without echo and line editing, until this is dropped.
#[derive(Debug)]
struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    fn new(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before) {
            tracing::error!(%error, "cannot restore the terminal; `reset` does");
        }
    }
}

/// Everything that goes on between caller and command.
#[derive(Debug)]
pub struct Relay {
    pumps: Vec<Pump>,
    terminal: Option<OwnedFd>,
    caller: Option<RawTerminal>,
}

impl Relay {
    /// Passes bytes, sizes and signals on until the command `pid` has ended and its output is out.
    pub fn run(mut self, pid: Pid) -> io::Result<()> {
        let pidfd = sys::pidfd_open(pid)?;
        let signals = signals()?;
        self.resize()?;
        while !self.turn(&pidfd, &signals)? {}
        self.drain()
    }

    /// Waits once and does what can be done; true when the command has ended.
    fn turn(&mut self, pidfd: &OwnedFd, signals: &SignalFd) -> io::Result<bool> {
        let interest = |fd| Interest { fd, events: libc::POLLIN };
        let mut interests = vec![interest(pidfd.as_fd()), interest(signals.as_fd())];
        let running: Vec<usize> =
            (0..self.pumps.len()).filter(|index| self.pumps[*index].interest().is_some()).collect();
        interests.extend(self.pumps.iter().filter_map(Pump::interest));
        let seen = sys::poll(&interests)?;
        let (ours, theirs) = seen.split_at(2);
        for (index, events) in running.into_iter().zip(theirs) {
            if *events != 0 {
                self.pumps[index].step()?;
            }
        }
        if self.pumps.iter().any(Pump::unheard) {
            self.hang_up();
        }
        if ours.get(1).is_some_and(|events| *events != 0) {
            self.handle(signals, pidfd)?;
        }
        Ok(ours.first().is_some_and(|events| *events != 0))
    }

    /// Closes our side: the command's terminal hangs up, its pipes break. To go on reading for
    /// nobody would keep it running, to stop reading would keep it waiting for ever.
    fn hang_up(&mut self) {
        self.pumps.clear();
        self.terminal = None;
    }

    fn handle(&self, signals: &SignalFd, pidfd: &OwnedFd) -> io::Result<()> {
        while let Some(info) = signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
            match Signal::try_from(number)? {
                Signal::SIGWINCH => self.resize()?,
                signal => match sys::pidfd_send_signal(pidfd.as_fd(), signal) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                },
            }
        }
        Ok(())
    }

    /// Gives the command's terminal the size of the caller's, if both have one.
    fn resize(&self) -> io::Result<()> {
        match (&self.terminal, &self.caller) {
            (Some(terminal), Some(caller)) => {
                let size = sys::terminal_size(caller.terminal.as_fd())?;
                sys::set_terminal_size(terminal.as_fd(), &size)
            }
            _ => Ok(()),
        }
    }

    /// Passes on what the command has written before it ended. Processes that it has left behind
    /// may hold the other side open for ever; so only what is there is taken.
    fn drain(&mut self) -> io::Result<()> {
        for pump in self.pumps.iter_mut().filter(|pump| pump.drain) {
            let flags = OFlag::from_bits_retain(fcntl(&pump.from, FcntlArg::F_GETFL)?);
            fcntl(&pump.from, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
            while pump.into.is_some() {
                pump.step()?;
                if pump.buffer.is_empty() && !readable(&pump.from)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn readable(from: &OwnedFd) -> io::Result<bool> {
    sys::ready(Interest { fd: from.as_fd(), events: libc::POLLIN })
}

/// From here on these signals are read and not delivered. A reader that goes away is an error of
/// writing to it, not the end of this process: a terminal may have to be restored.
fn signals() -> io::Result<SignalFd> {
    let ignored = SigSet::from(Signal::SIGPIPE);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ignored), None)?;
    let mut set: SigSet = FORWARDED.into_iter().collect();
    set.add(Signal::SIGWINCH);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_pump_passes_everything_on_and_closes_what_it_wrote_to() {
        let (from, source) = report::pipe().unwrap();
        let (sink, into) = report::pipe().unwrap();
        let mut pump = Pump::new(from, into);
        File::from(source).write_all(b"some bytes").unwrap();
        while pump.interest().is_some() {
            pump.step().unwrap();
        }
        let mut text = String::new();
        File::from(sink).read_to_string(&mut text).unwrap();
        assert_eq!(text, "some bytes");
    }

    #[test]
    fn the_end_of_input_of_a_terminal_is_a_character() {
        let (from, source) = report::pipe().unwrap();
        let (sink, into) = report::pipe().unwrap();
        let mut pump = Pump::new(from, into);
        pump.last_word = Some(END_OF_INPUT);
        drop(source);
        while pump.interest().is_some() {
            pump.step().unwrap();
        }
        drop(pump);
        let mut bytes = Vec::new();
        File::from(sink).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [END_OF_INPUT]);
    }

    #[test]
    fn output_that_nobody_reads_any_more_is_told_from_output_that_has_ended() {
        let (from, source) = report::pipe().unwrap();
        let (sink, into) = report::pipe().unwrap();
        drop(sink);
        let mut pump = Pump::new(from, into).drained();
        File::from(source).write_all(b"x").unwrap();
        while pump.interest().is_some() {
            pump.step().unwrap();
        }
        assert!(pump.unheard());
        pump.end();
        assert!(!pump.unheard());
    }
}
