//! What this very machine is asked and told without the supervisor: systemd and the journal, by their own programs.

use std::io;
use std::time::Duration;

pub(super) const SYSTEMCTL: &str = "/usr/bin/systemctl";
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// Lines of a unit's last words.
const WORDS: &str = "8";
/// How long a program may take that only looks.
const MOMENT: Duration = Duration::from_secs(10);

/// What a program of this machine says; where it does not run, why.
pub(super) async fn said(program: &str, arguments: &[&str]) -> String {
    match tokio::time::timeout(MOMENT, run(program, arguments)).await {
        Ok(Ok((_, said))) => said,
        Ok(Err(error)) => format!("{program} does not run: {error}"),
        Err(_) => format!("{program} gives no answer"),
    }
}

/// Runs a program to its end: whether it went well, and what it said.
pub(super) async fn run(program: &str, arguments: &[&str]) -> io::Result<(bool, String)> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the supervisor may be away, so there is nobody to ask; by absolute path"
    )]
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments).kill_on_drop(true).output().await?;
    let both = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&both).into_owned()))
}

/// The newest lines that a unit wrote.
pub(super) async fn last_words(unit: &str) -> Vec<String> {
    let words = said(JOURNALCTL, &["--no-pager", "--output=cat", "--lines", WORDS, "--unit", unit]).await;
    words.lines().map(str::to_owned).collect()
}
