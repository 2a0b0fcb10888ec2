//! `berth setup`: brings Berth up on this very machine, step by step. Every step looks before it does anything, so after
//! a failure at any of them the same command goes on where it was.
//!
//! ```text
//! forget failures ─> keys, certificates, token (berth-setup) ─> name server, commands ─> supervisor ─> it answers
//!                                                               with --repair also ─> examine and repair the machine
//! ```

use std::time::Duration;

use super::args::{DiagnosticsArgs, SetupArgs};
use super::failure::Failure;
use super::local::{self, SYSTEMCTL};
use super::{Context, diagnostics, follow};
use crate::request::Request;

/// What is started, in order, and what it is for.
const STEPS: [(&str, &str); 4] = [
    ("berth-setup.service", "keys, certificates and token"),
    ("berth-exec.socket", "commands in services"),
    ("berth-dns.service", "name server"),
    ("berthd.service", "supervisor"),
];
/// How often the supervisor is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(context: &Context, args: &SetupArgs) -> Result<(), Failure> {
    if !context.client.transport().is_socket() {
        return Err(Failure::Usage(
            "setup is for this very machine: leave --server out, and run it as root".to_owned(),
        ));
    }
    if context.is_printing() {
        return Err(Failure::Usage("setup sends no request that could be printed: it starts units".to_owned()));
    }
    let all = async {
        for (unit, what) in STEPS {
            started(context, unit, what, args.repair).await?;
        }
        answers(context).await
    };
    follow::bounded(context, "the setup", "berth setup", all).await?;
    if args.repair {
        return diagnostics::run(context, &DiagnosticsArgs { no_loopback: true, repair: true }).await;
    }
    context.say("Berth is set up; `berth diagnostics` examines the machine")
}

/// With `again` even what was done before is looked at once more; services run on meanwhile.
async fn started(context: &Context, unit: &str, what: &str, again: bool) -> Result<(), Failure> {
    // A unit that failed too often is not started before that is forgotten; there may be nothing to forget.
    local::said(SYSTEMCTL, &["reset-failed", unit]).await;
    let verb = if again { "restart" } else { "start" };
    let wrong =
        |why: String, words: Vec<String>| Failure::Step { what: what.to_owned(), why, words, unit: unit.to_owned() };
    match local::run(SYSTEMCTL, &[verb, unit]).await {
        Ok((true, _)) => context.note(&format!("{what}: {unit} is up")),
        Ok((false, said)) => {
            Err(wrong(said.lines().next().unwrap_or_default().to_owned(), local::last_words(unit).await))
        }
        Err(error) => Err(wrong(format!("{SYSTEMCTL} does not run: {error}"), Vec::new())),
    }
}

/// Waits until the supervisor answers, whatever it answers first.
async fn answers(context: &Context) -> Result<(), Failure> {
    let version = Request::get(&["version"]);
    loop {
        let asked = context.client.transport().json::<serde_json::Value>(&version);
        if asked.await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
