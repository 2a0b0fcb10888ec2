//! The output of a program that keeps running, line by line.

use std::io;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::task::JoinHandle;

use super::{CmdError, Command, Running, tail};

/// One line of a [`Lines`] stream, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The whole line.
    Whole(Vec<u8>),
    /// The line was longer than the limit and was thrown away.
    TooLong,
}

/// Standard output of a running program, line by line. Dropping it kills the program.
#[derive(Debug)]
pub struct Lines {
    running: Running,
    /// Gone once it has ended.
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Stderr,
    partial: Partial,
}

#[derive(Debug)]
enum Stderr {
    Reading(JoinHandle<io::Result<Vec<u8>>>),
    Ended(Vec<u8>),
}

impl Lines {
    pub(super) fn start(command: &Command) -> Result<Lines, CmdError> {
        let mut running = Running::start(command)?;
        drop(running.child.stdin.take());
        let stderr = tokio::spawn(tail(running.stderr.take()));
        let stdout = running.stdout.take().map(BufReader::new);
        Ok(Lines { running, stdout, stderr: Stderr::Reading(stderr), partial: Partial::new(command.stdout_limit) })
    }

    /// The next line; `None` when the program has ended well. May be dropped halfway without
    /// losing anything.
    ///
    /// # Errors
    /// [`CmdError::Failed`] when the program ended badly, [`CmdError::Exchange`] for the pipe.
    pub async fn next(&mut self) -> Result<Option<Line>, CmdError> {
        if let Some(stdout) = &mut self.stdout {
            let line = self.partial.line(stdout).await;
            if let Some(line) = self.running.exchanged(line)? {
                return Ok(Some(line));
            }
            self.stdout = None;
        }
        if let Stderr::Reading(reading) = &mut self.stderr {
            let stderr = reading.await.unwrap_or_else(|_panicked| Ok(Vec::new()));
            self.stderr = Stderr::Ended(self.running.exchanged(stderr)?);
        }
        let Stderr::Ended(stderr) = &self.stderr else {
            return Ok(None);
        };
        self.running.ended(stderr).await?;
        Ok(None)
    }
}

/// The beginning of a line whose end has not come yet.
#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    too_long: bool,
    limit: usize,
}

impl Partial {
    fn new(limit: usize) -> Partial {
        Partial { bytes: Vec::new(), too_long: false, limit }
    }

    async fn line(&mut self, source: &mut BufReader<ChildStdout>) -> io::Result<Option<Line>> {
        loop {
            let chunk = source.fill_buf().await?;
            if chunk.is_empty() {
                let nothing = self.bytes.is_empty() && !self.too_long;
                return Ok((!nothing).then(|| self.take()));
            }
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let (text, used) = newline.map_or((chunk.len(), chunk.len()), |at| (at, at + 1));
            self.push(&chunk[..text]);
            source.consume(used);
            if newline.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn push(&mut self, text: &[u8]) {
        self.too_long |= self.bytes.len() + text.len() > self.limit;
        if self.too_long {
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(text);
        }
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.bytes);
        match std::mem::take(&mut self.too_long) {
            true => Line::TooLong,
            false => Line::Whole(bytes),
        }
    }
}
