//! Runs the command, and what it prints, the way a shell would.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::fake::Fake;

/// No command runs longer; only a broken one comes so far.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished command leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A program with nothing of this environment but the way to its server.
#[allow(clippy::disallowed_methods, reason = "the command is what these tests are about")]
fn program(path: &str, fake: Option<&Fake>) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("COLUMNS", "100").kill_on_drop(true);
    if let Some(fake) = fake {
        command.env("BERTH_SERVER", &fake.address);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn berth(fake: Option<&Fake>, line: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_berth"), fake);
    command.args(line);
    command
}

async fn finish(mut command: Command, input: Option<&[u8]>) -> Ran {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input).await.unwrap();
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the command does not end");
    let output = output.unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Fake {
    /// Runs `berth` with these words to its end.
    pub async fn run(&self, line: &[&str]) -> Ran {
        finish(berth(Some(self), line), None).await
    }

    /// The same with something on standard input.
    pub async fn run_with(&self, line: &[&str], input: &[u8]) -> Ran {
        finish(berth(Some(self), line), Some(input)).await
    }

    /// The same with an editor, a line of shell that finds the file's name in `$1`.
    pub async fn run_editing(&self, line: &[&str], editor: &str) -> Ran {
        let mut command = berth(Some(self), line);
        command.env("EDITOR", format!("sh -c '{editor}' sh")).env("TMPDIR", self.dir.path());
        finish(command, None).await
    }

    /// Runs `berth` as somebody whose home is the server's directory.
    pub async fn run_at_home(&self, line: &[&str], input: &[u8]) -> Ran {
        let mut command = berth(Some(self), line);
        command.env("HOME", self.dir.path());
        finish(command, Some(input)).await
    }

    /// Runs what `berth --curl` printed.
    pub async fn shell(&self, line: &str) -> Ran {
        let mut command = program("/bin/sh", None);
        command.args(["-c", line]);
        finish(command, None).await
    }

    /// Starts `berth` and leaves it running. It can be interrupted, as on a terminal, also where these tests themselves
    /// run in the background and cannot.
    pub fn start_berth(&self, line: &[&str]) -> Running {
        let mut command = program("/usr/bin/env", Some(self));
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_berth")]).args(line);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }
}

/// Runs `berth` without a scripted server.
pub async fn alone(line: &[&str]) -> Ran {
    finish(berth(None, line), None).await
}

/// A command that goes on until it is ended.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line of its output.
    pub async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("no further line comes");
        line.unwrap().expect("the output has ended")
    }

    /// Presses Ctrl-C and waits for the end.
    pub async fn interrupt(self) -> Ran {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let output = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await.unwrap().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::new(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
