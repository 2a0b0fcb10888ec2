//! Commands in a guest, over one of its virtio-serial ports: the client's side of [`crate::wire`].
//!
//! A [`Channel`] owns one port for as long as it lives. A thread reads frames and hands each to its stream; any number
//! of commands may run at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::{self, Ended, Frame, Kind, Start};

/// The guest could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// All ports are taken by other clients, or QEMU is gone.
    #[error("no free command port in {0}")]
    NoPort(PathBuf),
    /// The agent did not answer in time: the guest hangs or has not booted.
    #[error("the guest's agent did not answer within {0:?}")]
    Silent(Duration),
    /// The port broke.
    #[error("talking to the guest's agent")]
    Port(#[source] io::Error),
    /// The command ran longer than its limit; it was killed.
    #[error("still running after {limit:?}: {command}")]
    TooLong {
        /// What was run.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The guest went away under the command.
    #[error("the guest went away while it ran: {0}")]
    Gone(String),
    /// The command failed.
    #[error("{command}: {ended:?}\n{said}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        ended: Ended,
        /// What it printed.
        said: String,
    },
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its exit code was 0.
    pub fn success(&self) -> bool {
        self.ended == Ended::Code(0)
    }

    /// The exit code, 128 and the signal's number where a signal ended it, as a shell has it.
    pub fn code(&self) -> i32 {
        match &self.ended {
            Ended::Code(code) => *code,
            Ended::Signal(signal) => 128 + signal,
            Ended::NotStarted(_) => 127,
        }
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A session with the agent.
pub struct Channel {
    next: AtomicU32,
    shared: Arc<Shared>,
    _port: File,
}

struct Shared {
    session: u32,
    socket: UnixStream,
    write: Mutex<()>,
    streams: Mutex<HashMap<u32, Sender<Frame>>>,
}

impl Channel {
    /// Takes a free port of the machine in `home` and waits until its agent answers.
    pub fn open(home: &Path, patience: Duration) -> Result<Channel, ChannelError> {
        let (port, socket) = free_port(home)?;
        let session = std::process::id() ^ u32::from_ne_bytes(random_bytes(home)?);
        let shared = Arc::new(Shared { session, socket, write: Mutex::new(()), streams: Mutex::new(HashMap::new()) });
        let (hello, greeted) = channel();
        shared.streams().insert(0, hello);
        let reader = BufReader::new(shared.socket.try_clone().map_err(ChannelError::Port)?);
        let listener = Arc::clone(&shared);
        std::thread::spawn(move || listener.listen(reader));
        let channel = Channel { next: AtomicU32::new(1), shared, _port: port };
        channel.greet(&greeted, patience)?;
        Ok(channel)
    }

    /// The first `Hello` may be lost in another client's half frame, so later ones are long enough to fill one up.
    fn greet(&self, greeted: &Receiver<Frame>, patience: Duration) -> Result<(), ChannelError> {
        let until = Instant::now() + patience;
        let mut body = Vec::new();
        for _ in 0..4 {
            self.shared.say(0, Kind::Hello, body)?;
            match greeted.recv_timeout((patience / 4).min(until.saturating_duration_since(Instant::now()))) {
                Ok(_) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(ChannelError::Gone("greeting".into())),
                Err(RecvTimeoutError::Timeout) => body = vec![0; wire::MOST],
            }
        }
        Err(ChannelError::Silent(patience))
    }

    /// Starts a command and returns at once.
    pub fn start(&self, argv: &[&str], env: &[(&str, &str)]) -> Result<Running, ChannelError> {
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, frames) = channel();
        self.shared.streams().insert(stream, to);
        let start = Start {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let body = serde_json::to_vec(&start).map_err(|err| ChannelError::Port(err.into()))?;
        self.shared.say(stream, Kind::Start, body)?;
        Ok(Running { shared: Arc::clone(&self.shared), stream, frames, command: argv.join(" ") })
    }

    /// Runs a command to its end, `input` on its standard input.
    pub fn run(&self, argv: &[&str], input: &[u8], limit: Duration) -> Result<Output, ChannelError> {
        let running = self.start(argv, &[])?;
        running.stdin().write(input)?;
        running.stdin().close()?;
        running.finish(limit)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Ends the reading thread; a socket that is closed already is as good.
        let _closed = self.shared.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Shared {
    fn say(&self, stream: u32, kind: Kind, body: Vec<u8>) -> Result<(), ChannelError> {
        let _one_at_a_time = self.write.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = Frame { session: self.session, stream, kind, body };
        wire::send(&mut &self.socket, &frame).map_err(ChannelError::Port)
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Sender<Frame>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, mut from: BufReader<UnixStream>) {
        while let Ok(frame) = wire::receive(&mut from) {
            if frame.session != self.session {
                continue;
            }
            let (stream, last) = (frame.stream, frame.kind == Kind::Ended);
            let mut streams = self.streams();
            // A reader that lost interest is no fault.
            let unwanted = streams.get(&stream).is_some_and(|to| to.send(frame).is_err());
            if last || unwanted {
                streams.remove(&stream);
            }
        }
        self.streams().clear();
    }
}

/// A command under way in the guest. Dropping it lets it run on, unheard.
pub struct Running {
    shared: Arc<Shared>,
    stream: u32,
    frames: Receiver<Frame>,
    command: String,
}

/// The standard input of a running command.
pub struct Stdin {
    shared: Arc<Shared>,
    stream: u32,
}

impl Stdin {
    /// Some bytes of it.
    pub fn write(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        bytes.chunks(wire::MOST).try_for_each(|bytes| self.shared.say(self.stream, Kind::Input, bytes.to_vec()))
    }

    /// Its end.
    pub fn close(self) -> Result<(), ChannelError> {
        self.shared.say(self.stream, Kind::InputEnd, Vec::new())
    }
}

/// Something a running command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes on its standard output.
    Output(Vec<u8>),
    /// Bytes on its standard error.
    Error(Vec<u8>),
    /// The end.
    Ended(Ended),
}

impl Running {
    /// Its standard input, for another thread.
    pub fn stdin(&self) -> Stdin {
        Stdin { shared: Arc::clone(&self.shared), stream: self.stream }
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<(), ChannelError> {
        self.shared.say(self.stream, Kind::Signal, vec![u8::try_from(signal as i32).unwrap_or(9)])
    }

    /// The next thing it does.
    pub fn next(&self, limit: Duration) -> Result<Event, ChannelError> {
        let frame = self.frames.recv_timeout(limit).map_err(|err| match err {
            RecvTimeoutError::Timeout => ChannelError::TooLong { command: self.command.clone(), limit },
            RecvTimeoutError::Disconnected => ChannelError::Gone(self.command.clone()),
        })?;
        Ok(match frame.kind {
            Kind::Output => Event::Output(frame.body),
            Kind::Ended => {
                Event::Ended(serde_json::from_slice(&frame.body).map_err(|err| ChannelError::Port(err.into()))?)
            }
            _ => Event::Error(frame.body),
        })
    }

    /// Waits for its end and returns all it printed from now on. At the limit it is killed.
    pub fn finish(self, limit: Duration) -> Result<Output, ChannelError> {
        let until = Instant::now() + limit;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Output(bytes)) => stdout.extend(bytes),
                Ok(Event::Error(bytes)) => stderr.extend(bytes),
                Ok(Event::Ended(ended)) => return Ok(Output { ended, stdout, stderr }),
                Err(ChannelError::TooLong { command, .. }) => {
                    self.signal(nix::sys::signal::Signal::SIGKILL)?;
                    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
                    return Err(ChannelError::TooLong { command: format!("{command}\n{said}"), limit });
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// Collects standard output until `wanted` holds for all of it; the command runs on.
    pub fn until(&self, limit: Duration, mut wanted: impl FnMut(&str) -> bool) -> Result<String, ChannelError> {
        let until = Instant::now() + limit;
        let mut seen = String::new();
        while !wanted(&seen) {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Event::Output(bytes) | Event::Error(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Event::Ended(ended) => {
                    return Err(ChannelError::Failed { command: self.command.clone(), ended, said: seen });
                }
            }
        }
        Ok(seen)
    }
}

/// A port's lock file is held by its one client.
fn free_port(home: &Path) -> Result<(File, UnixStream), ChannelError> {
    for n in 0..wire::PORTS {
        let lock = File::create(home.join(format!("agent.{n}.lock"))).map_err(ChannelError::Port)?;
        if lock.try_lock().is_ok() {
            let socket = UnixStream::connect(home.join(format!("agent.{n}.sock"))).map_err(ChannelError::Port)?;
            return Ok((lock, socket));
        }
    }
    Err(ChannelError::NoPort(home.to_owned()))
}

fn random_bytes(home: &Path) -> Result<[u8; 4], ChannelError> {
    let mut bytes = [0; 4];
    let random = ring::rand::SystemRandom::new();
    let filled = ring::rand::SecureRandom::fill(&random, &mut bytes);
    filled.map_err(|_| ChannelError::NoPort(home.to_owned()))?;
    Ok(bytes)
}
