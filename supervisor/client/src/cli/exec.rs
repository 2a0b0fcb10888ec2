//! `berth exec`: a command in a service, with this program's own streams. Its exit code is the
//! command's.
//!
//! With `-t` the terminal here becomes a plain wire: keys go to the command unread, its size is told
//! again whenever it changes, and however the command ends the terminal is put back.

use std::io::{self, IsTerminal, Read, Write};

use reqwest::Method;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::Context;
use super::args::ExecArgs;
use super::failure::Failure;
use crate::channels::{End, Heard, Hearing, Saying, halves};
use crate::client::berth;
use crate::request::Request;

/// Read from standard input at once.
const BUFFER: usize = 16 << 10;

pub(super) async fn run(context: &Context, args: &ExecArgs) -> Result<(), Failure> {
    if args.tty && !context.is_printing() && !std::io::stdin().is_terminal() {
        let message = "-t needs a terminal on standard input; leave it out when input comes from a file or a pipe";
        return Err(Failure::Usage(message.into()));
    }
    let socket = context.client.transport().web_socket(&request(context, args)).await?;
    let (hearing, saying) = halves(socket);
    let raw = args.tty.then(RawTerminal::begin).transpose()?;
    let end = talk(args, hearing, saying).await;
    drop(raw);
    match end? {
        End { code: Some(0), .. } => Ok(()),
        End { code: Some(code @ (126 | 127)), message } => Err(Failure::NotRun { code, message }),
        End { code: Some(code), .. } => Err(Failure::Ended(code)),
        End { code: None, message } => Err(Failure::NotRun { code: 1, message }),
    }
}

fn request(context: &Context, args: &ExecArgs) -> Request {
    let path = ["namespaces", &context.namespace, "bundles", &args.name, "exec"];
    // What is told later may come too late for a command that asks at once.
    let size = args.tty.then(crossterm::terminal::size).and_then(Result::ok);
    let mut request = berth(&path, Method::GET)
        .query("stdin", args.interactive)
        .query("stdout", true)
        .query("stderr", !args.tty)
        .query("tty", args.tty)
        .query_if("columns", size.map(|(columns, _)| columns))
        .query_if("rows", size.map(|(_, rows)| rows))
        .query_if("user", args.user.as_ref());
    for word in &args.command {
        request = request.query("command", word);
    }
    request
}

/// Both directions by themselves, until the command has ended.
async fn talk(args: &ExecArgs, mut hearing: Hearing, mut saying: Saying) -> Result<End, Failure> {
    tokio::select! {
        end = listen(&mut hearing) => end,
        failed = speak(args, &mut saying) => Err(failed),
    }
}

async fn listen(hearing: &mut Hearing) -> Result<End, Failure> {
    loop {
        match hearing.next().await.map_err(broken)? {
            Some(Heard::Output(bytes)) => write(&mut std::io::stdout(), &bytes)?,
            Some(Heard::Error(bytes)) => write(&mut std::io::stderr(), &bytes)?,
            Some(Heard::Ended(end)) => return Ok(end),
            None => return Err(Failure::Usage("the server hung up without telling how the command ended".into())),
        }
    }
}

fn write(into: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    into.write_all(bytes).and_then(|()| into.flush()).map_err(Failure::Output)
}

/// Comes back only with a failure: what is said ends with what is heard.
async fn speak(args: &ExecArgs, saying: &mut Saying) -> Failure {
    match speaking(args, saying).await {
        // Nobody takes input any more: how the command ended is about to be heard.
        Ok(()) | Err(Failure::Connection(_)) => std::future::pending().await,
        Err(failure) => failure,
    }
}

async fn speaking(args: &ExecArgs, saying: &mut Saying) -> Result<(), Failure> {
    let mut resized = signal(SignalKind::window_change()).map_err(Failure::Runtime)?;
    // The server waits a moment before it tells anything to a client that says nothing.
    saying.input(&[]).await.map_err(broken)?;
    if args.tty {
        tell_size(saying).await?;
    }
    let mut input = args.interactive.then(input);
    loop {
        tokio::select! {
            read = next(&mut input) => match read {
                Some(bytes) => saying.input(&bytes.map_err(Failure::Input)?).await.map_err(broken)?,
                None => {
                    input = None;
                    saying.end_of_input().await.map_err(broken)?;
                }
            },
            Some(()) = resized.recv(), if args.tty => tell_size(saying).await?,
        }
    }
}

type Pieces = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Standard input in pieces. It is read by a thread of its own, which nothing waits for: it may wait
/// for a key that nobody presses.
fn input() -> Pieces {
    let (pieces, read) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let piece = match io::stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = piece.is_err();
            if pieces.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    read
}

/// The next piece, or the end; for ever where there is no input.
async fn next(input: &mut Option<Pieces>) -> Option<io::Result<Vec<u8>>> {
    match input {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}

async fn tell_size(saying: &mut Saying) -> Result<(), Failure> {
    let (columns, rows) = crossterm::terminal::size().map_err(Failure::Input)?;
    saying.resize(columns, rows).await.map_err(broken)
}

fn broken(error: SocketError) -> Failure {
    Failure::Connection(Box::new(error))
}

/// The terminal without echo and line editing, until this is dropped.
struct RawTerminal;

impl RawTerminal {
    fn begin() -> Result<Self, Failure> {
        crossterm::terminal::enable_raw_mode().map_err(Failure::Input)?;
        Ok(Self)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = crossterm::terminal::disable_raw_mode() {
            eprintln!("the terminal could not be put back ({error}); `reset` does");
        }
    }
}
