//! The machine itself: what is used, and how it is found when it is examined.

use axum::body::Body;
use axum::response::Response;
use berth_model::diagnostics::Diagnosis;
use berth_model::machine::Machine;
use berth_model::usage::Usage;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::reply::{self, Reply};
use super::request::Ask;
use super::stream::PortError;

/// Whoever looks after the machine.
pub trait SystemPort: Send + Sync {
    /// What bundles and the machine use now.
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>>;
    /// A look at it, or two a moment apart if rates are wanted.
    fn machine(&self, rates: bool) -> BoxFuture<'_, Result<Machine, PortError>>;
    /// Examines everything; it goes on to its end even if nobody waits for it any more.
    fn diagnose(&self, request: DiagnoseRequest) -> BoxFuture<'_, Result<Diagnosis, PortError>>;
    /// One archive for whoever helps, without secrets; with what services wrote only if `output`.
    fn support_bundle(&self, output: bool) -> BoxFuture<'_, Result<Vec<u8>, PortError>>;
}

/// What an examination is to do besides looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiagnoseRequest {
    /// Make a bundle, try it, and throw it away.
    pub loopback: bool,
    /// Remove what belongs to nothing, and start what should run.
    pub repair: bool,
}

/// `GET .../system/usage`: one look; rates are the difference between two.
pub(super) async fn usage(ask: Ask) -> Reply {
    Ok(reply::json(&json!(ask.api.system.usage().await?)))
}

/// `POST .../system/diagnostics[?loopback=true][&repair=true]`: everything that was looked at.
pub(super) async fn diagnose(ask: Ask) -> Reply {
    ask.no_dry_run()?;
    let request = DiagnoseRequest { loopback: ask.flag("loopback")?, repair: ask.flag("repair")? };
    Ok(reply::json(&json!(ask.api.system.diagnose(request).await?)))
}

/// `GET .../system/support-bundle[?serviceLogs=true]`: a tar file packed with zstd.
pub(super) async fn support_bundle(ask: Ask) -> Reply {
    let archive = ask.api.system.support_bundle(ask.flag("serviceLogs")?).await?;
    let mut response = Response::new(Body::from(archive));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    Ok(response)
}
