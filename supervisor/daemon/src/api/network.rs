//! Questions about the network: answered from the very plan that the kernel's rules are rendered from.

use berth_model::network::{Plan, UnknownParty};
use berth_model::resource::bundle::Protocol;
use berth_model::status::Reason;
use serde::Serialize;

use super::reply::{self, Error, Reply};
use super::request::Ask;
use crate::network;

/// `GET .../network`: every namespace's network and who is on it.
pub(super) async fn status(ask: Ask) -> Reply {
    let mut status = plan(&ask).await?.status();
    status.problems.extend(ask.api.overlaps.borrow().iter().cloned());
    shown(&status)
}

/// `GET .../network/verdicts?from=web&to=db[&namespace=default][&port=5432[/udp]]`.
pub(super) async fn verdicts(ask: Ask) -> Reply {
    let (from, to) = (needed(&ask, "from")?, needed(&ask, "to")?);
    let port = ask.query("port").map(port).transpose()?;
    let verdicts = plan(&ask).await?.inquire(namespace(&ask), from, to, port);
    shown(&verdicts.map_err(unknown)?)
}

/// `GET .../network/lookup?from=web&name=db[&namespace=default]`.
pub(super) async fn lookup(ask: Ask) -> Reply {
    let (from, name) = (needed(&ask, "from")?, needed(&ask, "name")?);
    let lookup = plan(&ask).await?.look_up(namespace(&ask), from, name);
    shown(&lookup.map_err(unknown)?)
}

async fn plan(ask: &Ask) -> Result<Plan, Error> {
    Ok(network::plan(&ask.api.store).await?)
}

fn namespace(ask: &Ask) -> &str {
    ask.query("namespace").unwrap_or("default")
}

fn needed<'a>(ask: &'a Ask, name: &str) -> Result<&'a str, Error> {
    ask.query(name).ok_or_else(|| Error::bad_request(format!("say ?{name}=")))
}

fn unknown(error: UnknownParty) -> Error {
    Error::new(Reason::NotFound, error.to_string())
}

fn port(text: &str) -> Result<(Protocol, u16), Error> {
    let wrong = || Error::bad_request(format!("port={text} is not understood; write 5432 or 53/udp"));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    number.parse().ok().filter(|number| *number > 0).map(|number| (protocol, number)).ok_or_else(wrong)
}

fn shown(answer: &impl Serialize) -> Reply {
    let answer = serde_json::to_value(answer);
    let answer = answer.map_err(|_| Error::new(Reason::InternalError, "the answer could not be shown"))?;
    Ok(reply::json(&answer))
}
