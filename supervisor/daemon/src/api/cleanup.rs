//! Cleanup: what it removes, or would.

use berth_model::cleanup::Report;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::reply::{self, Reply};
use super::request::Ask;
use super::stream::PortError;

/// Whoever cleans up.
pub trait CleanupPort: Send + Sync {
    /// Removes what nothing needs and is old enough, or only tells what that is.
    fn run(&self, dry_run: bool) -> BoxFuture<'_, Result<Report, PortError>>;
}

/// `POST .../system/cleanup`: what was removed, or with `?dryRun=All` would be.
pub(super) async fn cleanup(ask: Ask) -> Reply {
    let report = ask.api.cleanup.run(ask.dry_run()?).await?;
    Ok(reply::json(&json!(report)))
}
