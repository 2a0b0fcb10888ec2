//! The only place that starts external programs.
//!
//! A [`Command`] names its program by absolute path, gets an environment with nothing in it but
//! `LANG` and `PATH`, and runs in a process group of its own. Whoever drops the future or the
//! stream, or lets the time limit pass, ends that whole group. What the program writes is bounded:
//! too much on stdout is an error, of stderr the end is kept for the error message.
//!
//! ```text
//! Command --run()----> write stdin | read stdout | read stderr --> wait --> Output or CmdError
//!         --stream()-> Lines: one line at a time, the exit status is checked at the end
//! ```
//!
//! The group is only ever signalled before its leader was waited for, so that its id cannot
//! belong to somebody else by then.

mod lines;

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdout};

pub use lines::{Line, Lines};

/// `PATH` of every program started here, for the few that look for helpers of their own.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Time limit of a [`Command::run`] that names no other.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of stdout that [`Command::run`] takes unless told otherwise.
const DEFAULT_STDOUT_LIMIT: usize = 4 << 20;
/// Bytes of stderr that are kept, counted from the end.
const STDERR_KEPT: usize = 8 << 10;
/// Lines of stderr that go into an error.
const STDERR_LINES: usize = 8;

/// Why an external program did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// The path is not absolute, so that what would run depends on who asks.
    #[error("refusing to start {} by a relative path", .program.display())]
    RelativePath {
        /// What was asked for.
        program: PathBuf,
    },
    /// The program could not be started at all.
    #[error("starting {}", .program.display())]
    Start {
        /// Absolute path.
        program: PathBuf,
        /// Not found, not executable, out of processes.
        #[source]
        source: io::Error,
    },
    /// A pipe to or from the program failed.
    #[error("exchanging data with {}", .program.display())]
    Exchange {
        /// Absolute path.
        program: PathBuf,
        /// What the pipe said.
        #[source]
        source: io::Error,
    },
    /// The time limit passed; the process group was killed.
    #[error("{} did not end within {:?} and was killed", .program.display(), .limit)]
    TimedOut {
        /// Absolute path.
        program: PathBuf,
        /// The limit that passed.
        limit: Duration,
    },
    /// More came on stdout than the caller is willing to hold; the process group was killed.
    #[error("{} wrote more than {limit} bytes and was killed", .program.display())]
    TooMuchOutput {
        /// Absolute path.
        program: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// The program ran and said no.
    #[error("{} ended with {ended}: {stderr}", .program.display())]
    Failed {
        /// Absolute path.
        program: PathBuf,
        /// Exit code or signal.
        ended: Ended,
        /// The last lines it wrote to stderr, `no message` when there were none.
        stderr: String,
    },
}

impl CmdError {
    /// Whether the program is not installed.
    #[must_use]
    pub fn is_missing_program(&self) -> bool {
        matches!(self, CmdError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    fn of(status: ExitStatus) -> Ended {
        match status.code() {
            Some(code) => Ended::Code(code),
            None => Ended::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "exit code {code}"),
            Ended::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a program that ended well had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr: Vec<u8>,
}

/// One call of an external program, not started yet.
#[derive(Clone, Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    stdout_limit: usize,
}

impl Command {
    /// A call of the program at this absolute path.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Command {
        Command {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            timeout: DEFAULT_TIMEOUT,
            stdout_limit: DEFAULT_STDOUT_LIMIT,
        }
    }

    /// One more argument. Arguments are visible to everybody on the machine: no secrets.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Command {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Command {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more variable beside `LANG` and `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Command {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Bytes for stdin; without them stdin is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Command {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long [`Command::run`] may take, 30 s unless told otherwise.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Command {
        self.timeout = limit;
        self
    }

    /// How many bytes of stdout to hold: 4 MiB unless told otherwise; the longest line of a stream.
    #[must_use]
    pub fn stdout_limit(mut self, bytes: usize) -> Command {
        self.stdout_limit = bytes;
        self
    }

