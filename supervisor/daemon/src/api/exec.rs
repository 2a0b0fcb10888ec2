//! `exec`: a command in a running service, over a WebSocket in the way that Kubernetes' clients speak.
//!
//! ```text
//! client ── GET, Upgrade: websocket, command=..&stdin=..&tty=.. ──► begin ──► 101 ──► relay until one side ends
//! ```
//!
//! Both directions run by themselves: a command that writes before it reads must not wait for a client
//! that writes before it reads. What hangs up here is seen by the helper, which kills the command.

use berth_model::policy::Subject;
use berth_model::session::{Frame, Refusal, Size};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::channels::{ERROR, OUTPUT, broken, ended, ended_with, on, stopping, understood};
use super::reply::{Error, Reply};
use super::request::Ask;
use super::stream::PortError;
use super::websocket::{Handshake, PING, PROTOCOLS, SILENCE, Sink, Stream, farewell, open};
use crate::session::{Hearing, Saying, Session};

/// A terminal whose size nobody has told yet.
const TERMINAL: Size = Size { rows: 24, columns: 80 };

/// Runs commands in services.
pub trait CommandsPort: Send + Sync {
    /// Begins one and comes back when it runs, or does not.
    fn begin(&self, request: CommandRequest) -> BoxFuture<'_, Result<Begun, PortError>>;
}

/// Which command in which service, as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// Namespace of the bundle.
    pub namespace: String,
    /// Name of the bundle.
    pub bundle: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal.
    pub terminal: Option<Size>,
    /// Input will come.
    pub input: bool,
    /// As in an image; absent is the service's own user.
    pub user: Option<String>,
}

/// What came of beginning a command.
#[derive(Debug)]
pub enum Begun {
    /// It runs.
    Running(Session),
    /// The container is there, the program is not, or cannot be run.
    Refused(Refusal),
}

/// What the client wants to hear.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    output: bool,
    error: bool,
}

/// `GET .../bundles/{name}/exec`.
pub(super) async fn exec(ask: Ask) -> Reply {
    let shake = Handshake::of(&ask.headers, &PROTOCOLS)?;
    ask.only_container()?;
    let (request, wanted) = request(&ask)?;
    let upgrade = ask.upgrade()?;
    tell(&ask.subject, &request);
    let begun = ask.api.commands.begin(request).await?;
    let stop = ask.ending();
    let open = (ask.api.metrics.session_opened(), ask.stream);
    tokio::spawn(async move {
        serve(upgrade, begun, wanted, stop).await;
        drop(open);
    });
    shake.answer()
}

/// Who runs commands where is worth a line; what they are may hold secrets.
fn tell(subject: &Subject, request: &CommandRequest) {
    let (who, program) = (subject.identity(), request.command.first().map_or("", String::as_str));
    tracing::info!(who, namespace = request.namespace, bundle = request.bundle, program, "exec");
}

fn request(ask: &Ask) -> Result<(CommandRequest, Wanted), Error> {
    let command: Vec<String> =
        ask.query.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect();
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::bad_request("say what to run: ?command=<program>&command=<argument>..."));
    }
    let wanted = Wanted { output: ask.flag("stdout")?, error: ask.flag("stderr")? };
    let input = ask.flag("stdin")?;
    if !(input || wanted.output || wanted.error) {
        return Err(Error::bad_request("ask for at least one of stdin=true, stdout=true and stderr=true"));
    }
    let terminal = if ask.flag("tty")? { Some(size(ask)?) } else { None };
    let user = ask.query("user").map(str::to_owned);
    let (namespace, bundle) = (ask.namespace(), ask.name());
    Ok((CommandRequest { namespace, bundle, command, terminal, input, user }, wanted))
}

/// The terminal's first size, for a command that asks at once; Kubernetes' clients tell it later.
fn size(ask: &Ask) -> Result<Size, Error> {
    let number = |name, otherwise| match ask.number(name)?.map(u16::try_from) {
        None => Ok(otherwise),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(Error::bad_request(format!("{name} is larger than any terminal"))),
    };
    Ok(Size { rows: number("rows", TERMINAL.rows)?, columns: number("columns", TERMINAL.columns)? })
}

async fn serve(upgrade: OnUpgrade, begun: Begun, wanted: Wanted, stop: CancellationToken) {
    let Some((mut sink, mut stream)) = open(upgrade).await else { return };
    let last = match begun {
        Begun::Refused(refusal) => Some(ended_with(refusal.code, &refusal.message)),
        Begun::Running(session) => relay(&mut sink, &mut stream, session, wanted, stop).await,
    };
    if let Some(status) = last
        && let Err(error) = farewell(&mut sink, &mut stream, &status).await
    {
        tracing::debug!(%error, "a client left before it heard how its command ended");
    }
}

/// Until the command has ended, the client is gone, or the daemon stops; what is to be told.
async fn relay(
    sink: &mut Sink,
    stream: &mut Stream,
    session: Session,
    wanted: Wanted,
    stop: CancellationToken,
) -> Option<Value> {
    let (mut hearing, mut saying) = session.split();
    tokio::select! {
        status = output(sink, &mut hearing, wanted) => status,
        () = input(stream, &mut saying) => None,
        () = stop.cancelled() => Some(stopping()),
    }
}

/// From the command to the client; nothing to be told if that one has gone.
async fn output(sink: &mut Sink, hearing: &mut Hearing, wanted: Wanted) -> Option<Value> {
    let mut look = interval_at(Instant::now() + PING, PING);
    loop {
        let message = tokio::select! {
            frame = hearing.next() => match frame {
                Ok(Frame::Output(bytes)) if wanted.output => on(OUTPUT, &bytes),
                Ok(Frame::Error(bytes)) if wanted.error => on(ERROR, &bytes),
                Ok(Frame::Ended(code)) => return Some(ended(code)),
                Ok(_) => continue,
                Err(error) => return Some(broken(&error)),
            },
            _ = look.tick() => Message::Ping(bytes::Bytes::new()),
        };
        sink.send(message).await.ok()?;
    }
}

/// From the client to the command, until that client has gone.
async fn input(stream: &mut Stream, saying: &mut Saying) {
    while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
        let frame = match message {
            Message::Binary(bytes) => understood(&bytes),
            Message::Text(text) => understood(text.as_bytes()),
            Message::Close(_) => return,
            _ => None,
        };
        if let Some(frame) = frame
            && let Err(error) = saying.say(&frame).await
        {
            // The command has ended; how, is heard on the other half.
            tracing::trace!(%error, "input came too late");
            return std::future::pending().await;
        }
    }
}
