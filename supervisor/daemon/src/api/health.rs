//! Whether the machine lives, is ready, what it runs and what it counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_model::health::{MachineHealth, Waiting, waited_for};
use berth_model::policy::Subject;
use berth_model::resource::Bundle;
use berth_model::resource::settings::{self, Settings};
use berth_model::status::Reason;
use http::StatusCode;
use serde_json::json;

use super::Api;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::system::told;
use crate::metrics;
use crate::store::ReadTx;
use crate::update::trial;

const TEXT: &str = "text/plain; charset=utf-8";

/// Which parts of the daemon are ready. A part says so itself; clones share what was said.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// Says how a part fares: `Err` holds why it is not ready, and what to do. A part that has
    /// once said something counts from then on.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    fn snapshot(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `GET /livez`: the process answers.
pub(super) async fn livez(_: Ask) -> Reply {
    Ok(reply::text(TEXT, "ok\n"))
}

/// `GET /readyz`: every part is ready. Which one is not is told to known subjects only.
pub(super) async fn readyz(ask: Ask) -> Reply {
    let parts = parts(&ask.api).await;
    let ready = parts.values().all(Result::is_ok);
    let line = |(part, state): (&&str, &Result<(), String>)| match state {
        Ok(()) => format!("[+] {part}\n"),
        Err(why) => format!("[-] {part}: {why}\n"),
    };
    let verdict = if ready { "ok\n" } else { "not ready\n" };
    let details: String = match ask.subject {
        Subject::Anonymous => String::new(),
        _ => parts.iter().map(line).collect(),
    };
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(reply::with_code(code, reply::text(TEXT, details + verdict)))
}

/// How each part of the daemon fares.
async fn parts(api: &Api) -> BTreeMap<&'static str, Result<(), String>> {
    let mut parts = api.readiness.snapshot();
    let store = api.store.read(|_| Ok(())).await;
    parts.insert("store", store.map_err(|error| error.to_string()));
    let sealer = api.sealer.locked().map_or(Ok(()), |why| Err(why.to_string()));
    parts.insert("secrets", sealer);
    parts
}

/// `GET .../system/health`: whether all that should serve does.
pub(super) async fn machine(ask: Ask) -> Reply {
    let look = |tx: &ReadTx<'_>| Ok((tx.list::<Bundle>(None)?, trial(tx)?, tx.get::<Settings>("", settings::NAME)?));
    let (bundles, before, settings) = ask.api.store.read(look).await?;
    let unready = parts(&ask.api).await.into_iter();
    let unready = unready.filter_map(|(what, state)| Some(Waiting { what: what.to_owned(), why: state.err()? }));
    let lost = before.reached && !ask.api.system.versions().await?.reached;
    let network = lost.then(|| Waiting {
        what: "network".to_owned(),
        why: "the machine has no address, and had one with the version before".to_owned(),
    });
    let waiting = unready.chain(network).chain(waited_for(&bundles, &before.excused)).collect();
    let timeout = settings.map(|settings| settings.spec.updates).unwrap_or_default().health_timeout_seconds;
    Ok(told("MachineHealth", &MachineHealth::of(waiting, timeout)))
}

/// `GET /version`, in the shape Kubernetes' clients read.
pub(super) async fn version(_: Ask) -> Reply {
    let berth = env!("CARGO_PKG_VERSION");
    Ok(reply::json(&json!({
        "major": "1", "minor": "33", "gitVersion": format!("v1.33.0+berth-{berth}"), "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", std::env::consts::ARCH), "berthVersion": berth,
    })))
}

/// `GET /metrics`, as OpenMetrics.
pub(super) async fn metrics(ask: Ask) -> Reply {
    let text = ask.api.metrics.scrape().await;
    let text = text.map_err(|_| Error::new(Reason::InternalError, "the metrics could not be written; ask again"))?;
    Ok(reply::text(metrics::CONTENT_TYPE, text))
}