    /// Runs to the end. Anything but exit code 0 is [`CmdError::Failed`].
    ///
    /// # Errors
    /// Any [`CmdError`]. When the future is dropped the process group is killed.
    pub async fn run(self) -> Result<Output, CmdError> {
        let mut running = Running::start(&self)?;
        let (program, limit) = (self.program, self.timeout);
        match tokio::time::timeout(limit, running.finish(self.stdin, self.stdout_limit)).await {
            Ok(output) => output,
            Err(_elapsed) => Err(CmdError::TimedOut { program, limit }),
        }
    }

    /// Starts and hands out stdout line by line, without a time limit.
    ///
    /// # Errors
    /// [`CmdError::RelativePath`] and [`CmdError::Start`]; the rest comes from [`Lines::next`].
    pub fn stream(self) -> Result<Lines, CmdError> {
        Lines::start(&self)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that may spawn")]
    fn spawn(&self) -> io::Result<Child> {
        let stdin = match self.stdin {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        tokio::process::Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("LANG", "C")
            .env("PATH", SEARCH_PATH)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    }
}

/// A started process group that dies with this value.
#[derive(Debug)]
struct Running {
    program: PathBuf,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Running {
    fn start(command: &Command) -> Result<Running, CmdError> {
        let program = command.program.clone();
        if !program.is_absolute() {
            return Err(CmdError::RelativePath { program });
        }
        match command.spawn() {
            Ok(mut child) => Ok(Running { stdout: child.stdout.take(), stderr: child.stderr.take(), program, child }),
            Err(source) => Err(CmdError::Start { program, source }),
        }
    }

    async fn finish(&mut self, input: Option<Vec<u8>>, limit: usize) -> Result<Output, CmdError> {
        let stdin = self.child.stdin.take();
        let (wrote, stdout, stderr) =
            tokio::join!(feed(stdin, input), bounded(self.stdout.take(), limit), tail(self.stderr.take()));
        let stderr = self.exchanged(stderr)?;
        let Some(stdout) = self.exchanged(stdout)? else {
            let program = self.program.clone();
            return Err(CmdError::TooMuchOutput { program, limit });
        };
        self.ended(&stderr).await?;
        self.exchanged(wrote)?;
        Ok(Output { stdout, stderr })
    }

    /// Waits for the leader, the last thing done with the group.
    async fn ended(&mut self, stderr: &[u8]) -> Result<(), CmdError> {
        let waited = self.child.wait().await;
        let status = self.exchanged(waited)?;
        if status.success() {
            return Ok(());
        }
        Err(CmdError::Failed { program: self.program.clone(), ended: Ended::of(status), stderr: last_lines(stderr) })
    }

    fn exchanged<T>(&self, result: io::Result<T>) -> Result<T, CmdError> {
        result.map_err(|source| CmdError::Exchange { program: self.program.clone(), source })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No id: the leader was waited for, and its id may be somebody else's by now.
        let Some(id) = self.child.id() else { return };
        if let Err(error) = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL) {
            tracing::warn!(program = %self.program.display(), %error, "could not kill a process group");
        }
    }
}

async fn feed(stdin: Option<tokio::process::ChildStdin>, bytes: Option<Vec<u8>>) -> io::Result<()> {
    let (Some(mut stdin), Some(bytes)) = (stdin, bytes) else {
        return Ok(());
    };
    match stdin.write_all(&bytes).await {
        // It ended without reading everything: its exit status tells whether that was fine.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Everything up to `limit` bytes, `None` when there is more.
async fn bounded(source: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(source) = source {
        source.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// Reads to the end and keeps the last [`STDERR_KEPT`] bytes.
async fn tail(source: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut source) = source else {
        return Ok(kept);
    };
    while source.read_buf(&mut kept).await? > 0 {
        if kept.len() > 2 * STDERR_KEPT {
            kept.drain(..kept.len() - STDERR_KEPT);
        }
    }
    kept.drain(..kept.len().saturating_sub(STDERR_KEPT));
    Ok(kept)
}

fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "no message".to_owned();
    }
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command::new("/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_program_gets_its_arguments_and_stdin_and_its_output_comes_back() {
        let output = Command::new("/bin/cat").arg("-").stdin("one\ntwo\n").run().await.unwrap();
        assert_eq!(output.stdout, b"one\ntwo\n");
    }

    #[tokio::test]
    async fn a_program_sees_nothing_of_our_environment() {
        let output = Command::new("/usr/bin/env").env("EXTRA", "yes").run().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["EXTRA=yes", "LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    }

    #[tokio::test]
    async fn a_failure_names_the_program_the_code_and_what_it_said() {
        let error = shell("echo all is lost >&2; exit 7").run().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh ended with exit code 7: all is lost");
    }

    #[tokio::test]
    async fn a_failure_keeps_only_the_last_lines_of_a_long_complaint() {
        let error = shell("seq 1 100000 >&2; exit 1").run().await.unwrap_err();
        let CmdError::Failed { stderr, .. } = error else { panic!("{error}") };
        assert_eq!(stderr.lines().count(), STDERR_LINES);
        assert!(stderr.ends_with("\n100000"), "{stderr}");
    }

    #[tokio::test]
    async fn death_by_signal_is_told_apart_from_an_exit_code() {
        let error = shell("kill -9 $$").run().await.unwrap_err();
        assert!(matches!(error, CmdError::Failed { ended: Ended::Signal(9), .. }), "{error}");
    }

    #[tokio::test]
    async fn a_relative_path_is_refused() {
        let error = Command::new("cat").run().await.unwrap_err();
        assert_eq!(error.to_string(), "refusing to start cat by a relative path");
    }

    #[tokio::test]
    async fn a_program_that_is_not_installed_is_recognised() {
        let error = Command::new("/no/such/program").run().await.unwrap_err();
        assert!(error.is_missing_program());
    }

    #[tokio::test]
    async fn too_much_output_ends_the_program() {
        let error = shell("yes").stdout_limit(1000).run().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh wrote more than 1000 bytes and was killed");
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_its_stdin_is_fine() {
        shell("exit 0").stdin(vec![b'x'; 1 << 20]).run().await.unwrap();
    }

    /// Holds a fifo's writing end for as long as a grandchild of the command lives.
    async fn ends_with_its_children(start: impl AsyncFnOnce(Command)) {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("alive");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
        let fifo = fifo.display();
        start(shell(&format!("(exec 3>{fifo}; echo up; exec sleep 1000) & wait"))).await;
        // A writer of our own that ends at once, for a grandchild that never came to open it.
        drop(std::fs::OpenOptions::new().write(true).open(dir.path().join("alive")).unwrap());
        let mut seen = Vec::new();
        tokio::time::timeout(Duration::from_secs(60), reader.read_to_end(&mut seen))
            .await
            .expect("the grandchild outlived its command")
            .unwrap();
    }

    #[tokio::test]
    async fn a_time_limit_kills_the_children_of_the_program_too() {
        ends_with_its_children(async |command| {
            let error = command.timeout(Duration::from_millis(300)).run().await.unwrap_err();
            assert!(matches!(error, CmdError::TimedOut { .. }), "{error}");
        })
        .await;
    }

    #[tokio::test]
    async fn dropping_a_stream_kills_the_program_and_its_children() {
        ends_with_its_children(async |command| {
            let mut lines = command.stream().unwrap();
            assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(b"up".to_vec())));
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_gives_lines_then_the_verdict() {
        let mut lines = shell("echo a; echo; printf b; exit 3").stream().unwrap();
        for expected in [&b"a"[..], b"", b"b"] {
            assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(expected.to_vec())));
        }
        let error = lines.next().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh ended with exit code 3: no message");
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_reported_and_the_stream_goes_on() {
        let mut lines = shell("echo 12345678901; echo 1234567890").stdout_limit(10).stream().unwrap();
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(b"1234567890".to_vec())));
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
