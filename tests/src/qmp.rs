//! QEMU's control socket: one command at a time, events kept while they wait to be asked for.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// QEMU could not be steered.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket is not there or broke.
    #[error("talking to QEMU")]
    Socket(#[source] io::Error),
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {why}")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's description.
        why: String,
    },
    /// What was waited for did not happen.
    #[error("QEMU did not report {0} in time")]
    Silent(String),
}

/// A connection to one QEMU.
pub struct Qmp {
    from: BufReader<UnixStream>,
    to: UnixStream,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(socket: &Path) -> Result<Qmp, QmpError> {
        let to = UnixStream::connect(socket).map_err(QmpError::Socket)?;
        let from = BufReader::new(to.try_clone().map_err(QmpError::Socket)?);
        let mut qmp = Qmp { from, to, events: VecDeque::new() };
        qmp.read(Duration::from_secs(30), "its greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.to.write_all(line.as_bytes()).map_err(QmpError::Socket)?;
        loop {
            let mut said = self.read(Duration::from_secs(60), command)?;
            if let Some(error) = said.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), why });
            }
            match said.get_mut("return") {
                Some(answer) => return Ok(answer.take()),
                None => self.events.push_back(said),
            }
        }
    }

    /// Waits for an event of that name, past or to come.
    pub fn wait_for(&mut self, event: &str, limit: Duration) -> Result<Value, QmpError> {
        let until = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|seen| seen["event"] == event) {
                return self.events.remove(at).ok_or_else(|| QmpError::Silent(event.to_owned()));
            }
            let seen = self.read(until.saturating_duration_since(Instant::now()), event)?;
            self.events.push_back(seen);
        }
    }

    fn read(&mut self, limit: Duration, waited_for: &str) -> Result<Value, QmpError> {
        let limit = limit.max(Duration::from_millis(1));
        self.to.set_read_timeout(Some(limit)).map_err(QmpError::Socket)?;
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(0) => Err(QmpError::Socket(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line).map_err(|err| QmpError::Socket(err.into())),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Err(QmpError::Silent(waited_for.to_owned())),
            Err(err) => Err(QmpError::Socket(err)),
        }
    }
}
