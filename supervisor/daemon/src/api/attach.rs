//! `attach`: the output of a running service from now on, over a WebSocket in the way that Kubernetes' clients speak.
//! A service's own input is nobody's to write to; commands with one are run by `exec`.

use berth_model::status::Reason;
use futures_util::{SinkExt, TryStreamExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::channels::{OUTPUT, broken, ended, on, stopping};
use super::reply::{Error, Reply};
use super::request::Ask;
use super::stream::{ByteStream, LogRequest};
use super::websocket::{Handshake, PROTOCOLS, Sink, Stream, farewell, gone, open};

/// `GET .../pods/{name}/attach`.
pub(super) async fn attach(ask: Ask) -> Reply {
    let shake = Handshake::of(&ask.headers, &PROTOCOLS)?;
    ask.only_container()?;
    if ask.flag("stdin")? {
        let message = "a service's own input cannot be written to; run a command in it with exec, or attach without -i";
        return Err(Error::new(Reason::BadRequest, message));
    }
    let request = LogRequest {
        namespace: ask.namespace(),
        bundle: ask.name(),
        follow: true,
        tail_lines: Some(0),
        since: None,
        timestamps: false,
        previous: false,
    };
    let output = ask.api.logs.open(request).await?;
    let (upgrade, stop, session) =
        (ask.upgrade()?, ask.ending(), (ask.api.metrics.session_opened(), ask.stream.clone()));
    tokio::spawn(async move {
        if let Some((sink, stream)) = open(upgrade).await {
            serve(sink, stream, output, stop).await;
        }
        drop(session);
    });
    shake.answer()
}

async fn serve(mut sink: Sink, mut stream: Stream, output: ByteStream, stop: CancellationToken) {
    let last = tokio::select! {
        last = relay(&mut sink, output) => last,
        () = gone(&mut stream) => None,
        () = stop.cancelled() => Some(stopping()),
    };
    if let Some(status) = last
        && let Err(error) = farewell(&mut sink, &mut stream, &status).await
    {
        tracing::debug!(%error, "a client left before it heard that the output has ended");
    }
}

/// Until the service has ended; nothing to be told if the client has gone.
async fn relay(sink: &mut Sink, mut output: ByteStream) -> Option<Value> {
    loop {
        match output.try_next().await {
            Ok(Some(bytes)) => sink.send(on(OUTPUT, &bytes)).await.ok()?,
            Ok(None) => return Some(ended(0)),
            Err(error) => return Some(broken(&error)),
        }
    }
}
