//! The machine itself: what is used.

use berth_model::usage::Usage;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::reply::{self, Reply};
use super::request::Ask;
use super::stream::PortError;

/// Whoever looks after the machine.
pub trait SystemPort: Send + Sync {
    /// What bundles and the machine use now.
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>>;
}

/// `GET .../system/usage`: one look; rates are the difference between two.
pub(super) async fn usage(ask: Ask) -> Reply {
    Ok(reply::json(&json!(ask.api.system.usage().await?)))
}
